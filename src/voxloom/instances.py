"""Connected objects: labels, sizes, small objects and holes, in memory and exactly over slabs of a stored volume."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from voxloom.blocks import Block, Readable, Writable, map_blocks, reduce_blocks
from voxloom.budget import Layout, slabs_within
from voxloom.errors import VolumeError
from voxloom.kernels import compiled

CONNECTIVITIES = {6: 0, 18: 1, 26: 2}
"""Connectivity: how many of y and x may differ, beside z, between two neighbours in consecutive slices."""

BYTES_PER_VOXEL = 16
"""Of a slab in work: labels, the labeller's equivalences, mask in and out."""


def label_objects(mask: NDArray[np.bool_], *, connectivity: int) -> tuple[NDArray[np.uint32], int]:
    """Number the connected objects of a mask.

    Parameters
    ----------
    mask : ndarray of bool, shape (Z, Y, X)
        Not modified.
    connectivity : {6, 18, 26}
        Neighbours that make two voxels one object: those sharing a face, also an edge, also a corner.

    Returns
    -------
    labels : ndarray of uint32, shape (Z, Y, X)
        0 is background; objects are numbered from 1 in the order of their first voxel (C order).
    count : int
        Number of objects.

    Raises
    ------
    VolumeError
        If `mask` is not a 3D boolean array or the connectivity is another number.

    Examples
    --------
    >>> label_objects(np.array([[[True, False, True]]]), connectivity=6)
    (array([[[1, 0, 2]]], dtype=uint32), 2)
    """
    if mask.ndim != 3 or mask.dtype != np.bool_:
        raise VolumeError(
            f"mask must be a 3D boolean array, got {mask.ndim}D {mask.dtype}; "
            "compare the labels with 0 first (labels > 0)"
        )
    if connectivity not in CONNECTIVITIES:
        raise VolumeError(f"connectivity must be 6, 18 or 26, got {connectivity}")
    if connectivity == 26 and 1 in mask.shape:
        connectivity = 18  # the same where there are no corners; cc3d 4.1 runs out of labels on flat arrays with 26
    options: dict[str, Any] = {"connectivity": connectivity, "binary_image": True, "out_dtype": np.uint32}
    found: tuple[Any, int] = cc3d.connected_components(np.ascontiguousarray(mask), return_N=True, **options)
    return found[0], int(found[1])


def object_sizes(labels: NDArray[np.uint32], count: int) -> NDArray[np.int64]:
    """Number of voxels of every object.

    Parameters
    ----------
    labels : ndarray of uint32, shape (Z, Y, X)
        From `label_objects`.
    count : int
        Number of objects.

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


def remove_small_objects(mask: NDArray[np.bool_], *, min_size_voxels: int, connectivity: int = 6) -> NDArray[np.bool_]:
    """Remove the objects that have fewer voxels than a given number; one of exactly that number stays.

    Parameters
    ----------
    mask : ndarray of bool, shape (Z, Y, X)
        Not modified.
    min_size_voxels : int
        Size of the smallest object that stays.
    connectivity : {6, 18, 26}
        Neighbours that make two voxels one object; 6 as in 3D Slicer's islands.

    Returns
    -------
    kept : ndarray of bool, shape (Z, Y, X)

    Raises
    ------
    VolumeError
        If `mask` is not a 3D boolean array or the connectivity is another number.

    Notes
    -----
    An object that is cut by the array's border is as large as what is inside, like any other.

    Examples
    --------
    >>> remove_small_objects(np.array([[[True, False, True, True]]]), min_size_voxels=2)
    array([[[False, False,  True,  True]]])
    """
    labels, count = label_objects(mask, connectivity=connectivity)
    keep = object_sizes(labels, count) >= min_size_voxels
    keep[0] = False
    return _look_up(labels, keep)


def fill_holes(mask: NDArray[np.bool_], *, connectivity: int = 6) -> NDArray[np.bool_]:
    """Fill background that does not reach the array's border.

    Parameters
    ----------
    mask : ndarray of bool, shape (Z, Y, X)
        Not modified.
    connectivity : {6, 18, 26}
        Neighbours through which background is one hole.

    Returns
    -------
    filled : ndarray of bool, shape (Z, Y, X)

    Raises
    ------
    VolumeError
        If `mask` is not a 3D boolean array or the connectivity is another number.

    Notes
    -----
    An axis of a single voxel has no border: in one slice, a ring is filled.

    Examples
    --------
    >>> fill_holes(np.array([[[True, True, True], [True, False, True], [True, True, True]]])).all()
    np.True_
    """
    labels, count = label_objects(~mask, connectivity=connectivity)
    is_open = _labels_on(labels, count, _borders(mask.shape, mask.shape[0], first_slice=0))
    is_open[0] = False
    return ~_look_up(labels, is_open)


@dataclass(frozen=True)
class Filtered:
    """What a filter of objects did to a volume.

    Parameters
    ----------
    objects, changed_objects : int
        Objects that there were (for holes: connected pieces of background), and those that were removed or filled.
    changed_voxels : int
        Voxels of those.
    """

    objects: int
    changed_objects: int
    changed_voxels: int


def remove_small_objects_volume(
    source: Readable, out: Writable, *, min_size_voxels: int, connectivity: int = 6, memory_mib: float, threads: int = 1
) -> Filtered:
    """The same as `remove_small_objects` for a stored volume, slab by slab.

    Parameters
    ----------
    source : volume, shape (Z, Y, X)
        Non-zero is foreground.
    out : volume of uint8, shape (Z, Y, X)
        Takes 0 and 1; may be `source` itself.
    min_size_voxels : int
        Size of the smallest object that stays.
    connectivity : {6, 18, 26}
        Neighbours that make two voxels one object.
    memory_mib : float
        Budget, in MiB.
    threads : int
        Slabs in work at a time, fewer where the budget holds fewer.

    Returns
    -------
    filtered : Filtered

    Raises
    ------
    VolumeError
        If the budget doesn't hold one slice.

    Notes
    -----
    Slabs are labelled twice and their labels never stored. The first pass keeps the faces between slabs and unites
    the objects that touch across them; the second decides about every object. The result doesn't depend on the slabs.
    """
    return _filter_objects(
        source,
        out,
        of_background=False,
        connectivity=connectivity,
        is_changed=lambda sizes, touches_border: sizes < min_size_voxels,
        memory_mib=memory_mib,
        threads=threads,
        description="small objects",
    )


def fill_holes_volume(
    source: Readable, out: Writable, *, connectivity: int = 6, memory_mib: float, threads: int = 1
) -> Filtered:
    """The same as `fill_holes` for a stored volume, slab by slab.

    Parameters
    ----------
    source, out, connectivity, memory_mib, threads
        As in `remove_small_objects_volume`.

    Returns
    -------
    filtered : Filtered

    Raises
    ------
    VolumeError
        If the budget doesn't hold one slice.
    """
    return _filter_objects(
        source,
        out,
        of_background=True,
        connectivity=connectivity,
        is_changed=lambda sizes, touches_border: ~touches_border,
        memory_mib=memory_mib,
        threads=threads,
        description="holes",
    )


Decision = Callable[[NDArray[np.int64], NDArray[np.bool_]], NDArray[np.bool_]]
"""Sizes of objects, and whether they touch the volume's border, to whether they change sides."""


