"""The report's section on membranes says what the tables of the challenge's measures say, and nothing else."""

import dataclasses
import re
import zlib
from html import unescape

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from unit.report_tables import make_run

from voxloom import references
from voxloom.errors import FormatError
from voxloom.report import build_report
from voxloom.report_inputs import Material
from voxloom.report_membrane_curves import mean_curves
from voxloom.report_membrane_scores import Step, ablation, best_model, choose_sections, gain
from voxloom.report_membranes import membranes
from voxloom.report_viewer import Gallery

THRESHOLDS = np.cumsum([0.0] + [0.1] * 10)
V_RAND = {("plain", "0"): 0.95, ("plain", "1"): 0.96, ("plain-8", "0"): 0.97, ("plain-8", "1"): 0.98}
V_RAND |= {("fused", "0"): 0.965, ("fused", "1"): 0.984}
FUSED = Step("Watershed fusion", "fused", "plain-8")
TURNED = Step("Averaging over test-time transforms", "plain-8", "plain")


def scores(v_rand=V_RAND):
    """membrane_scores.csv of all models and folds; other scores are derived from V_rand."""
    rows = []
    for (model, fold), value in v_rand.items():
        for part in ("validation", "test"):
            row = {"task": "membranes", "model": model, "fold": fold, "part": part, "sections": 2}
            row |= {"v_rand": value, "v_rand_threshold": THRESHOLDS[6], "v_rand_at_validation": value - 0.001}
            row |= {"v_info": value + 0.01, "v_info_threshold": 0.5, "v_info_at_validation": value + 0.009}
            row |= {"rand_error": 1 - value, "rand_threshold": 0.5, "pixel_error": (1 - value) * 2}
            row |= {"pixel_threshold": 0.5, "warping_error": (1 - value) / 100, "warping_threshold": 0.5}
            rows.append(row | {"splits": round(1000 * (1 - value)), "mergers": 7})
    return pd.DataFrame(rows)


def sections(value):
    """membranes.csv of one model and fold: two sections of each part, the second worse by 0.02."""
    rows = [
        (part, "phantom_a", z, threshold, value - 0.02 * (z % 2) - 0.3 * (threshold - 0.6) ** 2)
        for part, first in (("validation", 12), ("test", 18))
        for z in (first, first + 1)
        for threshold in THRESHOLDS
    ]
    return pd.DataFrame(rows, columns=["part", "volume", "z", "threshold", "v_rand"])


def weights(chosen):
    w = np.arange(21) / 20
    return pd.DataFrame({"weight": w, "rand_error": 0.03 + 0.05 * (w - chosen) ** 2, "is_chosen": w == chosen})


def write_membranes(inputs, *, steps=(TURNED, FUSED), v_rand=V_RAND):
    """Tables and error maps of the challenge's measures beside a run's other ones."""
    table = scores(v_rand)
    for run in inputs.runs:
        own = table[(table.model == run.model) & (table.fold == run.fold)]
        own.drop(columns=["task", "model", "fold"]).to_csv(run.evaluation / "membrane_scores.csv", index=False)
        sections(v_rand[run.model, run.fold]).to_csv(run.evaluation / "membranes.csv", index=False)
        if run.model == "fused":
            weights(0.25).to_csv(run.evaluation / "fusion.csv", index=False)
        (run.evaluation / "membranes").mkdir()
        for z in range(18, 24):
            shade = zlib.crc32(f"{run.model} {run.fold} {z}".encode()) % 200
            picture = np.full((40, 40, 3), shade, np.uint8)
            Image.fromarray(picture).save(run.evaluation / "membranes" / f"phantom_a-{z:04d}.png")
    tasks = [dataclasses.replace(task, has_membranes=True, steps=steps) for task in inputs.tasks]
    return dataclasses.replace(inputs, tasks=tasks)


def run_of(folder, **how):
    inputs, open_volume = make_run(
        folder, tasks=("membranes",), models=("plain", "plain-8", "fused"), folds=2, is_synthetic=False
    )
    return write_membranes(inputs, **how), open_volume


def material_of(inputs, open_volume, folder):
    """What the section is made of, without the rest of the page."""
    folder.mkdir()
    splits = {task.name: pd.read_csv(task.splits) for task in inputs.tasks}
    none = pd.DataFrame()
    return Material(
        inputs, folder, Gallery(open_volume, {}), max_slices=1, scores=none, curves=none, recipe=none, splits=splits
    )


