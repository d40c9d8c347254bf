"""Jobs that made the results: what went in and came out, when, where, and at what cost.

From what Snakemake keeps of them, `.snakemake/metadata` and its benchmark tables, and from their own logs.
"""

from __future__ import annotations

import base64
import csv
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxloom.logs import MACHINE

RECORDS = Path(".snakemake/metadata")


@dataclass(frozen=True)
class Job:
    """A job that ended well.

    Parameters
    ----------
    name : str
        Rule and what it was for: "predict/vessels/best/0/brain".
    rule : str
    inputs, outputs : tuple of str
        Paths, from the folder in which Snakemake ran; outputs that are there no longer are left out.
    started, ended : float
        Seconds since 1970; of the results of a cache, when they were taken from there.
    measured : dict of str to float
        "s", "max_rss" (MiB), "cpu_time" (s) and the rest of Snakemake's benchmark table; empty without one.
    machine : str
        What the job said of the machine; empty where its log isn't there.
    """

    name: str
    rule: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    started: float
    ended: float
    measured: dict[str, float]
    machine: str


def finished_jobs(folder: str | Path = ".") -> list[Job]:
    """Jobs whose results are there.

    Parameters
    ----------
    folder : str or Path
        In which Snakemake ran.

    Returns
    -------
    jobs : list of Job
        By the time at which they ended. None where Snakemake was told to keep nothing (--drop-metadata).
    """
    folder = Path(folder)
    jobs: dict[str, tuple[dict[str, Any], list[str]]] = {}
    for output, record in _records(folder / RECORDS):
        if (folder / output).exists() and record.get("log"):
            jobs.setdefault(record["log"][0], (record, []))[1].append(output)
    found = [_job(folder, Path(log), record, sorted(outputs)) for log, (record, outputs) in jobs.items()]
    return sorted(found, key=lambda job: (job.ended, job.name))


def _records(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Outputs and what is known of their jobs; names are base64, in pieces that a file name can hold."""
    for path in folder.rglob("*"):
        if path.is_file():
            *pieces, last = path.relative_to(folder).parts
            name = "".join([*(piece.removeprefix("@") for piece in pieces), last])
            yield base64.urlsafe_b64decode(name).decode(), json.loads(path.read_text())


def _job(folder: Path, log: Path, record: dict[str, Any], outputs: list[str]) -> Job:
    inside = Path(*log.parts[log.parts.index("logs") + 1 :]).with_suffix("") if "logs" in log.parts else log
    benchmark = Path("results/benchmarks", inside).with_name(f"{inside.name}.tsv")
    return Job(
        name=inside.as_posix(),
        rule=record["rule"],
        inputs=tuple(record["input"] or ()),
        outputs=tuple(outputs),
        started=float(record["starttime"] or 0.0),
        ended=float(record["endtime"] or 0.0),
        measured=_measured(folder / benchmark),
        machine=_machine(folder / log),
    )


def _measured(benchmark: Path) -> dict[str, float]:
    if not benchmark.is_file():
        return {}
    with open(benchmark, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t")]
    return {name: float(value) for name, value in rows[-1].items() if re.fullmatch(r"-?[0-9.e+-]+", value or "")}


def _machine(log: Path) -> str:
    if not log.is_file():
        return ""
    with open(log, encoding="utf-8", errors="replace") as lines:
        beginning = itertools.islice(lines, 5)
        return next((line.partition(MACHINE)[2].strip() for line in beginning if MACHINE in line), "")
