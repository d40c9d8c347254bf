"""What a task's objects are: pieces of the foreground, or the cells between membranes."""

from __future__ import annotations

from typing import Any

from voxloom.blocks import Readable, Writable
from voxloom.budget import Layout
from voxloom.cells import cells_layout, look_at_cells, segment_cells
from voxloom.segment import Segmented, SlabResults, look_at_part, segment_volume, slab_layout

CELLS = "cells"
"""Value of ``segment.objects``; every other one is the foreground."""


def segment_objects(
    prediction: Readable,
    labels: Writable,
    *,
    objects: str,
    connectivity: int,
    link_overlap: float,
    link_branches: bool,
    **given: Any,
) -> Segmented:
    """From a prediction to a task's numbered objects.

    Parameters
    ----------
    prediction, labels : volume, shape (Z, Y, X)
    objects : {"foreground", "cells"}
        What is numbered.
    connectivity : {6, 18, 26}
        Of foreground.
    link_overlap, link_branches
        Of cells; see `voxloom.cells.linked`.
    **given
        As `voxloom.segment.segment_volume` and `voxloom.cells.segment_cells` take them.

    Returns
    -------
    segmented : Segmented
    """
    if objects == CELLS:
        return segment_cells(prediction, labels, link_overlap=link_overlap, link_branches=link_branches, **given)
    return segment_volume(prediction, labels, connectivity=connectivity, **given)


def look_at_objects(
    prediction: Readable,
    keep: SlabResults,
    *,
    objects: str,
    connectivity: int,
    link_overlap: float,
    link_branches: bool,
    **given: Any,
) -> None:
    """One job's share of finding a task's objects, for the jobs that write.

    Parameters
    ----------
    prediction : volume, shape (Z, Y, X)
    keep : SlabResults
    objects, connectivity, link_overlap, link_branches
        As in `segment_objects`; cells are linked by the jobs that write.
    **given
        As `voxloom.segment.look_at_part` and `voxloom.cells.look_at_cells` take them.
    """
    if objects == CELLS:
        look_at_cells(prediction, keep, **given)
    else:
        look_at_part(prediction, keep, connectivity=connectivity, **given)


def objects_layout(shape: tuple[int, ...], labels: object, *, objects: str, memory_mib: float, threads: int) -> Layout:
    """The slabs by which a task's objects are numbered.

    Parameters
    ----------
    shape : tuple of int
        (Z, Y, X).
    labels : object
        The volume that is written; its ``shard_shape`` counts where it has one.
    objects : {"foreground", "cells"}
    memory_mib : float
        Budget, in MiB.
    threads : int

    Returns
    -------
    layout : Layout

    Raises
    ------
    VolumeError
        If the budget doesn't hold one slice.
    """
    if objects == CELLS:
        return cells_layout(shape, labels, memory_mib=memory_mib, threads=threads)
    return slab_layout(shape, memory_mib=memory_mib, threads=threads)
