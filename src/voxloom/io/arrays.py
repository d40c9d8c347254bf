"""From an array in a file, whatever its axis order, to a source of (C, Z, Y, X) slabs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxloom.errors import FormatError
from voxloom.faults import damage_told, disk_errors_told
from voxloom.io.source import Blocks, Index, Source, slabs
from voxloom.volume import Geometry, Vector

Read = Callable[[Index], NDArray[Any]]
Opened = Callable[[], contextlib.AbstractContextManager[Read]]

VALUES_BYTES = 4 << 20
"""Size of the pieces in which values are handed out in file order."""

READ_BYTES = 32 << 20
"""Size of the slabs that are read when a file is passed over to pick some of its voxels."""


def array_source(
    path: Path,
    *,
    format: str,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    axes: str,
    opened: Opened,
    facts: dict[str, Any] | None = None,
    **described: Any,
) -> Source:
    """Describe an array in a file that can be read by slicing.

    Parameters
    ----------
    path : Path
        The file.
    format : str
        See `Source`.
    shape : tuple of int
        Of the array as the file holds it, in C order.
    dtype : numpy dtype
        Of the array as the file holds it.
    axes : str
        One letter an axis of `shape`, out of "TCZYX". T must have size 1 to be a volume.
    opened : callable
        Returns a context manager that opens the file and gives ``read(index)``, which takes a tuple of slices into
        `shape` and returns that part. It is entered once for every pass over the file.
    facts : dict, optional
        See `Source`; sizes and axes are added.
    **described
        Other fields of `Source`.

    Returns
    -------
    source : Source
        Booleans come out as uint8. One that isn't a volume has `shape` None and a refusal.

    Raises
    ------
    FormatError
        If `axes` doesn't fit the array's shape or names an axis twice.
    """
    if len(axes) != len(shape):
        raise FormatError(f"{path} holds an array of shape {shape}; axes must name {len(shape)} axes, got {axes!r}")
    if len(set(axes)) != len(axes) or not set(axes) <= set("TCZYX"):
        raise FormatError(f"{path}: axes must name each of Z, Y, X (and C, T) at most once, got {axes!r}")
    native = np.dtype(np.uint8) if dtype == np.dtype(bool) else dtype.newbyteorder("=")

    def as_native(values: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(values, dtype=native)

    def read_values() -> Iterator[NDArray[Any]]:
        with disk_errors_told(path), damage_told(path), opened() as read:
            for index in _pieces(shape, native.itemsize):
                yield as_native(read(index)).reshape(-1)

    stored = {"sizes": list(shape), "axes": axes, **(facts or {})}
    refusal = _refusal(path, shape, axes, native)
    kept = dict(zip(axes, shape, strict=True))
    volume = tuple(kept.get(axis, 1) for axis in "ZYX")
    if "C" in kept:
        volume = (kept["C"], *volume)
    order = [axes.index(axis) for axis in "CZYX" if axis in axes]

    def read_blocks(slices: int) -> Blocks:
        with disk_errors_told(path), damage_told(path), opened() as read:
            for index in slabs(volume, slices, one_channel=not axes.endswith("C")):
                of = dict(zip("CZYX"[-len(volume) :], index, strict=True))
                values = read(tuple(of.get(axis, slice(0, 1)) for axis in axes))
                values = values.transpose(order + [n for n in range(values.ndim) if n not in order])
                yield index, as_native(values).reshape(tuple(part.stop - part.start for part in index))

    return Source(
        path=path,
        format=format,
        shape=None if refusal else volume,
        dtype=native,
        read_blocks=read_blocks,
        read_values=read_values,
        facts=stored,
        refusal=refusal,
        **described,
    )


def _refusal(path: Path, shape: tuple[int, ...], axes: str, dtype: np.dtype[Any]) -> str | None:
    sizes = dict(zip(axes, shape, strict=True))
    if min(shape, default=0) < 1:
        return f"{path} is empty: its array has shape {shape}"
    if dtype.kind not in "iuf":
        return f"{path} holds {dtype} values; expected integers or real floating-point numbers"
    if sizes.get("T", 1) > 1:
        renamed = axes.replace("Z", "").replace("T", "Z")
        return (
            f"{path} is a time series of {sizes['T']} frames (axes {axes}, sizes {shape}); save one frame as a "
            f"file of its own, or, if that axis is really depth, say so with axes: {renamed!r}"
        )
    if not {"Y", "X"} <= set(axes):
        return f"{path} holds an array of shape {shape}, which is no image; expected axes Z, Y and X"
    return None


def _pieces(shape: tuple[int, ...], itemsize: int) -> Iterator[Index]:
    """Boxes that cover an array in C order, each contiguous in it and of a few MiB at most."""
    rest = 1
    axis = len(shape)
    while axis > 0 and rest * shape[axis - 1] * itemsize <= VALUES_BYTES:
        axis -= 1
        rest *= max(shape[axis], 1)
    whole = tuple(slice(0, n) for n in shape[axis:])
    if axis == 0:
        yield whole
        return
    step = max(1, VALUES_BYTES // (rest * itemsize))
    for outer in np.ndindex(*shape[: axis - 1]):
        for start in range(0, shape[axis - 1], step):
            yield (
                *(slice(n, n + 1) for n in outer),
                slice(start, min(start + step, shape[axis - 1])),
                *whole,
            )


def with_axes(source: Source, axes: str) -> Source:
    """The same file with its axes named otherwise, handed out as (Z, Y, X) again.

    Parameters
    ----------
    source : Source
        Its array's axes are taken to be (Z, Y, X), slowest first.
    axes : str
        What they really are, slowest first: "XYZ" for a file whose slowest axis is X.

    Returns
    -------
    source : Source
        Voxel size, origin and directions go with the axes they belong to.

    Raises
    ------
    FormatError
        If `axes` is not a permutation of ZYX.

    Notes
    -----
    Memory stays at one slab that is handed out and one that is read. Where the slowest axis changes, every slab that
    is handed out takes one pass over the file: ask for thick slabs.
    """
    axes = axes.upper()
    if sorted(axes) != ["X", "Y", "Z"]:
        raise FormatError(
            f"axes of {source.path} must be an order of the letters Z, Y and X, slowest first, such as 'XYZ'; "
            f"got {axes!r}"
        )
    shape = source.require_shape()
    if axes == "ZYX":
        return source
    order = [axes.index(axis) for axis in "ZYX"]  # which axis of the file each of ours is
    lead = len(shape) - 3
    turned = shape[:lead] + tuple(shape[lead + axis] for axis in order)
    transposed = [*range(lead), *(lead + axis for axis in order)]

    def turn(index: Index) -> Index:
        return tuple(index[axis] for axis in transposed)

    def in_plane(slices: int) -> Blocks:
        for index, values in source.read_blocks(slices):
            yield turn(index), np.ascontiguousarray(values.transpose(transposed))

    warnings = source.warnings
    if source.geometry is not None and source.geometry.space:
        warnings = (*warnings, f"axes {axes} rename the world's axes too: {source.geometry.space} no longer holds")
    return replace(
        source,
        shape=turned,
        read_blocks=in_plane if order[0] == 0 else _rereader(source, transposed),
        geometry=_renamed(source.geometry, order),
        facts={**source.facts, "axes": axes},
        warnings=warnings,
    )


def with_all_channels(source: Source) -> Source:
    """The same file in blocks that have all channels, for writers that put channels beside each other.

    Parameters
    ----------
    source : Source

    Returns
    -------
    source : Source
        Where the file holds one channel after another, every block takes one pass over it.
    """
    shape = source.require_shape()
    if len(shape) == 3:
        return source
    return replace(source, read_blocks=_rereader(source, list(range(4))))


def _rereader(source: Source, transposed: list[int]) -> Callable[[int], Blocks]:
    """Blocks of the transposed file with all channels: for each, one pass over the file, keeping what belongs to it."""
    shape = source.require_shape()
    turned = tuple(shape[axis] for axis in transposed)
    lead = len(shape) - 3
    plane_bytes = int(np.prod(shape)) // shape[lead] * source.dtype.itemsize
    depth = max(1, min(64, READ_BYTES // plane_bytes))

    def read_blocks(slices: int) -> Blocks:
        for target in slabs(turned, slices, one_channel=False):
            z = target[lead]
            slab = np.empty(tuple(part.stop - part.start for part in target), source.dtype)
            for index, values in source.read_blocks(depth):
                here = tuple(index[axis] for axis in transposed)
                first, last = max(here[lead].start, z.start), min(here[lead].stop, z.stop)
                if first < last:
                    wanted = slice(first - here[lead].start, last - here[lead].start)
                    place = (*here[:lead], slice(first - z.start, last - z.start), *here[lead + 1 :])
                    slab[place] = values.transpose(transposed)[(*[slice(None)] * lead, wanted)]
            yield target, slab

    return read_blocks


def name_axes(own: str, axes: str | None, geometry: Geometry | None) -> tuple[str, Geometry | None]:
    """Letters of an array's axes as the user gave them, and the geometry that goes with them.

    Parameters
    ----------
    own : str
        What the file says.
    axes : str or None
        What the user says: all axes of the array, or its three spatial ones only.
    geometry : Geometry or None
        Goes with `own`.

    Returns
    -------
    axes : str
    geometry : Geometry or None
    """
    if not axes:
        return own, geometry
    axes = axes.upper()
    if len(axes) == 3 and len(own) > 3 and sum(axis in "ZYX" for axis in own) == 3:
        given = iter(axes)
        axes = "".join(next(given) if axis in "ZYX" else axis for axis in own)
    before = [axis for axis in own if axis in "ZYX"]
    after = [axis for axis in axes if axis in "ZYX"]
    if geometry is None or before == after:
        return axes, geometry
    if len(axes) != len(own) or sorted(before) != sorted(after):
        return axes, None
    return axes, _renamed(geometry, ["ZYX".index(before[after.index(axis)]) for axis in "ZYX"])


def _renamed(geometry: Geometry | None, order: list[int]) -> Geometry | None:
    """The geometry after axis ``order[n]`` of the array and of the world has become axis n."""
    if geometry is None or order == [0, 1, 2]:
        return geometry

    def permute(values: Vector) -> Vector:
        return values[order[0]], values[order[1]], values[order[2]]

    rows = [permute(geometry.directions[axis]) for axis in order]
    return Geometry(
        spacing_um=permute(geometry.spacing_um),
        origin_um=permute(geometry.origin_um),
        directions=(rows[0], rows[1], rows[2]),
        space=None,
    )
