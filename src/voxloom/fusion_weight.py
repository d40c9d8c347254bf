"""How much of the contours is fused with a prediction: chosen on training sections by the smallest 2012 Rand error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from voxloom.blocks import Block, Readable, reduce_blocks
from voxloom.boxes import Box
from voxloom.budget import Layout, fixed_within
from voxloom.contour_fusion import SECTION_BYTES, fuse_stored, watershed_contours
from voxloom.deferred import Deferred
from voxloom.errors import SplitError
from voxloom.partitions import contingency
from voxloom.section_scores import THRESHOLDS, Agreement, foreground_pairs, objects_of
from voxloom.split import boxes_of
from voxloom.volume import split_annotation

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = Deferred("pandas")

WEIGHTS = tuple(step / 20 for step in range(21))
"""Of the contours, that are tried: 0, 0.05, ... 1."""

COLUMNS = ("weight", "rand_error", "threshold", "rand_tp", "rand_fp", "rand_fn", "sections", "is_chosen")


def weight_curve(
    predictions: Mapping[str, Readable],
    truths: Mapping[str, Readable],
    split: pd.DataFrame,
    *,
    fold: int,
    marker_below: float,
    memory_mib: float,
    threads: int = 1,
) -> pd.DataFrame:
    """The Rand error of the training sections for every weight of the contours.

    Parameters
    ----------
    predictions : mapping of str to volume of uint8, shape (Z, Y, X)
        By volume: probability of membrane, 255 is 1.
    truths : mapping of str to volume of uint8, shape (Z, Y, X)
        By volume: 0 interior, 1 membrane, 255 not annotated. May lack volumes.
    split : DataFrame
        From `voxloom.split.make_split`.
    fold : int
        Whose training boxes are looked at; no other voxel's label counts.
    marker_below : float
        See `contour_fusion.watershed_contours`.
    memory_mib : float
        Budget, in MiB.
    threads : int
        Sections in work at a time, fewer where the budget holds fewer.

    Returns
    -------
    curve : DataFrame
        Columns `COLUMNS`, one row a weight: the error at the best threshold of the interior probability, that
        threshold, the pairs behind it, the sections, and whether it is the smallest; of equal ones that of the
        smallest weight is.

    Raises
    ------
    SplitError
        If no training section has an annotated interior.
    VolumeError
        If the budget doesn't hold one section.

    Notes
    -----
    Contours are those of whole sections; objects are those inside a training box. What nobody annotated belongs to no
    object and counts as nothing. Fused probabilities are rounded as they are stored.
    """
    counts, sections = np.zeros((len(WEIGHTS), len(THRESHOLDS), 3), np.int64), 0
    for volume in [name for name in predictions if name in truths]:
        boxes = boxes_of(split, fold=fold, volume=volume, part="train")
        for pairs in _sections(
            predictions[volume],
            truths[volume],
            boxes,
            marker_below=marker_below,
            memory_mib=memory_mib,
            threads=threads,
            description=f"weighed contours of section of {volume}",
        ):
            counts += pairs
            sections += bool(pairs.any())
    if not sections:
        raise SplitError(
            f"fold {fold}: no training section has an annotated interior, so no weight of the contours can be chosen; "
            "annotate interiors as background (0) inside a training box, or take the fusion out of the task's models"
        )
    return _curve_of(counts, sections)


def read_weight(path: str | Path) -> float:
    """The weight of the smallest error.

    Parameters
    ----------
    path : str or Path
        A CSV file of what `weight_curve` returned.

    Returns
    -------
    weight : float
    """
    curve = pd.read_csv(path)
    return float(curve.loc[curve["is_chosen"], "weight"].iloc[0])


def section_layout(shape: Sequence[int], *, memory_mib: float, threads: int) -> Layout:
    """How many sections are in work at a time.

    Parameters
    ----------
    shape : sequence of int
        (Z, Y, X).
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
        If the budget doesn't hold one.
    """
    section = (1, *shape[1:])
    return fixed_within(shape, section, bytes_per_voxel=SECTION_BYTES, memory_mib=memory_mib, threads=threads)


def pairs_of_section(
    stored: NDArray[np.uint8],
    codes: NDArray[np.uint8],
    contours: NDArray[np.bool_],
) -> NDArray[np.int64]:
    """Pairs of pixels that every weight and threshold puts together, rightly or not.

    Parameters
    ----------
    stored : ndarray of uint8, shape (Y, X)
        Probability of membrane, 255 is 1.
    codes : ndarray of uint8, shape (Y, X)
        0 interior, 1 membrane, 255 not annotated.
    contours : ndarray of bool, shape (Y, X)

    Returns
    -------
    pairs : ndarray of int64, shape (weights, thresholds, 3)
        tp, fp and fn of `section_scores.foreground_pairs`.
    """
    membrane, ignore = split_annotation(codes)
    truth = objects_of(~membrane & ~ignore)
    pairs = np.zeros((len(WEIGHTS), len(THRESHOLDS), 3), np.int64)
    if not truth.any():
        return pairs
    for row, weight in enumerate(WEIGHTS):
        interior = (255 - fuse_stored(stored, contours, weight=weight)) / 255
        for column, threshold in enumerate(THRESHOLDS):
            found = foreground_pairs(contingency(objects_of(interior > threshold), truth))
            pairs[row, column] = found.tp, found.fp, found.fn
    return pairs


def _sections(
    prediction: Readable,
    truth: Readable,
    boxes: Sequence[Box],
    *,
    marker_below: float,
    memory_mib: float,
    threads: int,
    description: str,
) -> Iterator[NDArray[np.int64]]:
    """The pairs of every section of these boxes, in order."""
    layout = section_layout(prediction.shape, memory_mib=memory_mib, threads=threads)
    windows = [(z, slice(*y), slice(*x)) for (first, last), y, x in boxes for z in range(first, last)]
    read = [(slice(z, z + 1), *(slice(0, size) for size in prediction.shape[1:])) for z, _, _ in windows]
    blocks = [Block(index, core, core, core) for index, core in enumerate(read)]

    def weigh(stored: NDArray[np.uint8], codes: NDArray[np.uint8], *, block: Block) -> NDArray[np.int64]:
        contours = watershed_contours(stored[0] / 255, marker_below=marker_below)
        _, y, x = windows[block.index]
        return pairs_of_section(stored[0, y, x], codes[0, y, x], contours[y, x])

    for _, pairs in reduce_blocks(weigh, prediction, truth, blocks=blocks, **layout.how, description=description):
        yield pairs


def _curve_of(counts: NDArray[np.int64], sections: int) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for weight, of_thresholds in zip(WEIGHTS, counts, strict=True):
        pairs = [Agreement(*map(int, each)) for each in of_thresholds]
        best = max(range(len(pairs)), key=lambda k: pairs[k].f_score)
        rows.append(
            {
                "weight": weight,
                "rand_error": 1 - pairs[best].f_score,
                "threshold": THRESHOLDS[best],
                "rand_tp": pairs[best].tp,
                "rand_fp": pairs[best].fp,
                "rand_fn": pairs[best].fn,
                "sections": sections,
            }
        )
    smallest = min(range(len(rows)), key=lambda k: rows[k]["rand_error"])
    return pd.DataFrame([{**row, "is_chosen": k == smallest} for k, row in enumerate(rows)], columns=list(COLUMNS))
