"""From a prediction to a mask and its objects, slab by slab in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from voxloom.blocks import Block, Readable, Writable, map_blocks, reduce_blocks
from voxloom.budget import Layout, slabs_within
from voxloom.errors import VolumeError
from voxloom.instances import Filtered, label_objects, remove_small_objects_volume, slab_layout


class ReadableWritable(Readable, Writable, Protocol):
    """A volume that is read back while it is written."""


@dataclass(frozen=True)
class Segmented:
    """What became of a prediction.

    Parameters
    ----------
    foreground_voxels : int
        In the final mask.
    objects : int
        In the final mask.
    removed_objects, removed_voxels : int
        Smaller than the smallest allowed.
    """

    foreground_voxels: int
    objects: int
    removed_objects: int
    removed_voxels: int


def segment_volume(
    prediction: Readable,
    mask: ReadableWritable,
    *,
    stored_threshold: int,
    min_size_voxels: int,
    connectivity: int,
    memory_mib: float,
    labels: Writable | None = None,
    threads: int = 1,
) -> Segmented:
    """Cut a prediction at a threshold, remove small objects, and number the rest.

    Parameters
    ----------
    prediction : volume of uint8 or uint16, shape (Z, Y, X)
        Stored scores.
    mask : volume of uint8, shape (Z, Y, X)
        Takes 0 and 1; is read back when small objects are removed.
    stored_threshold : int
        A voxel whose stored score is at least this is foreground; "stored" of an evaluation's threshold.
    min_size_voxels : int
        Objects with fewer voxels are removed; one of exactly this size stays.
    connectivity : {6, 18, 26}
        Neighbours that make two voxels one object.
    memory_mib : float
        Budget, in MiB.
    labels : volume of uint32, shape (Z, Y, X), optional
        Takes the objects' numbers; see `label_volume`.
    threads : int
        Slabs in work at a time, fewer where the budget holds fewer.

    Returns
    -------
    segmented : Segmented

    Raises
    ------
    VolumeError
        If the prediction isn't stored scores, or the budget doesn't hold one slice.
    """
    first = np.asarray(prediction[0:1, 0:1, 0:1])
    if first.dtype not in (np.uint8, np.uint16):
        raise VolumeError(f"a prediction is stored as uint8 or uint16, got {first.dtype}; predict it anew")
    layout = threshold_layout(prediction.shape, mask, first.dtype, memory_mib=memory_mib, threads=threads)
    map_blocks(
        lambda stored: (stored >= stored_threshold).view(np.uint8),
        prediction,
        out=mask,
        description="thresholded slab",
        **layout.grid,
    )
    removed = Filtered(objects=0, changed_objects=0, changed_voxels=0)
    if min_size_voxels > 1:
        removed = remove_small_objects_volume(
            mask,
            mask,
            min_size_voxels=min_size_voxels,
            connectivity=connectivity,
            memory_mib=memory_mib,
            threads=threads,
        )
    voxels, objects = label_volume(mask, labels, connectivity=connectivity, memory_mib=memory_mib, threads=threads)
    return Segmented(voxels, objects, removed.changed_objects, removed.changed_voxels)


def threshold_layout(shape: Sequence[int], mask: Any, dtype: DTypeLike, *, memory_mib: float, threads: int) -> Layout:
    """The slabs by which a prediction is cut at its threshold; its objects have those of `instances.slab_layout`.

    Parameters
    ----------
    shape : sequence of int
        (Z, Y, X).
    mask : object
        The volume that is written; its ``shard_shape`` counts where it has one.
    dtype : dtype
        Of the prediction.
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
    return slabs_within(
        shape,
        bytes_per_voxel=2 + np.dtype(dtype).itemsize,
        memory_mib=memory_mib,
        shards_of=mask,
        threads=threads,
    )


