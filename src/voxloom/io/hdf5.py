"""HDF5: one dataset of a file, named as file.h5::/dataset, with the voxel size of ilastik, PlantSeg and CREMI."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from voxloom.errors import FormatError
from voxloom.io.arrays import Read, array_source, name_axes
from voxloom.io.files import SafeFile, atomic_file
from voxloom.io.nrrd_geometry import micrometres_per
from voxloom.io.source import Source
from voxloom.volume import Geometry

SIZE_ATTRIBUTE = "element_size_um"
ORIGIN_ATTRIBUTE = "origin_um"


def open_hdf5(path: Path, *, inside: str = "", axes: str | None = None) -> Source:
    """Open one dataset of an HDF5 file.

    Parameters
    ----------
    path : Path
        The file.
    inside : str
        Name of the dataset; may be left out where the file holds only one array of two or more axes.
    axes : str, optional
        Letters of the dataset's axes, slowest first; by default what ilastik's axistags say, or else the last of
        "CZYX".

    Returns
    -------
    source : Source
        Voxel size from the attribute `element_size_um` (ilastik, PlantSeg), or `resolution` in a CREMI file.

    Raises
    ------
    FormatError
        If it is not a whole HDF5 file, or there is no such dataset, or several and none was named.
    """
    import h5py

    with _opened_file(path) as file, _damage_named(path):
        dataset = _dataset(file, path, inside)
        name, shape, dtype = dataset.name, tuple(dataset.shape), dataset.dtype
        attributes = {key: _plain(value) for key, value in dataset.attrs.items()}
        is_cremi = "file_format" in file.attrs and name.startswith("/volumes/")
        facts = {"dataset": name, "chunks": dataset.chunks, "compression": dataset.compression}
    if dtype.fields:
        raise FormatError(f"{path}::{name} holds compound values {dtype}; expected plain numbers")

    @contextlib.contextmanager
    def opened() -> Iterator[Read]:
        with _opened_file(path) as file:
            dataset = file[name]

            def read(index: tuple[slice, ...]) -> Any:
                try:
                    return dataset[index]
                except (OSError, RuntimeError, ValueError) as error:
                    raise FormatError(
                        f"{path}::{name} can't be decoded at {index}: {error}; the file is damaged, or compressed "
                        "with a filter that h5py lacks (write it again with gzip)"
                    ) from None

            yield read

    own = _axistags(attributes) or "TCZYX"[-len(shape) :]
    geometry, unit_stated, warnings = _geometry(attributes, own, is_cremi)
    axes, geometry = name_axes(own, axes, geometry)
    if h5py.check_enum_dtype(dtype) is not None and dtype.kind != "b":
        warnings = (*warnings, "enumerated values are taken as the numbers behind them")
    return array_source(
        path,
        format="hdf5",
        shape=shape,
        dtype=dtype,
        axes=axes,
        opened=opened,
        facts={key: value for key, value in facts.items() if value is not None},
        geometry=geometry,
        unit_stated=unit_stated,
        header=attributes,
        warnings=warnings,
    )


@contextlib.contextmanager
def _opened_file(path: Path) -> Iterator[Any]:
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise FormatError(
            f"{path} is not a whole HDF5 file ({error}); copy it again, or correct its suffix if it is something else"
        ) from None
    with file:
        yield file


@contextlib.contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Name the file where h5py finds its structures damaged, for which it has no error of its own."""
    try:
        yield
    except FormatError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{path} is a damaged HDF5 file ({error}); copy it again") from error


