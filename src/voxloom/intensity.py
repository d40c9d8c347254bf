"""Grey values as a network takes them, and the numbers of a training set that this needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxloom.errors import ModelError, VolumeError

NORMALISATIONS = ("unit", "zscore")


@dataclass(frozen=True)
class Normalisation:
    """How grey values become the numbers that a network takes: (value - offset) / scale.

    Parameters
    ----------
    name : {"unit", "zscore"}
        unit maps the range of an integer type to 0..1; zscore gives the training set zero mean and unit deviation.
    mean, deviation : float
        Of the training set's grey values.
    dtype : str
        Type of the training set's images.
    """

    name: str
    mean: float
    deviation: float
    dtype: str

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
        if self.name == "zscore":
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

    def joined(self, values: NDArray) -> Moments:
        """The moments of what was seen so far and of `values` together.

        Parameters
        ----------
        values : ndarray
            Not empty.

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
                "the image holds values that are not finite (NaN or infinite) inside a training box; "
                "replace them before convert"
            )
        flat -= mean
        count, step = self.count + flat.size, mean - self.mean
        squares = self.squares + float(np.dot(flat, flat)) + step**2 * self.count * flat.size / count
        return Moments(count, self.mean + step * flat.size / count, squares)

    @property
    def deviation(self) -> float:
        """Standard deviation."""
        return float(np.sqrt(self.squares / self.count)) if self.count else 0.0
