"""How large a block, and how many at a time, a memory budget holds; and what they take."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from voxloom.blocks import Shape, block_shape_for, read_voxels
from voxloom.errors import VolumeError
from voxloom.job_memory import memory_for

SHARD = (64, 64, 64)
"""Of a volume that isn't stored in shards."""

KEPT = 1.3
"""What blocks take where freed memory is kept (`voxloom.heap.keeping`), as a multiple of what they use: an estimate,
with which the peaks that benchmarks/stages.py measures stay within the budget."""


@dataclass(frozen=True)
class Layout:
    """The blocks of one pass over a volume, chosen before the pass begins.

    Parameters
    ----------
    block_shape, halo_voxels : tuple of int
        (Z, Y, X).
    threads : int
        Blocks in work at a time.
    mib : float
        What they take at most, all together.
    keeps_freed : bool
        Whether what one block frees is kept for the next, see `voxloom.heap.keeping`.
    """

    block_shape: Shape
    halo_voxels: Shape
    threads: int
    mib: float
    keeps_freed: bool = False

    @property
    def grid(self) -> dict[str, Any]:
        """The keyword arguments of `voxloom.blocks.map_blocks` and `voxloom.blocks.reduce_blocks`."""
        return {"block_shape": self.block_shape, "halo_voxels": self.halo_voxels, **self.how}

    @property
    def how(self) -> dict[str, Any]:
        """The same without the blocks' shape, for blocks that are given one by one."""
        return {"threads": self.threads, "keeps_freed": self.keeps_freed}


def blocks_within(
    shape: tuple[int, ...],
    *,
    bytes_per_voxel: float,
    memory_mib: float,
    align: tuple[int, ...],
    threads: int,
    halo_voxels: Shape = (0, 0, 0),
    may_keep: bool = True,
) -> Layout:
    """The largest block for the most threads, up to `threads`, that the budget holds; freed memory kept if it can be.

    Parameters
    ----------
    shape, bytes_per_voxel, memory_mib, align
        As in `voxloom.blocks.block_shape_for`.
    threads : int
        Blocks that could be in work at a time.
    halo_voxels : tuple of int
        Context (Z, Y, X) on each side.
    may_keep : bool
        False where the pass doesn't keep freed memory.

    Returns
    -------
    layout : Layout
        With one thread at least.

    Raises
    ------
    VolumeError
        If not even one block on one thread fits.
    """
    for workers, keeps in itertools.product(range(threads, 0, -1), (True, False) if may_keep else (False,)):
        taken = bytes_per_voxel * (KEPT if keeps else 1)
        try:
            block_shape = block_shape_for(
                shape,
                bytes_per_voxel=taken,
                memory_mib=memory_mib,
                halo_voxels=halo_voxels,
                align=align,
                workers=workers,
            )
        except VolumeError:
            if workers == 1 and not keeps:
                raise
        else:
            read = read_voxels(block_shape, shape, halo_voxels)
            return Layout(block_shape, halo_voxels, workers, read * taken * workers / 2**20, keeps)
    raise VolumeError(f"threads must be at least 1, got {threads}")


