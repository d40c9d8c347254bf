"""Which metrics two arrays get, and what they are."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from voxloom import score
from voxloom.errors import VolumeError
from voxloom.score import score_arrays


def tube(shape=(4, 8, 8)):
    mask = np.zeros(shape, bool)
    mask[:, 2:4, 2:4] = True
    return mask


def test_many_real_scores_are_counted_in_bins(monkeypatch):
    truth = tube()
    prediction = np.random.default_rng(3).normal(0.3 + 0.4 * truth, 0.2).astype(np.float32)
    exact = score_arrays(prediction, truth, threshold=0.5)
    monkeypatch.setattr(score, "SORTED_VOXELS", 0)
    binned = score_arrays(prediction, truth, threshold=0.5)
    assert binned["average_precision"] == pytest.approx(exact["average_precision"], abs=1e-6)
    assert binned["best_f1_threshold"] == pytest.approx(exact["best_f1_threshold"], abs=1e-4)
    assert binned["f1"] == exact["f1"]


@pytest.mark.parametrize("foreground", [1, 255, 7])
def test_any_value_but_0_is_foreground_of_a_mask(foreground):
    truth = tube().astype(np.uint8) * np.uint8(foreground)
    scores = score_arrays(tube(), truth)
    assert scores["kind"] == "mask"
    assert scores["dice"] == scores["cldice"] == 1.0
    assert scores["tp"] == 16


def test_255_beside_1_means_not_annotated():
    truth = tube().astype(np.uint8)
    truth[0] = 255
    prediction = tube()
    prediction[0] = True
    scores = score_arrays(prediction, truth)
    assert scores["voxels"] == 3 * 64
    assert scores["f1"] == 1.0


def test_quantised_scores_get_a_curve_and_a_threshold_at_half():
    truth = tube()
    prediction = np.where(truth, 100, 20).astype(np.uint8)
    prediction[:, 2, 2] = 200
    scores = score_arrays(prediction, truth)
    assert scores["kind"] == "scores"
    assert scores["average_precision"] == 1.0
    assert (scores["best_f1"], scores["best_f1_threshold"]) == (1.0, 100)
    assert scores["threshold"] == 128
    assert scores["recall"] == 0.25
    assert score_arrays(prediction, truth, threshold=100)["recall"] == 1.0


def test_real_scores_outside_0_and_1_have_no_threshold_of_their_own():
    scores = score_arrays(np.where(tube(), 3.5, -1.25).astype(np.float32), tube())
    assert scores["average_precision"] == 1.0
    assert "f1" not in scores
    within = score_arrays(np.where(tube(), 0.75, 0.25), tube())
    assert within["f1"] == 1.0


def test_labels_get_split_and_merge_errors():
    truth = np.zeros((2, 4, 8), np.uint32)
    truth[:, :2], truth[:, 2:] = 1, 2
    merged = np.ones_like(truth)
    scores = score_arrays(merged, truth)
    assert scores["kind"] == "labels"
    assert_allclose([scores["voi_split_bits"], scores["voi_merge_bits"]], [0.0, 1.0])
    # pairs: both halves in one object, precision one half and recall 1
    assert_allclose(scores["adapted_rand_error"], 1 / 3)
    assert_allclose(scores["cremi_score"], np.sqrt(1 / 3))
    halves = score_arrays(truth, np.ones_like(truth), kind="labels")
    assert_allclose([halves["voi_split_bits"], halves["voi_merge_bits"]], [1.0, 0.0])
    assert (halves["true_objects"], halves["predicted_objects"]) == (1, 2)


def test_volumes_are_measured_in_cubic_micrometres():
    scores = score_arrays(tube(), tube(), spacing_um=(3.0, 0.5, 0.5))
    assert scores["true_volume_um3"] == scores["predicted_volume_um3"] == 16 * 0.75


def test_planes_are_scored_too():
    scores = score_arrays(tube()[0], tube()[0])
    assert scores["cldice"] == 1.0


def test_ignored_voxels_count_nowhere():
    wrong = ~tube()
    assert score_arrays(wrong, tube(), ignore=~tube())["recall"] == 0.0
    assert score_arrays(wrong, tube(), ignore=~tube())["voxels"] == 16


@pytest.mark.parametrize(
    ("prediction", "truth", "changes", "message"),
    [
        (tube(), tube((5, 8, 8)), {}, "same voxels"),
        (tube()[None], tube()[None], {}, "choose one channel"),
        (tube(), tube(), {"kind": "depth"}, "known: auto, mask, scores, labels"),
        (np.zeros((2, 2), np.float32), np.array([[1, 2], [3, 0]]), {}, "integer labels too"),
        (np.zeros((2, 2), np.uint8), np.array([[1, 2], [3, 0]]), {"kind": "scores"}, "several labels"),
        (np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8), {"kind": "labels"}, "no object"),
        (np.zeros((2, 2), np.int32), np.array([[-1, 2], [3, 0]]), {}, "at least 0"),
        (np.zeros((2, 2), np.uint8), np.array([[1, 255]] * 2, np.uint8), {"ignore": np.ones((2, 2), bool)}, "ignored"),
    ],
)
def test_what_cannot_be_scored_is_refused_with_the_reason(prediction, truth, changes, message):
    with pytest.raises(VolumeError, match=message):
        score_arrays(prediction, truth, **changes)
