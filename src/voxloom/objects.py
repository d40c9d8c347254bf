"""What is known of the labelled objects of an array, a slab or a block: sizes, borders, and tables by label."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from voxloom.kernels import compiled

Wanted = Callable[[NDArray[np.int64], NDArray[np.bool_]], NDArray[np.bool_]]
"""Sizes of objects, and whether they touch the volume's border, to whether they are kept."""

Sides = list[tuple[int | slice, ...]]

NO_LINKS = np.zeros((0, 0, 0, 0), np.bool_)


class Labelled(NamedTuple):
    """A slab after its objects were labelled, by themselves.

    Parameters
    ----------
    labels : ndarray of uint32, shape (Z, Y, X)
        0 is background; objects are numbered from 1 in the order of their first voxel (C order).
    sizes : ndarray of int64, shape (count + 1,)
        Voxels of each label in this slab.
    touches_border : ndarray of bool, shape (count + 1,)
        Whether the label lies on a side of the volume.
    links : ndarray of bool
        What else is needed to know which objects touch those of other slabs.
    """

    labels: NDArray[np.uint32]
    sizes: NDArray[np.int64]
    touches_border: NDArray[np.bool_]
    links: NDArray[np.bool_] = NO_LINKS

    def kept(self, wanted: Wanted) -> NDArray[np.bool_]:
        """The decision about each label, if it were an object by itself; background is never kept."""
        kept = wanted(self.sizes, self.touches_border).copy()
        kept[0] = False
        return kept


def labelled(labels: NDArray[np.uint32], count: int, *, shape: tuple[int, ...], first_slice: int) -> Labelled:
    """Sizes of a slab's objects, and which of them lie on the volume's border.

    Parameters
    ----------
    labels : ndarray of uint32, shape (Z, Y, X)
    count : int
        Largest label.
    shape : tuple of int
        The volume's (Z, Y, X).
    first_slice : int
        Number of the slab's first slice in the volume.

    Returns
    -------
    labelled : Labelled
    """
    sides = _borders(shape, labels.shape[0], first_slice=first_slice)
    return Labelled(labels, object_sizes(labels, count), labels_on(labels, count, sides))


def object_sizes(labels: NDArray[np.uint32], count: int) -> NDArray[np.int64]:
    """Number of voxels of every object.

    Parameters
    ----------
    labels : ndarray of uint32, shape (Z, Y, X)
    count : int
        Largest label.

    Returns
    -------
    sizes : ndarray of int64, shape (count + 1,)
        Voxels of label k at k; the background's at 0.

    Examples
    --------
    >>> object_sizes(np.array([[[1, 0, 2, 2]]], np.uint32), 2)
    array([1, 1, 2])
    """
    sizes = np.zeros(count + 1, np.int64)
    _count_runs(np.ascontiguousarray(labels), sizes)
    return sizes


def labels_on(labels: NDArray[np.uint32], count: int, sides: Sides) -> NDArray[np.bool_]:
    """Whether each label occurs on one of the sides.

    Parameters
    ----------
    labels : ndarray of uint32, shape (Z, Y, X)
    count : int
        Largest label.
    sides : list of index
        Parts of the array.

    Returns
    -------
    occurs : ndarray of bool, shape (count + 1,)
        Never of background.
    """
    occurs = np.zeros(count + 1, np.bool_)
    for side in sides:
        occurs[labels[side].ravel()] = True
    occurs[0] = False
    return occurs


def look_up(labels: NDArray[np.uint32], table: NDArray[Any]) -> NDArray[Any]:
    """``table[labels]``, several times faster.

    Parameters
    ----------
    labels : ndarray of uint32
    table : ndarray, shape (count + 1,)

    Returns
    -------
    values : ndarray of the table's data type, shape of `labels`
    """
    out = np.empty(labels.shape, table.dtype)
    _look_up_flat(np.ascontiguousarray(labels).reshape(-1), table, out.reshape(-1))
    return out


def _borders(shape: tuple[int, ...], depth: int, *, first_slice: int) -> Sides:
    """Those sides of a slab of `depth` slices that are the volume's border; an axis of one voxel has none."""
    everything = slice(None)
    sides: Sides = []
    if shape[0] > 1 and first_slice == 0:
        sides.append((0,))
    if shape[0] > 1 and first_slice + depth == shape[0]:
        sides.append((-1,))
    if shape[1] > 1:
        sides += [(everything, 0), (everything, -1)]
    if shape[2] > 1:
        sides += [(everything, everything, 0), (everything, everything, -1)]
    return sides


@compiled
def _look_up_flat(labels, table, out):  # type: ignore[no-untyped-def]
    for i in range(labels.size):
        out[i] = table[labels[i]]


@compiled
def _count_runs(labels, sizes):  # type: ignore[no-untyped-def]
    """Voxels a label, run by run, so that background costs one addition a run."""
    flat = labels.reshape(-1)
    start = 0
    while start < flat.size:
        end = start + 1
        while end < flat.size and flat[end] == flat[start]:
            end += 1
        sizes[flat[start]] += end - start
        start = end


@compiled
def root_of(parents, i):  # type: ignore[no-untyped-def]
    """The first of a chain of parents, to which the chain is shortened."""
    while parents[i] != i:
        parents[i] = parents[parents[i]]
        i = np.int64(parents[i])
    return i
