"""Segmentations of predictions with objects of known size."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from voxloom import io
from voxloom.errors import VolumeError
from voxloom.instances import label_objects, label_volume
from voxloom.segment import segment_volume
from voxloom.volume import PROBABILITY, Geometry


def segment(stored, *, threshold=128, min_size=0, memory_mib=16.0, with_labels=True):
    mask = np.full(stored.shape, 9, np.uint8)
    labels = np.full(stored.shape, 9, np.uint32) if with_labels else None
    found = segment_volume(
        stored,
        mask,
        labels=labels,
        stored_threshold=threshold,
        min_size_voxels=min_size,
        connectivity=26,
        memory_mib=memory_mib,
    )
    return found, mask, labels


def test_the_threshold_itself_is_foreground():
    _, mask, _ = segment(np.array([[[127, 128, 129]]], np.uint8))
    assert_array_equal(mask, [[[0, 1, 1]]])


def test_objects_of_exactly_the_least_size_stay():
    stored = np.zeros((1, 1, 10), np.uint8)
    stored[0, 0, [0, 1, 2, 5, 6, 9]] = 255
    found, mask, labels = segment(stored, min_size=2)
    assert_array_equal(mask[0, 0], [1, 1, 1, 0, 0, 1, 1, 0, 0, 0])
    assert_array_equal(labels[0, 0], [1, 1, 1, 0, 0, 2, 2, 0, 0, 0])
    assert (found.foreground_voxels, found.objects, found.removed_objects, found.removed_voxels) == (5, 2, 1, 1)


def test_slabs_do_not_show(tmp_path):
    """A budget of one slice at a time gives the labels of the whole volume at once."""
    rng = np.random.default_rng(3)
    stored = (rng.random((24, 40, 40)) < 0.2).astype(np.uint8) * np.uint8(200)
    _, mask, thin = segment(stored, memory_mib=0.05)
    for connectivity in (6, 18, 26):
        expected, count = label_objects(stored >= 128, connectivity=connectivity)
        labels = np.zeros(stored.shape, np.uint32)
        assert label_volume(mask, labels, connectivity=connectivity, memory_mib=0.05) == (int(mask.sum()), count)
        assert_array_equal(labels, expected)
    assert_array_equal(thin, expected)


def test_an_object_that_meets_itself_in_a_later_slab_is_one():
    """A U along z: two arms that join at the far end."""
    mask = np.zeros((6, 1, 5), np.uint8)
    mask[:, 0, 0] = mask[:, 0, 4] = mask[5, 0, :] = 1
    labels = np.zeros(mask.shape, np.uint32)
    assert label_volume(mask, labels, connectivity=6, memory_mib=1e-4) == (int(mask.sum()), 1)
    assert_array_equal(labels, mask)


def test_an_empty_prediction_has_no_object():
    found, mask, labels = segment(np.zeros((3, 4, 5), np.uint8), min_size=10)
    assert found.objects == found.foreground_voxels == 0
    assert not mask.any()
    assert not labels.any()


def test_stored_volumes_are_segmented_in_place(tmp_path):
    rng = np.random.default_rng(1)
    stored = rng.integers(0, 256, (70, 30, 30)).astype(np.uint8)
    geometry = Geometry((1.0, 1.0, 1.0))
    with io.create_volume(
        tmp_path / "p.zarr",
        shape=stored.shape,
        dtype="uint8",
        geometry=geometry,
        kind="probability",
        quantisation=PROBABILITY,
    ) as writer:
        writer[:] = stored
    with (
        io.create_volume(
            tmp_path / "m.zarr", shape=stored.shape, dtype="uint8", geometry=geometry, kind="mask"
        ) as mask,
        io.create_volume(
            tmp_path / "l.zarr", shape=stored.shape, dtype="uint32", geometry=geometry, kind="labels"
        ) as labels,
    ):
        found = segment_volume(
            io.open_volume(tmp_path / "p.zarr"),
            mask,
            labels=labels,
            stored_threshold=250,
            min_size_voxels=2,
            connectivity=26,
            memory_mib=64,
            threads=2,
        )
    expected, expected_mask, expected_labels = segment(stored, threshold=250, min_size=2)
    assert found == expected
    assert found.removed_objects > 0
    assert_array_equal(io.open_volume(tmp_path / "m.zarr")[:], expected_mask)
    assert_array_equal(io.open_volume(tmp_path / "l.zarr")[:], expected_labels)


def test_a_prediction_that_is_not_stored_scores_is_refused():
    with pytest.raises(VolumeError, match="uint8 or uint16, got float32"):
        segment(np.zeros((2, 2, 2), np.float32))
