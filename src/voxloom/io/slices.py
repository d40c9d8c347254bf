"""A folder of single slices, TIFF or PNG, as one volume."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxloom.errors import FormatError
from voxloom.io.arrays import Read, array_source, name_axes
from voxloom.io.source import Source
from voxloom.io.tiff import opened_tiff, tiff_geometry
from voxloom.volume import Geometry

SUFFIXES = (".tif", ".tiff", ".png")


def natural_key(path: Path) -> list[tuple[int, int, str]]:
    """Sort key under which slice_9 comes before slice_10.

    Parameters
    ----------
    path : Path

    Returns
    -------
    key : list

    Examples
    --------
    >>> sorted([Path("z10.tif"), Path("z9.tif")], key=natural_key)
    [PosixPath('z9.tif'), PosixPath('z10.tif')]
    """
    words = re.split(r"(\d+)", path.name)
    return [(int(word), len(word), "") if n % 2 else (0, 0, word.casefold()) for n, word in enumerate(words)]


def slice_files(path: Path) -> list[Path]:
    """Files of a folder, or that match a pattern, in natural order.

    Parameters
    ----------
    path : Path
        A folder, or a path whose last part has wildcards: ``scan/*.tif``.

    Returns
    -------
    files : list of Path
        TIFF and PNG files of a folder, without hidden ones.

    Raises
    ------
    FormatError
        If there is no such file.
    """
    if path.is_file():
        return [path]
    if path.is_dir():
        found = [file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")]
        what = f"the folder {path} holds none of {', '.join(f'*{suffix}' for suffix in SUFFIXES)}"
    else:
        found = [file for file in path.parent.glob(path.name) if file.is_file()]
        what = f"no file matches {path}"
    if not found:
        raise FormatError(f"{what}; give a folder or a pattern of single slices")
    return sorted(found, key=natural_key)


def open_slices(path: Path, *, axes: str | None = None) -> Source:
    """Open a folder or a pattern of single-slice files as a volume.

    Parameters
    ----------
    path : Path
        See `slice_files`.
    axes : str, optional
        "ZYX" by default: files along Z, rows along Y. "XYZ" where the files lie along X.

    Returns
    -------
    source : Source

    Raises
    ------
    FormatError
        If a file can't be read, holds more than one slice, or differs from the others in size or type.
    """
    files = slice_files(path)
    kinds = {".tif" if file.suffix.lower() == ".tiff" else file.suffix.lower() for file in files}
    if len(kinds) > 1 or not kinds <= set(SUFFIXES):
        raise FormatError(f"{path} mixes {', '.join(sorted(kinds))}; give a pattern of one kind, such as {path}/*.tif")
    described = [_describe(file) for file in files]
    usual, _ = Counter(described).most_common(1)[0]
    for file, one in zip(files, described, strict=True):
        if one != usual:
            raise FormatError(
                f"{file} is {_shown(one)}, the other slices are {_shown(usual)}; all slices of a volume must agree"
            )
    (size, dtype) = usual
    shape = (len(files), *size)
    own = "ZYX" if len(size) == 2 else "ZYXC"
    geometry: Geometry | None = None
    warnings: tuple[str, ...] = ()
    if kinds == {".tif"}:
        with opened_tiff(files[0]) as first:
            geometry, warnings = tiff_geometry(first)
    named, geometry = name_axes(own, axes, geometry)

    @contextlib.contextmanager
    def opened() -> Iterator[Read]:
        def read(index: tuple[slice, ...]) -> NDArray[Any]:
            return np.stack([_read(file).reshape(size)[index[1:]] for file in files[index[0]]])

        yield read

    return array_source(
        path,
        format="png" if kinds == {".png"} else "tiff",
        shape=shape,
        dtype=np.dtype(dtype),
        axes=named,
        opened=opened,
        facts={"files": len(files), "first file": files[0].name, "last file": files[-1].name},
        geometry=geometry,
        unit_stated=geometry is not None,
        warnings=(*warnings, *_gaps(files)),
    )


def _shown(described: tuple[tuple[int, ...], str]) -> str:
    return f"{' x '.join(map(str, described[0]))} {described[1]}"


def _describe(file: Path) -> tuple[tuple[int, ...], str]:
    if file.suffix.lower() == ".png":
        return _describe_png(file)
    with opened_tiff(file) as tiff:
        if len(tiff.pages) != 1:
            raise FormatError(f"{file} holds {len(tiff.pages)} slices, expected one a file; name that file as the path")
        page = tiff.pages[0]
        return tuple(int(n) for n in page.shape), str(page.dtype)


def _read(file: Path) -> NDArray[Any]:
    if file.suffix.lower() == ".png":
        return _read_png(file)
    with opened_tiff(file) as tiff:
        return np.asarray(tiff.pages[0].asarray())


PNG_MODES = {
    "1": ((), "bool"),
    "L": ((), "uint8"),
    "P": ((), "uint8"),
    "I": ((), "uint16"),
    "I;16": ((), "uint16"),
    "I;16B": ((), "uint16"),
    "LA": ((2,), "uint8"),
    "RGB": ((3,), "uint8"),
    "RGBA": ((4,), "uint8"),
}
"""Channels and type of a PNG file by Pillow's name of its mode; with a palette the values are its entries' numbers."""


@contextlib.contextmanager
def _opened_png(file: Path) -> Iterator[Any]:
    from PIL import PngImagePlugin

    try:
        # not Image.open, which refuses slices above 179 million pixels
        with PngImagePlugin.PngImageFile(file) as image:
            yield image
    except FormatError:
        raise
    except (OSError, SyntaxError, ValueError) as error:
        raise FormatError(f"{file} is not a whole PNG file ({error}); copy it again") from None


def _describe_png(file: Path) -> tuple[tuple[int, ...], str]:
    with _opened_png(file) as image:
        if image.mode not in PNG_MODES:
            raise FormatError(f"{file} is a PNG of mode {image.mode}; save it as greyscale of 8 or 16 bits")
        channels, dtype = PNG_MODES[image.mode]
        return (image.height, image.width, *channels), dtype


def _read_png(file: Path) -> NDArray[Any]:
    with _opened_png(file) as image:
        return np.asarray(image).astype(PNG_MODES[image.mode][1], copy=False)


def _gaps(files: Sequence[Path]) -> tuple[str, ...]:
    """Say where the numbering of the slices jumps."""
    numbers = [re.findall(r"\d+", file.name.rsplit(".", 1)[0]) for file in files]
    if len(files) < 3 or not all(numbers):
        return ()
    last = [int(found[-1]) for found in numbers]
    steps = np.diff(last)
    usual = Counter(steps.tolist()).most_common(1)[0][0]
    odd = np.flatnonzero(steps != usual)
    if usual < 1 or not len(odd):
        return ()
    at = int(odd[0])
    places = f"{len(odd)} places, first" if len(odd) > 1 else "one place,"
    return (f"slice numbers jump in {places} from {files[at].name} to {files[at + 1].name}: is a slice missing?",)
