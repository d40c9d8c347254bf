"""Grey values as a network takes them, and the numbers of a training set that this needs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxloom.blocks import Readable, grid
from voxloom.errors import ModelError, VolumeError

NORMALISATIONS = ("unit", "zscore", "volume_zscore", "histogram")
OF_VOLUME = ("volume_zscore", "histogram")
TAIL = (0.0001, 0.0003, 0.001, 0.003)
LEVELS = np.unique(np.concatenate(([0, 1], TAIL, np.subtract(1, TAIL), np.arange(1, 100) / 100)))
"""Shares of voxels at whose quantiles histograms are matched; denser at the ends, where sparse structures are."""
MOST_SAMPLES = 2**21
BLOCK = (64, 128, 128)


@dataclass(frozen=True)
class Normalisation:
    """How grey values become the numbers that a network takes: (value - offset) / scale.

    Parameters
    ----------
    name : {"unit", "zscore", "volume_zscore", "histogram"}
        unit maps the range of an integer type to 0..1; zscore gives the training set zero mean and unit deviation.
        volume_zscore does that to each volume by itself; histogram gives each volume the training set's quantiles
        first, and then does as zscore. Both take numbers from a volume that only `of_volume` knows.
    mean, deviation : float
        Of the training set's grey values.
    dtype : str
        Type of the training set's images.
    quantiles : sequence of float
        Of the training set, at `LEVELS`; for histogram.
    volume_quantiles : sequence of float
        Of the volume to normalise, at `LEVELS`; for histogram.
    """

    name: str
    mean: float
    deviation: float
    dtype: str
    quantiles: Sequence[float] = ()
    volume_quantiles: Sequence[float] = ()

    def __post_init__(self) -> None:
        if self.name not in NORMALISATIONS:
            raise ModelError(f"input.normalise must be one of {', '.join(NORMALISATIONS)}, got {self.name!r}")
        if not (np.isfinite(self.deviation) and self.deviation > 0):
            raise ModelError(
                f"the training set's grey values have a deviation of {self.deviation:g}: nothing can be learnt from an "
                "image of one value; look at the volume and at the split's training boxes"
            )
        self.line(np.dtype(self.dtype))

    def line(self, dtype: np.dtype) -> tuple[float, float]:
        """Offset and scale for images of that type.

        Parameters
        ----------
        dtype : dtype

        Returns
        -------
        offset, scale : float

        Raises
        ------
        ModelError
            If "unit" is asked for floating-point images, whose type has no range.
        """
        if self.name != "unit":
            return self.mean, self.deviation
        if dtype.kind not in "iu":
            raise ModelError(
                f"input.normalise: unit takes the range of an integer type, the image is {dtype}; set it to zscore"
            )
        return float(np.iinfo(dtype).min), float(np.iinfo(dtype).max) - float(np.iinfo(dtype).min)

    def apply(self, stored: NDArray) -> NDArray[np.float32]:
        """Numbers for the network.

        Parameters
        ----------
        stored : ndarray of any real type
            Grey values.

        Returns
        -------
        normalised : ndarray of float32

        Raises
        ------
        VolumeError
            If a value is not finite.
        """
        assert not self.needs_volume, "of_volume comes first"
        if self.name == "histogram":
            stored = self._matched(stored)
        offset, scale = self.line(stored.dtype)
        exact: NDArray[Any] = stored.astype(np.float32 if stored.dtype.itemsize <= 2 else np.float64)
        exact -= offset  # 16 bits fit a float32; more don't
        exact *= 1 / scale
        normalised = exact.astype(np.float32, copy=False)
        if stored.dtype.kind == "f" and not np.isfinite(normalised).all():
            raise VolumeError(
                "the image holds values that are not finite (NaN or infinite), which no network can take; "
                "replace them before convert"
            )
        return normalised

    @property
    def needs_volume(self) -> bool:
        """Whether a volume's own grey values are needed first; see `of_volume`."""
        return self.name in OF_VOLUME and not self.volume_quantiles

    def of_volume(self, grey: GreyValues) -> Normalisation:
        """This normalisation for the volume with these grey values.

        Parameters
        ----------
        grey : GreyValues
            No label goes into them.

        Returns
        -------
        normalisation : Normalisation
            Itself where a volume's own numbers change nothing.

        Raises
        ------
        VolumeError
            If the volume has one value only, for volume_zscore.
        """
        if self.name == "volume_zscore":
            if grey.moments.deviation == 0:
                raise VolumeError(
                    f"every grey value of the volume is {grey.moments.mean:g}: input.normalise: volume_zscore can't do "
                    "with one value; look at the volume"
                )
            return Normalisation("zscore", grey.moments.mean, grey.moments.deviation, self.dtype)
        return replace(self, volume_quantiles=grey.quantiles()) if self.name == "histogram" else self

    def settings(self) -> dict[str, Any]:
        """As a model keeps it; quantiles only where there are some."""
        return {key: list(v) if key.endswith("quantiles") else v for key, v in asdict(self).items() if v != ()}

    def _matched(self, stored: NDArray) -> NDArray:
        """Grey values with the training set's quantiles: monotone, linear between two of them."""
        if stored.dtype.kind in "iu" and stored.dtype.itemsize <= 2:
            table = _table(stored.dtype.str, tuple(self.volume_quantiles), tuple(self.quantiles))
            return table[stored.astype(np.intp) - np.iinfo(stored.dtype).min]
        matched = np.interp(stored, *_knots(self.volume_quantiles, self.quantiles))
        return np.where(np.isfinite(stored), matched, np.nan)

    @property
    def unit_deviation(self) -> float:
        """Standard deviation of the training set in the network's numbers."""
        return self.deviation / self.line(np.dtype(self.dtype))[1]


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared differences from it, of values that are seen in parts.

    Parameters
    ----------
    count : int
    mean : float
    squares : float

    References
    ----------
    .. [1] Chan, Golub, LeVeque (1983). The American Statistician 37(3).
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def joined(self, values: NDArray, *, place: str = "inside a training box") -> Moments:
        """The moments of what was seen so far and of `values` together.

        Parameters
        ----------
        values : ndarray
            Not empty.
        place : str
            Where they are from, for the message.

        Returns
        -------
        moments : Moments

        Raises
        ------
        VolumeError
            If a value is not finite.
        """
        flat = values.astype(np.float64).reshape(-1)
        mean = float(flat.mean())
        if not np.isfinite(mean):
            raise VolumeError(
                f"the image holds values that are not finite (NaN or infinite) {place}; replace them before convert"
            )
        flat -= mean
        count, step = self.count + flat.size, mean - self.mean
        squares = self.squares + float(np.dot(flat, flat)) + step**2 * self.count * flat.size / count
        return Moments(count, self.mean + step * flat.size / count, squares)

    @property
    def deviation(self) -> float:
        """Standard deviation."""
        return float(np.sqrt(self.squares / self.count)) if self.count else 0.0


