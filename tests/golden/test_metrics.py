"""Published implementations' values, from scikit-learn, clDice's own code and the CREMI challenge's."""

import numpy as np
import pytest

from voxloom import metrics, partitions, skeleton


def test_curve_of_real_scores_equals_scikit_learns_golden_values(golden):
    with np.load(golden / "formats_misc.npz") as data:
        levels, histogram = metrics.level_histogram(data["pr_score"], data["pr_truth"])
        curve = metrics.precision_recall_curve(histogram)
        np.testing.assert_array_equal(levels[curve.levels], data["pr_thresholds"])
        # the golden curve ends in scikit-learn's conventional point, recall 0 and precision 1
        np.testing.assert_allclose(np.append(curve.precision, 1.0), data["pr_precision"], rtol=1e-12)
        np.testing.assert_allclose(np.append(curve.recall, 0.0), data["pr_recall"], rtol=1e-12)
        assert len(curve.precision) + 1 == 666
        np.testing.assert_allclose(metrics.average_precision(histogram), data["pr_average_precision"], rtol=1e-12)


def test_counts_on_the_threshold_grid_equal_golden_values(golden):
    with np.load(golden / "formats_misc.npz") as data:
        levels, histogram = metrics.level_histogram(data["pr_score"], data["pr_truth"])
        for threshold, expected in zip(data["pr_grid"], data["pr_grid_tp_fp_fn_tn"], strict=True):
            counts = metrics.confusion(histogram, level=int(np.searchsorted(levels, threshold)))
            assert [counts.tp, counts.fp, counts.fn, counts.tn] == expected.tolist()


@pytest.mark.parametrize("dimensions", [2, 3])
def test_cldice_equals_the_authors_values(golden, dimensions):
    with np.load(golden / "skeleton_metrics.npz") as data:
        truth, prediction = data[f"gt{dimensions}"], data[f"pr{dimensions}"]
        np.testing.assert_array_equal(skeleton.skeletonise(truth), data[f"skel_gt{dimensions}"])
        np.testing.assert_array_equal(skeleton.skeletonise(prediction), data[f"skel_pr{dimensions}"])
        counts = skeleton.centre_line_counts(prediction, truth)
        np.testing.assert_allclose(counts.true_inside / counts.true, data[f"tsens{dimensions}"])
        np.testing.assert_allclose(counts.predicted_inside / counts.predicted, data[f"tprec{dimensions}"])
        np.testing.assert_allclose(skeleton.cldice(prediction, truth), data[f"cldice{dimensions}"])


@pytest.mark.parametrize(
    ("case", "truth", "prediction"), [("full", "gt", "seg"), ("gtbg", "gt0", "seg"), ("bothbg", "gt0", "seg0")]
)
def test_information_and_rand_scores_equal_the_cremi_challenges(golden, case, truth, prediction):
    with np.load(golden / "voi_arand_cremi.npz") as data:
        table = partitions.contingency(data[prediction], data[truth])
        rand = partitions.adapted_rand(table, mode="cremi")
        found = {
            "voi_split": partitions.variation_of_information(table)[0],
            "voi_merge": partitions.variation_of_information(table)[1],
            "are_cremi": rand.error,
            "are_cremi_precision": rand.precision,
            "are_cremi_recall": rand.recall,
            "are_singletons": partitions.adapted_rand(table, mode="singletons").error,
            "cremi_score": partitions.cremi_score(table),
        }
        for name, value in found.items():
            np.testing.assert_allclose(value, data[f"{case}_{name}"], rtol=1e-9, err_msg=name)
