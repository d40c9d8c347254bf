"""Runs of a mask: words and rows have borders that must not show."""

import numpy as np
import pytest
import scipy.ndimage as ndi

from voxloom import io
from voxloom.bits import lowest, ones
from voxloom.runs import Looks, find_runs
from voxloom.volume import Geometry

STRUCTURES = {6: 1, 18: 2, 26: 3}


@pytest.mark.parametrize("connectivity", STRUCTURES)
@pytest.mark.parametrize("width", [1, 7, 63, 64, 65, 128, 131])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.98])
def test_objects_are_those_of_scipy_in_rows_of_any_width(connectivity, width, share):
    mask = np.random.default_rng(width).random((3, 5, width)) < share
    expected, count = ndi.label(mask, ndi.generate_binary_structure(3, STRUCTURES[connectivity]))
    runs = find_runs(mask, connectivity=connectivity)
    assert runs.count == count
    np.testing.assert_array_equal(runs.draw(np.arange(count + 1, dtype=np.uint32)), expected)
    sizes = runs.labelled(shape=mask.shape, first_slice=0).sizes
    np.testing.assert_array_equal(sizes, np.bincount(expected.ravel(), minlength=count + 1))


def test_any_value_but_nothing_is_foreground():
    values = np.array([[[0, 1, 255, 0, 2]]], np.uint8)
    runs = find_runs(values, connectivity=6)
    assert (runs.starts.tolist(), runs.ends.tolist()) == ([1, 4], [3, 5])


def test_bits_are_counted_and_found_in_every_place_of_a_word():
    words = [1 << k for k in range(64)] + [(1 << 64) - (1 << k) for k in range(64)]
    assert [lowest(np.uint64(word)) for word in words] == [*range(64), *range(64)]
    assert [ones(np.uint64(word)) for word in words] == [word.bit_count() for word in words]


def test_a_slab_is_looked_at_again_where_its_runs_take_too_much_memory():
    looked = []

    def find():
        looked.append(1)
        runs = find_runs(np.ones((4, 4, 4), bool), connectivity=6)
        return runs, runs.labelled(shape=(4, 4, 4), first_slice=0)

    for memory_mib, times in ((1, 1), (0.001, 2)):
        looked.clear()
        with Looks(memory_mib, np.zeros((4, 4, 4), np.uint32)) as looks:
            first, second = looks.first(0, find), looks.second(0, find)
        assert len(looked) == times
        np.testing.assert_array_equal(first[1].sizes, second[1].sizes)
        assert second[0].draw(np.array([False, True])).all()


@pytest.mark.parametrize("resume", [None, "a" * 64])
@pytest.mark.parametrize("width", [9, 2**16])
def test_runs_that_take_too_much_memory_wait_in_files_beside_what_is_written(tmp_path, width, resume):
    mask = np.random.default_rng(3).random((2, 3, width)) < 0.4
    runs = find_runs(mask, connectivity=18)
    slab = runs.labelled(shape=mask.shape, first_slice=0)
    options = {"shape": mask.shape, "dtype": "uint32", "geometry": Geometry((1.0, 1.0, 1.0)), "kind": "labels"}

    def files():
        return {path for path in tmp_path.rglob("*") if path.is_file()}

    def looked_at_again():
        raise AssertionError("it should be in a file")

    with io.create_volume(tmp_path / "v.zarr", resume=resume, **options) as labels:
        before = files()
        with Looks(0.0, labels) as looks:
            for index in (4, 7):
                assert looks.first(index, lambda: (runs, slab)) == (runs, slab)
            assert len(files() - before) == 2
            for index in (7, 4):
                again, known = looks.second(index, looked_at_again)
                for name in ("shape", "firsts", "starts", "ends", "labels", "count"):
                    np.testing.assert_array_equal(getattr(again, name), getattr(runs, name), err_msg=name)
                assert again.starts.dtype == (np.uint16 if width < 2**16 else np.uint32)
                for name in ("sizes", "touches_border", "links"):
                    np.testing.assert_array_equal(getattr(known, name), getattr(slab, name), err_msg=name)
            assert looks.second(4, lambda: (runs, slab)) == (runs, slab), "it was handed out and forgotten"
            looks.first(5, lambda: (runs, slab))
        assert files() == before, "a file that nobody asked for is removed, too"
