"""The training loop."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from voxloom import (
    devices,
    divergence,
    heap,
    networks,
    optimisation,
    process_group,
    training_log,
    training_peak,
    training_setup,
    training_state,
)
from voxloom.augment import enabled
from voxloom.checkpoint import TrainState
from voxloom.divergence import Steps
from voxloom.initialisation import Initial
from voxloom.labelled import PartBox, TrainingVolume
from voxloom.objective import auxiliary_weight, objective
from voxloom.optimisation import Progress
from voxloom.process_group import ALONE, Group
from voxloom.sampling import Examples
from voxloom.training_log import Meter, Row
from voxloom.training_peak import Peak
from voxloom.training_setup import Setup

LOGGER = logging.getLogger("voxloom")
CHECK_STEPS = 10
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
    shared_folder: Path | None = None,
    **arguments: Any,
) -> Trained:
    """Train a network by several processes, each with a share of every batch.

    Parameters
    ----------
    volumes : mapping of str to TrainingVolume
        Arrays or stored volumes, which the other processes open too.
    processes : int
        On GPUs each has one of its own; on a CPU they share memory and threads. A job of Slurm with several nodes has
        them on all of its nodes.
    memory_mib, threads, device, on_checkpoint, on_epoch
        As in `train`; memory and threads of all processes of a machine together.
    shared_folder : Path, optional
        Which all nodes see; needed where there are several.
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
    nodes = process_group.nodes_of_job() if processes > 1 else []
    neighbours = math.ceil(processes / max(1, len(nodes)))
    share = {
        "volumes": volumes,
        "memory_mib": memory_mib / neighbours,
        "threads": max(1, threads // neighbours),
        "device": device,
        **arguments,
    }
    with process_group.started(
        processes, device=device, work=train, arguments=share, nodes=nodes, shared_folder=shared_folder
    ) as group:
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
    gpu_memory_mib: float = 0,
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
    gpu_memory_mib : float
        Of each process; 0 for what is free.
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
    devices.limit_gpu_memory(where, gpu_memory_mib)
    if where.type == "cpu":
        devices.return_freed_memory(largest_bytes=training_peak.largest_bytes(settings, group=group))
    with devices.reproducible(threads=threads, deterministic=settings["deterministic"]):
        before_mib = training_peak.memory_before_mib(settings)
        setup = training_setup.set_up(
            volumes,
            boxes=boxes,
            settings=settings,
            seed=seed,
            memory_mib=memory_mib,
            threads=threads,
            device=where,
            initial=initial,
            group=group,
        )
        sampler, batches, learner = setup.sampler, setup.batches, setup.learner
        state = resume or learner.beginning()
        learner.restore(state)
        forward = setup.forward()
        epochs, count, together = settings["epochs"], sampler.steps_per_epoch, settings["accumulate_batches"]
        steps_per_epoch = math.ceil(count / together)
        clock = _Clock(settings["max_minutes"], spent_s=state.seconds)
        peak = setup.peak(before_mib=before_mib, memory_mib=memory_mib)
        if peak.kept:
            heap.keep_freed()
        setup.say()
        training_peak.say_planned(peak, memory_mib=memory_mib)
        for former in state.log if on_epoch else ():
            on_epoch(former)  # type: ignore[misc]

        while state.epochs_done < epochs and not training_state.stops_early(state, settings) and not clock.is_over:
            epoch, saved, rate = state.epochs_done, time.monotonic(), 0.0
            steps = Steps(state.losses, state.norms)
            meter = Meter(
                epoch,
                epochs,
                samples=sampler.samples_per_epoch,
                steps=steps_per_epoch,
                before=len(steps),
                planned_mib=peak.total,
            )
            loader = batches.ahead(epoch, range(state.batches_done, count), workers=setup.workers)
            setup.begin_to_learn()
            for number, batch in loader:
                batches.draw_dropout(learner.network, epoch, number)
                image, mask, ignore = batches.seen(batch, epoch, number)
                is_step = (number + 1) % together == 0 or number + 1 == count
                with group.gradients(setup.parallel, are_joined=is_step):
                    with devices.arithmetic(where, setup.dtype):
                        outputs = forward(image)
                    progress = Progress(state.steps_done + len(steps), epochs * steps_per_epoch, epoch, clock.share)
                    loss = objective(
                        outputs,
                        mask,
                        ignore,
                        loss=setup.loss,
                        positive_weight=sampler.positive_weight,
                        auxiliary_weight=auxiliary_weight(settings["loss"], step=progress.step),
                        group=group,
                    )
                    loss = loss / min(together, count - number // together * together)
                    (loss * group.size).backward()  # type: ignore[no-untyped-call]
                steps.add(loss)
                if not is_step:
                    continue
                rate = optimisation.learning_rate(settings, progress)
                steps.end(learner.step(progress, rate=rate))
                clock.look(group)
                is_last = number + 1 == count or clock.is_over
                if len(steps) % CHECK_STEPS == 0 or is_last:
                    bad = steps.read()
                    if bad is not None:
                        seen = [batches.whole(epoch, k) for k in range(count)[bad * together : (bad + 1) * together]]
                        divergence.stop(
                            steps, bad, seen, before=state.steps_done, learning_rate=rate, batch_file=batch_file
                        )
                    meter.say_step(steps.losses)
                    if on_checkpoint and not is_last and time.monotonic() - saved >= 60 * checkpoint_minutes:
                        on_checkpoint(
                            learner.within_epoch(state, steps, batches_done=number + 1, seconds=clock.spent_s)
                        )
                        saved = time.monotonic()
                if clock.is_over:
                    break
            meter.learnt()
            scores = setup.scores()
            row = meter.row(state.steps_done + len(steps), rate, steps.losses, steps.norms, scores, loader.waited_s)
            clock.look(group)
            state = learner.after_epoch(state, row, scores, seconds=clock.spent_s)
            training_log.say_epoch(row, epochs=epochs, seconds_left=clock.left_s)
            if on_epoch:
                on_epoch(row)
            if on_checkpoint:
                on_checkpoint(state)

        _say_end(state, settings)
        training_peak.say_measured(peak)
        return _trained(state, setup, peak, seed=seed)


class _Clock:
    """The time that a training may take, and how much of it is over; in several processes the first one's clock."""

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
    def is_over(self) -> bool:
        return self.spent_s >= self.seconds

    @property
    def left_s(self) -> float:
        return self.seconds - self.spent_s


def _trained(state: TrainState, setup: Setup, peak: Peak, *, seed: int) -> Trained:
    """The network of the kept epoch, and what belongs to it."""
    settings, sampler, validation = setup.settings, setup.sampler, setup.validation
    last, best = state.average or state.network, state.best
    is_best = training_state.keeps_best(settings) and best is not None
    others = {}
    if best is not None and state.best_epoch != state.epochs_done:
        others = {"last": last} if is_best else {"best": best}
    network = networks.build(settings["network"], seed=seed)
    network.load_state_dict(best if best is not None and is_best else last)
    counts = {
        "parameters": networks.parameters(network),
        "training_annotated_voxels": sampler.scan.annotated_voxels,
        "training_foreground_voxels": sampler.scan.foreground_voxels,
        "validation_annotated_voxels": validation.annotated_voxels,
        "validation_foreground_voxels": validation.foreground_voxels,
        "samples_per_epoch": sampler.samples_per_epoch,
        "steps_per_epoch": math.ceil(sampler.steps_per_epoch / settings["accumulate_batches"]),
        "planned_memory_mib": round(peak.total - peak.before),
    }
    return Trained(
        network=network.eval(),
        settings=settings,
        log=state.log,
        kept_epoch=state.best_epoch if is_best else state.epochs_done,
        counts=counts,
        others=others,
        examples=sampler.examples(EXAMPLES) if enabled(settings["augment"]) else None,
    )


def _say_end(state: TrainState, settings: Mapping[str, Any]) -> None:
    if state.epochs_done == settings["epochs"]:
        return
    if training_state.stops_early(state, settings):
        LOGGER.info("stopped after epoch %d: no better since epoch %d", state.epochs_done, state.best_epoch)
    else:
        LOGGER.info("stopped in epoch %d: max_minutes (%g) are over", state.epochs_done, settings["max_minutes"])
