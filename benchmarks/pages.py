"""Writes docs/performance.md and docs/training_results.md from the records in benchmarks/results.json."""

import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[1] / "docs"
FIGURES = DOCS / "figures"
PERFORMANCE = """\
# Speed and memory, measured

<!-- Written by benchmarks/run.py; run `make bench`. -->

Every row comes from one run of a script in `benchmarks/` in which voxloom and its peer took turns (A B, then B A, and
so on) on the same data, pinned to one core unless it says otherwise. Times are medians, ratios medians over the rounds'
ratios, peak memory what a call adds to the process, its result included. "Same result" is checked in the same run. What
could not be measured stands with its reason. Measured on {hardware}; `make bench` measures yours.{notes}
"""
MACHINE = """
## The machine

What it can do at most, measured in the same run: one core, a file of 1 GiB. "Of the machine's limit" in the tables is
the share of one of these.

| limit | measured | |
|---|---|---|
"""
TARGETS_MET = """
## Targets

A target has the rows that carry its name, below or, where it is about learning, in [training](training_results.md).

| target | rows | hold | don't hold | not measured |
|---|---|---|---|---|
"""
STAGE = """\
| what | target | ours | peer | ratio | limit | of the machine's limit | peak [MiB] | same result | holds |
|---|---|---|---|---|---|---|---|---|---|
"""
HEADINGS = {
    "convert": "Reading, writing and converting",
    "instances": "Instances and centre lines",
    "jobs": "Starting a job",
    "scale": "Any size",
}
"""Of the stages whose name says too little; the others have their own name."""
ORDER = ("convert", "annotate", "distance", "predict", "segment", "instances", "evaluate", "measure", "jobs", "scale")
CHARTS = {
    "size": "Time against the number of voxels, without that of figures and intervals. Lines of slope 1 are grey: twice"
    " the voxels, twice the time.",
    "memory": "Peak memory of every stage as a share of the budget it was given, the whole process counted.",
    "threads": "Time against threads, relative to one thread.",
    "shards": "Time of a volume cut into shards that run as jobs of their own, relative to one job. Starting the jobs"
    " counts, and at 512³ they are short.",
}
"""The figures, by the word in a record's ``chart``, with their captions."""
TRAINING = """\
# Training, measured

<!-- Written by benchmarks/run.py --training; run `make bench-training`. -->

"""
MEMBRANES = """\
## The same minutes on real EM membranes

Measured on {hardware}: {minutes:g} minutes of training on {threads} threads for each contender, in the same loop, from
the same sections, with the same seed. The data are 20 sections of 512 × 512 pixels (ISBI 2012: serial-section TEM of a
fly's nerve cord; Cardona et al. 2010, Arganda-Carreras et al. 2015); membranes, 23 % of the pixels, are the foreground.
Sections 0–4 and 14–16 train, 6–8 validate, 10–12 and 18–19 test, with a section of gap between parts; from section 15
on the image is noisier. Thresholds are chosen on the validation sections, no contender sees the test sections
before it is scored on them, but the default plan's depth and averaging of weights were chosen after earlier runs of
this table. The Rand error is that of the interiors, 4-connected within a section, the mean over sections; lower is
better.

nnU-Net's network has eight levels and 46 million parameters; its loss is cross-entropy and Dice with deep supervision;
it is augmented as the default plan. {arrangements} Of one seed, a difference of a hundredth says little.{note}

| contender | seed | parameters | batch × patch | steps | minutes | validation AP | test AP | test F1 | Rand error |
|---|---|---|---|---|---|---|---|---|---|
"""
ARRANGEMENTS = {
    "nnunet": "is what its planner makes of these data: whole sections, a batch of 2, SGD with a polynomial schedule.",
    "nnunet_tuned": "has the plan's schedule, too, and takes more steps in the time; its weights aren't averaged.",
}
"""What the contenders with nnU-Net's network are, behind their labels."""
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
        Those of training say so, or have no stage.

    Returns
    -------
    pages : dict of str to str
        File name in docs/ to text.
    """
    stages = [record for record in records if _stage(record) != "training"]
    training = [record for record in records if _stage(record) == "training"]
    found = {"performance.md": performance_page(stages, training)} if stages else {}
    return found | ({"training_results.md": training_page(training)} if training else {})


def write(records: Sequence[Record]) -> list[Path]:
    """Write the pages that there are records for, and the figures; their paths."""
    import charts

    for name, text in made(records).items():
        (DOCS / name).write_text(text, encoding="utf-8")
    drawn = [chart for chart in CHARTS if charted(records, chart)]
    return [DOCS / name for name in made(records)] + [
        path for chart in drawn for path in charts.save(chart, charted(records, chart), FIGURES)
    ]


def charted(records: Sequence[Record], chart: str) -> list[Record]:
    """The records with points of a figure."""
    return [record for record in records if record.get("chart") == chart and record.get("points")]


def _stage(record: Record) -> str:
    return str(record.get("stage", "training"))


def performance_page(records: Sequence[Record], training: Sequence[Record] = ()) -> str:
    machine = [record for record in records if _stage(record) == "machine"]
    others = [record for record in records if _stage(record) != "machine"]
    notes = dict.fromkeys(record["note"] for record in records if "note" in record)
    text = PERFORMANCE.format(hardware=_hardware(records), notes="".join(f" {note}" for note in notes))
    if machine:
        text += MACHINE + "".join(
            f"| {each['name']} | {_number(each['ours'])} | {each['limit']} |\n" for each in machine
        )
    text += TARGETS_MET + _targets_met([*others, *training])
    stages = dict.fromkeys(_stage(record) for record in others)
    for stage in sorted(stages, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER)):
        of_stage = [record for record in others if _stage(record) == stage]
        text += f"\n## {HEADINGS.get(stage, stage.capitalize())}\n{_pictures(of_stage)}\n{STAGE}"
        text += "".join(_row(record) for record in of_stage)
    return text


def _pictures(records: Sequence[Record]) -> str:
    drawn = [(chart, caption) for chart, caption in CHARTS.items() if charted(records, chart)]
    return "".join(f"\n![{caption}](figures/{chart}.svg)\n\n{caption}\n" for chart, caption in drawn)


def _targets_met(records: Sequence[Record]) -> str:
    """One row a target, in the order of their numbers."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(str(record["target"]), []).append(record)
    rows = ""
    for target in sorted(found, key=lambda name: (not name.startswith("T"), int(re.sub(r"\D", "", name) or 0), name)):
        counts = [[each["holds"] for each in found[target]].count(holds) for holds in (True, False, None)]
        failing = f"**{counts[1]}**" if counts[1] else "0"
        rows += f"| {target} | {len(found[target])} | {counts[0]} | {failing} | {counts[2]} |\n"
    return rows


