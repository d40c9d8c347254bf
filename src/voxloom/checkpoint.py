"""What training needs to go on after it was killed, as a file that is whole or isn't there."""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from voxloom import io
from voxloom.errors import ModelError

LOGGER = logging.getLogger("voxloom")


@dataclass(frozen=True)
class TrainState:
    """Training between two steps. Random numbers need no state: they follow from seed, epoch and step.

    Parameters
    ----------
    epochs_done : int
    network : dict of str to Tensor
        Weights and running statistics, on the CPU.
    optimiser : dict
        Its state_dict, on the CPU.
    best : dict of str to Tensor or None
        Weights of the best epoch so far.
    best_epoch : int
        Counted from 1; 0 before there was one.
    best_score : float
        Its validation score; more is better.
    log : list of dict
        Rows of the training log.
    average : dict of str to Tensor or None
        The moving average of the weights, where there is one.
    batches_done : int
        Of the epoch that has begun; 0 between two epochs.
    steps_done : int
        Changes of the weights since training began.
    losses, norms : list of float
        Loss and length of the gradient of every step of the epoch that has begun.
    seconds : float
        That training took so far, restarts left out.
    """

    epochs_done: int
    network: dict[str, Tensor]
    optimiser: dict[str, Any]
    best: dict[str, Tensor] | None
    best_epoch: int
    best_score: float
    log: list[dict[str, float | int]]
    average: dict[str, Tensor] | None = None
    batches_done: int = 0
    steps_done: int = 0
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    seconds: float = 0.0


def on_cpu(state: Any) -> Any:
    """A copy of a state_dict that doesn't change any more.

    Parameters
    ----------
    state : dict, list, Tensor or anything else
        Of a network or an optimiser.

    Returns
    -------
    copied : same type
        Tensors are on the CPU.
    """
    if isinstance(state, Tensor):
        return state.detach().cpu().clone()
    if isinstance(state, dict):
        return {key: on_cpu(value) for key, value in state.items()}
    if isinstance(state, list):
        return [on_cpu(value) for value in state]
    return state


def training_key(**parts: Any) -> str:
    """A hash of everything that defines a training, so that it never goes on from another's checkpoint.

    Parameters
    ----------
    **parts
        JSON-like values: settings, seed, split rows, the inputs' checksums, the code's version.

    Returns
    -------
    key : str
        64 hexadecimal digits.
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def save_checkpoint(path: str | Path, state: TrainState, *, key: str) -> None:
    """Write a checkpoint; a reader sees the former one or this one, never half of it.

    Parameters
    ----------
    path : str or Path
        Beside the model's folder, not in it: Snakemake removes a rule's outputs before it runs it again.
    state : TrainState
    key : str
        See `training_key`.
    """
    with io.atomic_file(path) as temporary, io.SafeFile(temporary) as file:
        torch.save({"key": key, **{part.name: getattr(state, part.name) for part in fields(state)}}, file)  # type: ignore[arg-type]


def load_checkpoint(path: str | Path, *, key: str) -> TrainState | None:
    """Read a checkpoint, without executing what it holds.

    Parameters
    ----------
    path : str or Path
    key : str
        Of the training that wants to go on.

    Returns
    -------
    state : TrainState or None
        None where there is no checkpoint, or one of a training with other settings, data or code.

    Raises
    ------
    ModelError
        If the file is damaged.
    """
    path = Path(path)
    if not path.is_file():
        return None
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        if found.pop("key") != key:
            LOGGER.info("%s belongs to a training with other settings, data or code: training begins anew", path)
            return None
        state = TrainState(**found)
    except (RuntimeError, EOFError, KeyError, TypeError, AttributeError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"{path} is no checkpoint of voxloom, or damaged ({reason}); remove it to train anew"
        ) from None
    LOGGER.info("training goes on after epoch %d and %d batches, from %s", state.epochs_done, state.batches_done, path)
    return state