@pytest.fixture(scope="module")
def section(tmp_path_factory):
    folder = tmp_path_factory.mktemp("membranes")
    inputs, open_volume = run_of(folder)
    page = build_report(inputs, out_directory=folder / "report", open_volume=open_volume).read_text(encoding="utf-8")
    return folder, re.search(r'<section id="membranes".*?</section>', page, re.DOTALL)[0]


def words(html):
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", "", re.sub(r'data:[^"]*', "", html))))


def test_a_row_is_the_mean_over_folds_with_each_folds_own():
    table = ablation(scores(), models=["plain", "fused", "plain-8", "never ran"]).set_index("model")
    assert list(table.index) == ["plain", "fused", "plain-8"]
    assert table.v_rand["plain"] == pytest.approx(0.955)
    assert table.v_rand_folds["plain"] == (0.95, 0.96)
    assert table.sections["plain"] == 4
    assert table.splits["plain"] == 50 + 40
    assert best_model(ablation(scores(), models=["plain", "plain-8", "fused"])) == "plain-8"


def test_a_score_that_one_fold_lacks_has_no_mean():
    table = scores()
    table.loc[(table.model == "plain") & (table.fold == "1"), "v_rand_at_validation"] = np.nan
    row = ablation(table, models=["plain"]).iloc[0]
    assert np.isnan(row.v_rand_at_validation)
    assert row.v_rand == pytest.approx(0.955)


def test_only_test_sections_count():
    table = scores()
    table.loc[table.part == "validation", "v_rand"] = 0.1
    assert ablation(table, models=["plain"]).v_rand.item() == pytest.approx(0.955)
    assert gain(table, TURNED, metric="v_rand").by_fold["0"] == pytest.approx(0.02)


def test_a_gain_is_the_difference_in_every_fold():
    found = gain(scores(), FUSED, metric="v_rand")
    assert found.by_fold == pytest.approx({"0": -0.005, "1": 0.004})
    assert (found.raised, found.mean) == (1, pytest.approx(-0.0005))
    assert gain(scores(), Step("Watershed fusion", "fused", "never ran"), metric="v_rand") is None


def test_the_worst_and_the_typical_section_are_those_of_all_folds_at_each_folds_threshold():
    table = pd.concat([sections(0.9).assign(fold="0"), sections(0.8).assign(fold="1")])
    cases = choose_sections(table, thresholds={"0": 0.6, "1": 0.6})
    assert [(kind, case.fold, case.z) for kind, case in cases.items()] == [("worst", "1", 19), ("typical", "1", 18)]
    assert cases["worst"].v_rand == pytest.approx(0.78)
    turned = choose_sections(table, thresholds={"0": 0.0, "1": 0.6})  # 0.9 - 0.3 * 0.36 is 0.792
    assert [(case.fold, case.z) for case in turned.values()] == [("0", 19), ("1", 19)]


def test_one_section_is_shown_once_and_none_not_at_all():
    table = sections(0.9).assign(fold="0")
    one = table[(table.part != "test") | (table.z == 18)]
    assert list(choose_sections(one, thresholds={"0": 0.6})) == ["worst"]
    assert choose_sections(table[table.part != "test"], thresholds={"0": 0.6}) == {}


def test_a_curve_is_the_mean_over_test_sections():
    curve = mean_curves(sections(0.9).assign(model="plain", fold="0"))
    at = curve[(curve.threshold - 0.6).abs() < 1e-6]
    assert at.v_rand.item() == pytest.approx(0.89)
    assert len(curve) == 11


def test_the_page_has_the_ablation_under_its_name_and_the_best_values_bold(section):
    _, html = section
    assert "Cross-validation on the training stack" in html
    assert re.findall(r"<strong>(0\.9750|0\.9745|0\.9550)</strong>", html) == ["0.9750"]
    assert "<strong>0.9745</strong>" not in html
    assert '0.9745 <span class="interval">0.9650</span> <span class="interval">0.9840</span>' in html
    assert "<strong>0.00025</strong>" in html  # the lowest warping error is the best