def slabs_within(
    shape: Sequence[int],
    *,
    bytes_per_voxel: float,
    memory_mib: float,
    shards_of: Any,
    threads: int,
    least_slices: int = 1,
    may_keep: bool = True,
) -> Layout:
    """Slabs of whole slices; whole shards deep, unless a shard is too deep for the budget: then one at a time.

    Parameters
    ----------
    shape, bytes_per_voxel, memory_mib, threads, may_keep
        As in `blocks_within`.
    shards_of : object
        The volume that is written; its ``shard_shape`` counts where it has one.
    least_slices : int
        Of all slabs but the last.

    Returns
    -------
    layout : Layout

    Raises
    ------
    VolumeError
        If not even `least_slices` fit.
    """
    z, y, x = shape
    depth = shard_shape(shards_of)[0]
    slabs = partial(blocks_within, (z, y, x), bytes_per_voxel=bytes_per_voxel, memory_mib=memory_mib, may_keep=may_keep)
    try:
        return slabs(align=(-(-least_slices // depth) * depth, y, x), threads=threads)
    except VolumeError:
        return slabs(align=(least_slices, y, x), threads=1)


def sections_within(
    shape: Sequence[int],
    *,
    section_bytes: float,
    slab_bytes: float,
    memory_mib: float,
    shards_of: Any,
    threads: int,
) -> Layout:
    """Slabs that are read and written at once, and how many of their sections are in work at a time.

    Parameters
    ----------
    shape : sequence of int
        (Z, Y, X).
    section_bytes : float
        For each pixel of a section in work.
    slab_bytes : float
        For each voxel of the slab.
    memory_mib, shards_of : float, object
        As in `slabs_within`.
    threads : int
        Sections that could be in work at a time.

    Returns
    -------
    layout : Layout
        One slab at a time; its threads work on the slab's sections.

    Raises
    ------
    VolumeError
        If the budget doesn't hold one section.
    """
    pixels = shape[1] * shape[2] / 2**20
    least = (section_bytes + slab_bytes) * pixels
    if least > memory_mib:
        raise VolumeError(
            f"a section of {shape[1]} x {shape[2]} pixels needs {least:.0f} MiB, the budget is {memory_mib:.0f} MiB; "
            f"raise resources.memory_mib to at least {memory_for(least)}"
        )
    # what is left, half of the budget or more, holds slabs
    workers = max(1, min(threads, shape[0], int(memory_mib / 2 / (section_bytes * pixels))))
    left = memory_mib - workers * section_bytes * pixels
    slabs = slabs_within(
        shape, bytes_per_voxel=slab_bytes, memory_mib=left, shards_of=shards_of, threads=1, may_keep=False
    )
    return replace(slabs, threads=workers, mib=slabs.mib + workers * section_bytes * pixels)


def fixed_within(
    shape: Sequence[int],
    block_shape: Sequence[int],
    *,
    bytes_per_voxel: float,
    memory_mib: float,
    threads: int,
    halo_voxels: Shape = (0, 0, 0),
) -> Layout:
    """Blocks of one size, as many at a time, up to `threads`, as the budget holds.

    Parameters
    ----------
    shape, block_shape : sequence of int
        (Z, Y, X) of the volume and of its blocks.
    bytes_per_voxel, memory_mib, threads, halo_voxels
        As in `blocks_within`.

    Returns
    -------
    layout : Layout

    Raises
    ------
    VolumeError
        If not even one fits.
    """
    z, y, x = (min(pair) for pair in zip(block_shape, shape, strict=True))
    mib = read_voxels((z, y, x), shape, halo_voxels) * bytes_per_voxel / 2**20
    if mib > memory_mib:
        raise VolumeError(
            f"a block of {(z, y, x)} voxels with a halo of {halo_voxels} needs {mib:.0f} MiB, the budget is "
            f"{memory_mib:.0f} MiB; raise resources.memory_mib to at least {memory_for(mib)}"
        )
    workers = threads if memory_mib == math.inf else max(1, min(threads, int(memory_mib / mib)))
    keeps = mib * workers * KEPT <= memory_mib
    return Layout((z, y, x), halo_voxels, workers, mib * workers * (KEPT if keeps else 1), keeps)


def shard_shape(volume: Any) -> tuple[int, ...]:
    """The (Z, Y, X) of a volume's shards; `SHARD` where it has none."""
    return tuple(getattr(volume, "shard_shape", SHARD)[-3:])


def smallest_memory(fits: Callable[[int], object], *, at_least: int, at_most: int = 2**24) -> int | None:
    """The smallest budget that a stage doesn't refuse.

    Parameters
    ----------
    fits : callable
        Takes a budget in MiB and raises a `VolumeError` where it is too small; what is enough stays enough.
    at_least : int
        A budget that is refused.
    at_most : int
        Budgets above are not tried.

    Returns
    -------
    memory_mib : int or None
        None where `at_most` is refused, too.

    Examples
    --------
    >>> smallest_memory(lambda mib: blocks_within((64, 64, 64), bytes_per_voxel=16, memory_mib=mib,
    ...                                           align=(64, 64, 64), threads=2), at_least=1)
    4
    """

    def is_enough(memory_mib: int) -> bool:
        try:
            fits(memory_mib)
        except VolumeError:
            return False
        return True

    refused, enough = at_least, at_most
    if not is_enough(enough):
        return None
    while enough - refused > 1:
        middle = (refused + enough) // 2
        refused, enough = (refused, middle) if is_enough(middle) else (middle, enough)
    return enough
