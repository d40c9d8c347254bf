"""Coarser levels made while a volume is written equal those made of the whole, however it was written."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxloom import io
from voxloom.io import pyramid
from voxloom.io.pyramid import Level, Pyramid, levels_of, reduced
from voxloom.volume import Geometry

METHODS = {"mean": "uint8", "max": "uint8", "annotation": "uint8", "nearest": "uint32"}


class Held:
    """A level in memory, with small shards; counts voxels that are read."""

    def __init__(self, shape, dtype, shard_shape):
        self.values, self.shape, self.shard_shape = np.zeros(shape, dtype), tuple(shape), tuple(shard_shape)
        self.done, self.read, self.pyramid = [], 0, None

    def __getitem__(self, index):
        self.read += self.values[index].size
        return self.values[index].copy()

    def __setitem__(self, index, values):
        self.values[index] = values
        if self.pyramid is not None:
            self.pyramid.take(index, values)
            self.pyramid.write()

    def is_done(self, core):
        return core in self.done

    def mark_done(self, core):
        assert core not in self.done, "noted twice"
        self.done.append(core)


def begun(shape, method, shard_shape=(4, 8, 8), factors=((2, 2, 2), (1, 2, 2), (2, 2, 2))):
    """A volume with three coarser levels."""
    full, levels, size, factor = Held(shape, METHODS[method], shard_shape), [], shape, (1, 1, 1)
    for step in factors:
        size = tuple(-(-n // k) for n, k in zip(size, step, strict=True))
        factor = tuple(f * k for f, k in zip(factor, step, strict=True))
        levels.append(Level(size, step, factor))
    arrays = [full]

    def begin(number):
        assert number == len(arrays), "levels are begun in their order, once"
        arrays.append(Held(levels[number - 1].shape, METHODS[method], shard_shape))
        return arrays[-1]

    full.pyramid = Pyramid(full, levels, method=method, begin=begin)
    return full, levels, arrays


def expected(values, levels, method):
    for level in levels:
        values = reduced(values, level.step, method)
        yield values


def boxes(shape, block):
    for corner in itertools.product(*(range(0, n, b) for n, b in zip(shape, block, strict=True))):
        yield tuple(slice(c, min(c + b, n)) for c, b, n in zip(corner, block, shape, strict=True))


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(*[st.integers(1, 40)] * 3),
    st.tuples(*[st.integers(1, 20)] * 3),
    st.sampled_from(sorted(METHODS)),
    st.randoms(use_true_random=False),
    st.sampled_from([1, 3]),
    st.sampled_from([0, 300, 2**26]),
)
def test_levels_follow_from_the_voxels_alone(shape, block, method, random, threads, pending_bytes):
    values = np.random.default_rng(random.randrange(2**32)).integers(0, 255, shape).astype(METHODS[method])
    full, levels, arrays = begun(shape, method)
    order = list(boxes(shape, block))
    random.shuffle(order)
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(threads) as pool:
        patch.setattr(pyramid, "PENDING_BYTES", pending_bytes)
        list(pool.map(lambda box: full.__setitem__(box, values[box]), order))
    full.pyramid.finish()
    for level, array in zip(expected(values, levels, method), arrays[1:], strict=True):
        np.testing.assert_array_equal(array.values, level)


def test_what_is_written_in_even_boxes_is_not_read_again():
    full, levels, arrays = begun((32, 32, 32), "mean")
    values = np.random.default_rng(0).integers(0, 255, full.shape).astype(np.uint8)
    for box in boxes(full.shape, (8, 16, 16)):
        full[box] = values[box]
    full.pyramid.finish()
    assert [array.read for array in arrays] == [0] * 4
    assert all(len(array.done) == len(set(map(str, array.done))) for array in arrays)
    for level, array in zip(expected(values, levels, "mean"), arrays[1:], strict=True):
        np.testing.assert_array_equal(array.values, level)


@pytest.mark.parametrize(
    "again", [(slice(0, 8), slice(0, 16), slice(0, 16)), (slice(3, 5), slice(1, 9), slice(0, 2)), None]
)
def test_what_is_written_twice_counts_as_it_is_at_the_end(again):
    full, levels, arrays = begun((32, 32, 32), "max")
    for array in arrays:
        array.mark_done = lambda core: None
    rng = np.random.default_rng(0)
    for _ in range(2):
        for box in boxes(full.shape, (8, 16, 16)):
            full[box] = rng.integers(0, 255, full.values[box].shape).astype(np.uint8)
    if again is None:
        full.values[:] = 7
        full.pyramid.take(None, full.values)
    else:
        full[again] = np.zeros(full.values[again].shape, np.uint8)
    for array in arrays[1:]:
        array.done.clear()
        array.mark_done = lambda core: None
    full.pyramid.finish()
    for level, array in zip(expected(full.values, levels, "max"), arrays[1:], strict=True):
        np.testing.assert_array_equal(array.values, level)


def test_an_axis_of_one_voxel_does_not_count_as_the_finest():
    assert [level.shape for level in levels_of((1, 600, 900), (0.1, 1.0, 1.0))] == [(1, 300, 450), (1, 150, 225)]
    assert [level.factor for level in levels_of((2, 300, 512, 512), (3.0, 1.0, 1.0))] == [
        (1, 2, 2),
        (1, 4, 4),
        (2, 8, 8),
    ]


def test_a_store_reads_nothing_again(tmp_path, monkeypatch):
    shape = (128, 520, 300)
    values = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    read, path = [], tmp_path / "v.zarr"
    get = io.store.VolumeWriter.__getitem__
    monkeypatch.setattr(
        io.store.VolumeWriter, "__getitem__", lambda self, index: read.append(index) or get(self, index)
    )
    with io.create_volume(path, shape=shape, dtype="uint8", geometry=Geometry((1.0, 1.0, 1.0)), kind="image") as out:
        for z in range(0, 128, 64):
            out[z : z + 64] = values[z : z + 64]
    assert not read
    for number in (1, 2):
        values = reduced(values, (2, 2, 2), "mean")
        np.testing.assert_array_equal(io.open_volume(path, level=number)[:], values)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int8", "int16", "uint32", "float32"])
@pytest.mark.parametrize("step", [(2, 2, 2), (1, 2, 2), (2, 1, 1), (1, 1, 2)], ids=str)
def test_means_are_rounded_as_numpy_rounds_them(dtype, step):
    rng = np.random.default_rng(0)
    shape = (4, 6, 20)
    values = rng.normal(0, 100, shape) if dtype == "float32" else rng.integers(0, np.iinfo(dtype).max, shape)
    values = values.astype(dtype)
    values[:2] = values[:2] // 64 if dtype != "float32" else values[:2]  # many halves
    cells = values.reshape(*(n for k, size in zip(step, shape, strict=True) for n in (size // k, k)))
    means = cells.astype(float).mean(axis=(1, 3, 5))
    expected_means = (means if dtype == "float32" else np.rint(means)).astype(dtype)
    if dtype == "float32":
        np.testing.assert_allclose(reduced(values, step, "mean"), expected_means, rtol=1e-6)
    else:
        np.testing.assert_array_equal(reduced(values, step, "mean"), expected_means)


def test_voxels_are_not_needed_after_they_were_written():
    full, levels, arrays = begun((8, 8, 8), "nearest", factors=((2, 1, 1),))
    values = np.random.default_rng(0).integers(0, 255, full.shape).astype(np.uint32)
    for z in range(0, 8, 2):
        buffer = values[z : z + 2].copy()
        full[z : z + 2, 0:8, 0:8] = buffer
        buffer[:] = 999
    full.pyramid.finish()
    np.testing.assert_array_equal(arrays[1].values, next(expected(values, levels, "nearest")))
