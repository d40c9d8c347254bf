"""A narrowed halo: its tiles lie fixed in the volume, its error is what was measured, and exact is what it was."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.test_inference import at_once, image, settings, trained_network

from voxloom import halo, inference, predictor
from voxloom.errors import VolumeError
from voxloom.tiles import fixed_tiles

DEEP = {"dimensions": 3, "widths": [2, 3, 3]}  # sees 23 voxels


@given(
    start=st.integers(0, 200),
    length=st.integers(1, 200),
    beyond=st.integers(0, 50),
    cells=st.integers(1, 9),
    halo_voxels=st.integers(0, 30),
    factor=st.sampled_from([1, 2, 4, 6]),
)
def test_every_voxel_has_its_tile_whatever_the_range(start, length, beyond, cells, halo_voxels, factor):
    stop = start + length
    grid = {"core": cells * factor, "halo": halo_voxels, "factor": factor}
    whole = fixed_tiles(0, stop + beyond, stop + beyond, **grid)
    part = fixed_tiles(start, stop, stop + beyond, **grid)
    assert [voxel for tile in part for voxel in range(*tile.core)] == list(range(start, stop))
    reads = {voxel: tile.read for tile in whole for voxel in range(*tile.core)}
    for tile in part:
        assert tile.read == reads[tile.core[0]] == reads[tile.core[1] - 1]
        assert tile.read[0] % factor == tile.read[1] % factor == 0


@pytest.mark.parametrize(("keys", "core"), [(DEEP, (64, 16)), ({}, (16, 64))])
def test_a_narrowed_prediction_doesn_t_depend_on_the_blocks(monkeypatch, keys, core):
    model = settings(**keys)
    network, volume = trained_network(model), image((24, 50, 60))
    monkeypatch.setitem(predictor.FIXED_CORES, "cpu", core)
    results = []
    for shard in ((8, 16, 16), (24, 64, 64), (5, 30, 7)):
        monkeypatch.setattr(inference, "SHARD", shard)
        monkeypatch.setattr(inference, "MOST_BLOCK_VOXELS", 1)
        out = np.empty(volume.shape, dtype=np.uint8)
        facts = inference.predict_volume(network, model, volume, out, memory_mib=400, threads=1, halo_voxels=4)
        results.append(out)
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])
    z = 4 if keys else 0
    assert facts == [{"halo_voxels": [z, 4, 4], "sees_voxels": [z and 23, 23, 23], "largest_difference": None}]
    difference = np.abs(results[0] - at_once(network, model, volume) * 255)
    assert difference.max() > 0.6  # narrower than what it sees
    assert np.median(difference) < 10  # and yet the prediction


def test_a_halo_of_all_that_it_sees_is_exact(monkeypatch):
    model = settings(**DEEP)
    network, volume = trained_network(model), image((12, 50, 60))
    monkeypatch.setitem(predictor.TILE_EDGES, "cpu", (64, 56))
    expected = at_once(network, model, volume)
    for halo_voxels in ("exact", 23, 1000):
        out = np.empty(volume.shape, dtype=np.uint8)
        facts = inference.predict_volume(
            network, model, volume, out, memory_mib=400, threads=1, halo_voxels=halo_voxels
        )
        assert facts[0]["halo_voxels"] == facts[0]["sees_voxels"] == [23, 23, 23]
        assert np.abs(out - expected * 255.0).max() <= 0.51


@pytest.mark.parametrize(("tolerance", "found"), [(1.0, 4), (1e-7, 23)])
def test_the_narrowest_halo_that_will_do_is_measured(monkeypatch, tolerance, found):
    model = settings(**DEEP)
    network, volume = trained_network(model), image((16, 40, 48))
    monkeypatch.setitem(predictor.FIXED_CORES, "cpu", (64, 16))
    monkeypatch.setattr(halo, "CANDIDATES", (4, 8))
    monkeypatch.setattr(halo, "SAMPLES", 2)
    monkeypatch.setattr(halo, "TOLERANCE", tolerance)
    ready = predictor.prepare(network, model, memory_mib=400, device="cpu", precision=None)
    chosen, facts = halo.chosen(ready, volume, halo_voxels="measured")
    assert chosen.halo == (found,) * 3
    assert facts["halo_voxels"] == [found] * 3
    if found == 4:
        inner, outer = (np.empty((16, 16, 16), np.float32) for _ in range(2))
        halo.chosen(ready, volume, halo_voxels=4)[0].region(volume, (0, 16, 16), (16, 32, 32), inner)
        halo.chosen(ready, volume, halo_voxels=8)[0].region(volume, (0, 16, 16), (16, 32, 32), outer)
        assert 0 < facts["largest_difference"] < 1
        assert np.abs(inner - outer).max() <= 3 * facts["largest_difference"]
    else:
        assert chosen.is_exact
        assert facts["largest_difference"] == 0


def test_samples_are_where_grey_values_vary(monkeypatch):
    model = settings(**DEEP)
    monkeypatch.setitem(predictor.FIXED_CORES, "cpu", (64, 16))
    monkeypatch.setattr(halo, "SAMPLES", 1)
    volume = np.zeros((16, 64, 64), dtype=np.uint8)
    volume[:, 32:48, 16:32] = image((16, 16, 16))
    ready = predictor.prepare(trained_network(model), model, memory_mib=400, device="cpu", precision=None)
    assert halo._sample_cells(ready, volume) == [((0, 32, 16), (16, 48, 32))]


def test_a_cell_that_doesn_t_fit_says_what_to_do():
    model = settings(dimensions=3, widths=[16, 16, 16])
    volume = image((128, 128, 128))
    with pytest.raises(VolumeError, match=r"looks 8 x 8 x 8 voxels far.*halo_voxels to fewer"):
        inference.predict_volume(
            trained_network(model), model, volume, volume.copy(), memory_mib=100, threads=1, halo_voxels=8
        )


def test_what_is_measured_without_flips_is_not_remembered_for_the_prediction_with_them(monkeypatch):
    model = settings(**DEEP)
    monkeypatch.setitem(predictor.FIXED_CORES, "cpu", (64, 16))
    flat = np.full((24, 50, 60), 90, np.uint8)
    whole = predictor.prepare(
        trained_network(model), model, memory_mib=400, device="cpu", precision=None, has_flips=True
    )
    chosen, _ = halo.chosen(whole, flat, halo_voxels="measured")
    said, alone = (np.empty(flat.shape, np.float32) for _ in range(2))
    chosen.region(flat, (0, 0, 0), flat.shape, said)
    fresh = predictor.prepare(
        trained_network(model), model, memory_mib=400, device="cpu", precision=None, has_flips=True
    )
    again, _ = halo.chosen(fresh, flat, halo_voxels=chosen.halo[1])
    again.region(flat, (0, 0, 0), flat.shape, alone)
    np.testing.assert_array_equal(said, alone)
