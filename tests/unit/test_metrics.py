"""Scores of a handful of voxels, worked out by hand."""

import numpy as np
import pytest

from voxloom import metrics
from voxloom.errors import VolumeError
from voxloom.volume import PROBABILITY


def histogram_of(*voxels):
    """From (score, is foreground) pairs."""
    stored = np.array([score for score, _ in voxels], dtype=np.uint8)
    return metrics.joint_histogram(stored, np.array([is_foreground for _, is_foreground in voxels]))


def test_histogram_counts_background_and_foreground_apart():
    histogram = histogram_of((3, False), (3, True), (3, True), (255, True), (0, False))
    assert histogram.shape == (2, 256)
    assert histogram[0, 3] == 1
    assert histogram[1, 3] == 2
    assert histogram[1, 255] == 1
    assert histogram.sum() == 5


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pieces_of_a_large_array_add_up(dtype):
    rng = np.random.default_rng(3)
    shape = (3, 5, metrics.PIECE // 7)
    stored, mask, ignore = rng.integers(0, 256, shape).astype(dtype), rng.random(shape) < 0.3, rng.random(shape) < 0.1
    histogram = metrics.joint_histogram(stored, mask, ignore=ignore)
    for foreground in (False, True):
        counts = np.bincount(stored[(mask == foreground) & ~ignore], minlength=histogram.shape[1])
        np.testing.assert_array_equal(histogram[int(foreground)], counts)


def test_scores_that_are_no_numbers_have_no_bins():
    mask = np.array([True, False])
    with pytest.raises(VolumeError, match="scores hold NaN or infinity"):
        metrics.binned_histogram(np.array([0.5, np.nan]), mask)
    with pytest.raises(VolumeError, match="or none counts"):
        metrics.binned_histogram(np.array([0.5, 0.1]), mask, ignore=np.array([True, True]))
    assert metrics.binned_histogram(np.array([0.5, np.nan]), mask, ignore=~mask)[1].sum() == 1


def test_ignored_voxels_are_not_counted():
    stored = np.array([1, 2, 3], np.uint16)
    histogram = metrics.joint_histogram(stored, np.array([True, True, False]), ignore=np.array([False, True, False]))
    assert histogram.shape == (2, 65536)
    assert histogram[1].sum() == 1
    assert histogram[0, 3] == 1


def test_scores_of_a_decision():
    #            tp           fp            fn           tn x 2
    counts = metrics.confusion(histogram_of((200, True), (200, False), (10, True), (10, False), (10, False)), level=128)
    assert (counts.tp, counts.fp, counts.fn, counts.tn) == (1, 1, 1, 2)
    assert counts.accuracy == pytest.approx(3 / 5)
    assert counts.all_background_accuracy == pytest.approx(3 / 5)
    assert counts.prevalence == pytest.approx(2 / 5)
    assert counts.precision == counts.recall == counts.f1 == counts.dice == 0.5
    assert counts.iou == pytest.approx(1 / 3)


def test_a_score_equal_to_the_threshold_is_foreground():
    assert metrics.confusion(histogram_of((128, True)), level=128).tp == 1
    assert metrics.confusion(histogram_of((127, True)), level=128).tp == 0


def test_predicting_nothing_is_precise_and_finds_nothing():
    counts = metrics.confusion(histogram_of((0, True), (0, False)), level=1)
    assert counts.precision == 1.0
    assert counts.recall == 0.0
    assert counts.f1 == 0.0


def test_agreeing_on_nothing_is_agreement_but_has_no_recall():
    counts = metrics.confusion(histogram_of((0, False)), level=1)
    assert counts.f1 == counts.iou == 1.0
    assert np.isnan(counts.recall)
    assert np.isnan(metrics.average_precision(histogram_of((0, False))))


def test_all_background_beats_a_bad_prediction_of_something_rare():
    voxels = [(0, False)] * 97 + [(255, False)] * 2 + [(0, True)]
    counts = metrics.confusion(histogram_of(*voxels), level=128)
    assert counts.accuracy == 0.97
    assert counts.all_background_accuracy == 0.99
    assert counts.f1 == 0.0


def test_merged_tubes_lower_precision_not_recall():
    """Two tubes two voxels apart; the prediction fills what is between them."""
    truth = np.zeros((1, 5, 10), bool)
    truth[:, 0], truth[:, 3] = True, True
    merged = truth.copy()
    merged[:, 1:3] = True
    counts = metrics.confusion(metrics.joint_histogram(merged.view(np.uint8), truth), level=1)
    assert counts.recall == 1.0
    assert counts.precision == 0.5


def test_average_precision_is_a_sum_of_steps():
    # from the top: 1 of 1 right (recall 1/2), 1 of 2, 2 of 3 (recall 1)
    histogram = histogram_of((30, True), (20, False), (10, True))
    assert metrics.average_precision(histogram) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_best_threshold_of_equals_is_the_lowest():
    assert metrics.best_threshold(histogram_of((10, False), (90, True), (200, True)), metric="f1") == (90, 1.0)
    # calling either 20 or 10 foreground costs as much as it brings: F1 is 2/3 both times
    level, value = metrics.best_threshold(histogram_of((20, True), (10, False), (5, True), (5, False)), metric="f1")
    assert (level, value) == (5, pytest.approx(2 / 3))


def test_reliability_compares_what_was_said_with_what_came():
    voxels = [(204, True)] * 3 + [(204, False)] + [(51, False)] * 5
    found = metrics.reliability(histogram_of(*voxels), quantisation=PROBABILITY, bins=10)
    np.testing.assert_allclose(found.mean_probability, [0.2, 0.8])
    np.testing.assert_allclose(found.foreground_share, [0.0, 0.75])
    np.testing.assert_allclose(found.bin_from, [0.2, 0.8])
    assert found.voxels.tolist() == [5, 4]


def test_probability_one_is_in_the_last_bin():
    found = metrics.reliability(histogram_of((255, True)), quantisation=PROBABILITY, bins=10)
    assert (found.bin_from[0], found.bin_to[0]) == (0.9, 1.0)


def test_interval_of_equal_blocks_has_no_width_and_one_block_has_none():
    block = histogram_of((200, True), (200, False), (0, True))
    wanted = {"level": 128, "samples": 20}
    rng = np.random.default_rng(0)
    found = metrics.bootstrap_intervals(np.stack([block] * 5), rng=rng, **wanted)
    for name in metrics.INTERVALS:
        assert found[name][0] == pytest.approx(found[name][1])
    assert found["f1"][0] == pytest.approx(0.5)
    assert np.isnan(metrics.bootstrap_intervals(block[None], rng=rng, **wanted)["f1"]).all()
    assert np.isnan(metrics.bootstrap_intervals(np.stack([block] * 5), level=128, samples=0, rng=rng)["f1"]).all()


def test_interval_covers_the_truth_about_as_often_as_it_says():
    """1000 places of which each is right with probability 0.8; samples of 60 places should cover 0.8 in 95 %."""
    rng = np.random.default_rng(5)
    right, wrong = histogram_of((200, True)), histogram_of((0, True))
    covered = 0
    for _ in range(200):
        blocks = np.stack([right if rng.random() < 0.8 else wrong for _ in range(60)])
        low, high = metrics.bootstrap_intervals(blocks, level=128, samples=200, rng=rng)["dice"]
        covered += low <= 2 * 0.8 / 1.8 <= high
    assert 0.88 < covered / 200 < 0.99


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros(3, np.float32), np.zeros(3, bool)), "uint8 or uint16, got float32"),
        ((np.zeros(3, np.uint8), np.zeros(3, np.uint8)), "must be boolean, got uint8"),
        ((np.zeros(3, np.uint8), np.zeros(4, bool)), r"shape \(4,\) but the scores have \(3,\)"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(VolumeError, match=message):
        metrics.joint_histogram(*arguments)


def test_a_score_that_is_not_a_number_is_refused():
    with pytest.raises(VolumeError, match="NaN"):
        metrics.level_histogram(np.array([0.5, np.nan]), np.array([True, False]))


def test_unknown_metric_is_refused_and_lists_the_known():
    with pytest.raises(VolumeError, match="f1, iou"):
        metrics.best_threshold(histogram_of((1, True)), metric="accuracy")


def test_no_threshold_without_foreground():
    with pytest.raises(VolumeError, match="without a foreground voxel"):
        metrics.best_threshold(histogram_of((1, False)), metric="f1")
