"""Runs every benchmark of memory and writes benchmarks/results.json and docs/performance.md from it.

    python benchmarks/run.py [--only STAGE ...]

Each stage runs in a process of its own on a synthetic uint8 volume of 1024^3 voxels, made by streaming; a few GiB of
disk and some minutes. With --only, the other stages keep the figures of their last run.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
PAGE = HERE.parent / "docs" / "performance.md"
LIMIT_MIB = 4096
RUNS = {
    "convert": ["convert_memory.py"],
    "annotate, distance": ["annotate_memory.py"],
    "predict": ["predict_memory.py", "--slices", "64"],
    "predict, scaled slices": ["predict_memory.py", "--size", "96", "96"],
    "evaluate": ["evaluate_memory.py"],
}
NOTES = {
    "predict": "native resolution, 64 slices of 1024 × 1024; the depth of a slab, not of the volume, decides the peak",
    "predict, scaled slices": "all 1024 slices, scaled to 96 × 96",
}
INTRODUCTION = """\
# Memory and time, measured

<!-- Written by benchmarks/run.py; run `make bench`. -->

Peak memory of each stage on a uint8 volume of 1024³ voxels, the whole process counted: interpreter, libraries, blocks.
The limit is {limit} MiB. Each stage ran once, in a process of its own, on {hardware}; times on a shared machine are
context, not promises.

| stage | volume | budget given [MiB] | peak [MiB] | time [s] | within the limit |
|---|---|---|---|---|---|
"""


def hardware() -> str:
    model = platform.machine()
    cpu = Path("/proc/cpuinfo")
    if cpu.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in cpu.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores of {model}, {memory_gib:.0f} GiB"


def run(name: str, command: list[str]) -> list[dict[str, object]]:
    print(f"{name}: {' '.join(command)}", flush=True)
    done = subprocess.run(
        [sys.executable, str(HERE / command[0]), *command[1:]], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stdout}{done.stderr}")
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    lines = [line for line in said if line["stage"] != "generate"]
    for line in lines:
        print(f"  {line}", flush=True)
    return [{**line, "name": name if len(lines) == 1 else line["stage"], "hardware": hardware()} for line in lines]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS))
    records = {r["name"]: r for r in json.loads(RESULTS.read_text())} if RESULTS.is_file() else {}
    for name in parser.parse_args().only:
        for record in run(name, RUNS[name]):
            records[str(record["name"])] = {**record, "limit": LIMIT_MIB, "holds": record["peak_mib"] < LIMIT_MIB}
            RESULTS.write_text(json.dumps(list(records.values()), indent=1) + "\n")
    rows = []
    for name, record in records.items():
        volume = NOTES.get(name, "1024 × 1024 × 1024")
        budget = record.get("memory_mib", "–")
        holds = "yes" if record["holds"] else "**no**"
        rows.append(f"| {name} | {volume} | {budget} | {record['peak_mib']} | {record['seconds']} | {holds} |")
    hardwares = " and ".join(dict.fromkeys(str(r["hardware"]) for r in records.values()))
    PAGE.write_text(INTRODUCTION.format(limit=LIMIT_MIB, hardware=hardwares) + "\n".join(rows) + "\n")
    print(f"wrote {RESULTS.relative_to(HERE.parent)} and {PAGE.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
