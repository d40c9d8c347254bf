"""Euclidean distances in micrometres up to a radius: clipped distance maps, growing and shrinking a mask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from voxloom.blocks import Readable, Shape, Writable, map_blocks
from voxloom.budget import Layout, blocks_within, shard_shape
from voxloom.dilation import dilated
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
    return _transformed(mask, spacing_um, clip_um, lambda distance: distance)


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
        return dilated(mask, (2 / z, 2 / y, 2 / x), 1.0)
    if mode != "exact":
        raise VolumeError(f"unknown mode of grow {mode!r}; known: {', '.join(GROW_MODES)}")
    return dilated(mask, spacing_um, grow_um * (1 + TIE))


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
    kept = dilated(~mask, spacing_um, shrink_um * (1 + TIE))
    return np.logical_not(kept, out=kept)


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

    def stored(distance: NDArray[np.float32]) -> NDArray[Any]:
        return np.rint(distance * np.float32(1 / scale)).astype(dtype)

    def quantised(codes: NDArray[np.uint8]) -> NDArray[Any]:
        return _transformed(codes == 1, spacing_um, clip_um, stored)

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


def field_bytes(shape: tuple[int, ...], spacing_um: Vector, reach_um: float) -> float:
    """Bytes a voxel that `clipped_distance` holds while it works, beside the mask and the result.

    Parameters
    ----------
    shape : tuple of int
        (Z, Y, X) of the array.
    spacing_um : tuple of float
        Voxel edge lengths (Z, Y, X), in micrometres.
    reach_um : float
        The clip, in micrometres.

    Returns
    -------
    bytes : float
        1 for the steps along Z, 2 where they don't fit in a byte; and two slices of squared distances, which count
        where an array has few slices.
    """
    dtype, _ = _field_type(shape, spacing_um, reach_um)
    steps = _step_type(min(_reach_voxels(spacing_um, reach_um)[0], shape[0] - 1))
    return steps.itemsize + 2 * dtype.itemsize / min(shape[0], 64)


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


def _field_type(shape: tuple[int, ...], spacing_um: Vector, reach_um: float) -> tuple[np.dtype[Any], int | None]:
    """Data type of the squared distances, and its code for "nothing within reach" (None: infinity).

    Where voxels are isotropic, or a whole number of times as long along an axis, squared distances are whole numbers.
    One byte or two hold them as long as the sum of two of them can't overflow: four to eight times less memory to move,
    as many times more voxels an instruction.
    """
    finest = min(spacing_um)
    units = [spacing / finest for spacing in spacing_um]
    if all(unit.is_integer() for unit in units):
        # no distance in the array is longer than its diagonal
        diagonal = sum(int(unit * (size - 1)) ** 2 for unit, size in zip(units, shape, strict=True))
        far = min(int((reach_um / finest) ** 2), diagonal) + 1
        if far <= 127:
            return np.dtype(np.uint8), far
        if far <= 32767:
            return np.dtype(np.uint16), far
    return np.dtype(np.float64), None


def _step_type(reach: int) -> np.dtype[Any]:
    """Data type of a number of steps of at most `reach` + 2."""
    return np.dtype(np.uint8 if reach <= 253 else np.uint16 if reach <= 65533 else np.uint32)


Finish = Callable[[NDArray[np.float32]], NDArray[Any]]
"""From distances in micrometres to what the result holds."""


def _transformed(mask: NDArray[np.bool_], spacing_um: Vector, clip_um: float, finish: Finish) -> NDArray[Any]:
    """Clipped distances, handed to `finish` before they are kept.

    Steps along Z are kept for the whole array, squared distances for one slice at a time: in voxels where there is a
    code for "farther", else in square micrometres.
    """
    dtype, far = _field_type(mask.shape, spacing_um, clip_um)
    units = spacing_um if far is None else [spacing / min(spacing_um) for spacing in spacing_um]
    reach = [min(r, n - 1) for r, n in zip(_reach_voxels(spacing_um, clip_um), mask.shape, strict=True)]
    squares_y, squares_x = (((np.arange(reach[k] + 1) * units[k]) ** 2).astype(dtype) for k in (1, 2))
    distances = np.minimum(np.sqrt(np.arange((far or 0) + 1)) * min(spacing_um), clip_um).astype(np.float32)
    distances[-1] = clip_um
    table = finish(distances)
    steps = np.empty(mask.shape, _step_type(reach[0]))
    out_of_reach = steps.dtype.type(reach[0] + 1)
    _steps_along_z(np.ascontiguousarray(mask), out_of_reach, steps)
    result = np.empty(mask.shape, table.dtype)
    beyond = dtype.type(np.inf if far is None else far)
    field = _with_margins(mask.shape, reach, beyond)
    plane = np.empty(mask.shape[1:], dtype)
    for z in range(mask.shape[0]):
        if not _extend(steps[z], out_of_reach, dtype.type(units[0]), squares_y, squares_x, beyond, field, plane):
            result[z] = table[-1]
        elif far is None:
            np.minimum(np.sqrt(plane, out=plane), clip_um, out=plane)
            result[z] = finish(plane.astype(np.float32))
        else:
            _look_up(plane, table, result[z])
    return result


def _with_margins(shape: tuple[int, ...], reach: list[int], beyond: Any) -> NDArray[Any]:
    """A slice of `beyond` with a margin on all sides, so that a shift by a step is one long loop over several rows."""
    return np.full((shape[1] + 2 * reach[1], shape[2] + reach[2]), beyond)  # a row's margin is the next row's as well


@compiled
def _steps_along_z(mask, out_of_reach, steps):  # type: ignore[no-untyped-def]
    """Steps to the nearest foreground voxel of the same column, at most `out_of_reach`: down, then up again."""
    depth, height, width = mask.shape
    for y in range(height):
        for x in range(width):
            steps[0, y, x] = 0 if mask[0, y, x] else out_of_reach
        for z in range(1, depth):
            for x in range(width):
                before = steps[z - 1, y, x]
                farther = steps.dtype.type(before + (1 if before < out_of_reach else 0))
                steps[z, y, x] = 0 if mask[z, y, x] else farther
        for z in range(depth - 2, -1, -1):
            for x in range(width):
                farther = steps.dtype.type(steps[z + 1, y, x] + 1)
                steps[z, y, x] = farther if farther < steps[z, y, x] else steps[z, y, x]


@compiled
def _begin(steps, out_of_reach, unit, beyond, row):  # type: ignore[no-untyped-def]
    """The squared distances of a row along Z; False where nothing is within reach."""
    nearest = out_of_reach
    for x in range(steps.size):
        nearest = steps[x] if steps[x] < nearest else nearest
    if nearest == out_of_reach:
        row[:] = beyond
        return False
    for x in range(steps.size):
        length = steps[x] * unit
        row[x] = row.dtype.type(length * length) if steps[x] < out_of_reach else beyond
    return True


@compiled
def _lower(values, before, after, square):  # type: ignore[no-untyped-def]
    """values = min(values, before + square, after + square), written so that it becomes vector instructions."""
    for i in range(values.size):
        nearer = before[i] if before[i] < after[i] else after[i]
        candidate = values.dtype.type(nearer + square)
        values[i] = candidate if candidate < values[i] else values[i]


@compiled
def _extend(steps, out_of_reach, unit, squares_y, squares_x, beyond, field, plane):  # type: ignore[no-untyped-def]
    """Squared distances of a slice from its steps along Z: along y, then along x. False where nothing is within reach.

    `field` is a slice with margins of "beyond". Rows are worked on as many at a time as stay in the nearest cache.
    """
    height, width = steps.shape
    margin_y, margin_x, stride = squares_y.size - 1, squares_x.size - 1, field.shape[1]
    is_near = np.zeros(field.shape[0], np.bool_)
    for y in range(height):
        row = field[margin_y + y, :width]
        is_near[margin_y + y] = _begin(steps[y], out_of_reach, unit, beyond, row)
    if not np.any(is_near):
        return False
    rows = max(1, 16384 // (stride * plane.itemsize))
    tile = np.full(rows * stride + 2 * margin_x, beyond)
    lowest = np.empty(rows * stride, plane.dtype)
    flat = field.reshape(-1)
    for first in range(0, height, rows):
        last = min(first + rows, height)
        if not np.any(is_near[first : last + 2 * margin_y]):
            plane[first:last] = beyond
            continue
        start, size = (margin_y + first) * stride, (last - first) * stride
        inner, along_x = tile[margin_x : margin_x + size], lowest[:size]
        inner[:] = flat[start : start + size]
        for step in range(1, squares_y.size):
            _lower(inner, flat[start - step * stride :], flat[start + step * stride :], squares_y[step])
        along_x[:] = inner
        for step in range(1, squares_x.size):
            _lower(along_x, tile[margin_x - step :], tile[margin_x + step :], squares_x[step])
        for y in range(first, last):
            plane[y] = along_x[(y - first) * stride : (y - first) * stride + width]
    return True


@compiled
def _look_up(codes, table, out):  # type: ignore[no-untyped-def]
    flat_codes, flat_out = codes.reshape(-1), out.reshape(-1)
    for i in range(flat_codes.size):
        flat_out[i] = table[flat_codes[i]]
