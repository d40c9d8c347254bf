"""Overlapping tiles and their mean, the published way: a plain loop's result, whatever blocks and budget."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from unit.test_inference import image, settings, trained_network

from voxloom import halo, inference, networks, predictor
from voxloom.errors import VolumeError
from voxloom.intensity import Normalisation
from voxloom.labelled import read_reflected
from voxloom.tiles import spread, spread_tiles


def averaged(patch, **changes):
    model = settings(**changes)
    return {**model, "input": {**model["input"], "patch_voxels": patch}}


CONTEXTUAL = {"name": "contextual", "widths": [2, 3, 3, 4], "norm": "none"}


def by_a_plain_loop(network, model, volume):
    """The definition, one section and one tile after the other; each tile with every transform of the model."""
    factor = networks.size_factor(model["network"])
    beside = model["network"]["slices"] // 2
    normalised = Normalisation(**model["normalisation"]).apply(volume)
    total, count = np.zeros(volume.shape), np.zeros(volume.shape)
    edges, begins = [1], [range(volume.shape[0])]
    for axis in (1, 2):
        edge = -(-min(model["input"]["patch_voxels"][axis], volume.shape[axis]) // factor[axis]) * factor[axis]
        room = max(volume.shape[axis] - edge, 0)
        steps = math.ceil(room / (edge // 2))
        edges.append(edge)
        begins.append([k * room // steps for k in range(steps + 1)] if steps else [0])
    turns = range(4) if model["test_time_rotations"] else [0]
    flips = [(), (1,), (2,), (1, 2)] if model["test_time_flips"] else [()]
    moves = {}
    for turn, flip in itertools.product(turns, flips):
        key = np.rot90(np.flip(np.arange(4).reshape(1, 2, 2), flip), turn, (1, 2)).tobytes()
        moves[key] = (turn, flip)  # a turn and two flips are a turn: each symmetry counts once
    for z, y, x in itertools.product(*begins):
        tile = read_reflected(normalised, (z - beside, y, x), (2 * beside + 1, edges[1], edges[2]))
        mean = np.zeros(tile.shape[1:])
        for turn, flip in moves.values():
            moved = np.rot90(np.flip(tile, flip), turn, (1, 2)).copy()
            with torch.no_grad():
                found = torch.sigmoid(network(torch.from_numpy(moved)[None]))[0].numpy()
            mean += np.flip(np.rot90(found, -turn, (1, 2)), flip)[0] / len(moves)
        to = (z, slice(y, min(y + edges[1], volume.shape[1])), slice(x, min(x + edges[2], volume.shape[2])))
        total[to] += mean[: to[1].stop - y, : to[2].stop - x]
        count[to] += 1
    return total / count


CASES = [
    ({}, [1, 48, 48], (2, 100, 131)),  # no multiples of 4
    ({"slices": 3}, [1, 32, 48], (4, 70, 61)),
    ({}, [1, 64, 64], (2, 30, 41)),  # smaller than a tile
    ({}, [1, 64, 32], (1, 30, 80)),  # smaller along one axis
    ({}, [1, 50, 46], (1, 90, 75)),  # a patch that the network doesn't take
    (CONTEXTUAL, [1, 48, 48], (2, 53, 90)),
    ({"flips": True, "rotations": True}, [1, 48, 48], (2, 71, 60)),
    ({"flips": True, **CONTEXTUAL}, [1, 48, 48], (1, 52, 52)),
]


@pytest.mark.parametrize(("changes", "patch", "shape"), CASES)
def test_the_mean_over_tiles_is_that_of_a_plain_loop(changes, patch, shape):
    model = averaged(patch, **changes)
    network, volume = trained_network(model), image(shape)
    expected = by_a_plain_loop(network, model, volume)
    assert np.ptp(expected) > 0.02  # the test would pass on a constant
    ready = predictor.prepare(network, model, memory_mib=1000, device="cpu", precision=None)
    ready, facts = halo.chosen(ready, volume, halo_voxels="exact", tiles="averaged")
    found = np.empty(shape, dtype=np.float32)
    ready.region(volume, (0, 0, 0), shape, found)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert facts["averaged_tile_voxels"] == patch
    stored = np.empty(shape, dtype=np.uint8)
    inference.predict_volume(network, model, volume, stored, memory_mib=400, threads=1, tiles="averaged")
    np.testing.assert_allclose(stored, expected * 255, atol=0.51)


def test_it_is_another_result_than_that_of_exact_tiles_and_equal_where_one_tile_holds_all():
    model = averaged([1, 32, 32])
    network = trained_network(model)
    for shape, alike in (((1, 64, 64), False), ((1, 32, 32), True)):
        volume, made = image(shape), {}
        for tiles in ("exact", "averaged"):
            made[tiles] = np.empty(shape, dtype=np.uint8)
            inference.predict_volume(network, model, volume, made[tiles], memory_mib=400, threads=1, tiles=tiles)
        assert np.array_equal(made["exact"], made["averaged"]) == alike


def test_in_3_d_tiles_overlap_along_z_too():
    model = averaged([16, 16, 16], dimensions=3, widths=[2, 3])
    network, volume = trained_network(model), image((20, 16, 16))
    found = np.empty(volume.shape, dtype=np.uint8)
    inference.predict_volume(network, model, volume, found, memory_mib=400, threads=1, tiles="averaged")
    x = torch.from_numpy(Normalisation(**model["normalisation"]).apply(volume))
    with torch.no_grad():
        first, last = (torch.sigmoid(network(x[None, None, z : z + 16]))[0, 0].numpy() for z in (0, 4))
    expected = np.concatenate([first[:4], (first[4:] + last[:12]) / 2, last[12:]])
    np.testing.assert_allclose(found, expected * 255, atol=0.51)


@pytest.mark.parametrize(("memory_mib", "threads"), [(400, 1), (14, 1), (400, 2)])
def test_neither_budget_nor_threads_nor_parts_change_a_byte(monkeypatch, memory_mib, threads):
    monkeypatch.setattr(inference, "SHARD", (2, 32, 32))
    model = averaged([1, 32, 32])
    network, volume = trained_network(model), image((9, 70, 90))
    expected = np.empty(volume.shape, dtype=np.uint8)
    inference.predict_volume(network, model, volume, expected, memory_mib=1000, threads=1, tiles="averaged")
    for parts in (["1-of-1"], ["1-of-2", "2-of-2"]):
        found = np.zeros_like(expected)
        for part in parts:
            inference.predict_ensemble(
                [(network, model)], volume, found, memory_mib=memory_mib, threads=threads, tiles="averaged", part=part
            )
        assert np.array_equal(found, expected)


def test_a_small_budget_makes_several_blocks(monkeypatch):
    monkeypatch.setattr(inference, "SHARD", (2, 32, 32))
    model = averaged([1, 32, 32])
    ready = predictor.prepare(trained_network(model), model, memory_mib=100, device="cpu", precision=None)
    volume = image((9, 170, 190))
    ready, _ = halo.chosen(ready, volume, halo_voxels="exact", tiles="averaged")
    assert len(inference._blocks([ready], volume, volume, memory_mib=1, part="1-of-1")) > 5


def test_an_ensemble_is_the_mean_of_its_members_means():
    models = [averaged([1, 32, 32]), averaged([1, 48, 40], slices=3)]
    members = [(trained_network(model, seed=k), model) for k, model in enumerate(models)]
    volume = image((3, 60, 70))
    found = np.empty(volume.shape, dtype=np.uint8)
    inference.predict_ensemble(members, volume, found, memory_mib=400, threads=1, tiles="averaged")
    expected = sum(by_a_plain_loop(*member, volume) for member in members) / 2
    np.testing.assert_allclose(found, expected * 255, atol=0.51)


def test_empty_squares_are_0_and_change_nothing_else():
    model = averaged([1, 64, 64])
    network, volume = trained_network(model), image((1, 256, 192)) // 2 + 100
    volume[:, :192, 64:] = 3
    made = {}
    for below in (None, 10):
        made[below] = np.empty(volume.shape, dtype=np.uint8)
        inference.predict_volume(
            network, model, volume, made[below], memory_mib=400, threads=1, tiles="averaged", empty_below=below
        )
    assert made[None][:, :192, 64:].any()
    assert not made[10][:, :192, 64:].any()
    made[None][:, :192, 64:] = 0
    assert np.array_equal(made[10], made[None])


def test_a_tile_that_doesn_t_fit_says_what_to_do():
    model = averaged([1, 480, 480])
    volume = image((1, 600, 600))
    with pytest.raises(VolumeError, match=r"\[1, 480, 480\], needs about .* predict.tiles to exact"):
        inference.predict_volume(trained_network(model), model, volume, volume.copy(), memory_mib=40, threads=1,
                                 tiles="averaged")  # fmt: skip


def test_what_is_planned_is_what_a_pass_takes():
    model = averaged([1, 64, 64])
    volume = image((4, 200, 200))
    options = {"weights_mib": 0.1, "memory_mib": 400, "device": "cpu", "halo_voxels": "exact"}
    small, _ = inference.planned_mib([model], volume, volume, tiles="averaged", **options)
    large, _ = inference.planned_mib([averaged([1, 160, 160])], volume, volume, tiles="averaged", **options)
    assert 0 < small < large


@given(size=st.integers(1, 700), edge=st.integers(1, 500), factor=st.sampled_from([1, 4, 8]), data=st.data())
def test_tiles_cover_the_axis_evenly_and_overlap_by_half(size, edge, factor, data):
    length, begins = spread(size, edge=edge, factor=factor)
    assert length % factor == 0
    assert begins[0] == 0
    assert begins[-1] + length >= size
    assert all(low + length <= size for low in begins) or begins == [0]
    steps = np.diff(begins)
    assert all(0 < step <= max(length // 2, 1) for step in steps)
    assert not len(steps) or max(steps) - min(steps) <= 1
    start = data.draw(st.integers(0, size - 1))
    stop = data.draw(st.integers(start + 1, size))
    seen = np.zeros(size, dtype=int)
    for low in begins:
        seen[low : low + length] += 1
    found = np.zeros(size, dtype=int)
    for tile in spread_tiles(start, stop, size, edge=edge, factor=factor):
        assert tile.read[0] in begins
        found[tile.core[0] : tile.core[1]] += 1
    assert np.array_equal(found[start:stop], seen[start:stop])
    assert not found[:start].any()
    assert not found[stop:].any()
