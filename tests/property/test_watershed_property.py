"""A flood is a property of the image: not of blocks, threads, or the library that computes it."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from sharded import Sharded
from skimage.segmentation import watershed as by_skimage

from voxloom.watershed import BYTES_PER_VOXEL, watershed, watershed_volume


@st.composite
def landscapes(draw, *, levels):
    """Heights of few levels (plateaus everywhere), scattered seeds, and a mask or none."""
    shape = draw(st.tuples(*[st.integers(1, 8)] * 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    heights = rng.integers(0, draw(levels), shape).astype(np.uint8)
    seeds = np.where(rng.random(shape) < draw(st.sampled_from([0.01, 0.05, 0.3])), rng.integers(1, 9, shape), 0)
    mask = rng.random(shape) < 0.7 if draw(st.booleans()) else None
    return heights, seeds.astype(np.uint32), mask


@settings(deadline=None, max_examples=100)
@given(
    landscape=landscapes(levels=st.sampled_from([1, 2, 4, 256])),
    shard_shape=st.tuples(*[st.integers(1, 6)] * 3),
    threads=st.integers(1, 3),
)
def test_any_block_grid_gives_the_same_labels(landscape, shard_shape, threads):
    heights, seeds, mask = landscape
    whole = watershed(heights, seeds, mask=mask)
    labels = Sharded(np.zeros(heights.shape, np.uint32), shard_shape)
    read = [min(n, edge + 2) for n, edge in zip(heights.shape, labels.shard_shape, strict=True)]
    watershed_volume(
        heights,
        seeds,
        labels,
        np.zeros(heights.shape, np.uint32),
        mask=None if mask is None else mask.astype(np.uint8),
        memory_mib=float(np.prod(read)) * BYTES_PER_VOXEL * threads * 1.0001 / 2**20,
        threads=threads,
    )
    np.testing.assert_array_equal(labels.array, whole)


@settings(deadline=None, max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 7)),
    seed=st.integers(0, 2**32),
    share=st.sampled_from([0.02, 0.1, 0.3]),
)
def test_without_ties_labels_are_those_of_scikit_image(shape, seed, share):
    rng = np.random.default_rng(seed)
    heights = rng.permutation(256)[: np.prod(shape)].reshape(shape).astype(np.uint8)
    seeds = np.where(rng.random(shape) < share, rng.permutation(np.prod(shape)).reshape(shape) + 1, 0)
    np.testing.assert_array_equal(watershed(heights, seeds.astype(np.uint32)), by_skimage(heights, seeds))


@settings(deadline=None, max_examples=60)
@given(landscape=landscapes(levels=st.just(3)), axis=st.integers(0, 2))
def test_mirroring_the_landscape_mirrors_the_labels(landscape, axis):
    heights, seeds, mask = landscape
    flipped = [None if part is None else np.flip(part, axis) for part in landscape]
    labels = watershed(heights, seeds, mask=mask)
    np.testing.assert_array_equal(watershed(*flipped[:2], mask=flipped[2]), np.flip(labels, axis))
