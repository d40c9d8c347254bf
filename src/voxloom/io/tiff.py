"""TIFF stacks: ImageJ, OME and plain, classic and BigTIFF."""

from __future__ import annotations

import contextlib
import logging
import math
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxloom.errors import FormatError
from voxloom.io.arrays import Opened, Read, array_source, name_axes
from voxloom.io.files import atomic_file
from voxloom.io.nrrd_geometry import micrometres_per
from voxloom.io.source import Source
from voxloom.volume import Geometry

CLASSIC_BYTES = 4_000_000_000
"""Above this a TIFF file must be a BigTIFF, which not every program opens."""

IMAGEJ_TYPES = ("uint8", "uint16", "float32")
OME_TYPES = ("int8", "int16", "int32", "uint8", "uint16", "uint32", "float32", "float64")


def open_tiff(path: Path, *, axes: str | None = None) -> Source:
    """Open a TIFF stack.

    Parameters
    ----------
    path : Path
    axes : str, optional
        Letters of the stack's axes, slowest first, where the file's own are missing or wrong.

    Returns
    -------
    source : Source
        Axes and voxel size as ImageJ or OME metadata have them; slices of an unnamed axis are Z. A resolution tag
        alone states no voxel size: it lacks the distance of slices, and is mostly a screen's or a printer's.

    Raises
    ------
    FormatError
        If it is not a whole TIFF file, or its pages differ in size or type.
    """
    with opened_tiff(path) as file:
        series = file.series
        if len(series) != 1:
            sizes = ", ".join(f"{one.shape} {one.dtype}" for one in series[:5])
            raise FormatError(
                f"{path} holds {len(series)} images that don't form one stack ({sizes}); save one of them as a file of "
                "its own"
            )
        stack = series[0]
        _refuse_others(path, stack)
        shape, dtype = tuple(int(n) for n in stack.shape), np.dtype(stack.dtype)
        offset = None if stack.is_multifile else stack.dataoffset
        if offset is not None and path.stat().st_size < offset + math.prod(shape) * dtype.itemsize:
            raise FormatError(
                f"{path} is cut short: {shape} of {dtype} end at byte {offset + math.prod(shape) * dtype.itemsize}, "
                f"the file at {path.stat().st_size}; copy it again"
            )
        facts = {
            "encoding": str(getattr(stack.keyframe.compression, "name", "none")).lower(),
            "endian": "little" if file.byteorder == "<" else "big",
            "pages": len(stack.pages),
            "bigtiff": bool(file.is_bigtiff),
            "written_as": "ome" if file.is_ome else "imagej" if file.is_imagej else "plain",
        }
        geometry, warnings = tiff_geometry(file)
        said = file.imagej_metadata or {}
        header = {key: value for key, value in said.items() if isinstance(value, str | int | float)}
        if stack.keyframe.description and not file.is_imagej:
            header["ImageDescription"] = stack.keyframe.description
        own = _letters(path, stack.axes, shape, axes)
        stored = dtype.newbyteorder(file.byteorder)
    named, geometry = name_axes(own, axes, geometry)
    return array_source(
        path,
        format="tiff",
        shape=shape,
        dtype=dtype,
        axes=named,
        opened=_paged(path, shape) if offset is None else _contiguous(path, shape, stored, offset),
        facts=facts,
        geometry=geometry,
        unit_stated=geometry is not None,
        header=header,
        warnings=warnings,
    )


def _refuse_others(path: Path, stack: Any) -> None:
    """Refuse an OME-TIFF whose pages lie in files of other folders."""
    folder = path.resolve().parent
    files = {Path(page.parent.filehandle.path) for page in stack.pages if page is not None and hasattr(page, "parent")}
    outside = sorted(str(file) for file in files if file.resolve().parent != folder)
    if outside:
        raise FormatError(f"{path} has pages in {outside[0]}, outside its folder; move it into {folder}")


@contextlib.contextmanager
def opened_tiff(path: Path) -> Iterator[Any]:
    """Open a TIFF file with tifffile; what tifffile can't make sense of is a FormatError.

    Parameters
    ----------
    path : Path

    Yields
    ------
    file : tifffile.TiffFile
    """
    import tifffile

    said = _Said()
    logger = logging.getLogger("tifffile")
    logger.addHandler(said)
    propagates, logger.propagate = logger.propagate, False
    advice = "copy it again, or correct its suffix if it is something else"
    try:
        with tifffile.TiffFile(path) as file:
            pages = len(file.pages)
            broken = [line for line in said.lines if "TiffPages" in line]
            if broken or not pages:
                raise FormatError(f"{path} is not a whole TIFF file ({'; '.join(broken) or 'no pages'}); {advice}")
            yield file
    except FormatError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, OSError, EOFError, RuntimeError, ArithmeticError) as error:
        raise FormatError(f"{path} is not a whole TIFF file ({error}); {advice}") from error
    finally:
        logger.removeHandler(said)
        logger.propagate = propagates


