"""One look at all training boxes before anything is learnt: grey values, and where what is annotated lies."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxloom.blocks import grid
from voxloom.errors import ModelError
from voxloom.intensity import OF_VOLUME, GreyValues, Moments, Normalisation, distance_of_samples
from voxloom.labelled import LabelledVolume, PartBox, Shape
from voxloom.volume import IGNORE

MOST_BALANCED_WEIGHT = 20.0
SCAN_EDGE = 64


@dataclass(frozen=True)
class Cell:
    """A small box of a volume, and how many voxels of each kind can be a patch's centre in it.

    Parameters
    ----------
    volume : int
        Number of the volume among those with training boxes.
    box : PartBox
        The training box that it is in.
    start, shape : tuple of int
        First voxel and edge lengths (Z, Y, X).
    counts : tuple of int
        In the order of `kinds`.
    """

    volume: int
    box: PartBox
    start: Shape
    shape: Shape
    counts: tuple[int, int, int, int]


@dataclass(frozen=True)
class Scan:
    """What a look at the training boxes found.

    Parameters
    ----------
    cells : list of Cell
        Together all training boxes.
    planes : list of (int, int)
        Volume and slice of every slice with annotated voxels.
    normalisation : Normalisation
        Of the training set.
    normalisations : list of Normalisation
        For every volume with training boxes; each the same where volumes aren't normalised by themselves.
    """

    cells: list[Cell]
    planes: list[tuple[int, int]]
    normalisation: Normalisation
    normalisations: list[Normalisation]

    @property
    def ends(self) -> NDArray[np.int64]:
        """Voxels of each kind in all cells up to each, shape (cells, kinds)."""
        return np.cumsum([cell.counts for cell in self.cells], axis=0)

    @property
    def annotated_voxels(self) -> int:
        """Of all training boxes."""
        return sum(cell.counts[0] for cell in self.cells)

    @property
    def foreground_voxels(self) -> int:
        """Of all training boxes."""
        return sum(cell.counts[1] for cell in self.cells)


def kinds(codes: NDArray[np.uint8], firsts: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], ...]:
    """Which voxels can be a patch's centre.

    Parameters
    ----------
    codes, firsts : ndarray of uint8, same shape
        Labels of all annotations, and those of the first alone.

    Returns
    -------
    annotated, foreground, annotated_by_first, foreground_of_first : ndarray of bool
    """
    return codes != IGNORE, codes == 1, firsts != IGNORE, firsts == 1


def scan(parts: Sequence[LabelledVolume], settings: Mapping[str, Any]) -> Scan:
    """Look at the training boxes once.

    Parameters
    ----------
    parts : sequence of LabelledVolume
        The volumes with training boxes.
    settings : mapping
        A model's settings.

    Returns
    -------
    scan : Scan

    Raises
    ------
    ModelError
        If they hold nothing to learn from.
    """
    moments, greys = Moments(), [GreyValues() for _ in parts]
    name = settings["input"]["normalise"]
    every = distance_of_samples(sum(math.prod(box.shape) for part in parts for box in part.boxes))
    cells: list[Cell] = []
    planes: set[tuple[int, int]] = set()
    for number, part in enumerate(parts):
        for cell, codes in _cells(number, part):
            cells.append(cell)
            planes |= {(number, cell.start[0] + int(z)) for z in np.flatnonzero((codes != IGNORE).any(axis=(1, 2)))}
            values = part.image(cell.start, cell.shape)
            moments = moments.joined(values)
            if name in OF_VOLUME:
                greys[number] = greys[number].joined(values, every=every)
    _refuse_nothing_to_learn(cells, settings)
    together = GreyValues(moments, tuple(sample for grey in greys for sample in grey.samples))
    normalisation = Normalisation(
        name,
        moments.mean,
        moments.deviation,
        min(str(part.dtype) for part in parts),
        together.quantiles() if name == "histogram" else (),
    )
    return Scan(cells, sorted(planes), normalisation, [normalisation.of_volume(grey) for grey in greys])


def _cells(number: int, part: LabelledVolume) -> Iterator[tuple[Cell, NDArray[np.uint8]]]:
    """The cells of a volume, each with its labels."""
    for box in part.boxes:
        for block in grid(box.shape, (SCAN_EDGE,) * 3):
            z, y, x = (low + axis.start for low, axis in zip(box.start, block.core, strict=True))
            depth, height, width = (axis.stop - axis.start for axis in block.core)
            start, shape = (z, y, x), (depth, height, width)
            codes = part.codes(start, shape)
            firsts = part.codes(start, shape, first_only=True)
            a, b, c, d = (int(np.count_nonzero(kind)) for kind in kinds(codes, firsts))
            yield Cell(number, box, start, shape, (a, b, c, d)), codes


def _refuse_nothing_to_learn(cells: Sequence[Cell], settings: Mapping[str, Any]) -> None:
    annotated, foreground, by_first = (sum(cell.counts[kind] for cell in cells) for kind in range(3))
    if foreground == 0:
        raise ModelError(
            f"the training boxes hold {annotated} annotated voxels and no foreground: nothing can be learnt; "
            "look at the annotation and the split's map"
        )
    if foreground == annotated:
        raise ModelError(
            f"all {annotated} annotated voxels of the training boxes are foreground: without background nothing "
            "can be learnt; look at the annotation (annotate.files: empty_slices) and the split's map"
        )
    if by_first == 0 and settings["annotator_share"] > 0:
        raise ModelError(
            f"annotator_share is {settings['annotator_share']}, but the first of learn_from "
            f"({settings['learn_from'][0]}) annotated nothing in the training boxes; set it to 0"
        )


def positive_weight(found: Scan, weight: float | str) -> float:
    """Weight of a foreground voxel in the loss.

    Parameters
    ----------
    found : Scan
    weight : float or "balanced"
        "balanced" gives foreground and background the same weight in all, up to `MOST_BALANCED_WEIGHT`.

    Returns
    -------
    weight : float
    """
    if weight != "balanced":
        return float(weight)
    background = found.annotated_voxels - found.foreground_voxels
    return min(max(background, 1) / found.foreground_voxels, MOST_BALANCED_WEIGHT)
