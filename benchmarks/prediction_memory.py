"""Peak memory of prediction beside what was planned for it, for several architectures and for small tiles.

    python benchmarks/prediction_memory.py              # all: minutes
    python benchmarks/prediction_memory.py --case 3     # one of them, in this process

Every case runs in a process of its own, on one core, after a network of the same kind over a small image, which loads
all libraries. Planned is `voxloom.inference.planned_mib`, beside the interpreter and its libraries. In most cases a
tile has most of the voxels that the budget allows; in the last ones the budget leaves small tiles.
"""

import argparse
import subprocess
import sys
from typing import Any

import numpy as np
import predict_tiles
import timing

from voxloom import inference, plan_cost

SMALL = (32, 64, 64)
Case = tuple[dict[str, Any], tuple[int, int, int], int, bool]
DEEP, FLAT = {"dimensions": 3, "widths": [8, 16, 32]}, {"widths": [16, 32, 64]}
# keys of the network, shape of the image, MiB, and whether tiles are mirrored
CASES: list[Case] = [
    ({**DEEP, "norm": "instance"}, (104, 104, 104), 800, True),
    ({**DEEP, "norm": "instance", "residual": True}, (104, 104, 104), 1000, True),
    ({**DEEP, "norm": "group", "residual": True}, (104, 104, 104), 800, False),
    ({**DEEP, "residual": True}, (104, 104, 104), 640, False),
    ({**DEEP, "upsampling": "nearest"}, (104, 104, 104), 900, True),
    (FLAT, (64, 600, 600), 400, True),
    ({**FLAT, "norm": "instance"}, (64, 600, 600), 640, True),
    ({**FLAT, "norm": "instance", "residual": True}, (64, 600, 600), 800, False),
    ({**FLAT, "norm": "group", "residual": True}, (64, 600, 600), 640, True),
    ({"widths": [64, 128, 256], "norm": "instance", "residual": True}, (8, 400, 400), 1600, True),
    ({**FLAT, "norm": "group"}, (64, 600, 600), 400, True),
    ({"preset": "chen2016"}, (16, 600, 600), 800, False),
    (DEEP, (160, 160, 160), 300, False),
    ({"dimensions": 3, "widths": [8, 16]}, (160, 160, 160), 160, False),
    ({"dimensions": 3, "widths": [16, 32]}, (96, 96, 96), 200, False),
]


def measure(network: dict[str, Any], shape: tuple[int, int, int], memory_mib: int, has_flips: bool) -> None:
    words = ", ".join(f"{key} {value}" for key, value in network.items())
    whole, small = (predict_tiles.scene(words, size, **network) for size in (shape, SMALL))
    for each in (whole, small):
        each.settings["test_time_flips"] = has_flips
    planned, _ = inference.planned_mib(
        [whole.settings],
        whole.image,
        np.empty(shape, dtype=np.uint8),
        weights_mib=plan_cost.weights_mib(whole.settings["network"]),
        memory_mib=memory_mib,
        device="cpu",
        halo_voxels="exact",
    )
    small.predict("exact", memory_mib=4 * memory_mib)
    measured = timing.peak_mib(lambda: whole.predict("exact", memory_mib=memory_mib))
    size = "×".join(map(str, shape))
    timing.record(
        f"peak memory of prediction [MiB], {words}{', mirrored' if has_flips else ''}, {size}, of {memory_mib} MiB",
        target="as planned",
        ours=round(measured, 1),
        peer=round(planned, 1),
        ratio=round(measured / planned, 3),
        limit="≤ planned",
        holds=measured <= planned,
        peak_mib=round(measured, 1),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", type=int, choices=range(len(CASES)), help="measure this one in this process")
    options = parser.parse_args()
    if options.case is None:
        for number in range(len(CASES)):
            subprocess.run([sys.executable, __file__, "--case", str(number)], check=True)
        return
    timing.pin(1)
    measure(*CASES[options.case])


if __name__ == "__main__":
    main()
