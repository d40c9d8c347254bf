"""Peak memory of scoring a large prediction: prints {"stage": "evaluate", "peak_mib": ..., "seconds": ..., ...}.

    python benchmarks/evaluate_memory.py [--size 1024] [--threads 2] [--folder FOLDER]

Tubes with a noisy prediction of them are written slab by slab, split into slabs of 64 slices, and scored in a process
of its own with intervals and clDice, as rule evaluate does.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from voxloom import evaluate, io, split
from voxloom.volume import PROBABILITY, Geometry

SPACING_UM = (1.17, 1.17, 1.17)


def write(folder: Path, size: int) -> None:
    """Write prediction and truth: tubes along z on a lattice, wandering slowly, 5 % of the volume."""
    shape = (size, size, size)
    rng = np.random.default_rng(17)
    noise = rng.normal(0, 45, (64, size, size)).astype(np.float32)
    y, x = np.ogrid[:size, :size]
    geometry = Geometry(SPACING_UM)
    with (
        io.create_volume(
            folder / "truth.zarr", shape=shape, dtype="uint8", geometry=geometry, kind="annotation", multiscale=False
        ) as truth,
        io.create_volume(
            folder / "prediction.zarr",
            shape=shape,
            dtype="uint8",
            geometry=geometry,
            kind="probability",
            quantisation=PROBABILITY,
            multiscale=False,
        ) as prediction,
    ):
        for first in range(0, size, 64):
            slices = slice(first, min(first + 64, size))
            mask = np.zeros((slices.stop - first, size, size), np.uint8)
            for z in range(first, slices.stop):
                shift = 6 * np.sin(z / 40)
                mask[z - first] = ((y + shift) % 32 - 16) ** 2 + ((x + shift) % 32 - 16) ** 2 < 17
            truth[slices] = mask
            prediction[slices] = (
                (60 + 130.0 * mask + np.roll(noise, first, axis=1)[: len(mask)]).clip(0, 255).astype(np.uint8)
            )


def score(folder: Path, threads: int) -> None:
    """Score and print what it took."""
    start = time.perf_counter()
    truth = io.open_volume(folder / "truth.zarr")
    prediction = io.open_volume(folder / "prediction.zarr")
    settings = split.SplitSettings(
        by="block", block_um=(75.0, None, None), gap_um=5.0, test_fraction=0.2, validation_fraction=0.2
    )
    z, y, x = truth.shape
    table = split.make_split(
        [split.SplitVolume("v", "r", (z, y, x), truth.spacing_um)],
        lambda name, boxes: split.count_blocks(truth, boxes, threads=threads),
        settings=settings,
        reach_voxels=[(0, 22, 22)],
        seed=17,
    )
    splitting = time.perf_counter() - start
    found = evaluate.evaluate_prediction(
        {"v": prediction},
        {"annotation": {"v": truth}},
        table,
        fold=0,
        threshold_metric="f1",
        bootstrap_samples=500,
        bootstrap_block_um=20.0,
        seed=17,
        threads=threads,
    )
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    row = found.scores[(found.scores["part"] == "test") & (found.scores["scope"] == "pooled")].iloc[0]
    said = {
        "stage": "evaluate",
        "peak_mib": round(int(status["VmHWM"].split()[0]) / 1024),
        "seconds": round(time.perf_counter() - start, 1),
        "split_seconds": round(splitting, 1),
        "size": z,
        "test_voxels": int(row["voxels"]),
        "average_precision": round(float(row["average_precision"]), 4),
        "cldice": round(float(row["cldice"]), 4),
        "bootstrap_block_um": float(row["bootstrap_block_um"]),
    }
    print(json.dumps(said))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where the temporary files go; 2 GiB")
    parser.add_argument("--score", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.score:
        score(given.score, given.threads)
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        write(Path(folder), given.size)
        words = [sys.executable, __file__, "--score", folder, "--threads", str(given.threads)]
        print(subprocess.run(words, capture_output=True, text=True, check=True).stdout, end="")


if __name__ == "__main__":
    main()
