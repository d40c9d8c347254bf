"""Distances, growing and shrinking, worked out by hand."""

import numpy as np
import pytest

from voxloom.distance import clipped_distance, distance_quantisation, distance_volume, field_bytes, grow, shrink
from voxloom.errors import VolumeError


def _line(foreground, size):
    """One row of voxels, some of them foreground."""
    mask = np.zeros((1, 1, size), bool)
    mask[0, 0, foreground] = True
    return mask


def test_is_measured_in_micrometres_not_voxels():
    mask = np.zeros((3, 1, 1), bool)
    mask[0] = True
    distance = clipped_distance(mask, spacing_um=(4.0, 1.0, 1.0), clip_um=100.0)
    np.testing.assert_array_equal(distance[:, 0, 0], [0.0, 4.0, 8.0])


def test_diagonal_distance_combines_the_spacings():
    mask = np.zeros((2, 2, 2), bool)
    mask[0, 0, 0] = True
    distance = clipped_distance(mask, spacing_um=(2.0, 3.0, 6.0), clip_um=100.0)
    assert distance[1, 1, 1] == 7.0


def test_without_foreground_everything_is_far():
    for spacing_um in [(1.0, 1.0, 1.0), (2.0, 1.0, 1.0)]:
        distance = clipped_distance(np.zeros((3, 4, 5), bool), spacing_um=spacing_um, clip_um=2.5)
        assert distance.dtype == np.float32
        assert (distance == 2.5).all()


def test_a_distance_of_just_the_clip_and_beyond_is_the_clip():
    distance = clipped_distance(_line([0], 5), spacing_um=(1.0, 1.0, 1.0), clip_um=3.0)
    np.testing.assert_array_equal(distance[0, 0], [0, 1, 2, 3, 3])


def test_steps_along_z_are_held_in_a_byte_and_squared_distances_for_one_slice_only():
    shape = (999, 99, 99)
    assert field_bytes(shape, (1.17, 1.17, 1.17), 10.0) == 1 + 2 * 1 / 64
    assert field_bytes(shape, (0.5, 0.5, 0.5), 10.0) == 1 + 2 * 2 / 64
    assert field_bytes(shape, (3.0, 1.0, 1.0), 10.0) == 1 + 2 * 1 / 64
    assert field_bytes(shape, (3.1, 1.0, 1.0), 10.0) == 1 + 2 * 8 / 64
    assert field_bytes(shape, (0.03, 1.0, 1.0), 10.0) == 2 + 2 * 8 / 64
    assert field_bytes((1, 99, 99), (3.1, 1.0, 1.0), 10.0) == 1 + 2 * 8


@pytest.mark.parametrize("reach", [252, 253, 254, 400])
def test_the_number_of_bytes_of_a_step_changes_no_distance(reach):
    mask = np.zeros((900, 1, 1), bool)
    mask[450] = True
    distance = clipped_distance(mask, spacing_um=(1.0, 2.0, 2.0), clip_um=float(reach))
    np.testing.assert_array_equal(distance[:, 0, 0], np.minimum(np.abs(np.arange(900) - 450), reach))


@pytest.mark.parametrize("clip_um", [11.2, 11.3, 40.0, 180.9, 181.5, 300.0])
def test_the_number_of_bytes_changes_no_distance(clip_um):
    mask = _line([2], 400)
    distance = clipped_distance(mask, spacing_um=(1.0, 1.0, 1.0), clip_um=clip_um)
    expected = np.minimum(np.abs(np.arange(400) - 2), clip_um).astype(np.float32)
    np.testing.assert_array_equal(distance[0, 0], expected)


def test_growth_includes_the_voxel_at_exactly_the_radius():
    grown = grow(_line([0], 8), spacing_um=(0.8, 0.8, 0.8), grow_um=4.0)  # 5 * 0.8 = 4
    assert grown[0, 0].tolist() == [True] * 6 + [False] * 2


def test_growth_at_117_nanometres_by_ten_voxels_survives_rounding():
    grown = grow(_line([0], 14), spacing_um=(2.0, 1.0, 0.117), grow_um=1.17)
    assert grown.sum() == 11


