"""The training loop."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from voxloom import (
    data_check,
    devices,
    divergence,
    initialisation,
    losses,
    networks,
    optimisation,
    process_group,
    training_log,
)
from voxloom.augment import augment, check_augment, enabled
from voxloom.checkpoint import TrainState, on_cpu
from voxloom.divergence import Steps
from voxloom.errors import ModelError
from voxloom.initialisation import Initial
from voxloom.labelled import PartBox, TrainingVolume
from voxloom.loading import Prefetched
from voxloom.objective import objective
from voxloom.optimisation import Progress, WeightsAverage
from voxloom.predictor import check_rotations, prepare
from voxloom.process_group import ALONE, Group
from voxloom.sampling import Batch, Examples, Sampler
from voxloom.training_log import Meter, Row
from voxloom.validation import Scores, Validation

LOGGER = logging.getLogger("voxloom")
CHECK_STEPS = 10
AUGMENT, DROPOUT = 3, 4  # streams of random numbers
EXAMPLES = 2


@dataclass(frozen=True)
class Trained:
    """What came out of a training.

    Parameters
    ----------
    network : torch.nn.Module
        With the kept weights, on the CPU, in evaluation mode.
    settings : dict
        The model's settings with what training resolved: ``normalisation``, ``spacing_um``, ``positive_weight``.
    log : list of dict
        One row an epoch; see `training_log.LOG_COLUMNS`.
    kept_epoch : int
        The epoch whose weights were kept, counted from 1.
    counts : dict of str to int
        Annotated and foreground voxels that it learnt and validated from, samples and steps an epoch, parameters.
    others : dict of str to dict
        "best" or "last": weights of that epoch, where another one was kept.
    examples : Examples, optional
        Samples that it learnt from, before augmentation; None where there was none.
    """

    network: nn.Module
    settings: dict[str, Any]
    log: list[Row]
    kept_epoch: int
    counts: dict[str, int]
    others: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    examples: Examples | None = None


def train_in_processes(
    volumes: Mapping[str, TrainingVolume],
    *,
    processes: int,
    memory_mib: float,
    threads: int,
    device: str = "auto",
    on_checkpoint: Callable[[TrainState], None] | None = None,
    on_epoch: Callable[[Row], None] | None = None,
    **arguments: Any,
) -> Trained:
    """Train a network by several processes, each with a share of every batch.

    Parameters
    ----------
    volumes : mapping of str to TrainingVolume
        Arrays or stored volumes, which the other processes open too.
    processes : int
        On GPUs each has one of its own; on a CPU they share memory and threads.
    memory_mib, threads, device, on_checkpoint, on_epoch
        As in `train`; memory and threads of all processes together.
    **arguments
        Of `train`.

    Returns
    -------
    trained : Trained
        That of one process with the same batches, but for rounding.

    Raises
    ------
    ModelError
        As `train`; or if another process fails, with its words.
    """
    share = {
        "volumes": volumes,
        "memory_mib": memory_mib / processes,
        "threads": max(1, threads // processes),
        "device": device,
        **arguments,
    }
    with process_group.started(processes, device=device, work=train, arguments=share) as group:
        return train(**share, on_checkpoint=on_checkpoint, on_epoch=on_epoch, group=group)


def train(
    volumes: Mapping[str, TrainingVolume],
    *,
    boxes: Sequence[PartBox],
    settings: Mapping[str, Any],
    seed: int,
    memory_mib: float,
    threads: int,
    device: str = "auto",
    initial: Initial | None = None,
    resume: TrainState | None = None,
    on_checkpoint: Callable[[TrainState], None] | None = None,
    on_epoch: Callable[[Row], None] | None = None,
    checkpoint_minutes: float = math.inf,
    batch_file: str | Path | None = None,
    group: Group = ALONE,
) -> Trained:
    """Train a network.

    Parameters
    ----------
    volumes : mapping of str to TrainingVolume
    boxes : sequence of PartBox
        Of one fold; labels of train boxes are learnt, those of validation boxes scored after every epoch.
    settings : mapping
        A model's settings: ``$defs/model`` of the task schema, defaults filled in.
    seed : int
        Of the weights, the samples and their augmentation.
    memory_mib : float
        Budget beside the interpreter and its libraries: half of it keeps training boxes in memory.
    threads : int
        Of the arithmetic.
    device : {"auto", "cpu", "cuda", "mps"}
    initial : Initial, optional
        Weights to begin with instead of random ones, and what of them doesn't learn.
    resume : TrainState, optional
        Goes on from here; the result is that of an uninterrupted training, bit by bit on the same machine.
    on_checkpoint : callable, optional
        Called with a `TrainState` after every epoch, and within epochs every `checkpoint_minutes`.
    on_epoch : callable, optional
        Called with every row of the training log, those before `resume` first.
    checkpoint_minutes : float
    batch_file : str or Path, optional
        Where the batch is kept that made the loss no number, for inspection.
    group : Group
        This process's place among those that train together.

    Returns
    -------
    trained : Trained

    Raises
    ------
    ModelError
        If settings don't fit together, there is nothing to learn, or the loss stops being finite.
    SplitError
        If there are no training boxes.
    """
    where = devices.choose_device(group.device(device))
    dtype = devices.choose_precision(settings["precision"], where)
    loss_function = losses.chosen(settings["loss"], target="mask")
    if where.type == "cpu":
        devices.return_freed_memory()
    with devices.reproducible(threads=threads, deterministic=settings["deterministic"]):
        data_check.refuse_unusable(volumes, boxes)
        sampler = Sampler(volumes, boxes=boxes, settings=settings, seed=seed, memory_mib=0.5 * memory_mib)
        sampler.refuse_reads_across_the_gap()
        check_augment(settings["augment"], network=settings["network"], spacing_um=sampler.sample_spacing_um)
        validation = Validation(volumes, boxes=boxes, settings=settings)
        _check_validation(validation, settings)
        spacing_um = _spacing(volumes, sampler)
        resolved = {
            **settings,
            "normalisation": sampler.normalisation.settings(),
            "spacing_um": list(spacing_um),
            "positive_weight": sampler.positive_weight,
        }
        check_rotations(resolved)

        def see(batch: Batch, epoch: int, number: int, first: int = 0) -> tuple[Tensor, Tensor, Tensor]:
            """What the network sees of a batch, on its device."""
            image, mask, ignore = augment(
                *(tensor.to(where, non_blocking=True) for tensor in (batch.image, batch.mask, batch.ignore)),
                settings=settings["augment"],
                spacing_um=sampler.sample_spacing_um,
                deviation=sampler.normalisation.unit_deviation,
                generator=_generator(seed, AUGMENT, epoch, number),
                first=first,
            )
            return image.contiguous(memory_format=devices.memory_format(image.ndim - 2)), mask, ignore

        network = group.with_joint_statistics(networks.build(settings["network"], seed=seed), where)
        frozen = initialisation.begin(network, initial)
        network = network.to(where, memory_format=devices.memory_format(settings["network"]["dimensions"]))  # type: ignore[call-overload]
        parallel = group.joined(network, where)
        optimiser = optimisation.build_optimiser(settings, network)
        average = WeightsAverage(network, decay=settings["weights_average"]) if settings["weights_average"] else None
        state = resume or _beginning(network, optimiser, average)
        _restore(state, network, optimiser, average)
        forward = parallel
        if settings["compile"]:
            forward = devices.compiled(network, parallel, see(sampler.batch(0, 0), 0, 0)[0], dtype)
        epochs, batches, together = settings["epochs"], sampler.steps_per_epoch, settings["accumulate_batches"]
        steps_per_epoch = math.ceil(batches / together)
        budget = _Budget(settings["max_minutes"], spent_s=state.seconds)
        _say_beginning(where, dtype, sampler, network, settings, group)
        for former in state.log if on_epoch else ():
            on_epoch(former)  # type: ignore[misc]

        while state.epochs_done < epochs and not _stops_early(state, settings) and not budget.is_spent:
            epoch, saved, rate = state.epochs_done, time.monotonic(), 0.0
            steps = Steps(state.losses, state.norms)
            meter = Meter(epoch, epochs, samples=sampler.samples_per_epoch, steps=steps_per_epoch, before=len(steps))
            loader = Prefetched(
                lambda number, epoch=epoch: _share(sampler, epoch, number, group),  # type: ignore[misc]
                range(state.batches_done, batches),
                workers=1 if threads < 4 else threads // 2,
            )
            network.train()
            for module in frozen:
                module.eval()
            for number, batch in loader:
                networks.draw_dropout(
                    network,
                    samples=len(sampler.numbers(number)),
                    generator=_generator(seed, DROPOUT, epoch, number),
                    share=_place(sampler, number, group),
                )
                image, mask, ignore = see(batch, epoch, number, first=_place(sampler, number, group).start)
                is_step = (number + 1) % together == 0 or number + 1 == batches
                with group.gradients(parallel, are_joined=is_step):
                    with devices.arithmetic(where, dtype):
                        outputs = forward(image)
                    loss = objective(
                        outputs, mask, ignore, loss=loss_function, positive_weight=sampler.positive_weight, group=group
                    )
                    loss = loss / min(together, batches - number // together * together)
                    (loss * group.size).backward()  # type: ignore[no-untyped-call]
                steps.add(loss)
                if not is_step:
                    continue
                progress = Progress(state.steps_done + len(steps), epochs * steps_per_epoch, epoch, budget.share)
                rate = optimisation.learning_rate(settings, progress)
                steps.end(optimisation.change_weights(network, optimiser, rate=rate, longest=settings["gradient_clip"]))
                if average:
                    average.update(network, step=progress.step)
                budget.look(group)
                is_last = number + 1 == batches or budget.is_spent
                if len(steps) % CHECK_STEPS == 0 or is_last:
                    bad = steps.read()
                    if bad is not None:
                        in_step = range(bad * together, min((bad + 1) * together, batches))
                        seen = [
                            (see(sampler.batch(epoch, k), epoch, k), sampler.batch(epoch, k).places) for k in in_step
                        ]
                        divergence.stop(
                            steps, bad, seen, before=state.steps_done, learning_rate=rate, batch_file=batch_file
                        )
                    meter.say_step(steps.losses)
                    if on_checkpoint and not is_last and time.monotonic() - saved >= 60 * checkpoint_minutes:
                        on_checkpoint(_in_epoch(state, network, optimiser, average, steps, number + 1, budget.spent_s))
                        saved = time.monotonic()
                if budget.is_spent:
                    break
            meter.learnt()
            kept = average.network if average else network
            scores = _scores(validation, kept, resolved, loss_function, str(where), 0.3 * memory_mib, group)
            row = meter.row(state.steps_done + len(steps), rate, steps.losses, steps.norms, scores, loader.waited_s)
            budget.look(group)
            state = _after_epoch(state, network, optimiser, average, row, scores, budget.spent_s, settings)
            training_log.say_epoch(row, epochs=epochs, seconds_left=budget.left_s)
            if on_epoch:
                on_epoch(row)
            if on_checkpoint:
                on_checkpoint(state)

        _say_end(state, settings)
        last, best = state.average or state.network, state.best
        keeps_best = _keeps_best(settings) and best is not None
        network = networks.build(settings["network"], seed=seed)
        network.load_state_dict(best if keeps_best and best is not None else last)
        counts = {
            "parameters": _parameters(network),
            "training_annotated_voxels": sampler.annotated_voxels,
            "training_foreground_voxels": sampler.foreground_voxels,
            "validation_annotated_voxels": validation.annotated_voxels,
            "validation_foreground_voxels": validation.foreground_voxels,
            "samples_per_epoch": sampler.samples_per_epoch,
            "steps_per_epoch": steps_per_epoch,
        }
        others = {}
        if best is not None and state.best_epoch != state.epochs_done:
            others = {"last": last} if keeps_best else {"best": best}
        epoch = state.best_epoch if keeps_best else state.epochs_done
        examples = sampler.examples(EXAMPLES) if enabled(settings["augment"]) else None
        return Trained(network.eval(), resolved, state.log, epoch, counts, others, examples)


class _Budget:
    """The wall-clock time of a training, and how much of it is spent; in several processes the first one's clock."""

    def __init__(self, minutes: float | None, *, spent_s: float) -> None:
        self.seconds = math.inf if minutes is None else 60.0 * minutes
        self.begin, self.spent_s = time.monotonic() - spent_s, spent_s

    def look(self, group: Group) -> None:
        self.spent_s = time.monotonic() - self.begin
        if self.seconds < math.inf:
            (self.spent_s,) = group.agreed(self.spent_s)

    @property
    def share(self) -> float:
        return min(1.0, self.spent_s / self.seconds)

    @property
    def is_spent(self) -> bool:
        return self.spent_s >= self.seconds

    @property
    def left_s(self) -> float:
        return self.seconds - self.spent_s


