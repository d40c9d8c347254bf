"""Mutex watersheds of a few edges."""

import numpy as np
import pytest

from voxloom.errors import VolumeError
from voxloom.mutex import mutex_watershed

OFFSETS = [(0, 0, -1), (0, 0, -3)]


def objects(near, far, dtype=np.float32, **options):
    affinities = np.array([near, far], dtype).reshape(2, 1, 1, -1)
    labels, count = mutex_watershed(affinities, offsets=OFFSETS, attractive=1, **options)
    assert count == labels.max()
    return labels[0, 0].tolist()


def by_definition(affinities, offsets, attractive):
    """Every pair of objects that are kept apart in a set, every object a set of voxels."""
    shape = affinities.shape[1:]
    edges = []
    for channel, offset in enumerate(offsets):
        for place in np.ndindex(shape):
            other = tuple(np.add(place, offset))
            if all(0 <= k < n for k, n in zip(other, shape, strict=True)):
                weight = affinities[channel][place] if channel < attractive else 1 - affinities[channel][place]
                edges.append((-weight, channel, place, other))
    object_of = {place: frozenset([place]) for place in np.ndindex(shape)}
    apart = set()
    for _, channel, place, other in sorted(edges):
        a, b = object_of[place], object_of[other]
        if a is b or frozenset([a, b]) in apart:
            continue
        if channel >= attractive:
            apart.add(frozenset([a, b]))
            continue
        joined = a | b
        apart = {frozenset(joined if one in (a, b) else one for one in pair) for pair in apart}
        object_of.update(dict.fromkeys(joined, joined))
    numbers = {}
    return np.array([numbers.setdefault(object_of[place], len(numbers) + 1) for place in np.ndindex(shape)])


def test_the_weaker_of_the_near_edges_is_cut_where_a_far_edge_forbids_the_chain():
    assert objects([0, 0.9, 0.5, 0.8], [1, 1, 1, 0.3]) == [1, 1, 2, 2]


def test_a_weak_far_edge_forbids_nothing():
    assert objects([0, 0.9, 0.5, 0.8], [1, 1, 1, 0.6]) == [1, 1, 1, 1]


def test_far_edges_count_only_where_the_strides_meet_them():
    near, far = [0, 0.9, 0.5, 0.8], [1, 1, 1, 0.0]
    assert objects(near, far, strides=(1, 1, 3)) == [1, 1, 2, 2]
    assert objects(near, far, strides=(1, 1, 2)) == [1, 1, 1, 1]


def test_stored_integers_are_shares_of_the_largest():
    assert objects([0, 230, 128, 204], [255, 255, 255, 76], np.uint8) == [1, 1, 2, 2]
    assert objects([0, 230, 128, 204], [255, 255, 255, 160], np.uint8) == [1, 1, 1, 1]


@pytest.mark.parametrize("seed", range(12))
def test_objects_are_those_of_the_definition(seed):
    rng = np.random.default_rng(seed)
    offsets = [(-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, -2, 1), (-1, 2, 0), (0, 0, -3)]
    affinities = rng.random((6, 3, 4, 5)).astype(np.float32)
    affinities[3:] += np.float32(0.2)  # weights above 1 and below 0 have their order, too
    labels, _ = mutex_watershed(affinities, offsets=offsets, attractive=3)
    np.testing.assert_array_equal(labels.ravel(), by_definition(affinities, offsets, 3))


def test_more_pairs_than_the_tables_begin_with():
    """Far edges everywhere forbid everything: each voxel stays by itself."""
    affinities = np.zeros((2, 1, 1, 70_000), np.float32)
    affinities[0] = 0.5
    offsets = [(0, 0, -1), (0, 0, -2)]
    labels, count = mutex_watershed(affinities, offsets=offsets, attractive=1)
    assert count == 35_000
    assert labels[0, 0, :5].tolist() == [1, 1, 2, 2, 3]


@pytest.mark.parametrize(("attractive", "strides"), [(0, (1, 1, 1)), (3, (1, 1, 1)), (1, (0, 1, 1))])
def test_what_is_no_mutex_graph_is_refused(attractive, strides):
    with pytest.raises(VolumeError, match=r"attractive must be 1 to 2 .* strides at least 1"):
        mutex_watershed(np.zeros((2, 2, 2, 2), np.float32), offsets=OFFSETS, attractive=attractive, strides=strides)
