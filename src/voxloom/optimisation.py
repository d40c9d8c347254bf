"""How weights change in a step: optimisers, learning-rate schedules, clipped gradients, averaged weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from voxloom import initialisation
from voxloom.errors import ModelError


@dataclass(frozen=True)
class Progress:
    """How far a training is when a step begins.

    Parameters
    ----------
    step, steps : int
        Steps done, and those of the whole training.
    epoch : int
        Epochs done.
    time_share : float
        Share of the wall-clock budget that is spent; 0 without a budget.
    """

    step: int
    steps: int
    epoch: int
    time_share: float = 0.0


def _sgd(parameters: Iterable[nn.Parameter], *, momentum: float, nesterov: bool, **settings: Any) -> torch.optim.SGD:
    if nesterov and not momentum:
        raise ModelError("optimiser.nesterov needs momentum, and optimiser.momentum is 0; set it to 0.9")
    return torch.optim.SGD(parameters, momentum=momentum, nesterov=nesterov, **settings)


def _adam(parameters: Iterable[nn.Parameter], *, momentum: float, nesterov: bool, **settings: Any) -> torch.optim.Adam:
    return torch.optim.Adam(parameters, **settings)


def _adamw(
    parameters: Iterable[nn.Parameter], *, momentum: float, nesterov: bool, **settings: Any
) -> torch.optim.AdamW:
    return torch.optim.AdamW(parameters, **settings)


OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {"adam": _adam, "adamw": _adamw, "sgd": _sgd}
"""adam and sgd add the weight decay to the gradient (coupled L2), adamw takes it off the weights; momentum and nesterov
are sgd's."""


def _constant(progress: Progress, share: float, **_: Any) -> float:
    return 1.0


def _exponential(progress: Progress, share: float, *, factor_per_epoch: float, **_: Any) -> float:
    return factor_per_epoch**progress.epoch


def _step(progress: Progress, share: float, *, every_steps: int, factor: float, **_: Any) -> float:
    return factor ** (progress.step // every_steps)


def _polynomial(progress: Progress, share: float, *, power: float, **_: Any) -> float:
    return (1 - share) ** power


def _cosine(progress: Progress, share: float, **_: Any) -> float:
    return 0.5 * (1 + math.cos(math.pi * share))


SCHEDULES: dict[str, Callable[..., float]] = {
    "constant": _constant,
    "exponential": _exponential,
    "step": _step,
    "polynomial": _polynomial,
    "cosine": _cosine,
}
"""What the learning rate is multiplied by: 1; factor_per_epoch after every epoch; factor after every_steps;
(1 - share)^power; half a cosine. share is that of the steps after the warm-up that are done, or that of the time."""


def _named(known: Mapping[str, Any], what: str, name: str) -> Any:
    if name not in known:
        raise ModelError(f"{what}.name must be one of {', '.join(sorted(known))}, got {name!r}")
    return known[name]


def build_optimiser(settings: Mapping[str, Any], network: nn.Module) -> torch.optim.Optimizer:
    """The optimiser of a network's trainable weights.

    Parameters
    ----------
    settings : mapping
        A model's settings; its key ``optimiser`` is read.
    network : torch.nn.Module
        Weights that don't require a gradient stay as they are.

    Returns
    -------
    optimiser : torch.optim.Optimizer

    Raises
    ------
    ModelError
        If the name is unknown, or its keys don't go together.
    """
    chosen = settings["optimiser"]
    return _named(OPTIMISERS, "optimiser", chosen["name"])(
        initialisation.learning(network),
        lr=chosen["learning_rate"],
        weight_decay=chosen["weight_decay"],
        momentum=chosen["momentum"],
        nesterov=chosen["nesterov"],
    )


def moments(settings: Mapping[str, Any]) -> int:
    """Numbers that the optimiser keeps for every weight.

    Parameters
    ----------
    settings : mapping
        A model's settings; its key ``optimiser`` is read.

    Returns
    -------
    count : int
    """
    chosen = settings["optimiser"]
    return int(chosen["momentum"] > 0) if chosen["name"] == "sgd" else 2


def learning_rate(settings: Mapping[str, Any], progress: Progress) -> float:
    """The learning rate of the step that begins now.

    Parameters
    ----------
    settings : mapping
        A model's settings; its keys ``optimiser.learning_rate`` and ``schedule`` are read.
    progress : Progress

    Returns
    -------
    learning_rate : float
        In the first ``warmup_steps`` a straight rise from nothing, whatever the schedule.

    Raises
    ------
    ModelError
        If the schedule is unknown.

    Examples
    --------
    >>> schedule = {"name": "polynomial", "power": 1.0, "warmup_steps": 0}
    >>> chosen = {"optimiser": {"learning_rate": 0.4}, "schedule": schedule}
    >>> learning_rate(chosen, Progress(step=100, steps=200, epoch=2))
    0.2
    """
    highest, schedule = settings["optimiser"]["learning_rate"], settings["schedule"]
    factor = _named(SCHEDULES, "schedule", schedule["name"])
    warmup = schedule["warmup_steps"]
    if progress.step < warmup:
        return float(highest * (progress.step + 1) / (warmup + 1))
    share = max((progress.step - warmup) / max(1, progress.steps - warmup), progress.time_share)
    return float(highest * factor(progress, min(share, 1.0), **schedule))


def change_weights(
    network: nn.Module, optimiser: torch.optim.Optimizer, *, rate: float, longest: float | None
) -> Tensor:
    """Take a step against the gradient, and forget the gradient.

    Parameters
    ----------
    network : torch.nn.Module
    optimiser : torch.optim.Optimizer
        Of its weights.
    rate : float
        The learning rate.
    longest : float or None
        Length of the gradient, over all weights, beyond which it is shortened to that; None leaves it as it is.

    Returns
    -------
    norm : Tensor, scalar
        Length of the gradient before it was shortened.
    """
    norm = nn.utils.get_total_norm([weight.grad for weight in network.parameters() if weight.grad is not None])
    if longest is not None:
        nn.utils.clip_grads_with_norm_(network.parameters(), longest, norm)
    for weights in optimiser.param_groups:
        weights["lr"] = rate
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return norm.detach()


class WeightsAverage:
    """An exponential moving average of a network's weights, as a network of its own.

    Running statistics of a batch normalisation are averaged with the weights they belong to; counters are copied.

    Parameters
    ----------
    network : torch.nn.Module
        Where the average begins.
    decay : float
        What is kept of the average in a step, from 0 (no average) to 1. In the beginning (1 + steps) / (10 + steps) at
        most, so that the random weights that training began with are forgotten.

    Attributes
    ----------
    network : torch.nn.Module
        With the averaged weights.
    """

    def __init__(self, network: nn.Module, *, decay: float) -> None:
        self.network, self.decay = copy.deepcopy(network), decay

    @torch.no_grad()
    def update(self, network: nn.Module, *, step: int) -> None:
        """Take in the weights after a step.

        Parameters
        ----------
        network : torch.nn.Module
        step : int
            Counted from 0.
        """
        ours, theirs = list(self.network.state_dict().values()), list(network.state_dict().values())
        is_float = [tensor.is_floating_point() for tensor in ours]
        decay = min(self.decay, (1 + step) / (10 + step))
        average = get_ema_multi_avg_fn(decay)
        average(
            [tensor for tensor, chosen in zip(ours, is_float, strict=True) if chosen],
            [tensor for tensor, chosen in zip(theirs, is_float, strict=True) if chosen],
            step,
        )
        for tensor, new, chosen in zip(ours, theirs, is_float, strict=True):
            if not chosen:
                tensor.copy_(new)
