"""The ISBI 2012 challenge's own code's values, made by its organisers' Java."""

import numpy as np
import pytest

from voxloom import border_thinning, section_scores, warping
from voxloom.partitions import contingency
from voxloom.section_scores import THRESHOLDS, Agreement
from voxloom.warping import WarpingErrors

TOLERANCE = {"rtol": 1e-9, "atol": 1e-9}


def curves(truth, interior):
    """Every measure of the golden file over the thresholds, from the library's parts."""
    found = {}
    for threshold in THRESHOLDS:
        for name, value in at_threshold(truth, interior, threshold).items():
            found.setdefault(name, []).append(value)
    return {name: np.array(values) for name, values in found.items()}


def at_threshold(truth, interior, threshold):
    thinned, plain, everything, pixels, errors = Agreement(), Agreement(), Agreement(), Agreement(), WarpingErrors()
    rands, informations, warped = [], [], []
    for true, values in zip(truth, interior, strict=True):
        proposal = values > threshold
        objects, proposed = section_scores.objects_of(true), section_scores.objects_of(proposal)
        table = contingency(border_thinning.thin_borders(proposal), objects)
        pairs = section_scores.foreground_pairs(table)
        rands.append(pairs.f_score)
        informations.append(section_scores.information(table).f_score)
        thinned += pairs
        plain += section_scores.foreground_pairs(contingency(proposed, objects))
        everything += section_scores.all_pairs(contingency(proposed + 1, objects + 1))
        pixels += section_scores.pixel_agreement(proposal, true)
        left = warping.classify(warping.warp(true, values, threshold=threshold), proposal)
        errors += warping.count_errors(left)
        warped.append(np.count_nonzero(left) / left.size)
    pairs_in_all = truth.shape[0] * truth[0].size * (truth[0].size - 1) / 2
    return {
        "vrand_thin_macro": np.mean(rands),
        "vrand_thin_micro": thinned.f_score,
        "vrand_thin_prec_micro": thinned.precision,
        "vrand_thin_rec_micro": thinned.recall,
        "vinfo_thin": np.mean(informations),
        "rand_fr_f": plain.f_score,
        "rand_fr_prec": plain.precision,
        "rand_fr_rec": plain.recall,
        "rand_std_f": everything.f_score,
        "rand_error": (everything.fp + everything.fn) / pairs_in_all,
        "pixel_f": pixels.f_score,
        "pixel_error": (pixels.fp + pixels.fn) / truth.size,
        "warp_classic": np.mean(warped),
        "splits": errors.splits,
        "mergers": errors.mergers,
        "by_type": (errors.split_pixels + errors.merger_pixels) / truth.size,
        "clustered": (errors.splits + errors.mergers) / truth.size,
    }


def optima(found):
    """What the challenge picks of the curves; the warping error leaves the last threshold out."""
    return {
        "max_vrand_thin": found["vrand_thin_macro"].max(),
        "max_vinfo_thin": found["vinfo_thin"].max(),
        "max_rand_fr_f": found["rand_fr_f"].max(),
        "max_pixel_f": found["pixel_f"].max(),
        "min_sm_bytype": found["by_type"][:-1].min(),
        "min_sm_clustered": found["clustered"][:-1].min(),
        "min_warp_classic": found["warp_classic"][:-1].min(),
    }


def same_up_to_numbers(labels, expected):
    pairs = {*zip(labels.reshape(-1).tolist(), expected.reshape(-1).tolist(), strict=True)}
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}) and all(
        (a == 0) == (b == 0) for a, b in pairs
    )


@pytest.mark.parametrize("case", ["c0", "c1", "bin"])
def test_every_score_over_the_thresholds_equals_the_challenges(golden, case):
    with np.load(golden / "isbi2012.npz") as data:
        values = data["bin_prop"] if case == "bin" else (data[f"{case}_prob_u8"] / 255).astype(np.float32)
        found = curves(data[f"{case}_gt"] == 1, values.astype(np.float64))
        found |= optima(found) | {"th": THRESHOLDS}
        pictures = {"gt", "prob_u8", "prop", "cc_gt", "ws", "cc_pr", "warp"}
        expected = {key.removeprefix(f"{case}_"): key for key in data.files if key.startswith(f"{case}_")}
        assert set(expected) - pictures <= set(found), "a value of the golden file that nothing here computes"
        assert len(set(expected) - pictures) == (7 if case == "bin" else 23)
        for name in set(expected) - pictures:
            np.testing.assert_allclose(found[name], data[expected[name]], err_msg=name, **TOLERANCE)


@pytest.mark.parametrize("case", ["c0", "c1"])
def test_objects_thinned_borders_and_warped_truth_equal_the_challenges(golden, case):
    with np.load(golden / "isbi2012.npz") as data:
        assert (data["rtol"], data["atol"]) == (TOLERANCE["rtol"], TOLERANCE["atol"])
        threshold = THRESHOLDS[5]
        interior = (data[f"{case}_prob_u8"] / 255).astype(np.float32).astype(np.float64)
        for section, (true, values) in enumerate(zip(data[f"{case}_gt"] == 1, interior, strict=True)):
            proposal = values > threshold
            assert same_up_to_numbers(section_scores.objects_of(true), data[f"{case}_cc_gt"][section])
            assert same_up_to_numbers(section_scores.objects_of(proposal), data[f"{case}_cc_pr"][section])
            np.testing.assert_array_equal(border_thinning.thin_borders(proposal), data[f"{case}_ws"][section])
            warped = warping.warp(true, values, threshold=threshold)
            np.testing.assert_array_equal(warped, data[f"{case}_warp"][section])
