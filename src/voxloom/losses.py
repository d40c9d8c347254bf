"""What training minimises: losses of a network's output against a target, without the voxels that nobody annotated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from voxloom.errors import ModelError
from voxloom.soft_skeleton import soft_skeleton

Weight = float | Sequence[float]

TARGETS = {
    "mask": "a mask (foreground or not), one channel",
    "classes": "classes (whole numbers from 0), one channel a class",
    "numbers": "real numbers (such as distances), one channel",
}


@dataclass(frozen=True)
class Loss:
    """A loss as sums over voxels, and the value that these sums make.

    So the loss of a volume that is read by tiles is that of the volume at once: the tiles' sums are added first.

    Parameters
    ----------
    sums : callable
        Takes ``(logits, target, ignore, positive_weight)`` and returns a vector.
    value : callable
        Takes the vector and returns the loss.
    length : int
        Of the vector.
    learns : {"mask", "classes", "numbers"}
        Kind of target; see `TARGETS`.
    """

    sums: Callable[[Tensor, Tensor, Tensor, Weight], Tensor]
    value: Callable[[Tensor], Tensor]
    length: int
    learns: str = "mask"

    def __call__(self, logits: Tensor, target: Tensor, ignore: Tensor, *, positive_weight: Weight) -> Tensor:
        """The loss of a batch.

        Parameters
        ----------
        logits : Tensor, shape (N, C, [Z,] Y, X)
            Of any floating type; sums are of float32 at least. Where `learns` is "classes" one channel a class, else
            one channel. Losses of "numbers" take the network's output as it is.
        target : Tensor, shape (N, 1, [Z,] Y, X)
            Foreground is 1; or the class's number; or the real number.
        ignore : Tensor of bool, shape of the target
            Voxels that count for nothing. Where all are, the loss is 0 and so is its gradient.
        positive_weight : float or sequence of float
            Weight of a foreground voxel in a cross-entropy; a background voxel's is 1. For classes also one weight a
            class; a single number weighs every class but 0. Other losses don't use it.

        Returns
        -------
        loss : Tensor, scalar

        Raises
        ------
        ModelError
            If shapes don't fit this loss.
        """
        channels = logits.shape[1] if logits.ndim > 1 else 1
        if logits.shape[2:] != target.shape[2:] or (channels > 1) != (self.learns == "classes"):
            raise ModelError(
                f"the loss learns {TARGETS[self.learns]}; got an output of shape {tuple(logits.shape)} and a target of "
                f"shape {tuple(target.shape)}; choose another loss, or another number of channels"
            )
        return self.value(self.sums(logits, target, ignore, positive_weight))


def _wide(x: Tensor) -> Tensor:
    """At least float32: sums over a patch don't fit 8 bits of mantissa."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _mean_sums(errors: Tensor, ignore: Tensor) -> Tensor:
    """[sum of the errors, annotated voxels]."""
    return torch.stack([errors.masked_fill(ignore, 0.0).sum(), (~ignore).sum().to(errors.dtype)])


def _mean(sums: Tensor) -> Tensor:
    return sums[0] / sums[1].clamp(min=1)


def _entropy(logits: Tensor, mask: Tensor, positive_weight: Weight) -> Tensor:
    """Weighted cross-entropy of every voxel."""
    if not isinstance(positive_weight, (int, float)):
        raise ModelError(f"a mask has one loss.positive_weight, got {list(positive_weight)}; give one number")
    weight = logits.new_tensor(positive_weight)
    return F.binary_cross_entropy_with_logits(logits, mask.to(logits.dtype), reduction="none", pos_weight=weight)


def bce(**_: Any) -> Loss:
    """Binary cross-entropy, mean over the annotated voxels."""

    def sums(logits: Tensor, mask: Tensor, ignore: Tensor, positive_weight: Weight) -> Tensor:
        return _mean_sums(_entropy(_wide(logits), mask, positive_weight), ignore)

    return Loss(sums, _mean, length=2)


def focal(*, focal_gamma: float, **_: Any) -> Loss:
    """Cross-entropy times (1 - p of the true class) to the power of `focal_gamma`: easy voxels count less [1]_.

    Parameters
    ----------
    focal_gamma : float
        0 is `bce`.
    **_
        Other losses' options.

    Returns
    -------
    loss : Loss

    References
    ----------
    .. [1] Lin, Goyal, Girshick, He, Dollár (2017). ICCV, focal loss.
    """

    def sums(logits: Tensor, mask: Tensor, ignore: Tensor, positive_weight: Weight) -> Tensor:
        logits = _wide(logits)
        towards_truth = torch.where(mask > 0, logits, -logits)
        # as an exponential its gradient stays finite where the probability underflows
        hardness = torch.exp(focal_gamma * F.logsigmoid(-towards_truth))
        return _mean_sums(hardness * _entropy(logits, mask, positive_weight), ignore)

    return Loss(sums, _mean, length=2)


