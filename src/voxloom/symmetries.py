"""Mirror images and quarter turns of tiles, over which a prediction may be averaged."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Transform:
    """A symmetry of the voxel grid: the slices' axes Y and X swapped or not, and then axes mirrored.

    Parameters
    ----------
    is_turned : bool
    mirrored : tuple of int
        Axes of the tensor.
    """

    is_turned: bool
    mirrored: tuple[int, ...]

    def apply(self, batch: Tensor) -> Tensor:
        """The transformed batch, shape (N, C, [Z,] Y, X) or (N, C, [Z,] X, Y)."""
        turned = batch.transpose(-2, -1) if self.is_turned else batch
        return turned.flip(self.mirrored) if self.mirrored else turned

    def undo(self, batch: Tensor) -> Tensor:
        """The batch that `apply` made this one of."""
        back = batch.flip(self.mirrored) if self.mirrored else batch
        return back.transpose(-2, -1) if self.is_turned else back


def tile_symmetries(dimensions: int, *, has_flips: bool, has_rotations: bool) -> tuple[Transform, ...]:
    """The transforms over which a prediction is averaged, each once, the identity first.

    Parameters
    ----------
    dimensions : {2, 3}
    has_flips : bool
        Mirrors along every axis: 4 transforms in 2-D, 8 in 3-D.
    has_rotations : bool
        Quarter turns in the plane of Y and X: 4 transforms, with flips 8 in 2-D and 16 in 3-D.

    Returns
    -------
    transforms : tuple of Transform

    Examples
    --------
    >>> tile_symmetries(2, has_flips=False, has_rotations=True)[1:3]
    (Transform(is_turned=False, mirrored=(2, 3)), Transform(is_turned=True, mirrored=(2,)))
    """
    axes = range(2, 2 + dimensions)
    plane = {dimensions, dimensions + 1}
    mirrors = [mirror for count in range(dimensions + 1) for mirror in itertools.combinations(axes, count)]
    every = [Transform(turned, mirror) for turned in (False, True) for mirror in mirrors]

    def is_rotation(transform: Transform) -> bool:
        # swapping two axes is a mirror image; a second mirror makes it a quarter turn
        return plane.issuperset(transform.mirrored) and len(transform.mirrored) % 2 == transform.is_turned

    if has_flips:
        return tuple(transform for transform in every if has_rotations or not transform.is_turned)
    return tuple(filter(is_rotation, every)) if has_rotations else (every[0],)
