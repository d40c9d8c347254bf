"""Scores of a prediction against a mask, from counts that add up over blocks, volumes and machines.

Everything here starts from a joint histogram: how many background and how many foreground voxels have each stored
score. Stored scores are integers, so 2 x 256 counts hold the exact precision-recall curve of a volume of any size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from voxloom.errors import VolumeError
from voxloom.kernels import compiled
from voxloom.levels import FLOAT_BINS
from voxloom.volume import IGNORE, Quantisation, join_annotation

LEVELS = {np.dtype(np.uint8): 256, np.dtype(np.uint16): 65536}
THRESHOLD_METRICS = ("f1", "iou")
INTERVALS = ("average_precision", "f1", "iou", "dice")


def joint_histogram(
    stored: NDArray[np.unsignedinteger[Any]], mask: NDArray[np.bool_], *, ignore: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """Count background and foreground voxels of every stored score.

    Parameters
    ----------
    stored : ndarray of uint8 or uint16, any shape
        Quantised scores; a higher one is more likely foreground.
    mask : ndarray of bool, same shape
        The truth.
    ignore : ndarray of bool, same shape, optional
        Voxels that don't count.

    Returns
    -------
    histogram : ndarray of int64, shape (2, 256) or (2, 65536)
        Row 0 counts background, row 1 foreground; a column a score. Histograms of parts add up to that of the whole.

    Raises
    ------
    VolumeError
        If shapes or types are others.
    """
    mask = _checked_mask(mask, stored.shape, "mask")
    ignore = None if ignore is None else _checked_mask(ignore, stored.shape, "ignore")
    if stored.dtype not in LEVELS:
        raise VolumeError(
            f"stored scores must be uint8 or uint16, got {stored.dtype}; quantise them, or use level_histogram"
        )
    counts = np.zeros((4 if stored.dtype == np.uint8 else 1, 3 * LEVELS[stored.dtype]), dtype=np.int64)
    places = np.empty(min(PIECE, stored.size), dtype=np.uint32)
    for values, codes in _pieces(stored, mask, ignore):
        _count(values, codes, places, counts)
    return counts.sum(axis=0).reshape(3, -1)[:2]


PIECE = 1 << 16
"""Voxels whose codes are made at a time: they stay in the processor's cache."""


def _pieces(
    scores: NDArray[Any], mask: NDArray[np.bool_], ignore: NDArray[np.bool_] | None
) -> Iterator[tuple[NDArray[Any], NDArray[np.uint8]]]:
    """Scores and annotation codes, flat, piece by piece: nothing as large as the arrays is held."""
    scores, mask = np.ascontiguousarray(scores).reshape(-1), mask.reshape(-1)
    ignore = None if ignore is None else ignore.reshape(-1)
    for start in range(0, scores.size, PIECE):
        at = slice(start, start + PIECE)
        codes = mask[at].view(np.uint8) if ignore is None else join_annotation(mask[at], ignore[at])
        yield scores[at], codes


