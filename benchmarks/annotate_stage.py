"""annotate as one stage, against the plain recipe of SciPy and scikit-image on arrays.

    python benchmarks/annotate_stage.py [--size 512] [--rounds 3] [--memory-mib 1024] [--folder FOLDER]

A band of grey values, objects below 2000 voxels removed, the rest grown by 4 µm. Ours reads a stored volume and writes
a stored mask with its coarser levels, on a budget; the plain recipe is given an array in memory and leaves one. One
core; peak memory in a process of its own for each, above what was resident before the image was.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import scipy.ndimage as ndi
import timing
import tissue
from numpy.typing import NDArray
from skimage import morphology

from voxloom import io
from voxloom.recipe import annotate_volume

BAND, MIN_SIZE_VOXELS, GROW_UM = (0, 92), 2000, 4.0
RECIPE = [
    {"threshold": {"between": list(BAND)}},
    {"remove_small_objects": {"min_size_voxels": MIN_SIZE_VOXELS}},
    {"grow": {"grow_um": GROW_UM}},
]
LEAST, MOST_MEMORY = 10.0, 0.25


def write(folder: Path, size: int) -> None:
    shape = (size,) * 3
    with io.create_volume(
        folder / "image.zarr", shape=shape, dtype="uint8", geometry=tissue.GEOMETRY, kind="image", multiscale=False
    ) as out:
        for index, grey in tissue.greys(shape):
            out[index] = grey


def stage(folder: Path, memory_mib: float) -> None:
    """What the rule does."""
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
            threads=1,
            scratch_directory=out.folder,
        )


def plain(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The recipe as one would write it."""
    low, high = (image.dtype.type(value) for value in BAND)
    mask = (image >= low) & (image < high)
    mask = morphology.remove_small_objects(mask, max_size=MIN_SIZE_VOXELS - 1, connectivity=1)
    distance = ndi.distance_transform_edt(~mask, sampling=tissue.GEOMETRY.spacing_um)
    return distance <= GROW_UM * (1 + 1e-6)


def print_peak(contender: str, options: argparse.Namespace) -> None:
    if contender == "ours":
        print(json.dumps({"mib": timing.peak_mib(lambda: stage(options.folder, options.memory_mib))}))
        return
    image = io.open_volume(options.folder / "image.zarr")[:, :, :]
    print(json.dumps({"mib": timing.peak_mib(lambda: plain(image)) + image.nbytes / 2**20}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512, help="edge of the cube, in voxels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory-mib", type=float, default=1024, help="budget of the stage")
    parser.add_argument("--folder", type=Path, help="where a temporary folder is made")
    parser.add_argument("--peak-of", choices=["ours", "plain"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    timing.pin(1)
    if options.peak_of:
        print_peak(options.peak_of, options)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        write(folder, options.size)
        image = io.open_volume(folder / "image.zarr")[:, :, :]
        cases = {"ours": lambda: stage(folder, options.memory_mib), "plain": lambda: plain(image)}
        seconds = timing.interleaved(cases, rounds=options.rounds)
        stored = io.open_volume(folder / "annotation.zarr")[:, :, :]
        same = bool(np.array_equal(stored == 1, plain(image)) and stored.max() == 1)
        words = [__file__, "--folder", name, "--memory-mib", str(options.memory_mib), "--peak-of"]
        peaks = {contender: timing.said_by([*words, contender])[0]["mib"] for contender in ("ours", "plain")}
    faster, memory = timing.ratio(seconds["plain"], seconds["ours"]), peaks["ours"] / peaks["plain"]
    timing.record(
        f"annotate from store to store, {options.size}³, against SciPy and scikit-image on arrays",
        target="annotate",
        ours=round(float(np.median(seconds["ours"])), 2),
        peer=round(float(np.median(seconds["plain"])), 2),
        ratio=round(faster, 2),
        limit=f"at least {LEAST:g} times as fast, at most {MOST_MEMORY} of the memory",
        peak_mib=round(peaks["ours"]),
        peak_mib_peer=round(peaks["plain"]),
        memory_ratio=round(memory, 2),
        identical=same,
        holds=bool(faster >= LEAST and memory <= MOST_MEMORY and same),
    )


if __name__ == "__main__":
    main()
