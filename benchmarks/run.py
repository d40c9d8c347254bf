"""Runs the benchmarks and writes benchmarks/results.json and the pages in docs/ that show it.

    python benchmarks/run.py [--only PART ...]               # the stages: docs/performance.md and its figures
    python benchmarks/run.py --training [--only PART ...]    # training: docs/training_results.md
    python benchmarks/run.py --small                         # reduced sizes: does it work? keeps nothing
    python benchmarks/run.py --pages                         # only write the pages anew

Every part runs in a process of its own, on one core unless it says otherwise; what the machine can do at most is
measured in the same run. On an otherwise idle machine the stages take some hours, training one. Peers that
requirements.txt names and that are not installed are left out, visibly. With --only, the other parts keep the figures
of their last run.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pages
import timing

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"


@dataclass(frozen=True)
class Part:
    """A script whose records the pages show.

    Parameters
    ----------
    stage : str
        Under which heading; a record may name another.
    command : str
        The script in this folder and its options.
    small : str
        Further options with which it takes seconds.
    """

    stage: str
    command: str
    small: str = ""


MACHINE = "machine"
STAGES = {
    MACHINE: Part(MACHINE, "machine.py", small="--mib 64 --rounds 1 --edge 256"),
    "nrrd": Part("convert", "nrrd_files.py", small="--size 96 --rounds 1"),
    "conversion": Part("convert", "conversion.py", small="--slices 64 128 --edge 96 --rounds 1"),
    "compression": Part("convert", "compression.py", small="--slices 64 --edge 96 --rounds 1"),
    "patches": Part("convert", "patches.py", small="--size 128 --patches 4 --rounds 1"),
    "steps": Part("annotate", "annotation_steps.py", small="--size 96 --edt-size 64 --rounds 1"),
    "annotate": Part("annotate", "annotate_stage.py", small="--size 96 --rounds 1"),
    "components": Part("segment", "components.py", small="--size 96 --size-beyond 96 --rounds 1"),
    "scores": Part("evaluate", "scores.py", small="--size 64 --voxels 4000000 --rounds 1"),
    "membrane scores": Part(
        "evaluate", "membrane_scores.py", small="--edge 96 --sections 3 --plain-edge 48 --rounds 1"
    ),
    "affinity components": Part("instances", "affinity_components.py", small="--size 64 --rounds 1"),
    "seeded watershed": Part("instances", "seeded_watershed.py", small="--size 64 --rounds 1"),
    "mutex watershed": Part("instances", "mutex_watershed.py", small="--size 48 --rounds 1"),
    "centre lines": Part("instances", "skeletons.py", small="--size 96 --rounds 1"),
    "growth": Part("scale", "stages.py growth --rounds 2", small="--edges 64"),
    "budget": Part("scale", "stages.py budget", small="--shapes 64x64x64"),
    "threads": Part("scale", "stages.py threads --edges 256 --rounds 3", small="--edges 64 --rounds 1"),
    "shards": Part("scale", "stages.py shards --edges 512", small="--edges 128 --shards 1 2 --rounds 1"),
    "jobs": Part("jobs", "jobs.py", small="--only convert --rounds 1"),
    "dry runs": Part("jobs", "dag.py", small="--jobs 20 --scatter 1"),
    "overheads": Part("jobs", "overheads.py", small="--rounds 1 --blocks 100 --shards 10 --jobs 10"),
    "rates": Part("scale", "rates.py", small="--edge 128 --stages distance"),
    "prediction": Part(
        "predict",
        "predict_tiles.py",
        small="--edge 64 --edge-share 64 --edge-2d 128 --window 32 --window-2d 64 --rounds 1",
    ),
    "prediction memory": Part("predict", "prediction_memory.py", small="--case 13"),
}
TRAINING = {
    "membranes": Part("training", "training_membranes.py"),
    "loader": Part("training", "training_loader.py"),
    "step": Part("training", "training_step.py"),
    "step on a GPU": Part(
        "training", "training_step.py --device cuda --base-3d 32 --edge-3d 128 --batch 2", small="--rounds 1"
    ),
    "augmentation": Part("training", "training_augment.py", small="--edge 32 --rounds 1"),
    "precision": Part("training", "training_precision.py"),
    "memory": Part("training", "training_memory.py", small="--case 10"),
    "first result": Part("training", "first_result.py"),
}

Record = dict[str, Any]


def run(name: str, part: Part, *, is_small: bool) -> list[Record]:
    """Run one part; the records that it printed."""
    words = shlex.split(f"{part.command} {part.small if is_small else ''}")
    print(f"{name}: {' '.join(words)}", flush=True)
    environment = dict(os.environ) if name in TRAINING else timing.environment(1)
    done = subprocess.run(
        [sys.executable, str(HERE / words[0]), *words[1:]], stdout=subprocess.PIPE, text=True, env=environment
    )
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stdout}")
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    for line in said:
        print(f"  {line}", flush=True)
    return said


def beside_the_machine(records: list[Record], limits: list[Record]) -> list[Record]:
    """The records with the machine's limit in the same run, where they say which one bounds them."""
    measured = {limit["name"]: limit["ours"] for limit in limits}
    return [
        {**record, "roof_rate": measured[record["roof"]]} if record.get("roof") in measured else record
        for record in records
    ]


def keep(old: list[Record], name: str, part: Part, said: list[Record]) -> list[Record]:
    """All records, those of a part replaced by what it said now."""
    now = [{"part": name, "stage": part.stage, **record} for record in said]
    names = {record["name"] for record in now}
    return [record for record in old if record.get("part") != name and record["name"] not in names] + now


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--training", action="store_true", help="the benchmarks of training")
    parser.add_argument("--pages", action="store_true", help="run nothing")
    parser.add_argument("--small", action="store_true", help="reduced sizes; results and pages stay as they are")
    parser.add_argument("--note", help="a sentence for the page: what else the machine did meanwhile")
    parser.add_argument("--only", nargs="+", choices=[*STAGES, *TRAINING])
    options = parser.parse_args()
    chosen = TRAINING if options.training else STAGES
    records = json.loads(RESULTS.read_text(encoding="utf-8"))
    limits: list[Record] = []
    for name, part in chosen.items() if not options.pages else ():
        if options.only is not None and name not in [*options.only, MACHINE]:
            continue
        said = run(name, part, is_small=options.small)
        if options.note:
            said = [{**record, "note": options.note} for record in said]
        if name == MACHINE:
            limits = said
        if not options.small:
            records = keep(records, name, part, beside_the_machine(said, limits))
            RESULTS.write_text(json.dumps(records, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for path in pages.write(records) if not options.small else ():
        print(f"wrote {path.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
