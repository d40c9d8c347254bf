"""Recipes on stored volumes, worked out by hand."""

import numpy as np
import pytest

from voxloom import io
from voxloom.errors import ConfigError, VolumeError
from voxloom.instances import Filtered
from voxloom.recipe import annotate, annotate_volume, summarise

CUBIC = (1.0, 1.0, 1.0)


def _tube_and_cell():
    """Bright tissue (200), a dark vessel along Z (20) and a dark cell (30); a bright artefact (255) at a corner."""
    image = np.full((12, 16, 16), 200, np.uint8)
    image[:, 4:6, 4:6] = 20
    image[5:7, 11:13, 11:13] = 30
    image[0, 0, 0] = 255
    return image


def _by_volume(image, recipe, tmp_path, *, spacing_um=CUBIC, **options):
    codes = np.full(image.shape, 99, np.uint8)
    options = {"memory_mib": 64, "threads": 2, "scratch_directory": tmp_path, **options}
    return codes, annotate_volume(image, codes, recipe, spacing_um=spacing_um, **options)


def test_vessels_are_the_lumen_without_cells_grown_by_the_wall(tmp_path):
    recipe = [{"threshold": {"below": 100}}, {"remove_small_objects": {"min_size_voxels": 9}}, {"grow": {"grow_um": 1}}]
    codes, annotated = _by_volume(_tube_and_cell(), recipe, tmp_path)
    expected = np.zeros((12, 16, 16), np.uint8)
    expected[:, 3:7, 4:6] = expected[:, 4:6, 3:7] = 1
    np.testing.assert_array_equal(codes, expected)
    assert annotated.filtered == {"2": Filtered(objects=2, changed_objects=1, changed_voxels=8)}
    assert annotated.foreground_voxels.tolist() == [12] * 12
    assert list(tmp_path.iterdir()) == []


def test_axons_are_one_threshold_mask_minus_another(tmp_path):
    recipe = [{"threshold": {"above": 150}}, {"subtract": [{"threshold": {"above": 250}}, {"grow": {"grow_um": 1}}]}]
    image = _tube_and_cell()
    codes, _ = _by_volume(image, recipe, tmp_path)
    expected = (image == 200).astype(np.uint8)
    expected[1, 0, 0] = expected[0, 1, 0] = expected[0, 0, 1] = 0
    np.testing.assert_array_equal(codes, expected)


def test_levels_are_of_the_whole_volume_and_reported(tmp_path):
    image = _tube_and_cell()
    codes, annotated = _by_volume(image, [{"threshold": {"below": "otsu"}}], tmp_path)
    np.testing.assert_array_equal(codes, image < 100)
    assert annotated.levels == {"1": {"below": 200.0}}
    _, annotated = _by_volume(image, [{"threshold": {"between": ["p1", 210]}}], tmp_path)
    assert annotated.levels == {"1": {"between": [20.0, 210]}}


def test_a_percentile_after_smoothing_is_of_the_smoothed_values(tmp_path):
    recipe = [{"smooth": {"sigma_um": 1.5}}, {"threshold": {"above": "p90"}}]
    image = np.random.default_rng(0).integers(0, 255, (9, 10, 11), np.uint8)
    codes, _ = _by_volume(image, recipe, tmp_path)
    assert 0.099 < codes.mean() < 0.103
    np.testing.assert_array_equal(codes, annotate(image, recipe, spacing_um=CUBIC))


def test_ignored_boxes_are_neither_foreground_nor_background(tmp_path):
    recipe = [
        {"ignore": {"z_um": [0, 6]}},
        {"threshold": {"below": 100}},
        {"ignore": {"z_um": [14, 16], "x_um": [0, 8]}},
    ]
    image = _tube_and_cell()
    codes, annotated = _by_volume(image, recipe, tmp_path, spacing_um=(2.0, 1.0, 1.0))
    expected = (image < 100).astype(np.uint8)
    expected[:3] = 255
    expected[7, :, :8] = 255
    np.testing.assert_array_equal(codes, expected)
    np.testing.assert_array_equal(annotate(image, recipe, spacing_um=(2.0, 1.0, 1.0)), expected)
    assert annotated.foreground_voxels[:3].sum() == 0


def test_a_global_step_inside_a_subtracted_recipe_sees_its_own_mask(tmp_path):
    cells_only = [
        {"threshold": {"below": 100}},
        {
            "subtract": [
                {"threshold": {"below": 100}},
                {"remove_small_objects": {"min_size_voxels": 9}},
            ]
        },
    ]
    image = _tube_and_cell()
    codes, annotated = _by_volume(image, cells_only, tmp_path)
    np.testing.assert_array_equal(codes, image == 30)
    assert list(annotated.filtered) == ["2.2"]


def test_typical_slices_show_the_mask_after_every_step(tmp_path):
    recipe = [
        {"smooth": {"sigma_um": 0.1}},
        {"threshold": {"below": "otsu"}},
        {"remove_small_objects": {"min_size_voxels": 9}},
        {"grow": {"grow_um": 1}},
        {"keep": {"z_um": [0, 6]}},
    ]
    image = _tube_and_cell()
    image[3, 4:8, 4:6] = 20  # the vessel is widest here
    codes, annotated = _by_volume(image, recipe, tmp_path)
    assert [traced.z for traced in annotated.slices] == [3, 2]
    traced = annotated.slices[0]
    words = [step.step for step in traced.steps]
    assert words[0].startswith("below otsu = ")
    assert words[1:] == ["remove < 9 voxels", "grow 1 µm", "keep z 0–6 µm"]
    np.testing.assert_array_equal(traced.image, image[3])
    np.testing.assert_array_equal(traced.codes, codes[3])
    for last in range(1, len(recipe)):
        so_far = annotate(image, recipe[: last + 1], spacing_um=CUBIC)
        np.testing.assert_array_equal(traced.steps[last - 1].mask, so_far[3] == 1)