def label_volume(
    mask: Readable, labels: Writable | None, *, connectivity: int, memory_mib: float, threads: int = 1
) -> tuple[int, int]:
    """Number the objects of a stored mask, slab by slab.

    Parameters
    ----------
    mask : volume of uint8, shape (Z, Y, X)
        Non-zero is foreground.
    labels : volume of uint32, shape (Z, Y, X), or None
        Takes 0 for background and the objects' numbers, from 1 in the order of their first voxel (C order). With None
        they are only counted.
    connectivity : {6, 18, 26}
        Neighbours that make two voxels one object.
    memory_mib : float
        Budget, in MiB.
    threads : int

    Returns
    -------
    voxels, objects : int
        Of the foreground.

    Raises
    ------
    VolumeError
        If the budget doesn't hold one slice.

    Notes
    -----
    Slabs are labelled, their objects united where they touch across the slabs' faces, and labelled once more to be
    written under their final numbers; which slabs there were doesn't show in the result.
    """
    layout = slab_layout(mask.shape, mask if labels is None else labels, memory_mib=memory_mib, threads=threads)

    def look(values: NDArray[np.uint8]) -> tuple[int, int, NDArray[np.uint32], NDArray[np.uint32]]:
        found, count = label_objects(values != 0, connectivity=connectivity)
        return int(np.count_nonzero(found)), count, found[0].copy(), found[-1].copy()

    voxels, total = 0, 0
    firsts: list[int] = []
    edges: list[NDArray[np.int64]] = []
    above: NDArray[np.uint32] | None = None
    slabs = reduce_blocks(look, mask, description="labelled slab", **layout.grid)
    for _, (foreground, count, first_slice, last_slice) in slabs:
        if above is not None:
            edges.append(_united(above, first_slice, connectivity, firsts[-1], total))
        firsts.append(total)
        voxels, total, above = voxels + foreground, total + count, last_slice
    numbers, objects = _final_numbers(edges, total)
    if labels is None:
        return voxels, objects

    def write(values: NDArray[np.uint8], block: Block) -> NDArray[np.uint32]:
        found, count = label_objects(values != 0, connectivity=connectivity)
        own = numbers[firsts[block.index] : firsts[block.index] + count]
        return np.concatenate((np.zeros(1, np.uint32), own))[found]

    map_blocks(write, mask, out=labels, description="wrote labels of slab", **layout.grid)
    return voxels, objects


def _united(
    above: NDArray[np.uint32], below: NDArray[np.uint32], connectivity: int, first_above: int, first_below: int
) -> NDArray[np.int64]:
    """Pairs (2, N) of objects, counted from 0 over all slabs, that are one across a face."""
    sandwich, count = label_objects(np.stack([above, below]) > 0, connectivity=connectivity)
    if count == 0:
        return np.zeros((2, 0), np.int64)
    pieces, objects = [], []
    for layer, labels, first in ((sandwich[0], above, first_above), (sandwich[1], below, first_below)):
        at = np.flatnonzero(labels)
        pair = np.unique(np.stack([layer.ravel()[at], labels.ravel()[at]]).astype(np.int64), axis=1)
        pieces.append(pair[0])
        objects.append(pair[1] - 1 + first)
    piece, member = np.concatenate(pieces), np.concatenate(objects)
    order = np.argsort(piece, kind="stable")
    piece, member = piece[order], member[order]
    same = np.flatnonzero(piece[1:] == piece[:-1])  # a chain through the members of each piece unites them all
    return np.stack([member[same], member[same + 1]])


def _final_numbers(edges: list[NDArray[np.int64]], total: int) -> tuple[NDArray[np.uint32], int]:
    """For every slab's object its number, from 1 in the order of first voxels, and how many there are."""
    if total == 0:
        return np.zeros(0, np.uint32), 0
    rows, columns = np.concatenate(edges, axis=1) if edges else np.zeros((2, 0), np.int64)
    graph = coo_array((np.ones(rows.size, np.bool_), (rows, columns)), shape=(total, total))
    count, united = connected_components(graph, directed=False)
    _, first = np.unique(united, return_index=True)
    rank = np.empty(count, np.uint32)
    rank[np.argsort(first)] = np.arange(1, count + 1, dtype=np.uint32)
    return rank[united], int(count)
