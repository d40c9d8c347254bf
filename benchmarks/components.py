"""Connected components by blocks: against the best library on a volume that fits, and on one four times the budget.

    python benchmarks/components.py [--size 512] [--size-beyond 1024] [--rounds 5] [--connectivity 26] [--folder FOLDER]

On one core. In memory both number the same mask; ours as from a store, slab by slab. The volume that doesn't fit is a
stored mask whose labels take four times the budget; its peak is that of a process of its own. It is 1024³, so that the
budget holds what has to be held at once: a layer of shards, 64 slices of labels.
"""

import argparse
import json
import tempfile
from functools import partial
from pathlib import Path

import cc3d
import numpy as np
import timing
import tissue
from numpy.typing import NDArray

from voxloom import io
from voxloom.instances import label_volume

MOST, TIMES, MORE = 1.5, 4, 1.1


def by_blocks(mask: NDArray[np.uint8], connectivity: int, memory_mib: float) -> NDArray[np.uint32]:
    labels = np.empty(mask.shape, np.uint32)
    label_volume(mask, labels, connectivity=connectivity, memory_mib=memory_mib)
    return labels


def in_memory(options: argparse.Namespace) -> None:
    shape = (options.size,) * 3
    mask = tissue.whole(shape, tissue.masks(shape)).view(np.uint8)
    cases = {
        "ours": partial(by_blocks, mask, options.connectivity, 16 * mask.size / 2**20 / 4),
        "cc3d": partial(
            cc3d.connected_components,
            mask,
            connectivity=options.connectivity,
            binary_image=True,
            out_dtype=np.uint32,
        ),
    }
    same = bool(np.array_equal(cases["ours"](), cases["cc3d"]()))
    seconds = timing.interleaved(cases, rounds=options.rounds)
    longer = timing.ratio(seconds["ours"], seconds["cc3d"])
    timing.record(
        f"connected components by blocks, {options.connectivity} neighbours, {options.size}³, against cc3d",
        target="components",
        ours=round(float(np.median(seconds["ours"])), 3),
        peer=round(float(np.median(seconds["cc3d"])), 3),
        ratio=round(1 / longer, 2),
        limit=f"at most {MOST:g} times its time",
        peak_mib=round(timing.peak_mib(cases["ours"])),
        peak_mib_peer=round(timing.peak_mib(cases["cc3d"])),
        identical=same,
        holds=bool(longer <= MOST and same),
        stage="segment",
    )


def label_stored(folder: Path, connectivity: int, memory_mib: float) -> None:
    mask = io.open_volume(folder / "mask.zarr")
    with io.create_volume(
        folder / "labels.zarr",
        shape=mask.shape,
        dtype="uint32",
        geometry=mask.geometry,
        kind="labels",
        multiscale=False,
    ) as labels:
        label_volume(mask, labels, connectivity=connectivity, memory_mib=memory_mib)


def write_mask(folder: Path, size: int) -> None:
    shape = (size,) * 3
    folder.mkdir()
    with io.create_volume(
        folder / "mask.zarr", shape=shape, dtype="uint8", geometry=tissue.GEOMETRY, kind="mask", multiscale=False
    ) as out:
        for index, mask in tissue.masks(shape):
            out[index] = mask.view(np.uint8)


def print_peak(folder: Path, connectivity: int, memory_mib: float) -> None:
    """After a small volume, so that what libraries take when they are loaded doesn't count."""
    label_stored(folder / "warm", connectivity, memory_mib)
    call = partial(label_stored, folder / "large", connectivity, memory_mib)
    print(json.dumps({"mib": timing.peak_mib(call)}))


def is_equal(folder: Path, connectivity: int) -> bool:
    """Whether the stored labels are those of the whole mask."""
    mask = io.open_volume(folder / "mask.zarr")[:, :, :].view(np.bool_)
    expected = cc3d.connected_components(mask, connectivity=connectivity, binary_image=True, out_dtype=np.uint32)
    labels = io.open_volume(folder / "labels.zarr")
    return all(np.array_equal(labels[z : z + 64], expected[z : z + 64]) for z in range(0, len(expected), 64))


def beyond_memory(options: argparse.Namespace) -> None:
    size = options.size_beyond
    memory_mib = 4 * size**3 / 2**20 / TIMES
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        write_mask(Path(folder) / "warm", 32)
        write_mask(Path(folder) / "large", size)
        how = ["--connectivity", str(options.connectivity), "--peak-of", str(memory_mib)]
        peak = timing.said_by([__file__, "--folder", folder, *how])[0]["mib"]
        same = is_equal(Path(folder) / "large", options.connectivity)
    timing.record(
        f"connected components of a volume {TIMES} times the budget, {size}³ from store to store",
        target="components",
        ours=round(peak),
        peer=round(memory_mib),
        ratio=round(peak / memory_mib, 2),
        limit=f"at most {MORE:g} of the budget",
        peak_mib=round(peak),
        identical=same,
        holds=bool(peak <= MORE * memory_mib and same),
        stage="segment",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512, help="edge of the cube, in voxels")
    parser.add_argument("--size-beyond", type=int, default=1024, help="the same of the volume that doesn't fit")
    parser.add_argument("--connectivity", type=int, choices=[6, 18, 26], default=26)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where a temporary folder is made")
    parser.add_argument("--peak-of", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    timing.pin(1)
    if options.peak_of:
        print_peak(options.folder, options.connectivity, options.peak_of)
        return
    in_memory(options)
    beyond_memory(options)


if __name__ == "__main__":
    main()
