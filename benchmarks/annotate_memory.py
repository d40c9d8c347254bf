"""Peak memory and time of annotate and distance on a large volume.

    python benchmarks/annotate_memory.py [--size 1024] [--memory-mib 2048] [--threads 2] [--folder FOLDER]

Prints one JSON line a stage. Each stage runs in a process of its own, so that its peak is its own; the volume is
generated slab by slab: noisy tissue, dark vessels along all three axes, dark cells below 2000 voxels. The recipe is
the published one for vessels.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from voxloom import io
from voxloom.distance import distance_quantisation, distance_volume
from voxloom.recipe import annotate_volume
from voxloom.volume import Geometry

GEOMETRY = Geometry(spacing_um=(1.17, 1.17, 1.17))
CLIP_UM = 10.0
RECIPE = [
    {"threshold": {"below": 60}},
    {"remove_small_objects": {"min_size_voxels": 2000}},
    {"grow": {"grow_um": 4.0}},
]


def generate(folder: Path, size: int, memory_mib: float, threads: int) -> None:
    shape = (size, size, size)
    y, x = np.ogrid[:size, :size]
    with io.create_volume(
        folder / "image.zarr", shape=shape, dtype="uint8", geometry=GEOMETRY, kind="image", multiscale=False
    ) as out:
        for first in range(0, size, out.shard_shape[0]):
            rng = np.random.default_rng(first)
            slab = np.empty((min(out.shard_shape[0], size - first), size, size), np.uint8)
            for k in range(len(slab)):
                z = first + k
                slab[k] = rng.integers(90, 160, (size, size), np.uint8)
                along = ((y % 128 - 64) ** 2 + (x % 160 - 80) ** 2 < 49) | (
                    (y % 200 - 100) ** 2 + (z % 96 - 48) ** 2 < 36
                )
                cells = (y % 40 - 20) ** 2 + (x % 44 - 22) ** 2 + (z % 36 - 18) ** 2 < 36
                slab[k][along | cells] -= 80
            out[first : first + len(slab), :, :] = slab


def annotate(folder: Path, size: int, memory_mib: float, threads: int) -> None:
    image = io.open_volume(folder / "image.zarr")
    with io.create_volume(
        folder / "annotation.zarr", shape=image.shape, dtype="uint8", geometry=image.geometry, kind="annotation"
    ) as out:
        annotate_volume(
            image,
            out,
            RECIPE,
            spacing_um=image.spacing_um,
            memory_mib=memory_mib,
            threads=threads,
            scratch_directory=folder,
        )


def distance(folder: Path, size: int, memory_mib: float, threads: int) -> None:
    annotation = io.open_volume(folder / "annotation.zarr")
    with io.create_volume(
        folder / "distance.zarr",
        shape=annotation.shape,
        dtype="uint16",
        geometry=annotation.geometry,
        kind="distance",
        quantisation=distance_quantisation(CLIP_UM),
    ) as out:
        distance_volume(
            annotation, out, spacing_um=annotation.spacing_um, clip_um=CLIP_UM, memory_mib=memory_mib, threads=threads
        )


STAGES = {"generate": generate, "annotate": annotate, "distance": distance}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024, help="edge of the cube, in voxels")
    parser.add_argument("--memory-mib", type=float, default=2048)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=None, help="where a temporary folder is made")
    parser.add_argument("--stage", choices=STAGES, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        start = time.monotonic()
        STAGES[options.stage](options.folder, options.size, options.memory_mib, options.threads)
        unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
        seconds = time.monotonic() - start
        print(json.dumps({"stage": options.stage, "peak_mib": round(peak_mib), "seconds": round(seconds, 1)}))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        shared = ["--size", str(options.size), "--memory-mib", str(options.memory_mib), "--folder", folder]
        for stage in STAGES:
            command = [sys.executable, __file__, *shared, "--threads", str(options.threads), "--stage", stage]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
