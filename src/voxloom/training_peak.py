"""How much memory a whole training holds at its peak, planned before it begins."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from voxloom import augment_space, losses, metrics, networks, optimisation, training_log
from voxloom.objective import objective
from voxloom.predictor import Predictor
from voxloom.process_group import Group
from voxloom.sampling import Sampler
from voxloom.training_memory import forward_bytes, loss_bytes, training_bytes
from voxloom.validation import Validation

LOGGER = logging.getLogger("voxloom")
MIB = 2**20
BYTES_OF_ANSWER = 4 + 1 + 1 + 1
"""Of a voxel that is compared with its label: probability, code, whether it is foreground, whether annotated."""


@dataclass(frozen=True)
class Peak:
    """Memory that a training is planned to hold, in MiB; on a GPU that of a step and a forward pass is the GPU's.

    Parameters
    ----------
    before : float
        What the process held before: the interpreter, its libraries and what they have read.
    samples : float
        Training boxes that are kept in memory.
    batches : float
        The batch that is learnt from, and those made ahead.
    step : float
        Weights, gradients, the optimiser's moments, and what the backward pass needs.
    weights : float
        Of these, weights and moments.
    copies : float
        Averaged weights, and the weights and moments of the last and the best epoch, for checkpoints.
    new_copies : float
        Those of a new state, beside the former.
    validation : float
        Predicting the validation boxes and comparing them with their labels.
    is_on_cpu : bool
    kept : float
        Memory that is free and kept to be used again; 0 where it goes back to the system.
    """

    before: float
    samples: float
    batches: float
    step: float
    weights: float
    copies: float
    new_copies: float
    validation: float
    is_on_cpu: bool = True
    kept: float = 0.0

    @property
    def total(self) -> float:
        """Of the process at its peak, what it held before included."""
        on_cpu = self.step, self.weights, self.validation
        step, weights, validation = on_cpu if self.is_on_cpu else (0.0, 0.0, 0.0)
        phases = (step + self.batches, weights + validation, weights + self.new_copies)
        return self.before + self.samples + self.copies + max(phases) + self.kept


def plan_peak(
    settings: Mapping[str, Any],
    *,
    before_mib: float,
    memory_mib: float,
    network: nn.Module,
    sampler: Sampler,
    workers: int,
    validation: Validation,
    predictor: Predictor,
    group: Group,
) -> Peak:
    """Count what a training will hold.

    Parameters
    ----------
    settings : mapping
        A model's settings.
    before_mib : float
        See `memory_before_mib`.
    memory_mib : float
        Budget beside that. Where it holds a step twice, freed memory is kept, which makes steps faster.
    network : torch.nn.Module
        That learns.
    sampler : Sampler
    workers : int
        Threads that make batches ahead.
    validation : Validation
    predictor : Predictor
        Of the validation.
    group : Group
        This process's place among those that train together.

    Returns
    -------
    peak : Peak

    Notes
    -----
    What augmentation takes for a moment is not counted: it is over when the network begins, which takes more. Nor is
    what ``torch.compile`` saves or adds.
    """
    precision = str(predictor.dtype).removeprefix("torch.")
    state = sum(tensor.nbytes for tensor in network.state_dict().values())
    moments = optimisation.moments(settings)
    optimised = moments * 4 * sum(weight.numel() for weight in network.parameters() if weight.requires_grad)
    average = state if settings["weights_average"] else 0
    samples = math.ceil(len(sampler.numbers(0)) / group.size)
    a_step = settings["network"], sampler.sample_voxels, samples, precision
    step = training_bytes(*a_step, moments=moments, loss=settings["loss"])
    # those of the step's former batches, and the buckets in which processes exchange theirs
    more_gradients = (settings["accumulate_batches"] > 1) + (group.size > 1)
    batch = samples * math.prod(sampler.sample_voxels) * (4 * settings["network"]["slices"] + 4 + 1)
    new_state = state + optimised + average
    former = new_state + state if settings["epochs"] > 1 else state + average
    peak = Peak(
        before=before_mib,
        samples=sampler.held_bytes / MIB,
        batches=(2 + min(workers, sampler.steps_per_epoch)) * batch / MIB,
        step=(step + more_gradients * state) / MIB,
        weights=(state + optimised) / MIB,
        copies=(average + former) / MIB,
        new_copies=new_state / MIB,
        # the last batch of the epoch is still there, as read and as seen; the predictor has a network of its own
        validation=(2 * batch + state + validation_bytes(validation, predictor)) / MIB,
        is_on_cpu=predictor.device.type == "cpu",
    )
    has_room = peak.is_on_cpu and peak.total - peak.before + peak.step <= memory_mib
    kept = training_bytes(*a_step, moments=moments, loss=settings["loss"], keeps_freed=has_room) - step
    return replace(peak, kept=kept / MIB)


def largest_bytes(settings: Mapping[str, Any], *, group: Group) -> int:
    """Memory of the largest that a convolution makes of a batch, in float32; joined with its skip it is twice as much.

    Parameters
    ----------
    settings : mapping
        A model's settings.
    group : Group
        This process's place among those that train together.

    Returns
    -------
    bytes : int
        At most; slices may be smaller than a patch.
    """
    sample = settings["input"]["size"] or settings["input"]["patch_voxels"]
    samples = math.ceil(settings["batch_size"] / group.size)
    return 4 * samples * int(networks.resolved(settings["network"])["widths"][0]) * math.prod(sample)


def validation_bytes(validation: Validation, predictor: Predictor) -> int:
    """Memory of predicting the largest of the validation boxes and comparing it with its labels.

    Parameters
    ----------
    validation : Validation
    predictor : Predictor

    Returns
    -------
    bytes : int
    """
    settings, precision, most = predictor.settings, str(predictor.dtype).removeprefix("torch."), 0
    shapes = {
        (predictor.largest_batch(piece.part.shape, piece.start, piece.stop), piece.shape) for piece in validation.pieces
    }
    for batch, shape in shapes:
        predicted = 4 * math.prod(shape) + forward_bytes(settings["network"], batch, precision)
        as_batch = (shape[0], 1, *shape[1:]) if settings["network"]["dimensions"] == 2 else (1, 1, *shape)
        compared = BYTES_OF_ANSWER * math.prod(shape) + loss_bytes(settings["loss"], as_batch)
        most = max(most, predicted, compared)
    return most


def memory_before_mib(settings: Mapping[str, Any]) -> float:
    """What this process holds now, in MiB, when the libraries that training needs are loaded.

    Parameters
    ----------
    settings : mapping
        A model's settings.

    Returns
    -------
    memory_mib : float
    """
    _load_libraries(settings)
    return training_log.memory_mib()


def _load_libraries(settings: Mapping[str, Any]) -> None:
    """Take a step of a narrow network on a tiny patch, warp and score it: much is loaded when it is first used."""
    whole = networks.resolved(settings["network"])
    network = networks.build({**whole, "widths": [2] * len(whole["widths"])}, seed=0).train()
    sizes = [2 * factor for factor in networks.size_factor(whole)][-whole["dimensions"] :]
    image, mask = torch.zeros(2, whole["slices"], *sizes), torch.zeros(2, 1, *sizes)
    ignore = torch.zeros(mask.shape, dtype=torch.bool)
    optimiser = torch.optim.Adam(network.parameters())
    networks.draw_dropout(network, samples=2, generator=torch.Generator())
    loss = losses.chosen(settings["loss"], target="mask")
    objective(network(image), mask, ignore, loss=loss, positive_weight=1.0).backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    turns = torch.eye(len(sizes), dtype=torch.float64).repeat(2, 1, 1)
    augment_space.resampled(image, mask, matrices=turns, spacing_um=(1.0,) * len(sizes))
    metrics.joint_histogram(np.zeros(1, dtype=np.uint8), np.ones(1, dtype=bool))
    training_bytes({"widths": [1, 1]}, (1, 4, 4), 1, "float32")


def say_planned(peak: Peak, *, memory_mib: float) -> None:
    """Log what was planned; a warning where it is more than training may take.

    Parameters
    ----------
    peak : Peak
    memory_mib : float
        Budget beside the interpreter and its libraries.
    """
    where = "" if peak.is_on_cpu else " on the GPU"
    LOGGER.info(
        "memory planned: %.0f MiB, of which %.0f are there before training. A step takes %.0f%s, samples held %.0f, "
        "batches made ahead %.0f, copies of the weights %.0f, validation %.0f%s; %.0f are kept to be used again",
        peak.total,
        peak.before,
        peak.step,
        where,
        peak.samples,
        peak.batches,
        peak.copies,
        peak.validation,
        where,
        peak.kept,
    )
    if peak.total - peak.before > memory_mib:
        LOGGER.warning(
            "training is planned to take %.0f MiB and was given %.0f: the system may stop it; lower batch_size or "
            "input.patch_voxels, or raise resources.memory_mib",
            peak.total - peak.before,
            memory_mib,
        )


def say_measured(peak: Peak) -> None:
    """Log what was planned beside what was measured.

    Parameters
    ----------
    peak : Peak
    """
    measured = training_log.peak_memory_mib()
    own = peak.total - peak.before
    LOGGER.info(
        "peak memory: %.0f MiB, planned %.0f; beside the %.0f that were there before training %.0f, planned %.0f "
        "(measured over planned %.2f)",
        measured,
        peak.total,
        peak.before,
        measured - peak.before,
        own,
        (measured - peak.before) / own,
    )
