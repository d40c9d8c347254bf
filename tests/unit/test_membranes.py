"""Membranes scored section by section: which pixels count, what is read, what is chosen where, and what is refused."""

import numpy as np
import pandas as pd
import pytest
from sections import Held, cells, table_of

from voxloom import border_thinning, membranes, section_scores, warping
from voxloom.errors import SplitError, VolumeError
from voxloom.section_scores import THRESHOLDS
from voxloom.volume import Quantisation

WHOLE = ((0, 16), (0, 24))


def certain(codes):
    """A prediction without a doubt."""
    return np.where(codes == 1, np.uint8(255), np.uint8(0))


def scored(prediction, codes, split, **options):
    return membranes.score_sections({"v": Held(prediction)}, {"v": Held(codes)}, split, fold=0, **options)


SPLIT = table_of(("train", (0, 1), *WHOLE), ("validation", (1, 2), *WHOLE), ("test", (2, 3), *WHOLE))


def at(table, threshold, **where):
    chosen = table[np.isclose(table["threshold"], threshold)]
    for name, value in where.items():
        chosen = chosen[chosen[name] == value]
    assert len(chosen) == 1
    return chosen.iloc[0]


def test_a_perfect_prediction_scores_one_at_every_threshold_and_has_no_error():
    table = scored(certain(cells()), cells(), SPLIT)
    assert len(table) == 3 * len(THRESHOLDS)
    assert (table[["v_rand", "v_info"]] == 1).all(axis=None)
    assert (table[["rand_fp", "rand_fn", "pixel_fp", "pixel_fn", "warping_errors"]] == 0).all(axis=None)
    scores = membranes.summarise(table).set_index("part")
    assert list(scores.index) == ["train", "validation", "test"]
    assert (scores[["rand_error", "pixel_error", "warping_error"]] == 0).all(axis=None)
    assert (scores["sections"] == 1).all()


def test_a_missing_membrane_merges_two_cells():
    prediction = certain(cells())
    prediction[2] = 0
    row = at(scored(prediction, cells(), SPLIT), 0.5, part="test")
    first, second = 16 * 11, 16 * 12
    assert (row["rand_tp"], row["rand_fp"], row["rand_fn"]) == (first**2 + second**2, 2 * first * second, 0)
    assert row["v_rand_recall"] == 1
    np.testing.assert_allclose(row["v_rand_precision"], (first**2 + second**2) / (first + second) ** 2)
    assert (row["mergers"], row["splits"], row["warping_errors"]) == (1, 0, 16)
    assert (row["pixel_fp"], row["pixel_fn"]) == (16, 0)


def test_a_membrane_that_is_not_there_splits_a_cell():
    prediction = certain(cells())
    prediction[2, 8] = 255
    row = at(scored(prediction, cells(), SPLIT), 0.5, part="test")
    assert row["v_rand_precision"] > 0.9
    assert row["v_rand_recall"] < 0.6
    assert (row["mergers"], row["splits"]) == (0, 2)


def test_what_nobody_annotated_counts_nowhere():
    codes, prediction = cells(), certain(cells())
    codes[2, :4] = 255
    prediction[2, :4] = 255 - prediction[2, :4]  # all wrong there
    row = at(scored(prediction, codes, SPLIT), 0.5, part="test")
    assert row["pixels"] == 12 * 24
    assert (row["rand_fp"], row["rand_fn"], row["pixel_fp"], row["pixel_fn"], row["warping_errors"]) == (0,) * 5
    assert row["pixel_tp"] == 12 * 23


def test_another_part_of_a_section_counts_nowhere():
    split = table_of(("train", (0, 2), *WHOLE), ("test", (2, 3), (0, 16), (0, 6)), ("test", (2, 3), (4, 16), (6, 24)))
    prediction = certain(cells())
    prediction[2, :4, 6:] = 255 - prediction[2, :4, 6:]
    row = at(scored(prediction, cells(), split), 0.5, part="test")
    assert row["pixels"] == 16 * 6 + 12 * 18
    assert (row["rand_fp"], row["rand_fn"], row["pixel_fp"], row["pixel_fn"], row["warping_errors"]) == (0,) * 5


def test_a_section_without_interior_has_pixels_but_no_object_scores():
    codes = cells()
    codes[2] = 1
    codes = np.concatenate([codes, cells(1)])
    split = table_of(("train", (0, 2), *WHOLE), ("test", (2, 4), *WHOLE))
    table = scored(certain(codes), codes, split)
    assert np.isnan(at(table, 0.5, z=2)["v_rand"])
    assert at(table, 0.5, z=2)["pixels"] == 16 * 24
    assert membranes.summarise(table).set_index("part").loc["test", "v_rand"] == 1


def test_the_interior_probability_is_that_of_the_challenges_files():
    levels = np.arange(256)
    expected = ((255 - levels) / 255).astype(np.float32)
    np.testing.assert_array_equal(membranes.interior_probabilities(Held(np.zeros(1, np.uint8))), expected)
    assert THRESHOLDS[10] == 0.9999999999999999 < 1


def test_one_section_is_read_at_a_time_and_threads_change_nothing():
    rng = np.random.default_rng(0)
    prediction = rng.integers(0, 256, (9, 16, 24)).astype(np.uint8)
    split = table_of(("train", (0, 5), *WHOLE), ("test", (5, 9), (2, 16), (3, 20)))
    tables = []
    for threads in (1, 3):
        held, truth = Held(prediction), Held(cells(9))
        tables.append(membranes.score_sections({"v": held}, {"v": truth}, split, fold=0, threads=threads))
        assert held.reads == truth.reads
        assert sorted(held.reads) == [(1, 14, 17)] * 4 + [(1, 16, 24)] * 5
    pd.testing.assert_frame_equal(*tables)


