"""What a training step minimises: the loss at every scale of a network's outputs, over all processes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from voxloom.losses import Loss
from voxloom.process_group import ALONE, Group


def objective(
    outputs: Tensor | Sequence[Tensor],
    mask: Tensor,
    ignore: Tensor,
    *,
    loss: Loss,
    positive_weight: float,
    group: Group = ALONE,
) -> Tensor:
    """The loss of a batch.

    Parameters
    ----------
    outputs : Tensor or sequence of Tensor, shape (N, 1, [Z,] Y, X)
        Logits; a sequence where coarser levels of the network are supervised too, the finest first.
    mask : Tensor of float, shape (N, 1, [Z,] Y, X)
    ignore : Tensor of bool, same shape
    loss : Loss
    positive_weight : float
    group : Group
        The loss is that of the samples of all its processes.

    Returns
    -------
    value : Tensor, scalar
        Of several scales the mean with weights 1, 1/2, 1/4 ...; a coarser voxel has the label of the first voxel that
        it covers.

    References
    ----------
    .. [1] Lee, Xie, Gallagher, Zhang, Tu (2015). AISTATS, Deeply-supervised nets.
    """
    scales = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    weights = [0.5**level for level in range(len(scales))]
    values = []
    for logits in scales:
        size = logits.shape[2:]
        labels, unknown = (mask, ignore) if size == mask.shape[2:] else _coarser(mask, ignore, size)
        values.append(loss.value(group.total(loss.sums(logits, labels, unknown, positive_weight))))
    if len(values) == 1:
        return values[0]
    return torch.stack([value * weight for value, weight in zip(values, weights, strict=True)]).sum() / sum(weights)


def _coarser(mask: Tensor, ignore: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Labels at a coarser scale: those of every second, fourth ... voxel."""
    codes = torch.cat([mask, ignore.to(mask.dtype)], dim=1)
    codes = F.interpolate(codes, size=tuple(size), mode="nearest")
    return codes[:, :1], codes[:, 1:] > 0.5
