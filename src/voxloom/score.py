"""Every score that fits two plain arrays: masks, quantised or real scores, or instance labels."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxloom import metrics, partitions, skeleton
from voxloom.errors import VolumeError
from voxloom.volume import IGNORE, Vector

KINDS = ("mask", "scores", "labels")

SORTED_VOXELS = 1 << 26
"""Real scores of more voxels are counted in bins, in bounded memory; of fewer every distinct score is a threshold."""

Scores = dict[str, float | int | str]


def score_arrays(
    prediction: NDArray[Any],
    truth: NDArray[Any],
    *,
    spacing_um: Vector | None = None,
    ignore: NDArray[np.bool_] | None = None,
    kind: str = "auto",
    threshold: float | None = None,
) -> Scores:
    """Score a prediction with every metric that fits the kind of data.

    Parameters
    ----------
    prediction : ndarray, shape (Z, Y, X) or (Y, X)
        Mask, scores or instance labels.
    truth : ndarray, same shape
        Mask, annotation or instance labels.
    spacing_um : tuple of float, optional
        Voxel edge lengths along (Z, Y, X), in micrometres; adds the foreground's volumes.
    ignore : ndarray of bool, same shape, optional
        Voxels that don't count, besides those that an annotation leaves out.
    kind : {"auto", "mask", "scores", "labels"}
        What the prediction is; "auto" decides as described below.
    threshold : float, optional
        For scores: from which score a voxel is foreground, in the prediction's own numbers. Half of the range when not
        given: 128 of uint8, 32768 of uint16, 0.5 of real numbers within 0 and 1; none for other real numbers.

    Returns
    -------
    scores : dict of str to float, int or str
        "kind" and the metrics of that kind, units in their names.

    Raises
    ------
    VolumeError
        If shapes differ, the kind is unknown or doesn't fit the arrays, or nothing is left to score.

    Notes
    -----
    How "auto" decides. The truth is labels when it holds two different values above 0 (or negative numbers are
    refused); 1 and 255 in uint8 are no labels but an annotation, 255 being "not annotated". Against labels a
    prediction of integers is labels. Else the truth is a mask, foreground being every value that is not 0, and the
    prediction is a mask when it is boolean or holds at most one value besides 0; scores when it is uint8, uint16 or
    real; labels of 32 or 64 bits are compared as the mask of what isn't 0.

    Real scores of more than 2**26 voxels are counted in 65536 bins of equal width between the smallest and the largest,
    which changes the average precision by some 1e-7. clDice is summed over tiles of at most 256 voxels an edge.
    """
    if prediction.shape != truth.shape:
        raise VolumeError(
            f"prediction has shape {prediction.shape} but truth {truth.shape}; they must be the same voxels, "
            "in the same axis order"
        )
    if prediction.ndim not in (2, 3):
        raise VolumeError(f"scores are of 2D or 3D arrays, got {prediction.ndim}D; choose one channel first")
    if kind not in ("auto", *KINDS):
        raise VolumeError(f"unknown kind {kind!r}; known: auto, {', '.join(KINDS)}")
    values = _few_values(truth)
    is_annotation = truth.dtype == np.uint8 and values is not None and {1, IGNORE} <= set(values) <= {0, 1, IGNORE}
    if is_annotation:
        ignore = (truth == IGNORE) if ignore is None else ignore | (truth == IGNORE)
    if ignore is not None and ignore.all():
        raise VolumeError("every voxel is ignored or not annotated; there is nothing to score")
    has_labels = not is_annotation and (values is None or len([v for v in values if v != 0]) > 1)
    if kind == "auto":
        kind = _kind_of(prediction, has_labels)
    if kind == "labels":
        return _score_labels(prediction, truth, ignore)
    if has_labels:
        raise VolumeError(
            f"truth holds several labels but the prediction is scored as {kind}; give a truth of 0 and 1, "
            'or kind="labels"'
        )
    mask = (truth == 1) if is_annotation else truth != 0
    if kind == "scores":
        return _score_scores(prediction, mask, spacing_um=spacing_um, ignore=ignore, threshold=threshold)
    return {"kind": "mask", **_score_mask(prediction != 0, mask, spacing_um=spacing_um, ignore=ignore)}


def _few_values(array: NDArray[Any], *, limit: int = 16) -> list[float] | None:
    """The distinct values, or None when there are more than `limit`; the array is read by slices."""
    found: set[float] = set()
    for piece in array:
        found.update(np.unique(piece).tolist())
        if len(found) > limit:
            return None
    return sorted(found)


def _kind_of(prediction: NDArray[Any], has_labels: bool) -> str:
    if has_labels:
        if prediction.dtype.kind not in "iu":
            raise VolumeError(
                f"truth holds several labels, so the prediction must hold integer labels too, got {prediction.dtype}"
            )
        return "labels"
    values = _few_values(prediction)
    if prediction.dtype == np.bool_ or (values is not None and len([v for v in values if v != 0]) <= 1):
        return "mask"
    return "scores" if prediction.dtype in metrics.LEVELS or prediction.dtype.kind == "f" else "mask"


def _score_mask(
    prediction: NDArray[np.bool_],
    mask: NDArray[np.bool_],
    *,
    spacing_um: Vector | None,
    ignore: NDArray[np.bool_] | None,
) -> Scores:
    counts = metrics.confusion(metrics.joint_histogram(prediction.view(np.uint8), mask, ignore=ignore), level=1)
    scores: Scores = {
        "voxels": counts.voxels,
        "prevalence": counts.prevalence,
        "tp": counts.tp,
        "fp": counts.fp,
        "fn": counts.fn,
        "tn": counts.tn,
        "accuracy": counts.accuracy,
        "all_background_accuracy": counts.all_background_accuracy,
        "precision": counts.precision,
        "recall": counts.recall,
        "f1": counts.f1,
        "iou": counts.iou,
        "dice": counts.dice,
        "cldice": _tiled_cldice(prediction, mask, ignore),
    }
    if spacing_um is not None and prediction.ndim == 3:
        voxel_um3 = float(np.prod(spacing_um))
        scores["predicted_volume_um3"] = (counts.tp + counts.fp) * voxel_um3
        scores["true_volume_um3"] = (counts.tp + counts.fn) * voxel_um3
    return scores


def _tiled_cldice(prediction: NDArray[np.bool_], mask: NDArray[np.bool_], ignore: NDArray[np.bool_] | None) -> float:
    total = skeleton.CentreLineCounts()
    corners = itertools.product(*(range(0, n, t) for n, t in zip(mask.shape, skeleton.TILE[-mask.ndim :], strict=True)))
    for corner in corners:
        at = tuple(slice(c, c + t) for c, t in zip(corner, skeleton.TILE[-mask.ndim :], strict=True))
        total += skeleton.centre_line_counts(prediction[at], mask[at], ignore=None if ignore is None else ignore[at])
    return total.cldice


def _score_scores(
    prediction: NDArray[Any],
    mask: NDArray[np.bool_],
    *,
    spacing_um: Vector | None,
    ignore: NDArray[np.bool_] | None,
    threshold: float | None,
) -> Scores:
    is_mixed = None
    if prediction.dtype in metrics.LEVELS:
        histogram = metrics.joint_histogram(prediction, mask, ignore=ignore)
        levels: NDArray[Any] = np.arange(histogram.shape[1])
        half: float | None = histogram.shape[1] // 2
    else:
        if prediction.dtype.kind == "f" and prediction.size > SORTED_VOXELS:
            levels, histogram, is_mixed = metrics.binned_histogram(prediction, mask, ignore=ignore)
        else:
            levels, histogram = metrics.level_histogram(prediction, mask, ignore=ignore)
        half = 0.5 if prediction.dtype.kind == "f" and levels[0] >= 0 and levels[-1] <= 1 else None
    average = metrics.average_precision(histogram, is_mixed=is_mixed)
    scores: Scores = {"kind": "scores", "average_precision": average}
    if histogram[1].any():
        best, value = metrics.best_threshold(histogram, metric="f1")
        # chosen on the very voxels that it scores: the most that any threshold could give
        scores |= {"best_f1": value, "best_f1_threshold": levels[best].item()}
    threshold = half if threshold is None else threshold
    if threshold is None:
        return scores
    at_threshold = _score_mask(prediction >= threshold, mask, spacing_um=spacing_um, ignore=ignore)
    return scores | {"threshold": threshold} | at_threshold


def _score_labels(prediction: NDArray[Any], truth: NDArray[Any], ignore: NDArray[np.bool_] | None) -> Scores:
    table = partitions.contingency(prediction, truth, ignore=ignore)
    split, merge = partitions.variation_of_information(table)
    rand = partitions.adapted_rand(table, mode="cremi")
    return {
        "kind": "labels",
        "voxels": int(table.counts.sum()),
        "true_objects": len(np.unique(table.truth)),
        "predicted_objects": len(np.unique(table.prediction[table.prediction != 0])),
        "voi_split_bits": split,
        "voi_merge_bits": merge,
        "voi_bits": split + merge,
        "adapted_rand_error": rand.error,
        "adapted_rand_precision": rand.precision,
        "adapted_rand_recall": rand.recall,
        "adapted_rand_error_singletons": partitions.adapted_rand(table, mode="singletons").error,
        "cremi_score": partitions.cremi_score(table),
    }
