"""Freed memory is kept while somebody wants it, and goes back afterwards."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from voxloom import heap
from voxloom.blocks import map_blocks, reduce_blocks

# arrays that are larger than what glibc keeps by itself come and go, as with every block
BLOCKS = """
import json, resource, sys
import numpy as np
from voxloom import heap


def faults_and_mib(is_wanted):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    with heap.keeping(is_wanted):
        for _ in range(20):
            np.ones(48 * 2**20, np.uint8)
    taken = next(line for line in open("/proc/self/status") if line.startswith("VmRSS"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, int(taken.split()[1]) / 1024


faults_and_mib(False)
print(json.dumps([faults_and_mib(True), faults_and_mib(False)]))
"""


@pytest.mark.skipif(heap._glibc() is None, reason="needs Linux's C library")
def test_kept_memory_is_fetched_once_and_given_back():
    small_pages = {**os.environ, "NUMPY_MADVISE_HUGEPAGE": "0"}  # of large ones there are too few to count
    said = subprocess.run([sys.executable, "-c", BLOCKS], check=True, capture_output=True, text=True, env=small_pages)
    (kept, kept_mib), (fetched, fetched_mib) = json.loads(said.stdout)
    assert kept < fetched / 5
    assert kept_mib < fetched_mib + 16


# two large pieces with a small one between; all are freed, but the thread keeps the small one
BETWEEN = """
import ctypes, sys
from voxloom import heap

c = ctypes.CDLL(None)
c.malloc.restype, c.malloc.argtypes, c.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
heap.set_option(heap.M_MMAP_MAX, 0)
heap.set_option(heap.M_TRIM_THRESHOLD, heap.NEVER)
first = c.malloc(2**23)
small = c.malloc(96)
while not 0 < small - first < 2**23 + 2**10:  # it came from older free memory
    small = c.malloc(96)
second, end = c.malloc(2**23), c.malloc(2**10)
for piece in (first, small, second):
    c.free(piece)
if sys.argv[1] == "joined":
    heap.join_small_pieces()
print(first <= c.malloc(2**24 - 2**16) < second)
"""


@pytest.mark.skipif(heap._glibc() is None, reason="needs Linux's C library")
@pytest.mark.parametrize(("kind", "fits"), [("plain", "False"), ("joined", "True")])
def test_small_pieces_don_t_keep_large_ones_apart(kind, fits):
    said = subprocess.run([sys.executable, "-c", BETWEEN, kind], check=True, capture_output=True, text=True)
    assert said.stdout.strip() == fits


def test_the_last_one_who_wants_it_gives_it_back(monkeypatch):
    said = []
    monkeypatch.setattr(heap, "_keepers", 0)
    monkeypatch.setattr(heap, "set_option", lambda *pair: said.append(pair))
    monkeypatch.setattr(heap, "give_back", lambda: said.append("back"))
    with heap.keeping(False):
        pass
    assert not said
    with heap.keeping():
        with pytest.raises(ZeroDivisionError), heap.keeping():
            raise ZeroDivisionError
        assert (heap.M_MMAP_MAX, 0) in said
        assert "back" not in said
    assert said[-1] == "back"
    assert (heap.M_MMAP_MAX, heap.MOST_PIECES) in said


@pytest.mark.parametrize("is_wanted", [False, True])
def test_blocks_keep_what_is_freed_where_they_are_told_to(monkeypatch, is_wanted):
    inside = []
    keeping = heap.keeping
    monkeypatch.setattr(heap, "keeping", lambda wanted: inside.append(wanted) or keeping(wanted))
    values, out = np.ones((2, 2, 4), np.uint8), np.zeros((2, 2, 4), np.uint8)
    how = {"block_shape": (2, 2, 2), "keeps_freed": is_wanted}
    map_blocks(lambda part: part + 1, values, out=out, **how)
    assert [total for _, total in reduce_blocks(lambda part: int(part.sum()), values, **how)] == [8, 8]
    assert inside == [is_wanted, is_wanted]
    assert (out == 2).all()
