"""Tiles of several shapes take no more memory than the largest: each shape's first one first, then shape by shape."""

import ctypes
import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from unit.test_inference import image, settings, trained_network

from voxloom import heap, inference, predictor, tile_memory

MIB = 2**20
SHAPES = list(itertools.product((60, 56), repeat=3))

# what a network does: large pieces come and go, and the first pass over a shape leaves a small one between them
PASSES = """
import contextlib, ctypes, json, sys
from voxloom import heap, tile_memory

c = ctypes.CDLL(None)
c.malloc.restype, c.malloc.argtypes, c.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
c.mallinfo2.restype = type("Counts", (ctypes.Structure,), {"_fields_": [(n, ctypes.c_size_t) for n in names.split()]})
heap.keep_freed()  # as in a process that freed large arrays
memory, known, taken = tile_memory.TileMemory() if sys.argv[1] == "ours" else None, set(), []


def held_bytes():
    counts = c.mallinfo2()
    return counts.arena + counts.hblkhd


def forward(shape):
    voxels = shape[0] * shape[1] * shape[2]

    def piece(share):
        made = c.malloc(share * voxels)
        if shape not in known:
            c.malloc(60_000)
        return made

    skip = piece(64)
    c.free(piece(64))
    enlarged = piece(64)
    joined = piece(128)
    taken.append(held_bytes() - before)
    for made in (skip, enlarged):
        c.free(made)
    last = piece(64)
    for made in (joined, last):
        c.free(made)
    known.add(shape)


before = held_bytes()
for shape in map(tuple, json.loads(sys.argv[2])):
    with memory.of_forward_pass(shape) if memory else contextlib.nullcontext():
        forward(shape)
print(max(taken) / 2**20)
"""


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallinfo2"),
    reason="needs glibc 2.33 to count its memory",
)
def test_memory_doesn_t_grow_with_the_shapes():
    def grown_mib(kind):
        said = subprocess.run(
            [sys.executable, "-c", PASSES, kind, json.dumps(SHAPES * 3)], check=True, capture_output=True, text=True
        )
        return float(said.stdout)

    one = (64 + 64 + 128) * 60**3 / MIB
    assert grown_mib("plain") > 1.4 * one  # the C library by itself: what this is about
    assert grown_mib("ours") < 1.1 * one


def test_a_copy_apart_has_the_same_numbers():
    numbers = torch.arange(24.0).reshape(2, 3, 4).permute(2, 0, 1)
    copy = tile_memory.apart(numbers)
    assert copy.dtype == numbers.dtype
    assert torch.equal(copy, numbers)
    copy += 1
    assert not torch.equal(copy, numbers)


def test_the_first_pass_over_a_shape_has_memory_of_its_own(monkeypatch):
    said = []
    monkeypatch.setattr(heap, "set_option", lambda *pair: said.append(pair))
    monkeypatch.setattr(heap, "give_back", lambda: said.append("back"))
    memory = tile_memory.TileMemory()

    def within(shape):
        said.clear()
        with memory.of_forward_pass(shape):
            inside = list(said)
        assert said[-1] == (heap.M_MMAP_MAX, heap.MOST_PIECES)
        is_kept = (heap.M_MMAP_MAX, 0) in inside
        return ("back, " if "back" in inside else "") + ("kept" if is_kept else "own")

    shapes = [(1, 4), (1, 8), (1, 8), (1, 8), (1, 4), (1, 4), (2, 4)]
    assert [within(shape) for shape in shapes] == [
        "back, own",
        "back, own",
        "kept",
        "kept",
        "kept",
        "kept",
        "back, own",
    ]
    with pytest.raises(ZeroDivisionError), memory.of_forward_pass((3, 4)):
        raise ZeroDivisionError
    assert within((3, 4)) == "back, own"


@pytest.mark.parametrize(("keys", "core"), [({"dimensions": 3, "widths": [2, 3, 3]}, (64, 16)), ({}, (16, 64))])
def test_one_tile_of_every_shape_comes_first_and_then_shape_by_shape(monkeypatch, keys, core):
    model, shapes = settings(**keys), []
    volume = image((48, 64, 64)) if keys else image((1, 64, 64))
    monkeypatch.setitem(predictor.FIXED_CORES, "cpu", core)
    forward = predictor.Predictor.forward

    def recording(self, batch):
        assert self.memory is not None
        shapes.append(tuple(batch.shape))
        return forward(self, batch)

    monkeypatch.setattr(predictor.Predictor, "forward", recording)
    out = np.empty(volume.shape, dtype=np.uint8)
    inference.predict_volume(trained_network(model), model, volume, out, memory_mib=400, threads=1, halo_voxels=4)
    every = set(shapes)
    assert len(every) == (8 if keys else 4)
    assert set(shapes[: len(every)]) == every
    later = shapes[len(every) :]
    changes = sum(a != b for a, b in itertools.pairwise(later))
    assert len(later) > changes + 1, "or their order would say nothing"
    assert changes == len(set(later)) - 1
