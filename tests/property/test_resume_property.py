"""Killed at any block, a stage goes on there: only unfinished blocks are worked out again, to the same bytes."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxloom import blocks, io
from voxloom.errors import VolumeError
from voxloom.io import files
from voxloom.volume import Geometry

GEOMETRY = Geometry((1.0, 1.0, 1.0))
SHAPE = (200, 20, 600)  # 4 x 1 x 2 shards
IMAGE = np.random.default_rng(5).integers(0, 100, SHAPE, dtype=np.uint8)
IMAGE[64:128, :, :512] = 0  # a shard of zeros has no file


class PowerCut(Exception):
    """What stands for the end of a process."""


def write(path: Path, *, block_shape=(64, 20, 512), threads=1, key="a" * 64, fail_at=None) -> list[tuple]:
    """Twice the image, by blocks; return the cores that were worked out."""
    done: list[tuple] = []

    def double(values, block):
        if len(done) == fail_at:
            raise PowerCut
        done.append(block.core)
        return values * np.uint8(2)

    with io.create_volume(path, shape=SHAPE, dtype="uint8", geometry=GEOMETRY, kind="image", resume=key) as out:
        blocks.map_blocks(double, IMAGE, out=out, block_shape=block_shape, threads=threads)
    return done


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert len(write(folder / "v.zarr")) == 8
    return contents(folder / "v.zarr")


@settings(max_examples=12, deadline=None)
@given(fail_at=st.integers(0, 7), threads=st.integers(1, 3))
def test_only_unfinished_blocks_are_worked_out_again(whole, tmp_path_factory, fail_at, threads):
    folder = tmp_path_factory.mktemp("cut")
    with pytest.raises(PowerCut):
        write(folder / "v.zarr", fail_at=fail_at, threads=threads)
    again = write(folder / "v.zarr", threads=threads)
    assert len(again) <= 8 - fail_at
    assert contents(folder / "v.zarr") == whole
    assert [path.name for path in folder.iterdir()] == ["v.zarr"]


@settings(max_examples=12, deadline=None)
@given(
    fail_at=st.integers(0, 7),
    block_shape=st.sampled_from([(64, 20, 512), (64, 20, 600), (128, 20, 512), (32, 20, 600), (24, 20, 600)]),
)
def test_another_block_grid_uses_what_is_there(whole, tmp_path_factory, fail_at, block_shape):
    """A retry with more memory, or less; blocks of less than a shard count when they have filled one."""
    folder = tmp_path_factory.mktemp("cut")
    with pytest.raises(PowerCut):
        write(folder / "v.zarr", fail_at=fail_at)
    again = write(folder / "v.zarr", block_shape=block_shape)
    finished = {(k // 2, k % 2) for k in range(fail_at)}  # shards along z and x
    for z, _, x in again:
        shards = itertools.product(range(z.start // 64, -(-z.stop // 64)), range(x.start // 512, -(-x.stop // 512)))
        assert not set(shards) <= finished, "a block of finished shards was worked out again"
    assert contents(folder / "v.zarr") == whole


def test_work_of_another_key_is_thrown_away(tmp_path):
    with pytest.raises(PowerCut):
        write(tmp_path / "v.zarr", fail_at=5)
    assert len(write(tmp_path / "v.zarr", key="b" * 64)) == 8
    assert [path.name for path in tmp_path.iterdir()] == ["v.zarr"]


@pytest.mark.parametrize("damage", ["cut", "removed", "swapped"])
def test_a_block_whose_bytes_are_others_is_worked_out_again(whole, tmp_path, damage):
    with pytest.raises(PowerCut):
        write(tmp_path / "v.zarr", fail_at=5)
    (shard,) = tmp_path.glob(".v.zarr.tmp-*/0/c/0/0/1")
    data = shard.read_bytes()
    if damage == "cut":
        shard.write_bytes(data[: len(data) // 2])
    elif damage == "removed":
        shard.unlink()
    else:
        shard.write_bytes(data[::-1])
    assert len(write(tmp_path / "v.zarr")) == 4
    assert contents(tmp_path / "v.zarr") == whole


def test_the_line_during_which_the_process_died_does_not_count(whole, tmp_path):
    with pytest.raises(PowerCut):
        write(tmp_path / "v.zarr", fail_at=5)
    (lines,) = tmp_path.glob(".v.zarr.tmp-*/resume/done-0.txt")
    lines.write_text(lines.read_text()[:-20])
    assert len(write(tmp_path / "v.zarr")) == 4
    assert contents(tmp_path / "v.zarr") == whole


def test_nothing_is_left_of_a_run_that_failed_before_its_first_block(tmp_path):
    with pytest.raises(PowerCut):
        write(tmp_path / "v.zarr", fail_at=0)
    assert list(tmp_path.iterdir()) == []


def test_two_processes_do_not_write_the_same_store(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "WAIT_S", 0.0)
    options = {"shape": SHAPE, "dtype": "uint8", "geometry": GEOMETRY, "kind": "image", "resume": "a" * 64}
    with io.create_volume(tmp_path / "v.zarr", **options):
        with pytest.raises(VolumeError, match="another process is at work on .*; end it, or wait"):
            write(tmp_path / "v.zarr")


def test_the_key_follows_inputs_and_settings(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "0").write_bytes(b"one")
    (tmp_path / "store" / ".hidden").write_bytes(b"")
    inputs = [tmp_path / "store"]
    key = io.resume_key(inputs, clip_um=3.0)
    (tmp_path / "store" / ".hidden").write_bytes(b"more")
    assert io.resume_key(inputs, clip_um=3.0) == key
    assert io.resume_key(inputs, clip_um=4.0) != key
    os.utime(tmp_path / "store" / "0", ns=(1, 1))
    assert io.resume_key(inputs, clip_um=3.0) != key


KILLED = """
import os, sys
from pathlib import Path
from test_resume_property import blocks, io, np, GEOMETRY, IMAGE, SHAPE, write

def stop(*_):
    if len(done) == 5:
        os._exit(9)
    done.append(1)

done = []
write_block = blocks.write_block
blocks.write_block = lambda *given: (stop(), write_block(*given))
write(Path(sys.argv[1]))
"""


def test_a_killed_process_is_followed_by_one_that_does_the_rest(whole, tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path / "v.zarr")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    assert subprocess.run(command, env=environment, check=False).returncode == 9
    assert not (tmp_path / "v.zarr").exists()
    assert len(write(tmp_path / "v.zarr")) == 3
    assert contents(tmp_path / "v.zarr") == whole
