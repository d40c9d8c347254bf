"""What an array of voxels means: where it lies, how large its voxels are, how its numbers are stored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voxloom.errors import VolumeError

IGNORE = 255
"""Stored value of a voxel that nobody annotated; 0 is background and 1 foreground."""

Vector = tuple[float, float, float]
IDENTITY: tuple[Vector, Vector, Vector] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


@dataclass(frozen=True)
class Geometry:
    """Where an array of voxels lies in the world.

    Parameters
    ----------
    spacing_um : tuple of float
        Voxel edge lengths along the array's axes (Z, Y, X), in micrometres. Positive.
    origin_um : tuple of float
        World position (Z, Y, X) of the centre of the first voxel, in micrometres.
    directions : tuple of tuple of float
        Three unit vectors, the world directions (Z, Y, X) of the array's axes Z, Y and X.
    space : str or None
        Name of the world's axes as NRRD calls it ("left-posterior-superior"), or None where nobody said.
    """

    spacing_um: Vector
    origin_um: Vector = (0.0, 0.0, 0.0)
    directions: tuple[Vector, Vector, Vector] = IDENTITY
    space: str | None = None

    def __post_init__(self) -> None:
        spacing = np.asarray(self.spacing_um, dtype=float)
        if spacing.shape != (3,) or not np.all(np.isfinite(spacing)) or np.any(spacing <= 0):
            raise VolumeError(
                f"spacing_um must be three positive numbers (Z, Y, X) in micrometres, got {self.spacing_um}"
            )


@dataclass(frozen=True)
class Quantisation:
    """How stored integers stand for real values: value = stored * scale + offset.

    Parameters
    ----------
    scale : float
        Value of one step. Positive.
    offset : float
        Value of a stored 0.
    unit : str
        Unit of the value, "micrometer" or "" for a probability.
    """

    scale: float
    offset: float = 0.0
    unit: str = ""

    def decode(self, stored: NDArray[np.integer]) -> NDArray[np.float32]:
        """Return the values that `stored` stands for, as float32."""
        return stored.astype(np.float32) * np.float32(self.scale) + np.float32(self.offset)


PROBABILITY = Quantisation(scale=1 / 255)
"""How a uint8 prediction stands for a probability."""


def join_annotation(mask: NDArray[np.bool_], ignore: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Stored codes of an annotation: 0 background, 1 foreground, 255 not annotated.

    Parameters
    ----------
    mask, ignore : ndarray of bool, same shape
        Foreground, and where nobody annotated; `ignore` wins.

    Returns
    -------
    codes : ndarray of uint8
    """
    return np.where(ignore, np.uint8(IGNORE), mask.astype(np.uint8))


def split_annotation(codes: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The inverse of `join_annotation`.

    Parameters
    ----------
    codes : ndarray of uint8
        0 background, 1 foreground, 255 not annotated.

    Returns
    -------
    mask, ignore : ndarray of bool
    """
    return codes == 1, codes == IGNORE
