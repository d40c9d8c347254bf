"""Contours close what a prediction left open, and how much of them counts is learnt from training sections alone."""

import numpy as np
import pandas as pd
import pytest

from voxloom import contour_fusion, fusion_weight, io
from voxloom.errors import SplitError, VolumeError
from voxloom.section_scores import THRESHOLDS
from voxloom.volume import PROBABILITY, Geometry

GAP = 0.08
"""Membrane probability where a network nearly missed it; no threshold of the sweep lies between this and 0.05."""


def two_cells(gap=GAP):
    """A membrane down the middle of a section that fades to `gap` for five rows; and its truth, 1 on the membrane."""
    membrane = np.full((24, 21), 0.05)
    truth = np.zeros((24, 21), np.uint8)
    membrane[:, 9:12] = (0.5, 0.9, 0.5)
    membrane[10:15, 9:12] = (0.06, gap, 0.06)
    truth[:, 9:12] = 1
    return np.rint(membrane * 255).astype(np.uint8), truth


def training(z_to, part="train", y=(0, 24)):
    """A split of one box."""
    box = {"z_from": 0, "z_to": z_to, "y_from": y[0], "y_to": y[1], "x_from": 0, "x_to": 21}
    return pd.DataFrame([{"fold": 0, "volume": "a", "part": part, **box}])


def curve(stored, truth, split=None, **options):
    given = {"fold": 0, "marker_below": 0.055, "memory_mib": 100, **options}
    return fusion_weight.weight_curve({"a": stored}, {"a": truth}, split if split is not None else training(1), **given)


def test_a_contour_closes_a_gap_where_markers_lie_on_both_sides():
    stored, _ = two_cells()
    membrane = stored / 255
    contours = contour_fusion.watershed_contours(membrane, marker_below=0.055)
    assert np.all(membrane[10:15, 10] < 0.25)
    assert contours[:, 10].all()
    assert contours.sum() == 24
    # where the gap itself is a sure interior there is one basin
    assert not contour_fusion.watershed_contours(membrane, marker_below=0.25).any()


def test_a_section_of_one_basin_has_no_contour_and_one_without_a_marker_is_contour():
    flat = np.zeros((5, 6))
    assert not contour_fusion.watershed_contours(flat, marker_below=0.25).any()
    assert contour_fusion.watershed_contours(flat + 0.25, marker_below=0.25).all()


@pytest.mark.parametrize("given", [np.zeros((2, 3, 4)), np.zeros((3, 4), np.uint8)])
def test_what_is_no_section_of_probabilities_is_refused(given):
    with pytest.raises(VolumeError, match=r"membrane must be a 2D array of probabilities, got .*stored / 255"):
        contour_fusion.watershed_contours(given, marker_below=0.25)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("slices", [1, 4, 9])
def test_a_volume_is_fused_as_its_sections_are(threads, slices):
    stored = np.random.default_rng(1).integers(0, 256, (9, 24, 21), dtype=np.uint8)
    out = np.zeros_like(stored)
    section_mib, slice_mib = (each * 24 * 21 / 2**20 for each in (contour_fusion.SECTION_BYTES, 3))
    budget = threads * section_mib * 2.01 + slices * slice_mib
    contour_fusion.fuse_volume(stored, out, weight=0.35, marker_below=0.3, memory_mib=budget, threads=threads)
    for section, fused in zip(stored, out, strict=True):
        contours = contour_fusion.watershed_contours(section / 255, marker_below=0.3)
        assert np.abs(fused - (255 * 0.35 * contours + 0.65 * section)).max() <= 0.5 + 1e-9
    assert np.any(out != stored)


def test_a_weight_of_0_leaves_the_prediction_as_it_is():
    stored = np.random.default_rng(1).integers(0, 256, (2, 24, 21), dtype=np.uint8)
    out = np.zeros_like(stored)
    contour_fusion.fuse_volume(stored, out, weight=0, marker_below=0.3, memory_mib=10)
    np.testing.assert_array_equal(out, stored)


def test_a_budget_below_a_section_says_what_would_do():
    stored = np.zeros((3, 1000, 1000), np.uint8)
    with pytest.raises(VolumeError, match=r"section of 1000 x 1000 pixels needs 89 MiB.*memory_mib to at least"):
        contour_fusion.fuse_volume(stored, np.zeros_like(stored), weight=0.5, marker_below=0.3, memory_mib=80)


def test_scores_that_are_no_uint8_are_refused():
    stored = np.zeros((1, 4, 4), np.uint16)
    with pytest.raises(VolumeError, match="contours are fused with a prediction of uint8, got uint16"):
        contour_fusion.fuse_volume(stored, np.zeros_like(stored), weight=0.5, marker_below=0.3, memory_mib=80)


@pytest.mark.parametrize("threads", [1, 4])
def test_threads_and_budget_show_in_no_layout_that_does_not_fit(threads):
    for memory_mib in (100, 400, 4000):
        layout = contour_fusion.fusion_layout((30, 1000, 1000), None, memory_mib=memory_mib, threads=threads)
        assert layout.mib <= memory_mib
        assert 1 <= layout.threads <= threads


