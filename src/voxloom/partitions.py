"""How two ways to cut a volume into objects agree: variation of information, adapted Rand error, CREMI score."""

from __future__ import annotations

import functools
import math
import operator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxloom.blocks import Readable, reduce_blocks
from voxloom.budget import fixed_within
from voxloom.errors import VolumeError
from voxloom.kernels import compiled

RAND_MODES = ("cremi", "singletons")

PIECE = 1 << 16
"""Voxels that are counted at a time: they stay in the processor's cache."""


BLOCK = (64, 512, 512)
BYTES_PER_VOXEL = 16
"""Of a block in work: two labels of at most 8 bytes."""


@dataclass(frozen=True)
class Contingency:
    """How many voxels have each pair of labels that occurs.

    Parameters
    ----------
    truth, prediction : ndarray of int64, shape (pairs,)
        Label of the truth and of the prediction; 0 is background in the truth, an ordinary label in the prediction.
    counts : ndarray of int64, shape (pairs,)
        Voxels with that pair. Only voxels whose true label is not 0 are in the table.
    voxels : int
        All voxels that were looked at, background as well.
    """

    truth: NDArray[np.int64]
    prediction: NDArray[np.int64]
    counts: NDArray[np.int64]
    voxels: int

    def __add__(self, other: Contingency) -> Contingency:
        truth = np.concatenate([self.truth, other.truth])
        prediction = np.concatenate([self.prediction, other.prediction])
        counts = np.concatenate([self.counts, other.counts])
        order = np.lexsort((prediction, truth))
        truth, prediction = truth[order], prediction[order]
        is_new = np.ones(truth.size, np.bool_)
        is_new[1:] = (truth[1:] != truth[:-1]) | (prediction[1:] != prediction[:-1])
        sums = np.add.reduceat(counts[order], np.flatnonzero(is_new)) if truth.size else counts
        return Contingency(truth[is_new], prediction[is_new], sums, self.voxels + other.voxels)


def contingency(
    prediction: NDArray[np.integer[Any]], truth: NDArray[np.integer[Any]], *, ignore: NDArray[np.bool_] | None = None
) -> Contingency:
    """Count the pairs of labels of two segmentations, where the truth is not background.

    Parameters
    ----------
    prediction, truth : ndarray of integer, same shape
        Instance labels; 0 is background. Not negative.
    ignore : ndarray of bool, same shape, optional
        Voxels that don't count.

    Returns
    -------
    table : Contingency
        Pairs in rising order of true, then predicted label.

    Raises
    ------
    VolumeError
        If shapes differ or labels are not integers of at least 0.
    """
    for name, labels in (("prediction", prediction), ("truth", truth)):
        if labels.dtype.kind not in "iu" or (labels.dtype.kind == "i" and labels.size and int(labels.min()) < 0):
            raise VolumeError(f"{name} must hold integer labels of at least 0, got {labels.dtype}")
    if prediction.shape != truth.shape or (ignore is not None and ignore.shape != truth.shape):
        raise VolumeError(
            f"prediction has shape {prediction.shape} but truth {truth.shape}; they must be the same voxels"
        )
    table, filled, voxels = np.zeros((3, 1 << 10), np.int64), 0, 0
    first, second = truth.reshape(-1), prediction.reshape(-1)
    left_out = None if ignore is None else ignore.reshape(-1)
    for start in range(0, first.size, PIECE):
        at = slice(start, start + PIECE)
        a, b = first[at].astype(np.int64), second[at].astype(np.int64)
        voxels += a.size
        if left_out is not None:
            a[left_out[at]] = 0
            voxels -= int(np.count_nonzero(left_out[at]))
        begin = 0
        while True:
            begin, filled = _count_runs(a, b, begin, table, filled)
            if begin == a.size:
                break
            table = _doubled(table)
    truths, predictions, counts = table[:, table[0] != 0]
    order = np.lexsort((predictions, truths))
    return Contingency(truths[order], predictions[order], counts[order], voxels=voxels)


def contingency_volume(
    prediction: Readable, truth: Readable, *, memory_mib: float = math.inf, threads: int = 1
) -> Contingency:
    """The same as `contingency` for stored volumes, block by block.

    Parameters
    ----------
    prediction, truth : volume of integer, shape (Z, Y, X)
        Instance labels; 0 is background. Not negative.
    memory_mib : float
        Budget for the blocks, in MiB; the table takes 24 bytes for each pair that occurs besides.
    threads : int
        Blocks in work at a time, fewer where the budget holds fewer.

    Returns
    -------
    table : Contingency

    Raises
    ------
    VolumeError
        As in `contingency`, or if the budget doesn't hold one block.
    """
    layout = fixed_within(truth.shape, BLOCK, bytes_per_voxel=BYTES_PER_VOXEL, memory_mib=memory_mib, threads=threads)
    tables = reduce_blocks(contingency, prediction, truth, description="counted pairs of block", **layout.grid)
    return functools.reduce(operator.add, (table for _, table in tables))