@compiled
def _count(stored: Any, codes: Any, places: Any, counts: Any) -> None:
    levels = np.uint32(counts.shape[1] // 3)
    for i in range(stored.size):  # several voxels an instruction
        places[i] = np.uint32(min(codes[i], np.uint8(2))) * levels + stored[i]
    # several copies of the counts: consecutive voxels with the same score don't wait for one another
    most = counts.shape[0] - 1
    one, two, three, four = counts[0], counts[1 & most], counts[2 & most], counts[3 & most]
    last = stored.size // 4 * 4
    for i in range(0, last, 4):
        one[places[i]] += 1
        two[places[i + 1]] += 1
        three[places[i + 2]] += 1
        four[places[i + 3]] += 1
    for i in range(last, stored.size):
        one[places[i]] += 1


def level_histogram(
    scores: NDArray[Any], mask: NDArray[np.bool_], *, ignore: NDArray[np.bool_] | None = None
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """`joint_histogram` for scores of any type: one column for every distinct score.

    Parameters
    ----------
    scores : ndarray of any real type
        A higher one is more likely foreground.
    mask : ndarray of bool, same shape
    ignore : ndarray of bool, same shape, optional

    Returns
    -------
    levels : ndarray, shape (n,)
        The distinct scores in rising order.
    histogram : ndarray of int64, shape (2, n)
        Background and foreground voxels of each.

    Raises
    ------
    VolumeError
        If shapes differ or a score is not a number.

    Notes
    -----
    Exact, at the price of a sort: several copies of `scores` are held.
    """
    mask = _checked_mask(mask, scores.shape, "mask")
    counted = np.ones_like(mask) if ignore is None else ~_checked_mask(ignore, scores.shape, "ignore")
    chosen = scores[counted]
    if chosen.dtype.kind == "f" and not np.all(np.isfinite(chosen)):
        raise VolumeError("scores hold NaN or infinity; set those voxels in `ignore` or repair the prediction")
    levels, index = np.unique(chosen, return_inverse=True)
    joint = np.bincount(index + len(levels) * mask[counted].astype(np.int64), minlength=2 * len(levels))
    return levels, joint.reshape(2, len(levels)).astype(np.int64)


def binned_histogram(
    scores: NDArray[np.floating[Any]], mask: NDArray[np.bool_], *, ignore: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]]:
    """`level_histogram` of real scores in bins of equal width: a few MiB whatever the number of voxels.

    Parameters
    ----------
    scores : ndarray of float32 or float64
        A higher one is more likely foreground.
    mask : ndarray of bool, same shape
    ignore : ndarray of bool, same shape, optional

    Returns
    -------
    levels : ndarray of float64, shape (65536,)
        The lower edges of the bins. The first bin is the smallest score alone, the last the largest: saturated
        predictions have many of either.
    histogram : ndarray of int64, shape (2, 65536)
        Background and foreground voxels of each.
    is_mixed : ndarray of bool, shape (65536,)
        Bins whose scores are not all the same; `average_precision` wants to know.

    Raises
    ------
    VolumeError
        If shapes differ, a score is not a number, or nothing counts.
    """
    mask = _checked_mask(mask, scores.shape, "mask")
    ignore = None if ignore is None else _checked_mask(ignore, scores.shape, "ignore")
    smallest, largest = np.inf, -np.inf
    for values, codes in _pieces(scores, mask, ignore):
        counted = values if ignore is None else values[codes != IGNORE]
        if counted.size:
            smallest, largest = np.minimum(smallest, counted.min()), np.maximum(largest, counted.max())
    if not np.isfinite([smallest, largest]).all():
        raise VolumeError("scores hold NaN or infinity, or none counts; repair the prediction or change `ignore`")
    width = max((float(largest) - float(smallest)) / (FLOAT_BINS - 2), np.finfo(np.float64).tiny)
    counts, seen = np.zeros((2, FLOAT_BINS), dtype=np.int64), np.full(FLOAT_BINS, np.nan, dtype=scores.dtype)
    is_mixed = np.zeros(FLOAT_BINS, dtype=np.bool_)
    for values, codes in _pieces(scores, mask, ignore):
        _count_binned(values, codes, float(smallest), float(largest), 1 / width, *counts, seen, is_mixed)
    levels = float(smallest) + width * np.arange(-1, FLOAT_BINS - 1, dtype=np.float64)
    levels[0], levels[1] = smallest, np.nextafter(scores.dtype.type(smallest), scores.dtype.type(np.inf))
    return levels, counts, is_mixed


@compiled
def _count_binned(
    scores: Any,
    codes: Any,
    smallest: float,
    largest: float,
    bins_per_unit: float,
    background: Any,
    foreground: Any,
    seen: Any,
    is_mixed: Any,
) -> None:
    last = np.uint64(seen.size - 1)  # unsigned, so that no index is looked at for being negative
    for i in range(scores.size):
        score, code = scores[i], codes[i]
        if code > 1:
            continue
        column = min(np.uint64(1 + int((score - smallest) * bins_per_unit)), last - np.uint64(1))
        if score >= largest:
            column = last
        if score <= smallest:
            column = np.uint64(0)
        before = seen[column]
        if before != score:  # also where it is the first, after not a number
            seen[column] = score
            if before == before:
                is_mixed[column] = True
        if code:
            foreground[column] += 1
        else:
            background[column] += 1


def _checked_mask(mask: NDArray[Any], shape: tuple[int, ...], name: str) -> NDArray[np.bool_]:
    if mask.dtype != np.bool_:
        raise VolumeError(f"{name} must be boolean, got {mask.dtype}; compare the labels with 0 first (labels > 0)")
    if mask.shape != shape:
        raise VolumeError(f"{name} has shape {mask.shape} but the scores have {shape}; they must be the same voxels")
    return np.ascontiguousarray(mask)


def _ratio(numerator: ArrayLike, denominator: ArrayLike, *, empty: float) -> Any:
    """Quotient, `empty` where the denominator is 0; float for scalars."""
    top, bottom = np.asarray(numerator, dtype=float), np.asarray(denominator, dtype=float)
    quotient = np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1.0), empty)
    return quotient if quotient.ndim else float(quotient)


