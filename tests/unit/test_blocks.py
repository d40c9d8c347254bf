"""Blocks tile the volume, and what is computed by blocks equals what is computed in one piece."""

import numpy as np
import pytest
import scipy.ndimage as ndi
from hypothesis import given, settings
from hypothesis import strategies as st

from voxloom import job_memory
from voxloom.blocks import block_shape_for, grid, map_blocks, reduce_blocks
from voxloom.errors import VolumeError

sizes = st.tuples(*[st.integers(1, 17)] * 3)
steps = st.tuples(*[st.integers(1, 9)] * 3)


@settings(deadline=None)
@given(shape=sizes, block_shape=steps, halo=st.tuples(*[st.integers(0, 4)] * 3))
def test_cores_cover_every_voxel_once(shape, block_shape, halo):
    seen = np.zeros(shape, int)
    for block in grid(shape, block_shape, halo_voxels=halo):
        seen[block.core] += 1
        window = np.zeros(shape, bool)
        window[block.read] = True
        assert window[block.read][block.inner].size == seen[block.core].size
    assert (seen == 1).all()


@settings(max_examples=30, deadline=None)
@given(shape=sizes, block_shape=steps, threads=st.integers(1, 3), seed=st.integers(0, 99))
def test_a_filter_with_enough_halo_is_the_same_by_blocks_and_whole(shape, block_shape, threads, seed):
    image = np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)

    def dilate(array):
        return ndi.grey_dilation(array, size=3, mode="nearest")

    out = np.zeros_like(image)
    map_blocks(dilate, image, out=out, block_shape=block_shape, halo_voxels=(1, 1, 1), threads=threads)
    np.testing.assert_array_equal(out, dilate(image))


def test_results_come_in_grid_order_whatever_the_threads():
    image = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    sums = {n: [int(s) for _, s in reduce_blocks(np.sum, image, block_shape=(1, 2, 3), threads=n)] for n in (1, 3)}
    assert sums[1] == sums[3]
    assert sum(sums[1]) == image.sum()


def test_an_error_in_one_block_reaches_the_caller():
    def fail(array):
        raise ValueError("block broke")

    with pytest.raises(ValueError, match="block broke"):
        list(reduce_blocks(fail, np.zeros((4, 4, 4)), block_shape=(2, 2, 2), threads=2))


def test_a_budget_too_small_for_one_block_names_the_memory_of_a_job_that_would_do():
    with pytest.raises(VolumeError, match=r"needs 3 MiB .* raise resources.memory_mib to at least 6\b"):
        block_shape_for((512, 512, 512), bytes_per_voxel=13, memory_mib=1)
    blocks_may_take = job_memory.block_mib(6)
    assert block_shape_for((512, 512, 512), bytes_per_voxel=13, memory_mib=blocks_may_take)[0] == 64


def test_blocks_fill_the_budget_and_stay_inside_it():
    shape = block_shape_for((2048, 2048, 2048), bytes_per_voxel=10, memory_mib=1024, halo_voxels=(8, 8, 8), workers=2)
    voxels = np.prod([n + 16 for n in shape])
    assert 0.5 * 2**29 < voxels * 10 <= 2**29
