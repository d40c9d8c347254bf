"""Peak memory of training steps beside what is planned for them; a table, and {"stage": "train", ...} a line.

    python benchmarks/training_memory.py              # a few architectures, 2-D and 3-D, both precisions: minutes
    python benchmarks/training_memory.py --case 3     # one of them, in this process

Every case runs in a process of its own: three steps of Adam on random numbers, channels last, on one thread. What is
measured is the growth of the resident set over that after a step of a tiny network, when all libraries are loaded.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import torch

from voxloom import devices, networks
from voxloom.training_memory import DTYPES, training_bytes

STEPS = 3
# (Z, Y, X) and batch make a few hundred MiB, so that a case takes seconds
CASES = [
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


def resident_mib(key: str) -> float:
    """VmRSS or VmHWM (the highest so far) of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"/proc/self/status has no {key}: this benchmark needs Linux")


def learn(network: dict, patch_voxels: tuple[int, ...], batch_size: int, precision: str, *, steps: int) -> None:
    whole = networks.resolved(network)
    form = devices.memory_format(whole["dimensions"])
    made = networks.build(network, seed=0).to(memory_format=form).train()
    optimiser = torch.optim.Adam(made.parameters())
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        x = torch.randn(batch_size, whole["slices"], *patch_voxels[-whole["dimensions"] :], generator=generator)
        networks.draw_dropout(made, samples=batch_size, generator=generator)
        with devices.arithmetic(torch.device("cpu"), DTYPES[precision]):
            logits = made(x.contiguous(memory_format=form))
        scales = logits if isinstance(logits, list) else [logits]
        sum(scale.float().square().mean() for scale in scales).backward()
        optimiser.step()
        optimiser.zero_grad()


def measure(number: int) -> dict:
    network, patch_voxels, batch_size, precision = CASES[number]
    devices.return_freed_memory()
    planned = training_bytes(network, patch_voxels, batch_size, precision) / 2**20
    with devices.reproducible(threads=1):
        tiny = {**network, "widths": [2] * len(networks.resolved(network)["widths"])}
        learn(tiny, tuple(2 * n for n in networks.size_factor(network)), batch_size, precision, steps=1)
        before, begin = resident_mib("VmRSS"), time.monotonic()
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
        learn(network, patch_voxels, batch_size, precision, steps=STEPS)
        seconds = time.monotonic() - begin
    measured = resident_mib("VmHWM") - before
    return {
        "stage": "train",
        "network": network,
        "patch_voxels": patch_voxels,
        "batch_size": batch_size,
        "precision": precision,
        "planned_mib": round(planned, 1),
        "measured_mib": round(measured, 1),
        "measured_over_planned": round(measured / planned, 3),
        "seconds_a_step": round(seconds / STEPS, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", type=int, choices=range(len(CASES)), help="measure this one in this process")
    options = parser.parse_args()
    if options.case is not None:
        print(json.dumps(measure(options.case)))
        return
    for number in range(len(CASES)):
        done = subprocess.run(
            [sys.executable, __file__, "--case", str(number)], check=True, capture_output=True, text=True
        )
        print(done.stdout, end="", flush=True)


if __name__ == "__main__":
    main()
