"""Reading random patches of 96³ from a stored volume (T4), against zarr-python on the same files and a plain memmap.

    python benchmarks/patches.py [--size 512] [--edge 96] [--patches 24] [--rounds 5] [--folder FOLDER]

Grey values of uint16 with noise in all bits; pages are in memory, so that it is the decoding that counts. A patch meets
some 16 chunks of 64³, more than four times its voxels: decoding them takes longer than 7 times a memmap's copy of the
patch by itself, so that this limit is that of the layout without compression (`convert.compression: none`).
"""

import argparse
import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import timing
import tissue
import zarr

from voxloom import io

LEAST = 1.5
COMPRESSIONS = {"zstd": "a", "none": "an uncompressed"}
MOST_OF_MEMMAP = {"zstd": None, "none": 7.0}

Slices = tuple[slice, slice, slice]


def boxes(shape: tissue.Shape, edge: int, count: int) -> list[Slices]:
    corners = np.random.default_rng(3).integers(0, np.array(shape) - edge + 1, (count, 3))
    return [tuple(slice(first, first + edge) for first in corner) for corner in corners.tolist()]


def write(folder: Path, shape: tissue.Shape) -> None:
    """The volume as a store of either layout and as a plain array."""
    plain = np.lib.format.open_memmap(folder / "plain.npy", "w+", np.uint16, shape)
    with contextlib.ExitStack() as stack:
        outs = [
            stack.enter_context(
                io.create_volume(
                    folder / f"{compression}.zarr",
                    shape=shape,
                    dtype="uint16",
                    geometry=tissue.GEOMETRY,
                    kind="image",
                    multiscale=False,
                    compression=compression,
                )
            )
            for compression in COMPRESSIONS
        ]
        for index, grey in tissue.greys(shape, "uint16"):
            plain[index] = grey
            for out in outs:
                out[index] = grey
    plain.flush()


def reader(source: Any, wanted: list[Slices]) -> Callable[[], int]:
    def read() -> int:
        return sum(int(np.array(source[box])[0, 0, 0]) for box in wanted)

    return read


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def measure(folder: Path, compression: str, wanted: list[Slices], options: argparse.Namespace) -> None:
    store = folder / f"{compression}.zarr"
    sources = {
        "ours": io.open_volume(store),
        "zarr": zarr.open_array(store / "0", mode="r"),
        "memmap": np.load(folder / "plain.npy", mmap_mode="r"),
    }
    is_equal = all(
        np.array_equal(np.asarray(source[box]), sources["memmap"][box]) for source in sources.values() for box in wanted
    )
    cases = {name: reader(source, wanted) for name, source in sources.items()}
    seconds = timing.interleaved(cases, rounds=options.rounds)
    peak = timing.peak_mib(cases["ours"])
    faster, behind = timing.ratio(seconds["zarr"], seconds["ours"]), timing.ratio(seconds["ours"], seconds["memmap"])
    ours, share = float(np.median(seconds["ours"])), size(store) / sources["memmap"].nbytes
    most = MOST_OF_MEMMAP[compression]
    limit = f"at least {LEAST:g} × zarr-python"
    limit += (
        f", at most {most:g} × a memmap's time (is {behind:.1f} ×)" if most else f" ({behind:.1f} × a memmap's time)"
    )
    timing.record(
        f"read {options.patches} random patches of {options.edge}³ from {COMPRESSIONS[compression]} store of "
        f"{options.size}³ uint16 [s]",
        target="T4",
        ours=round(ours, 3),
        peer=round(float(np.median(seconds["zarr"])), 3),
        ratio=round(faster, 2),
        limit=f"{limit}; {share:.2f} of the plain size",
        peak_mib=round(peak, 1),
        identical=is_equal,
        holds=is_equal and faster >= LEAST and (not most or behind <= most),
        times_memmap=round(behind, 2),
        share_of_plain=round(share, 3),
        rate=2 * options.patches * options.edge**3 / ours / 1e9,
        roof="memory copy",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--edge", type=int, default=96)
    parser.add_argument("--patches", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="where a temporary folder is made")
    options = parser.parse_args()
    timing.pin(1)
    shape = (options.size,) * 3
    wanted = boxes(shape, options.edge, options.patches)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        write(Path(folder), shape)
        for compression in COMPRESSIONS:
            measure(Path(folder), compression, wanted, options)


if __name__ == "__main__":
    main()
