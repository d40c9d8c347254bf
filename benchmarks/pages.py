"""Writes docs/performance.md and docs/training_results.md from the records in benchmarks/results.json."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[1] / "docs"
LIMIT_MIB = 4096
NOTES = {
    "predict": "native resolution, 64 slices of 1024 × 1024; the depth of a slab, not of the volume, decides the peak",
    "predict, scaled slices": "all 1024 slices, scaled to 96 × 96",
}
MEMORY = """\
# Memory and time, measured

<!-- Written by benchmarks/run.py; run `make bench`. -->

Peak memory of each stage on a uint8 volume of 1024³ voxels, the whole process counted: interpreter, libraries, blocks.
The limit is {limit} MiB. Each stage ran once, in a process of its own, on {hardware}; times on a shared machine are
context, not promises.

| stage | volume | budget given [MiB] | peak [MiB] | time [s] | within the limit |
|---|---|---|---|---|---|
"""
TRAINING = """\
# Training, measured

<!-- Written by benchmarks/run.py --training; run `make bench-training`. -->

"""
MEMBRANES = """\
## The same minutes on real EM membranes

{minutes:g} minutes of training on {threads} threads of {hardware} for each contender, in the same loop, from the same
sections, with the same seed. The data are 20 sections of 512 × 512 pixels (ISBI 2012: serial-section TEM of a fly's
nerve cord; Cardona et al. 2010, Arganda-Carreras et al. 2015); membranes, 23 % of the pixels, are the foreground.
Sections 0–4 and 14–16 train, 6–8 validate, 10–12 and 18–19 test, with a section of gap between parts; from section 15
on the image is noisier. Thresholds are chosen on the validation sections, the test sections were used for nothing
else. The Rand error is that of the interiors, 4-connected within a section, the mean over sections; lower is better.
nnU-Net's network is configured as its own planner does for these data (whole sections, batch of 2, eight levels,
46 million parameters, deep supervision, cross-entropy and Dice), augmented as the default plan; "{own}" adds its SGD
with a polynomial schedule.

| contender | seed | parameters | batch × patch | steps | minutes | validation AP | test AP | test F1 | Rand error |
|---|---|---|---|---|---|---|---|---|---|
"""
OWN = "nnU-Net's network, loss and optimiser"
TARGETS = """
## Targets

Interleaved rounds in one process, medians of the rounds' ratios; peak memory above what was resident before. "–" is
what could not be measured here, with the reason.

| what | target | ours | peer | ratio | limit | holds | measured on |
|---|---|---|---|---|---|---|---|
"""

Record = Mapping[str, Any]


def made(records: Sequence[Record]) -> dict[str, str]:
    """The pages that there are records for.

    Parameters
    ----------
    records : sequence of mapping
        Those of memory have a stage, those of training a target.

    Returns
    -------
    pages : dict of str to str
        File name in docs/ to text.
    """
    memory = [record for record in records if "stage" in record]
    training = [record for record in records if "target" in record]
    found = {"performance.md": memory_page(memory)} if memory else {}
    return found | ({"training_results.md": training_page(training)} if training else {})


def write(records: Sequence[Record]) -> list[Path]:
    """Write the pages that there are records for; their paths."""
    for name, text in made(records).items():
        (DOCS / name).write_text(text, encoding="utf-8")
    return [DOCS / name for name in made(records)]


def memory_page(records: Sequence[Record]) -> str:
    rows = []
    for record in records:
        volume = NOTES.get(record["name"], "1024 × 1024 × 1024")
        budget = record.get("memory_mib", "–")
        holds = "yes" if record["holds"] else "**no**"
        rows.append(
            f"| {record['name']} | {volume} | {budget} | {record['peak_mib']} | {record['seconds']} | {holds} |"
        )
    return MEMORY.format(limit=LIMIT_MIB, hardware=_hardware(records)) + "\n".join(rows) + "\n"


def training_page(records: Sequence[Record]) -> str:
    text = TRAINING
    for record in records:
        if "rows" in record:
            head = MEMBRANES.format(own=OWN, **{key: record[key] for key in ("minutes", "threads", "hardware")})
            text += head + "".join(_contender(row) for row in _ranked(record["rows"]))
    return text + TARGETS + "".join(_target(record) for record in records)


def _ranked(rows: Sequence[Record]) -> list[Record]:
    """The best contender first, its seeds together."""
    best: dict[str, float] = {}
    for row in rows:
        best[row["contender"]] = max(row["average_precision"], best.get(row["contender"], 0.0))
    return sorted(rows, key=lambda row: (-best[row["contender"]], row["contender"], row["seed"]))


def _contender(row: Record) -> str:
    millions, patch = row["parameters"] / 1e6, "×".join(str(edge) for edge in row["patch"])
    return (
        f"| {row['label']} | {row['seed']} | {millions:.2f} M | {row['batch']} × {patch} | {row['steps']} "
        f"| {row['minutes']:.1f} | {row['validation_average_precision']:.4f} | {row['average_precision']:.4f} "
        f"| {row['f1']:.4f} | {row['rand_error']:.4f} |\n"
    )


def _target(record: Record) -> str:
    holds = {True: "yes", False: "**no**", None: "–"}[record["holds"]]
    limit = record["limit"] + (f" ({record['skipped']})" if record.get("skipped") else "")
    more = [
        f"{label} {record[key]:.0%}" if key != "memory_ratio" else f"{label} {record[key]:g}"
        for key, label in (
            ("memory_ratio", "memory ratio"),
            ("share_of_ceiling", "share of the ceiling"),
            ("busy_share", "busy"),
        )
        if record.get(key) is not None
    ]
    values = [_number(record[key]) for key in ("ours", "peer", "ratio")]
    name = record["name"] + (f" ({', '.join(more)})" if more else "")
    return f"| {name} | {record['target']} | {' | '.join(values)} | {limit} | {holds} | {record['hardware']} |\n"


def _number(value: Any) -> str:
    return "–" if value is None else f"{value:g}" if isinstance(value, (int, float)) else str(value)


def _hardware(records: Sequence[Record]) -> str:
    return " and ".join(dict.fromkeys(str(record["hardware"]) for record in records))