@dataclass(frozen=True)
class _Slab:
    """What the first pass keeps of a slab: the objects that reach its first or last slice."""

    sizes: NDArray[np.int64]
    touches_border: NDArray[np.bool_]
    first_slice: NDArray[np.uint32]  # (Y, X), numbers 1... of these objects
    last_slice: NDArray[np.uint32]


def _filter_objects(
    source: Readable,
    out: Writable,
    *,
    of_background: bool,
    connectivity: int,
    is_changed: Decision,
    memory_mib: float,
    threads: int,
    description: str,
) -> Filtered:
    shape = source.shape
    layout = slab_layout(shape, out, memory_mib=memory_mib, threads=threads)

    def look(values: NDArray[np.uint8], block: Block) -> _Slab:
        labels, count = label_objects((values != 0) ^ of_background, connectivity=connectivity)
        on_face = np.flatnonzero(_labels_on(labels, count, _faces()))
        number = np.zeros(count + 1, np.uint32)
        number[on_face] = np.arange(1, on_face.size + 1)
        border = _labels_on(labels, count, _borders(shape, labels.shape[0], first_slice=block.core[0].start))
        sizes = object_sizes(labels, count)
        return _Slab(sizes[on_face], border[on_face], number[labels[0]], number[labels[-1]])

    slabs = reduce_blocks(look, source, description=f"{description}: looking at slab", **layout.grid)
    face_objects, joined_changed = _join(slabs, connectivity, is_changed)

    # one entry a slab; different threads write different entries
    counts = np.zeros((len(face_objects), 3), np.int64)

    def decide(values: NDArray[np.uint8], block: Block) -> NDArray[np.uint8]:
        mask = (values != 0) ^ of_background
        labels, count = label_objects(mask, connectivity=connectivity)
        sizes = object_sizes(labels, count)
        on_face = _labels_on(labels, count, _faces())
        border = _labels_on(labels, count, _borders(shape, labels.shape[0], first_slice=block.core[0].start))
        changed = is_changed(sizes, border)
        changed[on_face] = joined_changed[face_objects[block.index]]
        changed[0] = False
        inside = ~on_face
        inside[0] = False
        counts[block.index] = np.sum(inside), np.sum(changed & inside), np.sum(sizes[changed])
        return (_look_up(labels, changed) ^ (values != 0)).astype(np.uint8)

    map_blocks(decide, source, out=out, description=f"{description}: deciding slab", **layout.grid)
    inside, changed, voxels = (int(n) for n in counts.sum(axis=0))
    return Filtered(inside + joined_changed.size, changed + int(joined_changed.sum()), voxels)


