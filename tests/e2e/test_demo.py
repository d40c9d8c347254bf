"""From phantom to report: it segments, twice the same, and the report says so."""

import json
from pathlib import Path

import pandas as pd
import pytest

from voxloom import io
from voxloom.cli import main

MODELS = ("as-published", "best")


def scores(demo, task, model):
    table = pd.read_csv(demo.results() / "evaluation" / task / model / "0" / "scores.csv")
    return table[(table.part == "test") & (table.scope == "pooled") & (table.grid == "native")].set_index("against")


def recipe_f1(demo, task):
    table = pd.read_csv(demo.results() / "evaluation" / task / "best" / "0" / "recipe.csv")
    return table[(table.part == "test") & (table.against == "truth") & (table.scope == "pooled")].f1.item()


def test_best_models_find_the_true_axons_and_vessels(demo):
    assert scores(demo, "axons", "best").average_precision["truth"] >= 0.90
    assert scores(demo, "vessels", "best").average_precision["truth"] >= 0.85


def test_a_best_model_beats_the_recipe_that_taught_it(demo):
    gains = [scores(demo, task, "best").f1["truth"] - recipe_f1(demo, task) for task in ("axons", "vessels")]
    assert max(gains) > 0


@pytest.mark.parametrize("task", ["axons", "vessels"])
@pytest.mark.parametrize("model", MODELS)
def test_accuracy_stands_beside_the_baseline_that_flatters(demo, task, model):
    row = scores(demo, task, model).loc["truth"]
    assert row.all_background_accuracy == pytest.approx(1 - row.prevalence)
    assert row.average_precision_low <= row.average_precision <= row.average_precision_high


def test_weights_have_the_published_size(demo):
    for model in MODELS:
        size = (demo.results() / "models" / "axons" / model / "0" / "weights.safetensors").stat().st_size
        assert 1.8e6 < size < 2.0e6


def test_every_stage_left_its_result(demo):
    results = demo.results()
    for task in ("axons", "vessels"):
        annotation = io.open_volume(results / "annotations" / task / "phantom-a.zarr")
        distance = io.open_volume(results / "distances" / task / "phantom-a.zarr")
        prediction = io.open_volume(results / "predictions" / task / "best" / "0" / "phantom-a.zarr")
        segmentation = io.open_volume(results / "segmentations" / task / "best" / "0" / "phantom-a.zarr")
        assert annotation.shape == distance.shape == prediction.shape == segmentation.shape
        assert annotation.spacing_um == prediction.spacing_um == (1.17, 1.17, 1.17)
        assert (distance[:, :, :][annotation[:, :, :] == 1] == 0).all()
        objects = pd.read_csv(results / "measurements" / task / "best" / "0" / "phantom-a.csv")
        assert objects.voxels.sum() == (segmentation[:, :, :] > 0).sum()
        chosen = json.loads((results / "evaluation" / task / "best" / "0" / "threshold.json").read_text())
        assert 0 < chosen["threshold"] < 1


def test_the_report_is_one_page_that_calls_phantoms_synthetic(demo):
    page = (demo.results() / "report" / "index.html").read_text()
    assert "synthetic" in page
    assert 'src="http' not in page
    assert 'href="http' not in page
    files = {path.name for path in (demo.results() / "report" / "figures").glob("[!.]*")}
    assert len(files) > 20
    assert {f"{Path(name).stem}{suffix}" for name in files for suffix in (".svg", ".png")} == files


def test_snakemake_s_own_report_holds_the_page_and_the_figures(demo, tmp_path):
    demo.run("--report", str(tmp_path / "report.html"), "--nolock")
    assert "index.html" in (tmp_path / "report.html").read_text()


def test_the_manifest_knows_the_job_of_every_file(demo, capsys):
    entities = json.loads((demo.results() / "ro-crate-metadata.json").read_text())["@graph"]
    parts = {part["@id"] for part in next(entity for entity in entities if entity["@id"] == "./")["hasPart"]}
    made = [made["@id"] for entity in entities if entity["@type"] == "CreateAction" for made in entity["result"]]
    assert sorted(made) == sorted(part for part in parts if not part.startswith("manifest/"))
    assert main(["verify", str(demo.folder)]) == 0
    assert "as the manifest says" in capsys.readouterr().out
