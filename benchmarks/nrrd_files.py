"""Reading and writing gzip NRRD files against pynrrd (T1, T2): time, memory, size, and what other readers find in them.

    python benchmarks/nrrd_files.py [--size 512] [--rounds 5] [--folder FOLDER]

The file that is read is the one that pynrrd writes by default. Grey values are noisy, the mask is of tubes and balls.
"""

import argparse
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nrrd
import numpy as np
import SimpleITK as sitk
import timing
import tissue
from numpy.typing import NDArray

from voxloom.io.nrrd import open_nrrd, write_nrrd

DIRECTIONS_MM = np.diag([edge / 1000 for edge in tissue.GEOMETRY.spacing_um[::-1]])
READ_RATIO, READ_MEMORY, READ_MORE_MIB = 2.0, 1.1, 16
WRITE_LEAST = {"grey": 6.0, "mask": 40.0}
WRITE_LARGEST = {"grey": 1.02, "mask": 2.5}
WRITE_MORE_MIB = 32


def peer_writes(path: Path, values: NDArray[np.uint8]) -> None:
    header = {"space": "left-posterior-superior", "space directions": DIRECTIONS_MM, "encoding": "gzip"}
    nrrd.write(str(path), values, header, index_order="C", compression_level=9)


def we_write(path: Path, values: NDArray[np.uint8]) -> None:
    everywhere = tuple(slice(0, edge) for edge in values.shape)
    write_nrrd(path, [(everywhere, values)], shape=values.shape, dtype=values.dtype, geometry=tissue.GEOMETRY)


def we_read(path: Path) -> NDArray[Any]:
    source = open_nrrd(path)
    return next(source.read_blocks(source.require_shape()[0]))[1]


def medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: float(np.median(rounds)) for name, rounds in seconds.items()}


def mib(values: NDArray[Any]) -> float:
    return values.nbytes / 2**20


def measure_reading(path: Path, grey: NDArray[np.uint8], rounds: int) -> None:
    cases: dict[str, Callable[[], Any]] = {
        "ours": lambda: we_read(path),
        "peer": lambda: nrrd.read(str(path), index_order="C")[0],
    }
    header = nrrd.read_header(str(path))
    geometry = open_nrrd(path).geometry
    assert geometry is not None
    is_equal = bool(
        np.array_equal(we_read(path), grey)
        and np.array_equal(cases["peer"](), grey)
        and np.allclose(np.diag(header["space directions"])[::-1] * 1000, geometry.spacing_um)
    )
    peaks = {name: timing.peak_mib(call) for name, call in cases.items()}
    seconds = timing.interleaved(cases, rounds=rounds)
    faster = timing.ratio(seconds["peer"], seconds["ours"])
    allowed = READ_MEMORY * mib(grey) + READ_MORE_MIB
    timing.record(
        f"read gzip NRRD, {grey.shape[0]}³ uint8 [s]",
        target="T1",
        ours=round(medians(seconds)["ours"], 3),
        peer=round(medians(seconds)["peer"], 3),
        ratio=round(faster, 2),
        limit=f"at least {READ_RATIO:g} × pynrrd, at most {allowed:.0f} MiB (pynrrd: {peaks['peer']:.0f})",
        peak_mib=round(peaks["ours"]),
        identical=is_equal,
        holds=is_equal and faster >= READ_RATIO and peaks["ours"] <= allowed,
        rate=grey.nbytes / medians(seconds)["ours"] / 1e9,
        roof="memory copy",
    )


def is_read_by_others(path: Path, values: NDArray[np.uint8]) -> bool:
    found = nrrd.read(str(path), index_order="C")[0]
    return bool(
        np.array_equal(found, values) and np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), values)
    )


def measure_writing(name: str, folder: Path, values: NDArray[np.uint8], rounds: int) -> None:
    paths = {"ours": folder / f"ours_{name}.nrrd", "peer": folder / f"peer_{name}.nrrd"}
    cases = {
        "ours": lambda: we_write(paths["ours"], values),
        "peer": lambda: peer_writes(paths["peer"], values),
    }
    seconds = timing.interleaved(cases, rounds=rounds)
    peak = timing.peak_mib(cases["ours"])
    sizes = {who: os.path.getsize(path) for who, path in paths.items()}
    faster, larger = timing.ratio(seconds["peer"], seconds["ours"]), sizes["ours"] / sizes["peer"]
    is_equal = is_read_by_others(paths["ours"], values)
    timing.record(
        f"write gzip NRRD, {values.shape[0]}³ {name} [s]",
        target="T2",
        ours=round(medians(seconds)["ours"], 3),
        peer=round(medians(seconds)["peer"], 3),
        ratio=round(faster, 1),
        limit=(
            f"at least {WRITE_LEAST[name]:g} × pynrrd's default, file at most {WRITE_LARGEST[name]:g} × its "
            f"(is {larger:.2f} ×), at most {WRITE_MORE_MIB} MiB beside the array"
        ),
        peak_mib=round(peak),
        identical=is_equal,
        holds=bool(
            is_equal and faster >= WRITE_LEAST[name] and larger <= WRITE_LARGEST[name] and peak <= WRITE_MORE_MIB
        ),
        larger=round(larger, 3),
        rate=sizes["ours"] / medians(seconds)["ours"] / 1e9,
        roof="disk write",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where a temporary folder is made")
    options = parser.parse_args()
    timing.pin(1)
    shape = (options.size,) * 3
    grey = tissue.whole(shape, tissue.greys(shape))
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        measure_writing("grey", folder, grey, options.rounds)
        measure_reading(folder / "peer_grey.nrrd", grey, options.rounds)
        mask = tissue.whole(shape, tissue.masks(shape)).astype(np.uint8)
        measure_writing("mask", folder, mask, options.rounds)


if __name__ == "__main__":
    main()
