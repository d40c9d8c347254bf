"""What training minimises: losses of logits against a mask, without the voxels that nobody annotated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from voxloom.errors import ModelError


@dataclass(frozen=True)
class Loss:
    """A loss as sums over voxels, and the value that these sums make.

    So the loss of a volume that is read by tiles is that of the volume at once: the tiles' sums are added first.

    Parameters
    ----------
    sums : callable
        Takes ``(logits, mask, ignore, positive_weight)`` and returns a vector.
    value : callable
        Takes the vector and returns the loss.
    """

    sums: Callable[[Tensor, Tensor, Tensor, float], Tensor]
    value: Callable[[Tensor], Tensor]

    def __call__(self, logits: Tensor, mask: Tensor, ignore: Tensor, *, positive_weight: float) -> Tensor:
        """The loss of a batch.

        Parameters
        ----------
        logits : Tensor, any shape
        mask : Tensor of float or bool, same shape
            Foreground is 1.
        ignore : Tensor of bool, same shape
            Voxels that count for nothing. Where all are, the loss is 0 and so is its gradient.
        positive_weight : float
            Weight of a foreground voxel; a background voxel's is 1.

        Returns
        -------
        loss : Tensor, scalar
        """
        return self.value(self.sums(logits, mask, ignore, positive_weight))


def _cross_entropy_sums(logits: Tensor, mask: Tensor, ignore: Tensor, positive_weight: float) -> Tensor:
    """[weighted cross-entropy, annotated voxels]."""
    logits, target = logits.float(), mask.float()
    weight = logits.new_tensor(positive_weight)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none", pos_weight=weight)
    valid = ~ignore
    return torch.stack([entropy.masked_fill(ignore, 0.0).sum(), valid.sum().to(entropy.dtype)])


def _cross_entropy(sums: Tensor) -> Tensor:
    return sums[0] / sums[1].clamp(min=1)


def _cross_entropy_dice_sums(logits: Tensor, mask: Tensor, ignore: Tensor, positive_weight: float) -> Tensor:
    """[weighted cross-entropy, annotated voxels, sum of p*y, sum of p, sum of y]."""
    probability = torch.sigmoid(logits.float()).masked_fill(ignore, 0.0)
    target = mask.float().masked_fill(ignore, 0.0)
    overlap = torch.stack([(probability * target).sum(), probability.sum(), target.sum()])
    return torch.cat([_cross_entropy_sums(logits, mask, ignore, positive_weight), overlap])


def _cross_entropy_dice(sums: Tensor) -> Tensor:
    # the 1 makes an empty patch that is predicted empty right, and keeps the gradient finite
    dice = (2 * sums[2] + 1) / (sums[3] + sums[4] + 1)
    return _cross_entropy(sums) + 1 - dice


LOSSES: dict[str, Loss] = {
    "bce": Loss(_cross_entropy_sums, _cross_entropy),
    "bce_dice": Loss(_cross_entropy_dice_sums, _cross_entropy_dice),
}
"""bce: binary cross-entropy, mean over the annotated voxels. bce_dice: plus one minus the soft Dice of the batch."""


def named(name: str) -> Loss:
    """The loss of that name.

    Parameters
    ----------
    name : str
        A key of `LOSSES`.

    Returns
    -------
    loss : Loss

    Raises
    ------
    ModelError
        If the name is unknown.
    """
    if name not in LOSSES:
        raise ModelError(f"loss.name must be one of {', '.join(sorted(LOSSES))}, got {name!r}")
    return LOSSES[name]
