"""What jobs with a network take: steps and forward passes counted without taking them, and their arithmetic."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from voxloom import inference, network_reach, optimisation, plan_file, references
from voxloom.configuration import Configuration
from voxloom.errors import VolumeError
from voxloom.forecast_rates import JOINED_PER_SECOND, PYTORCH_MIB, stored_bytes
from voxloom.forecast_stages import Job, Need
from voxloom.forecast_volumes import Header
from voxloom.job_memory import block_mib, memory_for
from voxloom.network_memory import activation_bytes
from voxloom.plan import STEP_MEMORY
from voxloom.plan_cost import Machine, forward_flops, machine, training_seconds, weights_mib
from voxloom.symmetries import tile_symmetries
from voxloom.tiles import spread
from voxloom.training_memory import training_bytes


def training_jobs(configuration: Configuration, task: str, headers: Sequence[Header]) -> Iterator[Job]:
    """The jobs that plan and train a task's models.

    Parameters
    ----------
    configuration : Configuration
    task : str
    headers : sequence of Header
        Of all volumes.

    Yields
    ------
    job : Job
    """
    models, folds = configuration.tasks[task]["models"], len(configuration.folds[task])
    if any(plan_file.is_auto(settings) for settings in models.values()):
        yield Job("plan", task, lambda memory_mib: Need(0.0), work=sum(h.voxels for h in headers))
    for name in models:
        settings, waits_for = _settings(configuration, task, name)
        if settings is None:
            yield Job("train", f"{task}/{name}/{{fold}}", None, folds=folds, waits_for=waits_for)
            continue
        yield Job(
            "train",
            f"{task}/{name}/{{fold}}",
            lambda memory_mib, settings=settings: _training_need(  # type: ignore[misc]
                configuration, settings, headers, memory_mib
            ),
            work=_training_seconds(configuration, task, settings, headers),
            folds=folds,
        )


def _settings(configuration: Configuration, task: str, model: str) -> tuple[dict[str, Any] | None, str]:
    """A model's settings; none, and the plan that they wait for, where that isn't there."""
    settings = configuration.tasks[task]["models"][model]
    if not plan_file.is_auto(settings):
        return settings, ""
    plan = configuration.tasks[task]["plan"] or f"results/plans/{task}.yaml"
    if not Path(plan).is_file():
        return None, plan
    return plan_file.resolved_models({model: settings}, plan)[model], ""


def _machine(configuration: Configuration, settings: Mapping[str, Any]) -> Machine:
    resources = configuration.config["resources"]
    return machine(
        device=resources["device"],
        precision=settings["precision"],
        threads=resources["threads"],
        memory_mib=resources["memory_mib"],
    )


def _sample_voxels(settings: Mapping[str, Any], headers: Sequence[Header]) -> tuple[int, int, int]:
    """(Z, Y, X) of what a network sees of one sample, on its pooling grid."""
    size, patch = settings["input"]["size"], settings["input"]["patch_voxels"]
    planes = [header.shape[-2:] for header in headers]
    is_flat = settings["network"]["dimensions"] == 2
    if (
        size is None
        and is_flat
        and all(n <= edge for plane in planes for n, edge in zip(plane, patch[1:], strict=True))
    ):
        size = [max(plane[axis] for plane in planes) for axis in (0, 1)]  # whole slices
    factor = network_reach.size_factor(settings["network"])
    z, y, x = (-(-n // f) * f for n, f in zip(patch if size is None else (1, *size), factor, strict=True))
    return 1 if is_flat else z, y, x


def _training_need(
    configuration: Configuration, settings: Mapping[str, Any], headers: Sequence[Header], memory_mib: int
) -> Need:
    """A step of every process, and the training boxes that are held: half of the memory at most."""
    processes = configuration.config["resources"]["processes"]
    where = _machine(configuration, settings)
    a_step = (
        settings["network"],
        _sample_voxels(settings, headers),
        math.ceil(settings["batch_size"] / processes),
        where.precision,
    )
    how = {"moments": optimisation.moments(settings), "loss": settings["loss"]}
    step_mib = processes / 2**20 * training_bytes(*a_step, **how)
    held_mib, room = 0.0, (1 - STEP_MEMORY) * block_mib(memory_mib)
    for mib in (processes * header.voxels * (header.dtype.itemsize + 1) / 2**20 for header in headers):
        held_mib += mib if held_mib + mib <= room else 0.0
    if where.device != "cpu":
        return _on_gpu(Need(held_mib, gpu_mib=step_mib / processes), configuration.config["resources"])
    if held_mib + step_mib > block_mib(memory_mib):
        raise VolumeError(
            f"a training step takes {step_mib:.0f} MiB, the training boxes {held_mib:.0f}; raise resources.memory_mib "
            f"to at least {memory_for(held_mib + step_mib)}, or give the model a smaller batch_size or patch_voxels"
        )
    has_room = held_mib + 2 * step_mib <= block_mib(memory_mib)
    return Need(held_mib + processes / 2**20 * training_bytes(*a_step, **how, keeps_freed=has_room))


def _on_gpu(need: Need, resources: Mapping[str, Any]) -> Need:
    if 0 < resources["gpu_memory_mib"] < need.gpu_mib:
        raise VolumeError(
            f"a training step takes {need.gpu_mib:.0f} MiB on the GPU; raise resources.gpu_memory_mib to at least "
            f"{math.ceil(need.gpu_mib)}, or give the model a smaller batch_size or patch_voxels"
        )
    return need


def _training_seconds(
    configuration: Configuration, task: str, settings: Mapping[str, Any], headers: Sequence[Header]
) -> float:
    where = _machine(configuration, settings)
    sample = math.prod(_sample_voxels(settings, headers))
    samples = settings["samples_per_epoch"] or _samples(configuration.tasks[task]["split"], settings, headers)
    steps_s = training_seconds(
        forward_flops(settings["network"]), voxels=settings["epochs"] * samples * sample, machine=where
    )
    return min(steps_s, 60 * (settings["max_minutes"] or math.inf))


def _samples(split: Mapping[str, Any], settings: Mapping[str, Any], headers: Sequence[Header]) -> float:
    """Samples an epoch where the model doesn't say: every slice of the training boxes, or patches that cover them."""
    share = settings["train_share"] * (1 - split["validation_fraction"])
    share *= (1 - 1 / split["folds"]) if split["folds"] > 1 else 1 - split["test_fraction"]
    if settings["input"]["size"] is not None:
        return max(1.0, share * sum(header.shape[-3] for header in headers))
    patch = math.prod(_sample_voxels(settings, headers))
    return max(1.0, share * sum(math.prod(header.shape[-3:]) for header in headers) / patch)


