"""Boxes of voxels: overlap, distance, and what is left when one is cut out of another."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""Half-open voxel ranges along (Z, Y, X)."""


def whole(shape: Sequence[int]) -> Box:
    """The box of all voxels of a volume of that (Z, Y, X) shape."""
    z, y, x = shape
    return (0, z), (0, y), (0, x)


def voxels(box: Box) -> int:
    """Number of voxels; 0 when a range is empty or backwards."""
    return math.prod(max(0, last - first) for first, last in box)


def slices(box: Box) -> tuple[slice, slice, slice]:
    """The box as an index."""
    z, y, x = (slice(first, last) for first, last in box)
    return z, y, x


def intersect(a: Box, b: Box) -> Box | None:
    """The common box, or None."""
    z, y, x = ((max(p[0], q[0]), min(p[1], q[1])) for p, q in zip(a, b, strict=True))
    return (z, y, x) if voxels((z, y, x)) else None


def grow(box: Box, margin: Sequence[int], *, within: Box) -> Box:
    """The box with a margin (Z, Y, X) on every side, clipped to `within`."""
    z, y, x = (
        (max(first - m, low), min(last + m, high))
        for (first, last), m, (low, high) in zip(box, margin, within, strict=True)
    )
    return z, y, x


def subtract(box: Box, hole: Box) -> list[Box]:
    """Disjoint boxes that cover what of `box` is outside `hole`; whole slabs along Z first, then Y, then X.

    Examples
    --------
    >>> subtract(((0, 4), (0, 4), (0, 4)), ((1, 2), (0, 4), (0, 3)))
    [((0, 1), (0, 4), (0, 4)), ((2, 4), (0, 4), (0, 4)), ((1, 2), (0, 4), (3, 4))]
    """
    common = intersect(box, hole)
    if common is None:
        return [box]
    rest = []
    left = list(box)
    for axis in range(3):
        (first, last), (low, high) = left[axis], common[axis]
        for piece in ((first, low), (high, last)):
            if piece[0] < piece[1]:
                rest.append(_replaced(left, axis, piece))
        left[axis] = (low, high)
    return rest


def subtract_all(boxes: Iterable[Box], holes: Iterable[Box]) -> list[Box]:
    """Disjoint boxes that cover what of (disjoint) `boxes` is outside every hole."""
    rest = list(boxes)
    for hole in holes:
        rest = [piece for box in rest for piece in subtract(box, hole)]
    return rest


def _replaced(box: Sequence[tuple[int, int]], axis: int, edge: tuple[int, int]) -> Box:
    z, y, x = (edge if k == axis else box[k] for k in range(3))
    return z, y, x


def as_array(boxes: Sequence[Box]) -> NDArray[np.int64]:
    """Shape (n, 3, 2): box, axis, (first, one after the last)."""
    return np.asarray(boxes, dtype=np.int64).reshape(-1, 3, 2)


def near(box: Box, others: NDArray[np.int64], *, gap: Sequence[int]) -> NDArray[np.bool_]:
    """Which of many boxes are closer than `gap` voxels along every axis.

    Parameters
    ----------
    box : Box
    others : ndarray of int64, shape (n, 3, 2)
        From `as_array`.
    gap : sequence of int
        Voxels (Z, Y, X); 0 asks which boxes share a voxel with `box`.

    Returns
    -------
    is_near : ndarray of bool, shape (n,)
    """
    one = np.asarray(box, dtype=np.int64)
    between = np.maximum(one[:, 0], others[:, :, 0]) - np.minimum(one[:, 1], others[:, :, 1])
    return np.asarray((between < np.asarray(gap)).all(axis=1))


def trim(box: Box, keepers: NDArray[np.int64], *, gap: Sequence[int]) -> Box | None:
    """Make a box smaller until it is `gap` voxels away from others along at least one axis.

    Parameters
    ----------
    box : Box
    keepers : ndarray of int64, shape (n, 3, 2)
        Boxes that stay as they are.
    gap : sequence of int
        Voxels (Z, Y, X) that must lie between, along one axis at least.

    Returns
    -------
    trimmed : Box or None
        Part of `box`; None when nothing can stay. Of the ways to get away from a keeper the one is taken that leaves
        most voxels, beginning with the keeper that costs most, since the cut for it often serves others as well.
    """
    conflicts = keepers[near(box, keepers, gap=gap)]
    while len(conflicts):
        ways = [_widest_way_out(box, keeper, gap) for keeper in conflicts]
        worst = min(range(len(ways)), key=lambda k: 0 if ways[k] is None else voxels(ways[k]))  # type: ignore[arg-type]
        way = ways[worst]
        if way is None:
            return None
        box = way
        conflicts = conflicts[near(box, conflicts, gap=gap)]
    return box


def _widest_way_out(box: Box, keeper: NDArray[np.int64], gap: Sequence[int]) -> Box | None:
    ways = []
    for axis in range(3):
        first, last = box[axis]
        below = (first, min(last, int(keeper[axis, 0]) - gap[axis]))
        above = (max(first, int(keeper[axis, 1]) + gap[axis]), last)
        ways += [_replaced(box, axis, edge) for edge in (below, above) if edge[0] < edge[1]]
    return max(ways, key=voxels, default=None)


def cut(shape: Sequence[int], edges: Sequence[float | None]) -> list[Box]:
    """Cut a volume into nearly equal boxes.

    Parameters
    ----------
    shape : sequence of int
        (Z, Y, X).
    edges : sequence of float or None
        Wanted edge (Z, Y, X) in voxels, 1 at least; None for the whole axis. The number of boxes along an axis is its
        length over this, rounded, so that no sliver is left at the end.

    Returns
    -------
    boxes : list of Box
        In C order.
    """
    axes = []
    for size, edge in zip(shape, edges, strict=True):
        count = 1 if edge is None else min(size, max(1, round(size / edge)))
        borders = [round(size * k / count) for k in range(count + 1)]
        axes.append(list(itertools.pairwise(borders)))
    return [(z, y, x) for z, y, x in itertools.product(*axes)]
