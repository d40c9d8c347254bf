"""How well the objects of a section are told apart: the ISBI 2012 challenge's scores, section by section."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voxloom.errors import VolumeError
from voxloom.instances import label_objects
from voxloom.partitions import Contingency

THRESHOLDS = tuple(itertools.accumulate([0.1] * 10, initial=0.0))
"""Of the interior probability, summed up in double precision as the challenge does: the last is 0.9999999999999999."""


@dataclass(frozen=True)
class Agreement:
    """What two sections have in common, and what only one of them has; sections add up.

    Parameters
    ----------
    tp, fp, fn : int
        Pairs of pixels, or pixels, that are together (or interior) in both, in the proposal only, in the truth only.
    """

    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    @property
    def precision(self) -> float:
        """Low where objects are merged; 1 where nothing is together (or interior) by mistake."""
        return self.tp / (self.tp + self.fp) if self.fp else 1.0

    @property
    def recall(self) -> float:
        """Low where objects are split; 1 where nothing that belongs together is apart."""
        return self.tp / (self.tp + self.fn) if self.fn else 1.0

    @property
    def f_score(self) -> float:
        """Harmonic mean of precision and recall."""
        return harmonic_mean(self.precision, self.recall)


@dataclass(frozen=True)
class Information:
    """How much the objects of a proposal and of the truth say about each other.

    Parameters
    ----------
    precision, recall : float
        Low precision means merged, low recall split objects.
    """

    precision: float
    recall: float

    @property
    def f_score(self) -> float:
        """Harmonic mean of precision and recall."""
        return harmonic_mean(self.precision, self.recall)


def harmonic_mean(precision: float, recall: float) -> float:
    """The F-score; 0 where both are 0."""
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def objects_of(interior: NDArray[np.bool_]) -> NDArray[np.uint32]:
    """Number the 4-connected objects of a section.

    Parameters
    ----------
    interior : ndarray of bool, shape (Y, X)

    Returns
    -------
    labels : ndarray of uint32, shape (Y, X)
        0 is background; objects are numbered from 1 in the order of their first pixel (C order).
    """
    return label_objects(interior[None], connectivity=6)[0][0]


def foreground_pairs(table: Contingency) -> Agreement:
    """Pairs of pixels inside the true objects, by whether they are together in truth and proposal.

    Parameters
    ----------
    table : Contingency
        Of the proposal's and the true objects. A pixel that is 0 in the proposal is an object of its own.

    Returns
    -------
    pairs : Agreement
        Every pair counts twice and a pixel with itself once (the challenge's N² normalisation).

    References
    ----------
    .. [1] Arganda-Carreras et al. (2015). Frontiers in Neuroanatomy 9:142.
    """
    is_object = table.prediction != 0
    singles = int(table.counts[~is_object].sum())
    both = int((table.counts[is_object] ** 2).sum()) + singles
    proposed = int((_sums(table.prediction[is_object], table.counts[is_object]) ** 2).sum()) + singles
    true = int((_sums(table.truth, table.counts) ** 2).sum())
    return Agreement(both, proposed - both, true - both)


def all_pairs(table: Contingency) -> Agreement:
    """Pairs of different pixels in all of a section, its borders as one object.

    Parameters
    ----------
    table : Contingency
        Of the proposal's and the true objects, both of them numbered from 1 with what lies between them.

    Returns
    -------
    pairs : Agreement
    """
    both, proposed, true = (
        int((counts * (counts - 1)).sum()) // 2
        for counts in (table.counts, _sums(table.prediction, table.counts), _sums(table.truth, table.counts))
    )
    return Agreement(both, proposed - both, true - both)


def information(table: Contingency) -> Information:
    """Foreground-restricted information score of a section.

    Parameters
    ----------
    table : Contingency
        As in `foreground_pairs`.

    Returns
    -------
    score : Information

    Raises
    ------
    VolumeError
        If the truth holds no object.

    Notes
    -----
    A truth of one object has nothing to tell: precision 0 and recall 1, whatever is proposed; a proposal of one object
    for several has precision 1 and recall 0. Both are scores of 0, as in the challenge [1]_.

    References
    ----------
    .. [1] Arganda-Carreras et al. (2015). Frontiers in Neuroanatomy 9:142.
    """
    pixels = int(table.counts.sum())
    if not pixels:
        raise VolumeError("the truth holds no object (no pixel is interior); a section without one has no score")
    is_object = table.prediction != 0
    # every pixel that belongs to no object is one of its own
    singles = float(table.counts[~is_object].sum()) / pixels * np.log(pixels)
    true = _entropy(_sums(table.truth, table.counts), pixels)
    proposed = _entropy(_sums(table.prediction[is_object], table.counts[is_object]), pixels) + singles
    both = _entropy(table.counts[is_object], pixels) + singles
    if true == 0:
        return Information(0.0, 1.0)
    if proposed == 0:
        return Information(1.0, 0.0)
    mutual = true + proposed - both
    return Information(mutual / true, mutual / proposed)


def pixel_agreement(
    proposal: NDArray[np.bool_], truth: NDArray[np.bool_], *, ignore: NDArray[np.bool_] | None = None
) -> Agreement:
    """Pixels that are interior in both sections, or in one.

    Parameters
    ----------
    proposal, truth : ndarray of bool, shape (Y, X)
    ignore : ndarray of bool, shape (Y, X), optional
        Pixels that don't count.

    Returns
    -------
    pixels : Agreement
    """
    counted = np.ones(truth.shape, np.bool_) if ignore is None else ~ignore
    return Agreement(
        int(np.count_nonzero(proposal & truth & counted)),
        int(np.count_nonzero(proposal & ~truth & counted)),
        int(np.count_nonzero(truth & ~proposal & counted)),
    )


def _sums(labels: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pixels of every label that occurs."""
    order = np.argsort(labels, kind="stable")
    firsts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    return np.add.reduceat(counts[order], firsts) if labels.size else counts


def _entropy(counts: NDArray[np.int64], pixels: int) -> float:
    shares = counts / pixels
    return -float((shares * np.log(shares)).sum())
