"""Distances obey their definition and their symmetries for any mask, spacing and radius."""

import numpy as np
import scipy.ndimage as ndi
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from voxloom.distance import clipped_distance, distance_volume, field_bytes, grow, shrink

masks = hnp.array_shapes(min_dims=3, max_dims=3, max_side=9).flatmap(
    lambda shape: st.builds(
        lambda seed, share: np.random.default_rng(seed).random(shape) < share,
        st.integers(0, 2**32),
        st.sampled_from([0.0, 0.01, 0.1, 0.5, 0.99]),
    )
)
lengths = st.floats(0.05, 20.0)
multiples = st.tuples(*[st.integers(1, 4)] * 3)
spacings = st.one_of(
    st.tuples(lengths, lengths, lengths),
    lengths.map(lambda s: (s, s, s)),
    st.builds(lambda s, times: tuple(s * k for k in times), st.sampled_from([0.65, 1.17, 4.0, 1 / 3]), multiples),
)
radii = st.one_of(st.floats(0.05, 60.0), st.sampled_from([1.0, 4.0, 10.0]))
relaxed = settings(deadline=None, max_examples=150)


def _by_scipy(mask, spacing_um):
    return ndi.distance_transform_edt(~mask, sampling=spacing_um) if mask.any() else np.full(mask.shape, np.inf)


@relaxed
@given(mask=masks, spacing_um=spacings, clip_um=radii)
def test_equals_scipy_to_the_last_bit(mask, spacing_um, clip_um):
    distance = clipped_distance(mask, spacing_um=spacing_um, clip_um=clip_um)
    np.testing.assert_array_equal(distance, np.minimum(_by_scipy(mask, spacing_um), clip_um).astype(np.float32))


@relaxed
@given(mask=masks, spacing_um=spacings, radius_um=radii)
def test_growing_is_a_distance_and_shrinking_grows_the_background(mask, spacing_um, radius_um):
    limit = radius_um * (1 + 1e-6)
    grown = grow(mask, spacing_um=spacing_um, grow_um=radius_um)
    np.testing.assert_array_equal(grown, _by_scipy(mask, spacing_um) <= limit)
    shrunk = shrink(mask, spacing_um=spacing_um, shrink_um=radius_um)
    np.testing.assert_array_equal(shrunk, ~(_by_scipy(~mask, spacing_um) <= limit))


@relaxed
@given(mask=masks, spacing_um=spacings, radius_um=radii, axis=st.integers(0, 2))
def test_flipping_the_mask_flips_the_result(mask, spacing_um, radius_um, axis):
    for mode in ("exact", "slicer_legacy"):
        grown = grow(mask, spacing_um=spacing_um, grow_um=radius_um, mode=mode)
        flipped = grow(np.flip(mask, axis), spacing_um=spacing_um, grow_um=radius_um, mode=mode)
        np.testing.assert_array_equal(flipped, np.flip(grown, axis))


@relaxed
@given(mask=masks, spacing_um=spacings, clip_um=radii)
def test_doubling_the_spacing_doubles_every_distance(mask, spacing_um, clip_um):
    once = clipped_distance(mask, spacing_um=spacing_um, clip_um=clip_um)
    twice = clipped_distance(mask, spacing_um=tuple(2 * s for s in spacing_um), clip_um=2 * clip_um)
    np.testing.assert_array_equal(twice, 2 * once)


class _Sharded:
    """An array that is written in shards, so that blocks are small."""

    def __init__(self, array, shard_shape):
        self.array, self.shard_shape = array, shard_shape

    def __setitem__(self, index, values):
        self.array[index] = values


@settings(deadline=None, max_examples=60)
@given(
    mask=masks,
    spacing_um=st.sampled_from([(1.17, 1.17, 1.17), (3.0, 1.0, 1.5), (0.4, 2.0, 2.0)]),
    clip_um=st.sampled_from([1.5, 4.0, 10.0]),
    shard_shape=st.tuples(*[st.integers(1, 6)] * 3),
    threads=st.integers(1, 3),
)
def test_any_block_grid_gives_the_same_distances(mask, spacing_um, clip_um, shard_shape, threads):
    codes = mask.astype(np.uint8)
    options = {"spacing_um": spacing_um, "clip_um": clip_um, "dtype": "uint8"}
    whole, by_blocks = np.zeros_like(codes), np.zeros_like(codes)
    distance_volume(codes, whole, memory_mib=16, **options)
    halo = [int(clip_um / s) for s in spacing_um]
    read = [min(n, edge + 2 * h) for n, edge, h in zip(mask.shape, shard_shape, halo, strict=True)]
    one_block_mib = float(np.prod(read)) * (8 + field_bytes(mask.shape, spacing_um, clip_um)) / 2**20
    distance_volume(
        codes, _Sharded(by_blocks, shard_shape), memory_mib=one_block_mib * threads * 1.001, threads=threads, **options
    )
    np.testing.assert_array_equal(by_blocks, whole)