def test_depth_is_the_first_slice_with_foreground(tmp_path):
    codes, annotated = _by_volume(_tube_and_cell(), [{"threshold": {"below": 100}}], tmp_path)
    expected = np.where(codes.any(axis=0), codes.argmax(axis=0), -1)
    np.testing.assert_array_equal(annotated.depth_voxels, expected)
    assert set(np.unique(expected)) == {-1, 0, 5}


def test_an_annotation_without_a_recipe_has_the_same_counts_and_no_steps(tmp_path):
    image = _tube_and_cell()
    codes, annotated = _by_volume(image, [{"threshold": {"below": 100}}], tmp_path)
    summary = summarise(image, codes, memory_mib=64)
    np.testing.assert_array_equal(summary.foreground_voxels, annotated.foreground_voxels)
    np.testing.assert_array_equal(summary.depth_voxels, annotated.depth_voxels)
    assert [traced.z for traced in summary.slices] == [traced.z for traced in annotated.slices]
    assert summary.slices[0].steps == ()


def test_a_recipe_that_marks_nothing_has_no_typical_slices(tmp_path):
    codes, annotated = _by_volume(_tube_and_cell(), [{"threshold": {"below": 3}}, {"fill_holes": {}}], tmp_path)
    assert not codes.any()
    assert annotated.slices == ()
    assert annotated.filtered == {"2": Filtered(1, 0, 0)}


def test_levels_that_turn_out_reversed_name_the_step_and_the_grey_values(tmp_path):
    with pytest.raises(ConfigError, match=r"step 1 of the recipe, threshold: between is \['otsu', 60\], on this image"):
        _by_volume(_tube_and_cell(), [{"threshold": {"between": ["otsu", 60]}}], tmp_path)


def test_an_image_without_contrast_has_no_otsu_level_and_the_message_names_the_step(tmp_path):
    recipe = [{"threshold": {"above": 1}}, {"union": [{"threshold": {"above": "otsu"}}]}]
    with pytest.raises(VolumeError, match="has only 7;") as caught:
        _by_volume(np.full((4, 4, 4), 7, np.uint8), recipe, tmp_path)
    assert caught.value.__notes__ == ["in step 2.1 of the recipe, threshold: above is otsu"]


def test_images_with_channels_are_refused(tmp_path):
    with pytest.raises(VolumeError, match=r"shape \(Z, Y, X\), got \(3, 4, 5, 6\); convert one channel"):
        _by_volume(np.zeros((3, 4, 5, 6), np.uint8), [{"threshold": {"above": 1}}], tmp_path)


def test_a_budget_too_small_for_a_block_is_refused(tmp_path):
    with pytest.raises(VolumeError, match=r"raise resources.memory_mib to at least"):
        _by_volume(np.zeros((70, 70, 70), np.uint8), [{"threshold": {"above": 1}}], tmp_path, memory_mib=1)


def test_from_store_to_store(tmp_path):
    from voxloom.volume import Geometry

    image = _tube_and_cell()
    geometry = Geometry(spacing_um=(2.0, 1.0, 1.0))
    recipe = [{"threshold": {"below": 100}}, {"remove_small_objects": {"min_size_um3": 17}}, {"grow": {"grow_um": 1}}]
    with io.create_volume(
        tmp_path / "i.zarr", shape=image.shape, dtype="uint8", geometry=geometry, kind="image"
    ) as out:
        out[:, :, :] = image
    stored = io.open_volume(tmp_path / "i.zarr")
    with io.create_volume(
        tmp_path / "a.zarr", shape=image.shape, dtype="uint8", geometry=geometry, kind="annotation"
    ) as out:
        annotate_volume(
            stored, out, recipe, spacing_um=stored.spacing_um, memory_mib=64, scratch_directory=tmp_path / "scratch"
        )
    expected = annotate(image, recipe, spacing_um=geometry.spacing_um)
    np.testing.assert_array_equal(io.open_volume(tmp_path / "a.zarr")[:, :, :], expected)
    assert expected[:, 11:13].sum() == 0
    assert expected.sum() == 12 * 12


@pytest.mark.parametrize("spacing_um", [CUBIC, (2.5, 0.7, 0.9)])
@pytest.mark.parametrize(
    "step",
    [
        {"grow": {"grow_um": 2.5}},
        {"grow": {"grow_um": 6.0, "mode": "slicer_legacy"}},
        {"shrink": {"shrink_um": 2.5}},
        {"smooth": {"sigma_um": 1.0}},
        {"keep": {"z_um": [2, 9], "x_um": [3, 5]}},
    ],
    ids=lambda step: next(iter(step)),
)
def test_each_step_reads_as_much_context_as_it_needs(step, spacing_um, tmp_path):
    class Small(np.ndarray):
        shard_shape = (1, 2, 3)

    coarse = np.random.default_rng(8).integers(0, 255, (4, 4, 4), np.uint8)
    image = coarse.repeat(5, axis=0).repeat(6, axis=1).repeat(7, axis=2)
    codes = np.zeros(image.shape, np.uint8).view(Small)
    recipe = [{"threshold": {"above": 80}}, step]
    annotate_volume(image, codes, recipe, spacing_um=spacing_um, memory_mib=0.06, scratch_directory=tmp_path)
    expected = annotate(image, recipe, spacing_um=spacing_um)
    np.testing.assert_array_equal(codes, expected)
    assert 0 < expected.mean() < 1