class _Said(logging.Handler):
    """Keeps what tifffile complains about instead of printing it."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def _letters(path: Path, axes: str, shape: tuple[int, ...], given: str | None) -> str:
    """One letter an axis out of TCZYX; samples are channels, one unnamed axis is Z."""
    letters = axes.upper() if "C" in axes.upper() else axes.upper().replace("S", "C")
    unnamed = [letter for letter in letters if letter not in "TCZYX"]
    if len(unnamed) == 1 and "Z" not in letters:
        return letters.replace(unnamed[0], "Z")
    if unnamed and not given:
        raise FormatError(
            f"{path} has axes {axes} of sizes {shape}, which voxloom can't tell apart; name them, slowest first, with "
            "axes in volumes.tsv"
        )
    return letters


def _contiguous(path: Path, shape: tuple[int, ...], stored: np.dtype[Any], offset: int) -> Opened:
    @contextlib.contextmanager
    def opened() -> Iterator[Read]:
        def read(index: tuple[slice, ...]) -> NDArray[Any]:
            # mapped anew for every slab, so that what was read doesn't stay mapped
            try:
                values = np.memmap(path, stored, mode="r", offset=offset, shape=shape)
            except ValueError as error:
                raise FormatError(f"{path} was cut short while it was read ({error}); copy it again") from None
            return np.array(values[index])

        yield read

    return opened


def _paged(path: Path, shape: tuple[int, ...]) -> Opened:
    """Read page by page, where the pages are compressed or scattered."""

    @contextlib.contextmanager
    def opened() -> Iterator[Read]:
        with opened_tiff(path) as file:
            stack = file.series[0]
            leading = next((n for n in range(len(shape) + 1) if math.prod(shape[:n]) == len(stack.pages)), None)
            if leading is None:
                raise FormatError(f"{path} has {len(stack.pages)} pages for an array of shape {shape}; save it anew")

            def read(index: tuple[slice, ...]) -> NDArray[Any]:
                numbers = np.arange(len(stack.pages)).reshape(shape[:leading])[index[:leading]]
                pages = [_page(path, stack, int(number), shape[leading:])[index[leading:]] for number in numbers.flat]
                return np.stack(pages).reshape(*numbers.shape, *pages[0].shape)

            yield read

    return opened


def _page(path: Path, stack: Any, number: int, shape: tuple[int, ...]) -> NDArray[Any]:
    page = stack.pages[number]
    if page is None:
        raise FormatError(f"{path} lacks page {number} of {len(stack.pages)}; copy it again")
    try:
        return np.asarray(page.asarray()).reshape(shape)
    except (ValueError, OSError, EOFError, RuntimeError, TypeError, zlib.error) as error:
        todo = "pip install imagecodecs, or save it uncompressed" if "imagecodecs" in str(error) else "copy it again"
        raise FormatError(f"page {number} of {path} can't be decoded ({error}); {todo}") from None


def tiff_geometry(file: Any) -> tuple[Geometry | None, tuple[str, ...]]:
    """Voxel size and origin of an open TIFF file.

    Parameters
    ----------
    file : tifffile.TiffFile

    Returns
    -------
    geometry : Geometry or None
        None where one of Z, Y, X lacks a size or a metric unit.
    warnings : tuple of str
        What is stated but doesn't suffice.
    """
    if file.is_ome and file.ome_metadata:
        sizes, origin = _ome_sizes(file.ome_metadata)
    elif file.is_imagej and file.imagej_metadata:
        sizes, origin = _imagej_sizes(file)
    else:
        return None, ()
    given = {axis: size for axis, size in sizes.items() if size is not None and np.isfinite(size) and size > 0}
    if len(given) == 3:
        return Geometry((given["Z"], given["Y"], given["X"]), origin), ()
    if given:
        stated = ", ".join(f"{axis} {size:.6g} um" for axis, size in given.items())
        return None, (f"the file states a voxel size of {stated}, but not all of Z, Y and X",)
    return None, ()


def _ome_sizes(xml: str) -> tuple[dict[str, float | None], tuple[float, float, float]]:
    # by pattern, not by an XML parser: two attributes are wanted, and entities in a data file are not
    found = re.search(r"<(?:\w+:)?Pixels\b[^>]*>", xml)
    text = found.group(0) if found else ""
    sizes: dict[str, float | None] = {}
    for axis in "ZYX":
        size = re.search(rf'\bPhysicalSize{axis}="([^"]*)"', text)
        unit = re.search(rf'\bPhysicalSize{axis}Unit="([^"]*)"', text)
        # the schema's default is the micrometre
        factor = micrometres_per(unit.group(1).replace("&#181;", "\N{MICRO SIGN}")) if unit else 1.0
        sizes[axis] = _number(size.group(1)) * factor if size and factor else None
    return sizes, (0.0, 0.0, 0.0)


def _imagej_sizes(file: Any) -> tuple[dict[str, float | None], tuple[float, float, float]]:
    said = file.imagej_metadata
    unit = str(said.get("unit", ""))
    tags = file.pages[0].tags
    steps: dict[str, float | None] = {"Z": said.get("spacing")}
    for axis, name in (("Y", "YResolution"), ("X", "XResolution")):
        per_unit = tags[name].value if name in tags else (0, 1)
        steps[axis] = per_unit[1] / per_unit[0] if per_unit[0] else None
    sizes: dict[str, float | None] = {}
    for axis, step in steps.items():
        own = str(said.get(f"{axis.lower()}unit", unit)).replace("\\u00B5", "\N{MICRO SIGN}")
        factor = micrometres_per(own)
        sizes[axis] = abs(float(step)) * factor if step is not None and factor else None
    # ImageJ counts the origin in voxels from the first one
    z, y, x = (-_number(said.get(f"{axis.lower()}origin", 0)) * (sizes[axis] or 0.0) for axis in "ZYX")
    return sizes, (z + 0.0, y + 0.0, x + 0.0)


def _number(text: Any) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        return float("nan")


def write_tiff(path: Path, source: Source, *, slices: int) -> None:
    """Write a volume as an uncompressed TIFF stack.

    Parameters
    ----------
    path : Path
    source : Source
        With a geometry.
    slices : int
        Slices read at a time.

    Raises
    ------
    FormatError
        If TIFF programs have no type for the voxels.

    Notes
    -----
    ImageJ's variant where it can hold the volume (up to 4 GB, its three types), which Fiji, Vaa3D and napari open with
    the voxel size; beyond that OME-TIFF, as BigTIFF where it must be. TIFF states no directions.
    """
    import tifffile

    shape = source.require_shape()
    if source.dtype.name not in OME_TYPES:
        raise FormatError(f"{path}: TIFF programs have no type for {source.dtype}; write .nrrd, .h5 or .zarr")
    size = math.prod(shape) * source.dtype.itemsize
    imagej = len(shape) == 3 and source.dtype.name in IMAGEJ_TYPES and size < CLASSIC_BYTES
    z, y, x = source.geometry.spacing_um if source.geometry is not None else (None, None, None)
    said: dict[str, Any] = {"axes": "ZYX" if len(shape) == 3 else "CZYX"}
    how: dict[str, Any] = {}
    if imagej:
        if z and y and x:
            said |= {"spacing": z, "unit": "um"}
            how["resolution"] = (1 / x, 1 / y)
    elif z and y and x:
        for axis, step in zip("ZYX", (z, y, x), strict=True):
            said |= {f"PhysicalSize{axis}": step, f"PhysicalSize{axis}Unit": "\N{MICRO SIGN}m"}
    with atomic_file(path) as temporary:
        placed = tifffile.imwrite(
            temporary,
            shape=shape,
            dtype=source.dtype,
            imagej=imagej,
            ome=not imagej,
            bigtiff=size >= CLASSIC_BYTES,
            byteorder="<",
            photometric="minisblack",
            metadata=said,
            returnoffset=True,
            **how,
        )
        assert placed is not None  # uncompressed pages are contiguous
        order = source.dtype.newbyteorder("<")
        with open(temporary, "r+b") as file:
            for index, values in source.read_blocks(slices):
                for plane in np.ndindex(*values.shape[:-2]):
                    at = [part.start + n for part, n in zip(index, plane, strict=False)]
                    number = int(np.ravel_multi_index(at, shape[:-2]))
                    file.seek(placed[0] + number * shape[-2] * shape[-1] * order.itemsize)
                    file.write(np.ascontiguousarray(values[plane], dtype=order).data)
