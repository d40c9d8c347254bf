"""Which boxes of which volumes train, validate and test, with a gap of unused voxels between them.

Neighbouring slices show nearly the same tissue, so a test set drawn slice by slice measures memory, not skill. Here the
unit is a spatial block, a volume or a region, and what lies within a gap of a test or validation box trains nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from voxloom import blocks, boxes
from voxloom.boxes import Box
from voxloom.budget import Layout, fixed_within
from voxloom.deferred import Deferred
from voxloom.errors import SplitError, VolumeError
from voxloom.logs import LOGGER
from voxloom.split_named import by_boxes
from voxloom.split_plan import (
    Count,
    Piece,
    Reach,
    SplitSettings,
    SplitVolume,
    by_test_slices,
    by_units,
    gap_voxels,
    keep_gap,
)
from voxloom.volume import IGNORE

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = Deferred("pandas")

__all__ = [
    "COLUMNS",
    "PARTS",
    "SplitSettings",
    "SplitVolume",
    "boxes_of",
    "count_blocks",
    "gap_voxels",
    "make_split",
    "read_split",
]

BLOCK = (64, 512, 512)
"""What is counted at once: a shard."""

PARTS = ("train", "validation", "test", "gap", "excluded")
COLUMNS = {
    "fold": "int64",
    "volume": "str",
    "region": "str",
    "block": "int64",
    "part": "str",
    "z_from": "int64",
    "z_to": "int64",
    "y_from": "int64",
    "y_to": "int64",
    "x_from": "int64",
    "x_to": "int64",
    "voxels": "int64",
    "annotated_voxels": "int64",
    "foreground_voxels": "int64",
}
"""Columns of a split and their types."""


def make_split(
    volumes: Sequence[SplitVolume],
    count: Count,
    *,
    settings: SplitSettings,
    reach_voxels: Sequence[Reach],
    seed: int,
) -> pd.DataFrame:
    """Assign every voxel of every volume to a part, for each fold.

    Parameters
    ----------
    volumes : sequence of SplitVolume
    count : callable
        ``count(name, boxes)`` returns annotated and foreground voxels of boxes of that volume, an integer array of
        shape (n, 2); see `count_blocks`.
    settings : SplitSettings
    reach_voxels : sequence of tuple
        Receptive field of every model that learns from this split; see `gap_voxels`.
    seed : int
        The same seed gives the same split.

    Returns
    -------
    split : DataFrame
        Columns `COLUMNS`, one row a box. In one fold and volume the boxes are disjoint and cover it. Part "gap" is what
        was trimmed from training (or validation) to keep the distance; "excluded" is what has no annotation, or too
        little foreground to train on.

    Raises
    ------
    SplitError
        If there are too few units, or nothing (or no foreground) is left of a part.

    Notes
    -----
    Two boxes of different parts are separated by at least the gap along at least one axis: then no voxel of one is
    inside the receptive field of a voxel of the other.
    """
    known = {volume.name: volume for volume in volumes}
    if len(known) != len(volumes) or not volumes:
        raise SplitError(f"a split needs volumes with different names, got {[volume.name for volume in volumes]}")
    gaps = {v.name: gap_voxels(v, gap_um=settings.gap_um, reach_voxels=reach_voxels) for v in volumes}
    rng = np.random.default_rng(seed)
    if settings.by == "box":
        folds = by_boxes(known, settings, gaps)
    else:
        if settings.test_slices is not None:
            folds = by_test_slices(known, count, settings, rng)
        else:
            folds = by_units(known, count, settings, rng)
        folds = [keep_gap(pieces, gaps) for pieces in folds]
    rows = [row for fold, pieces in enumerate(folds) for row in _counted(fold, pieces, known, count)]
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)
    least = max(settings.min_foreground_voxels, 0)
    too_little = (table["foreground_voxels"] < least) | (table["annotated_voxels"] == 0)
    table.loc[(table["part"] == "train") & too_little, "part"] = "excluded"
    _refuse_empty_parts(table, settings, gaps)
    order = ["fold", "volume", "block", "z_from", "y_from", "x_from"]
    return table.sort_values(order, kind="stable", ignore_index=True)


def read_split(path: str | Path) -> pd.DataFrame:
    """Read a split's table, in which a volume or a region may be called NA.

    Parameters
    ----------
    path : str or Path
        A CSV file of what `make_split` returned.

    Returns
    -------
    table : DataFrame
        Columns `COLUMNS`.
    """
    return pd.read_csv(path, dtype=COLUMNS, keep_default_na=False)


def boxes_of(split: pd.DataFrame, *, fold: int, volume: str, part: str) -> list[Box]:
    """The boxes of one part of one volume.

    Parameters
    ----------
    split : DataFrame
        From `make_split`.
    fold : int
    volume, part : str

    Returns
    -------
    boxes : list of Box
        Half-open voxel ranges (Z, Y, X); empty when there is none.
    """
    chosen = split[(split["fold"] == fold) & (split["volume"] == volume) & (split["part"] == part)]
    edges = chosen[["z_from", "z_to", "y_from", "y_to", "x_from", "x_to"]].to_numpy().tolist()
    return [((z0, z1), (y0, y1), (x0, x1)) for z0, z1, y0, y1, x0, x1 in edges]


def count_blocks(
    annotation: blocks.Readable, wanted: Sequence[Box], *, threads: int = 1, memory_mib: float = math.inf
) -> NDArray[np.int64]:
    """Count the annotated and the foreground voxels of many boxes in one pass over an annotation.

    Parameters
    ----------
    annotation : array-like of uint8, shape (Z, Y, X)
        0 background, 1 foreground, 255 not annotated.
    wanted : sequence of Box
        May overlap.
    threads : int
        Blocks that are counted at a time, fewer where the budget holds fewer.
    memory_mib : float
        Budget for the blocks, in MiB.

    Returns
    -------
    counts : ndarray of int64, shape (n, 2)
        Annotated and foreground voxels of each box.

    Raises
    ------
    VolumeError
        If the annotation isn't a 3D volume, or the budget doesn't hold one block.
    """
    ranges = boxes.as_array(wanted)
    counts = np.zeros((len(wanted), 2), dtype=np.int64)

    def work(codes: NDArray[np.uint8], *, block: blocks.Block) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        corner = [axis.start for axis in block.core]
        here: Box = tuple((axis.start, axis.stop) for axis in block.core)  # type: ignore[assignment]
        hit = np.flatnonzero(boxes.near(here, ranges, gap=(0, 0, 0)))
        found = np.zeros((len(hit), 2), dtype=np.int64)
        for row, index in enumerate(hit):
            common = boxes.intersect(here, wanted[int(index)])
            assert common is not None
            at = tuple(slice(a - c, b - c) for (a, b), c in zip(common, corner, strict=True))
            part = codes[at]
            found[row] = np.count_nonzero(part != IGNORE), np.count_nonzero(part == 1)
        return hit, found

    shape = annotation.shape
    if len(shape) != 3:
        raise VolumeError(f"an annotation is a 3D volume, got shape {tuple(shape)}")
    layout = count_layout(shape, memory_mib=memory_mib, threads=threads)
    for _, (hit, found) in blocks.reduce_blocks(work, annotation, description="counted blocks", **layout.grid):
        counts[hit] += found
    return counts


def count_layout(shape: Sequence[int], *, memory_mib: float, threads: int) -> Layout:
    """The blocks by which `count_blocks` reads an annotation.

    Parameters
    ----------
    shape : sequence of int
        (Z, Y, X).
    memory_mib : float
        Budget, in MiB.
    threads : int
        Blocks that could be counted at a time.

    Returns
    -------
    layout : Layout

    Raises
    ------
    VolumeError
        If the budget doesn't hold one block.
    """
    return fixed_within(shape, BLOCK, bytes_per_voxel=2, memory_mib=memory_mib, threads=threads)


def _counted(
    fold: int, pieces: Sequence[Piece], volumes: Mapping[str, SplitVolume], count: Count
) -> list[dict[str, Any]]:
    rows = []
    for name, volume in volumes.items():
        mine = [piece for piece in pieces if piece.volume == name]
        counts = count(name, [piece.box for piece in mine])
        for piece, (annotated, foreground) in zip(mine, counts, strict=True):
            (z_from, z_to), (y_from, y_to), (x_from, x_to) = piece.box
            rows.append(
                {
                    "fold": fold,
                    "volume": name,
                    "region": volume.region,
                    "block": piece.block,
                    "part": piece.part,
                    "z_from": z_from,
                    "z_to": z_to,
                    "y_from": y_from,
                    "y_to": y_to,
                    "x_from": x_from,
                    "x_to": x_to,
                    "voxels": boxes.voxels(piece.box),
                    "annotated_voxels": int(annotated),
                    "foreground_voxels": int(foreground),
                }
            )
    return rows


def _refuse_empty_parts(table: pd.DataFrame, settings: SplitSettings, gaps: Mapping[str, tuple[int, int, int]]) -> None:
    needed = ["train"]
    if settings.by != "box" and settings.validation_fraction > 0:
        needed.append("validation")
    if settings.by != "box" and (settings.test_fraction > 0 or settings.test_slices or settings.folds > 1):
        needed.append("test")
    for fold, rows in table.groupby("fold"):
        for part in needed:
            held = rows[rows["part"] == part]
            lost = int(rows.loc[rows["part"] == "gap", "voxels"].sum())
            mend = (
                f"{lost} of {int(rows['voxels'].sum())} voxels are gap; the gap (Z, Y, X) in voxels is "
                f"{', '.join(f'{gap} in {name}' for name, gap in gaps.items())}, the larger of gap_um: "
                f"{settings.gap_um:g} and what the models see. Make block_um several times the gap, give fewer or "
                "larger test and validation blocks, or choose a model that sees less"
            )
            if held.empty:
                raise SplitError(f"fold {fold}: nothing is left of {part}; {mend}")
            if part != "test" and held["foreground_voxels"].sum() == 0:
                raise SplitError(
                    f"fold {fold}: {part} has {int(held['annotated_voxels'].sum())} annotated voxels and no foreground "
                    f"(min_foreground_voxels: {settings.min_foreground_voxels}); check the annotation, try another "
                    f"seed, or give {part} more blocks; {mend}"
                )
        if "test" in set(rows["part"]) and rows.loc[rows["part"] == "test", "foreground_voxels"].sum() == 0:
            LOGGER.warning("fold %s: test has no foreground in this annotation; its scores will say little", fold)
