"""Every stage at any size: growth of time, memory within the budget, threads, shards. Volumes are made by streaming.

    python benchmarks/stages.py growth [--edges 64 128 256 512 1024] [--rounds 3]
    python benchmarks/stages.py budget [--shapes 512x512x512 2048x1024x1024] [--memory-mib 2048]
    python benchmarks/stages.py threads [--threads 1 2] [--edges 256] [--rounds 5]
    python benchmarks/stages.py shards [--shards 1 2 4] [--edges 512] [--rounds 3]

The stages are the workflow's own scripts on a noisy volume with tubes (`stage_jobs.py`), each in a process of its own.
Time begins after one run of the stage on 64³ voxels, so that it is work and not the loading of libraries. Growth
leaves out what takes no longer for a larger volume (`stage_jobs.BOUNDED`: figures, intervals), and is measured with
memory that the host of a virtual machine has at hand (`timing.have_at_hand`).
"""

import argparse
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import stage_jobs
import timing
import tissue

from voxloom import io

WARM_SHAPE = (64, 64, 64)
LINEAR_FROM = 256**3
LONG_FROM = 512**3
OFTENER = 3
"""How many times as often volumes of less than `LONG_FROM` voxels are measured."""

AT_HAND_BYTES, AT_HAND_MIB = 4, 256
"""Memory that a stage and what it writes may take: for each voxel, and beside."""

SLOPE_WITHIN = 0.05
OF_BUDGET = 1.1
NOT_SLOWER = 1.05

Measured = dict[str, list[dict[str, float]]]


def shape_of(words: str) -> tissue.Shape:
    z, y, x = (int(word) for word in words.split("x"))
    return z, y, x


def named(shape: tissue.Shape) -> str:
    return f"{shape[0]}³" if len(set(shape)) == 1 else " × ".join(map(str, shape))


@contextmanager
def folders(root: Path | None, shapes: list[tissue.Shape]) -> Iterator[tuple[list[Path], Path]]:
    """A prepared folder for every shape, and one to warm up with."""
    with tempfile.TemporaryDirectory(dir=root) as temporary:
        made = [Path(temporary) / str(number) for number in range(len(shapes))]
        for folder, shape in zip(made, shapes, strict=True):
            stage_jobs.prepare(folder, shape)
        warm = Path(temporary) / "warm"
        stage_jobs.prepare(warm, WARM_SHAPE)
        yield made, warm


def growth(options: argparse.Namespace) -> None:
    shapes = [(edge,) * 3 for edge in sorted(options.edges)]
    seconds: dict[str, dict[int, list[float]]] = {stage: {} for stage in options.stages}
    peaks = dict.fromkeys(options.stages, 0.0)
    with folders(options.folder, shapes) as (made, warm):
        for number in range(options.rounds):
            sizes = [(f, s) for f, s in zip(made, shapes, strict=True) for _ in range(repeats_of(s))]
            for folder, shape in sizes if number % 2 == 0 else reversed(sizes):
                at_hand_mib = AT_HAND_MIB + AT_HAND_BYTES * np.prod(shape) / 2**20
                how = {"memory_mib": options.memory_mib, "threads": 1, "at_hand_mib": at_hand_mib}
                for stage, said in stage_jobs.chain(folder, warm, options.stages, **how):
                    seconds[stage].setdefault(int(np.prod(shape)), []).append(said["seconds"] - said["bounded_s"])
                    peaks[stage] = max(peaks[stage], said["peak_mib"])
    for stage in options.stages:
        points = sorted((voxels, float(np.median(each))) for voxels, each in seconds[stage].items())
        slope = slope_of(points)
        timing.record(
            f"{stage}: growth of time but for figures and intervals, above that of {named(shapes[0])}, from 256³ to "
            f"{named(shapes[-1])}, as a power",
            stage="scale",
            target="growth",
            ours=slope and round(slope, 3),
            peer=None,
            ratio=None,
            limit=f"1 within {SLOPE_WITHIN:.0%}",
            holds=None if slope is None else abs(slope - 1) <= SLOPE_WITHIN,
            peak_mib=round(peaks[stage]),
            chart="size",
            line=stage,
            points=[[voxels, round(each, 4)] for voxels, each in points],
        )


def repeats_of(shape: tissue.Shape) -> int:
    return OFTENER if np.prod(shape) < LONG_FROM else 1


def slope_of(points: list[tuple[int, float]]) -> float | None:
    """Of the line through the logarithms of voxels and seconds, both above the smallest volume's; None for one size.

    Settings are read and a table is written in the same time for any volume: that is no growth.
    """
    (fewest, least), *others = points
    grown = [(voxels - fewest, seconds - least) for voxels, seconds in others if voxels >= LINEAR_FROM]
    if len(grown) < 2 or min(seconds for _, seconds in grown) <= 0:
        return None
    voxels, seconds = np.log(np.array(grown)).T
    return float(np.polyfit(voxels, seconds, 1)[0])