@dataclass(frozen=True)
class Confusion:
    """Counts of a binary decision, and what follows from them.

    Parameters
    ----------
    tp, fp, fn, tn : int
        True positive, false positive, false negative and true negative voxels; arrays of them work as well.

    Notes
    -----
    Where nothing is predicted, precision is 1, as in scikit-learn. Where nothing is foreground, recall is not a number.
    Where both are empty, F1, IoU and Dice are 1: the two agree. Without any voxel, accuracy and prevalence are not a
    number. Dice and F1 are the same number of a binary decision under two names.
    """

    tp: Any
    fp: Any
    fn: Any
    tn: Any

    @property
    def voxels(self) -> Any:
        """All that were counted."""
        return self.tp + self.fp + self.fn + self.tn

    @property
    def prevalence(self) -> Any:
        """Share of the voxels that is foreground."""
        return _ratio(self.tp + self.fn, self.voxels, empty=np.nan)

    @property
    def accuracy(self) -> Any:
        """Share of the voxels that is right."""
        return _ratio(self.tp + self.tn, self.voxels, empty=np.nan)

    @property
    def all_background_accuracy(self) -> Any:
        """Accuracy of calling every voxel background: what an accuracy has to beat to mean anything."""
        return _ratio(self.fp + self.tn, self.voxels, empty=np.nan)

    @property
    def precision(self) -> Any:
        """Share of the predicted foreground that is right."""
        return _ratio(self.tp, self.tp + self.fp, empty=1.0)

    @property
    def recall(self) -> Any:
        """Share of the foreground that is found."""
        return _ratio(self.tp, self.tp + self.fn, empty=np.nan)

    @property
    def f1(self) -> Any:
        """Harmonic mean of precision and recall."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn, empty=1.0)

    @property
    def dice(self) -> Any:
        """Twice the overlap over the sum of both sizes."""
        return self.f1

    @property
    def iou(self) -> Any:
        """Overlap over union."""
        return _ratio(self.tp, self.tp + self.fp + self.fn, empty=1.0)


def confusion(histogram: NDArray[np.int64], *, level: int) -> Confusion:
    """Counts when every score of at least `level` is called foreground.

    Parameters
    ----------
    histogram : ndarray of int64, shape (..., 2, levels)
        From `joint_histogram`; leading axes are kept.
    level : int
        Column of the histogram, the stored threshold. `levels` calls nothing foreground.

    Returns
    -------
    counts : Confusion
        Of int, or of arrays with the leading axes' shape.
    """
    predicted = histogram[..., level:].sum(axis=-1)
    rest = histogram[..., :level].sum(axis=-1)
    counts = [predicted[..., 1], predicted[..., 0], rest[..., 1], rest[..., 0]]
    return Confusion(*(int(c) if np.ndim(c) == 0 else c for c in counts))


@dataclass(frozen=True)
class PrecisionRecallCurve:
    """One point for every score that occurs, from the lowest threshold to the highest.

    Parameters
    ----------
    levels : ndarray of int64, shape (n,)
        Columns of the histogram; a voxel is called foreground when its score is at least this.
    precision, recall : ndarray of float64, shape (n,)
        Recall is not a number where nothing is foreground.
    tp, fp, fn, tn : ndarray of int64, shape (n,)

    Notes
    -----
    The conventional end at recall 0 and precision 1, a threshold above every score, is not among the points.
    """

    levels: NDArray[np.int64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    tp: NDArray[np.int64]
    fp: NDArray[np.int64]
    fn: NDArray[np.int64]
    tn: NDArray[np.int64]


def precision_recall_curve(histogram: NDArray[np.int64]) -> PrecisionRecallCurve:
    """Precision and recall at every threshold that makes a difference, exact.

    Parameters
    ----------
    histogram : ndarray of int64, shape (2, levels)
        From `joint_histogram` or `level_histogram`.

    Returns
    -------
    curve : PrecisionRecallCurve
        As many points as there are different scores.

    Examples
    --------
    >>> stored = np.array([10, 20, 20, 30], dtype=np.uint8)
    >>> curve = precision_recall_curve(joint_histogram(stored, np.array([False, False, True, True])))
    >>> curve.levels
    array([10, 20, 30])
    >>> curve.recall
    array([1. , 1. , 0.5])
    """
    levels = np.flatnonzero(histogram.sum(axis=0))
    background, foreground = histogram[:, levels]
    tp, fp = (counts[::-1].cumsum()[::-1] for counts in (foreground, background))
    counts = Confusion(tp=tp, fp=fp, fn=foreground.sum() - tp, tn=background.sum() - fp)
    return PrecisionRecallCurve(
        levels=levels,
        precision=counts.precision,
        recall=counts.recall,
        tp=counts.tp,
        fp=counts.fp,
        fn=counts.fn,
        tn=counts.tn,
    )


def average_precision(histogram: NDArray[Any], *, is_mixed: NDArray[np.bool_] | None = None) -> Any:
    """Area under the precision-recall curve as a sum of steps, without interpolation.

    Parameters
    ----------
    histogram : ndarray, shape (..., 2, levels)
        From `joint_histogram`; leading axes are kept.
    is_mixed : ndarray of bool, shape (levels,), optional
        Columns of voxels whose scores differ in an order that isn't known, from `binned_histogram`.

    Returns
    -------
    average_precision : float, or ndarray of float64 with the leading axes' shape
        Sum over thresholds of the recall gained times the precision there, as scikit-learn's; not a number where
        nothing is foreground.

    Notes
    -----
    In a mixed column, precision goes from its value above the column to its value with it. Its mean is that over the
    column's foreground voxels, which lie evenly among the background; Simpson's rule is exact enough. To take all for
    equal instead makes the average precision of 65536 bins wrong by some 1e-5, where this leaves some 1e-7.
    """
    above = np.flip(np.cumsum(np.flip(histogram, axis=-1), axis=-1), axis=-1).astype(float)
    precision = _ratio(above[..., 1, :], above.sum(axis=-2), empty=1.0)
    gained = histogram[..., 1, :]
    if is_mixed is not None:
        precision = np.where(is_mixed, _precision_inside(above - histogram, histogram), precision)
    return _ratio((gained * precision).sum(axis=-1), gained.sum(axis=-1), empty=np.nan)


def _precision_inside(before: NDArray[np.float64], histogram: NDArray[Any]) -> NDArray[np.float64]:
    """Mean precision at the foreground voxels of a column, evenly among its background, after what lies above it."""
    gained = histogram[..., 1, :].astype(float)
    background = histogram[..., 0, :] / (gained + 1)  # between one foreground voxel and the next

    def at(number: Any) -> NDArray[np.float64]:
        found = before[..., 1, :] + number
        return found / (found + before[..., 0, :] + number * background)

    return (at(0.5) + 4 * at((gained + 1) / 2) + at(gained + 0.5)) / 6


def best_threshold(histogram: NDArray[np.int64], *, metric: str) -> tuple[int, float]:
    """The threshold with the best score.

    Parameters
    ----------
    histogram : ndarray of int64, shape (2, levels)
    metric : {"f1", "iou"}
        What is maximised.

    Returns
    -------
    level : int
        Column of the histogram, a score that occurs; of equally good ones the lowest.
    value : float
        The metric there.

    Raises
    ------
    VolumeError
        If the metric is unknown, or nothing is foreground.
    """
    if metric not in THRESHOLD_METRICS:
        raise VolumeError(f"unknown metric {metric!r} for choosing a threshold; known: {', '.join(THRESHOLD_METRICS)}")
    if histogram[1].sum() == 0:
        raise VolumeError("no threshold can be chosen without a foreground voxel; score where there is foreground")
    curve = precision_recall_curve(histogram)
    values = getattr(Confusion(tp=curve.tp, fp=curve.fp, fn=curve.fn, tn=curve.tn), metric)
    best = int(np.argmax(values))
    return int(curve.levels[best]), float(values[best])


@dataclass(frozen=True)
class Reliability:
    """Whether predicted probabilities mean what they say: one entry a bin that holds voxels.

    Parameters
    ----------
    bin_from, bin_to : ndarray of float64, shape (n,)
        Range of predicted probability, half-open but for the last.
    mean_probability : ndarray of float64, shape (n,)
        Mean prediction in the bin.
    foreground_share : ndarray of float64, shape (n,)
        Share of the bin's voxels that is foreground; equal to the mean prediction when calibrated.
    voxels : ndarray of int64, shape (n,)
    """

    bin_from: NDArray[np.float64]
    bin_to: NDArray[np.float64]
    mean_probability: NDArray[np.float64]
    foreground_share: NDArray[np.float64]
    voxels: NDArray[np.int64]


def reliability(histogram: NDArray[np.int64], *, quantisation: Quantisation, bins: int = 20) -> Reliability:
    """Compare predicted probabilities with how often they come true.

    Parameters
    ----------
    histogram : ndarray of int64, shape (2, levels)
    quantisation : Quantisation
        What the stored scores stand for.
    bins : int
        Equal bins between 0 and 1.

    Returns
    -------
    reliability : Reliability
        Bins without voxels are left out.
    """
    probability = np.clip(np.arange(histogram.shape[1]) * quantisation.scale + quantisation.offset, 0.0, 1.0)
    index = np.minimum((probability * bins + 1e-9).astype(np.int64), bins - 1)
    every = histogram.sum(axis=0)
    voxels = np.bincount(index, weights=every, minlength=bins)
    held = voxels > 0
    edges = np.linspace(0.0, 1.0, bins + 1)
    return Reliability(
        bin_from=edges[:-1][held],
        bin_to=edges[1:][held],
        mean_probability=np.bincount(index, weights=every * probability, minlength=bins)[held] / voxels[held],
        foreground_share=np.bincount(index, weights=histogram[1], minlength=bins)[held] / voxels[held],
        voxels=voxels[held].astype(np.int64),
    )


def bootstrap_intervals(
    histograms: NDArray[np.int64], *, level: int, samples: int, rng: np.random.Generator
) -> dict[str, tuple[float, float]]:
    """95 % intervals of the scores, by resampling spatial blocks with replacement.

    Neighbouring voxels are not independent, blocks of a few structures' size nearly are: the interval says how much the
    score would move had other places of the same tissue been scored.

    Parameters
    ----------
    histograms : ndarray of int64, shape (blocks, 2, levels)
        One joint histogram a block. Blocks without a voxel should be left out.
    level : int
        Stored threshold of F1, IoU and Dice; fixed, not chosen anew in each sample.
    samples : int
        Number of resamples; 0 gives no interval.
    rng : numpy.random.Generator

    Returns
    -------
    intervals : dict of str to (low, high)
        2.5th and 97.5th percentile for each of `INTERVALS`; not a number when there are fewer than 2 blocks, or no
        sample had foreground.

    References
    ----------
    .. [1] Efron, Tibshirani (1993). An Introduction to the Bootstrap, chapter 13 (percentile interval).
    """
    blocks = len(histograms)
    if samples == 0 or blocks < 2:
        return dict.fromkeys(INTERVALS, (np.nan, np.nan))
    used = np.flatnonzero(histograms.any(axis=(0, 1)))
    kept = histograms if len(used) == histograms.shape[-1] else histograms[:, :, used]
    # sums of counts, so that neither type rounds them
    dtype = np.dtype(np.float32 if blocks * int(kept.max()) < 2**24 else np.float64)
    counted: NDArray[Any] = kept.reshape(blocks, -1).astype(dtype)
    at = int(np.searchsorted(used, level))
    values: dict[str, list[NDArray[np.float64]]] = {name: [] for name in INTERVALS}
    batch = max(1, (32 << 20) // max(1, counted.shape[1] * 8))
    for first in range(0, samples, batch):
        count = min(batch, samples - first)
        drawn = rng.integers(blocks, size=(count, blocks)) + blocks * np.arange(count)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=count * blocks).reshape(count, blocks)
        resampled = (weights.astype(dtype) @ counted).reshape(len(weights), 2, len(used)).astype(float)
        counts = confusion(resampled, level=at)
        values["average_precision"].append(average_precision(resampled))
        for name in ("f1", "iou", "dice"):
            # a resample without foreground says nothing of how well foreground is found
            values[name].append(np.where(resampled[:, 1].any(axis=1), getattr(counts, name), np.nan))
    return {name: _percentiles(np.concatenate(parts)) for name, parts in values.items()}


def _percentiles(values: NDArray[np.float64]) -> tuple[float, float]:
    values = values[np.isfinite(values)]
    if values.size == 0:
        return np.nan, np.nan
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
