"""Lines are a property of the mask, not of blocks or threads."""

import numpy as np
import scipy.ndimage as ndi
from hypothesis import given, settings
from hypothesis import strategies as st
from sharded import Sharded

from voxloom.thinning import BYTES_PER_VOXEL, REACH, thin, thin_volume

masks = st.builds(
    lambda shape, seed, share, thickness: (
        ndi.uniform_filter(np.random.default_rng(seed).random(shape), thickness) > np.float64(share)
    ),
    st.tuples(st.integers(100, 170), st.integers(1, 7), st.integers(1, 7)),  # longer than a block and its context
    st.integers(0, 2**32),
    st.sampled_from([0.4, 0.5, 0.6]),
    st.sampled_from([1, 2, 3]),
)


@settings(deadline=None, max_examples=40)
@given(
    mask=masks,
    shard_shape=st.tuples(st.integers(3, 40), st.integers(2, 7), st.integers(2, 7)),
    axis=st.integers(0, 2),
    threads=st.integers(1, 3),
)
def test_any_block_grid_gives_the_same_lines(mask, shard_shape, axis, threads):
    mask = np.ascontiguousarray(np.moveaxis(mask, 0, axis))
    shard_shape = tuple(np.moveaxis(np.empty(shard_shape), 0, axis).shape)
    out = Sharded(np.zeros(mask.shape, np.uint8), shard_shape)
    read = [min(n, edge + 2 * REACH) for n, edge in zip(mask.shape, out.shard_shape, strict=True)]
    memory_mib = float(np.prod(read)) * BYTES_PER_VOXEL * threads * 1.0001 / 2**20
    voxels = thin_volume(
        mask.view(np.uint8), out, np.zeros(mask.shape, np.uint8), memory_mib=memory_mib, threads=threads
    )
    whole = thin(mask)
    np.testing.assert_array_equal(out.array, whole)
    assert voxels == whole.sum()
