"""Dilation of a mask by an ellipsoid, on bits: 64 voxels of a row are one word, and a whole slice is one loop."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from voxloom.bits import packed
from voxloom.kernels import compiled
from voxloom.volume import Vector


def dilated(mask: NDArray[np.bool_], spacing_um: Vector, reach_um: float) -> NDArray[np.bool_]:
    """Every voxel that has a foreground voxel within a Euclidean distance.

    Parameters
    ----------
    mask : ndarray of bool, shape (Z, Y, X)
        Not modified.
    spacing_um : tuple of float
        Voxel edge lengths along (Z, Y, X).
    reach_um : float
        The distance, inclusive, in the same unit.

    Returns
    -------
    dilated : ndarray of bool, shape (Z, Y, X)

    Notes
    -----
    A ball is a stack of discs, and a disc a stack of rows. A slice is widened along its rows bit by bit, the widened
    slices are shifted along Y and united to discs, and the discs added to the slices around. Nothing is rounded: which
    rows a ball has is decided once, in double precision.

    Examples
    --------
    >>> mask = np.array([[[False, False, True, False, False]]])
    >>> dilated(mask, (1.0, 1.0, 2.0), 2.0)
    array([[[False,  True,  True,  True, False]]])
    """
    depth, height, width = mask.shape
    reaches = ball(mask.shape, spacing_um, reach_um)
    # what is widened beyond a row's end stays in its last word's spare bits, and never comes into the next row
    bits = packed(mask, width + int(reaches[0, 0]))
    words = bits.shape[1]
    out = np.zeros((depth, height * words), np.uint64)
    _dilate(bits.reshape(out.shape), words, reaches, out)
    grown = np.unpackbits(out.view(np.uint8).reshape(depth, height, -1), axis=-1, count=width, bitorder="little")
    return grown.view(np.bool_)


def ball(shape: tuple[int, ...], spacing_um: Vector, reach_um: float) -> NDArray[np.int64]:
    """The rows of a ball.

    Parameters
    ----------
    shape : tuple of int
        (Z, Y, X) of the array that it lies in: it is cut off where nothing can be reached.
    spacing_um : tuple of float
        Voxel edge lengths along (Z, Y, X).
    reach_um : float
        Its radius, inclusive, in the same unit.

    Returns
    -------
    reaches : ndarray of int64, shape (slices, rows)
        For each distance in slices and in rows from the middle, how many voxels the row reaches to either side of its
        own middle; -1 where the ball has no row.

    Examples
    --------
    >>> ball((9, 9, 9), (1.0, 1.0, 1.0), 2.0)
    array([[ 2,  1,  0],
           [ 1,  1, -1],
           [ 0, -1, -1]])
    """
    steps = [min(int(reach_um * (1 + 1e-9) / s), n - 1) for s, n in zip(spacing_um, shape, strict=True)]
    z, y, x = ((np.arange(n + 1) * s) ** 2 for n, s in zip(steps, spacing_um, strict=True))
    rows = [((square + y)[:, None] + x <= reach_um * reach_um).sum(axis=1) - 1 for square in z]
    return np.stack(rows).astype(np.int64)


@compiled
def _dilate(bits, words, reaches, out):  # type: ignore[no-untyped-def]
    """Unite the balls around all bits; slices (Z, Y * words), `reaches` from `ball`."""
    depth, size = bits.shape
    slices, rows = reaches.shape
    one, last = np.uint64(1), np.uint64(63)
    wide = np.zeros((reaches[0, 0] + 1, size + 2), np.uint64)  # a word of nothing at either end
    disc = np.empty(size, np.uint64)
    for z in range(depth):
        if not np.any(bits[z]):
            continue
        wide[0, 1 : size + 1] = bits[z]
        for reach in range(1, wide.shape[0]):
            narrow = wide[reach - 1]
            for i in range(1, size + 1):
                left = (narrow[i] << one) | (narrow[i - 1] >> last)
                right = (narrow[i] >> one) | (narrow[i + 1] << last)
                wide[reach, i] = narrow[i] | left | right
        for step_z in range(slices):
            if reaches[step_z, 0] < 0:
                break
            disc[:] = wide[reaches[step_z, 0], 1 : size + 1]
            for step_y in range(1, rows):
                if reaches[step_z, step_y] < 0:
                    break
                row, shift = wide[reaches[step_z, step_y]], step_y * words
                _unite(disc[shift:], row[1:])
                _unite(disc[: size - shift], row[1 + shift :])
            if z >= step_z:
                _unite(out[z - step_z], disc)
            if 0 < step_z < depth - z:
                _unite(out[z + step_z], disc)


@compiled
def _unite(values, others):  # type: ignore[no-untyped-def]
    """values |= others, over the length of values."""
    for i in range(values.size):
        values[i] |= others[i]
