"""NRRD files (.nrrd, .nhdr, .seg.nrrd): opened by their header, read slab by slab."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxloom.errors import FormatError
from voxloom.io.nrrd_data import STEP_BYTES, open_values
from voxloom.io.nrrd_files import Data, locate
from voxloom.io.nrrd_geometry import Axes, axes_of, place
from voxloom.io.nrrd_header import NrrdHeader, byte_order, is_nrrd, native, read_header
from voxloom.io.nrrd_segments import read_segments, segment_selector
from voxloom.io.nrrd_write import write_nrrd
from voxloom.io.source import Blocks, Source, slabs

__all__ = ["is_nrrd", "open_nrrd", "read_header", "segment_selector", "write_nrrd"]


def open_nrrd(path: str | Path) -> Source:
    """Open a NRRD file: its header is read and its data files are found, voxels are not touched.

    Parameters
    ----------
    path : str or Path
        A .nrrd with its values inside, or a header (.nhdr) whose values lie in files beside it.

    Returns
    -------
    source : Source
        `shape` is (Z, Y, X), or (C, Z, Y, X) where one axis is not spatial.

    Raises
    ------
    FormatError
        If the header is malformed, or the files can't hold what it promises. Names file, field, value, what was
        expected and what to do.
    OSError
        If the file can't be opened.

    Notes
    -----
    World axes stay as the file names them (`Geometry.space`); voxels are never flipped or reordered. A length without
    a unit is in millimetres, as ITK and 3D Slicer take it: `unit_stated` is then False and `warnings` say so.
    """
    header = read_header(path)
    data = locate(header)
    axes = axes_of(header)
    placed = place(header, axes)
    shape = _shape(header, axes)

    def read_values() -> Iterator[NDArray[Any]]:
        return _read_values(data)

    def read_blocks(slices: int) -> Blocks:
        if shape is None:
            raise FormatError(axes.refusal)
        return _read_blocks(data, axes, shape, slices)

    return Source(
        path=header.path,
        format="nrrd",
        shape=shape,
        dtype=native(header.dtype),
        read_blocks=read_blocks,
        read_values=read_values,
        geometry=placed.geometry,
        unit_stated=placed.unit_stated,
        header={**header.fields, "key_values": header.key_values, "comments": list(header.comments)},
        segments=read_segments(header, channels=1 if shape is None or len(shape) == 3 else shape[0]),
        facts=_facts(header, data),
        warnings=header.warnings + axes.warnings + placed.warnings,
        refusal=axes.refusal,
    )


def _facts(header: NrrdHeader, data: Data) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "magic": header.magic,
        "type": header.fields["type"],
        "sizes": list(header.sizes),
        "encoding": header.encoding,
        "endian": byte_order(header.dtype) if header.encoding != "ascii" else None,
        "kinds": list(header.kinds) if header.kinds else None,
        "labels": list(header.labels) if header.labels else None,
        "line skip": header.line_skip or None,
        "byte skip": header.byte_skip or None,
    }
    if header.data_file is not None:
        facts["data files"] = [path.relative_to(header.path.parent).as_posix() for path in data.files]
    return {name: fact for name, fact in facts.items() if fact is not None}


def _array_axes(axes: Axes) -> list[str]:
    """Roles of the axes as NumPy orders them: slowest first, with a Z for a single slice."""
    roles = list(axes.roles[::-1])
    if "Z" not in roles:
        roles.insert(roles.index("Y"), "Z")
    return roles


def _shape(header: NrrdHeader, axes: Axes) -> tuple[int, ...] | None:
    if axes.refusal is not None:
        return None
    sizes = dict(zip(axes.roles, header.sizes, strict=True))
    return tuple(sizes.get(role, 1) for role in "CZYX" if role != "C" or role in sizes)


def _read_values(data: Data) -> Iterator[NDArray[Any]]:
    dtype = native(data.header.dtype)
    left = data.header.count
    with open_values(data) as stream:
        while left:
            values = np.empty(min(left, STEP_BYTES // dtype.itemsize), dtype)
            stream.fill(values)
            left -= len(values)
            yield values


def _read_blocks(data: Data, axes: Axes, shape: tuple[int, ...], slices: int) -> Blocks:
    """Slabs in file order, turned to (C, Z, Y, X) where channels are not the slowest axis."""
    roles = _array_axes(axes)
    order = tuple(roles.index(role) for role in "CZYX" if role in roles)
    with open_values(data) as stream:
        for index in slabs(shape, slices, one_channel=roles[0] == "C"):
            extent = [part.stop - part.start for part in index]
            stored = [extent[order.index(axis)] for axis in range(len(roles))]
            values = np.empty(stored, native(data.header.dtype))
            stream.fill(values.reshape(-1))
            yield index, np.ascontiguousarray(values.transpose(order))
