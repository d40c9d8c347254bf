import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from unit.report_tables import Stored

from voxloom import drawing, report_panels, report_pictures

BOX = ((0, 3), (0, 4), (0, 4))


def counts(**slices):
    rows = [("0", "brain", int(name[1:]), *values) for name, values in slices.items()]
    return pd.DataFrame(rows, columns=["fold", "volume", "z", "tp", "fp", "fn", "tn"])


def test_counts_per_slice_equal_counting_by_hand(monkeypatch):
    monkeypatch.setattr(report_panels, "READ_VOXELS", 8)  # two rows of a slice at a time
    truth = np.zeros((3, 4, 4), np.uint8)
    truth[1, 0, :2] = 1
    truth[1, 3, 3] = 255
    predicted = np.zeros((3, 4, 4), np.uint8)
    predicted[1, 0, 1:3] = 200
    predicted[1, 3, 3] = 200
    found = report_panels.slice_confusion(Stored(predicted), Stored(truth), boxes=[BOX], stored_threshold=200)
    assert found.to_numpy().tolist() == [[0, 0, 0, 0, 16], [1, 1, 1, 1, 12], [2, 0, 0, 0, 16]]


def test_boxes_of_one_slice_add_up():
    truth = np.ones((1, 2, 4), np.uint8)
    predicted = np.full((1, 2, 4), 255, np.uint8)
    boxes = [((0, 1), (0, 2), (0, 1)), ((0, 1), (0, 2), (3, 4))]
    found = report_panels.slice_confusion(Stored(predicted), Stored(truth), boxes=boxes, stored_threshold=1)
    assert found.to_numpy().tolist() == [[0, 4, 0, 0, 0]]


def test_typical_is_the_median_and_worst_the_lowest_f1_among_slices_with_foreground():
    table = counts(z0=(0, 9, 0, 1), z1=(9, 1, 0, 0), z2=(5, 5, 0, 0), z3=(1, 9, 0, 0), z4=(8, 2, 0, 0))
    cases = report_panels.choose_cases({"best": table}, limit=0)
    assert {case.z: case.tags for case in cases} == {2: ("typical for best",), 3: ("worst for best",)}


def test_a_slice_may_be_typical_for_one_model_and_worst_for_another():
    one, other = counts(z0=(1, 0, 9, 0), z1=(9, 0, 1, 0)), counts(z0=(9, 0, 1, 0), z1=(1, 0, 9, 0))
    cases = report_panels.choose_cases({"a": one, "b": other}, limit=0)
    assert cases[0].tags == ("typical for a", "worst for a")
    assert cases[1].tags == ("typical for b", "worst for b")


def test_other_slices_fill_the_row_up_to_the_limit():
    table = counts(**{f"z{z}": (z + 1, 1, 1, 1) for z in range(30)})
    cases = report_panels.choose_cases({"best": table}, limit=6)
    assert len(cases) == 6
    assert [case.z for case in cases] == sorted(case.z for case in cases)


def test_slices_that_nobody_annotated_are_not_shown():
    assert report_panels.choose_cases({"best": counts(z0=(0, 0, 0, 0))}, limit=5) == []


def test_a_large_slice_is_cut_to_where_the_foreground_is():
    truth = np.zeros((1, 100, 100), np.uint8)
    truth[0, 80:90, 5:15] = 1
    box = ((0, 1), (0, 100), (0, 100))
    window = report_panels.window_of(Stored(truth), z=0, boxes=[box], size_voxels=40)
    (y_from, y_to), (x_from, x_to) = window
    assert (y_to - y_from, x_to - x_from) == (40, 40)
    assert truth[0, y_from:y_to, x_from:x_to].sum() == 100


def test_a_small_slice_is_shown_whole_and_only_its_test_boxes():
    truth = np.zeros((2, 50, 50), np.uint8)
    boxes = [((0, 1), (10, 30), (0, 50)), ((1, 2), (0, 50), (0, 50))]
    assert report_panels.window_of(Stored(truth), z=0, boxes=boxes, size_voxels=64) == ((10, 30), (0, 50))


def test_overlay_tells_found_extra_missed_and_not_annotated_apart():
    positive = np.array([[True, True, False, False, True]])
    codes = np.array([[1, 0, 1, 0, 255]], np.uint8)
    classes = report_pictures.overlay_classes(positive, codes)
    assert classes.tolist() == [[1, 2, 3, 0, 4]]
    picture = np.asarray(Image.open(io.BytesIO(report_pictures.encode_overlay(classes))).convert("RGBA"))
    assert [tuple(pixel) for pixel in picture[0, [0, 1, 2, 4]]] == list(report_pictures.OVERLAY.values())
    assert picture[0, 3, 3] == 0


def test_truth_is_black_white_and_grey():
    png = report_pictures.encode_truth(np.array([[0, 1, 255]], np.uint8))
    assert np.asarray(Image.open(io.BytesIO(png)).convert("L")).tolist() == [[0, 255, 125]]


def test_probability_colours_get_lighter_all_the_way():
    colours = report_pictures.probability_colours().astype(float)
    lightness = colours @ (0.2126, 0.7152, 0.0722)
    assert np.all(np.diff(lightness) > 0)


def test_black_and_white_are_where_they_were_asked_for():
    levels = report_pictures.grey_levels(np.array([[0.0, 10.0, 15.0, 20.0, 99.0]]), low=10.0, high=20.0)
    assert levels.tolist() == [[0, 0, 128, 255, 255]]


def test_a_constant_image_is_grey_and_no_error():
    assert report_pictures.grey_levels(np.full((1, 2), 7), low=7, high=7).tolist() == [[128, 128]]


@pytest.mark.parametrize(("width_um", "length_um"), [(100.0, 20.0), (234.0, 50.0), (3.4, 1.0), (0.5, 0.1)])
def test_the_scale_bar_is_a_round_length(width_um, length_um):
    assert drawing.scale_bar_um(width_um) == pytest.approx(length_um)
