"""Cells between membranes, linked across sections, against a loop over sections and against tubes that branch."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from scipy import ndimage

from voxloom import io
from voxloom.blocks import part_of
from voxloom.border_thinning import thin_borders
from voxloom.cells import SECTION_BYTES, SLAB_BYTES, cells_of, segment_cells
from voxloom.errors import VolumeError
from voxloom.partitions import adapted_rand, contingency
from voxloom.segmentation import look_at_objects, segment_objects
from voxloom.volume import Geometry

CUT = {"stored_threshold": 128, "min_size_voxels": 0, "link_overlap": 0.5, "link_branches": False}


def segment(stored, **given):
    labels = np.full(stored.shape, 7, np.uint32)
    found = segment_cells(stored, labels, **{"memory_mib": 100.0, **CUT, **given})
    return found, labels


def by_a_loop(stored, *, stored_threshold, min_size_voxels, link_overlap, link_branches):
    """The definition: every section's cells, every pair of cells, a union of what is linked, and numbers at the end."""
    labels, count = np.zeros(stored.shape, int), 0
    for z, section in enumerate(stored):
        if (section < stored_threshold).any():
            cells = thin_borders(section < stored_threshold)
            labels[z] = np.where(cells > 0, cells + count, 0)
            count += cells.max()
    labels = in_order(labels)
    links = []
    for above, below in itertools.pairwise(labels):
        overlap = {(a, b): np.count_nonzero((above == a) & (below == b)) for a in names(above) for b in names(below)}
        overlap = {pair: pixels for pair, pixels in overlap.items() if pixels}
        for (a, b), pixels in overlap.items():
            of_a = min(b for b in names(below) if overlap.get((a, b)) == max(overlap[p] for p in overlap if p[0] == a))
            of_b = min(a for a in names(above) if overlap.get((a, b)) == max(overlap[p] for p in overlap if p[1] == b))
            is_most = [of_a == b, of_b == a]
            smaller = min(np.count_nonzero(above == a), np.count_nonzero(below == b))
            if pixels >= link_overlap * smaller and (any(is_most) if link_branches else all(is_most)):
                links.append((a, b))
    group = {name: name for name in names(labels)}
    for a, b in links:
        old, new = group[b], group[a]
        group = {name: new if of == old else of for name, of in group.items()}
    united = np.zeros_like(labels)
    for name, of in group.items():
        united[labels == name] = of
    for name in names(united):
        if np.count_nonzero(united == name) < min_size_voxels:
            united[united == name] = 0
    return in_order(united)


def names(labels):
    return [name for name in np.unique(labels) if name]


def in_order(labels):
    """Numbers from 1 in the order of first voxels."""
    seen = {name: number for number, name in enumerate(dict.fromkeys(labels[labels > 0].tolist()), 1)}
    return np.array([seen.get(name, 0) for name in labels.ravel().tolist()]).reshape(labels.shape)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 12), st.integers(1, 12)),
    share=st.sampled_from([0.0, 0.2, 0.4, 0.6, 1.0]),
    min_size=st.sampled_from([0, 2, 6]),
    link_overlap=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    link_branches=st.booleans(),
    threads=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_any_stack_is_what_a_plain_loop_makes_of_it(shape, share, min_size, link_overlap, link_branches, threads, seed):
    stored = (np.random.default_rng(seed).random(shape) < share).astype(np.uint8) * np.uint8(200)
    cut = {**CUT, "min_size_voxels": min_size, "link_overlap": link_overlap, "link_branches": link_branches}
    least_mib = (SECTION_BYTES + SLAB_BYTES) * shape[1] * shape[2] / 2**20 + 1e-9
    found, labels = segment(stored, **cut, memory_mib=least_mib * threads, threads=threads)
    assert_array_equal(labels, by_a_loop(stored, **cut))
    assert found.objects == labels.max(initial=0)
    assert found.foreground_voxels == np.count_nonzero(labels)
    everything = by_a_loop(stored, **{**cut, "min_size_voxels": 0})
    assert found.objects + found.removed_objects == everything.max(initial=0)
    assert found.foreground_voxels + found.removed_voxels == np.count_nonzero(everything)


def tubes():
    """Membrane scores and truth of 24 sections: a tube that forks into two at section 7, and two straight ones.

    ::

        sections 0-6   ( 1 )      sections 7-23   ( 1 )  ( 1 )    the arms part by two pixels a section
                      (2) (3)                       (2) (3)
    """
    truth = np.zeros((24, 60, 60), np.uint32)
    y, x = np.mgrid[:60, :60]
    for z, section in enumerate(truth):
        apart = max(0, z - 6)
        for row, column, label in ((20, 30 - apart, 1), (20, 30 + apart, 1), (45, 15, 2), (45, 42, 3)):
            section[(y - row) ** 2 + (x - column) ** 2 <= 64] = label
    inside = np.stack([ndimage.binary_erosion(section > 0, iterations=2) for section in truth])
    return np.where(inside, np.uint8(10), np.uint8(240)), truth


def test_branching_tubes_are_followed_where_branches_are_linked():
    stored, truth = tubes()
    _, labels = segment(stored, link_branches=True)
    followed = adapted_rand(contingency(labels, truth))
    assert followed.error < 0.02
    assert labels.max() == 3
    _, labels = segment(stored)
    cut = adapted_rand(contingency(labels, truth))
    assert cut.precision > 0.99, "what differs is never linked"
    assert cut.recall < 0.9, "an arm is an object of its own"
    assert labels.max() == 4


