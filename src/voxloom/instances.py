"""Connected objects: labels, sizes, small objects and holes, in memory and exactly over slabs of a stored volume."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from voxloom.blocks import Block, Readable, Results, Writable, grid, map_blocks
from voxloom.budget import Layout, slabs_within
from voxloom.errors import VolumeError
from voxloom.objects import Wanted
from voxloom.runs import Look, Looks, Runs, find_runs
from voxloom.seams import Slab, join_volume, pairs_where

CONNECTIVITIES = {6: 0, 18: 1, 26: 2}
"""Connectivity: how many of y and x may differ, beside z, between two neighbours in consecutive slices."""

BYTES_PER_VOXEL = 16
"""Of a slab in work: mask, the runs of one that is all noise, labels, and those on their way to the store."""


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
    runs = _runs_of(mask, connectivity)
    return runs.draw(np.arange(runs.count + 1, dtype=np.uint32)), runs.count


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
    return _filtered(mask, connectivity=connectivity, wanted=at_least(min_size_voxels))


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
    return ~_filtered(~mask, connectivity=connectivity, wanted=_reaches_border)


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
    source: Readable,
    out: Writable,
    *,
    min_size_voxels: int,
    connectivity: int = 6,
    memory_mib: float,
    threads: int = 1,
    keep: Results | None = None,
) -> Filtered:
    """The same as `remove_small_objects` for a stored volume, slab by slab.

    Parameters
    ----------
    source : volume, shape (Z, Y, X)
        Non-zero is foreground.
    out : volume of uint8, shape (Z, Y, X)
        Takes 0 and 1; may be `source` itself, unless it resumes.
    min_size_voxels : int
        Size of the smallest object that stays.
    connectivity : {6, 18, 26}
        Neighbours that make two voxels one object.
    memory_mib : float
        Budget, in MiB.
    threads : int
        Slabs in work at a time, fewer where the budget holds fewer.
    keep : Results, optional
        Where what the first pass finds out about each slab outlives an interruption.

    Returns
    -------
    filtered : Filtered

    Raises
    ------
    VolumeError
        If the budget doesn't hold one slice.

    Notes
    -----
    Labels are never stored: the first pass keeps the runs of slabs, in files beside `out` where they take too much
    memory, and the faces between slabs, and unites the objects that touch across them; the second decides about every
    object. The result doesn't depend on the slabs.
    """
    return _filter_objects(
        source,
        out,
        of_background=False,
        connectivity=connectivity,
        wanted=at_least(min_size_voxels),
        memory_mib=memory_mib,
        threads=threads,
        description="small objects",
        keep=keep,
    )


def fill_holes_volume(
    source: Readable,
    out: Writable,
    *,
    connectivity: int = 6,
    memory_mib: float,
    threads: int = 1,
    keep: Results | None = None,
) -> Filtered:
    """The same as `fill_holes` for a stored volume, slab by slab.

    Parameters
    ----------
    source, out, connectivity, memory_mib, threads, keep
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
        wanted=_reaches_border,
        memory_mib=memory_mib,
        threads=threads,
        description="holes",
        keep=keep,
    )


def label_volume(
    mask: Readable, labels: Writable | None, *, connectivity: int, memory_mib: float, threads: int = 1
) -> tuple[int, int]:
    """The same as `label_objects` for a stored mask, slab by slab.

    Parameters
    ----------
    mask : volume of uint8, shape (Z, Y, X)
        Non-zero is foreground.
    labels : volume of uint32, shape (Z, Y, X), or None
        Takes 0 for background and the objects' numbers, from 1 in the order of their first voxel (C order). With None
        they are only counted.
    connectivity, memory_mib, threads
        As in `remove_small_objects_volume`.

    Returns
    -------
    voxels, objects : int
        Of the foreground.

    Raises
    ------
    VolumeError
        If the budget doesn't hold one slice.
    """
    layout = slab_layout(mask.shape, mask if labels is None else labels, memory_mib=memory_mib, threads=threads)
    find = partial(_find, of_background=False, connectivity=connectivity)
    with Looks(memory_mib, labels) as looks:
        joined = join_volume(
            lambda values, block: looks.first(block.index, partial(find, mask, block, values))[1],
            mask,
            wanted=at_least(1),
            touching=partial(touching, connectivity=connectivity),
            description="labelled slab",
            **layout.grid,
        )

        def write(block: Block) -> NDArray[np.uint32]:
            runs, slab = looks.second(block.index, partial(find, mask, block))
            return runs.draw(joined.table(block.index, slab))

        if labels is not None:
            slabs = grid(mask.shape, layout.block_shape)
            map_blocks(write, out=labels, blocks=slabs, description="wrote labels of slab", **layout.how)
    return joined.voxels, joined.kept