def _place(sampler: Sampler, number: int, group: Group) -> slice:
    """Which samples of a batch this process sees; the first where there is none left for it."""
    share = group.share(range(len(sampler.numbers(number))))
    return slice(share[0], share[-1] + 1) if len(share) else slice(0, 1)


def _share(sampler: Sampler, epoch: int, number: int, group: Group) -> Batch:
    """What this process sees of a batch; where there is nothing left for it, a sample that counts for nothing."""
    numbers = sampler.numbers(number)
    batch = sampler.samples(epoch, numbers[_place(sampler, number, group)])
    if len(group.share(numbers)):
        return batch
    return dataclasses.replace(batch, ignore=torch.ones_like(batch.ignore))


def _generator(seed: int, stream: int, epoch: int, number: int) -> torch.Generator:
    state = np.random.SeedSequence([seed, stream, epoch, number]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _spacing(volumes: Mapping[str, TrainingVolume], sampler: Sampler) -> tuple[float, float, float]:
    """Voxel size of the training volumes; logged where they differ."""
    sizes = {part.name: tuple(volumes[part.name].spacing_um) for part in sampler.parts}
    first = next(iter(sizes.values()))
    if any(not np.allclose(size, first, rtol=0.05) for size in sizes.values()):
        LOGGER.warning("the training volumes' voxel sizes differ, in um (Z, Y, X): %s", sizes)
    z, y, x = first
    return z, y, x


def _check_validation(validation: Validation, settings: Mapping[str, Any]) -> None:
    if validation.foreground_voxels:
        return
    found = f"the validation boxes hold {validation.annotated_voxels} annotated voxels and no foreground"
    if _keeps_best(settings):
        raise ModelError(
            f"keep: best and early_stopping_epochs choose the epoch with the best validation score, but {found}; set "
            "early_stopping_epochs to null and keep to last, or give the split a larger validation_fraction"
        )
    LOGGER.warning("%s: average precision, F1 and IoU stay empty in the training log", found)


def _keeps_best(settings: Mapping[str, Any]) -> bool:
    return settings["keep"] == "best" or (settings["keep"] == "auto" and settings["early_stopping_epochs"] is not None)


def _stops_early(state: TrainState, settings: Mapping[str, Any]) -> bool:
    patience = settings["early_stopping_epochs"]
    return patience is not None and state.epochs_done - state.best_epoch >= patience


def _scores(
    validation: Validation,
    network: nn.Module,
    settings: Mapping[str, Any],
    loss: losses.Loss,
    device: str,
    memory_mib: float,
    group: Group,
) -> Scores:
    """Validate in the first process, and tell the others."""
    scores = Scores(math.nan, math.nan, math.nan, math.nan)
    if group.is_first:
        # mirrored and turned tiles would take many times as long and rank the epochs alike
        predictor = prepare(
            network,
            settings,
            memory_mib=memory_mib,
            device=device,
            precision=settings["precision"],
            has_flips=False,
            has_rotations=False,
        )
        scores = validation.score(predictor, loss=loss, positive_weight=settings["positive_weight"])
    return Scores(*group.agreed(*dataclasses.astuple(scores)))


def _beginning(network: nn.Module, optimiser: torch.optim.Optimizer, average: WeightsAverage | None) -> TrainState:
    return TrainState(
        0,
        on_cpu(network.state_dict()),
        on_cpu(optimiser.state_dict()),
        None,
        0,
        -math.inf,
        [],
        average=on_cpu(average.network.state_dict()) if average else None,
    )


def _restore(
    state: TrainState, network: nn.Module, optimiser: torch.optim.Optimizer, average: WeightsAverage | None
) -> None:
    network.load_state_dict(state.network)
    optimiser.load_state_dict(state.optimiser)
    if average and state.average is not None:
        average.network.load_state_dict(state.average)


def _in_epoch(
    state: TrainState,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    average: WeightsAverage | None,
    steps: Steps,
    batches_done: int,
    seconds: float,
) -> TrainState:
    """The state within an epoch."""
    return dataclasses.replace(
        state,
        network=on_cpu(network.state_dict()),
        optimiser=on_cpu(optimiser.state_dict()),
        average=on_cpu(average.network.state_dict()) if average else None,
        batches_done=batches_done,
        losses=list(steps.losses),
        norms=list(steps.norms),
        seconds=seconds,
    )


def _after_epoch(
    state: TrainState,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    average: WeightsAverage | None,
    row: Row,
    scores: Scores,
    seconds: float,
    settings: Mapping[str, Any],
) -> TrainState:
    """The state after one more epoch."""
    weights = on_cpu(network.state_dict())
    averaged = on_cpu(average.network.state_dict()) if average else None
    goodness = scores.goodness(settings["validation_metric"])
    is_best = goodness > state.best_score
    return TrainState(
        epochs_done=state.epochs_done + 1,
        network=weights,
        optimiser=on_cpu(optimiser.state_dict()),
        best=(averaged or weights) if is_best else state.best,
        best_epoch=state.epochs_done + 1 if is_best else state.best_epoch,
        best_score=goodness if is_best else state.best_score,
        log=[*state.log, row],
        average=averaged,
        steps_done=int(row["step"]),
        seconds=seconds,
    )


def _say_beginning(
    where: torch.device,
    dtype: torch.dtype,
    sampler: Sampler,
    network: nn.Module,
    settings: Mapping[str, Any],
    group: Group,
) -> None:
    LOGGER.info(
        "training on %s in %s%s: %d %s an epoch, %d epochs, %d parameters",
        where,
        str(dtype).removeprefix("torch."),
        f" by {group.size} processes" if group.size > 1 else "",
        sampler.samples_per_epoch,
        "slices" if sampler.whole_slices else "patches",
        settings["epochs"],
        _parameters(network),
    )
    if settings["max_minutes"] is not None:
        LOGGER.info(
            "training ends after %g minutes at the latest, and its learning rate may follow the clock: equal seeds "
            "don't give equal bytes",
            settings["max_minutes"],
        )


def _say_end(state: TrainState, settings: Mapping[str, Any]) -> None:
    if state.epochs_done == settings["epochs"]:
        return
    if _stops_early(state, settings):
        LOGGER.info("stopped after epoch %d: no better since epoch %d", state.epochs_done, state.best_epoch)
    else:
        LOGGER.info("stopped in epoch %d: max_minutes (%g) are over", state.epochs_done, settings["max_minutes"])
