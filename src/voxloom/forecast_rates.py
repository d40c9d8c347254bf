"""How fast stages are, what they write and what their libraries take: figures, each with where it comes from."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

SHORT = 2.0
"""A job shorter than so many start-ups says nothing of a stage's speed."""


@dataclass(frozen=True)
class Rate:
    """The speed of a stage.

    Parameters
    ----------
    per_second : float
        Work that one thread does in a second: voxels; for train and predict the share of `plan_cost.Machine.gflops`.
    startup_s : float
        What a job takes before its first voxel: interpreter, libraries, compiled kernels.
    base_mib : float
        Memory of the interpreter and the libraries.
    source : str
        Where the speed comes from.
    """

    per_second: float
    startup_s: float
    base_mib: float
    source: str


HALF = "about half of what benchmarks/rates.py measured, 512^3 voxels of uint8 on an idle core of AMD EPYC (Zen 5)"
DEMO = "estimated: from jobs of the demo, 80 x 144 x 144 voxels of uint8 on one core of AMD EPYC, that last seconds"
COUNTED = "assumed: operations at the speed of voxloom.plan_cost"
SECTIONS = "measured: 6 sections of 512 x 512 pixels with drawn membranes on a core of Intel Xeon at 2.5 GHz, shared"
MEMBRANES = "measured: benchmarks/membrane_scores.py, 512 x 512 x 30 voxels on a core of a shared machine"

RATES = {
    "convert": Rate(140e6, 0.5, 0, HALF),
    "annotate": Rate(50e6, 3, 370, HALF),
    "annotate_import": Rate(8e6, 0.5, 75, DEMO),
    "distance": Rate(57e6, 1.5, 205, HALF),
    "split": Rate(140e6, 3, 165, HALF),
    "plan": Rate(10e6, 12, 500, DEMO),
    "train": Rate(1.0, 10, 530, COUNTED),
    "predict": Rate(1.0, 6, 430, COUNTED),
    "predict_part": Rate(1.0, 6, 430, COUNTED),
    "predict_fusion_weight": Rate(0.15e6, 5, 250, SECTIONS),
    "predict_fused": Rate(1.4e6, 2, 250, SECTIONS),
    "evaluate": Rate(39e6, 5, 250, HALF),
    "evaluate_membranes": Rate(0.7e6, 6, 250, MEMBRANES),
    "segment": Rate(61e6, 1.5, 235, HALF),
    "segment_look": Rate(45e6, 1.5, 235, HALF),
    "segment_part": Rate(36e6, 1.5, 235, HALF),
    "measure": Rate(15e6, 2, 255, HALF),
}
"""By stage. Start and memory of the libraries are estimates in every row, from the demo's jobs; convert counts its
memory itself. benchmarks/rates.py measures the stages without a network."""

JOINED_PER_SECOND = 140e6
"""Voxels a second of a job that joins the parts of a stage: the coarser levels; `HALF` of what was measured."""

CELLS_TIMES = 4.7
"""How much longer numbering cells takes than foreground: 13 million voxels a second, from what `SECTIONS` says."""

PYTORCH_MIB = 230
"""What PyTorch takes where a stage that is otherwise without it runs a network; an estimate."""

RUNS_BYTES = 0.5
"""On disk for each voxel, between the two passes over objects: runs that don't fit in memory, of noisy tissue."""

STORED = {"image": 1.0, "annotation": 0.03, "distance": 0.2, "prediction": 0.9, "segmentation": 0.01}
"""Bytes on disk for each byte of voxels, coarser levels included; the demo's stores, noise of images rounded up."""


def stored_bytes(kind: str, voxels: int, itemsize: int) -> float:
    """Bytes that a store takes on disk, roughly.

    Parameters
    ----------
    kind : str
        One of `STORED`.
    voxels, itemsize : int

    Returns
    -------
    size : float
    """
    return STORED[kind] * voxels * itemsize


def seconds(rate: Rate, work: float, threads: int) -> float:
    """Time of a job, roughly.

    Parameters
    ----------
    rate : Rate
    work : float
        Voxels, or for train and predict the seconds that they take by `plan_cost.Machine.gflops`.
    threads : int
        Those that share the work.

    Returns
    -------
    seconds : float
    """
    return rate.startup_s + work / (rate.per_second * threads)


def learnt_rates(rates: Mapping[str, Rate], jobs: Iterable[tuple[str, float, int, float]]) -> dict[str, Rate]:
    """The speed of stages as this machine has shown it.

    Parameters
    ----------
    rates : mapping of str to Rate
        What is known otherwise.
    jobs : iterable of (str, float, int, float)
        Stage, work, threads and measured seconds of jobs that ran.

    Returns
    -------
    rates : dict of str to Rate
        A stage with jobs that say something has their median speed; the others have what they had.

    Examples
    --------
    >>> jobs = [("distance", 2e9, 2, 101.5), ("distance", 2e6, 2, 1.5)]
    >>> rate = learnt_rates({"distance": RATES["distance"]}, jobs)["distance"]
    >>> rate.per_second, rate.source
    (10000000.0, 'results/benchmarks, 1 job')
    """
    shown: dict[str, list[float]] = {}
    for stage, work, threads, measured_s in jobs:
        rate = rates[stage]
        if work > 0 and measured_s >= SHORT * rate.startup_s:
            shown.setdefault(stage, []).append(work / (measured_s - rate.startup_s) / threads)
    return {
        stage: Rate(
            statistics.median(shown[stage]),
            rate.startup_s,
            rate.base_mib,
            f"results/benchmarks, {len(shown[stage])} job{'s' if len(shown[stage]) > 1 else ''}",
        )
        if stage in shown
        else rate
        for stage, rate in rates.items()
    }