def budget(options: argparse.Namespace) -> None:
    for shape in map(shape_of, options.shapes):
        with folders(options.folder, [shape]) as ([folder], warm):
            how = {"memory_mib": options.memory_mib, "threads": options.threads[-1]}
            for stage, said in stage_jobs.chain(folder, warm, options.stages, **how):
                share = said["peak_mib"] / options.memory_mib
                timing.record(
                    f"{stage}: peak memory, {named(shape)}",
                    stage="scale",
                    target="budget",
                    ours=round(said["peak_mib"]),
                    peer=None,
                    ratio=round(share, 2),
                    limit=f"at most {OF_BUDGET:g} of {options.memory_mib} MiB",
                    holds=share <= OF_BUDGET,
                    peak_mib=round(said["peak_mib"]),
                    seconds=round(said["seconds"], 1),
                    threads=how["threads"],
                    chart="memory",
                    line=named(shape),
                    points=[[stage, round(share, 3)]],
                )


def threads(options: argparse.Namespace) -> None:
    shape = (options.edges[-1],) * 3
    seconds: dict[str, dict[int, list[float]]] = {
        stage: {count: [] for count in options.threads} for stage in options.stages
    }
    with folders(options.folder, [shape]) as ([folder], warm):
        for number in range(options.rounds):
            for count in options.threads if number % 2 == 0 else reversed(options.threads):
                how = {"memory_mib": options.memory_mib, "threads": count}
                for stage, said in stage_jobs.chain(folder, warm, options.stages, **how):
                    seconds[stage][count].append(said["seconds"])
    one, most = options.threads[0], options.threads[-1]
    for stage in options.stages:
        relative = timing.ratio(seconds[stage][most], seconds[stage][one])
        timing.record(
            f"{stage}: {most} threads against {one}, {named(shape)} [s]",
            stage="scale",
            target="threads",
            ours=round(float(np.median(seconds[stage][most])), 2),
            peer=round(float(np.median(seconds[stage][one])), 2),
            ratio=round(relative, 2),
            limit=f"never slower: at most {NOT_SLOWER:g}",
            holds=relative <= NOT_SLOWER,
            chart="threads",
            line=stage,
            points=[[count, round(float(np.median(each)), 4)] for count, each in sorted(seconds[stage].items())],
        )


def shards(options: argparse.Namespace) -> None:
    shape, cores = (options.edges[-1],) * 3, len(os.sched_getaffinity(0))
    stages = [stage for stage in stage_jobs.SCATTERED if stage in options.stages]
    seconds: dict[str, dict[int, list[float]]] = {stage: {count: [] for count in options.shards} for stage in stages}
    contents: dict[str, set[str]] = {stage: set() for stage in stages}
    with folders(options.folder, [shape]) as ([folder], _):
        stage_jobs.measured("convert", folder, memory_mib=options.memory_mib, threads=1)
        for number in range(options.rounds):
            for count in options.shards if number % 2 == 0 else reversed(options.shards):
                for stage in stages:
                    how = {"parts": count, "cores": cores, "memory_mib": options.memory_mib}
                    seconds[stage][count].append(stage_jobs.scattered(stage, folder, **how))
                    store = stage_jobs.jobs(folder, stage_jobs.Part())[stage]["output"][0]
                    contents[stage].add(io.fingerprints([store])[store])
    one, most = options.shards[0], options.shards[-1]
    for stage in stages:
        relative, is_same = timing.ratio(seconds[stage][most], seconds[stage][one]), len(contents[stage]) == 1
        timing.record(
            f"{stage}: {most} shards against {one}, {named(shape)}, {cores} cores [s]",
            stage="scale",
            target="shards",
            ours=round(float(np.median(seconds[stage][most])), 2),
            peer=round(float(np.median(seconds[stage][one])), 2),
            ratio=round(relative, 2),
            limit="the same bytes",
            identical=is_same,
            holds=is_same,
            chart="shards",
            line=stage,
            points=[[count, round(float(np.median(each)), 4)] for count, each in sorted(seconds[stage].items())],
        )


SERIES = {"growth": growth, "budget": budget, "threads": threads, "shards": shards}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("series", choices=SERIES)
    parser.add_argument("--stages", nargs="+", choices=stage_jobs.STAGES, default=list(stage_jobs.STAGES))
    parser.add_argument("--edges", type=int, nargs="+", default=[64, 128, 256, 512, 1024], help="of cubes")
    parser.add_argument("--shapes", nargs="+", default=["512x512x512", "2048x1024x1024"], help="ZxYxX")
    parser.add_argument("--memory-mib", type=int, default=2048, help="the job's budget")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 2, 4], help="jobs that share a stage")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where a temporary folder is made; 20 GiB for the largest shape")
    options = parser.parse_args()
    SERIES[options.series](options)


if __name__ == "__main__":
    main()
