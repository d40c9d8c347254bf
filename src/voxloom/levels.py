"""Grey levels of a volume: its histogram, percentiles and Otsu's threshold, from values that come block by block."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxloom.errors import VolumeError
from voxloom.kernels import compiled

FLOAT_BINS = 65536
"""Bins between the smallest and the largest value where values are not integers of at most 16 bits."""


@dataclass(frozen=True)
class Bins:
    """The grey values that a histogram counts.

    Parameters
    ----------
    first : float
        Value of the first bin.
    width : float
        From one bin's value to the next.
    count : int
        Number of bins; a value v is in bin ``(v - first) / width``, rounded down and not beyond the last.
    """

    first: float
    width: float
    count: int

    def value(self, index: int) -> float:
        """Smallest value of a bin."""
        return self.first + self.width * index


def grey_range(values: NDArray[Any]) -> tuple[float, float]:
    """Smallest and largest value.

    Parameters
    ----------
    values : ndarray
        Grey values.

    Returns
    -------
    smallest, largest : float

    Raises
    ------
    VolumeError
        If a value is not a finite number.
    """
    smallest, largest = float(values.min()), float(values.max())
    if not (np.isfinite(smallest) and np.isfinite(largest)):
        raise VolumeError(
            "the image holds values that are not finite numbers, so it has no percentiles and no Otsu threshold; "
            "give the threshold as a number"
        )
    return smallest, largest


def bins_of(dtype: np.dtype[Any]) -> Bins | None:
    """One bin a value for integers of at most 16 bits; None for other types, whose range has to be found first."""
    if dtype.kind in "iu" and dtype.itemsize <= 2:
        limits = np.iinfo(dtype)
        return Bins(float(limits.min), 1.0, int(limits.max) - int(limits.min) + 1)
    return None


def bins_between(smallest: float, largest: float, *, is_integer: bool) -> Bins:
    """Bins for values of a known range: one a value where integers allow it, else `FLOAT_BINS` of equal width."""
    if is_integer and largest - smallest < FLOAT_BINS:
        return Bins(smallest, 1.0, int(largest - smallest) + 1)
    return Bins(smallest, max((largest - smallest) / FLOAT_BINS, np.finfo(np.float64).tiny), FLOAT_BINS)


def count_values(values: NDArray[Any], bins: Bins) -> NDArray[np.int64]:
    """How many values each bin holds.

    Parameters
    ----------
    values : ndarray
        Grey values, all inside the bins.
    bins : Bins

    Returns
    -------
    counts : ndarray of int64, shape (bins.count,)
        Of several blocks they add up.
    """
    flat = np.ascontiguousarray(values).reshape(-1)
    if bins.width == 1 and values.dtype.kind in "iu":
        copies = np.zeros((4, bins.count), np.int64)
        _count_integers(flat, int(bins.first), copies)
        return copies.sum(axis=0)
    counts = np.zeros(bins.count, np.int64)
    _count(flat, bins.first, bins.width, counts)
    return counts


def percentile(counts: NDArray[np.int64], bins: Bins, percent: Fraction) -> float:
    """The smallest value that at least this share of all values does not exceed (the nearest rank).

    Parameters
    ----------
    counts : ndarray of int64, shape (bins.count,)
        From `count_values`.
    bins : Bins
    percent : Fraction
        0 to 100; exact, so that 97.5 of 200 values is rank 195 on every machine.

    Returns
    -------
    value : float
        A value that occurs, where bins are single values; else the lower edge of its bin, at most one width below.

    Examples
    --------
    >>> percentile(np.array([5, 3, 2]), Bins(10.0, 1.0, 3), Fraction(80))
    11.0
    """
    rank = max(1, -(-int(counts.sum()) * percent // 100))
    return bins.value(int(np.searchsorted(np.cumsum(counts), rank)))


def otsu(counts: NDArray[np.int64], bins: Bins) -> float:
    """Otsu's threshold: the smallest value of the upper class, of the two classes that differ most [1]_.

    Parameters
    ----------
    counts : ndarray of int64, shape (bins.count,)
        From `count_values`.
    bins : Bins

    Returns
    -------
    value : float
        ``image >= value`` is the upper class. The first of several equally good splits.

    Raises
    ------
    VolumeError
        If all values are in one bin.

    References
    ----------
    .. [1] Otsu (1979). IEEE Transactions on Systems, Man and Cybernetics 9(1).

    Examples
    --------
    >>> otsu(np.array([5, 3, 0, 0, 2]), Bins(10.0, 1.0, 5))
    14.0
    """
    occupied = np.flatnonzero(counts)
    if occupied.size < 2:
        raise VolumeError(
            f"Otsu's threshold needs two different grey values, the image has only {bins.value(int(occupied[0])):g}; "
            "give the threshold as a number"
        )
    weights = counts[occupied].astype(np.float64)
    lower = np.cumsum(weights)[:-1]
    upper = weights.sum() - lower
    moment = np.cumsum(weights * occupied)
    difference = moment[:-1] / lower - (moment[-1] - moment[:-1]) / upper
    return bins.value(int(occupied[np.argmax(lower * upper * difference**2) + 1]))


def resolve(level: float | str, counts: NDArray[np.int64], bins: Bins) -> float:
    """The grey value that a level of a recipe stands for.

    Parameters
    ----------
    level : float or str
        A number, "otsu", or a percentile such as "p97.5".
    counts : ndarray of int64
    bins : Bins

    Returns
    -------
    value : float
    """
    if not isinstance(level, str):
        return float(level)
    if level == "otsu":
        return otsu(counts, bins)
    return percentile(counts, bins, Fraction(level[1:]))


@compiled
def _count(values, first, width, counts):  # type: ignore[no-untyped-def]
    last = counts.size - 1
    for value in values:
        counts[min(int((value - first) / width), last)] += 1


@compiled
def _count_integers(values, first, counts):  # type: ignore[no-untyped-def]
    # four copies of the counts: consecutive voxels of the same value don't wait for one another
    for i in range(values.size):
        counts[i & 3, values[i] - first] += 1
