"""Scores obey their definitions and symmetries for any input."""

import itertools

import numpy as np
import pytest
import scipy.ndimage as ndi
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.morphology import skeletonize
from sklearn.metrics import average_precision_score, precision_recall_curve

from voxloom import metrics, partitions, skeleton
from voxloom.score import score_arrays

SHAPES = hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=7)


@st.composite
def scored(draw, dtype=np.uint8):
    shape = draw(SHAPES)
    stored = draw(hnp.arrays(dtype, shape, elements=st.integers(0, np.iinfo(dtype).max)))
    mask = draw(hnp.arrays(bool, shape))
    ignore = draw(hnp.arrays(bool, shape))
    return stored, mask, ignore


@settings(deadline=None)
@given(voxels=st.one_of(scored(), scored(np.uint16)))
def test_curve_and_average_precision_equal_scikit_learns(voxels):
    stored, mask, ignore = voxels
    counted = ~ignore
    assume(mask[counted].any())
    histogram = metrics.joint_histogram(stored, mask, ignore=ignore)
    curve = metrics.precision_recall_curve(histogram)
    precision, recall, thresholds = precision_recall_curve(mask[counted], stored[counted])
    np.testing.assert_array_equal(curve.levels, thresholds)
    np.testing.assert_allclose(np.append(curve.precision, 1.0), precision)
    np.testing.assert_allclose(np.append(curve.recall, 0.0), recall)
    expected = average_precision_score(mask[counted], stored[counted])
    assert metrics.average_precision(histogram) == pytest.approx(expected)


@settings(deadline=None)
@given(voxels=scored(), level=st.integers(0, 256))
def test_counts_match_their_definition(voxels, level):
    stored, mask, ignore = voxels
    counts = metrics.confusion(metrics.joint_histogram(stored, mask, ignore=ignore), level=level)
    predicted = stored.astype(int) >= level
    assert counts.tp == (predicted & mask & ~ignore).sum()
    assert counts.fp == (predicted & ~mask & ~ignore).sum()
    assert counts.fn == (~predicted & mask & ~ignore).sum()
    assert counts.tn == (~predicted & ~mask & ~ignore).sum()


@settings(deadline=None)
@given(voxels=scored())
def test_histograms_of_parts_add_up_to_that_of_the_whole(voxels):
    stored, mask, ignore = voxels
    at = len(stored) // 2
    parts = [
        metrics.joint_histogram(stored[cut], mask[cut], ignore=ignore[cut]) for cut in (slice(0, at), slice(at, None))
    ]
    np.testing.assert_array_equal(sum(parts), metrics.joint_histogram(stored, mask, ignore=ignore))


@settings(deadline=None)
@given(voxels=scored())
def test_levels_of_any_type_give_the_same_curve(voxels):
    stored, mask, ignore = voxels
    assume(not ignore.all())
    exact = metrics.precision_recall_curve(metrics.joint_histogram(stored, mask, ignore=ignore))
    levels, histogram = metrics.level_histogram(stored.astype(float) / 7, mask, ignore=ignore)
    found = metrics.precision_recall_curve(histogram)
    np.testing.assert_array_equal(found.tp, exact.tp)
    np.testing.assert_allclose(levels[found.levels], exact.levels / 7)


LABELS = hnp.arrays(np.uint16, (3, 5, 6), elements=st.integers(0, 4))


@settings(deadline=None)
@given(prediction=LABELS, truth=LABELS, seed=st.integers(0, 1000))
def test_label_scores_ignore_renumbering_and_mirroring(prediction, truth, seed):
    assume(truth.any())
    rng = np.random.default_rng(seed)
    new_truth = np.concatenate(([0], 1 + rng.permutation(70_000)[:4])).astype(np.uint32)
    new_prediction = np.concatenate(([0], 1 + rng.permutation(9)[:4])).astype(np.uint32)
    tables = [
        partitions.contingency(prediction, truth),
        partitions.contingency(new_prediction[prediction], new_truth[truth]),
        partitions.contingency(np.flip(prediction), np.flip(truth)),
    ]
    for scores in (partitions.variation_of_information, partitions.cremi_score):
        values = np.array([scores(table) for table in tables])
        np.testing.assert_allclose(values, np.broadcast_to(values[0], values.shape), atol=1e-9)
    for mode in partitions.RAND_MODES:
        errors = [partitions.adapted_rand(table, mode=mode).error for table in tables]
        np.testing.assert_allclose(errors, errors[0])


