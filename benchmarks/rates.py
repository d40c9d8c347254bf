"""How fast each stage's job is, and what it takes before its first voxel: the figures of `voxloom.forecast_rates`.

    python benchmarks/rates.py [--edge 512] [--stages distance segment] [--folder FOLDER]

Each stage's script in a process of its own, on one core, on a small volume and on a large one (`stage_jobs.py`): what
the small one takes is the start, what the large one takes beyond it is the work; of parts, most of which have nothing
to do on the small volume, that counts some of the start, so make them large. Seconds are the processor's, so that
others on the machine don't count. Training and prediction are compared in docs/prediction.md and docs/training.md.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import stage_jobs
import stages
import timing

from voxloom.forecast_rates import JOINED_PER_SECOND, PYTORCH_MIB, RATES

PARTS = 4
MEMORY_MIB = 2048
WITHIN = 2.0
"""A forecast is rough: a speed of another machine may be so many times ours."""


def jobs(stage: str) -> Iterator[tuple[str, stage_jobs.Part]]:
    """The jobs of a stage, by itself and shared by parts, in the order in which they can run."""
    yield stage, stage_jobs.Part()
    for script in stage_jobs.SCATTERED.get(stage, ()):
        yield from ((script, stage_jobs.Part(number, PARTS)) for number in range(1, PARTS + 1))
    if stage in stage_jobs.SCATTERED:
        yield f"{stage}, joined", stage_jobs.Part(1, PARTS)


def taken(stage: str, folder: Path) -> dict[str, dict[str, float]]:
    """Seconds of the processor and peak memory of every job of a stage; of parts the sum and the number."""
    found: dict[str, dict[str, float]] = {}
    for name, part in jobs(stage):
        said = stage_jobs.measured(name.partition(",")[0], folder, memory_mib=MEMORY_MIB, threads=1, part=part)
        each = found.setdefault(name, {"cpu_s": 0.0, "peak_mib": 0.0, "jobs": 0})
        each["cpu_s"] += said["cpu_s"]
        each["peak_mib"] = max(each["peak_mib"], said["peak_mib"])
        each["jobs"] += 1
    return found


def torch_mib() -> float:
    """What importing PyTorch adds to a process that has imported what evaluation imports."""
    code = (
        "import sys; sys.path.insert(0, 'benchmarks'); import timing; from voxloom import evaluate, io\n"
        "before = timing.resident_mib(); import torch; torch.zeros(1) + 1; print(timing.resident_mib() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=stage_jobs.ROOT)
    return float(done.stdout)


def expected(name: str) -> float:
    return JOINED_PER_SECOND if name.endswith(", joined") else RATES[name].per_second


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edge", type=int, default=512)
    chosen = [stage for stage in stage_jobs.STAGES if stage != "predict"]
    parser.add_argument("--stages", nargs="+", choices=stage_jobs.STAGES, default=chosen)
    parser.add_argument("--folder", type=Path, help="where a temporary folder is made")
    options = parser.parse_args()
    needed = {before for stage in options.stages for before in stage_jobs.READS[stage]}
    with stages.folders(options.folder, [(options.edge,) * 3]) as ([folder], small):
        voxels = options.edge**3 - 64**3
        for stage in stage_jobs.STAGES:
            if stage not in options.stages:
                if stage in needed:
                    for where in (small, folder):
                        stage_jobs.measured(stage, where, memory_mib=MEMORY_MIB, threads=1)
                continue
            stage_jobs.measured(stage, small, memory_mib=MEMORY_MIB, threads=1)  # compiles what is not in the cache
            start, whole = taken(stage, small), taken(stage, folder)
            for name, said in whole.items():
                begin = start[name]
                rate = voxels / (said["cpu_s"] - begin["cpu_s"])
                timing.record(
                    f"{name}: voxels a second of one thread",
                    target="rate",
                    ours=round(rate),
                    peer=round(expected(name)) if stage != "predict" else None,
                    ratio=round(rate / expected(name), 2) if stage != "predict" else None,
                    limit=f"start {begin['cpu_s'] / begin['jobs']:.1f} s and {begin['peak_mib']:.0f} MiB",
                    holds=1 / WITHIN <= rate / expected(name) <= WITHIN if stage != "predict" else None,
                    peak_mib=round(said["peak_mib"]),
                )
    mib = torch_mib()
    timing.record(
        "PyTorch beside a stage that is otherwise without it [MiB]",
        target="rate",
        ours=round(mib),
        peer=PYTORCH_MIB,
        ratio=round(mib / PYTORCH_MIB, 2),
        limit="",
        holds=1 / WITHIN <= mib / PYTORCH_MIB <= WITHIN,
    )


if __name__ == "__main__":
    main()