def test_an_interrupted_fusion_goes_on(tmp_path):
    stored = np.random.default_rng(2).integers(0, 256, (70, 24, 21), dtype=np.uint8)
    created = {"shape": stored.shape, "dtype": "uint8", "geometry": Geometry((1.0, 1.0, 1.0)), "kind": "probability"}
    created |= {"quantisation": PROBABILITY, "resume": "key"}
    fuse = {"weight": 0.5, "marker_below": 0.3, "memory_mib": 0.14}

    class Once:
        """A prediction of which only the first layer of shards can be read."""

        shape = stored.shape

        def __getitem__(self, index):
            if index[-3].start >= 64:
                raise KeyboardInterrupt
            return stored[index]

    with pytest.raises(KeyboardInterrupt), io.create_volume(tmp_path / "fused.zarr", **created) as out:
        contour_fusion.fuse_volume(Once(), out, **fuse)
    reads = []

    class Counted:
        """A prediction that tells which slices were read."""

        shape = stored.shape

        def __getitem__(self, index):
            reads.append(index[-3].start)
            return stored[index]

    with io.create_volume(tmp_path / "fused.zarr", **created) as out:
        contour_fusion.fuse_volume(Counted(), out, **fuse)
    assert set(reads) == {0, 64}
    assert reads.count(0) == 1, "slice 0 is read for its type alone, not fused again"
    whole = np.zeros_like(stored)
    contour_fusion.fuse_volume(stored, whole, **fuse)
    np.testing.assert_array_equal(io.open_volume(tmp_path / "fused.zarr")[:], whole)


def test_contours_are_taken_as_far_as_they_mend_training_sections():
    stored, truth = two_cells()
    found = curve(stored[None], truth[None])
    by_weight = found.set_index("weight")["rand_error"]
    assert list(found["weight"]) == [step / 20 for step in range(21)]
    assert by_weight[0.0] > 0.3, "the gap merges both cells at every threshold that keeps them whole"
    assert by_weight[0.05] == by_weight[0.1] == 0
    assert found.loc[found["is_chosen"], "weight"].tolist() == [0.05], "of equals the smallest weight"


def test_the_error_is_that_of_the_definition():
    """Pairs counted one by one, at every threshold."""
    stored, truth = two_cells()
    stored, truth = stored[8:17, 5:16], truth[8:17, 5:16]
    truth[0, 0] = 255
    split = training(1, y=(0, 9)).assign(x_to=11)
    found = curve(stored[None], truth[None], split)
    for row in (0, 7, 20):
        weight = found["weight"][row]
        fused = contour_fusion.fuse_section(stored, weight=weight, marker_below=0.055)
        errors = [1 - f_score(255 - fused, truth, threshold) for threshold in THRESHOLDS]
        assert found["rand_error"][row] == pytest.approx(min(errors), abs=1e-12)
        assert found["threshold"][row] == THRESHOLDS[int(np.argmin(errors))]


def f_score(interior, truth, threshold):
    """The foreground-restricted Rand F-score from a flood fill and all pairs of true interior pixels."""
    proposed, true = pieces(interior / 255 > threshold), pieces(truth == 0)
    places = [at for at in np.ndindex(truth.shape) if true[at]]
    tp = sum(same(true, a, b) and same(proposed, a, b) for a in places for b in places)
    fp = sum(not same(true, a, b) and same(proposed, a, b) for a in places for b in places)
    fn = sum(same(true, a, b) and not same(proposed, a, b) for a in places for b in places)
    precision, recall = (tp / (tp + fp) if fp else 1.0), (tp / (tp + fn) if fn else 1.0)
    return 2 * precision * recall / (precision + recall)


def same(labels, a, b):
    return a == b or labels[a] == labels[b] != 0


def pieces(mask):
    """Numbers of 4-connected pieces, by filling each."""
    labels = np.zeros(mask.shape, int)
    for start in np.ndindex(mask.shape):
        if mask[start] and not labels[start]:
            stack, number = [start], labels.max() + 1
            while stack:
                y, x = stack.pop()
                if 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and mask[y, x] and not labels[y, x]:
                    labels[y, x] = number
                    stack += [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
    return labels


def test_no_label_outside_the_training_boxes_counts():
    stored, truth = two_cells()
    sections, truths = np.stack([stored, stored]), np.stack([truth, truth])
    found = curve(sections, truths)
    truths[1] = np.random.default_rng(0).integers(0, 2, truth.shape)
    pd.testing.assert_frame_equal(curve(sections, truths), found)
    assert not curve(sections, truths, training(2)).equals(found)
    assert found["sections"][0] == 1


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_do_not_show(threads):
    rng = np.random.default_rng(4)
    stored, truth = rng.integers(0, 256, (5, 24, 21), dtype=np.uint8), rng.integers(0, 2, (5, 24, 21), dtype=np.uint8)
    alone = curve(stored, truth, training(5))
    pd.testing.assert_frame_equal(curve(stored, truth, training(5), threads=threads, memory_mib=0.1), alone)


def test_no_annotated_interior_in_training_is_an_error():
    stored, truth = two_cells()
    for split, codes in ((training(1, part="test"), truth), (training(1), np.full_like(truth, 255))):
        with pytest.raises(SplitError, match="fold 0: no training section has an annotated interior"):
            curve(stored[None], codes[None], split)


def test_the_chosen_weight_is_read_back(tmp_path):
    stored, truth = two_cells()
    found = curve(stored[None], truth[None])
    found.to_csv(tmp_path / "fusion.csv", index=False)
    assert fusion_weight.read_weight(tmp_path / "fusion.csv") == found.loc[found["is_chosen"], "weight"].item()
