"""Single steps of a recipe, worked out by hand."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from voxloom.annotate import COMBINATIONS, STEPS, box_voxels, keep, remove_small_objects, size_voxels, smooth, threshold
from voxloom.errors import ConfigError

GREY = np.array([[[1, 2, 3, 4, 5]]], np.uint8)


def _marked(**level):
    return GREY[threshold(GREY, **level)].tolist()


def test_above_takes_the_value_in_and_below_leaves_it_out():
    assert _marked(above=3) == [3, 4, 5]
    assert _marked(below=3) == [1, 2]
    assert _marked(between=(2, 4)) == [2, 3]


def test_levels_between_two_integers_and_beyond_the_data_type():
    assert _marked(above=2.5) == [3, 4, 5]
    assert _marked(below=2.5) == [1, 2]
    assert _marked(above=300) == []
    assert _marked(below=300.5) == [1, 2, 3, 4, 5]
    assert _marked(above=-7) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
@pytest.mark.parametrize("low", [-40000, -129, -3, 2.5, 250])
@pytest.mark.parametrize("high", [-2, 3, 127.5, 255, 70000])
def test_a_band_is_what_its_two_comparisons_say_for_any_data_type(dtype, low, high):
    image = np.arange(-300, 300).astype(dtype).reshape(1, 1, -1)
    values = image.astype(float)
    if low < high:
        expected = (values >= low) & (values < high)
        np.testing.assert_array_equal(threshold(image, between=(low, high)), expected)
    strided = np.repeat(image, 2, axis=2)[:, :, ::2]
    np.testing.assert_array_equal(threshold(strided, above=low), values >= low)
    np.testing.assert_array_equal(threshold(strided, below=high), values < high)


def test_not_a_number_is_in_no_band():
    for dtype in (np.float16, np.float32):
        image = np.array([[[np.nan, 1.0, 2.0]]], dtype)
        assert threshold(image, between=(0, 2)).tolist() == [[[False, True, False]]]


def test_percentiles_and_otsu_are_of_the_image_itself():
    assert _marked(above="p60") == [3, 4, 5]
    assert _marked(below="p60") == [1, 2]
    assert _marked(between=("p20", "p100")) == [1, 2, 3, 4]
    bimodal = np.array([[[10, 11, 12, 90, 91]]], np.uint16)
    assert bimodal[threshold(bimodal, above="otsu")].tolist() == [90, 91]
    assert bimodal[threshold(bimodal, below="otsu")].tolist() == [10, 11, 12]


def test_a_level_is_compared_in_the_data_type_of_the_image():
    image = np.array([[[0.7, 0.5]]], np.float32)
    assert threshold(image, above=0.7).tolist() == [[[True, False]]]
    assert threshold(image, below=0.7).tolist() == [[[False, True]]]


def test_a_value_that_is_no_number_is_not_marked():
    image = np.array([[[np.nan, 1.0]]], np.float32)
    assert threshold(image, above=0.0).tolist() == [[[False, True]]]
    assert threshold(image, below=2.0).tolist() == [[[False, True]]]


def test_levels_that_turn_out_reversed_are_refused():
    with pytest.raises(ConfigError, match=r"between is \[5, 3\]: the first value must be smaller"):
        threshold(GREY, between=("p100", "p60"))


def test_smoothing_a_mask_gives_a_mask_and_removes_a_single_voxel():
    mask = np.zeros((7, 7, 7), bool)
    mask[3, 3, 3] = True
    mask[:, :2] = True
    smoothed = smooth(mask, spacing_um=(1.0, 1.0, 1.0), sigma_um=1.0)
    expected = mask.copy()
    expected[3, 3, 3] = False
    np.testing.assert_array_equal(smoothed, expected)
    assert smooth(GREY, spacing_um=(1.0, 1.0, 1.0), sigma_um=1.0).dtype == np.float32


def test_sizes_in_cubic_micrometres_count_voxels():
    assert size_voxels(spacing_um=(1.17, 1.17, 1.17), min_size_um3=2000 * 1.17**3) == 2000
    assert size_voxels(spacing_um=(2.0, 1.0, 1.0), min_size_um3=5.0) == 3
    assert size_voxels(spacing_um=(2.0, 1.0, 1.0), min_size_voxels=5) == 5
    row = np.array([[[True, True, False, True, False]]])
    kept = remove_small_objects(row, spacing_um=(1.0, 1.0, 0.5), min_size_um3=1.0)
    assert kept.tolist() == [[[True, True, False, False, False]]]


def test_boxes_that_follow_on_each_other_share_no_voxel():
    first = box_voxels((200, 1, 1), spacing_um=(1.17, 1.0, 1.0), z_um=(0, 117))[0]
    second = box_voxels((200, 1, 1), spacing_um=(1.17, 1.0, 1.0), z_um=(117, 234))[0]
    assert first == slice(0, 100)  # though 117 / 1.17 is a little more than 100 in binary
    assert second == slice(100, 200)


def test_a_box_that_reaches_beyond_the_volume_ends_with_it():
    assert box_voxels((5, 4, 3), spacing_um=(1, 1, 1), y_um=(2, 1e6)) == (slice(0, 5), slice(2, 4), slice(0, 3))


def test_keep_in_a_part_of_the_volume_keeps_the_same_voxels():
    mask = np.ones((6, 7, 8), bool)
    box = {"z_um": (2, 8), "x_um": (1.5, 3)}
    whole = keep(mask, spacing_um=(2.0, 1.0, 0.5), **box)
    assert np.argwhere(whole).min(axis=0).tolist() == [1, 0, 3]
    assert np.argwhere(whole).max(axis=0).tolist() == [3, 6, 5]
    for first in [(0, 0, 0), (1, 2, 3), (2, 0, 5), (5, 0, 0), (0, 0, 7)]:
        part = tuple(slice(f, None) for f in first)
        np.testing.assert_array_equal(
            keep(mask[part], spacing_um=(2.0, 1.0, 0.5), first_voxel=first, **box), whole[part]
        )


def test_combinations_are_those_of_sets():
    mask, other = np.array([True, True, False, False]), np.array([True, False, True, False])
    assert COMBINATIONS["subtract"](mask, other).tolist() == [False, True, False, False]
    assert COMBINATIONS["intersect"](mask, other).tolist() == [True, False, False, False]
    assert COMBINATIONS["union"](mask, other).tolist() == [True, True, True, False]


def test_steps_and_settings_are_those_of_the_schema():
    root = Path(__file__).resolve().parents[2]
    schema = yaml.safe_load((root / "workflow/schemas/task.schema.yaml").read_text())
    steps = schema["$defs"]["recipe"]["items"]["properties"]
    assert set(steps) == {*STEPS, *COMBINATIONS, "ignore"}
    for name, step in STEPS.items():
        assert set(steps[name]["properties"]) == set(step.keys), name