def tversky(*, tversky_miss_weight: float, **_: Any) -> Loss:
    """One minus the soft Tversky index of the batch: overlap that weighs misses and false alarms differently [1]_.

    Parameters
    ----------
    tversky_miss_weight : float
        Weight of a missed voxel, from 0 to 1; a false alarm weighs the rest. 0.5 is the Dice index.
    **_
        Other losses' options.

    Returns
    -------
    loss : Loss

    References
    ----------
    .. [1] Salehi, Erdogmus, Gholipour (2017). MLMI, Tversky loss.
    """

    def value(sums: Tensor) -> Tensor:
        overlap, missed, false = sums[0], sums[2] - sums[0], sums[1] - sums[0]
        errors = tversky_miss_weight * missed + (1 - tversky_miss_weight) * false
        # the 1 makes an empty patch that is predicted empty right, and keeps the gradient finite
        return 1 - (2 * overlap + 1) / (2 * overlap + 2 * errors + 1)

    return Loss(_overlap_sums, value, length=3)


def dice(**_: Any) -> Loss:
    """One minus the soft Dice index of the batch; blind to how much background there is."""
    return tversky(tversky_miss_weight=0.5)


def _annotated(logits: Tensor, mask: Tensor, ignore: Tensor) -> tuple[Tensor, Tensor]:
    """Probability and truth, both 0 where nobody annotated."""
    probability = torch.sigmoid(_wide(logits)).masked_fill(ignore, 0.0)
    return probability, mask.to(probability.dtype).masked_fill(ignore, 0.0)


def _overlap_sums(logits: Tensor, mask: Tensor, ignore: Tensor, _: Weight) -> Tensor:
    """[sum of p*y, sum of p, sum of y]."""
    probability, truth = _annotated(logits, mask, ignore)
    return torch.stack([(probability * truth).sum(), probability.sum(), truth.sum()])


def cldice(*, cldice_iterations: int, **_: Any) -> Loss:
    """One minus the soft clDice of the batch: how much of each centre line lies in the other mask [1]_.

    Parameters
    ----------
    cldice_iterations : int
        See `voxloom.soft_skeleton.soft_skeleton`.
    **_
        Other losses' options.

    Returns
    -------
    loss : Loss

    Notes
    -----
    What nobody annotated is background in both masks. Sums of tiles add up, but a centre line ends at a tile's face: of
    a volume by tiles the loss is that of its tiles, not that of the volume at once. It doesn't care how thick a
    structure is; join it with dice or bce.

    References
    ----------
    .. [1] Shit, Paetzold, Sekuboyina, et al. (2021). CVPR, clDice.
    """

    def sums(logits: Tensor, mask: Tensor, ignore: Tensor, _: Weight) -> Tensor:
        probability, truth = _annotated(logits, mask, ignore)
        line = soft_skeleton(probability, iterations=cldice_iterations)
        true_line = soft_skeleton(truth, iterations=cldice_iterations)
        products = ((line * truth).sum(), line.sum(), (true_line * probability).sum(), true_line.sum())
        return torch.stack(products)

    def value(sums: Tensor) -> Tensor:
        precision, sensitivity = (sums[0] + 1) / (sums[1] + 1), (sums[2] + 1) / (sums[3] + 1)
        return 1 - 2 * precision * sensitivity / (precision + sensitivity)

    return Loss(sums, value, length=4)


def ce(**_: Any) -> Loss:
    """Cross-entropy over classes, weighted, mean over the annotated voxels; NaN where a class has no channel."""

    def sums(logits: Tensor, classes: Tensor, ignore: Tensor, positive_weight: Weight) -> Tensor:
        logits = _wide(logits)
        is_class = _one_hot(classes, ignore, channels=logits.shape[1])
        weights = _class_weights(positive_weight, channels=logits.shape[1])
        per_class = logits.new_tensor(weights).reshape(1, -1, *[1] * (logits.ndim - 2)) * F.log_softmax(logits, dim=1)
        # a sum of products and not nll_loss, which is not deterministic on a GPU
        entropy = -torch.where(is_class, per_class, 0.0).sum(dim=1, keepdim=True)
        known = is_class.any(dim=1, keepdim=True) | ignore
        return _mean_sums(entropy.masked_fill(~known, float("nan")), ignore)

    return Loss(sums, _mean, length=2, learns="classes")


def class_dice(*, classes: int, **_: Any) -> Loss:
    """One minus the soft Dice index of the batch, mean over all classes but 0.

    Parameters
    ----------
    classes : int
        The network's channels.
    **_
        Other losses' options.

    Returns
    -------
    loss : Loss
    """

    def sums(logits: Tensor, target: Tensor, ignore: Tensor, _: Weight) -> Tensor:
        probability = torch.softmax(_wide(logits), dim=1).masked_fill(ignore, 0.0)
        truth = _one_hot(target, ignore, channels=logits.shape[1]).to(probability.dtype)
        over = [axis for axis in range(logits.ndim) if axis != 1]
        return torch.cat([(x.sum(dim=over))[1:] for x in (probability * truth, probability, truth)])

    def value(sums: Tensor) -> Tensor:
        overlap, predicted, true = sums.reshape(3, -1)
        return (1 - (2 * overlap + 1) / (predicted + true + 1)).mean()

    return Loss(sums, value, length=3 * (classes - 1), learns="classes")