def _row(record: Record) -> str:
    holds = {True: "yes", False: "**no**", None: "–"}[record["holds"]]
    same = {True: "yes", False: "**no**", None: "–"}.get(record["identical"], record["identical"])
    limit = " ".join(part for part in (record["limit"], record.get("skipped", "")) if part)
    words = [record["name"], record["target"], *(_number(record[key]) for key in ("ours", "peer", "ratio")), limit]
    return f"| {' | '.join(words)} | {_share(record)} | {_number(record['peak_mib'])} | {same} | {holds} |\n"


def _share(record: Record) -> str:
    """How much of what the machine can do at most was reached, in the same run."""
    if not record.get("rate") or not record.get("roof_rate"):
        return "–"
    return f"{record['rate'] / record['roof_rate']:.0%} of {record['roof']}"


def training_page(records: Sequence[Record]) -> str:
    text = TRAINING
    for record in records:
        if "rows" in record:
            said = {key: record[key] for key in ("minutes", "threads", "hardware")}
            note = f" {record['note']}" if "note" in record else ""
            labels = {row["contender"]: row["label"] for row in record["rows"]}
            arranged = " ".join(f'"{labels[name]}" {words}' for name, words in ARRANGEMENTS.items() if name in labels)
            head = MEMBRANES.format(arrangements=arranged, note=note, **said)
            text += _filled(head) + "".join(_contender(row) for row in _ranked(record["rows"]))
    return text + TARGETS + "".join(_target(record) for record in records)


def _filled(text: str) -> str:
    """Paragraphs in lines of one width; headings and tables as they are."""
    parts = text.rstrip("\n").split("\n\n")
    return "\n\n".join(part if part.startswith(("#", "|")) else textwrap.fill(part, 120) for part in parts) + "\n"


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
