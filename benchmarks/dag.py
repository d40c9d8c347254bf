"""What Snakemake needs for a run of many jobs before any of them starts: seconds and memory of its dry run.

    python benchmarks/dag.py [--jobs 100 1000 10000] [--scatter 1 8] [--rounds 1] [--profile FILE]

Makes a project of as many volumes of 1024³ voxels as give about so many jobs, with this checkout's workflow. Their raw
files are one NRRD file with holes for voxels, under as many names: what is read of volumes before they are converted is
their headers. Every job's memory is looked at, as in any run.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import stage_jobs
import timing
import yaml

ROOT = Path(__file__).resolve().parents[1]
EDGE = 1024
JOBS_A_VOLUME = 6  # convert, annotate, distance, predict, segment, measure
MOST_S, MOST_MS, MOST_MIB = 10, 10, 1024
JOBS_A_PART = 3  # predict_part, segment_look, segment_part
HEADER = """\
NRRD0004
type: uint8
dimension: 3
sizes: {edge} {edge} {edge}
encoding: raw
space: right-anterior-superior
space directions: (0.001,0,0) (0,0.001,0) (0,0,0.001)
space origin: (0,0,0)
space units: "mm" "mm" "mm"

"""
CONFIG = """\
volumes: config/volumes.tsv
tasks: {{bench: [net]}}
resources: {{memory_mib: 4096, threads: 4, scatter: {scatter}}}
"""


@dataclass(frozen=True)
class Run:
    """A call of Snakemake.

    Parameters
    ----------
    jobs : int
        In its graph.
    seconds : float
        Of the processor: others on the machine make it wait, not compute.
    peak_mib : float
    """

    jobs: int
    seconds: float
    peak_mib: float


def jobs_of_a_volume(scatter: int) -> int:
    return JOBS_A_VOLUME + (JOBS_A_PART * scatter if scatter > 1 else 0)


@contextmanager
def project(jobs: int, scatter: int, *, edge: int = EDGE, model: Mapping[str, Any] | None = None) -> Iterator[Path]:
    """A folder with a configuration of about so many jobs."""
    task = {**stage_jobs.TASK, "models": {"net": model or stage_jobs.TASK["models"]["net"]}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config" / "tasks").mkdir(parents=True)
        (folder / "config" / "tasks" / "bench.yaml").write_text(yaml.safe_dump(task))
        (folder / "config" / "config.yaml").write_text(CONFIG.format(scatter=scatter))
        raw = folder / "raw"
        raw.mkdir()
        first = raw / "v0.nrrd"
        header = HEADER.format(edge=edge)
        first.write_text(header)
        os.truncate(first, len(header) + edge**3)
        names = [f"v{number}" for number in range(max(1, round(jobs / jobs_of_a_volume(scatter))))]
        for other in names[1:]:
            os.link(first, raw / f"{other}.nrrd")
        rows = "".join(f"{name}\traw/{name}.nrrd\n" for name in names)
        (folder / "config" / "volumes.tsv").write_text(f"volume\tpath\n{rows}")
        yield folder


def dry_run(folder: Path, profile: Path | None = None) -> Run:
    """Seconds and peak memory of a dry run in a folder."""
    words = [sys.executable, *(["-m", "cProfile", "-o", str(profile)] if profile else []), "-m", "snakemake"]
    words += ["--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder), "--cores", "all", "--dry-run"]
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen([*words, "--quiet", "rules"], stdout=said, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        said.seek(0)
        text = said.read()
    total = re.search(r"^total\s+(\d+)", text, re.MULTILINE)
    if status or total is None:
        raise SystemExit(f"{' '.join(words)} ended with status {status}:\n{text[-3000:]}")
    return Run(int(total[1]), used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, nargs="+", default=[100, 1000, 10000])
    parser.add_argument("--scatter", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--profile", type=Path, help="where cProfile writes what the last dry run did")
    options = parser.parse_args()
    timing.pin(1)
    for scatter in options.scatter:
        for jobs in options.jobs:
            with project(jobs, scatter) as folder:
                runs = [dry_run(folder, options.profile) for _ in range(options.rounds)]
            run = sorted(runs, key=lambda each: each.seconds)[len(runs) // 2]
            timing.record(
                f"dry run, {jobs} jobs, volumes in {scatter} parts [s of CPU]",
                target="jobs",
                ours=round(run.seconds, 1),
                peer=None,
                ratio=None,
                limit=f"at most {MOST_S} s and {MOST_MS} ms a job of {run.jobs}, {MOST_MIB} MiB",
                holds=run.seconds <= MOST_S + run.jobs * MOST_MS / 1000 and run.peak_mib <= MOST_MIB,
                peak_mib=round(run.peak_mib),
            )


if __name__ == "__main__":
    main()
