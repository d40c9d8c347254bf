"""Connected objects, worked out by hand, and by slabs as in one piece."""

import numpy as np
import pytest
from sharded import slabbed

from voxloom.errors import VolumeError
from voxloom.instances import (
    Filtered,
    fill_holes,
    fill_holes_volume,
    label_objects,
    remove_small_objects,
    remove_small_objects_volume,
)
from voxloom.objects import object_sizes


def _stairs():
    """Two voxels in consecutive slices that share (a) a face, (b) an edge, (c) a corner."""
    masks = np.zeros((3, 2, 3, 3), bool)
    masks[:, 0, 1, 1] = True
    masks[0, 1, 1, 1] = masks[1, 1, 1, 2] = masks[2, 1, 2, 0] = True
    return masks


@pytest.mark.parametrize(("connectivity", "objects"), [(6, [1, 2, 2]), (18, [1, 1, 2]), (26, [1, 1, 1])])
def test_connectivity_decides_which_neighbours_are_one_object(connectivity, objects):
    assert [label_objects(mask, connectivity=connectivity)[1] for mask in _stairs()] == objects


@pytest.mark.parametrize(("connectivity", "kept"), [(6, [2, 0, 0]), (18, [2, 2, 0]), (26, [2, 2, 2])])
def test_objects_that_touch_only_across_slabs_are_one(connectivity, kept):
    for mask, expected in zip(_stairs(), kept, strict=True):
        volume = slabbed(mask.astype(np.uint8), 1)
        remove_small_objects_volume(
            volume, volume, min_size_voxels=2, connectivity=connectivity, memory_mib=0.0002, threads=1
        )
        assert volume.array.sum() == expected


def test_an_object_of_exactly_the_size_stays():
    mask = np.zeros((1, 3, 7), bool)
    mask[0, 0, :3] = True  # 3 voxels
    mask[0, 2, :2] = True  # 2 voxels, at the border
    assert remove_small_objects(mask, min_size_voxels=3).sum() == 3
    assert remove_small_objects(mask, min_size_voxels=2).sum() == 5


def test_objects_are_numbered_by_their_first_voxel():
    rng = np.random.default_rng(5)
    labels, count = label_objects(rng.random((7, 8, 9)) < 0.2, connectivity=6)
    first = [np.flatnonzero(labels.ravel() == label)[0] for label in range(1, count + 1)]
    assert first == sorted(first)


def test_flat_arrays_full_of_single_voxels_are_labelled():
    for shape in [(1, 1, 7), (1, 7, 5), (7, 5, 1), (5, 1, 7)]:
        mask = np.zeros(shape, bool)
        mask[::2, ::2, ::2] = True
        assert label_objects(mask, connectivity=26)[1] == mask.sum()


def test_sizes_count_every_voxel_once():
    labels = np.array([[[0, 1, 1], [2, 0, 1]]], np.uint32)
    assert object_sizes(labels, 2).tolist() == [2, 3, 1]


def test_a_tunnel_through_the_border_is_no_hole():
    closed = np.ones((5, 5, 5), bool)
    closed[2, 2, 2] = False
    tunnel = closed.copy()
    tunnel[:3, 2, 2] = False
    assert fill_holes(closed).all()
    np.testing.assert_array_equal(fill_holes(tunnel), tunnel)


def test_a_diagonal_way_out_opens_a_hole_for_connectivity_26_only():
    mask = np.ones((3, 4, 4), bool)
    mask[1, 1, 1] = mask[1, 2, 2] = mask[0, 3, 3] = False
    assert fill_holes(mask, connectivity=6).sum() == mask.sum() + 2
    assert fill_holes(mask, connectivity=26).sum() == mask.sum()


def test_a_ring_in_one_slice_is_filled():
    ring = np.ones((1, 3, 3), bool)
    ring[0, 1, 1] = False
    assert fill_holes(ring).all()


def test_what_was_removed_is_counted_across_slabs():
    mask = np.zeros((6, 4, 4), np.uint8)
    mask[0:5, 0, 0] = 1  # 5 voxels in 3 slabs of 2
    mask[1:3, 3, 3] = 1  # 2 voxels in 2 slabs
    mask[4, 2, 2] = 1  # 1 voxel
    volume = slabbed(mask, 2)
    options = {"memory_mib": 0.0008, "threads": 1}
    removed = remove_small_objects_volume(volume, volume, min_size_voxels=3, connectivity=26, **options)
    assert removed == Filtered(objects=3, changed_objects=2, changed_voxels=3)
    assert mask.sum() == 5
    mask[:] = 1
    mask[1:4, 1, 1] = 0
    assert fill_holes_volume(volume, volume, **options) == Filtered(1, 1, 3)
    assert mask.all()


def test_a_budget_that_holds_no_slice_says_how_much_would_do():
    volume = slabbed(np.zeros((2, 300, 300), np.uint8), 2)
    with pytest.raises(VolumeError, match="at least 3"):
        remove_small_objects_volume(volume, volume, min_size_voxels=3, memory_mib=1)


def test_unknown_connectivity_is_refused():
    with pytest.raises(VolumeError, match="connectivity must be 6, 18 or 26, got 8"):
        label_objects(np.zeros((1, 2, 2), bool), connectivity=8)
    with pytest.raises(VolumeError, match="mask must be a 3D boolean array, got 2D bool"):
        label_objects(np.zeros((2, 2), bool), connectivity=6)