@dataclass(frozen=True)
class GreyValues:
    """What is known of a volume's grey values, that are seen in parts.

    Parameters
    ----------
    moments : Moments
    samples : tuple of ndarray
        Every so many-th voxel.
    """

    moments: Moments = field(default_factory=Moments)
    samples: tuple[NDArray, ...] = ()

    def joined(self, values: NDArray, *, every: int, place: str = "inside a training box") -> GreyValues:
        """What was seen so far and `values` together.

        Parameters
        ----------
        values : ndarray
            Not empty.
        every : int
            Distance of the voxels that are kept; see `distance_of_samples`.
        place : str
            See `Moments.joined`.

        Returns
        -------
        grey : GreyValues
        """
        kept = values.reshape(-1)[::every].copy()
        return GreyValues(self.moments.joined(values, place=place), (*self.samples, kept))

    def quantiles(self) -> tuple[float, ...]:
        """Grey values at `LEVELS`, each one that a voxel has: a monotone change of the image changes them alike."""
        ordered = np.sort(np.concatenate(self.samples))
        places = np.maximum(np.ceil(LEVELS * len(ordered)).astype(np.intp) - 1, 0)
        return tuple(float(value) for value in ordered[places])


def distance_of_samples(voxels: int) -> int:
    """Every how many-th voxel to keep for quantiles, so that `MOST_SAMPLES` or about as many are kept."""
    return max(1, math.ceil(voxels / MOST_SAMPLES))


def grey_values(image: Readable) -> GreyValues:
    """Look at a whole volume, block by block, in bounded memory.

    Parameters
    ----------
    image : array-like, shape (Z, Y, X)
        An array or a stored volume.

    Returns
    -------
    grey : GreyValues
        The same for every way to read or predict the volume.
    """
    every = distance_of_samples(math.prod(image.shape))
    grey = GreyValues()
    for block in grid(image.shape, BLOCK):
        grey = grey.joined(image[block.core], every=every, place="somewhere")
    return grey


def for_volume(settings: Mapping[str, Any], image: Readable) -> Mapping[str, Any]:
    """A model's settings for one volume: what its normalisation needs of the volume's grey values is looked up.

    Parameters
    ----------
    settings : mapping
        A model's, with its ``normalisation``.
    image : array-like, shape (Z, Y, X)
        The whole volume that is to be predicted.

    Returns
    -------
    settings : mapping
        Themselves where nothing is needed, as in settings that were made for a volume already.
    """
    normalisation = Normalisation(**settings["normalisation"])
    if not normalisation.needs_volume:
        return settings
    return {**settings, "normalisation": normalisation.of_volume(grey_values(image)).settings()}


def _knots(volume: Sequence[float], training: Sequence[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distinct quantiles of a volume, and what becomes of each: the mean, where several levels share it."""
    places, number, count = np.unique(volume, return_inverse=True, return_counts=True)
    return places, np.bincount(number, weights=training) / count


@lru_cache(maxsize=16)
def _table(dtype: str, volume: tuple[float, ...], training: tuple[float, ...]) -> NDArray[np.float64]:
    """What becomes of every value of an integer type, from its smallest on."""
    limits = np.iinfo(np.dtype(dtype))
    return np.interp(np.arange(limits.min, limits.max + 1), *_knots(volume, training))