def test_one_fold_is_not_called_cross_validation(tmp_path):
    inputs, open_volume = run_of(tmp_path)
    one = dataclasses.replace(inputs, runs=[run for run in inputs.runs if run.fold == "0"])
    said = words(membranes(material_of(one, open_volume, tmp_path / "figures")))
    assert "Held-out sections of the training stack" in said
    assert "cross-validation" not in said.lower()


def test_no_error_is_negative(tmp_path):
    perfect = dict.fromkeys(V_RAND, 1.0)
    inputs, open_volume = run_of(tmp_path, v_rand=perfect)
    for run in inputs.runs:
        path = run.evaluation / "membrane_scores.csv"
        pd.read_csv(path).assign(warping_error=-0.0).to_csv(path, index=False)
    said = words(membranes(material_of(inputs, open_volume, tmp_path / "figures")))
    assert "0.00000" in said
    assert "-0.00000" not in said


def test_the_page_says_what_each_step_did(section):
    said = words(section[1])
    assert (
        "Averaging over test-time transforms raised V_rand in each fold: plain-8 against plain at the best threshold "
        "+0.0200 in fold 0, +0.0200 in fold 1, +0.0200 on average" in said
    )
    assert "Watershed fusion raised V_rand in 1 of 2 folds and did not raise its mean" in said
    assert "−0.0050 in fold 0, +0.0040 in fold 1, −0.0005 on average" in said


def test_the_words_turn_with_the_scores(tmp_path):
    lower = {(model, fold): value - 0.03 * (model == "fused") for (model, fold), value in V_RAND.items()}
    said = words(membranes(material_of(*run_of(tmp_path, v_rand=lower), tmp_path / "figures")))
    assert "Watershed fusion did not raise V_rand in any fold" in said
    assert "raised V_rand in each fold: fused" not in said


def test_published_scores_stand_in_a_table_of_their_own(section):
    tables = re.findall(r"<table.*?</table>", section[1], re.DOTALL)
    assert [("CUMedVision" in table, "plain-8" in table) for table in tables] == [(False, True), (True, False)]
    assert "can't be compared one by one" in words(tables[1])
    assert "0.98680" in tables[1]


def test_error_maps_are_those_of_the_best_models_sections(section):
    folder, html = section
    alts = re.findall(r'alt="(Error map[^"]*)"', html)
    assert len(alts) == 2
    assert "section 19, the worst test section of plain-8 with V_rand 0.9500" in alts[0]
    for kind, fold, z in (("worst", "0", 19), ("typical", "1", 19)):
        copy = folder / f"report/figures/membranes_membranes_plain-8_{kind}.png"
        source = folder / f"evaluation/membranes/plain-8/{fold}/membranes/phantom_a-{z:04d}.png"
        assert copy.read_bytes() == source.read_bytes()


def test_every_picture_says_what_it_shows(section):
    _, html = section
    assert html.count("<img") == html.count('alt="') == 4
    assert all(len(alt) > 40 for alt in re.findall(r'alt="([^"]*)"', html))
    for name in ("membranes_thresholds_membranes", "membranes_fusion_membranes"):
        assert (section[0] / f"report/figures/{name}.svg").is_file()


def test_a_table_without_a_column_is_refused(tmp_path):
    inputs, open_volume = run_of(tmp_path)
    path = inputs.runs[0].evaluation / "membrane_scores.csv"
    pd.read_csv(path).drop(columns="v_info").to_csv(path, index=False)
    with pytest.raises(FormatError, match=r"membrane_scores\.csv lacks the column\(s\) v_info"):
        membranes(material_of(inputs, open_volume, tmp_path / "figures"))


def test_models_that_differ_in_one_step_are_found_in_the_task():
    model = {"test_time_flips": False, "test_time_rotations": False}
    plain = {"test_time_flips": None, "test_time_rotations": None}
    eight = {"test_time_flips": True, "test_time_rotations": True}
    task = {
        "models": {"a": model, "b": model, "c": {**model, "test_time_flips": True}},
        "ensembles": {
            "a-8": {"models": ["a"], **eight},
            "mean": {"models": ["a", "b"], **plain},
            "mean-8": {"models": ["b", "a"], **eight},
            "c-8": {"models": ["c"], **eight},
        },
        "fusions": {"a-watershed": {"of": "a-8"}},
    }
    found = [(step["model"], step["without"]) for step in references.steps(task)]
    assert found == [("a-8", "a"), ("mean-8", "mean"), ("a-watershed", "a-8")]
