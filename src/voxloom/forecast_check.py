"""Refuses a job that can't fit its memory before anything runs; asked by Snakemake's main process for each job.

Jobs with a network wait for PyTorch to say what they take: those are `voxloom plan`'s. Imported while the Snakefile is
parsed, maybe where nothing but Snakemake is installed, so it imports what the stages need when it is asked.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from voxloom.configuration import Configuration
from voxloom.errors import ConfigError, VolumeError, VoxloomError
from voxloom.job_memory import block_mib

if TYPE_CHECKING:
    from voxloom.forecast_stages import Job
    from voxloom.forecast_volumes import Header

CAN_LOOK = all(importlib.util.find_spec(name) for name in ("numba", "tensorstore"))
"""Whether the stages' libraries are here; with --use-conda they may be in the jobs' environment alone."""

MOST_BYTES_PER_VOXEL = 64
"""More than any stage holds for a voxel: where all of a volume fits at so many, all of its jobs do."""

NAMES = {
    "convert": "{volume}",
    "annotate": "{task}/{volume}",
    "annotate_import": "{task}/{volume}{annotator}",
    "distance": "{task}/{volume}",
    "split": "{task}",
    "predict_fusion_weight": "{task}/{model}/{{fold}}",
    "predict_fused": "{task}/{model}/{{fold}}/{volume}",
    "evaluate": "{task}/{model}/{{fold}}",
    "evaluate_membranes": "{task}/{model}/{{fold}}",
    "segment": "{task}/{model}/{{fold}}/{volume}",
    "segment_look": "{task}/{model}/{{fold}}/{volume}.{{scatteritem}}",
    "segment_part": "{task}/{model}/{{fold}}/{volume}.{{scatteritem}}",
    "measure": "{task}/{model}/{{fold}}/{volume}",
}
"""Rules whose jobs are looked at, and how those are called in `voxloom.forecast_stages`."""


class JobCheck:
    """Knows the jobs of a configuration, each volume's from when it is first asked for.

    Parameters
    ----------
    configuration : Configuration
    """

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self._header = cache(self._header_of)
        self._jobs = cache(self._jobs_of)

    def refuse(self, rule: str, wildcards: dict[str, Any]) -> None:
        """Refuse a job that can't fit the memory that it will be given.

        Parameters
        ----------
        rule : str
        wildcards : dict of str to str

        Raises
        ------
        ConfigError
            Naming the job and the smallest memory that would do.
        """
        if rule not in NAMES or not CAN_LOOK:
            return
        volumes = [wildcards["volume"]] if "volume" in wildcards else [*self.configuration.volumes]
        if all(self._is_small(volume) for volume in volumes):
            return
        name = NAMES[rule].format(**wildcards)
        job = self._jobs(*volumes).get((rule, name))
        memory_mib = self.configuration.config["resources"]["memory_mib"]
        if job is None or job.takes is None:
            return
        from voxloom import forecast_stages
        from voxloom.budget import smallest_memory

        try:
            job.takes(memory_mib)
        except VolumeError as error:
            smallest = smallest_memory(job.takes, at_least=memory_mib)
            mend = f"set it to at least {smallest}" if smallest else str(error)
            raise ConfigError(
                f"{rule} of {forecast_stages.spoken(name)} can't fit resources.memory_mib in config/config.yaml, "
                f"which is {memory_mib}; {mend}. `voxloom plan` says what every job takes"
            ) from None

    def _is_small(self, volume: str) -> bool:
        phantom = self.configuration.config["phantom"].get(volume)
        header = None if phantom else self._header(volume)
        voxels = math.prod(phantom["shape"]) if phantom else header.voxels if header else 0
        return voxels * MOST_BYTES_PER_VOXEL <= block_mib(self.configuration.config["resources"]["memory_mib"]) * 2**20

    def _header_of(self, volume: str) -> Header | None:
        from voxloom.forecast_volumes import header_of

        try:
            return header_of(self.configuration, volume)
        except VoxloomError:  # rule convert says so in its log, with the mend
            return None

    def _jobs_of(self, *volumes: str) -> dict[tuple[str, str], Job]:
        return {(job.stage, job.name): job for job in self._every_job(volumes)}

    def _every_job(self, volumes: tuple[str, ...]) -> Iterator[Job]:
        from voxloom import forecast_stages

        given = self.configuration
        headers = {volume: header for volume in volumes if (header := self._header(volume)) is not None}
        for volume, header in headers.items():
            yield from forecast_stages.volume_jobs(given, volume, header)
        for task in given.tasks:
            yield forecast_stages.split_job(given, task, [*headers.values()])
            for fusion in given.fused[task]:
                yield from forecast_stages.fusion_jobs(given, task, fusion, headers)
            for model in given.scored[task]:
                yield forecast_stages.evaluate_job(given, task, model, [*headers.values()])
                yield from forecast_stages.membrane_jobs(given, task, model, [*headers.values()])
                for volume, header in headers.items():
                    yield from forecast_stages.object_jobs(given, task, model, volume, header)