def _doubled(table: NDArray[np.int64]) -> NDArray[np.int64]:
    larger = np.zeros((3, 2 * table.shape[1]), np.int64)
    for truth, prediction, count in table[:, table[0] != 0].T:
        _add(larger, truth, prediction, count)
    return larger


@compiled
def _add(table, truth, prediction, count):  # type: ignore[no-untyped-def]
    """Add to a pair's count in a hash table with a true label of 0 where it is free; whether the pair is new."""
    mixed = np.uint64(truth) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(prediction)
    mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    last = np.uint64(table.shape[1] - 1)
    at = (mixed >> np.uint64(32)) & last
    while table[0, at] != 0 and (table[0, at] != truth or table[1, at] != prediction):
        at = (at + np.uint64(1)) & last
    is_new = table[0, at] == 0
    table[0, at] = truth
    table[1, at] = prediction
    table[2, at] += count
    return is_new


@compiled
def _count_runs(truth, prediction, begin, table, filled):  # type: ignore[no-untyped-def]
    """Count runs of equal pairs from `begin`; where it stopped, the table being half full, and the pairs in it."""
    while begin < truth.size and 2 * filled < table.shape[1]:
        end = begin + 1
        while end < truth.size and truth[end] == truth[begin] and prediction[end] == prediction[begin]:
            end += 1
        if truth[begin] != 0:
            filled += _add(table, truth[begin], prediction[begin], end - begin)
        begin = end
    return begin, filled


def _sums(labels: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    _, index = np.unique(labels, return_inverse=True)
    return np.bincount(index, weights=counts).astype(float)


def _entropy_bits(counts: NDArray[Any]) -> float:
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log2(share)).sum())


def variation_of_information(table: Contingency) -> tuple[float, float]:
    """What each segmentation says that the other doesn't, in bits.

    Parameters
    ----------
    table : Contingency

    Returns
    -------
    split_bits : float
        H(prediction | truth): true objects cut into pieces.
    merge_bits : float
        H(truth | prediction): true objects run together.

    Raises
    ------
    VolumeError
        If the truth holds no object.

    References
    ----------
    .. [1] Meila (2007). Journal of Multivariate Analysis 98(5).
    """
    _needs_objects(table)
    joint = _entropy_bits(table.counts)
    split = joint - _entropy_bits(_sums(table.truth, table.counts))
    merge = joint - _entropy_bits(_sums(table.prediction, table.counts))
    return max(split, 0.0), max(merge, 0.0)  # rounding can leave -1e-16


@dataclass(frozen=True)
class AdaptedRand:
    """Adapted Rand error, and the precision and recall of pairs of voxels behind it.

    Parameters
    ----------
    error : float
        1 minus the harmonic mean of precision and recall; 0 is perfect.
    precision, recall : float
        Low precision means merged, low recall split objects.
    """

    error: float
    precision: float
    recall: float


def adapted_rand(table: Contingency, *, mode: str = "cremi") -> AdaptedRand:
    """Adapted Rand error over the voxels that are not background in the truth.

    Parameters
    ----------
    table : Contingency
    mode : {"cremi", "singletons"}
        What a predicted 0 inside a true object is: an object of one voxel ("singletons"), or the same with the term
        divided by the number of voxels, as the CREMI challenge's own code has it ("cremi", for comparison with it).
        Without such voxels both agree.

    Returns
    -------
    rand : AdaptedRand

    Raises
    ------
    VolumeError
        If the mode is unknown or the truth holds no object.

    References
    ----------
    .. [1] Arganda-Carreras et al. (2015). Frontiers in Neuroanatomy 9:142.
    """
    if mode not in RAND_MODES:
        raise VolumeError(f"unknown mode {mode!r} of the adapted Rand error; known: {', '.join(RAND_MODES)}")
    _needs_objects(table)
    labelled = table.prediction != 0
    zeros = float(table.counts[~labelled].sum())
    singles = zeros / table.voxels if mode == "cremi" else zeros
    counts = table.counts.astype(float)
    both = float((counts[labelled] ** 2).sum()) + singles
    predicted = float((_sums(table.prediction[labelled], table.counts[labelled]) ** 2).sum()) + singles
    true = float((_sums(table.truth, table.counts) ** 2).sum())
    precision, recall = both / predicted, both / true
    return AdaptedRand(error=1 - 2 * precision * recall / (precision + recall), precision=precision, recall=recall)


def cremi_score(table: Contingency) -> float:
    """Geometric mean of the adapted Rand error and the variation of information; lower is better.

    Parameters
    ----------
    table : Contingency

    Returns
    -------
    score : float
        ``sqrt(error * (split + merge))``, with the adapted Rand error of mode "cremi".
    """
    error = adapted_rand(table, mode="cremi").error
    return float(np.sqrt(max(error, 0.0) * sum(variation_of_information(table))))


def _needs_objects(table: Contingency) -> None:
    if table.counts.size == 0:
        raise VolumeError("the truth holds no object (every counted voxel is 0); segmentations can't be compared there")
