"""How well a network does on the validation boxes while it learns."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from voxloom import metrics
from voxloom.blocks import grid
from voxloom.intensity import for_volume
from voxloom.labelled import LabelledVolume, PartBox, Shape, TrainingVolume, labelled_volumes
from voxloom.losses import Loss
from voxloom.predictor import Predictor
from voxloom.volume import IGNORE, split_annotation

LOGGER = logging.getLogger("voxloom")
SLAB = 16
BLOCK = 128


@dataclass(frozen=True)
class Scores:
    """Scores of one epoch, at the volume's own resolution.

    Parameters
    ----------
    loss : float
        Of the probabilities; NaN without annotated voxels.
    average_precision, f1, iou : float
        F1 and IoU at the best threshold of each; NaN without foreground.
    """

    loss: float
    average_precision: float
    f1: float
    iou: float

    def goodness(self, metric: str) -> float:
        """How good the epoch was.

        Parameters
        ----------
        metric : {"average_precision", "f1", "iou", "loss"}

        Returns
        -------
        value : float
            More is better, for the loss too.
        """
        return -self.loss if metric == "loss" else float(getattr(self, metric))


@dataclass(frozen=True)
class Piece:
    """A box with annotated voxels everywhere at its faces.

    Parameters
    ----------
    part : LabelledVolume
    start, stop : tuple of int
        Half-open range of voxels (Z, Y, X).
    has_foreground : bool
    """

    part: LabelledVolume
    start: Shape
    stop: Shape
    has_foreground: bool

    @property
    def shape(self) -> Shape:
        """Edge lengths (Z, Y, X)."""
        z, y, x = (stop - start for start, stop in zip(self.start, self.stop, strict=True))
        return z, y, x


class Validation:
    """The validation boxes of a fold, cut to what is annotated.

    Parameters
    ----------
    volumes : mapping of str to TrainingVolume
    boxes : sequence of PartBox
        Of one fold; those of part validation are used.
    settings : mapping
        A model's settings.

    Attributes
    ----------
    annotated_voxels, foreground_voxels : int
    pieces : list of Piece
        What is predicted, one after the other.

    Notes
    -----
    Beyond the model's ``validation_voxels``, evenly spaced pieces are taken, always the same ones, so that validating a
    large volume doesn't take longer than learning from it. Pieces with foreground and pieces without are thinned out
    alike, and one with foreground is always kept.
    """

    def __init__(
        self, volumes: Mapping[str, TrainingVolume], *, boxes: Sequence[PartBox], settings: Mapping[str, Any]
    ) -> None:
        self.dimensions = settings["network"]["dimensions"]
        edges = (1, None, None) if self.dimensions == 2 else (BLOCK, BLOCK, BLOCK)
        self.annotated_voxels = self.foreground_voxels = 0
        pieces: list[Piece] = []
        for part in labelled_volumes(volumes, boxes, part="validation"):
            for box in part.boxes:
                for block in grid(box.shape, [edge or size for edge, size in zip(edges, box.shape, strict=True)]):
                    start = tuple(low + axis.start for low, axis in zip(box.start, block.core, strict=True))
                    codes = part.codes(start, [axis.stop - axis.start for axis in block.core])
                    self.foreground_voxels += int(np.count_nonzero(codes == 1))
                    self.annotated_voxels += int(np.count_nonzero(codes != IGNORE))
                    pieces += _annotated_box(part, codes, start)
        self.pieces = _joined(_thinned(pieces, most_voxels=settings["validation_voxels"]))
        self._normalisations: dict[str, Mapping[str, Any]] = {}

    def _for_volume(self, predictor: Predictor, part: LabelledVolume) -> Predictor:
        """The predictor as it will be for that whole volume, whose grey values are looked at once."""
        if part.name not in self._normalisations:
            self._normalisations[part.name] = for_volume(predictor.settings, part.volume.image)["normalisation"]
        return replace(predictor, settings={**predictor.settings, "normalisation": self._normalisations[part.name]})

    def score(self, predictor: Predictor, *, loss: Loss, positive_weight: float) -> Scores:
        """Predict the validation boxes and compare.

        Parameters
        ----------
        predictor : Predictor
        loss : Loss
        positive_weight : float

        Returns
        -------
        scores : Scores
        """
        histogram = np.zeros((2, 256), dtype=np.int64)
        sums: NDArray[np.float64] | float = 0.0
        for piece in self.pieces:
            probability = np.empty(piece.shape, dtype=np.float32)
            self._for_volume(predictor, piece.part).region(
                piece.part.volume.image, piece.start, piece.stop, probability
            )
            mask, ignore = split_annotation(piece.part.codes(piece.start, piece.shape))
            predicted, target, ignored = (_as_batch(array, self.dimensions) for array in (probability, mask, ignore))
            counted = loss.sums(torch.logit(predicted, eps=1e-6), target, ignored, positive_weight)
            sums = sums + counted.double().numpy()
            histogram += metrics.joint_histogram(np.rint(probability * 255).astype(np.uint8), mask, ignore=ignore)
        if not histogram.sum():
            return Scores(math.nan, math.nan, math.nan, math.nan)
        value = float(loss.value(torch.as_tensor(sums)))
        if not histogram[1].sum():
            return Scores(value, math.nan, math.nan, math.nan)
        _, f1 = metrics.best_threshold(histogram, metric="f1")
        _, iou = metrics.best_threshold(histogram, metric="iou")
        return Scores(value, float(metrics.average_precision(histogram)), f1, iou)


def _thinned(pieces: list[Piece], *, most_voxels: int) -> list[Piece]:
    """As many pieces as hold `most_voxels`, in their order."""
    voxels = sum(math.prod(piece.shape) for piece in pieces)
    every = math.ceil(voxels / most_voxels)
    if every <= 1:
        return pieces
    kept = []
    for has_foreground in (True, False):
        alike = [number for number, piece in enumerate(pieces) if piece.has_foreground == has_foreground]
        kept += alike[::every]
    LOGGER.info("validation looks at %d of %d pieces: they hold %.3g voxels", len(kept), len(pieces), voxels)
    return [pieces[number] for number in sorted(kept)]


def _as_batch(box: NDArray[Any], dimensions: int) -> Tensor:
    """A box as (N, C, [Z,] Y, X), for losses that look at shapes: slices are samples in 2-D."""
    batch = torch.from_numpy(box)
    return batch[:, None] if dimensions == 2 else batch[None, None]


def _annotated_box(part: LabelledVolume, codes: NDArray[np.uint8], start: Sequence[int]) -> list[Piece]:
    """The smallest box with all annotated voxels; none where there are none."""
    annotated = codes != IGNORE
    if not annotated.any():
        return []
    ranges = []
    for axis in range(3):
        seen = np.flatnonzero(annotated.any(axis=tuple(other for other in range(3) if other != axis)))
        ranges.append((start[axis] + int(seen[0]), start[axis] + int(seen[-1]) + 1))
    (z, z_to), (y, y_to), (x, x_to) = ranges
    return [Piece(part, (z, y, x), (z_to, y_to, x_to), bool((codes == 1).any()))]


def _joined(pieces: list[Piece]) -> list[Piece]:
    """Neighbouring slices that are annotated alike as slabs, which are predicted at once."""
    slabs: list[Piece] = []
    for piece in pieces:
        last = slabs[-1] if slabs else None
        if (
            last is not None
            and last.part is piece.part
            and piece.stop[0] == piece.start[0] + 1
            and last.stop == (piece.start[0], *piece.stop[1:])
            and last.start[1:] == piece.start[1:]
            and piece.start[0] - last.start[0] < SLAB
        ):
            slabs[-1] = Piece(piece.part, last.start, piece.stop, last.has_foreground or piece.has_foreground)
        else:
            slabs.append(piece)
    return slabs
