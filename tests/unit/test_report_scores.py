import numpy as np
import pandas as pd
import pytest
from unit.report_tables import curve, make_run, prediction, tubes

from voxloom import report_scores
from voxloom.errors import FormatError
from voxloom.report_curves import pool_folds
from voxloom.report_inputs import Run
from voxloom.report_run import map_plane, read_benchmarks, split_summary, stage_costs, without_former_models
from voxloom.report_training import calibration_error, pool_bins, receptive_fields, training_memory


def test_one_folds_headline_is_the_tables_own_numbers(tmp_path):
    inputs, _ = make_run(tmp_path)
    scores = report_scores.gather(inputs.runs, file="scores.csv", needs=report_scores.SCORE_COLUMNS)
    rows = report_scores.headline(scores, models=["as_published", "best"])
    table = pd.read_csv(inputs.runs[1].evaluation / "scores.csv")
    one = table[(table.scope == "pooled") & (table.part == "test") & (table.against == "truth")].iloc[0]
    row = rows[(rows.against == "truth") & (rows.model == "best")].iloc[0]
    for column in ("average_precision", "average_precision_low", "f1_high", "precision", "accuracy", "prevalence"):
        assert row[column] == one[column]


def test_several_folds_give_their_mean_and_range():
    scores = pd.DataFrame(
        {"model": "best", "against": "truth", "part": "test", "scope": "pooled", "voxels": 10, "f1": [0.5, 0.9]}
        | {"f1_low": [0.1, 0.2], "average_precision": [0.4, 0.6]}
    )
    row = report_scores.headline(scores, models=["best"]).iloc[0]
    assert (row.f1, row.f1_low, row.f1_high, row.voxels, row.folds) == (0.7, 0.5, 0.9, 20, 2)
    assert "mean over folds" in report_scores.interval_words(pd.DataFrame([row]))


def test_scores_at_the_networks_own_scale_do_not_mix_with_native_ones():
    scores = pd.DataFrame(
        {"model": "a", "against": "t", "part": "test", "scope": "pooled", "voxels": 1, "f1": [0.5, 0.9]}
        | {"grid": ["native", "network"]}
    )
    assert report_scores.headline(scores, models=["a"]).f1.tolist() == [0.5]
    assert report_scores.headline(scores, models=["a"], grid="network").f1.tolist() == [0.9]


def test_the_recipes_mask_against_itself_says_nothing():
    recipe = pd.DataFrame(
        {"model": "a", "against": ["annotation", "human"], "part": "test", "volume": "pooled", "f1": [1.0, 0.6]}
        | {"precision": 1.0, "recall": 1.0}
    )
    assert report_scores.recipe_points(recipe).against.tolist() == ["human"]


