"""Components of affinities are those of the graph, by any slabs, for any offsets."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sharded import memory_mib, slabbed

from voxloom.affinities import NEAREST, label_components, label_components_volume

long_ranges = st.lists(
    st.tuples(st.integers(-3, 0), st.integers(-4, 4), st.integers(-4, 4)).filter(any), max_size=3, unique=True
)
shapes = st.tuples(st.integers(1, 11), st.integers(1, 6), st.integers(1, 6))
dtypes = st.sampled_from([np.uint8, np.float32])


def _random(shape, offsets, dtype, seed):
    values = np.random.default_rng(seed).random((len(offsets), *shape))
    return values.astype(np.float32) if dtype == np.float32 else (values * 255).astype(np.uint8)


def _by_scipy(affinities, threshold, offsets):
    """Components of one voxel and more, from 1 in the order of first voxels: SciPy's order."""
    shape = affinities.shape[1:]
    numbers = np.arange(np.prod(shape)).reshape(shape)
    edges = []
    for channel, offset in zip(affinities, offsets, strict=True):
        for place in np.argwhere(channel > threshold):
            other = place + offset
            if (other >= 0).all() and (other < shape).all():
                edges.append((numbers[tuple(place)], numbers[tuple(other)]))
    rows, columns = np.array(edges, np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(numbers.size, numbers.size))
    return connected_components(graph, directed=False)[1].reshape(shape) + 1


@settings(deadline=None, max_examples=60)
@given(
    shape=shapes,
    more=long_ranges,
    dtype=dtypes,
    seed=st.integers(0, 2**32),
    share=st.sampled_from([0.1, 0.3, 0.6]),
    least=st.integers(1, 3),
    slices=st.integers(1, 5),
    threads=st.integers(1, 3),
)
def test_any_slabs_give_the_components_of_the_graph(shape, more, dtype, seed, share, least, slices, threads):
    offsets = [*NEAREST, *more]
    affinities = _random(shape, offsets, dtype, seed)
    threshold = 1 - share if dtype == np.float32 else round((1 - share) * 255)
    expected = _by_scipy(affinities, threshold, offsets)
    whole, count = label_components(affinities, threshold=threshold, offsets=offsets)
    np.testing.assert_array_equal(whole, expected)
    assert count == expected.max()

    options = {"threshold": threshold, "offsets": offsets, "min_size_voxels": least}
    whole, count = label_components(affinities, **options)
    sizes = np.bincount(expected.ravel())
    np.testing.assert_array_equal(whole > 0, sizes[expected] >= least)
    assert count == (sizes[1:] >= least).sum()
    depth = max(slices, *(-z for z, _, _ in offsets))
    labels = slabbed(np.full(shape, 9, np.uint32), depth)
    memory = memory_mib(whole, depth, bytes_per_voxel=12 + affinities.itemsize * len(offsets), threads=threads)
    assert label_components_volume(affinities, labels, memory_mib=memory, threads=threads, **options) == count
    np.testing.assert_array_equal(labels.array, whole)
