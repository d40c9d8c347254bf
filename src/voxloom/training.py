"""The training loop, its optimisers and its learning-rate schedules."""

from __future__ import annotations

import copy
import itertools
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from voxloom import devices, initialisation, losses, networks
from voxloom.augment import augment
from voxloom.checkpoint import TrainState
from voxloom.errors import ModelError
from voxloom.initialisation import Initial
from voxloom.labelled import PartBox, TrainingVolume
from voxloom.logs import PROGRESS_SECONDS
from voxloom.predictor import check_rotations, prepare
from voxloom.sampling import Batch, Sampler
from voxloom.validation import Scores, Validation

LOGGER = logging.getLogger("voxloom")
CHECK_STEPS = 10
AUGMENT, DROPOUT = 3, 4  # streams of random numbers


def _constant(*, learning_rate: float, **_: Any) -> float:
    return learning_rate


def _exponential(*, learning_rate: float, epoch: int, factor_per_epoch: float, **_: Any) -> float:
    return learning_rate * factor_per_epoch**epoch


def _cosine(*, learning_rate: float, step: int, steps: int, warmup_steps: int, **_: Any) -> float:
    if step < warmup_steps:
        return learning_rate * (step + 1) / (warmup_steps + 1)
    return learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, steps - warmup_steps)))


OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
"""adam adds the weight decay to the gradient (coupled L2), adamw takes it off the weights."""

