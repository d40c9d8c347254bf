"""From a prediction to its numbered objects, slab by slab in bounded memory; by one job or by several.

There are two passes: the first reads the prediction, labels slabs and keeps their runs and what tells which objects are
one across the seams and how large; the second draws the runs with the final numbers. Jobs that share a volume each take
some layers of shards in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from voxloom.blocks import Block, Readable, Results, Slices, Writable, map_blocks, reduce_blocks
from voxloom.budget import Layout, fixed_within
from voxloom.errors import VolumeError
from voxloom.instances import at_least, touching
from voxloom.logs import LOGGER
from voxloom.runs import Look, Looks, find_runs
from voxloom.seams import Joined, Slab, join_volume, remember

BYTES_PER_VOXEL = 18
"""Of a slab that is labelled: stored scores, mask, the runs of one that is all noise, numbers and their copy."""

DEPTHS = (64, 32, 16, 8, 4, 2, 1)
"""Slices that are labelled at once: a layer of shards, or the part of it that the budget holds."""


class SlabResults(Results, Protocol):
    """A place where what was found out about slabs outlives an interruption, or comes from other jobs."""

    def cores(self) -> list[Slices]:
        """Slabs of which something is there, in order."""


@dataclass(frozen=True)
class Segmented:
    """What became of a prediction.

    Parameters
    ----------
    foreground_voxels, objects : int
        That stayed.
    removed_objects, removed_voxels : int
        Smaller than the smallest allowed.
    """

    foreground_voxels: int
    objects: int
    removed_objects: int
    removed_voxels: int

    @classmethod
    def of(cls, joined: Joined) -> Segmented:
        """What stayed and what didn't of the objects that slabs have in common."""
        return cls(
            foreground_voxels=joined.kept_voxels,
            objects=joined.kept,
            removed_objects=joined.objects - joined.kept,
            removed_voxels=joined.voxels - joined.kept_voxels,
        )


def segment_volume(
    prediction: Readable,
    labels: Writable,
    *,
    stored_threshold: int,
    min_size_voxels: int,
    connectivity: int,
    memory_mib: float,
    threads: int = 1,
    keep: SlabResults | None = None,
    z_range: tuple[int, int] | None = None,
) -> Segmented:
    """Cut a prediction at a threshold, remove small objects, and number the rest.

    Parameters
    ----------
    prediction : volume of uint8 or uint16, shape (Z, Y, X)
        Stored scores.
    labels : volume of uint32, shape (Z, Y, X)
        Takes 0 for background and the objects' numbers, from 1 in the order of their first voxel (C order).
    stored_threshold : int
        A voxel whose stored score is at least this is foreground; "stored" of an evaluation's threshold.
    min_size_voxels : int
        Objects with fewer voxels are removed; one of exactly this size stays.
    connectivity : {6, 18, 26}
        Neighbours that make two voxels one object.
    memory_mib : float
        Budget, in MiB.
    threads : int
        Slabs in work at a time, fewer where the budget holds fewer.
    keep : SlabResults, optional
        Where what is found out about slabs outlives an interruption; slabs that are in it are not looked at again.
    z_range : pair of int, optional
        Slices whose numbers are written, whole layers of shards; all by default.

    Returns
    -------
    segmented : Segmented
        Of the whole volume.

    Raises
    ------
    VolumeError
        If the prediction isn't stored scores, or the budget doesn't hold one slice.

    Notes
    -----
    Which slabs there were, and which job wrote them, doesn't show in the result.
    """
    layout = _layout_of(prediction, memory_mib=memory_mib, threads=threads)
    slabs = _slabs(prediction.shape, layout.block_shape[0], [] if keep is None else keep.cores())
    find = partial(_find, prediction, stored_threshold=stored_threshold, connectivity=connectivity)
    with Looks(memory_mib, labels) as looks:
        joined = join_volume(
            lambda stored, block: looks.first(block.index, partial(find, block, stored))[1],
            prediction,
            wanted=at_least(min_size_voxels),
            touching=partial(touching, connectivity=connectivity),
            blocks=slabs,
            description="labelled slab",
            keep=keep,
            **layout.how,
        )

        def write(block: Block) -> NDArray[np.uint32]:
            runs, slab = looks.second(block.index, partial(find, block))
            return runs.draw(joined.table(block.index, slab))

        first, last = z_range or (0, prediction.shape[0])
        mine = [slab for slab in slabs if first <= slab.core[0].start < last]
        map_blocks(write, out=labels, blocks=mine, description="wrote labels of slab", **layout.how)
    return Segmented.of(joined)