@settings(deadline=None)
@given(truth=LABELS)
def test_a_segmentation_agrees_with_itself(truth):
    assume(truth.any())
    table = partitions.contingency(truth, truth)
    assert partitions.variation_of_information(table) == (0.0, 0.0)
    assert partitions.adapted_rand(table).error == pytest.approx(0.0)


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**32), labels=st.sampled_from([3, 60, 5000]), size=st.sampled_from([(1, 1), (3, 7), (9, 8000)])
)
def test_the_contingency_table_is_that_of_counting_pairs(seed, labels, size):
    rng = np.random.default_rng(seed)
    truth, prediction = (rng.integers(0, labels, size).astype(np.uint64) * np.uint64(2**33 + 1) for _ in range(2))
    ignore = rng.random(size) < 0.2
    table = partitions.contingency(prediction, truth, ignore=ignore)
    counted = ~ignore & (truth != 0)
    pairs, counts = np.unique(np.stack([truth[counted], prediction[counted]]), axis=1, return_counts=True)
    np.testing.assert_array_equal(np.stack([table.truth, table.prediction]), pairs.astype(np.int64))
    np.testing.assert_array_equal(table.counts, counts)
    assert table.voxels == (~ignore).sum()


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    shape=st.tuples(*[st.integers(1, 7)] * 3),
    block=st.tuples(*[st.integers(1, 5)] * 3),
    threads=st.integers(1, 3),
)
def test_contingency_tables_of_any_blocks_add_up(seed, shape, block, threads):
    rng = np.random.default_rng(seed)
    truth, prediction = (rng.integers(0, 4, shape).astype(np.uint32) for _ in range(2))
    whole = partitions.contingency(prediction, truth)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partitions, "BLOCK", block)
        added = partitions.contingency_volume(prediction, truth, threads=threads)
    assert added.voxels == whole.voxels
    for name in ("truth", "prediction", "counts"):
        np.testing.assert_array_equal(getattr(added, name), getattr(whole, name))


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32), size=st.integers(2, 300), scale=st.sampled_from([1e-3, 1.0, 1e6]))
def test_binned_scores_have_the_average_precision_of_sorted_ones(seed, size, scale):
    rng = np.random.default_rng(seed)
    scores = (rng.integers(-100, 100, size) * scale).astype(np.float32)
    mask, ignore = rng.random(size) < 0.4, rng.random(size) < 0.1
    assume(not ignore.all())
    levels, histogram, is_mixed = metrics.binned_histogram(scores, mask, ignore=ignore)
    assert not is_mixed.any()
    distinct, exact = metrics.level_histogram(scores, mask, ignore=ignore)
    occupied = np.flatnonzero(histogram.any(axis=0))
    np.testing.assert_array_equal(histogram[:, occupied], exact)
    np.testing.assert_allclose(levels[occupied], distinct, atol=200 * scale / 65536)
    assert (levels[occupied] <= distinct + 1e-9 * scale).all()
    np.testing.assert_allclose(metrics.average_precision(histogram), metrics.average_precision(exact), rtol=1e-12)


@pytest.mark.parametrize("overlap", [0.1, 0.4])
def test_scores_that_share_bins_have_the_average_precision_of_sorted_ones(overlap):
    """Some 15 scores a bin, and saturated ones at both ends; taken for ties, they would be wrong by 1e-5."""
    rng = np.random.default_rng(1)
    mask = rng.random(1_000_000) < 0.1
    scores = (0.2 + 0.5 * mask + overlap * rng.standard_normal(mask.size)).clip(0, 1).astype(np.float32)
    _, histogram, is_mixed = metrics.binned_histogram(scores, mask)
    exact = metrics.average_precision(metrics.level_histogram(scores, mask)[1])
    assert abs(metrics.average_precision(histogram, is_mixed=is_mixed) - exact) <= 1e-6
    assert not is_mixed[[0, -1]].any()


@settings(deadline=None, max_examples=30)
@given(
    above=st.tuples(st.integers(10, 60), st.integers(10, 60)), column=st.tuples(st.integers(0, 3), st.integers(1, 4))
)
def test_mixed_columns_have_their_mean_precision_over_all_orders(above, column):
    background, foreground = column
    sums = []
    for order in set(itertools.permutations([False] * background + [True] * foreground)):
        found, wrong = above[1] + np.cumsum(order), above[0] + np.cumsum(~np.array(order))
        sums.append((found / (found + wrong))[np.array(order)].sum())
    expected = (above[1] * above[1] / sum(above) + np.mean(sums)) / (above[1] + foreground)
    histogram = np.array([[background, above[0]], [foreground, above[1]]])
    found = metrics.average_precision(histogram, is_mixed=np.array([True, False]))
    assert found == pytest.approx(expected, abs=2e-4)


MASKS = hnp.arrays(bool, (6, 6, 6))


@settings(deadline=None, max_examples=30)
@given(mask=MASKS)
def test_a_mask_has_the_centre_lines_of_itself(mask):
    assert skeleton.cldice(mask, mask) == 1.0
    lines = skeleton.skeletonise(mask)
    assert not (lines & ~mask).any()


@settings(deadline=None, max_examples=200)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)),
    share=st.sampled_from([0.02, 0.2, 0.5, 0.8, 0.95]),
    larger=st.integers(0, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_centre_lines_are_those_of_scikit_image(shape, share, larger, seed):
    mask = np.random.default_rng(seed).random(shape) < share
    mask = ndi.binary_dilation(np.pad(mask, larger), iterations=larger) if larger else mask
    mask = np.asfortranarray(mask) if seed % 2 else mask
    np.testing.assert_array_equal(skeleton.skeletonise(mask), skeletonize(mask, method="lee"))


@settings(deadline=None, max_examples=30)
@given(prediction=MASKS, truth=MASKS)
def test_cldice_does_not_care_which_is_which(prediction, truth):
    assert skeleton.cldice(prediction, truth) == pytest.approx(skeleton.cldice(truth, prediction))


@settings(deadline=None, max_examples=30)
@given(prediction=MASKS, truth=MASKS, axis=st.integers(0, 2))
def test_mask_scores_do_not_change_when_both_are_mirrored(prediction, truth, axis):
    scores = score_arrays(prediction, truth, kind="mask")
    mirrored = score_arrays(np.flip(prediction, axis), np.flip(truth, axis), kind="mask")
    for name in ("precision", "recall", "f1", "iou", "accuracy"):
        np.testing.assert_equal(mirrored[name], scores[name])
