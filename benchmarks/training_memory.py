"""Peak memory of training beside what was planned for it: of steps, and of whole trainings from store to weights.

    python benchmarks/training_memory.py              # a few architectures, 2-D and 3-D, both precisions: minutes
    python benchmarks/training_memory.py --case 3     # one of them, in this process

Every case runs in a process of its own. A step: three of them with Adam on random numbers, channels last, one thread;
measured is the growth of the resident set over that after a step of a tiny network, when all libraries are loaded. A
training: `voxloom.training.train` on a synthetic volume in a store, with augmentation, checkpoints and validation;
measured is its peak beyond what was there before, as its own log has it. Each is run with a budget so narrow that freed
memory goes back to the system, and with one so wide that it is kept, which is faster. How much is kept is an estimate,
so that there the whole process is compared.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import timing
import torch
import training_loader

from voxloom import checkpoint, devices, heap, losses, networks, training
from voxloom.objective import objective
from voxloom.training_memory import BCE, DTYPES, training_bytes

STEPS = 3
WITHIN = 0.1
# (Z, Y, X) and batch make a few hundred MiB, so that a case takes seconds
OF_A_STEP = [
    ({}, (1, 400, 400), 1, "float32"),
    ({}, (1, 400, 400), 1, "bfloat16"),
    ({"widths": [24, 48, 96, 192], "norm": "instance", "slices": 5, "dropout": 0.2}, (1, 256, 256), 2, "float32"),
    ({"preset": "unet3d_16"}, (32, 64, 64), 1, "float32"),
    ({"preset": "unet3d_16"}, (32, 64, 64), 1, "bfloat16"),
    (
        {"dimensions": 3, "widths": [16, 32, 64], "strides": [[1, 2, 2], [2, 2, 2]], "deep_supervision": True},
        (24, 80, 80),
        1,
        "float32",
    ),
    ({"preset": "zhang2018_projected", "widths": [24, 48, 96]}, (1, 256, 256), 2, "float32"),
    ({"dimensions": 3, "widths": [16, 32, 64], "residual": True, "norm": "group"}, (32, 64, 64), 1, "bfloat16"),
]
WIDE_MIB = 4096
# of trainings also the edge of the volume, and a narrow budget in MiB, where the volume leaves one: what is held, wide
# weights, and validation each weigh most in one of them
OF_A_TRAINING: dict[str, tuple[int, int | None, dict[str, Any]]] = {
    "2-D patches": (
        160,
        300,
        {"network": {"widths": [24, 48, 96]}, "input": {"patch_voxels": [1, 128, 128]}, "batch_size": 8},
    ),
    "whole slices, scaled": (
        192,
        400,
        {"input": {"size": [256, 256]}, "batch_size": 2, "samples_per_epoch": 6},
    ),
    "3-D patches, averaged weights": (
        160,
        None,
        {
            "network": {"dimensions": 3, "widths": [16, 32, 64], "norm": "instance"},
            "input": {"patch_voxels": [32, 64, 64]},
            "batch_size": 2,
            "weights_average": 0.99,
            "precision": "bfloat16",
        },
    ),
    "large volume held": (
        384,
        None,
        {"network": {"widths": [8, 16]}, "input": {"patch_voxels": [1, 64, 64]}, "batch_size": 4},
    ),
    "clDice, accumulated batches": (
        160,
        120,
        {
            "network": {"widths": [8, 16]},
            "input": {"patch_voxels": [1, 256, 256]},
            "batch_size": 5,
            "accumulate_batches": 2,
            "samples_per_epoch": 10,
            "loss": {"terms": {"dice": 1.0, "cldice": 1.0}, "cldice_iterations": 3},
        },
    ),
}
TRAININGS = [
    (name, is_wide) for name, (_, mib, _) in OF_A_TRAINING.items() for is_wide in (False, True) if is_wide or mib
]
CASES = len(OF_A_STEP) + len(TRAININGS)


def learn(network: dict, patch_voxels: tuple[int, ...], batch_size: int, precision: str, *, steps: int) -> None:
    whole = networks.resolved(network)
    form = devices.memory_format(whole["dimensions"])
    made = networks.build(network, seed=0).to(memory_format=form).train()
    optimiser, loss = torch.optim.Adam(made.parameters()), losses.chosen(BCE, target="mask")
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        x = torch.randn(batch_size, whole["slices"], *patch_voxels[-whole["dimensions"] :], generator=generator)
        mask = (x[:, :1] > 1).float()
        ignore = torch.zeros(mask.shape, dtype=torch.bool)
        networks.draw_dropout(made, samples=batch_size, generator=generator)
        with devices.arithmetic(torch.device("cpu"), DTYPES[precision]):
            outputs = made(x.contiguous(memory_format=form))
        objective(outputs, mask, ignore, loss=loss, positive_weight=1.0).backward()
        optimiser.step()
        optimiser.zero_grad()


def measure_steps(network: dict, patch_voxels: tuple[int, ...], batch_size: int, precision: str) -> None:
    devices.return_freed_memory(largest_bytes=heap.KEPT_BYTES)  # in huge pages: some of them are
    planned = training_bytes(network, patch_voxels, batch_size, precision) / 2**20
    with devices.reproducible(threads=1):
        tiny = {**network, "widths": [2] * len(networks.resolved(network)["widths"])}
        learn(tiny, tuple(2 * n for n in networks.size_factor(network)), batch_size, precision, steps=1)
        before, begin = timing.resident_mib(), time.monotonic()
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
        learn(network, patch_voxels, batch_size, precision, steps=STEPS)
        seconds = time.monotonic() - begin
    name = network.get("preset") or "-".join(map(str, network.get("widths", ["shallow"])))
    patch = "×".join(map(str, patch_voxels))
    say(
        f"peak memory of a step [MiB], {name}, {batch_size} × {patch}, {precision}",
        planned,
        timing.resident_mib("VmHWM") - before,
        seconds_a_step=round(seconds / STEPS, 2),
    )


def measure_training(name: str, *, is_wide: bool) -> None:
    edge, narrow_mib, changes = OF_A_TRAINING[name]
    settings = training_loader.complete(
        **{"precision": "float32", "epochs": 3, "samples_per_epoch": 4 * changes["batch_size"], **changes}
    )
    with tempfile.TemporaryDirectory() as folder:
        begin = time.monotonic()
        trained = training.train(
            {"tubes": training_loader.store(Path(folder), edge)},
            boxes=training_loader.parts(edge),
            settings=settings,
            seed=1,
            memory_mib=WIDE_MIB if is_wide else narrow_mib,
            threads=1,
            device="cpu",
            on_checkpoint=lambda state: checkpoint.save_checkpoint(Path(folder) / "state.pt", state, key=""),
        )
        seconds = time.monotonic() - begin
    planned, last = trained.counts["planned_memory_mib"], trained.log[-1]
    before = last["planned_memory_mib"] - planned
    more = {"before_mib": round(before), "seconds": round(seconds, 1)}
    if is_wide:
        name = f"peak memory of a training's process [MiB], freed memory kept, {name}"
        say(name, last["planned_memory_mib"], last["peak_memory_mib"], **more)
    else:
        say(f"peak memory of a training [MiB], {name}", planned, last["peak_memory_mib"] - before, **more)


def say(name: str, planned: float, measured: float, **more: object) -> None:
    timing.record(
        name,
        target="as planned",
        ours=round(measured, 1),
        peer=round(planned, 1),
        ratio=round(measured / planned, 3),
        limit=f"measured within {WITHIN:.0%} of planned",
        holds=abs(measured / planned - 1) <= WITHIN,
        peak_mib=round(measured, 1),
        **more,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", type=int, choices=range(CASES), help="measure this one in this process")
    options = parser.parse_args()
    if options.case is None:
        for number in range(CASES):
            subprocess.run([sys.executable, __file__, "--case", str(number)], check=True)
    elif options.case < len(OF_A_STEP):
        measure_steps(*OF_A_STEP[options.case])
    else:
        name, is_wide = TRAININGS[options.case - len(OF_A_STEP)]
        measure_training(name, is_wide=is_wide)


if __name__ == "__main__":
    main()
