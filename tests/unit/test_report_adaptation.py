"""Adapted models are held against those from scratch that had the same labels."""

import math
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml
from unit.report_tables import make_run

from voxloom.report import build_report
from voxloom.report_adaptation import SCRATCH, adaptation, compared
from voxloom.report_inputs import Run

NETWORK = {"name": "unet", "widths": [4, 8]}


def fact(began=SCRATCH, voxels=100, network=NETWORK):
    return {"began with": began, "frozen": "–", "annotated_voxels": voxels, "epochs": "5", "network": network}


def scores(**models):
    rows = [("truth", model, ap, ap - 0.1) for model, ap in models.items()]
    return pd.DataFrame(rows, columns=["against", "model", "average_precision", "f1"])


def test_the_difference_is_to_the_best_of_the_same_network_with_as_many_labels():
    facts = {
        "poor": fact(),
        "good": fact(),
        "rich": fact(voxels=900),
        "wide": fact(network={**NETWORK, "widths": [8, 16]}),
        "adapted": fact("em/best, fold 0"),
    }
    table = compared(scores(poor=0.4, good=0.5, rich=0.9, wide=0.8, adapted=0.7), facts).set_index("model")
    assert table.loc["adapted", "compared with"] == "good"
    assert table.loc["adapted", "average_precision_difference"] == pytest.approx(0.2)
    assert table.loc["adapted", "f1_difference"] == pytest.approx(0.2)
    for scratch in ("poor", "good", "rich", "wide"):
        assert table.loc[scratch, "compared with"] == "–"
        assert math.isnan(table.loc[scratch, "f1_difference"])


def test_without_a_model_from_scratch_there_is_no_difference():
    table = compared(scores(adapted=0.7), {"adapted": fact("em/best, fold 0")})
    assert table.loc[0, "compared with"] == "–"
    assert math.isnan(table.loc[0, "average_precision_difference"])


def of_models(folder, **folders):
    """What the table is made of: models of these folders, whose scores are equal."""
    table = scores(**dict.fromkeys(folders, 0.7)).assign(scope="pooled", part="test", voxels=100)
    return SimpleNamespace(
        models=lambda task: list(folders),
        runs=lambda task: [Run(task, model, "0", folder, {}, own) for model, own in folders.items()],
        scores=table,
        of_task=lambda found, task: found,
        note=lambda task: "",
    )


def test_an_ensemble_began_with_nothing(tmp_path):
    (tmp_path / "model.yaml").write_text(yaml.safe_dump({"network": NETWORK, "initialised": {"source": "em/best"}}))
    page = adaptation(of_models(tmp_path, adapted=tmp_path, both=tmp_path / "gone"), "membranes")
    assert "em/best" in page
    assert "both" not in page


def test_without_an_adapted_model_there_is_no_table(tmp_path):
    (tmp_path / "model.yaml").write_text(yaml.safe_dump({"network": NETWORK}))
    assert adaptation(of_models(tmp_path, best=tmp_path), "membranes") == ""


def test_the_page_has_the_table_where_a_model_was_adapted(tmp_path):
    inputs, open_volume = make_run(tmp_path / "run")
    for run in inputs.runs:
        document = {"network": NETWORK, "freeze": [], "kept_epoch": 5, "counts": {"training_annotated_voxels": 4321}}
        if run.model == "best":
            document |= {"initialised": {"source": "em <x>/best, fold 0"}, "freeze": ["down.0"]}
        (run.directory / "model.yaml").write_text(yaml.safe_dump(document))
    page = build_report(inputs, out_directory=tmp_path / "report", open_volume=open_volume).read_text()
    assert "em &lt;x&gt;/best, fold 0" in page
    assert "Weights to begin with, test part, synthetic." in page
    assert SCRATCH in page