def test_what_takes_the_place_of_a_tube_that_ends_is_another_object_unless_branches_are_linked():
    stored, _ = tubes()
    stored[12:, 35:55, 30:] = 240  # the third tube's; its neighbours grow into its place
    tube, taker = segment(stored)[1][11:13, 45, 45]
    assert tube != taker
    tube, taker = segment(stored, link_branches=True)[1][11:13, 45, 45]
    assert tube == taker


@pytest.mark.parametrize(("link_overlap", "objects"), [(0.5, 4), (0.51, 5)])
def test_cells_are_linked_from_the_given_share_of_the_smaller_one_on(link_overlap, objects):
    """Three cells a section, whose membranes move by two columns; the right one shares as much with two.

    ::

        0 1 2 | 4 5 6 7 | 9 . .       3 of 3 columns shared, 2 of 4, and 1 with either: of equals the left one,
        0 1 2 3 4 | 6 7 8 9 | .       which overlaps the middle one more, so that the right cells end
    """
    stored = np.full((2, 5, 12), 10, np.uint8)
    stored[0][:, [3, 8]] = stored[1][:, [5, 10]] = 200
    found, labels = segment(stored, link_overlap=link_overlap)
    assert found.objects == objects
    assert labels[0, 0, 0] == labels[1, 0, 0]
    assert (labels[0, 0, 6] == labels[1, 0, 6]) == (link_overlap <= 0.5)
    assert labels[0, 0, 11] != labels[1, 0, 11]


def test_cells_touch_but_for_a_line_and_are_numbered_by_their_first_pixel():
    interior = np.ones((7, 9), bool)
    interior[2:5] = False
    interior[:, 4] = False
    labels, count = cells_of(interior)
    assert count == 4
    assert labels[0, 0] == 1
    assert labels[0, 8] == 2
    assert labels[6, 0] == 3
    assert labels[6, 8] == 4
    assert np.count_nonzero(labels == 0) == 7 + 9 - 1
    assert_array_equal(cells_of(np.zeros((3, 4), bool))[0], 0)


def test_small_objects_are_judged_in_space_and_not_by_section():
    stored = np.full((4, 6, 7), 200, np.uint8)
    stored[:, :, :3] = stored[:, :, 4:] = 10
    stored[1:, :, 4:] = 200  # from there on the left cell takes the section
    sizes = np.bincount(segment(stored)[1].ravel())
    assert len(sizes) == 3
    found, labels = segment(stored, min_size_voxels=int(sizes[2]) + 1)
    assert (found.objects, found.removed_objects, found.removed_voxels) == (1, 1, sizes[2])
    assert_array_equal(np.unique(labels), [0, 1])
    assert segment(stored, min_size_voxels=int(sizes[2]))[0].objects == 2


@pytest.mark.parametrize("parts", [1, 2, 5])
def test_jobs_that_share_a_volume_write_what_one_job_writes(tmp_path, parts):
    stored = (np.random.default_rng(3).random((150, 20, 24)) < 0.4).astype(np.uint8) * np.uint8(200)
    cut = {**CUT, "objects": "cells", "connectivity": 26, "memory_mib": 2.0, "min_size_voxels": 9}
    whole = np.zeros(stored.shape, np.uint32)
    expected = segment_objects(stored, whole, **cut)
    looks = []
    for number in range(1, parts + 1):
        looks.append(tmp_path / f"{number}.objects")
        with io.kept_results(looks[-1], resume="a" * 64) as keep:
            look_at_objects(stored, keep, z_range=part_of(stored.shape, (64, 20, 24), f"{number}-of-{parts}"), **cut)
    created = {"shape": stored.shape, "dtype": "uint32", "geometry": Geometry((1.0, 1.0, 1.0)), "kind": "labels"}
    written = np.zeros(stored.shape, np.uint32)
    for number in range(1, parts + 1):
        with io.create_volume(tmp_path / f"{number}.zarr", **created, resume="a" * 64, multiscale=False) as labels:
            keep = io.keep_results(labels.folder, "objects")
            keep.take_over(looks)
            first, last = part_of(stored.shape, labels.shard_shape, f"{number}-of-{parts}")
            found = segment_objects(Unread(stored, first, last), labels, keep=keep, z_range=(first, last), **cut)
            assert found == expected
        written[first:last] = io.open_volume(tmp_path / f"{number}.zarr")[first:last]
    assert_array_equal(written, whole)


class Unread:
    """A prediction of which only some slices may be read."""

    def __init__(self, stored, first, last):
        self.stored, self.first, self.last, self.shape = stored, first, last, stored.shape

    def __getitem__(self, index):
        z = index[-3]
        assert self.first <= z.start
        assert z.stop <= self.last
        return self.stored[index]


def test_foreground_is_numbered_where_cells_are_not_asked_for():
    stored = np.zeros((3, 4, 9), np.uint8)
    stored[:, :, 4] = 200
    labels = np.zeros(stored.shape, np.uint32)
    cut = {**CUT, "connectivity": 26, "memory_mib": 10.0}
    assert segment_objects(stored, labels, objects="foreground", **cut).objects == 1
    assert_array_equal(labels > 0, stored > 0)
    assert segment_objects(stored, labels, objects="cells", **cut).objects == 2
    assert_array_equal(labels > 0, stored == 0)


def test_what_is_no_stored_score_and_a_budget_below_a_section_are_refused():
    with pytest.raises(VolumeError, match="stored as uint8 or uint16, got float64"):
        segment(np.zeros((1, 4, 4)))
    with pytest.raises(VolumeError, match=r"section of 1000 x 1000 pixels needs 40 MiB.*memory_mib to at least"):
        segment(np.zeros((2, 1000, 1000), np.uint8), memory_mib=30)
