"""Scores of phantoms whose scores can be worked out by hand.

The phantom is a stack of 40 slices; a bar of foreground runs through all of them along z, 4 x 4 of 16 x 16 voxels.
"""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from voxloom import evaluate, io, tally
from voxloom.errors import SplitError, VolumeError
from voxloom.split import SplitSettings, SplitVolume, count_blocks, make_split
from voxloom.volume import PROBABILITY, Geometry, Quantisation

SHAPE = (40, 16, 16)
SETTINGS = {"threshold_metric": "f1", "bootstrap_samples": 50, "bootstrap_block_um": 4.0, "seed": 0}


@dataclass(frozen=True)
class Held:
    """A volume in memory, with what a stored one knows."""

    values: np.ndarray
    spacing_um: tuple = (1.0, 1.0, 1.0)
    quantisation: Quantisation | None = PROBABILITY

    @property
    def shape(self):
        return self.values.shape

    @property
    def dtype(self):
        return self.values.dtype

    def __getitem__(self, index):
        return self.values[index]


def bar(shape=SHAPE):
    mask = np.zeros(shape, np.uint8)
    mask[:, 4:8, 4:8] = 1
    return mask


def split_of(names=("v",), shape=SHAPE, **changes):
    volumes = [SplitVolume(name, f"region {name}", shape, (1.0, 1.0, 1.0)) for name in names]
    wanted = SplitSettings(
        by="block", block_um=(8.0, None, None), gap_um=1.0, test_fraction=0.2, validation_fraction=0.2
    )
    codes = bar(shape)
    return make_split(
        volumes,
        lambda name, wanted: count_blocks(codes, wanted),
        settings=replace(wanted, **changes),
        reach_voxels=[(0, 0, 0)],
        seed=1,
    )


def only(table, **chosen):
    for column, value in chosen.items():
        table = table[table[column] == value]
    assert len(table) == 1
    return table.iloc[0]


def test_a_perfect_prediction_scores_1():
    truth = bar()
    found = evaluate.evaluate_prediction(
        {"v": Held(truth * np.uint8(255))}, {"annotation": {"v": Held(truth)}}, split_of(), fold=0, **SETTINGS
    )
    row = only(found.scores, part="test", scope="pooled")
    for name in ("average_precision", "accuracy", "precision", "recall", "f1", "iou", "dice", "cldice"):
        assert row[name] == 1.0, name
    assert row["f1_low"] == row["f1_high"] == 1.0
    assert row["prevalence"] == pytest.approx(1 / 16)
    assert row["all_background_accuracy"] == pytest.approx(15 / 16)
    assert row["voxels"] == 8 * 16 * 16


def test_the_threshold_of_validation_is_applied_to_test():
    truth = bar()
    split = split_of()
    scores = truth * np.uint8(200)
    validation = split[split["part"] == "validation"].iloc[0]
    test = split[split["part"] == "test"].iloc[0]
    scores[validation.z_from : validation.z_to][truth[validation.z_from : validation.z_to] == 1] = 120
    scores[test.z_from : test.z_to, 0, 0] = 150  # as high as validation's foreground, and wrong: 8 voxels
    scores[test.z_from : test.z_to, 4, 4] = 110  # foreground below the threshold: 8 voxels
    found = evaluate.evaluate_prediction(
        {"v": Held(scores)}, {"annotation": {"v": Held(truth)}}, split, fold=0, **SETTINGS
    )
    assert found.threshold == {
        "threshold": pytest.approx(120 / 255),
        "stored": 120,
        "metric": "f1",
        "value": 1.0,
        "against": "annotation",
    }
    row = only(found.scores, part="test", scope="pooled")
    assert row["precision"] == pytest.approx(15 / 16)
    assert row["recall"] == pytest.approx(15 / 16)
    assert row["f1"] == pytest.approx(15 / 16)
    assert row["iou"] == pytest.approx(15 / 17)
    # at one half, 127.5, only the 110s are lost
    assert row["recall_at_half"] == pytest.approx(15 / 16)
    assert only(found.scores, part="validation", scope="pooled")["recall_at_half"] == 0.0


@pytest.mark.parametrize(("stored", "recall"), [(127, 0.0), (128, 1.0)])
def test_half_is_between_127_and_128(stored, recall):
    truth = bar()
    found = evaluate.evaluate_prediction(
        {"v": Held(truth * np.uint8(stored))}, {"annotation": {"v": Held(truth)}}, split_of(), fold=0, **SETTINGS
    )
    assert only(found.scores, part="test", scope="pooled")["recall_at_half"] == recall


