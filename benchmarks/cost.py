"""What 10 GB, 1 TB and 100 TB would take, by the speeds of `voxloom plan`: the tables of docs/scaling.md.

    python benchmarks/cost.py

A volume of each size is a file with holes, of which the header is read. The model is the one that
config/tasks/vessels.yaml calls best; a GPU is taken to do what `voxloom.plan_cost` takes it to do. Machines are what
`Size` says; all of it is a forecast, and docs/planning.md says what of it is measured.
"""

import os
from collections import defaultdict
from dataclasses import dataclass

import dag
import yaml

from voxloom import config, configuration, forecast
from voxloom.plan_cost import GFLOPS, forward_flops

HOUR = 3600.0
ONE_JOB = ("split", "evaluate")
"""Stages of which one job reads every volume."""


@dataclass(frozen=True)
class Size:
    """An amount of data, and what is asked of a cluster for it.

    Parameters
    ----------
    name : str
    volumes : int
        Equal ones.
    edge : int
        Of their voxels, of a byte.
    scatter, memory_mib, threads : int
        As under ``resources``.
    cores, gpus : int
        That work at a time.
    """

    name: str
    volumes: int
    edge: int
    scatter: int
    memory_mib: int
    threads: int
    cores: int
    gpus: int


SIZES = (
    Size("10 GB", 10, 1000, 1, 8192, 8, 8, 1),
    Size("1 TB", 10, 4642, 16, 16384, 8, 128, 8),
    Size("100 TB", 100, 10000, 64, 65536, 16, 4096, 64),
)


def stages_of(size: Size) -> dict[str, dict[str, float]]:
    """Jobs, seconds of one of them, core seconds and bytes of every stage, of all volumes."""
    best = config.read_yaml(dag.ROOT / "config" / "tasks" / "vessels.yaml")["models"]["best"]
    resources = {"memory_mib": size.memory_mib, "threads": size.threads, "scatter": size.scatter, "device": "cpu"}
    found: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    with dag.project(1, size.scatter, edge=size.edge, model=best) as folder:
        os.chdir(folder)
        given = configuration.read("config/config.yaml", resources=resources)
        network = given.tasks["bench"]["models"]["net"]["network"]
        for each in forecast.forecasts(given):
            stage, job = each.job.stage, each.job
            count = 1 if stage == "train" else size.volumes
            one_s = each.seconds or 0.0
            if stage.startswith("predict") and job.work and (job.parts > 1 or size.scatter == 1):
                voxels = size.edge**3 / job.parts
                one_s = 6 + forward_flops(network) * voxels / (GFLOPS["cuda"] * 1e9)
                found[stage]["gpu_h"] += count * job.parts * one_s / HOUR
            if stage in ONE_JOB:
                one_s, count = one_s * size.volumes, 1
            found[stage]["jobs"] += count * job.count
            found[stage]["longest_h"] = max(found[stage]["longest_h"], one_s / HOUR)
            found[stage]["core_h"] += count * job.count * one_s * size.threads / HOUR
            found[stage]["tb"] += count * job.count * job.written_bytes / 1e12
            found[stage]["refused"] += bool(each.refusal)
        os.chdir(dag.ROOT)
    return found


def main() -> None:
    for size in SIZES:
        stages = stages_of(size)
        print(f"\n{yaml.safe_dump({'size': vars(size)}, default_flow_style=True, width=200).strip()}\n")
        print("| stage | jobs | longest job [h] | core hours | GPU hours | TB written |\n|---|---|---|---|---|---|")
        sums: dict[str, float] = defaultdict(float)
        for name, row in stages.items():
            wide_h = row["gpu_h"] / size.gpus if row["gpu_h"] else row["core_h"] / size.cores
            sums["wall_h"] += max(row["longest_h"], wide_h)
            for key in ("jobs", "core_h", "gpu_h", "tb"):
                sums[key] += row[key]
            said = [f"{row['longest_h']:.2f}", f"{row['core_h']:.1f}", f"{row['gpu_h']:.2f}", f"{row['tb']:.3f}"]
            print(f"| {name} | {row['jobs']:.0f} | {' | '.join(said)} |{' REFUSED' if row['refused'] else ''}")
        said = [f"{sums[key]:.1f}" for key in ("wall_h", "core_h", "gpu_h", "tb")]
        print(f"| all, one stage after another | {sums['jobs']:.0f} | {' | '.join(said)} |")


if __name__ == "__main__":
    main()
