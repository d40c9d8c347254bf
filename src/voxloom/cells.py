"""Cells between membranes: found in every section, and linked across sections by how much they overlap.

One pass finds the cells of each section and remembers them, a second finds them again and writes their final numbers.
Jobs that share a volume each take some layers of shards in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import NDArray

from voxloom.blocks import Block, Readable, Results, Writable, grid, map_blocks, reduce_blocks
from voxloom.border_thinning import thin_borders
from voxloom.budget import Layout, sections_within
from voxloom.errors import VolumeError
from voxloom.instances import at_least
from voxloom.objects import Labelled, labelled
from voxloom.partitions import contingency
from voxloom.seams import Slab, join_volume, remember
from voxloom.segment import Segmented

SECTION_BYTES = 32
"""For each pixel of a section in work: mask, borders, numbers, queue, and where each number comes first."""

SLAB_BYTES = 10
"""For each voxel of a slab: as stored, the numbers of its sections, and those as one array."""


def cells_of(interior: NDArray[np.bool_]) -> tuple[NDArray[np.uint32], int]:
    """Number the cells of a section, which touch but for lines of one pixel.

    Parameters
    ----------
    interior : ndarray of bool, shape (Y, X)
        True inside a cell, False on membranes. Not modified.

    Returns
    -------
    labels : ndarray of uint32, shape (Y, X)
        4-connected components of the interior, grown into the membranes until they meet (see
        `border_thinning.thin_borders`), numbered from 1 in the order of their first pixel (C order); 0 is the line
        between them. A section without interior has no cell.
    count : int

    Examples
    --------
    >>> cells_of(np.array([[True, False, False, False, True]]))
    (array([[1, 1, 0, 2, 2]], dtype=uint32), 2)
    """
    if not interior.any():
        return np.zeros(interior.shape, np.uint32), 0
    thinned = thin_borders(interior)
    count = int(thinned.max())
    first = np.empty(count + 1, np.int64)
    flat = thinned.reshape(-1)
    first[flat[::-1]] = np.arange(flat.size)[::-1]  # of equal indices the last assignment stays
    number = np.zeros(count + 1, np.uint32)
    number[1 + np.argsort(first[1:])] = np.arange(1, count + 1)
    return number[thinned], count


def linked(above: Slab, below: Slab, *, link_overlap: float, link_branches: bool) -> NDArray[np.int64]:
    """Which cells of two neighbouring sections are one.

    Parameters
    ----------
    above, below : Slab
        Of one section each.
    link_overlap : float
        Two cells are one only where they share at least this part of the smaller one's pixels, 0 to 1.
    link_branches : bool
        False links cells of which each overlaps no other cell of the other section more: an object has one cell a
        section at most where it runs on, and a branch begins an object of its own. True also links a cell to the one
        that it overlaps most though that overlaps another one more: objects branch and unite, and cells that are
        merged in one section are merged in all.

    Returns
    -------
    pairs : ndarray of int64, shape (2, n)
        Numbers of cells above and below. Of equal overlaps that with the smaller number is the most.
    """
    shared = contingency(below.first[0], above.last[-1])
    is_cell = shared.prediction != 0
    upper, lower, pixels = shared.truth[is_cell], shared.prediction[is_cell], shared.counts[is_cell]
    most_of_upper, most_of_lower = _is_most(upper, lower, pixels), _is_most(lower, upper, pixels)
    chosen = (most_of_upper | most_of_lower) if link_branches else (most_of_upper & most_of_lower)
    chosen &= pixels >= link_overlap * np.minimum(above.sizes[upper - 1], below.sizes[lower - 1])
    return np.stack([upper, lower])[:, chosen]


def _is_most(cell: NDArray[np.int64], other: NDArray[np.int64], pixels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether a pair is that with the largest overlap of its cell."""
    order = np.lexsort((other, -pixels, cell))
    is_most = np.zeros(cell.size, np.bool_)
    is_most[order[np.unique(cell[order], return_index=True)[1]]] = True
    return is_most


