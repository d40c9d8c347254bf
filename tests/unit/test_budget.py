"""A memory budget decides how many blocks are in work at a time."""

import math

import pytest

from voxloom import job_memory
from voxloom.blocks import MOST_VOXELS
from voxloom.budget import KEPT, blocks_within, fixed_within, slabs_within, smallest_memory
from voxloom.errors import VolumeError


def _blocks(memory_mib, threads):
    layout = blocks_within(
        (256, 256, 256),
        bytes_per_voxel=4,
        memory_mib=memory_mib,
        align=(64, 64, 64),  # 1 MiB a block
        threads=threads,
    )
    return layout.block_shape, layout.threads, layout.mib


def test_as_many_threads_as_fit():
    assert _blocks(4, threads=4) == ((64, 64, 64), 4, 4)
    assert _blocks(3.5, threads=4) == ((64, 64, 64), 3, 3)


def test_what_is_left_keeps_what_is_freed_and_makes_blocks_larger():
    assert _blocks(5.2, threads=4) == ((64, 64, 64), 4, pytest.approx(4 * KEPT))
    assert _blocks(8 * KEPT, threads=4) == ((128, 64, 64), 4, pytest.approx(8 * KEPT))


def test_threads_come_before_keeping_what_is_freed():
    how = {"bytes_per_voxel": 4, "align": (64, 64, 64), "threads": 2}
    assert [blocks_within((256, 256, 256), memory_mib=mib, **how).how for mib in (2, 2 * KEPT, 1)] == [
        {"threads": 2, "keeps_freed": False},
        {"threads": 2, "keeps_freed": True},
        {"threads": 1, "keeps_freed": False},
    ]


def test_a_block_grows_no_further_than_it_pays_unless_its_halo_costs_much():
    shape, how = (2048, 2048, 2048), {"bytes_per_voxel": 1, "align": (64, 512, 512), "memory_mib": 4096, "threads": 1}
    assert blocks_within(shape, halo_voxels=(8, 8, 8), **how).block_shape == (256, 512, 512)
    assert math.prod(blocks_within(shape, halo_voxels=(128, 128, 128), **how).block_shape) > 4 * MOST_VOXELS


def test_a_budget_below_one_block_is_refused():
    with pytest.raises(VolumeError, match="needs 1 MiB for 1 worker"):
        _blocks(0.9, threads=4)
    with pytest.raises(VolumeError, match="threads must be at least 1, got 0"):
        _blocks(8, threads=0)


def test_slabs_are_whole_shards_deep_and_thinner_where_the_budget_wants_it():
    slabs = {"bytes_per_voxel": 4, "shards_of": None, "threads": 2}
    assert slabs_within((256, 256, 256), memory_mib=32, **slabs).block_shape == (64, 256, 256)  # 16 MiB a slab
    thin = slabs_within((256, 256, 256), memory_mib=15, **slabs)
    assert (thin.block_shape, thin.threads, thin.mib) == ((46, 256, 256), 1, pytest.approx(11.5 * KEPT))


def test_blocks_of_one_size_are_fewer_at_a_time_where_the_budget_is_small():
    fixed = {"bytes_per_voxel": 4, "halo_voxels": (0, 0, 32), "threads": 4}
    shape, block = (64, 64, 256), (64, 64, 64)  # 2 MiB with its halo
    assert fixed_within(shape, block, memory_mib=math.inf, **fixed).threads == 4
    assert fixed_within(shape, block, memory_mib=5, **fixed).how == {"threads": 2, "keeps_freed": False}
    assert fixed_within(shape, block, memory_mib=4 * KEPT, **fixed).how == {"threads": 2, "keeps_freed": True}
    with pytest.raises(VolumeError, match="raise resources.memory_mib to at least 3"):
        fixed_within(shape, block, memory_mib=1, **fixed)


def test_the_memory_that_a_refusal_names_is_the_smallest_that_is_not_refused():
    def fits(memory_mib):
        _blocks(job_memory.block_mib(memory_mib) / 100, threads=1)

    with pytest.raises(VolumeError):
        fits(133)
    assert smallest_memory(fits, at_least=64) == 134 == job_memory.memory_for(100)


def test_what_no_memory_mends_has_no_smallest_one():
    def never(memory_mib):
        raise VolumeError("no")

    assert smallest_memory(never, at_least=1) is None