def _dataset(file: Any, path: Path, inside: str) -> Any:
    import h5py

    arrays: list[str] = []

    def collect(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim >= 2 and item.dtype.kind in "biufc":
            arrays.append(f"/{name}")

    file.visititems(collect)
    listed = ", ".join(f"{name} {file[name].shape} {file[name].dtype}" for name in arrays) or "none"
    if inside:
        item = file.get(inside)
        if not isinstance(item, h5py.Dataset):
            raise FormatError(f"{path} has no dataset {inside!r}; its arrays are: {listed}")
        return _within(file, path, item)
    if len(arrays) != 1:
        which = f", such as {path.name}::{arrays[0]}" if arrays else ""
        raise FormatError(
            f"{path} holds {len(arrays)} arrays of two or more axes, expected one; name one after '::'{which}. "
            f"There are: {listed}"
        )
    return _within(file, path, file[arrays[0]])


def _within(file: Any, path: Path, dataset: Any) -> Any:
    """The dataset, if its values are in this file: one from elsewhere must not make voxloom read others."""
    others = {name for name, *_ in dataset.external or ()}
    others |= {source.file_name for source in dataset.virtual_sources()} - {"."} if dataset.is_virtual else set()
    others |= {dataset.file.filename} - {file.filename}
    if others:
        raise FormatError(
            f"{path}::{dataset.name} takes its values from {', '.join(sorted(map(str, others)))}, and voxloom follows "
            "no links out of a file; name that file, or copy the values (h5repack, h5py)"
        )
    return dataset


def _plain(value: Any) -> Any:
    """An attribute as JSON can hold it."""
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist() if value.dtype.kind in "biufU" else str(value.tolist())
    return value if isinstance(value, int | float | str) else str(value)


def _axistags(attributes: dict[str, Any]) -> str | None:
    """Axis letters as ilastik writes them."""
    try:
        return "".join(axis["key"] for axis in json.loads(attributes["axistags"])["axes"]).upper()
    except (KeyError, TypeError, ValueError):
        return None


def _geometry(attributes: dict[str, Any], axes: str, is_cremi: bool) -> tuple[Geometry | None, bool, tuple[str, ...]]:
    """Voxel size and origin, whether their unit is stated, and what was assumed."""
    spatial = [axis for axis in axes if axis in "ZYX"]
    warnings: tuple[str, ...] = ()
    sizes, offset, factor, stated = attributes.get(SIZE_ATTRIBUTE), attributes.get(ORIGIN_ATTRIBUTE), 1.0, True
    if sizes is None and "resolution" in attributes:
        sizes, offset = attributes["resolution"], attributes.get("offset")
        unit = attributes.get("unit", attributes.get("units", "nm" if is_cremi else None))
        known = micrometres_per(unit) if isinstance(unit, str) else None
        factor, stated = (known, True) if known else (1000.0, False)
        if is_cremi and "unit" not in attributes and "units" not in attributes:
            warnings = ("resolution is taken as nanometres, as CREMI files have it",)
        elif not stated:
            warnings = ("resolution has no unit and is taken as millimetres",)
    if not isinstance(sizes, list) or len(spatial) != 3 or len(sizes) not in (3, len(axes)):
        return None, False, warnings
    if not isinstance(offset, list) or len(offset) != len(sizes):
        offset = [0.0] * len(sizes)
    names = spatial if len(sizes) == 3 else list(axes)
    size_um = {name: float(size) * factor for name, size in zip(names, sizes, strict=True)}
    origin_um = {name: float(at) * factor for name, at in zip(names, offset, strict=True)}
    if not all(np.isfinite(size) and size > 0 for size in (size_um[axis] for axis in "ZYX")):
        return None, False, (*warnings, f"voxel size {sizes} is not three positive numbers and was left out")
    spacing_um = (size_um["Z"], size_um["Y"], size_um["X"])
    return Geometry(spacing_um, (origin_um["Z"], origin_um["Y"], origin_um["X"])), stated, warnings


def write_hdf5(path: Path, source: Source, *, slices: int, inside: str = "") -> None:
    """Write a volume as one dataset, compressed with gzip, with its voxel size and origin as attributes.

    Parameters
    ----------
    path : Path
        The file; replaced where it is there.
    source : Source
        With a geometry.
    slices : int
        Slices read at a time.
    inside : str
        Name of the dataset, "volume" by default.
    """
    import h5py

    shape = source.require_shape()
    chunks = tuple(min(64, n) for n in shape[-3:])
    if len(shape) == 4:
        chunks = (1, *chunks)
    with atomic_file(path) as temporary, SafeFile(temporary) as raw, h5py.File(raw, "w") as file:
        dataset = file.create_dataset(
            inside or "volume", shape=shape, dtype=source.dtype, chunks=chunks, compression="gzip", compression_opts=1
        )
        if source.geometry is not None:
            dataset.attrs[SIZE_ATTRIBUTE] = source.geometry.spacing_um
            dataset.attrs[ORIGIN_ATTRIBUTE] = source.geometry.origin_um
            dataset.attrs["directions"] = np.asarray(source.geometry.directions)
            if source.geometry.space:
                dataset.attrs["space"] = source.geometry.space
        for index, values in source.read_blocks(slices):
            dataset[index] = values
            raw.check()
