"""Squares that hold nothing become 0 without a look; everything else is predicted as if they were looked at."""

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.test_inference import image, settings, trained_network

from voxloom import inference, predictor
from voxloom.errors import VolumeError
from voxloom.occupancy import EDGE, Occupancy, clear_empty, is_occupied


def squares_by_definition(values, below, above):
    z, y, x = values.shape
    occupied = np.zeros((z, -(-y // EDGE), -(-x // EDGE)), dtype=bool)
    for place in np.ndindex(occupied.shape):
        square = values[place[0], place[1] * EDGE : (place[1] + 1) * EDGE, place[2] * EDGE : (place[2] + 1) * EDGE]
        is_dark = below is not None and all(value < below for value in square.flat)
        is_bright = above is not None and all(value > above for value in square.flat)
        occupied[place] = not (is_dark or is_bright)
    return occupied


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 150), st.integers(1, 150)),
    seed=st.integers(0, 99),
    below=st.none() | st.integers(0, 12),
    above=st.none() | st.integers(0, 12),
)
def test_squares_are_those_of_the_definition(shape, seed, below, above):
    random = np.random.default_rng(seed)
    values = (random.integers(0, 4, shape) + random.integers(0, 9)).astype(np.uint8)
    occupied = Occupancy(below, above).squares_of(values)
    if below is None and above is None:
        assert occupied is None
    else:
        np.testing.assert_array_equal(occupied, squares_by_definition(values, below, above))


def test_what_is_not_a_number_counts_as_something():
    values = np.zeros((1, 64, 64), dtype=np.float32)
    values[0, 3, 3] = np.nan
    assert Occupancy(5.0, None).squares_of(values).all()


def test_a_box_is_occupied_where_it_touches_an_occupied_square():
    occupied = np.zeros((2, 2, 2), dtype=bool)
    occupied[1, 0, 1] = True
    assert is_occupied(occupied, [(0, 2), (63, 64), (64, 65)])
    assert not is_occupied(occupied, [(0, 1), (0, 128), (0, 128)])
    assert not is_occupied(occupied, [(1, 2), (64, 128), (0, 128)])
    assert not is_occupied(occupied, [(1, 2), (0, 64), (0, 64)])


def test_empty_squares_are_cleared_up_to_the_border():
    result = np.ones((1, 70, 130), dtype=np.uint8)
    clear_empty(np.array([[[True, False, True], [False, True, False]]]), result)
    assert result[0, :64, 64:128].sum() == result[0, 64:, :64].sum() == result[0, 64:, 128:].sum() == 0
    assert result.sum() == 64 * 64 + 64 * 2 + 6 * 64


@pytest.mark.parametrize(
    ("model", "members"),
    [(settings(), 1), (settings(), 2), (settings(dimensions=3, widths=[2, 3]), 1), (settings(size=[40, 40]), 1)],
)
def test_only_empty_squares_differ_and_tiles_without_anything_are_not_computed(monkeypatch, caplog, model, members):
    monkeypatch.setitem(predictor.TILE_EDGES, "cpu", (96, 32))
    volume = image((3, 150, 140))
    volume[:, :, 64:] //= 16  # dark: below 16
    volume[:, 140, 100] = 200  # but for one line, at the lower border
    ensemble = [(trained_network(model, seed=seed), model) for seed in range(members)]
    calls = []
    forward = predictor.Predictor.forward
    monkeypatch.setattr(predictor.Predictor, "forward", lambda self, batch: calls.append(1) or forward(self, batch))

    def predict(**options):
        out = np.full(volume.shape, 99, dtype=np.uint8)
        calls.clear()
        inference.predict_ensemble(ensemble, volume, out, memory_mib=400, threads=1, **options)
        return out, len(calls)

    whole, many = predict()
    with caplog.at_level(logging.INFO, logger="voxloom"):
        some, few = predict(empty_below=16)
    occupied = np.ones(volume.shape, dtype=bool)
    occupied[:, :128, 64:] = False
    occupied[:, 128:, 128:] = False
    np.testing.assert_array_equal(some, np.where(occupied, whole, 0))
    assert whole[~occupied].any()
    assert "56 % of the squares" in caplog.text
    if model["input"]["size"] is None:
        assert few < many
    np.testing.assert_array_equal(predict(empty_above=255)[0], whole)
    nothing, none = predict(empty_above=-1)
    assert not nothing.any()
    assert none == 0


def test_a_value_that_is_not_finite_is_not_skipped():
    model = settings()
    volume = np.zeros((1, 40, 40), dtype=np.float32)
    volume[0, 3, 3] = np.nan
    with pytest.raises(VolumeError, match="not finite"):
        inference.predict_volume(
            trained_network(model), model, volume, np.zeros(volume.shape, np.uint8), memory_mib=100, threads=1,
            empty_below=5,
        )  # fmt: skip
