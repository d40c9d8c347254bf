"""The forecast of a run as people and as programs read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from voxloom import forecast
from voxloom.configuration import Configuration
from voxloom.forecast import STAGES, Forecast

RESULTS = Path("results")


def with_own_rates(configuration: Configuration) -> list[Forecast]:
    """What every job will take, at the speed that jobs in results/benchmarks showed where there are any.

    Parameters
    ----------
    configuration : Configuration

    Returns
    -------
    forecasts : list of Forecast
    """
    from voxloom.report_run import read_benchmarks

    jobs = forecast.jobs_of(configuration)
    ran = read_benchmarks(RESULTS / "benchmarks")
    rates = forecast.measured_rates(
        jobs,
        memory_mib=configuration.config["resources"]["memory_mib"],
        measured_s={(stage, job): s for stage, job, s in zip(ran["stage"], ran["job"], ran["time_s"], strict=True)},
    )
    return forecast.forecasts(configuration, jobs=jobs, rates=rates)


def planned_stages(
    config: Mapping[str, Any],
    *,
    volumes: Mapping[str, Any],
    tasks: Mapping[str, Any],
    resources: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """What each stage was planned to take, by the speeds that voxloom came with, for the report of a run.

    Parameters
    ----------
    config, volumes, tasks : mapping
        Of the configuration, see `voxloom.configuration.Configuration`; ``resources`` are not read.
    resources : mapping
        Those of the report's job: "mem_mb" of a job, "job_threads", "device", "gpu_memory_mib", "processes",
        "scatter".

    Returns
    -------
    stages : list of dict
        From `stages_of`.
    """
    given = {
        "memory_mib": int(resources["mem_mb"]),
        "threads": int(resources["job_threads"]),
        "device": resources["device"],
        "gpu_memory_mib": int(resources["gpu_memory_mib"]),
        "processes": int(resources["processes"]),
        "scatter": int(resources["scatter"]),
    }
    configuration = Configuration({**config, "resources": given}, dict(volumes), dict(tasks))
    return stages_of([forecast.as_dict(each) for each in forecast.forecasts(configuration)])


def document(configuration: Configuration, found: Sequence[Forecast]) -> dict[str, Any]:
    """A whole forecast as JSON can hold it.

    Parameters
    ----------
    configuration : Configuration
    found : sequence of Forecast

    Returns
    -------
    document : dict
        "resources", "jobs", "stages" (sums and peaks of their jobs), "disk", and "seconds" of all jobs.
    """
    rows = [forecast.as_dict(each) for each in found]
    return {
        "resources": configuration.config["resources"],
        "jobs": rows,
        "stages": stages_of(rows),
        "disk": {key: round(value, 1) for key, value in forecast.disk(found, RESULTS).items()},
        "seconds": round(sum(row["jobs"] * (row["seconds"] or 0.0) for row in rows), 1),
    }


def stages_of(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the jobs of each stage take together.

    Parameters
    ----------
    rows : sequence of mapping
        From `voxloom.forecast.as_dict`.

    Returns
    -------
    stages : list of dict
        "stage", "jobs", "memory_mib" (of the largest job), "written_mib" and "seconds" (sums); None where not known.
    """
    found = []
    for stage in STAGES:
        own = [row for row in rows if row["stage"] == stage]
        if own:
            known = [row for row in own if row["seconds"] is not None]
            peaks = [row["memory_mib"] for row in own if row["memory_mib"] is not None]
            found.append(
                {
                    "stage": stage,
                    "jobs": sum(row["jobs"] for row in own),
                    "memory_mib": max(peaks, default=None),
                    "written_mib": round(sum(row["jobs"] * row["written_mib"] for row in own), 1),
                    "seconds": round(sum(row["jobs"] * row["seconds"] for row in known), 1) if known else None,
                }
            )
    return found


def text(document: Mapping[str, Any]) -> str:
    """A forecast as a table.

    Parameters
    ----------
    document : mapping
        From `document`.

    Returns
    -------
    text : str
    """
    resources, disk = document["resources"], document["disk"]
    lines = [("stage", "job", "memory", "disk", "time")]
    for row in document["jobs"]:
        times = f" x {row['jobs']}" if row["jobs"] > 1 else ""
        lines.append(
            (
                row["stage"],
                row["job"].replace("{fold}", "0" if row["folds"] == 1 else "*").replace("{scatteritem}", "*"),
                _memory(row),
                _size(row["written_mib"]) + times if row["written_mib"] else "",
                "" if row["seconds"] is None else time(row["seconds"]) + times,
            )
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    aligned = ["<", "<", ">", ">", ">"]
    table = [
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(line, aligned, widths, strict=True))
        for line in lines
    ]
    lacks = " - MORE THAN IS FREE" if disk["written_mib"] + disk["scratch_mib"] > disk["free_mib"] else ""
    return "\n".join(
        [
            f"A job may take {_size(resources['memory_mib'])} and {resources['threads']} threads "
            f"(resources in config.yaml); memory is the peak of a job, time is rough.",
            "",
            *(line.rstrip() for line in table),
            "",
            f"disk: {_size(disk['written_mib'])} and {_size(disk['scratch_mib'])} in between, "
            f"{_size(disk['free_mib'])} are free{lacks}",
            f"time: {time(document['seconds'])}, one job after another",
        ]
    )


def _memory(row: Mapping[str, Any]) -> str:
    if row["waits_for"]:
        return f"not known before {row['waits_for']}"
    if row["refusal"]:
        return "CAN'T FIT" + (f": needs {row['smallest_memory_mib']} MiB" if row["smallest_memory_mib"] else "")
    gpu = f" + {_size(row['gpu_memory_mib'])} GPU" if row["gpu_memory_mib"] else ""
    return _size(row["memory_mib"]) + gpu


def _size(mib: float) -> str:
    """A size with its unit.

    Examples
    --------
    >>> _size(800), _size(20480), _size(0.2)
    ('800 MiB', '20.0 GiB', '0.2 MiB')
    """
    if mib >= 10 * 1024:
        return f"{mib / 1024:.1f} GiB"
    return f"{mib:.0f} MiB" if mib >= 10 else f"{mib:.1f} MiB"


def time(seconds: float) -> str:
    """A time with its unit, as roughly as it is known.

    Parameters
    ----------
    seconds : float

    Returns
    -------
    text : str

    Examples
    --------
    >>> time(7.4), time(200), time(20_000)
    ('7 s', '3 min', '5.6 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
