"""Segmentations of predictions with objects of known size."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from voxloom import io
from voxloom.errors import VolumeError
from voxloom.instances import label_objects
from voxloom.segment import look_at_part, segment_volume
from voxloom.volume import PROBABILITY, Geometry


def segment(stored, *, threshold=128, min_size=0, connectivity=26, memory_mib=16.0, **options):
    labels = np.full(stored.shape, 9, np.uint32)
    found = segment_volume(
        stored,
        labels,
        stored_threshold=threshold,
        min_size_voxels=min_size,
        connectivity=connectivity,
        memory_mib=memory_mib,
        **options,
    )
    return found, labels


def in_one_piece(stored, threshold, min_size, connectivity):
    """The same by definition: label, drop what is small, and number anew."""
    labels, count = label_objects(stored >= threshold, connectivity=connectivity)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    kept = sizes >= min_size
    kept[0] = False
    return (kept * np.cumsum(kept)).astype(np.uint32)[labels]


def test_the_threshold_itself_is_foreground():
    _, labels = segment(np.array([[[127, 128, 129]]], np.uint8))
    assert_array_equal(labels, [[[0, 1, 1]]])


def test_objects_of_exactly_the_least_size_stay():
    stored = np.zeros((1, 1, 10), np.uint8)
    stored[0, 0, [0, 1, 2, 5, 6, 9]] = 255
    found, labels = segment(stored, min_size=2)
    assert_array_equal(labels[0, 0], [1, 1, 1, 0, 0, 2, 2, 0, 0, 0])
    assert (found.foreground_voxels, found.objects, found.removed_objects, found.removed_voxels) == (5, 2, 1, 1)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 20), st.integers(1, 9), st.integers(1, 9)),
    share=st.floats(0.05, 0.6),
    min_size=st.integers(0, 12),
    connectivity=st.sampled_from([6, 18, 26]),
    slices=st.integers(1, 20),
    threads=st.integers(1, 2),
    seed=st.integers(0, 99),
)
def test_slabs_and_threads_do_not_show(shape, share, min_size, connectivity, slices, threads, seed):
    """A budget of a slice or two at a time gives the numbers of the whole volume at once."""
    stored = (np.random.default_rng(seed).random(shape) < share).astype(np.uint8) * np.uint8(200)
    memory_mib = slices * shape[1] * shape[2] * 18 / 2**20 + 1e-9
    found, labels = segment(
        stored, min_size=min_size, connectivity=connectivity, memory_mib=memory_mib, threads=threads
    )
    assert_array_equal(labels, in_one_piece(stored, 128, min_size, connectivity))
    everything = label_objects(stored >= 128, connectivity=connectivity)[1]
    assert found.objects == labels.max(initial=0)
    assert found.objects + found.removed_objects == everything
    assert found.foreground_voxels == np.count_nonzero(labels)
    assert found.foreground_voxels + found.removed_voxels == np.count_nonzero(stored)


class Memory:
    """What is kept of slabs, in memory."""

    def __init__(self):
        self.kept = {}

    def save(self, core, arrays):
        self.kept[tuple((axis.start, axis.stop) for axis in core)] = arrays

    def load(self, core):
        return self.kept.get(tuple((axis.start, axis.stop) for axis in core))

    def cores(self):
        return [tuple(slice(*axis) for axis in core) for core in sorted(self.kept)]


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(1, 19), max_size=4), seed=st.integers(0, 99))
def test_parts_that_other_jobs_looked_at_in_slabs_of_their_own_do_not_show(cuts, seed):
    stored = (np.random.default_rng(seed).random((20, 6, 6)) < 0.3).astype(np.uint8) * np.uint8(200)
    settings = {"stored_threshold": 128, "min_size_voxels": 3, "connectivity": 6}
    ranges = list(itertools.pairwise(sorted({0, 20, *cuts})))
    keep = Memory()
    for number, z_range in enumerate(ranges):
        look_at_part(stored, keep, memory_mib=[16.0, 0.003][number % 2], z_range=z_range, **settings)
    labels = np.zeros(stored.shape, np.uint32)
    for z_range in reversed(ranges):
        segment_volume(stored, labels, memory_mib=16.0, keep=keep, z_range=z_range, **settings)
    assert_array_equal(labels, in_one_piece(stored, 128, 3, 6))


def test_an_object_that_meets_itself_in_a_later_slab_is_one():
    """A U along z: two arms that join at the far end."""
    stored = np.zeros((6, 1, 5), np.uint8)
    stored[:, 0, 0] = stored[:, 0, 4] = stored[5, 0, :] = 200
    found, labels = segment(stored, connectivity=6, memory_mib=1e-4)
    assert (found.objects, found.foreground_voxels) == (1, np.count_nonzero(stored))
    assert_array_equal(labels, stored > 0)


def test_an_empty_prediction_has_no_object():
    found, labels = segment(np.zeros((3, 4, 5), np.uint8), min_size=10)
    assert found.objects == found.foreground_voxels == 0
    assert not labels.any()


def test_stored_volumes_are_segmented(tmp_path):
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
    with io.create_volume(
        tmp_path / "l.zarr", shape=stored.shape, dtype="uint32", geometry=geometry, kind="labels"
    ) as labels:
        found = segment_volume(
            io.open_volume(tmp_path / "p.zarr"),
            labels,
            stored_threshold=250,
            min_size_voxels=2,
            connectivity=26,
            memory_mib=64,
            threads=2,
        )
    expected, expected_labels = segment(stored, threshold=250, min_size=2)
    assert found == expected
    assert found.removed_objects > 0
    assert_array_equal(io.open_volume(tmp_path / "l.zarr")[:], expected_labels)


def test_a_prediction_that_is_not_stored_scores_is_refused():
    with pytest.raises(VolumeError, match="uint8 or uint16, got float32"):
        segment(np.zeros((2, 2, 2), np.float32))