def _one_hot(classes: Tensor, ignore: Tensor, *, channels: int) -> Tensor:
    """Whether each annotated voxel is of each class, one channel a class."""
    numbers = torch.arange(channels, device=classes.device).reshape(1, -1, *[1] * (classes.ndim - 2))
    return (classes == numbers) & ~ignore


def _class_weights(positive_weight: Weight, *, channels: int) -> list[float]:
    if isinstance(positive_weight, (int, float)):
        return [1.0] + [float(positive_weight)] * (channels - 1)
    if len(positive_weight) != channels:
        raise ModelError(
            f"loss.positive_weight has {len(positive_weight)} weights for {channels} classes; give one each, "
            "background first"
        )
    return list(positive_weight)


def _regression(error: Callable[[Tensor, Tensor], Tensor]) -> Loss:
    """A loss of numbers, mean over the annotated voxels."""

    def sums(output: Tensor, target: Tensor, ignore: Tensor, _: Weight) -> Tensor:
        output = _wide(output)
        # a number that nobody annotated may be anything, NaN included
        return _mean_sums(error(output, target.to(output.dtype).masked_fill(ignore, 0.0)), ignore)

    return Loss(sums, _mean, length=2, learns="numbers")


def mse(**_: Any) -> Loss:
    """Mean squared error."""
    return _regression(lambda output, target: (output - target) ** 2)


def l1(**_: Any) -> Loss:
    """Mean absolute error."""
    return _regression(lambda output, target: (output - target).abs())


def huber(*, huber_delta: float, **_: Any) -> Loss:
    """Half the squared error up to `huber_delta`, beyond it linear, so that outliers pull less."""
    return _regression(lambda output, target: F.huber_loss(output, target, reduction="none", delta=huber_delta))


def weighted_sum(terms: Sequence[tuple[float, Loss]]) -> Loss:
    """Several losses as one.

    Parameters
    ----------
    terms : sequence of (float, Loss)
        Weight and loss, all of one kind of target.

    Returns
    -------
    loss : Loss
    """
    lengths = [loss.length for _, loss in terms]

    def sums(logits: Tensor, target: Tensor, ignore: Tensor, positive_weight: Weight) -> Tensor:
        return torch.cat([loss.sums(logits, target, ignore, positive_weight) for _, loss in terms])

    def value(sums: Tensor) -> Tensor:
        parts = sums.split(lengths)
        return torch.stack([weight * loss.value(part) for (weight, loss), part in zip(terms, parts, strict=True)]).sum()

    return Loss(sums, value, length=sum(lengths), learns=terms[0][1].learns)


def bce_dice(**_: Any) -> Loss:
    """The sum of `bce` and `dice`."""
    return weighted_sum([(1.0, bce()), (1.0, dice())])


BY_TARGET: dict[str, dict[str, Callable[..., Loss]]] = {
    "mask": {
        "bce": bce,
        "bce_dice": bce_dice,
        "cldice": cldice,
        "dice": dice,
        "focal": focal,
        "tversky": tversky,
    },
    "classes": {"ce": ce, "class_dice": class_dice},
    "numbers": {"huber": huber, "l1": l1, "mse": mse},
}
"""Kind of target to name to constructor, which takes every option of a model's key ``loss`` and uses its own."""

NOT_OPTIONS = ("name", "terms", "positive_weight", "auxiliary")
"""Keys of a model's ``loss`` that choose and weigh losses."""

LOSSES: dict[str, Callable[..., Loss]] = {name: made for losses in BY_TARGET.values() for name, made in losses.items()}


def named(name: str, **options: Any) -> Loss:
    """The loss of that name.

    Parameters
    ----------
    name : str
        A key of `LOSSES`.
    **options
        See its constructor.

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
    return LOSSES[name](**options)


def chosen(settings: Mapping[str, Any], *, target: str, classes: int = 2) -> Loss:
    """The loss that a model's settings ask for.

    Parameters
    ----------
    settings : mapping
        The keys under ``loss`` of a model; ``terms`` wins over ``name`` where it is given.
    target : {"mask", "classes", "numbers"}
        What the task learns.
    classes : int
        For the target "classes", background included.

    Returns
    -------
    loss : Loss

    Raises
    ------
    ModelError
        If a name is unknown, or a loss learns something else than the task has.
    """
    options = {key: value for key, value in settings.items() if key not in NOT_OPTIONS}
    weights = settings["terms"] or {settings["name"]: 1.0}
    for name in weights:
        if name in LOSSES and name not in BY_TARGET[target]:
            kind = next(kind for kind, losses in BY_TARGET.items() if name in losses)
            raise ModelError(
                f"the loss {name!r} learns {TARGETS[kind]}, but the task's target is {TARGETS[target]}; "
                f"use {', '.join(BY_TARGET[target])}"
            )
    return weighted_sum([(weight, named(name, classes=classes, **options)) for name, weight in weights.items()])
