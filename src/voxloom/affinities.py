"""Components of an affinity graph: voxels that affinities join, in memory and exactly over slabs of a stored volume."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxloom.blocks import Block, Readable, Writable, map_blocks
from voxloom.budget import slabs_within
from voxloom.errors import VolumeError
from voxloom.kernels import compiled
from voxloom.objects import Labelled, Wanted, labelled, look_up, root_of
from voxloom.seams import Slab, join_volume, pairs_where

Offsets = Sequence[tuple[int, int, int]]

DTYPES = ("uint8", "uint16", "float32", "float64")

NEAREST: Offsets = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
"""Each voxel's edges to the voxel before it along Z, Y and X."""


def label_components(
    affinities: NDArray[Any], *, threshold: float, offsets: Offsets = NEAREST, min_size_voxels: int = 1
) -> tuple[NDArray[np.uint32], int]:
    """Number the components that are joined by affinities above a threshold.

    Parameters
    ----------
    affinities : ndarray of one of `DTYPES`, shape (C, Z, Y, X)
        Channel c at a voxel is that of its edge to the voxel at ``offsets[c]`` from it; beyond the volume's border it
        is not looked at. Not modified.
    threshold : float
        An edge joins its two voxels if its affinity is larger, in the affinities' own units and precision; never if it
        is NaN.
    offsets : sequence of tuple of int
        (Z, Y, X) of each channel in voxels, such as -3 for a long range; Z is at most 0.
    min_size_voxels : int
        Components with fewer voxels become background; 2 leaves out voxels that nothing joins, 1 keeps all.

    Returns
    -------
    labels : ndarray of uint32, shape (Z, Y, X)
        0 is background; components are numbered from 1 in the order of their first voxel (C order).
    count : int
        Number of components.

    Raises
    ------
    VolumeError
        If channels and offsets don't fit, or the type is another.

    Examples
    --------
    >>> joins_previous_x = np.array([[[[0.0, 0.9, 0.2, 0.8]]]])
    >>> label_components(joins_previous_x, threshold=0.5, offsets=[(0, 0, -1)])
    (array([[[1, 1, 2, 2]]], dtype=uint32), 2)
    """
    check_affinities(affinities.shape, affinities.dtype, offsets)
    labels, count = _components(affinities, _in_precision(threshold, affinities.dtype), offsets)
    if min_size_voxels <= 1:
        return labels, count
    kept = labelled(labels, count, shape=labels.shape, first_slice=0).kept(_at_least(min_size_voxels))
    numbers = np.where(kept, np.cumsum(kept), 0).astype(np.uint32)
    return look_up(labels, numbers), int(kept.sum())


def label_components_volume(
    affinities: Readable,
    labels: Writable,
    *,
    threshold: float,
    offsets: Offsets = NEAREST,
    min_size_voxels: int = 1,
    memory_mib: float,
    threads: int = 1,
) -> int:
    """The same as `label_components` for stored affinities, slab by slab.

    Parameters
    ----------
    affinities : volume of one of `DTYPES`, shape (C, Z, Y, X)
    labels : volume of uint32, shape (Z, Y, X)
        Takes the components' numbers.
    threshold, offsets, min_size_voxels
        As in `label_components`.
    memory_mib : float
        Budget, in MiB.
    threads : int
        Slabs in work at a time, fewer where the budget holds fewer.

    Returns
    -------
    count : int
        Number of components.

    Raises
    ------
    VolumeError
        If channels and offsets don't fit, or the budget doesn't hold as many slices as the longest offset.

    Notes
    -----
    Slabs are labelled twice. The first time what reaches a seam is kept and united along the edges that cross it;
    sizes are those of whole components. Which slabs there were doesn't show in the result.
    """
    dtype = np.asarray(affinities[:, 0:1, 0:1, 0:1]).dtype
    check_affinities(affinities.shape, dtype, offsets)
    shape, reach = affinities.shape[-3:], max(1, *(-z for z, _, _ in offsets))
    layout = slabs_within(
        shape,
        bytes_per_voxel=12 + dtype.itemsize * len(offsets),
        memory_mib=memory_mib,
        shards_of=labels,
        threads=threads,
        least_slices=min(reach, shape[0]),
    )
    label = partial(_label, shape=shape, threshold=_in_precision(threshold, dtype), offsets=offsets, reach=reach)
    joined = join_volume(
        label,
        affinities,
        wanted=_at_least(min_size_voxels),
        touching=partial(_touching, offsets=offsets),
        reach=reach,
        description="labelled slab of affinities",
        **layout.grid,
    )

    def write(values: NDArray[Any], block: Block) -> NDArray[np.uint32]:
        slab = label(values, block=block)
        return look_up(slab.labels, joined.table(block.index, slab))

    map_blocks(write, affinities, out=labels, description="wrote components of slab", **layout.grid)
    return joined.kept


