"""Euclidean distances in micrometres up to a radius: clipped distance maps, growing and shrinking a mask."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from voxloom.blocks import Readable, Shape, Writable, map_blocks
from voxloom.budget import Layout, blocks_within, shard_shape
from voxloom.errors import VolumeError
from voxloom.kernels import compiled
from voxloom.volume import Quantisation, Vector

TIE = 1e-6
"""A voxel is within a radius r if its distance is at most r * (1 + TIE): the tie 5 * 0.8 um = 4 um counts as within."""

GROW_MODES = ("exact", "slicer_legacy")


def clipped_distance(mask: NDArray[np.bool_], *, spacing_um: Vector, clip_um: float) -> NDArray[np.float32]:
    """Distance from every voxel to the nearest foreground voxel, clipped.

    Parameters
    ----------
    mask : ndarray of bool, shape (Z, Y, X)
        Foreground is True. Not modified.
    spacing_um : tuple of float
        Voxel edge lengths along (Z, Y, X), in micrometres.
    clip_um : float
        Distances above this value are set to it. Positive.

    Returns
    -------
    distance : ndarray of float32, shape (Z, Y, X)
        Micrometres between voxel centres; 0 on the foreground, never above `clip_um`.

    Raises
    ------
    VolumeError
        If `mask` is not a 3D boolean array, or `spacing_um` or `clip_um` is not positive.

    Notes
    -----
    Without foreground every voxel is at `clip_um`: "far", not an error. Nothing lies beyond the array's border. Exact
    by the separable transform of [1]_, cut off at the radius, so that a block with a halo of ``clip_um`` has the same
    values as the whole. Squared distances are whole numbers on isotropic voxels and double precision sums, in SciPy's
    order, on others: the result equals ``scipy.ndimage.distance_transform_edt`` rounded to float32.

    References
    ----------
    .. [1] Felzenszwalb, Huttenlocher (2012). Theory of Computing 8(19).

    Examples
    --------
    >>> mask = np.array([[[True, False, False, False]]])
    >>> clipped_distance(mask, spacing_um=(1.0, 1.0, 2.0), clip_um=5.0)
    array([[[0., 2., 4., 5.]]], dtype=float32)
    """
    _check(mask, spacing_um, clip_um=clip_um)
    field, far = _squared_field(mask, spacing_um, clip_um)
    if far is None:
        np.sqrt(field, out=field)
        return np.minimum(field, clip_um, out=field).astype(np.float32)
    distances = np.minimum(np.sqrt(np.arange(far + 1)) * spacing_um[0], clip_um).astype(np.float32)
    distances[far] = clip_um
    result = np.empty(mask.shape, np.float32)
    _look_up(field, distances, result)
    return result


def grow(mask: NDArray[np.bool_], *, spacing_um: Vector, grow_um: float, mode: str = "exact") -> NDArray[np.bool_]:
    """Add every voxel whose centre is within a Euclidean distance of a foreground voxel's centre.

    Parameters
    ----------
    mask : ndarray of bool, shape (Z, Y, X)
        Not modified.
    spacing_um : tuple of float
        Voxel edge lengths along (Z, Y, X), in micrometres.
    grow_um : float
        Radius in micrometres, inclusive (see `TIE`). Positive.
    mode : {"exact", "slicer_legacy"}
        "slicer_legacy" is the ellipsoid that 3D Slicer up to 4.10 used, for reproduction only: an odd full size of
        ``round((grow_um / spacing + 1) / 2) * 2 - 1`` voxels an axis, which is about half of what was asked for.

    Returns
    -------
    grown : ndarray of bool, shape (Z, Y, X)

    Raises
    ------
    VolumeError
        If `mask` is not a 3D boolean array, or `spacing_um` or `grow_um` is not positive, or the mode is unknown.

    Notes
    -----
    The exact mode equals the Margin effect of 3D Slicer since 2020. An empty mask stays empty.

    Examples
    --------
    >>> mask = np.array([[[False, False, True, False, False]]])
    >>> grow(mask, spacing_um=(1.0, 1.0, 2.0), grow_um=2.0)
    array([[[False,  True,  True,  True, False]]])
    """
    _check(mask, spacing_um, grow_um=grow_um)
    if mode == "slicer_legacy":
        # the kernel holds the voxels with sum((offset / (size / 2)) ** 2) <= 1: a ball in units of half its size
        z, y, x = _slicer_kernel(spacing_um, grow_um)
        return _within(mask, (2 / z, 2 / y, 2 / x), 1.0)
    if mode != "exact":
        raise VolumeError(f"unknown mode of grow {mode!r}; known: {', '.join(GROW_MODES)}")
    return _within(mask, spacing_um, grow_um * (1 + TIE))


def shrink(mask: NDArray[np.bool_], *, spacing_um: Vector, shrink_um: float) -> NDArray[np.bool_]:
    """Remove every voxel whose centre is within a Euclidean distance of a background voxel's centre.

    Parameters
    ----------
    mask : ndarray of bool, shape (Z, Y, X)
        Not modified.
    spacing_um : tuple of float
        Voxel edge lengths along (Z, Y, X), in micrometres.
    shrink_um : float
        Radius in micrometres, inclusive (see `TIE`). Positive.

    Returns
    -------
    shrunk : ndarray of bool, shape (Z, Y, X)

    Raises
    ------
    VolumeError
        If `mask` is not a 3D boolean array, or `spacing_um` or `shrink_um` is not positive.

    Notes
    -----
    Beyond the array's border is no background: an object that reaches the border is not eaten away from there.

    Examples
    --------
    >>> mask = np.array([[[True, True, True, True, False]]])
    >>> shrink(mask, spacing_um=(1.0, 1.0, 2.0), shrink_um=4.0)
    array([[[ True,  True, False, False, False]]])
    """
    _check(mask, spacing_um, shrink_um=shrink_um)
    return ~_within(~mask, spacing_um, shrink_um * (1 + TIE))


def grow_reach_voxels(*, spacing_um: Vector, grow_um: float, mode: str = "exact") -> Shape:
    """Voxels (Z, Y, X) of context on each side that `grow` needs for an exact result.

    Parameters
    ----------
    spacing_um, grow_um, mode
        As in `grow`; the same for `shrink` in the mode "exact".

    Returns
    -------
    reach_voxels : tuple of int
    """
    if mode == "slicer_legacy":
        z, y, x = (size // 2 for size in _slicer_kernel(spacing_um, grow_um))
        return z, y, x
    return _reach_voxels(spacing_um, grow_um * (1 + TIE))


def distance_quantisation(clip_um: float, dtype: DTypeLike = "uint16") -> Quantisation:
    """How a clipped distance is stored as integers: 0 is 0, the largest integer is `clip_um`.

    Parameters
    ----------
    clip_um : float
        Largest distance, in micrometres.
    dtype : dtype
        uint8 or uint16. The largest error is half a step: ``clip_um / 510`` or ``clip_um / 131070``, that is 20 nm or
        0.08 nm at a clip of 10 um.

    Returns
    -------
    quantisation : Quantisation

    Raises
    ------
    VolumeError
        If the data type is neither.
    """
    if np.dtype(dtype) not in (np.dtype(np.uint8), np.dtype(np.uint16)):
        raise VolumeError(f"distances are stored as uint8 or uint16, not {np.dtype(dtype)}")
    return Quantisation(scale=clip_um / np.iinfo(dtype).max, unit="micrometer")


def distance_volume(
    annotation: Readable,
    out: Writable,
    *,
    spacing_um: Vector,
    clip_um: float,
    dtype: DTypeLike = "uint16",
    memory_mib: float,
    threads: int = 1,
) -> None:
    """Distance to the nearest foreground voxel of a stored annotation, clipped and quantised.

    Parameters
    ----------
    annotation : volume of uint8, shape (Z, Y, X)
        0 background, 1 foreground, 255 not annotated.
    out : volume of `dtype`, shape (Z, Y, X)
        Takes ``out[slices] = array``; what its integers stand for is `distance_quantisation`.
    spacing_um : tuple of float
        Voxel edge lengths along (Z, Y, X), in micrometres.
    clip_um : float
        Distances above this value are set to it, in micrometres.
    dtype : dtype
        uint8 or uint16.
    memory_mib : float
        Budget for the blocks in work, in MiB.
    threads : int
        Blocks in work at a time, fewer where the budget holds fewer.

    Raises
    ------
    VolumeError
        If the budget doesn't hold one block.

    Notes
    -----
    Voxels that nobody annotated count as background: they have a distance to the foreground that is known, and are
    left out by the loss and the scores through the annotation itself. By blocks with a halo of `clip_um` the result is
    the same as in one piece.
    """
    scale = distance_quantisation(clip_um, dtype).scale

    def quantised(codes: NDArray[np.uint8]) -> NDArray[Any]:
        distance = clipped_distance(codes == 1, spacing_um=spacing_um, clip_um=clip_um)
        distance *= np.float32(1 / scale)
        return np.rint(distance, out=distance).astype(dtype)

    layout = distance_layout(
        annotation.shape, out, spacing_um=spacing_um, clip_um=clip_um, memory_mib=memory_mib, threads=threads
    )
    map_blocks(quantised, annotation, out=out, description="distance, block", **layout.grid)


def distance_layout(
    shape: tuple[int, ...], out: Any, *, spacing_um: Vector, clip_um: float, memory_mib: float, threads: int
) -> Layout:
    """The blocks by which `distance_volume` works.

    Parameters
    ----------
    shape : tuple of int
        (Z, Y, X) of the annotation.
    out : object
        The volume that is written; its ``shard_shape`` counts where it has one.
    spacing_um, clip_um, memory_mib, threads
        As in `distance_volume`.

    Returns
    -------
    layout : Layout

    Raises
    ------
    VolumeError
        If the budget doesn't hold one block.
    """
    return blocks_within(
        shape[-3:],
        bytes_per_voxel=8 + field_bytes(shape[-3:], spacing_um, clip_um),
        memory_mib=memory_mib,
        halo_voxels=_reach_voxels(spacing_um, clip_um),
        align=shard_shape(out),
        threads=threads,
    )


def field_bytes(shape: tuple[int, ...], spacing_um: Vector, reach_um: float) -> int:
    """Bytes a voxel of the squared distances that `clipped_distance`, `grow` and `shrink` hold while they work.

    Parameters
    ----------
    shape : tuple of int
        (Z, Y, X) of the array.
    spacing_um : tuple of float
        Voxel edge lengths (Z, Y, X), in micrometres.
    reach_um : float
        The clip or radius, in micrometres.

    Returns
    -------
    bytes : int
        1 or 2 on isotropic voxels, 8 on others.
    """
    return _field_type(shape, spacing_um, reach_um)[0].itemsize


def _check(mask: NDArray[np.bool_], spacing_um: Vector, **lengths_um: float) -> None:
    if mask.ndim != 3 or mask.dtype != np.bool_:
        raise VolumeError(
            f"mask must be a 3D boolean array, got {mask.ndim}D {mask.dtype}; "
            "compare the labels with 0 first (labels > 0)"
        )
    for name, value in {"spacing_um": min(spacing_um), **lengths_um}.items():
        if not value > 0 or not np.isfinite(value):
            raise VolumeError(f"{name} must be a positive number of micrometres, got {value}")


def _slicer_kernel(spacing_um: Vector, grow_um: float) -> Shape:
    """Full size in voxels of the kernel of 3D Slicer up to 4.10."""
    z, y, x = (round((grow_um / spacing + 1) / 2) * 2 - 1 for spacing in spacing_um)
    return z, y, x


def _reach_voxels(spacing_um: Vector, reach_um: float) -> Shape:
    z, y, x = (int(reach_um * (1 + 1e-9) / spacing) for spacing in spacing_um)
    return z, y, x


def _within(mask: NDArray[np.bool_], spacing_um: Vector, reach_um: float) -> NDArray[np.bool_]:
    field, far = _squared_field(mask, spacing_um, reach_um)
    within: NDArray[np.bool_] = field <= reach_um * reach_um if far is None else field < far
    return within


def _field_type(shape: tuple[int, ...], spacing_um: Vector, reach_um: float) -> tuple[np.dtype[Any], int | None]:
    """Data type of the squared distances, and its code for "nothing within reach" (None: infinity).

    On isotropic voxels squared distances are whole numbers of voxels. One byte or two hold them as long as the sum of
    two of them can't overflow: four to eight times less memory to move, as many times more voxels an instruction.
    """
    if len(set(spacing_um)) == 1:
        # no distance in the array is longer than its diagonal
        far = min(int((reach_um / spacing_um[0]) ** 2), sum((size - 1) ** 2 for size in shape)) + 1
        if far <= 127:
            return np.dtype(np.uint8), far
        if far <= 32767:
            return np.dtype(np.uint16), far
    return np.dtype(np.float64), None


def _squared_field(mask: NDArray[np.bool_], spacing_um: Vector, reach_um: float) -> tuple[NDArray[Any], int | None]:
    """Squared distance to the nearest foreground voxel, exact where it is within reach, and the code for farther.

    In voxels for a code, in square micrometres where the code is None; then what is farther has any larger value.
    """
    dtype, far = _field_type(mask.shape, spacing_um, reach_um)
    units = spacing_um if far is None else (1.0, 1.0, 1.0)
    squares = []
    for unit, reach, size in zip(units, _reach_voxels(spacing_um, reach_um), mask.shape, strict=True):
        steps = np.arange(min(reach, size - 1) + 1) * unit
        squares.append((steps * steps).astype(dtype))
    field = np.empty(mask.shape, dtype)
    beyond = dtype.type(np.inf if far is None else far)
    _along_z(np.ascontiguousarray(mask), squares[0], beyond, field)
    _along_y_and_x(field, squares[1], squares[2], beyond)
    return field, far


@compiled
def _along_z(mask, squares, beyond, field):  # type: ignore[no-untyped-def]
    """Squared distance to the nearest foreground voxel of the same column: down, then up again."""
    depth, height, width = mask.shape
    reach = squares.size - 1
    table = np.empty(reach + 2, field.dtype)
    table[: reach + 1] = squares
    table[reach + 1] = beyond
    steps = np.empty(width, np.int32)
    for y in range(height):
        steps[:] = reach + 1
        for z in range(depth):
            for x in range(width):
                steps[x] = 0 if mask[z, y, x] else min(steps[x] + 1, reach + 1)
                field[z, y, x] = table[steps[x]]
        steps[:] = reach + 1
        for z in range(depth - 1, -1, -1):
            for x in range(width):
                steps[x] = 0 if mask[z, y, x] else min(steps[x] + 1, reach + 1)
                if table[steps[x]] < field[z, y, x]:
                    field[z, y, x] = table[steps[x]]


@compiled
def _lower(values, others, square):  # type: ignore[no-untyped-def]
    """values = min(values, others + square), written so that it becomes vector instructions."""
    for i in range(values.size):
        candidate = values.dtype.type(others[i] + square)
        if candidate < values[i]:
            values[i] = candidate


@compiled
def _along_y_and_x(field, squares_y, squares_x, beyond):  # type: ignore[no-untyped-def]
    """Extend the columns' squared distances to slices and rows, in place; rows without any are passed over."""
    depth, height, width = field.shape
    plane = np.empty((height, width), field.dtype)
    is_near = np.empty(height, np.bool_)
    for z in range(depth):
        for y in range(height):
            is_near[y] = np.any(field[z, y] < beyond)
        if not np.any(is_near):
            continue
        for y in range(height):
            plane[y] = field[z, y]
            for step in range(1, squares_y.size):
                if y >= step and is_near[y - step]:
                    _lower(plane[y], field[z, y - step], squares_y[step])
                if y + step < height and is_near[y + step]:
                    _lower(plane[y], field[z, y + step], squares_y[step])
        for y in range(height):
            field[z, y] = plane[y]
            if np.any(plane[y] < beyond):
                for step in range(1, squares_x.size):
                    _lower(field[z, y, step:], plane[y, : width - step], squares_x[step])
                    _lower(field[z, y, : width - step], plane[y, step:], squares_x[step])


@compiled
def _look_up(codes, table, out):  # type: ignore[no-untyped-def]
    flat_codes, flat_out = codes.reshape(-1), out.reshape(-1)
    for i in range(flat_codes.size):
        flat_out[i] = table[flat_codes[i]]