def segment_cells(
    prediction: Readable,
    labels: Writable,
    *,
    stored_threshold: int,
    min_size_voxels: int,
    link_overlap: float,
    link_branches: bool,
    memory_mib: float,
    threads: int = 1,
    keep: Results | None = None,
    z_range: tuple[int, int] | None = None,
) -> Segmented:
    """Number the cells of a membrane prediction, as objects in space.

    Parameters
    ----------
    prediction : volume of uint8 or uint16, shape (Z, Y, X)
        Stored scores of membranes.
    labels : volume of uint32, shape (Z, Y, X)
        Takes 0 for lines between cells and for what was removed, and the objects' numbers, from 1 in the order of their
        first voxel (C order).
    stored_threshold : int
        A pixel whose stored score is at least this is membrane.
    min_size_voxels : int
        Objects with fewer voxels, over all sections, are removed; one of exactly this size stays.
    link_overlap, link_branches
        See `linked`.
    memory_mib : float
        Budget, in MiB.
    threads : int
        Sections in work at a time, fewer where the budget holds fewer.
    keep : Results, optional
        Where what is found out about sections outlives an interruption; those that are in it are not looked at again.
    z_range : pair of int, optional
        Slices whose numbers are written, whole layers of shards; all by default.

    Returns
    -------
    segmented : Segmented
        Of the whole volume.

    Raises
    ------
    VolumeError
        If the prediction isn't stored scores, or the budget doesn't hold one section.

    Notes
    -----
    Neither threads, budget nor the jobs that shared the work show in the result.
    """
    layout = cells_layout(prediction.shape, labels, memory_mib=memory_mib, threads=threads)
    joined = join_volume(
        partial(_look, stored_threshold=stored_threshold),
        prediction,
        wanted=at_least(min_size_voxels),
        touching=partial(linked, link_overlap=link_overlap, link_branches=link_branches),
        blocks=_sections(prediction, (0, prediction.shape[0])),
        threads=layout.threads,
        description="found cells of section",
        keep=keep,
    )

    def write(section: NDArray[np.integer], z: int) -> NDArray[np.uint32]:
        cells, _ = cells_of(section < stored_threshold)
        return np.concatenate([[0], joined.numbers[z]]).astype(np.uint32)[cells]

    with ThreadPoolExecutor(layout.threads) as pool:

        def write_slab(slab: NDArray[np.integer], *, block: Block) -> NDArray[np.uint32]:
            return np.stack(list(pool.map(write, slab, range(block.core[0].start, block.core[0].stop))))

        slabs = grid(prediction.shape, layout.block_shape, z_range=z_range)
        map_blocks(write_slab, prediction, out=labels, blocks=slabs, description="wrote cells of slab")
    return Segmented.of(joined)


def look_at_cells(
    prediction: Readable,
    keep: Results,
    *,
    stored_threshold: int,
    min_size_voxels: int,
    memory_mib: float,
    threads: int = 1,
    z_range: tuple[int, int],
) -> None:
    """Do one job's share of the first pass, for the jobs that write.

    Parameters
    ----------
    prediction, stored_threshold, min_size_voxels, memory_mib, threads
        See `segment_cells`.
    keep : Results
        Gets what is found out; given to `segment_cells` with those of the other parts, it looks at nothing again.
    z_range : pair of int
        The job's slices.
    """
    layout = cells_layout(prediction.shape, None, memory_mib=memory_mib, threads=threads)

    def look(stored: NDArray[np.integer], block: Block) -> Slab:
        return remember(_look(stored, block, stored_threshold=stored_threshold), wanted=at_least(min_size_voxels))

    for _ in reduce_blocks(
        look,
        prediction,
        blocks=_sections(prediction, z_range),
        threads=layout.threads,
        description="found cells of section",
        keep=keep,
    ):
        pass


def cells_layout(shape: Sequence[int], labels: object, *, memory_mib: float, threads: int) -> Layout:
    """The slabs that are written, and how many sections are in work at a time.

    Parameters
    ----------
    shape : sequence of int
        (Z, Y, X).
    labels : object
        The volume that is written; its ``shard_shape`` counts where it has one.
    memory_mib : float
        Budget, in MiB.
    threads : int
        Sections that could be in work at a time.

    Returns
    -------
    layout : Layout

    Raises
    ------
    VolumeError
        If the budget doesn't hold one section.
    """
    return sections_within(
        shape,
        section_bytes=SECTION_BYTES,
        slab_bytes=SLAB_BYTES,
        memory_mib=memory_mib,
        shards_of=labels,
        threads=threads,
    )


def _look(stored: NDArray[np.integer], block: Block, *, stored_threshold: int) -> Labelled:
    if stored.dtype not in (np.uint8, np.uint16):
        raise VolumeError(f"a prediction is stored as uint8 or uint16, got {stored.dtype}; predict it anew")
    cells, count = cells_of(stored[0] < stored_threshold)
    # whether an object lies on the volume's border is nobody's question
    return labelled(cells[None], count, shape=(1, *cells.shape), first_slice=0)


def _sections(prediction: Readable, z_range: tuple[int, int]) -> list[Block]:
    return grid(prediction.shape, (1, *prediction.shape[1:]), z_range=z_range)