SCHEDULES: dict[str, Callable[..., float]] = {"constant": _constant, "exponential": _exponential, "cosine": _cosine}
"""Rate of a step: the same; times factor_per_epoch after every epoch; a linear rise, then half a cosine to 0."""


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
        One row an epoch; see `LOG_COLUMNS`.
    kept_epoch : int
        The epoch whose weights were kept, counted from 1.
    counts : dict of str to int
        Annotated and foreground voxels that it learnt and validated from, samples and steps an epoch, parameters.
    """

    network: nn.Module
    settings: dict[str, Any]
    log: list[dict[str, float | int]]
    kept_epoch: int
    counts: dict[str, int]


LOG_COLUMNS = (
    "epoch",
    "step",
    "learning_rate",
    "training_loss",
    "validation_loss",
    "validation_average_precision",
    "validation_f1",
    "samples_per_s",
    "seconds",
)


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
        Called with a `TrainState` after every epoch.

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
    where = devices.choose_device(device)
    dtype = devices.choose_precision(settings["precision"], where)
    loss_function = losses.chosen(settings["loss"], target="mask")
    optimiser_class = _named(OPTIMISERS, "optimiser", settings["optimiser"]["name"])
    schedule = _named(SCHEDULES, "schedule", settings["schedule"]["name"])
    with devices.reproducible(threads=threads):
        sampler = Sampler(volumes, boxes=boxes, settings=settings, seed=seed, memory_mib=0.5 * memory_mib)
        sampler.refuse_reads_across_the_gap()
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
        network = networks.build(settings["network"], seed=seed)
        frozen = initialisation.begin(network, initial)
        network = network.to(where, memory_format=devices.memory_format(settings["network"]["dimensions"]))  # type: ignore[call-overload]
        optimiser = optimiser_class(
            initialisation.learning(network),
            lr=settings["optimiser"]["learning_rate"],
            weight_decay=settings["optimiser"]["weight_decay"],
        )
        state = resume or TrainState(0, _on_cpu(network), optimiser.state_dict(), None, 0, -math.inf, [])
        network.load_state_dict(state.network)
        optimiser.load_state_dict(state.optimiser)
        epochs, steps = settings["epochs"], sampler.steps_per_epoch
        LOGGER.info(
            "training on %s in %s: %d %s an epoch, %d epochs, %d parameters",
            where,
            str(dtype).removeprefix("torch."),
            sampler.samples_per_epoch,
            "slices" if sampler.whole_slices else "patches",
            epochs,
            _parameters(network),
        )

        while state.epochs_done < epochs and not _stops_early(state, settings):
            epoch, begin = state.epochs_done, time.monotonic()
            said = begin
            network.train()
            for module in frozen:
                module.eval()
            steps_losses: list[Tensor] = []
            learning_rate = 0.0
            for step, batch in enumerate(_prefetched(sampler, epoch, workers=1 if threads < 4 else threads // 2)):
                learning_rate = schedule(
                    step=epoch * steps + step,
                    steps=epochs * steps,
                    epoch=epoch,
                    learning_rate=settings["optimiser"]["learning_rate"],
                    factor_per_epoch=settings["schedule"]["factor_per_epoch"],
                    warmup_steps=settings["schedule"]["warmup_steps"],
                )
                for group in optimiser.param_groups:
                    group["lr"] = learning_rate
                image, mask, ignore = augment(
                    *(tensor.to(where, non_blocking=True) for tensor in (batch.image, batch.mask, batch.ignore)),
                    probabilities=settings["augment"],
                    spacing_um=spacing_um,
                    deviation=sampler.normalisation.unit_deviation,
                    generator=_generator(seed, AUGMENT, epoch, step),
                )
                image = image.contiguous(memory_format=devices.memory_format(image.ndim - 2))
                networks.draw_dropout(network, samples=len(image), generator=_generator(seed, DROPOUT, epoch, step))
                with devices.arithmetic(where, dtype):
                    logits = network(image)
                loss = loss_function(logits, mask, ignore, positive_weight=sampler.positive_weight)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                steps_losses.append(loss.detach())
                if (step + 1) % CHECK_STEPS == 0 or step + 1 == steps:
                    _check_finite(steps_losses, epoch * steps, learning_rate)
                    said = _log_steps(steps_losses, epoch, sampler, begin, said)
            seconds_learning = time.monotonic() - begin
            # mirrored and turned tiles would take many times as long and rank the epochs alike
            predictor = prepare(
                network,
                resolved,
                memory_mib=0.3 * memory_mib,
                device=str(where),
                precision=settings["precision"],
                has_flips=False,
                has_rotations=False,
            )
            scores = validation.score(predictor, loss=loss_function, positive_weight=sampler.positive_weight)
            row = _row(epoch, steps, learning_rate, steps_losses, scores, sampler, seconds_learning, begin)
            state = _advanced(state, network, optimiser, row, scores, keeps_best=_keeps_best(settings))
            _log_epoch(row, epochs)
            if on_checkpoint is not None:
                on_checkpoint(state)

        if _stops_early(state, settings) and state.epochs_done < epochs:
            LOGGER.info("stopped after epoch %d: no better since epoch %d", state.epochs_done, state.best_epoch)
        network.load_state_dict(state.best if state.best is not None else state.network)
        counts = {
            "parameters": _parameters(network),
            "training_annotated_voxels": sampler.annotated_voxels,
            "training_foreground_voxels": sampler.foreground_voxels,
            "validation_annotated_voxels": validation.annotated_voxels,
            "validation_foreground_voxels": validation.foreground_voxels,
            "samples_per_epoch": sampler.samples_per_epoch,
            "steps_per_epoch": steps,
        }
        kept = state.best_epoch if state.best is not None else state.epochs_done
        return Trained(network.cpu().eval(), resolved, state.log, kept, counts)


def _named(known: Mapping[str, Any], what: str, name: str) -> Any:
    if name not in known:
        raise ModelError(f"{what}.name must be one of {', '.join(sorted(known))}, got {name!r}")
    return known[name]


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _on_cpu(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}


def _generator(seed: int, stream: int, epoch: int, step: int) -> torch.Generator:
    state = np.random.SeedSequence([seed, stream, epoch, step]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


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
            f"early_stopping_epochs chooses the epoch with the best validation average precision, but {found}; "
            "set it to null, or give the split a larger validation_fraction"
        )
    LOGGER.warning("%s: average precision and F1 stay empty in the training log", found)


def _keeps_best(settings: Mapping[str, Any]) -> bool:
    return settings["early_stopping_epochs"] is not None


def _stops_early(state: TrainState, settings: Mapping[str, Any]) -> bool:
    return _keeps_best(settings) and state.epochs_done - state.best_epoch >= settings["early_stopping_epochs"]


def _prefetched(sampler: Sampler, epoch: int, *, workers: int) -> Iterator[Batch]:
    """The batches of an epoch in order; the next ones are made while the network learns."""
    waiting = iter(range(sampler.steps_per_epoch))
    made: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for step in itertools.islice(waiting, workers + 1):
            made.append(pool.submit(sampler.batch, epoch, step))
        try:
            while made:
                batch = made.popleft().result()
                for step in itertools.islice(waiting, 1):
                    made.append(pool.submit(sampler.batch, epoch, step))
                yield batch
        finally:
            for future in made:
                future.cancel()


def _check_finite(steps_losses: list[Tensor], before: int, learning_rate: float) -> None:
    values = torch.stack(steps_losses[-CHECK_STEPS:])
    bad = torch.nonzero(~torch.isfinite(values)).flatten()
    if len(bad):
        step = before + len(steps_losses) - len(values) + int(bad[0]) + 1
        raise ModelError(
            f"the loss became {float(values[bad[0]])} at step {step}, at a learning rate of {learning_rate:.3g}: "
            f"training diverged; lower optimiser.learning_rate (to {learning_rate / 10:.1g}, say), or set precision to "
            "float32"
        )


def _row(
    epoch: int,
    steps: int,
    learning_rate: float,
    steps_losses: list[Tensor],
    scores: Scores,
    sampler: Sampler,
    seconds_learning: float,
    begin: float,
) -> dict[str, float | int]:
    values = (
        epoch + 1,
        (epoch + 1) * steps,
        learning_rate,
        float(torch.stack(steps_losses).double().mean()),
        scores.loss,
        scores.average_precision,
        scores.f1,
        sampler.samples_per_epoch / seconds_learning,
        time.monotonic() - begin,
    )
    return dict(zip(LOG_COLUMNS, values, strict=True))


def _advanced(
    state: TrainState,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    row: dict[str, float | int],
    scores: Scores,
    *,
    keeps_best: bool,
) -> TrainState:
    """The state after one more epoch."""
    weights = _on_cpu(network)
    is_best = scores.average_precision > state.best_score
    return TrainState(
        epochs_done=state.epochs_done + 1,
        network=weights,
        optimiser=copy.deepcopy(optimiser.state_dict()),
        best=(weights if is_best else state.best) if keeps_best else None,
        best_epoch=state.epochs_done + 1 if is_best else state.best_epoch,
        best_score=scores.average_precision if is_best else state.best_score,
        log=[*state.log, row],
    )


def _log_steps(steps_losses: list[Tensor], epoch: int, sampler: Sampler, begin: float, said: float) -> float:
    """Now and then a line; returns when the last one was said."""
    now, done, steps = time.monotonic(), len(steps_losses), sampler.steps_per_epoch
    if now - said < PROGRESS_SECONDS or done == steps:
        return said
    seconds = (now - begin) / done
    LOGGER.info(
        "epoch %d: step %d/%d, loss %.4f, %.3g samples/s, %.0f s left in this epoch",
        epoch + 1,
        done,
        steps,
        float(torch.stack(steps_losses[-CHECK_STEPS:]).mean()),
        sampler.settings["batch_size"] / seconds,
        (steps - done) * seconds,
    )
    return now


def _log_epoch(row: Mapping[str, float], epochs: int) -> None:
    LOGGER.info(
        "epoch %d/%d: loss %.4f, validation loss %.4f, AP %.4f, F1 %.4f; %.3g samples/s, %.0f s left",
        row["epoch"],
        epochs,
        row["training_loss"],
        row["validation_loss"],
        row["validation_average_precision"],
        row["validation_f1"],
        row["samples_per_s"],
        row["seconds"] * (epochs - row["epoch"]),
    )