def _filter_objects(
    source: Readable,
    out: Writable,
    *,
    of_background: bool,
    connectivity: int,
    wanted: Wanted,
    memory_mib: float,
    threads: int,
    description: str,
    keep: Results | None,
) -> Filtered:
    layout = slab_layout(source.shape, out, memory_mib=memory_mib, threads=threads)
    find = partial(_find, of_background=of_background, connectivity=connectivity)
    with Looks(memory_mib, out) as looks:
        joined = join_volume(
            lambda values, block: looks.first(block.index, partial(find, source, block, values))[1],
            source,
            wanted=wanted,
            touching=partial(touching, connectivity=connectivity),
            description=f"{description}: looking at slab",
            keep=keep,
            **layout.grid,
        )

        def write(block: Block) -> NDArray[np.uint8]:
            runs, slab = looks.second(block.index, partial(find, source, block))
            kept = runs.draw(joined.table(block.index, slab) != 0)
            return (~kept if of_background else kept).view(np.uint8)

        slabs = grid(source.shape, layout.block_shape)
        map_blocks(write, out=out, blocks=slabs, description=f"{description}: deciding slab", **layout.how)
    return Filtered(joined.objects, joined.objects - joined.kept, joined.voxels - joined.kept_voxels)


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


def _find(
    source: Readable,
    block: Block,
    values: NDArray[np.uint8] | None = None,
    *,
    of_background: bool,
    connectivity: int,
) -> Look:
    """Look at a slab, whose values are read if they aren't given."""
    values = source[block.core] if values is None else values
    mask = values == 0 if of_background else values if values.dtype == np.uint8 else values != 0
    runs = find_runs(mask, connectivity=connectivity)
    return runs, runs.labelled(shape=source.shape, first_slice=block.core[0].start)


def at_least(min_size_voxels: int) -> Wanted:
    """The decision that keeps objects of at least so many voxels."""
    return lambda sizes, touches_border: sizes >= min_size_voxels


def _reaches_border(sizes: NDArray[np.int64], touches_border: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return touches_border


def _filtered(mask: NDArray[np.bool_], *, connectivity: int, wanted: Wanted) -> NDArray[np.bool_]:
    runs = _runs_of(mask, connectivity)
    return runs.draw(runs.labelled(shape=mask.shape, first_slice=0).kept(wanted))


def _runs_of(mask: NDArray[np.bool_], connectivity: int) -> Runs:
    if mask.ndim != 3 or mask.dtype != np.bool_:
        raise VolumeError(
            f"mask must be a 3D boolean array, got {mask.ndim}D {mask.dtype}; "
            "compare the labels with 0 first (labels > 0)"
        )
    if connectivity not in CONNECTIVITIES:
        raise VolumeError(f"connectivity must be 6, 18 or 26, got {connectivity}")
    return find_runs(mask, connectivity=connectivity)


def touching(above: Slab, below: Slab, *, connectivity: int) -> NDArray[np.int64]:
    """Pairs (2, N) of objects that are neighbours across a seam, few of them more than once."""
    may_differ = CONNECTIVITIES[connectivity]
    upper_slice, lower_slice = above.last[-1], below.first[0]
    height, width = upper_slice.shape
    pairs = []
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            if abs(dy) + abs(dx) > may_differ:
                continue
            upper = upper_slice[max(dy, 0) : height + min(dy, 0), max(dx, 0) : width + min(dx, 0)]
            lower = lower_slice[max(-dy, 0) : height + min(-dy, 0), max(-dx, 0) : width + min(-dx, 0)]
            pairs.append(pairs_where((upper > 0) & (lower > 0), upper, lower))
    return np.concatenate(pairs, axis=1)
