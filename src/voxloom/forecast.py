"""What a run will take before it starts: peak memory, disk and rough time of every job, and what can't fit."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxloom import forecast_stages
from voxloom.budget import smallest_memory
from voxloom.configuration import Configuration
from voxloom.errors import ConfigError, VolumeError
from voxloom.forecast_rates import RATES, Rate, learnt_rates, seconds
from voxloom.forecast_stages import Job
from voxloom.forecast_volumes import Header, header_of

STAGES = (
    "convert", "annotate", "annotate_import", "distance", "plan", "split", "train", "predict_part", "predict",
    "predict_fusion_weight", "predict_fused", "evaluate", "evaluate_membranes", "segment_look", "segment_part",
    "segment", "measure",
)  # fmt: skip


@dataclass(frozen=True)
class Forecast:
    """What a job will take.

    Parameters
    ----------
    job : Job
    memory_mib : float or None
        Peak of its process, interpreter and libraries included; None where it isn't known yet, or nothing fits.
    gpu_memory_mib : float
        Peak on the GPU.
    seconds : float or None
        Rough.
    refusal : str
        Why it can't run with the memory that it would be given; "" where it can.
    smallest_mib : int or None
        The smallest ``resources.memory_mib`` with which it could.
    """

    job: Job
    memory_mib: float | None
    gpu_memory_mib: float
    seconds: float | None
    refusal: str = ""
    smallest_mib: int | None = None


def jobs_of(configuration: Configuration) -> list[Job]:
    """Every job of a configuration but phantoms, downloads and the report, in the order of the stages.

    Parameters
    ----------
    configuration : Configuration

    Returns
    -------
    jobs : list of Job

    Raises
    ------
    VoxloomError
        If the header of a volume is there and would be refused.
    """
    headers = {volume: header_of(configuration, volume) for volume in configuration.volumes}
    known = {volume: header for volume, header in headers.items() if header is not None}
    jobs = [
        job for volume, header in known.items() for job in forecast_stages.volume_jobs(configuration, volume, header)
    ]
    for task in configuration.tasks:
        jobs += _task_jobs(configuration, task, known) if len(known) == len(headers) else []
    for volume in headers.keys() - known.keys():
        jobs.append(Job("convert", volume, None, waits_for=configuration.volumes[volume]["path"]))
    return sorted(jobs, key=lambda job: STAGES.index(job.stage))


def _task_jobs(configuration: Configuration, task: str, headers: Mapping[str, Header]) -> Iterator[Job]:
    from voxloom import forecast_networks  # PyTorch takes a second; the report's script is imported without

    every = list(headers.values())
    yield forecast_stages.split_job(configuration, task, every)
    yield from forecast_networks.training_jobs(configuration, task, every)
    for fusion in configuration.fused[task]:
        yield from forecast_stages.fusion_jobs(configuration, task, fusion, headers)
    for model in configuration.scored[task]:
        for volume, header in headers.items():
            if model not in configuration.fused[task]:
                yield from forecast_networks.predict_jobs(configuration, task, model, volume, header)
            yield from forecast_stages.object_jobs(configuration, task, model, volume, header)
        network_mib = forecast_networks.scaled_slice_mib(configuration, task, model)
        yield forecast_stages.evaluate_job(configuration, task, model, every, network_mib=network_mib)
        yield from forecast_stages.membrane_jobs(configuration, task, model, every)


def forecast(job: Job, *, memory_mib: int, rates: Mapping[str, Rate] = RATES) -> Forecast:
    """What one job will take.

    Parameters
    ----------
    job : Job
    memory_mib : int
        That it would be given.
    rates : mapping of str to Rate

    Returns
    -------
    forecast : Forecast
    """
    if job.takes is None:
        return Forecast(job, None, 0.0, None)
    rate = rates[job.stage]
    try:
        need = job.takes(memory_mib)
    except VolumeError as error:
        return Forecast(job, None, 0.0, None, str(error), smallest_memory(job.takes, at_least=memory_mib))
    time_s = seconds(rate, job.work, need.threads) if job.work else None
    return Forecast(job, rate.base_mib + need.mib, need.gpu_mib, time_s)


def forecasts(
    configuration: Configuration, *, jobs: Sequence[Job] | None = None, rates: Mapping[str, Rate] = RATES
) -> list[Forecast]:
    """What every job of a configuration will take.

    Parameters
    ----------
    configuration : Configuration
    jobs : sequence of Job, optional
        Those of `jobs_of` where they are left out.
    rates : mapping of str to Rate

    Returns
    -------
    forecasts : list of Forecast
    """
    memory_mib = configuration.config["resources"]["memory_mib"]
    jobs = jobs_of(configuration) if jobs is None else jobs
    return [forecast(job, memory_mib=memory_mib, rates=rates) for job in jobs]


def measured_rates(
    jobs: Sequence[Job], *, memory_mib: int, measured_s: Mapping[tuple[str, str], float]
) -> dict[str, Rate]:
    """The speed of stages as earlier jobs of the same configuration have shown it.

    Parameters
    ----------
    jobs : sequence of Job
    memory_mib : int
        That they were given.
    measured_s : mapping of (str, str) to float
        Seconds by stage and name, from results/benchmarks.

    Returns
    -------
    rates : dict of str to Rate
    """
    return learnt_rates(RATES, _measured(jobs, memory_mib, measured_s))


def _measured(
    jobs: Sequence[Job], memory_mib: int, measured_s: Mapping[tuple[str, str], float]
) -> Iterator[tuple[str, float, int, float]]:
    for job in jobs:
        times = [measured_s.get((job.stage, name)) for name in job.names()]
        for time_s in times:
            if time_s is not None and job.takes is not None:
                try:
                    yield job.stage, job.work, job.takes(memory_mib).threads, time_s
                except VolumeError:  # it ran with more memory than there is now
                    continue


def disk(found: Iterable[Forecast], folder: Path) -> dict[str, float]:
    """What a run writes, beside what is free.

    Parameters
    ----------
    found : iterable of Forecast
    folder : Path
        Of the results, or where they will be.

    Returns
    -------
    disk : dict of str to float
        "written_mib" of all jobs, "scratch_mib" of the one that keeps most beside, and "free_mib".
    """
    jobs = [each.job for each in found]
    return {
        "written_mib": sum(job.written_bytes * job.count for job in jobs) / 2**20,
        "scratch_mib": max((job.scratch_bytes for job in jobs), default=0.0) / 2**20,
        "free_mib": shutil.disk_usage(folder if folder.is_dir() else folder.parent).free / 2**20,
    }


def refuse(found: Iterable[Forecast], *, memory_mib: int) -> None:
    """Refuse a run of which a job can't fit.

    Parameters
    ----------
    found : iterable of Forecast
    memory_mib : int
        ``resources.memory_mib``.

    Raises
    ------
    ConfigError
        Naming every such job, and the smallest memory that would do for all of them.
    """
    lacking = [each for each in found if each.refusal]
    if not lacking:
        return
    smallest = [each.smallest_mib for each in lacking]
    lines = [
        f"  - {each.job.stage} of {forecast_stages.spoken(each.job.name)} "
        + (f"needs {each.smallest_mib} MiB" if each.smallest_mib else f"can't run: {each.refusal}")
        for each in lacking
    ]
    mend = ""
    if all(smallest):
        most = max(mib for mib in smallest if mib is not None)
        mend = f"\nset resources.memory_mib in config/config.yaml to at least {most}; it is {memory_mib}"
    count = "1 job doesn't" if len(lacking) == 1 else f"{len(lacking)} jobs don't"
    raise ConfigError(f"{count} fit the memory of a job:\n" + "\n".join(lines) + mend)


def as_dict(each: Forecast) -> dict[str, Any]:
    """A forecast as JSON can hold it.

    Parameters
    ----------
    each : Forecast

    Returns
    -------
    row : dict
    """

    def rounded(value: float | None) -> float | None:
        return None if value is None else round(value, 1)

    return {
        "stage": each.job.stage,
        "job": each.job.name,
        "folds": each.job.folds,
        "parts": each.job.parts,
        "jobs": each.job.count,
        "memory_mib": rounded(each.memory_mib),
        "gpu_memory_mib": rounded(each.gpu_memory_mib),
        "written_mib": rounded(each.job.written_bytes / 2**20),
        "seconds": rounded(each.seconds),
        "refusal": each.refusal,
        "smallest_memory_mib": each.smallest_mib,
        "waits_for": each.job.waits_for,
    }