def look_at_part(
    prediction: Readable,
    keep: SlabResults,
    *,
    stored_threshold: int,
    min_size_voxels: int,
    connectivity: int,
    memory_mib: float,
    threads: int = 1,
    z_range: tuple[int, int],
) -> None:
    """Do one job's share of the first pass, for the jobs that write.

    Parameters
    ----------
    prediction, stored_threshold, min_size_voxels, connectivity, memory_mib, threads
        See `segment_volume`.
    keep : SlabResults
        Gets what is found out; given to `segment_volume` with those of the other parts, it looks at nothing again.
    z_range : pair of int
        The job's slices, whole layers of shards.
    """
    layout = _layout_of(prediction, memory_mib=memory_mib, threads=threads)
    slabs = _slabs(prediction.shape, layout.block_shape[0], keep.cores(), z_range)
    find = partial(_find, prediction, stored_threshold=stored_threshold, connectivity=connectivity)

    def look(stored: NDArray[Any], block: Block) -> Slab:
        return remember(find(block, stored)[1], wanted=at_least(min_size_voxels))

    looks = reduce_blocks(look, prediction, blocks=slabs, description="labelled slab", keep=keep, **layout.how)
    inside, outer = np.sum([(look[4][0], look[0].size) for _, look in looks] or [(0, 0)], axis=0)
    LOGGER.info("slices %d to %d: %d objects, and %d parts that meet other slabs", *z_range, inside, outer)


def slab_layout(shape: Sequence[int], *, memory_mib: float, threads: int) -> Layout:
    """The slabs of both passes: a layer of shards, or a half, a quarter ... of it.

    Parameters
    ----------
    shape : sequence of int
        (Z, Y, X).
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
    for depth in DEPTHS:
        try:
            return fixed_within(
                shape,
                (depth, *shape[1:]),
                bytes_per_voxel=BYTES_PER_VOXEL,
                memory_mib=memory_mib,
                threads=threads,
            )
        except VolumeError as error:
            too_small = error
    raise too_small


def _layout_of(prediction: Readable, *, memory_mib: float, threads: int) -> Layout:
    scores = np.asarray(prediction[0:1, 0:1, 0:1])
    if scores.dtype not in (np.uint8, np.uint16):
        raise VolumeError(f"a prediction is stored as uint8 or uint16, got {scores.dtype}; predict it anew")
    return slab_layout(prediction.shape, memory_mib=memory_mib, threads=threads)


def _find(
    prediction: Readable,
    block: Block,
    stored: NDArray[Any] | None = None,
    *,
    stored_threshold: int,
    connectivity: int,
) -> Look:
    """Look at a slab, whose scores are read if they aren't given."""
    stored = prediction[block.core] if stored is None else stored
    runs = find_runs(stored >= stored_threshold, connectivity=connectivity)
    return runs, runs.labelled(shape=prediction.shape, first_slice=block.core[0].start)


def _slabs(
    shape: Sequence[int], depth: int, known: Sequence[Slices], z_range: tuple[int, int] | None = None
) -> list[Block]:
    """Slabs of at most `depth` slices; those that are known are taken as they are, and others fill the gaps."""
    z, last = z_range or (0, shape[0])
    ends = {core[0].start: core[0].stop for core in known if core[0].stop - core[0].start <= depth}
    slabs: list[Block] = []
    while z < last:
        following = min((start for start in ends if start > z), default=last)
        end = ends.get(z, min(z // depth * depth + depth, following, last))
        core = (slice(z, end), slice(0, shape[1]), slice(0, shape[2]))
        inner = (slice(0, end - z), *core[1:])
        slabs.append(Block(len(slabs), core, core, inner))
        z = end
    return slabs