def test_centre_lines_are_those_of_the_test_part_at_the_threshold():
    """A tube of 3 x 3 voxels; in the upper half of test the prediction breaks off."""
    truth = np.zeros(SHAPE, np.uint8)
    truth[:, 6:9, 6:9] = 1
    split = split_of()
    test = split[split["part"] == "test"].iloc[0]
    scores = truth * np.uint8(90)
    scores[test.z_from : test.z_from + 4][truth[:4] == 1] = 89
    found = evaluate.evaluate_prediction(
        {"v": Held(scores)}, {"annotation": {"v": Held(truth)}}, split, fold=0, **SETTINGS
    )
    assert found.threshold["stored"] == 90
    row = only(found.scores, part="test", scope="pooled")
    assert row["recall"] == 0.5
    assert 0.6 < row["cldice"] < 0.8, "all that is predicted is right, half is found: 2/3"
    assert np.isnan(only(found.scores, part="validation", scope="pooled")["cldice"])


def test_every_annotator_every_volume_and_every_region_gets_rows():
    truth = bar()
    worse = truth.copy()
    worse[:, 4, 4:8] = 0  # sees a bar of 3 x 4
    unsure = np.full_like(truth, 255)
    split = split_of(("a", "b"))
    predictions = {name: Held(truth * np.uint8(255)) for name in "ab"}
    truths = {
        "annotation": {name: Held(truth) for name in "ab"},
        "ada": {"a": Held(worse)},
        "bob": {"a": Held(unsure), "b": Held(unsure)},
    }
    found = evaluate.evaluate_prediction(predictions, truths, split, fold=0, recipe=truths["annotation"], **SETTINGS)
    rows = found.scores
    assert set(rows["against"]) == {"annotation", "ada"}, "who annotated nothing gives no score"
    tested = set(split.loc[split["part"] == "test", "volume"])
    names = set(rows.loc[(rows["against"] == "annotation") & (rows["part"] == "test"), "name"])
    assert names == {"pooled", *tested, *(f"region {name}" for name in tested)}
    # where ada scored, precision is 12 of 16
    against_ada = rows[(rows["against"] == "ada") & (rows["scope"] == "volume")]
    np.testing.assert_allclose(against_ada["precision"], 0.75)
    assert set(found.recipe["against"]) == {"ada"}
    np.testing.assert_allclose(found.recipe["precision"], 0.75)
    np.testing.assert_allclose(found.recipe["recall"], 1.0)


def test_ignored_voxels_count_nowhere():
    truth = bar()
    prediction = truth * np.uint8(255)
    prediction[:, 12:, :] = 255  # wrong, but nobody annotated there
    truth[:, 12:, :] = 255
    found = evaluate.evaluate_prediction(
        {"v": Held(prediction)}, {"annotation": {"v": Held(truth)}}, split_of(), fold=0, **SETTINGS
    )
    row = only(found.scores, part="test", scope="pooled")
    assert row["f1"] == row["cldice"] == 1.0
    assert row["voxels"] == 8 * 12 * 16


def test_curve_has_at_most_256_rows_and_ends_at_full_recall():
    rng = np.random.default_rng(0)
    truth = bar()
    scores = rng.integers(0, 256, SHAPE, dtype=np.uint8)
    found = evaluate.evaluate_prediction(
        {"v": Held(scores)}, {"annotation": {"v": Held(truth)}}, split_of(), fold=0, **SETTINGS
    )
    for (against, part, scope, name), curve in found.curve.groupby(["against", "part", "scope", "name"]):
        assert len(curve) <= 256
        assert curve.sort_values("threshold")["recall"].iloc[0] == 1.0
        voxels = only(found.scores, against=against, part=part, scope=scope, name=name)["voxels"]
        assert (curve[["tp", "fp", "fn", "tn"]].sum(axis=1) == voxels).all()


def test_interval_is_wider_where_blocks_differ():
    truth = bar()
    even, uneven = truth * np.uint8(255), truth * np.uint8(255)
    even[::2, 4:8, 4:8] = 0  # half is lost everywhere
    test = split_of()
    test = test[test["part"] == "test"].iloc[0]
    uneven[test.z_from : test.z_from + 4] = 0  # half is lost in one block
    widths = []
    for scores in (even, uneven):
        found = evaluate.evaluate_prediction(
            {"v": Held(scores)}, {"annotation": {"v": Held(truth)}}, split_of(), fold=0, **SETTINGS
        )
        row = only(found.scores, part="test", scope="pooled")
        assert row["recall"] == 0.5
        assert row["bootstrap_blocks"] == 2 * 4 * 4
        widths.append(row["f1_high"] - row["f1_low"])
    assert widths[0] < widths[1]


