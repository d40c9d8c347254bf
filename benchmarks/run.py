"""Runs the benchmarks and writes benchmarks/results.json and the pages in docs/ that show it.

    python benchmarks/run.py [--only STAGE ...]              # memory of the stages: docs/performance.md
    python benchmarks/run.py --training [--only PART ...]    # training: docs/training_results.md
    python benchmarks/run.py --pages                         # only write the pages anew

Each runs in a process of its own. The memory of a stage is measured on a synthetic uint8 volume of 1024^3 voxels, made
by streaming: a few GiB of disk and some minutes. Training takes an hour on an otherwise idle machine. With --only, the
others keep the figures of their last run.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pages
from timing import hardware

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
STAGES = {
    "convert": ["convert_memory.py"],
    "annotate, distance": ["annotate_memory.py"],
    "predict": ["predict_memory.py", "--slices", "64"],
    "predict, scaled slices": ["predict_memory.py", "--size", "96", "96"],
    "evaluate": ["evaluate_memory.py"],
}
TRAINING = {
    "membranes": ["training_membranes.py"],
    "loader": ["training_loader.py"],
    "step": ["training_step.py"],
    "step on a GPU": ["training_step.py", "--device", "cuda", "--base-3d", "32", "--edge-3d", "128", "--batch", "2"],
    "precision": ["training_precision.py"],
    "memory": ["training_memory.py"],
    "first result": ["first_result.py"],
}


def run(name: str, command: list[str]) -> list[dict[str, Any]]:
    """Run one benchmark; the records that it printed."""
    print(f"{name}: {' '.join(command)}", flush=True)
    done = subprocess.run([sys.executable, str(HERE / command[0]), *command[1:]], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stdout}")
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    for line in said:
        print(f"  {line}", flush=True)
    return said


def of_stage(name: str, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records of a stage's memory, without that of making its input."""
    lines = [line for line in lines if line["stage"] != "generate"]
    return [
        {
            **line,
            "name": name if len(lines) == 1 else line["stage"],
            "hardware": hardware(),
            "limit": pages.LIMIT_MIB,
            "holds": line["peak_mib"] < pages.LIMIT_MIB,
        }
        for line in lines
    ]


def of_planned_memory(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records of peak memory in training beside what was planned."""
    records = []
    for line in lines:
        network = line["network"].get("preset") or "-".join(map(str, line["network"].get("widths", ["shallow"])))
        patch = "×".join(map(str, line["patch_voxels"]))
        records.append(
            {
                "name": f"peak memory [MiB], {network}, {line['batch_size']} × {patch}, {line['precision']}",
                "target": "as planned",
                "ours": line["measured_mib"],
                "peer": line["planned_mib"],
                "ratio": line["measured_over_planned"],
                "limit": "measured within 10 % of planned",
                "peak_mib": line["measured_mib"],
                "identical": None,
                "holds": abs(line["measured_over_planned"] - 1) <= 0.1,
                "hardware": hardware(),
            }
        )
    return records


def keep(records: dict[str, dict[str, Any]], said: list[dict[str, Any]]) -> None:
    """Replace the records of the same name, and write all of them."""
    records.update({record["name"]: record for record in said})
    RESULTS.write_text(json.dumps(list(records.values()), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--training", action="store_true", help="the benchmarks of training")
    parser.add_argument("--pages", action="store_true", help="run nothing")
    parser.add_argument("--only", nargs="+", choices=[*STAGES, *TRAINING])
    options = parser.parse_args()
    chosen: Mapping[str, list[str]] = TRAINING if options.training else STAGES
    records = {record["name"]: record for record in json.loads(RESULTS.read_text(encoding="utf-8"))}
    for name, command in chosen.items() if not options.pages else ():
        if options.only is None or name in options.only:
            said = run(name, command)
            if not options.training:
                said = of_stage(name, said)
            elif name == "memory":
                said = of_planned_memory(said)
            keep(records, said)
    for path in pages.write(list(records.values())):
        print(f"wrote {path.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
