"""The pages about speed and memory show what was measured, and say so where nothing could be."""

import importlib
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RECORDS = json.loads((ROOT / "benchmarks" / "results.json").read_text(encoding="utf-8"))


@pytest.fixture
def run(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("run")


@pytest.fixture
def pages(run):
    return run.pages


def record(**changes):
    made = {
        "name": "step",
        "target": "T10",
        "ours": 1.0,
        "peer": 2.0,
        "ratio": 2.0,
        "limit": "at least 1.7",
        "holds": True,
        "hardware": "a machine",
    }
    return made | changes


def stage_record(**changes):
    return record(**{"stage": "convert", "peak_mib": 100, "identical": True} | changes)


def row(contender, score, seed=1):
    return {
        "contender": contender,
        "label": contender,
        "seed": seed,
        "parameters": 467233,
        "batch": 2,
        "patch": [64, 64],
        "steps": 100,
        "minutes": 10.0,
        "validation_average_precision": score,
        "average_precision": score,
        "f1": score,
        "rand_error": 0.1,
    }


def test_committed_pages_are_those_of_the_committed_results(pages):
    for name, made in pages.made(RECORDS).items():
        assert (ROOT / "docs" / name).read_text(encoding="utf-8") == made, "run python benchmarks/run.py --pages"


def test_what_does_not_hold_and_what_was_not_measured_stand_out(pages):
    page = pages.training_page(
        [
            record(),
            record(name="slow", holds=False, ratio=1.2),
            record(name="gpu", holds=None, ours=None, peer=None, ratio=None, skipped="no GPU here"),
        ]
    )
    lines = {line.split("|")[1].strip(): line for line in page.splitlines() if line.startswith("| ")}
    assert "| yes |" in lines["step"]
    assert "| **no** |" in lines["slow"]
    assert "no GPU here" in lines["gpu"]
    assert "| – | – | – |" in lines["gpu"]


def test_contenders_stand_in_the_order_of_their_test_scores(pages):
    rows = [row("b", 0.8), row("a", 0.9), row("b", 0.95, seed=2)]
    page = pages.training_page([record(rows=rows, minutes=10.0, threads=2)])
    table = [line.split("|")[1:3] for line in page.splitlines() if line.startswith(("| a |", "| b |"))]
    assert [(name.strip(), seed.strip()) for name, seed in table] == [("b", "1"), ("b", "2"), ("a", "1")]


def test_a_stage_stands_beside_its_peer_and_the_machine_s_limit(pages):
    page = pages.performance_page(
        [
            stage_record(stage="machine", name="memory copy", ours=40.0, limit="GB/s"),
            stage_record(name="read", rate=10.0, roof="memory copy", roof_rate=40.0),
            stage_record(name="wrong", identical=False, holds=False),
            stage_record(name="missing", ours=None, peer=None, ratio=None, holds=None, skipped="no such peer"),
        ]
    )
    lines = {line.split("|")[1].strip(): line for line in page.splitlines() if line.startswith("| ")}
    assert "40 | GB/s" in lines["memory copy"]
    assert "| 25% of memory copy | 100 | yes | yes |" in lines["read"]
    assert "| **no** | **no** |" in lines["wrong"]
    assert "no such peer" in lines["missing"]


def test_stages_and_training_have_their_own_pages(pages):
    made = pages.made([stage_record(name="read"), record(name="step"), record(name="loader", stage="training")])
    assert "read" in made["performance.md"]
    assert "step" not in made["performance.md"]
    assert "step" in made["training_results.md"]
    assert "loader" in made["training_results.md"]


def test_a_part_that_runs_again_leaves_none_of_its_old_records(run):
    old = [record(name="a", part="nrrd"), record(name="b", part="nrrd"), record(name="c", part="jobs")]
    kept = run.keep(old, "nrrd", run.Part("convert", "nrrd.py"), [record(name="a", ours=7.0)])
    assert [(each["name"], each["part"], each["ours"]) for each in kept] == [("c", "jobs", 1.0), ("a", "nrrd", 7.0)]


def test_every_part_is_a_script_that_exists(run):
    for part in [*run.STAGES.values(), *run.TRAINING.values()]:
        assert (ROOT / "benchmarks" / part.command.split()[0]).is_file(), part


def test_the_stages_that_are_measured_are_handed_what_their_scripts_ask_for(run, tmp_path):
    jobs = importlib.import_module("stage_jobs").jobs
    part = importlib.import_module("stage_jobs").Part(1, 2)
    for stage, job in jobs(tmp_path, part).items():
        script = ROOT / "scripts" / f"{stage}.py"
        for kind, name in re.findall(r"snakemake\.(input|output|params)\.(\w+)", script.read_text()):
            handed = {*job[kind], "code"} if kind == "params" else vars(job[kind])
            assert name in handed, f"benchmarks/stage_jobs.py hands no {kind}.{name} to {stage}"