def check_affinities(shape: tuple[int, ...], dtype: np.dtype[Any], offsets: Offsets) -> None:
    """Make sure that an array holds the edges of an affinity graph.

    Parameters
    ----------
    shape : tuple of int
    dtype : dtype
    offsets : sequence of tuple of int

    Raises
    ------
    VolumeError
        If the axes, the type, or the number or direction of the offsets are others.
    """
    if len(shape) != 4 or dtype not in DTYPES:
        raise VolumeError(
            f"affinities must have the axes (C, Z, Y, X) and one of the types {', '.join(DTYPES)}, got {dtype} of "
            f"shape {shape}"
        )
    if len(offsets) != shape[0]:
        raise VolumeError(f"{shape[0]} channels of affinities need as many offsets, got {len(offsets)}: {offsets}")
    for offset in offsets:
        if offset[0] > 0 or not any(offset):
            raise VolumeError(
                f"an offset must lead to another voxel, in the same or an earlier slice, got {offset}; where a channel "
                "holds the edge to a later slice, move it by its offset and turn the offset's signs"
            )


def _in_precision(threshold: float, dtype: np.dtype[Any]) -> Any:
    return dtype.type(threshold) if dtype.kind == "f" else float(threshold)


def _at_least(min_size_voxels: int) -> Wanted:
    return lambda sizes, touches_border: sizes >= min_size_voxels


def _components(affinities: NDArray[Any], threshold: Any, offsets: Offsets) -> tuple[NDArray[np.uint32], int]:
    labels = np.empty(affinities.shape[1:], np.uint32)
    if labels.size > np.iinfo(np.uint32).max:
        raise VolumeError(f"{labels.shape} are more voxels than 32 bits can number; label them slab by slab")
    runs = list(offsets).index((0, 0, -1)) if (0, 0, -1) in offsets else -1
    count = _unite(affinities, threshold, np.asarray(offsets, np.int64), runs, labels.reshape(-1))
    return labels, int(count)


def _label(
    affinities: NDArray[Any], *, block: Block, shape: tuple[int, ...], threshold: Any, offsets: Offsets, reach: int
) -> Labelled:
    labels, count = _components(affinities, threshold, offsets)
    slab = labelled(labels, count, shape=shape, first_slice=block.core[0].start)
    return Labelled(labels, slab.sizes, slab.touches_border, links=affinities[:, :reach] > threshold)


def _touching(above: Slab, below: Slab, *, offsets: Offsets) -> NDArray[np.int64]:
    """Pairs (2, N) of components that an edge across the seam joins."""
    pairs = [np.zeros((2, 0), np.int64)]
    height, width = below.first.shape[1:]
    for channel, (dz, dy, dx) in zip(below.links, offsets, strict=True):
        here = (_part(-dy, height), _part(-dx, width))
        there = (_part(dy, height), _part(dx, width))
        for z in range(min(-dz, len(below.first))):  # those of the slab's slices from which the edge leads out of it
            chosen = channel[z][here]
            if chosen.size:
                pairs.append(pairs_where(chosen, above.last[z + dz][there], below.first[z][here]))
    return np.concatenate(pairs, axis=1)


def _part(step: int, size: int) -> slice:
    """The places that a step along an axis leads to from within."""
    return slice(max(step, 0), max(size + min(step, 0), 0))


@compiled
def _unite(affinities, threshold, offsets, runs, parents):  # type: ignore[no-untyped-def]
    """Union-find in the array of the result: parents come before their children, so that one pass turns them into
    numbers in the order of first voxels. `runs` is the channel that joins voxels along a row, or -1."""
    channels, depth, height, width = affinities.shape
    for z in range(depth):
        for y in range(height):
            first = (z * height + y) * width
            row = parents[first : first + width]
            for x in range(width):
                row[x] = first + x
            if runs >= 0:
                edges = affinities[runs, z, y]
                for x in range(1, width):
                    if edges[x] > threshold:
                        row[x] = row[x - 1]
    for z in range(depth):
        for y in range(height):
            for c in range(channels):
                dz, dy, dx = offsets[c]
                if c == runs or z + dz < 0 or y + dy < 0 or y + dy >= height:
                    continue
                begin, size = max(-dx, 0), width - abs(dx)
                first = (z * height + y) * width + begin
                step = (dz * height + dy) * width + dx
                edges = affinities[c, z, y, begin:]
                here, there = parents[first:], parents[first + step :]
                one, other = parents.size, parents.size  # parents that were united last: often the same again
                for x in range(size):
                    if edges[x] > threshold and (here[x] != one or there[x] != other):
                        one, other = np.int64(here[x]), np.int64(there[x])
                        a, b = root_of(parents, one), root_of(parents, other)
                        if a < b:
                            parents[b] = a
                        else:
                            parents[a] = b
    count = 0
    for i in range(parents.size):
        if parents[i] == i:
            count += 1
            parents[i] = count
        else:
            parents[i] = parents[parents[i]]
    return count
