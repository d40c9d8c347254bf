"""Training steps against PyTorch's eager float32 at the same network, patch and batch: time, memory, share of the roof.

    python benchmarks/training_step.py                       # on the CPU, one thread pinned to one core
    python benchmarks/training_step.py --device cuda         # on a GPU: also its busy share, and nnU-Net's own step
    python benchmarks/training_step.py --cases 2d --edge-2d 128 --rounds 2

Ours is what training does by itself: bfloat16 where the device computes it natively, channels last. The peer computes
in float32 (on a GPU in float16 with a scaled loss, as nnU-Net does), in PyTorch's default order. Rounds are
interleaved, ratios are medians over the rounds; peak memory is read in a process of its own for each variant. FLOPs
are counted, three forward passes a step; the ceiling is the machine's own matrix product in the same run.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import membranes
import nnunet
import numpy as np
import timing
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from voxloom import devices, losses, networks
from voxloom.convolution import Conv3d
from voxloom.objective import objective

LEAST = {"2d": 1.7, "3d": 2.2, "nnunet": 1.0}
LEAST_SHARE = 0.40
MOST_MEMORY = 0.75
LEAST_BUSY = 0.90


@dataclass(frozen=True)
class Case:
    """A network with what it is fed.

    Parameters
    ----------
    words : str
        For the record.
    network : dict
        The keys under ``network`` of a model.
    shape : tuple of int
        (N, C, [Z,] Y, X).
    """

    words: str
    network: dict[str, Any]
    shape: tuple[int, ...]


def network_of(**keys: Any) -> dict[str, Any]:
    return membranes.complete(network=keys, optimiser={"learning_rate": 1e-3})["network"]


def chosen_loss() -> losses.Loss:
    model = membranes.complete(loss={"name": "bce_dice"}, optimiser={"learning_rate": 1e-3})
    return losses.chosen(model["loss"], target="mask")


def cases(options: argparse.Namespace) -> dict[str, Case]:
    flat, deep, batch = options.edge_2d, options.edge_3d, options.batch
    return {
        "2d": Case(f"shallow 2-D U-Net, {batch} x {flat}²", network_of(widths=[32, 64, 128]), (batch, 1, flat, flat)),
        "3d": Case(
            f"3-D U-Net of 5 levels, base {options.base_3d}, {batch} x {deep}³",
            network_of(dimensions=3, widths=[options.base_3d * 2**level for level in range(5)]),
            (batch, 1, deep, deep, deep),
        ),
        "nnunet": Case(
            f"nnU-Net's 2-D network, {nnunet.BATCH_SIZE} x 512²",
            {**network_of(), **nnunet.NETWORK},
            (nnunet.BATCH_SIZE, 1, *nnunet.PATCH_VOXELS[1:]),
        ),
    }


def batch_of(case: Case, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(case.shape, generator=generator)
    mask = (torch.rand(case.shape, generator=generator) > 0.8).float()[:, :1]
    return image.to(device), mask.to(device), torch.zeros_like(mask, dtype=torch.bool).to(device)


def our_step(case: Case, device: torch.device, *, precision: str = "auto") -> Callable[[], None]:
    """What the loop does in a step, the batch being on the device."""
    layout = devices.memory_format(case.network["dimensions"])
    network = networks.build(case.network, seed=0).to(device, memory_format=layout).train()
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    image, mask, ignore = batch_of(case, device)
    image = image.contiguous(memory_format=layout)
    dtype, loss = devices.choose_precision(precision, device), chosen_loss()

    def step() -> None:
        with devices.arithmetic(device, dtype):
            logits = network(image)
        value = objective(logits, mask, ignore, loss=loss, positive_weight=1.0)
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        optimiser.step()
        timing.synchronise(device)

    return step


def eager_step(case: Case, device: torch.device) -> Callable[[], None]:
    """The same network as PyTorch trains it by default; on a GPU in float16 with a scaled loss."""
    network = networks.build(case.network, seed=0).to(device).train()
    for module in network.modules():
        if isinstance(module, Conv3d):
            module.__class__ = nn.Conv3d  # PyTorch's own choice of how to convolve
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    image, mask, ignore = batch_of(case, device)
    loss, is_gpu = chosen_loss(), device.type == "cuda"
    scaler = torch.amp.GradScaler(device.type, enabled=is_gpu)

    def step() -> None:
        with torch.autocast(device.type, dtype=torch.float16, enabled=is_gpu):
            logits = network(image)
        value = objective(logits, mask, ignore, loss=loss, positive_weight=1.0)
        optimiser.zero_grad(set_to_none=True)
        scaler.scale(value).backward()
        scaler.step(optimiser)
        scaler.update()
        timing.synchronise(device)

    return step


STEPS = {"ours": our_step, "eager": eager_step}


def flops_of(case: Case) -> int:
    """Of a training step: three forward passes."""
    network = networks.build(case.network, seed=0).to("meta").train()
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(case.shape, device="meta"))
    return 3 * int(counter.get_total_flops())


def peak_of(name: str, variant: str, options: argparse.Namespace) -> float:
    """Peak memory of three steps above what was resident before the network was made, in a process of its own."""
    words = [sys.executable, __file__, "--peak-of", name, variant, *options.words]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return float(done.stdout)


def print_peak(case: Case, variant: str, device: torch.device) -> None:
    before = timing.forget_peak()
    step = STEPS[variant](case, device)
    for _ in range(3):
        step()
    gpu = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None
    print(timing.resident_mib("VmHWM") - before if gpu is None else gpu)


def busy_share(step: Callable[[], None], *, steps: int = 20) -> float:
    """Share of the time in which a GPU computes, by its own trace."""
    from torch.profiler import ProfilerActivity, profile

    step()
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as trace:
        seconds = timing.interleaved({"steps": lambda: [step() for _ in range(steps)]}, rounds=1)["steps"][0]
    kernels = [event for event in trace.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    return sum(event.device_time for event in kernels) * 1e-6 / (2 * seconds)


def measure(name: str, case: Case, device: torch.device, options: argparse.Namespace) -> None:
    steps = {variant: make(case, device) for variant, make in STEPS.items()}
    ceiling = timing.matrix_flops(devices.choose_precision("auto", device), device)
    seconds = timing.interleaved(steps, rounds=options.rounds)
    faster = timing.ratio(seconds["eager"], seconds["ours"])
    fastest = float(np.median(seconds["ours"]))
    share = flops_of(case) / fastest / ceiling
    peaks = {variant: peak_of(name, variant, options) for variant in STEPS}
    voxels = case.shape[0] * int(np.prod(case.shape[2:]))
    is_gpu, is_ours = device.type == "cuda", name != "nnunet"  # T10's limits are those of our networks
    is_native = devices.choose_precision("auto", device) == torch.bfloat16
    busy = busy_share(steps["ours"]) if is_gpu else None
    timing.record(
        f"training step, {case.words}",
        target="T11" if is_gpu else "T10",
        ours=round(fastest, 4),
        peer=round(float(np.median(seconds["eager"])), 4),
        ratio=round(faster, 2),
        limit=f"at least {LEAST[name]} times as fast"
        + (f", {MOST_MEMORY} of the memory, {LEAST_SHARE:.0%} of the ceiling" if is_ours else ""),
        holds=None
        if not is_native
        else bool(
            faster >= LEAST[name]
            and (not is_ours or peaks["ours"] <= MOST_MEMORY * peaks["eager"])
            and (not is_ours or share >= LEAST_SHARE or is_gpu)
            and (busy is None or busy >= LEAST_BUSY)
        ),
        peak_mib=round(peaks["ours"]),
        peak_mib_peer=round(peaks["eager"]),
        memory_ratio=round(peaks["ours"] / peaks["eager"], 2),
        share_of_ceiling=round(share, 2),
        ceiling_tflops=round(ceiling / 1e12, 3),
        samples_per_s=round(case.shape[0] / fastest, 2),
        megavoxels_per_s=round(voxels / fastest / 1e6, 2),
        busy_share=busy if busy is None else round(busy, 3),
        precision="bfloat16" if is_native else "float32",
        skipped="" if is_native else "this processor has no bfloat16 of its own: both compute in float32",
        threads=options.threads,
        device=str(device),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=LEAST, default=list(LEAST))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=1, help="samples a step in 2d and 3d")
    parser.add_argument("--edge-2d", type=int, default=400)
    parser.add_argument("--edge-3d", type=int, default=96)
    parser.add_argument("--base-3d", type=int, default=16)
    parser.add_argument("--peak-of", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.words = sys.argv[1:]
    nnunet.register()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        timing.skip("training step on a GPU", target="T11", why="no CUDA device on this machine")
        return
    device = devices.choose_device(options.device)
    timing.pin(options.threads)
    if options.peak_of:
        name, variant = options.peak_of
        print_peak(cases(options)[name], variant, device)
        return
    for name in options.cases:
        if name == "nnunet" and not nnunet.is_installed():
            timing.skip("training step, nnU-Net's network", target="T10", why="its package is not installed")
            continue
        measure(name, cases(options)[name], device, options)


if __name__ == "__main__":
    main()
