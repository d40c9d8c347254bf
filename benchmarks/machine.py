"""What this machine can do at most, measured in the run whose figures stand beside it: memory, disk, matrix products.

    python benchmarks/machine.py [--mib 1024] [--rounds 5] [--folder FOLDER]

On one core. A copy counts what it reads and what it writes; a file is written to the disk itself (fsync) and read with
its pages dropped from memory first.
"""

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import timing
import torch

PIECE = 8 << 20


def copy_array(size: int) -> Callable[[], None]:
    source, target = np.ones(size // 4, np.float32), np.zeros(size // 4, np.float32)
    return lambda: np.copyto(target, source)


def write_file(path: Path, size: int) -> Callable[[], None]:
    piece = os.urandom(PIECE)

    def write() -> None:
        with open(path, "wb", buffering=0) as file:
            for _ in range(size // PIECE):
                file.write(piece)
            os.fsync(file.fileno())

    return write


def read_file(path: Path) -> Callable[[], None]:
    buffer = bytearray(PIECE)

    def read() -> None:
        with open(path, "rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            while file.readinto(buffer):
                pass

    return read


def rate(call: Callable[[], object], work: float, *, rounds: int) -> float:
    """Work a second, by the median round."""
    return work / float(np.median(timing.interleaved({"call": call}, rounds=rounds)["call"]))


def say(name: str, value: float, unit: str) -> None:
    timing.record(name, target="machine", ours=float(f"{value:.3g}"), peer=None, ratio=None, limit=unit, holds=None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=1024, help="size of the file, and of both arrays of a copy together")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--edge", type=int, default=timing.GEMM_EDGE, help="of the matrices")
    parser.add_argument("--folder", type=Path, help="on the disk to measure")
    options = parser.parse_args()
    timing.pin(1)
    size = options.mib << 20
    say("memory copy", rate(copy_array(size // 2), size, rounds=options.rounds) / 1e9, "GB/s")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "file"
        say("disk write", rate(write_file(path, size), size, rounds=options.rounds) / 1e9, "GB/s")
        say("disk read", rate(read_file(path), size, rounds=options.rounds) / 1e9, "GB/s")
    for dtype, name in ((torch.float32, "float32"), (torch.bfloat16, "bfloat16")):
        flops = timing.matrix_flops(dtype, torch.device("cpu"), edge=options.edge, rounds=options.rounds)
        say(f"matrix product, {name}", flops / 1e9, "GFLOP/s")


if __name__ == "__main__":
    main()
