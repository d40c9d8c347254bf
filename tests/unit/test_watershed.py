"""Floods of landscapes that can be followed by hand."""

import numpy as np
import pytest

from voxloom import io
from voxloom.errors import VolumeError
from voxloom.watershed import watershed, watershed_volume


def flood(heights, seeds, **options):
    return watershed(np.array([[heights]], np.uint8), np.array([[seeds]], np.uint32), **options)[0, 0].tolist()


def test_objects_meet_on_the_ridge():
    labels = flood([0, 3, 9, 3, 3, 0], [1, 0, 0, 0, 0, 2])
    assert (labels[:2], labels[3:]) == ([1, 1], [2, 2, 2])


def test_a_plateau_is_shared_by_distance_and_its_middle_goes_to_the_smaller_label():
    assert flood([5] * 7, [2, 0, 0, 0, 0, 0, 1]) == [2, 2, 2, 1, 1, 1, 1]


def test_a_basin_without_a_seed_goes_to_the_flood_that_comes_over_the_lower_pass():
    assert flood([0, 7, 1, 1, 8, 0], [1, 0, 0, 0, 0, 2]) == [1, 1, 1, 1, 2, 2]
    assert flood([0, 8, 1, 1, 7, 0], [1, 0, 0, 0, 0, 2]) == [1, 1, 2, 2, 2, 2]


def test_a_basin_without_a_seed_goes_whole_to_the_first_flood_over_its_rim():
    assert flood([0, 7, 7, 1, 1, 1, 1, 7, 0], [1, 0, 0, 0, 0, 0, 0, 0, 2]) == [1, 1, 1, 2, 2, 2, 2, 2, 2]


def test_a_basin_longer_than_256_voxels_is_shared_with_a_flood_that_comes_a_step_later():
    labels = flood([0, 7, 7, *[1] * 300, 7, 0], [1, *[0] * 303, 2])
    assert labels == [1] * (3 + 22) + [2] * (278 + 2)  # downhill steps on either side: 256 + 22 = 278


def test_a_peak_goes_to_the_side_that_water_came_to_first():
    assert flood([0, 0, 0, 9, 0], [1, 0, 0, 0, 2]) == [1, 1, 1, 2, 2]


def test_a_peak_goes_to_the_side_from_which_the_water_rises_most():
    assert flood([3, 9, 1], [1, 0, 2]) == [1, 2, 2]


def test_a_plateau_with_more_steps_than_can_be_counted_is_refused():
    heights = np.zeros((1, 1, 70_000), np.uint8)
    seeds = np.zeros(heights.shape, np.uint32)
    seeds[0, 0, 4_000] = 1
    with pytest.raises(VolumeError, match="more than 65533 steps at one height"):
        watershed(heights, seeds)
    seeds[0, 0, -1] = 1
    assert watershed(heights, seeds).all()


def test_a_seed_on_a_peak_keeps_its_voxel():
    assert flood([0, 0, 200, 0, 0], [1, 0, 2, 0, 0]) == [1, 1, 2, 2, 2]


def test_nothing_is_flooded_outside_the_mask_or_without_a_seed():
    mask = np.array([[[True, True, False, True, True]]])
    assert flood([0] * 5, [3, 0, 0, 0, 0], mask=mask) == [3, 3, 0, 0, 0]
    assert flood([0] * 5, [0, 0, 3, 0, 0], mask=mask) == [0] * 5
    assert flood([0], [3], mask=np.zeros((1, 1, 1), bool)) == [0]


def test_the_largest_label_and_height_are_ordinary():
    assert flood([255, 255, 255], [2**32 - 1, 0, 0]) == [2**32 - 1] * 3


def test_stored_volumes_are_flooded_over_shards(tmp_path):
    rng = np.random.default_rng(2)
    heights = rng.integers(0, 256, (70, 40, 40)).astype(np.uint8)
    seeds = np.zeros(heights.shape, np.uint32)
    seeds[tuple(rng.integers(0, n, 9) for n in heights.shape)] = np.arange(1, 10)
    with (
        io.scratch_volume(tmp_path, name="labels", shape=heights.shape, dtype="uint32") as labels,
        io.scratch_volume(tmp_path, name="costs", shape=heights.shape, dtype="uint32") as costs,
    ):
        passes = watershed_volume(heights, seeds, labels, costs, memory_mib=4.8, threads=2)
        np.testing.assert_array_equal(labels[:], watershed(heights, seeds))
    assert passes > 1


def test_arrays_in_memory_are_flooded_by_blocks_as_well():
    """They are read as views, which change when they are written."""
    heights = np.random.default_rng(4).integers(0, 256, (4, 5, 150)).astype(np.uint8)
    seeds = np.zeros(heights.shape, np.uint8)
    seeds[2, 2, 149] = 1
    labels, costs = np.zeros(heights.shape, np.uint32), np.zeros(heights.shape, np.uint32)
    assert watershed_volume(heights, seeds, labels, costs, memory_mib=0.04) > 1
    assert (labels == 1).all()


@pytest.mark.parametrize(
    ("heights", "seeds", "said"),
    [
        (np.zeros((2, 2, 2), np.float32), np.zeros((2, 2, 2), np.uint8), "uint8, got 3D float32; scale them"),
        (np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8), "got 2D uint8"),
        (np.zeros((2, 2, 2), np.uint8), np.zeros((2, 2, 2), np.int32), "unsigned integers of at most 32 bits"),
        (np.zeros((2, 2, 2), np.uint8), np.zeros((2, 2, 3), np.uint8), "must be the same voxels"),
    ],
)
def test_what_is_no_landscape_is_refused(heights, seeds, said):
    with pytest.raises(VolumeError, match=said):
        watershed(heights, seeds)


def test_volumes_of_other_voxels_are_refused():
    stored = np.zeros((4, 4, 4), np.uint32)
    with pytest.raises(VolumeError, match=r"seeds \(4, 4, 5\); they must be the same voxels"):
        watershed_volume(
            np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 5), np.uint8), stored, stored.copy(), memory_mib=1
        )