def test_sections_in_work_fit_the_budget():
    shape = (30, 512, 512)
    mib = 512 * 512 * membranes.BYTES_PER_PIXEL / 2**20
    assert membranes.section_layout(shape, memory_mib=2.5 * mib, threads=4).threads == 2
    with pytest.raises(VolumeError, match="resources.memory_mib to at least"):
        scored(certain(cells()), cells(), SPLIT, memory_mib=0.001)


def test_thresholds_are_the_best_of_the_part_and_of_validation():
    rows = [
        {"part": part, "volume": "v", "z": z, "threshold": threshold, "v_rand": rand, "v_info": 1 - rand}
        for part, z, values in (("validation", 0, (0.2, 0.9)), ("test", 1, (0.8, 0.6)), ("test", 2, (0.6, 0.4)))
        for threshold, rand in zip((0.0, 0.1), values, strict=True)
    ]
    counts = {name: 10 for name in membranes.SECTION_COLUMNS if name not in rows[0]}
    table = pd.DataFrame([row | counts | {"warping_errors": 4 - 3 * (row["threshold"] > 0)} for row in rows])
    scores = membranes.summarise(table).set_index("part")
    np.testing.assert_allclose(
        scores.loc["test", ["v_rand", "v_rand_threshold", "v_rand_at_validation"]], [0.7, 0, 0.5]
    )
    np.testing.assert_allclose(
        scores.loc["test", ["v_info", "v_info_threshold", "v_info_at_validation"]], [0.5, 0.1, 0.3]
    )
    # the last threshold has fewer warping errors, and is not asked
    np.testing.assert_allclose(scores.loc["test", ["warping_error", "warping_threshold"]], [0.4, 0])
    assert scores.loc["test", "splits"] == 20
    assert membranes.best_threshold(scores.reset_index(), part="validation") == 0.1


def test_without_validation_nothing_is_chosen_there():
    split = table_of(("train", (0, 2), *WHOLE), ("test", (2, 3), *WHOLE))
    scores = membranes.summarise(scored(certain(cells()), cells(), split))
    assert scores["v_rand_at_validation"].isna().all()
    assert membranes.best_threshold(scores, part="validation") == 0


@pytest.mark.parametrize(
    ("prediction", "codes", "split", "error", "said"),
    [
        (certain(cells(3)), cells(4), SPLIT, VolumeError, r"volume v: the annotation has shape \(4, 16, 24\)"),
        (certain(cells()), cells().astype(np.uint16), SPLIT, VolumeError, "an annotation uint8"),
        (certain(cells()), cells(), table_of(("train", (0, 3), *WHOLE)), SplitError, "split.test_fraction"),
        (certain(cells()), np.zeros_like(cells()), SPLIT, VolumeError, "evaluate.membranes is for tasks whose"),
        (
            certain(cells()).astype(np.float32),
            cells(),
            SPLIT,
            VolumeError,
            "volume v: a prediction is a volume of uint8",
        ),
    ],
)
def test_what_can_not_be_scored_is_refused(prediction, codes, split, error, said):
    with pytest.raises(error, match=said):
        scored(prediction, codes, split)


def test_a_prediction_that_does_not_say_what_it_holds_is_refused():
    held = Held(certain(cells()), quantisation=None)
    with pytest.raises(VolumeError, match="predict it anew"):
        membranes.score_sections({"v": held}, {"v": Held(cells())}, SPLIT, fold=0)


def test_another_quantisation_gives_the_same_scores():
    fine = Held(certain(cells()).astype(np.uint16) * 257, quantisation=Quantisation(scale=1 / 65535))
    table = membranes.score_sections({"v": fine}, {"v": Held(cells())}, SPLIT, fold=0)
    pd.testing.assert_frame_equal(table, scored(certain(cells()), cells(), SPLIT))


def test_border_thinning_leaves_a_line_where_two_floods_meet():
    section = np.ones((3, 7), np.bool_)
    section[:, 2:5] = False
    np.testing.assert_array_equal(border_thinning.thin_borders(section), [[1, 1, 1, 0, 2, 2, 2]] * 3)
    np.testing.assert_array_equal(border_thinning.thin_borders(np.zeros((2, 3), np.bool_)), np.ones((2, 3)))


@pytest.mark.parametrize("section", [np.ones((2, 3)), np.ones((2, 3, 4), np.bool_)])
def test_what_is_no_section_is_refused(section):
    with pytest.raises(VolumeError, match="2D boolean array"):
        border_thinning.thin_borders(section)
    with pytest.raises(VolumeError, match="2D boolean array"):
        warping.warp(section, np.ones(section.shape), threshold=0.5)


def test_a_truth_and_a_proposal_of_other_shapes_are_refused():
    with pytest.raises(VolumeError, match=r"the proposal's shape \(3, 2\)"):
        warping.warp(np.ones((2, 3), np.bool_), np.ones((3, 2)), threshold=0.5)


def test_a_section_without_objects_has_no_information():
    from voxloom.partitions import contingency

    nothing = np.zeros((2, 2), np.int64)
    with pytest.raises(VolumeError, match="holds no object"):
        section_scores.information(contingency(nothing, nothing))


@pytest.mark.parametrize(("truth", "proposal", "expected"), [(1, 3, (0, 1)), (3, 1, (1, 0)), (1, 1, (0, 1))])
def test_information_of_one_object_is_the_challenges(truth, proposal, expected):
    from voxloom.partitions import contingency

    rows = [np.arange(12).reshape(1, 12) % number + 1 for number in (proposal, truth)]
    score = section_scores.information(contingency(*rows))
    assert (score.precision, score.recall) == expected
