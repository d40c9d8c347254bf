"""What a training step minimises: the loss at every scale of a network's outputs, over all processes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

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
    auxiliary_weight: float | None = None,
    group: Group = ALONE,
) -> Tensor:
    """The loss of a batch.

    Parameters
    ----------
    outputs : Tensor or sequence of Tensor, shape (N, 1, [Z,] Y, X)
        Logits; a sequence where coarser levels or branches of the network are supervised too, the network's own first.
    mask : Tensor of float, shape (N, 1, [Z,] Y, X)
    ignore : Tensor of bool, same shape
    loss : Loss
    positive_weight : float
    auxiliary_weight : float, optional
        Of every further output, see `auxiliary_weight`; None is deep supervision's halves.
    group : Group
        The loss is that of the samples of all its processes.

    Returns
    -------
    value : Tensor, scalar
        Of several outputs the first one's loss plus `auxiliary_weight` times each other's [1]_, or, without such a
        weight, the mean with weights 1, 1/2, 1/4 ... [2]_. A coarser voxel has the label of the first voxel that it
        covers. Outputs of weight 0 have a gradient of zeros.

    References
    ----------
    .. [1] Chen, Qi, Cheng, Heng (2016). AAAI, Deep contextual networks for neuronal structure segmentation.
    .. [2] Lee, Xie, Gallagher, Zhang, Tu (2015). AISTATS, Deeply-supervised nets.
    """
    scales = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    values = []
    for logits in scales:
        size = logits.shape[2:]
        labels, unknown = (mask, ignore) if size == mask.shape[2:] else _coarser(mask, ignore, size)
        values.append(loss.value(group.total(loss.sums(logits, labels, unknown, positive_weight))))
    if len(values) == 1:
        return values[0]
    if auxiliary_weight is not None:
        # multiplied, not left out: processes that train together exchange the gradient of every weight
        return values[0] + auxiliary_weight * torch.stack(values[1:]).sum()
    weights = [0.5**level for level in range(len(scales))]
    return torch.stack([value * weight for value, weight in zip(values, weights, strict=True)]).sum() / sum(weights)


def auxiliary_weight(loss: Mapping[str, Any], *, step: int) -> float | None:
    """What every auxiliary classifier's loss is multiplied by in a step.

    Parameters
    ----------
    loss : mapping
        The keys under ``loss`` of a model; ``auxiliary`` is read.
    step : int
        Steps done, of the whole training.

    Returns
    -------
    weight : float or None
        ``start`` times ``factor`` after every ``every_steps``; at the ``floor`` and below it exactly 0. None without
        ``auxiliary``.

    Examples
    --------
    >>> published = {"auxiliary": {"start": 1.0, "factor": 0.1, "every_steps": 10_000, "floor": 0.01}}
    >>> [auxiliary_weight(published, step=step) for step in (0, 9_999, 10_000, 19_999, 20_000)]
    [1.0, 1.0, 0.1, 0.1, 0.0]
    """
    decay = loss.get("auxiliary")
    if decay is None:
        return None
    weight = float(decay["start"] * decay["factor"] ** (step // decay["every_steps"]))
    at_floor = weight < decay["floor"] or math.isclose(weight, decay["floor"], rel_tol=1e-9)  # 0.1 ** 2 is not 0.01
    return 0.0 if at_floor else weight


def _coarser(mask: Tensor, ignore: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Labels at a coarser scale: those of every second, fourth ... voxel."""
    codes = torch.cat([mask, ignore.to(mask.dtype)], dim=1)
    codes = F.interpolate(codes, size=tuple(size), mode="nearest")
    return codes[:, :1], codes[:, 1:] > 0.5
