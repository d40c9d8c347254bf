"""Where a volume holds something: squares of its slices that aren't all darker, or all brighter, than a grey value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

EDGE = 64
"""Of a square in voxels; blocks begin at its multiples."""


@dataclass
class Occupancy:
    """Looks which squares of a volume hold something, and counts them.

    Parameters
    ----------
    empty_below, empty_above : float or None
        A square is empty whose every value is below the one, or above the other. Where neither is given, none is.

    Attributes
    ----------
    squares, empty : int
        That were looked at, and that hold nothing.

    Examples
    --------
    >>> Occupancy(empty_below=5, empty_above=None).squares_of(np.array([[[3, 9]], [[3, 4]]])).tolist()
    [[[True]], [[False]]]
    """

    empty_below: float | None
    empty_above: float | None
    squares: int = 0
    empty: int = 0

    def squares_of(self, values: NDArray) -> NDArray[np.bool_] | None:
        """Which squares hold something.

        Parameters
        ----------
        values : ndarray, shape (Z, Y, X)
            Grey values, from a multiple of `EDGE` voxels on.

        Returns
        -------
        occupied : ndarray of bool, shape (Z, Y / EDGE, X / EDGE), rounded up, or None
            None where no grey value was given: everything counts as occupied.
        """
        if self.empty_below is None and self.empty_above is None:
            return None
        occupied = np.ones((len(values), *(-(-size // EDGE) for size in values.shape[1:])), dtype=bool)
        for plane, answer in zip(values, occupied, strict=True):
            # so that what is not a number counts as something, which the network then refuses
            if self.empty_below is not None:
                answer &= ~(_extremes(plane, np.maximum) < self.empty_below)
            if self.empty_above is not None:
                answer &= ~(_extremes(plane, np.minimum) > self.empty_above)
        self.squares += occupied.size
        self.empty += occupied.size - int(np.count_nonzero(occupied))
        return occupied


def _extremes(plane: NDArray, ufunc: np.ufunc) -> NDArray:
    """Maximum or minimum of each square of a slice."""
    rows, columns = (np.arange(0, size, EDGE) for size in plane.shape)
    return ufunc.reduceat(ufunc.reduceat(plane, rows, axis=0), columns, axis=1)


def is_occupied(occupied: NDArray[np.bool_] | None, ranges: Sequence[tuple[int, int]]) -> bool:
    """Whether a box touches a square that holds something.

    Parameters
    ----------
    occupied : ndarray of bool or None
        As `Occupancy.squares_of` returns it.
    ranges : sequence of tuple of int
        The box's first voxel and the one after the last along (Z, Y, X), from the first voxel of the squares on.

    Returns
    -------
    answer : bool
    """
    if occupied is None:
        return True
    (z, z_to), *plane = ranges
    return bool(occupied[(slice(z, z_to), *(slice(low // EDGE, -(-high // EDGE)) for low, high in plane))].any())


def clear_empty(occupied: NDArray[np.bool_] | None, result: NDArray) -> None:
    """Set what lies in empty squares to zero.

    Parameters
    ----------
    occupied : ndarray of bool or None
        As `Occupancy.squares_of` returns it.
    result : ndarray, shape (Z, Y, X)
        Modified.
    """
    if occupied is None:
        return
    for z, row, column in np.argwhere(~occupied):
        result[z, row * EDGE : (row + 1) * EDGE, column * EDGE : (column + 1) * EDGE] = 0
