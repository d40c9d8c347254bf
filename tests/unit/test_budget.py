"""A memory budget decides how many blocks are in work at a time."""

import pytest

from voxloom.budget import blocks_within
from voxloom.errors import VolumeError


def _blocks(memory_mib, threads):
    return blocks_within(
        (256, 256, 256),
        bytes_per_voxel=4,
        memory_mib=memory_mib,
        halo_voxels=(0, 0, 0),
        align=(64, 64, 64),  # 1 MiB a block
        threads=threads,
    )


def test_as_many_threads_as_fit():
    assert _blocks(4, threads=4) == ((64, 64, 64), 4)
    assert _blocks(3.5, threads=4) == ((64, 64, 64), 3)


def test_what_is_left_makes_blocks_larger():
    assert _blocks(8, threads=4) == ((128, 64, 64), 4)


def test_a_budget_below_one_block_is_refused():
    with pytest.raises(VolumeError, match="needs 1 MiB for 1 worker"):
        _blocks(0.9, threads=4)
    with pytest.raises(VolumeError, match="threads must be at least 1, got 0"):
        _blocks(8, threads=0)