def slab_layout(shape: tuple[int, ...], out: object, *, memory_mib: float, threads: int) -> Layout:
    """The slabs by which objects of a stored mask are filtered.

    Parameters
    ----------
    shape : tuple of int
        (Z, Y, X).
    out : object
        The mask that is written; its ``shard_shape`` counts where it has one.
    memory_mib : float
        Budget, in MiB.
    threads : int
        Slabs that could be in work at a time.

    Returns
    -------
    layout : Layout

    Raises
    ------
    VolumeError
        If the budget doesn't hold one slice.
    """
    return slabs_within(shape, bytes_per_voxel=BYTES_PER_VOXEL, memory_mib=memory_mib, shards_of=out, threads=threads)


def _join(
    slabs: Iterator[tuple[Block, _Slab]], connectivity: int, is_changed: Decision
) -> tuple[list[NDArray[np.int64]], NDArray[np.bool_]]:
    """Unite the objects that touch across faces.

    Returns, for each slab, the united object of each of its face objects; and for each united object the decision.
    """
    total = 0
    firsts: list[int] = []
    sizes, borders, pairs = [], [], []
    above: NDArray[np.uint32] | None = None
    for _, slab in slabs:
        if above is not None:
            touching = _touching(above, slab.first_slice, CONNECTIVITIES[connectivity])
            pairs.append(touching + np.array([[firsts[-1]], [total]]) - 1)
        firsts.append(total)
        total += slab.sizes.size
        sizes.append(slab.sizes)
        borders.append(slab.touches_border)
        above = slab.last_slice
    rows, columns = np.concatenate(pairs, axis=1) if pairs else np.zeros((2, 0), np.int64)
    graph = coo_array((np.ones(rows.size, np.bool_), (rows, columns)), shape=(total, total))
    count, united = connected_components(graph, directed=False) if total else (0, np.zeros(0, np.int64))
    united_sizes = np.zeros(count, np.int64)
    np.add.at(united_sizes, united, np.concatenate(sizes))
    united_borders = np.zeros(count, np.bool_)
    united_borders[united[np.concatenate(borders)]] = True
    return np.split(united, firsts[1:]), is_changed(united_sizes, united_borders)


def _touching(above: NDArray[np.uint32], below: NDArray[np.uint32], may_differ: int) -> NDArray[np.int64]:
    """Pairs (2, N) of objects that are neighbours across a face, few of them more than once."""
    height, width = above.shape
    pairs = []
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            if abs(dy) + abs(dx) > may_differ:
                continue
            upper = above[max(dy, 0) : height + min(dy, 0), max(dx, 0) : width + min(dx, 0)].ravel()
            lower = below[max(-dy, 0) : height + min(-dy, 0), max(-dx, 0) : width + min(-dx, 0)].ravel()
            both = np.flatnonzero((upper > 0) & (lower > 0))
            pair = np.stack([upper[both], lower[both]]).astype(np.int64)
            is_new = np.ones(pair.shape[1], np.bool_)  # along a row the same pair comes many times
            is_new[1:] = np.any(pair[:, 1:] != pair[:, :-1], axis=0)
            pairs.append(pair[:, is_new])
    return np.concatenate(pairs, axis=1)


def _faces() -> list[tuple[int | slice, ...]]:
    """The first and last slice of a slab."""
    return [(0,), (-1,)]


def _borders(shape: tuple[int, ...], depth: int, *, first_slice: int) -> list[tuple[int | slice, ...]]:
    """Those sides of a slab of `depth` slices that are the volume's border; an axis of one voxel has none."""
    everything = slice(None)
    sides: list[tuple[int | slice, ...]] = []
    if shape[0] > 1 and first_slice == 0:
        sides.append((0,))
    if shape[0] > 1 and first_slice + depth == shape[0]:
        sides.append((-1,))
    if shape[1] > 1:
        sides += [(everything, 0), (everything, -1)]
    if shape[2] > 1:
        sides += [(everything, everything, 0), (everything, everything, -1)]
    return sides


def _labels_on(labels: NDArray[np.uint32], count: int, sides: list[tuple[int | slice, ...]]) -> NDArray[np.bool_]:
    """Whether each label occurs on one of the sides."""
    occurs = np.zeros(count + 1, np.bool_)
    for side in sides:
        occurs[labels[side].ravel()] = True
    occurs[0] = False
    return occurs


def _look_up(labels: NDArray[np.uint32], table: NDArray[np.bool_]) -> NDArray[np.bool_]:
    out = np.empty(labels.shape, np.bool_)
    _look_up_flat(labels.reshape(-1), table, out.reshape(-1))
    return out


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