def test_four_micrometres_are_three_voxels_of_1170_nm():
    mask = np.zeros((11, 11, 11), bool)
    mask[5, 5, 5] = True
    grown = grow(mask, spacing_um=(1.17, 1.17, 1.17), grow_um=4.0)
    offsets = np.argwhere(grown) - 5
    squares = (offsets**2).sum(axis=1)
    assert squares.max() == 11  # 1.17 * sqrt(11) = 3.88; 1.17 * sqrt(12) = 4.05
    assert grown.sum() == sum(
        z * z + y * y + x * x <= 11 for z in range(-3, 4) for y in range(-3, 4) for x in range(-3, 4)
    )


def test_legacy_growth_by_four_micrometres_is_one_voxel_at_1170_nm():
    mask = np.zeros((5, 5, 5), bool)
    mask[2, 2, 2] = True
    grown = grow(mask, spacing_um=(1.17, 1.17, 1.17), grow_um=4.0, mode="slicer_legacy")
    assert grown.sum() == 27 - 8  # 3 x 3 x 3 without its corners
    with pytest.raises(VolumeError, match="unknown mode of grow 'slicer'; known: exact, slicer_legacy"):
        grow(mask, spacing_um=(1.17, 1.17, 1.17), grow_um=4.0, mode="slicer")


def test_shrinking_does_not_eat_from_the_volume_border():
    mask = _line([0, 1, 2, 3], 6)
    assert shrink(mask, spacing_um=(1.0, 1.0, 1.0), shrink_um=2.0)[0, 0].tolist() == [True, True] + [False] * 4
    assert shrink(np.ones((3, 3, 3), bool), spacing_um=(1.0, 1.0, 1.0), shrink_um=2.0).all()


def test_input_is_not_modified():
    mask = _line([3], 9)
    before = mask.copy()
    clipped_distance(mask, spacing_um=(1.0, 1.0, 1.0), clip_um=4.0)
    grow(mask, spacing_um=(2.0, 1.0, 1.0), grow_um=4.0)
    np.testing.assert_array_equal(mask, before)


@pytest.mark.parametrize(
    ("mask", "spacing_um", "clip_um", "message"),
    [
        (np.zeros((2, 2), bool), (1, 1, 1), 1, "mask must be a 3D boolean array, got 2D bool"),
        (np.zeros((2, 2, 2), np.uint8), (1, 1, 1), 1, r"got 3D uint8; compare the labels with 0 first"),
        (np.zeros((2, 2, 2), bool), (1, 0, 1), 1, "spacing_um must be a positive number of micrometres, got 0"),
        (np.zeros((2, 2, 2), bool), (1, 1, 1), -1, "clip_um must be a positive number of micrometres, got -1"),
    ],
)
def test_says_what_is_wrong(mask, spacing_um, clip_um, message):
    with pytest.raises(VolumeError, match=message):
        clipped_distance(mask, spacing_um=spacing_um, clip_um=clip_um)


@pytest.mark.parametrize(("dtype", "error_um"), [("uint8", 10 / 510), ("uint16", 10 / 131070)])
def test_stored_distances_are_within_half_a_step_and_ignore_counts_as_background(dtype, error_um):
    codes = np.zeros((6, 8, 10), np.uint8)
    codes[2, 3, 4] = 1
    codes[5, 7, 9] = 255
    spacing_um = (2.5, 0.7, 1.3)
    stored = np.zeros(codes.shape, dtype)
    distance_volume(codes, stored, spacing_um=spacing_um, clip_um=10.0, dtype=dtype, memory_mib=16)
    distance = clipped_distance(codes == 1, spacing_um=spacing_um, clip_um=10.0)
    decoded = distance_quantisation(10.0, dtype).decode(stored)
    assert np.abs(decoded - distance).max() <= error_um * 1.01
    assert stored[2, 3, 4] == 0
    assert stored[5, 7, 9] > 0


def test_distances_are_stored_as_integers_only():
    with pytest.raises(VolumeError, match="distances are stored as uint8 or uint16, not float32"):
        distance_quantisation(10.0, "float32")
