"""Centre lines of probabilities as a differentiable function."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from voxloom.errors import ModelError


def soft_skeleton(probability: Tensor, *, iterations: int) -> Tensor:
    """Skeleton of probabilities, by erosions and openings that a gradient passes through.

    Parameters
    ----------
    probability : Tensor, shape (N, C, [Z,] Y, X)
        From 0 to 1; each channel of each sample by itself.
    iterations : int
        Erosions; at least half the width of the thickest structure in voxels, or its middle is lost.

    Returns
    -------
    skeleton : Tensor, same shape
        From 0 to 1, high on centre lines.

    Raises
    ------
    ModelError
        If the tensor has no axes for sample and channel.

    Notes
    -----
    After Shit et al. [1]_. Voxels outside the tensor are left out of every minimum and maximum. Made of pairwise minima
    and maxima of shifted tensors, whose gradient, other than that of pooling, is deterministic on every device; equal
    neighbours share it.

    References
    ----------
    .. [1] Shit, Paetzold, Sekuboyina, et al. (2021). CVPR, clDice.

    Examples
    --------
    >>> bar = torch.zeros(1, 1, 5, 7)
    >>> bar[..., 1:4, :] = 1.0
    >>> soft_skeleton(bar, iterations=2)[0, 0].int().tolist()[2]
    [1, 1, 1, 1, 1, 1, 1]
    """
    if probability.ndim not in (4, 5):
        raise ModelError(f"centre lines are of tensors (N, C, [Z,] Y, X), got shape {tuple(probability.shape)}")
    skeleton = F.relu(probability - _open(probability))
    for _ in range(iterations):
        probability = _erode(probability)
        more = F.relu(probability - _open(probability))
        skeleton = skeleton + F.relu(more - skeleton * more)
    return skeleton


def _open(x: Tensor) -> Tensor:
    x = _erode(x)
    for axis in range(2, x.ndim):  # the maximum over a cube is the maximum of maxima along lines
        x = _over_neighbours(x, axis, torch.maximum)
    return x


def _erode(x: Tensor) -> Tensor:
    """Minimum over each voxel and the neighbours that share a face with it."""
    eroded = _over_neighbours(x, 2, torch.minimum)
    for axis in range(3, x.ndim):
        eroded = torch.minimum(eroded, _over_neighbours(x, axis, torch.minimum))
    return eroded


def _over_neighbours(x: Tensor, axis: int, choose: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Extreme of each voxel and the ones before and after it along an axis."""
    size = x.shape[axis]
    if size == 1:
        return x
    pairs = choose(x.narrow(axis, 0, size - 1), x.narrow(axis, 1, size - 1))
    inner = choose(pairs.narrow(axis, 0, size - 2), pairs.narrow(axis, 1, size - 2))
    return torch.cat([pairs.narrow(axis, 0, 1), inner, pairs.narrow(axis, size - 2, 1)], dim=axis)