def test_blocks_of_the_bootstrap_grow_until_they_can_be_counted(monkeypatch):
    monkeypatch.setattr(tally, "MAX_CELLS", 16)
    truth = bar()
    found = evaluate.evaluate_prediction(
        {"v": Held(truth * np.uint8(255))}, {"annotation": {"v": Held(truth)}}, split_of(), fold=0, **SETTINGS
    )
    row = only(found.scores, part="test", scope="pooled")
    assert row["bootstrap_block_um"] == 8.0
    assert row["bootstrap_blocks"] <= 16
    assert row["voxels"] == 8 * 256


def test_scores_at_the_networks_scale_stand_beside_the_native_ones():
    truth = bar()
    histogram = np.zeros((2, 256), np.int64)
    histogram[0, 0], histogram[1, 255], histogram[1, 0] = 90, 6, 4
    found = evaluate.evaluate_prediction(
        {"v": Held(truth * np.uint8(255))},
        {"annotation": {"v": Held(truth)}},
        split_of(),
        fold=0,
        network_histograms={("annotation", "test", "v"): histogram},
        **SETTINGS,
    )
    row = only(found.scores, part="test", scope="pooled", grid="network")
    assert row["recall"] == 0.6
    assert row["voxels"] == 100
    assert np.isnan(row["f1_low"])
    assert only(found.scores, part="test", scope="pooled", grid="native")["recall"] == 1.0


def test_stored_volumes_on_threads_give_the_same_tables(tmp_path):
    rng = np.random.default_rng(2)
    shape = (70, 24, 24)
    truth = bar(shape)
    scores = np.clip(truth * 120.0 + rng.normal(60, 40, shape), 0, 255).astype(np.uint8)
    geometry = Geometry(spacing_um=(1.0, 1.0, 1.0))
    for name, values, kind in (("p", scores, "probability"), ("t", truth, "annotation")):
        with io.create_volume(
            tmp_path / f"{name}.zarr",
            shape=shape,
            dtype="uint8",
            geometry=geometry,
            kind=kind,
            quantisation=PROBABILITY if name == "p" else None,
        ) as writer:
            writer[:] = values
    split = split_of(shape=shape)
    tables = []
    for prediction, annotation, threads in (
        (Held(scores), Held(truth), 1),
        (io.open_volume(tmp_path / "p.zarr"), io.open_volume(tmp_path / "t.zarr"), 2),
    ):
        tables.append(
            evaluate.evaluate_prediction(
                {"v": prediction}, {"annotation": {"v": annotation}}, split, fold=0, threads=threads, **SETTINGS
            )
        )
    for name in ("scores", "curve", "reliability"):
        assert getattr(tables[0], name).equals(getattr(tables[1], name)), name


def test_validation_without_foreground_is_refused_and_says_what_to_do():
    truth = bar()
    split = split_of()
    validation = split[split["part"] == "validation"].iloc[0]
    truth[validation.z_from : validation.z_to] = 0
    with pytest.raises(SplitError, match=r"no foreground.*raise split.validation_fraction"):
        evaluate.evaluate_prediction({"v": Held(truth)}, {"annotation": {"v": Held(truth)}}, split, fold=0, **SETTINGS)


def test_split_without_validation_is_refused():
    truth = Held(bar())
    split = split_of(validation_fraction=0.0)
    with pytest.raises(SplitError, match="no validation boxes"):
        evaluate.evaluate_prediction({"v": truth}, {"annotation": {"v": truth}}, split, fold=0, **SETTINGS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quantisation": None}, "doesn't say what its stored numbers stand for"),
        ({"values": np.zeros(SHAPE, np.float32)}, "uint8 or uint16"),
        ({"values": np.zeros((40, 16, 15), np.uint8)}, "same voxels"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(change, message):
    truth = Held(bar())
    with pytest.raises(VolumeError, match=message):
        evaluate.evaluate_prediction(
            {"v": replace(truth, **change)}, {"annotation": {"v": truth}}, split_of(), fold=0, **SETTINGS
        )