def test_a_missing_column_names_the_file_and_the_column(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("against,part\ntruth,test\n", encoding="utf-8")
    with pytest.raises(FormatError, match=r"scores\.csv lacks the column\(s\) f1; it has against, part"):
        report_scores.read_table(path, needs=["against", "f1"])


def test_a_volume_called_na_stays_one(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("volume,f1\nNA,0.5\nb,\n", encoding="utf-8")
    table = report_scores.read_table(path, needs=["volume", "f1"])
    assert table.volume.tolist() == ["NA", "b"]
    assert np.isnan(table.f1[1])


def test_a_threshold_without_its_stored_level_is_refused(tmp_path):
    (tmp_path / "threshold.json").write_text('{"threshold": 0.5}', encoding="utf-8")
    with pytest.raises(FormatError, match="needs the key 'stored'"):
        report_scores.read_threshold(tmp_path)


@pytest.mark.parametrize(
    ("volumes", "note"), [(["a"], "synthetic"), (["a", "b"], "partly synthetic"), (["b"], ""), ([], "")]
)
def test_scores_on_phantoms_are_called_synthetic(volumes, note):
    assert report_scores.synthetic_note(volumes, is_synthetic={"a": True, "b": False}) == note


def test_a_rows_note_follows_the_volumes_behind_that_row():
    splits = pd.DataFrame({"fold": "0", "volume": ["a", "b"], "region": ["x", "y"], "part": "test"})
    known = {"a": True, "b": False}

    def note(**row):
        return report_scores.row_note(
            pd.Series({"part": "test", "fold": "0", **row}), splits=splits, is_synthetic=known
        )

    assert note(scope="pooled", name="pooled") == "partly synthetic"
    assert note(scope="volume", name="a") == "synthetic"
    assert note(scope="volume", name="b") == ""
    assert note(scope="region", name="x") == "synthetic"
    assert note(scope="volume", volume="b") == ""
    assert note(volume="a") == "synthetic"


def test_pooled_folds_equal_one_curve_of_all_their_voxels():
    truth = tubes()
    one, other = prediction(truth, noise=0.2, seed=1), prediction(truth, noise=0.3, seed=2)
    one[one == one.max()] = 7  # the folds do not have the same thresholds
    folds = pd.concat([curve(one, truth).assign(fold=0), curve(other, truth).assign(fold=1)])
    together = curve(np.stack([one, other]), np.stack([truth, truth])).sort_values("threshold", ascending=False)
    pooled = pool_folds(folds)
    np.testing.assert_allclose(pooled.threshold, together.threshold)
    np.testing.assert_allclose(pooled.precision, together.precision)
    np.testing.assert_allclose(pooled.recall, together.recall)


def test_calibration_error_is_zero_on_the_diagonal_and_weighted_by_voxels():
    bins = pd.DataFrame({"bin_from": [0.0, 0.5], "bin_to": [0.5, 1.0], "voxels": [30, 10]})
    exact = bins.assign(mean_probability=[0.2, 0.8], foreground_share=[0.2, 0.8])
    off = bins.assign(mean_probability=[0.2, 0.8], foreground_share=[0.2, 0.4])
    assert calibration_error(pool_bins(exact)) == 0
    assert calibration_error(pool_bins(off)) == pytest.approx(0.1)
    assert np.isnan(calibration_error(bins.iloc[:0].assign(mean_probability=0.0, foreground_share=0.0)))


def test_bins_of_two_folds_are_averaged_by_their_voxels():
    fold = {"bin_from": 0.0, "bin_to": 0.5, "mean_probability": 0.2}
    bins = pd.DataFrame(
        [fold | {"foreground_share": 0.0, "voxels": 30}, fold | {"foreground_share": 0.4, "voxels": 10}]
    )
    assert pool_bins(bins).foreground_share.tolist() == [pytest.approx(0.1)]


def test_a_split_along_x_is_drawn_along_x():
    boxes = pd.DataFrame({"z_from": 0, "z_to": 9, "y_from": 0, "y_to": 9, "x_from": [0, 3, 6], "x_to": [3, 6, 9]})
    assert map_plane(boxes) == ("x", "z")


def test_the_split_summary_adds_up_boxes(tmp_path):
    inputs, _ = make_run(tmp_path)
    summary = split_summary(pd.read_csv(inputs.tasks[0].splits)).set_index("part")
    assert list(summary.index) == ["train", "validation", "test", "gap"]
    assert summary.voxels["gap"] == 4 * 40 * 40
    assert summary.prevalence["test"] == pytest.approx((tubes()[18:] == 1).mean())


def test_benchmarks_are_told_apart_by_stage(tmp_path):
    inputs, _ = make_run(tmp_path)
    stages = stage_costs(read_benchmarks(inputs.benchmarks))
    assert stages.stage.tolist() == ["train", "convert"]
    assert stages.time_s.tolist() == [62.0, 1.5]
    assert stages.peak_memory_mib.tolist() == [6200.0, 150.0]


def test_what_was_planned_stands_beside_what_was_measured(tmp_path):
    inputs, _ = make_run(tmp_path)
    planned = [{"stage": "train", "seconds": 70.0, "memory_mib": 6000.0}, {"stage": "predict", "seconds": 1.0}]
    stages = stage_costs(read_benchmarks(inputs.benchmarks), planned).set_index("stage")
    assert stages.planned_time_s["train"] == 70.0
    assert stages.planned_memory_mib["train"] == 6000.0
    assert np.isnan(stages.planned_time_s["convert"])
    assert "predict" not in stages.index


def test_costs_leave_out_models_that_are_no_longer_configured():
    kept = [("train", "axons/best/0"), ("split", "axons"), ("convert", "a"), ("annotate", "axons/a")]
    former = [("train", "axons/old/0"), ("predict", "cells/best/0/a"), ("split", "cells"), ("annotate", "cells/a")]
    jobs = pd.DataFrame(kept + former, columns=["stage", "job"])
    left = without_former_models(jobs, {("axons", "best")})
    assert list(left.itertuples(index=False, name=None)) == kept


def test_a_benchmark_too_short_to_measure_is_not_zero(tmp_path):
    (tmp_path / "split.tsv").write_text("s\th:m:s\tmax_rss\n0.01\t0:00:00\tNA\n", encoding="utf-8")
    stages = stage_costs(read_benchmarks(tmp_path))
    assert np.isnan(stages.peak_memory_mib[0])


def test_a_file_that_is_no_benchmark_is_refused(tmp_path):
    (tmp_path / "split.tsv").write_text("a\tb\n1\t2\n", encoding="utf-8")
    with pytest.raises(FormatError, match=r"benchmark split\.tsv needs the columns s and max_rss"):
        read_benchmarks(tmp_path)


def test_memory_of_a_training_is_that_of_its_last_epoch_beside_what_was_planned():
    logs = pd.DataFrame(
        {
            "model": ["a", "a", "b", "old"],
            "fold": ["0", "0", "0", "0"],
            "epoch": [1, 2, 1, 1],
            "planned_memory_mib": [800.0, 800.0, 500.4, np.nan],
            "peak_memory_mib": [700.0, 840.0, 475.38, 600.0],
        }
    )
    memory = training_memory(logs)
    assert memory.model.tolist() == ["a", "b"]
    assert memory.planned_memory_mib.tolist() == [800, 500]
    assert memory.peak_memory_mib.tolist() == [840, 475]
    assert memory.measured_over_planned.tolist() == [1.05, 0.95]
    assert training_memory(logs[["model", "fold", "epoch"]]).empty


def test_the_report_says_how_far_each_branch_of_a_network_sees(tmp_path):
    runs = [Run("t", model, fold, tmp_path, {}, tmp_path / model) for model in ("deep", "shallow") for fold in "01"]
    for model, preset in (("deep", "chen2016"), ("shallow", "shallow")):
        (tmp_path / model).mkdir()
        (tmp_path / model / "model.yaml").write_text(f"network: {{preset: {preset}, slices: 3}}\n")
    fields = receptive_fields([*runs, Run("t", "untrained", "0", tmp_path, {}, tmp_path / "no folder")])
    assert fields.to_dict("records") == [
        {"model": "deep", "sees": "3 x 109 x 109", "branches": "3 x 19 x 19; 3 x 49 x 49; 3 x 109 x 109"},
        {"model": "shallow", "sees": "3 x 47 x 47", "branches": ""},
    ]