def predict_jobs(configuration: Configuration, task: str, model: str, volume: str, header: Header) -> Iterator[Job]:
    """The jobs that predict a volume with a model, or with an ensemble's: one, or parts and one that joins them.

    Parameters
    ----------
    configuration : Configuration
    task, model, volume : str
    header : Header

    Yields
    ------
    job : Job
    """
    members = [_settings(configuration, task, n) for n in references.members(configuration.tasks[task], model)]
    test_time = references.test_time(configuration.tasks[task], model)
    name, folds = f"{task}/{model}/{{fold}}/{volume}", len(configuration.folds[task])
    voxels, parts = math.prod(header.shape[-3:]), configuration.config["resources"]["scatter"]
    spacing_um = header.spacing_um  # a model's are those of what it learnt from: volumes of a task have the same
    known = [{**settings, **test_time, "spacing_um": spacing_um} for settings, _ in members if settings is not None]
    if len(known) < len(members):
        waits_for = next(path for settings, path in members if settings is None)
        yield Job("predict", name, None, folds=folds, waits_for=waits_for)
        return
    predict = Job(
        "predict",
        name,
        lambda memory_mib: _prediction_need(configuration, task, known, header, memory_mib),
        work=sum(_prediction_seconds(configuration, task, settings, header) for settings in known),
        written_bytes=stored_bytes("prediction", voxels, 1),
        folds=folds,
    )
    if parts > 1:
        shared = {"work": predict.work / parts, "written_bytes": predict.written_bytes / parts, "parts": parts}
        yield replace(predict, stage="predict_part", name=f"{name}.{{scatteritem}}", **shared)  # type: ignore[arg-type]
        predict = replace(predict, work=voxels / JOINED_PER_SECOND, written_bytes=0.0)
    yield predict


def _prediction_need(
    configuration: Configuration, task: str, members: Sequence[Mapping[str, Any]], header: Header, memory_mib: int
) -> Need:
    mib, gpu_mib = inference.planned_mib(
        members,
        header,
        header.of_type("uint8"),
        weights_mib=sum(weights_mib(settings["network"]) for settings in members),
        memory_mib=block_mib(memory_mib),
        device=configuration.config["resources"]["device"],
        halo_voxels=configuration.tasks[task]["predict"]["halo_voxels"],
        tiles=configuration.tasks[task]["predict"]["tiles"],
        parts=configuration.config["resources"]["scatter"],
    )
    return Need(mib, gpu_mib=gpu_mib)


def scaled_slice_mib(configuration: Configuration, task: str, model: str) -> float:
    """What scoring takes for a model that sees scaled slices, which is also scored at their size: one forward pass.

    Parameters
    ----------
    configuration : Configuration
    task, model : str

    Returns
    -------
    mib : float
        0 for models at native resolution, and for those that wait for a plan.
    """
    members = [_settings(configuration, task, n)[0] for n in references.members(configuration.tasks[task], model)]
    slices = [
        math.prod(settings["input"]["size"]) * activation_bytes(settings["network"]) / 2**20
        for settings in members
        if settings is not None and settings["input"]["size"] is not None
    ]
    return PYTORCH_MIB + sum(slices) if slices else 0.0


def _prediction_seconds(configuration: Configuration, task: str, settings: Mapping[str, Any], header: Header) -> float:
    where = _machine(configuration, settings)
    voxels = math.prod(header.shape[-3:])
    if settings["input"]["size"] is not None:
        voxels = header.shape[-3] * math.prod(settings["input"]["size"])
    elif configuration.tasks[task]["predict"]["tiles"] == "averaged":
        factor, patch = network_reach.size_factor(settings["network"]), settings["input"]["patch_voxels"]
        tiles = [spread(n, edge=p, factor=f) for n, p, f in zip(header.shape[-3:], patch, factor, strict=True)]
        voxels = math.prod(edge * len(begins) for edge, begins in tiles[3 - settings["network"]["dimensions"] :])
        voxels *= header.shape[-3] if settings["network"]["dimensions"] == 2 else 1
    transforms = tile_symmetries(
        settings["network"]["dimensions"],
        has_flips=settings["test_time_flips"],
        has_rotations=settings["test_time_rotations"],
    )
    return forward_flops(settings["network"]) * voxels * len(transforms) / (where.gflops * 1e9)
