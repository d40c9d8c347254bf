"""What a training needs before its first step: data and network, checked and on their device."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from voxloom import (
    data_check,
    devices,
    initialisation,
    losses,
    network_reach,
    networks,
    optimisation,
    predictor,
    sampling_check,
    training_peak,
    training_state,
)
from voxloom.augment import check_augment
from voxloom.errors import ModelError
from voxloom.initialisation import Initial
from voxloom.labelled import PartBox, TrainingVolume
from voxloom.losses import Loss
from voxloom.optimisation import WeightsAverage
from voxloom.predictor import Predictor
from voxloom.process_group import Group
from voxloom.sampling import Sampler
from voxloom.training_batches import Batches
from voxloom.training_peak import Peak
from voxloom.training_state import Learner
from voxloom.validation import Scores, Validation

LOGGER = logging.getLogger("voxloom")
HELD_SHARE, VALIDATION_SHARE = 0.5, 0.3
"""Of the memory: what training boxes may take, and what a forward pass of validation may."""


@dataclass(frozen=True)
class Setup:
    """A training before its first step.

    Parameters
    ----------
    settings : dict
        The model's settings with what training resolved: ``normalisation``, ``spacing_um``, ``positive_weight``.
    device : torch.device
    dtype : torch.dtype
        Of the arithmetic.
    loss : Loss
    sampler : Sampler
    batches : Batches
    validation : Validation
    learner : Learner
    frozen : sequence of torch.nn.Module
        What of the network doesn't learn.
    parallel : torch.nn.Module
        The network, or what joins it with other processes'.
    workers : int
        Threads that read ahead.
    validation_mib : float
        Budget of a forward pass of validation.
    group : Group
    """

    settings: dict[str, Any]
    device: torch.device
    dtype: torch.dtype
    loss: Loss
    sampler: Sampler
    batches: Batches
    validation: Validation
    learner: Learner
    frozen: Sequence[nn.Module]
    parallel: nn.Module
    workers: int
    validation_mib: float
    group: Group

    def forward(self) -> nn.Module:
        """What predicts in training: the network, compiled where the settings ask for it."""
        if not self.settings["compile"]:
            return self.parallel
        (image, _, _), _ = self.batches.whole(0, 0)
        networks.draw_dropout(self.learner.network, samples=len(image), generator=torch.Generator())  # the trial's own
        return devices.compiled(self.learner.network, self.parallel, image, self.dtype)

    def begin_to_learn(self) -> None:
        """Put the network into training mode, but for what is frozen."""
        self.learner.network.train()
        for module in self.frozen:
            module.eval()

    def scores(self) -> Scores:
        """Validate in the first process, and tell the others.

        Returns
        -------
        scores : Scores
        """
        scores = Scores(math.nan, math.nan, math.nan, math.nan)
        if self.group.is_first:
            made = self.predictor(self.learner.kept)
            scores = self.validation.score(made, loss=self.loss, positive_weight=self.sampler.positive_weight)
        return Scores(*self.group.agreed(*dataclasses.astuple(scores)))

    def predictor(self, network: nn.Module) -> Predictor:
        """What validates; mirrored and turned tiles would take many times as long and rank the epochs alike.

        Parameters
        ----------
        network : torch.nn.Module

        Returns
        -------
        predictor : Predictor
        """
        return predictor.prepare(
            network,
            self.settings,
            memory_mib=self.validation_mib,
            device=str(self.device),
            precision=self.settings["precision"],
            has_flips=False,
            has_rotations=False,
        )

    def peak(self, *, before_mib: float, memory_mib: float) -> Peak:
        """Plan the memory that this training will hold.

        Parameters
        ----------
        before_mib : float
            What the process held before.
        memory_mib : float
            Budget beside that.

        Returns
        -------
        peak : Peak
        """
        return training_peak.plan_peak(
            self.settings,
            before_mib=before_mib,
            memory_mib=memory_mib,
            network=self.learner.network,
            sampler=self.sampler,
            workers=self.workers,
            validation=self.validation,
            predictor=self.predictor(self.learner.network),
            group=self.group,
        )

    def say(self) -> None:
        """Log where and what is trained."""
        LOGGER.info(
            "training on %s in %s%s: %d %s an epoch, %d epochs, %d parameters",
            self.device,
            str(self.dtype).removeprefix("torch."),
            f" by {self.group.size} processes" if self.group.size > 1 else "",
            self.sampler.samples_per_epoch,
            "slices" if self.sampler.whole_slices else "patches",
            self.settings["epochs"],
            networks.parameters(self.learner.network),
        )
        LOGGER.info(network_reach.in_words(self.settings["network"]))
        if self.settings["max_minutes"] is not None:
            LOGGER.info(
                "training ends after %g minutes at the latest, and its learning rate may follow the clock: equal seeds "
                "don't give equal bytes",
                self.settings["max_minutes"],
            )


def set_up(
    volumes: Mapping[str, TrainingVolume],
    *,
    boxes: Sequence[PartBox],
    settings: Mapping[str, Any],
    seed: int,
    memory_mib: float,
    threads: int,
    device: torch.device,
    initial: Initial | None,
    group: Group,
) -> Setup:
    """Read and check the data, and build the network.

    Parameters
    ----------
    volumes, boxes, settings, seed, memory_mib, threads, initial, group
        As in `voxloom.training.train`.
    device : torch.device

    Returns
    -------
    setup : Setup

    Raises
    ------
    ModelError
        If settings don't fit together, or there is nothing to learn.
    SplitError
        If there are no training boxes.
    VolumeError
        If a volume can't be learnt from.
    """
    loss = losses.chosen(settings["loss"], target="mask")
    data_check.refuse_unusable(volumes, boxes, settings)
    sampler = Sampler(volumes, boxes=boxes, settings=settings, seed=seed, memory_mib=HELD_SHARE * memory_mib)
    sampling_check.refuse_reads_across_the_gap(sampler.parts, settings, whole_slices=sampler.whole_slices)
    check_augment(settings["augment"], network=settings["network"], spacing_um=sampler.sample_spacing_um)
    validation = Validation(volumes, boxes=boxes, settings=settings)
    _check_validation(validation, settings)
    resolved = {
        **settings,
        "normalisation": sampler.scan.normalisation.settings(),
        "spacing_um": list(_spacing(volumes, sampler)),
        "positive_weight": sampler.positive_weight,
    }
    predictor.check_rotations(resolved)
    network = group.with_joint_statistics(networks.build(settings["network"], seed=seed), device)
    frozen = initialisation.begin(network, initial)
    network = network.to(device, memory_format=devices.memory_format(settings["network"]["dimensions"]))  # type: ignore[call-overload]
    parallel = group.joined(network, device)
    optimiser = optimisation.build_optimiser(settings, network)
    average = WeightsAverage(network, decay=settings["weights_average"]) if settings["weights_average"] else None
    return Setup(
        settings=resolved,
        device=device,
        dtype=devices.choose_precision(settings["precision"], device),
        loss=loss,
        sampler=sampler,
        batches=Batches(sampler, settings=settings, seed=seed, device=device, group=group),
        validation=validation,
        learner=Learner(network, optimiser, average, settings),
        frozen=frozen,
        parallel=parallel,
        workers=1 if threads < 4 else threads // 2,
        validation_mib=VALIDATION_SHARE * memory_mib,
        group=group,
    )


def _spacing(volumes: Mapping[str, TrainingVolume], sampler: Sampler) -> tuple[float, float, float]:
    """Voxel size of the training volumes; logged where they differ."""
    sizes = {part.name: tuple(volumes[part.name].spacing_um) for part in sampler.parts}
    first = next(iter(sizes.values()))
    if any(not np.allclose(size, first, rtol=0.05) for size in sizes.values()):
        LOGGER.warning("the training volumes' voxel sizes differ, in um (Z, Y, X): %s", sizes)
    z, y, x = first
    return z, y, x


def _check_validation(validation: Validation, settings: Mapping[str, Any]) -> None:
    if 0 < validation.foreground_voxels < validation.annotated_voxels:
        return
    lacking = "foreground" if validation.foreground_voxels == 0 else "background"
    found = f"the validation boxes hold {validation.annotated_voxels} annotated voxels and no {lacking}"
    if training_state.keeps_best(settings):
        raise ModelError(
            f"keep: best and early_stopping_epochs choose the epoch with the best validation score, but {found}; set "
            "early_stopping_epochs to null and keep to last, or give the split a larger validation_fraction"
        )
    LOGGER.warning("%s: average precision, F1 and IoU in the training log say nothing", found)
