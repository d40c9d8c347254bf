"""The pages about speed and memory show what was measured, and say so where nothing could be."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RECORDS = json.loads((ROOT / "benchmarks" / "results.json").read_text(encoding="utf-8"))


@pytest.fixture
def pages():
    spec = importlib.util.spec_from_file_location("pages", ROOT / "benchmarks" / "pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
