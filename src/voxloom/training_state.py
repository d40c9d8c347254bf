"""What changes while a network learns, and how it is kept: weights, their average, the optimiser, the best so far."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn, optim

from voxloom import optimisation
from voxloom.checkpoint import TrainState, on_cpu
from voxloom.divergence import Steps
from voxloom.optimisation import Progress, WeightsAverage
from voxloom.training_log import Row
from voxloom.validation import Scores


@dataclass(frozen=True)
class Learner:
    """A network that learns.

    Parameters
    ----------
    network : torch.nn.Module
        On its device.
    optimiser : torch.optim.Optimizer
        Of its weights.
    average : WeightsAverage or None
        The moving average of its weights, where there is one.
    settings : mapping
        A model's settings.
    """

    network: nn.Module
    optimiser: optim.Optimizer
    average: WeightsAverage | None
    settings: Mapping[str, Any]

    @property
    def kept(self) -> nn.Module:
        """What is validated and kept: the average, where there is one."""
        return self.average.network if self.average else self.network

    def step(self, progress: Progress, *, rate: float) -> Tensor:
        """Change the weights.

        Parameters
        ----------
        progress : Progress
        rate : float
            The learning rate.

        Returns
        -------
        norm : Tensor, scalar
            Length of the gradient before it was shortened.
        """
        norm = optimisation.change_weights(
            self.network, self.optimiser, rate=rate, longest=self.settings["gradient_clip"]
        )
        if self.average:
            self.average.update(self.network, step=progress.step)
        return norm

    def beginning(self) -> TrainState:
        """The state before the first step."""
        return TrainState(epochs_done=0, **self._weights(), best=None, best_epoch=0, best_score=-math.inf, log=[])

    def restore(self, state: TrainState) -> None:
        """Take the weights, their average and the optimiser's numbers from a state.

        Parameters
        ----------
        state : TrainState
        """
        self.network.load_state_dict(state.network)
        self.optimiser.load_state_dict(state.optimiser)
        if self.average and state.average is not None:
            self.average.network.load_state_dict(state.average)

    def within_epoch(self, state: TrainState, steps: Steps, *, batches_done: int, seconds: float) -> TrainState:
        """The state within an epoch.

        Parameters
        ----------
        state : TrainState
            Before it.
        steps : Steps
            Of this epoch.
        batches_done : int
        seconds : float
            Of the whole training.

        Returns
        -------
        state : TrainState
        """
        return dataclasses.replace(
            state,
            **self._weights(),
            batches_done=batches_done,
            losses=list(steps.losses),
            norms=list(steps.norms),
            seconds=seconds,
        )

    def after_epoch(self, state: TrainState, row: Row, scores: Scores, *, seconds: float) -> TrainState:
        """The state after one more epoch.

        Parameters
        ----------
        state : TrainState
            Before it.
        row : dict
            Of the training log.
        scores : Scores
        seconds : float
            Of the whole training.

        Returns
        -------
        state : TrainState
        """
        weights = self._weights()
        goodness = scores.goodness(self.settings["validation_metric"])
        is_best = goodness > state.best_score
        return TrainState(
            epochs_done=state.epochs_done + 1,
            **weights,
            best=(weights["average"] or weights["network"]) if is_best else state.best,
            best_epoch=state.epochs_done + 1 if is_best else state.best_epoch,
            best_score=goodness if is_best else state.best_score,
            log=[*state.log, row],
            steps_done=int(row["step"]),
            seconds=seconds,
        )

    def _weights(self) -> dict[str, Any]:
        return {
            "network": on_cpu(self.network.state_dict()),
            "optimiser": on_cpu(self.optimiser.state_dict()),
            "average": on_cpu(self.average.network.state_dict()) if self.average else None,
        }


def keeps_best(settings: Mapping[str, Any]) -> bool:
    """Whether the best epoch's weights are the model's, and not the last one's.

    Parameters
    ----------
    settings : mapping
        A model's settings.

    Returns
    -------
    keeps_best : bool
    """
    return settings["keep"] == "best" or (settings["keep"] == "auto" and settings["early_stopping_epochs"] is not None)


def stops_early(state: TrainState, settings: Mapping[str, Any]) -> bool:
    """Whether the last epochs were no better than one before.

    Parameters
    ----------
    state : TrainState
    settings : mapping
        A model's settings.

    Returns
    -------
    stops_early : bool
    """
    patience = settings["early_stopping_epochs"]
    return patience is not None and state.epochs_done - state.best_epoch >= patience
