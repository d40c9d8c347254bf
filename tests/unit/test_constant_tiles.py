"""A tile of one value is computed once, and what is remembered stays within its memory."""

import numpy as np
import torch
from unit.test_inference import by_region, settings, trained_network

from voxloom import predictor
from voxloom.constant_tiles import ConstantTiles


class Counted:
    """A network that counts what it is asked."""

    def __init__(self):
        self.calls = 0

    def __call__(self, batch):
        self.calls += 1
        return batch * 2 + self.calls


def test_equal_tiles_are_computed_once_and_others_every_time():
    tiles, network = ConstantTiles(memory_mib=1), Counted()
    black, grey, longer = torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4), torch.zeros(1, 1, 4, 8)
    varied = torch.zeros(1, 1, 4, 4)
    varied[0, 0, 1, 2] = 1
    answers = [tiles.predict(tile, network) for tile in (black, grey, longer, varied, varied, black, grey, longer)]
    assert network.calls == 5
    assert tiles.hits == 3
    assert torch.equal(answers[5], answers[0])
    assert torch.equal(answers[6], answers[1])
    assert torch.equal(answers[7], answers[2])


def test_what_was_longest_not_needed_is_forgotten():
    tiles, network = ConstantTiles(memory_mib=2.5 * 4 * 64 * 64 / 2**20), Counted()
    first, second, third = (torch.full((1, 1, 64, 64), float(value)) for value in range(3))
    for tile in (first, second, first, third):
        tiles.predict(tile, network)
    assert network.calls == 3
    tiles.predict(first, network)
    assert network.calls == 3
    tiles.predict(second, network)
    assert network.calls == 4


def test_padding_is_predicted_as_it_would_be_by_the_network(monkeypatch):
    """A volume that is mostly one value: equal bytes with and without memory, and fewer forward passes with it."""
    model = settings(dimensions=3, widths=[2, 3])
    network = trained_network(model)
    volume = np.full((40, 64, 64), 7, dtype=np.uint8)
    volume[:8, :8, :8] = np.random.default_rng(0).integers(0, 255, (8, 8, 8))
    seen = []
    forward = predictor.Predictor.forward
    monkeypatch.setattr(
        predictor.Predictor, "forward", lambda self, batch: seen.append(batch.shape) or forward(self, batch)
    )
    results = []
    for remembered in (predictor.REMEMBERED, 0.0):
        monkeypatch.setattr(predictor, "REMEMBERED", remembered)
        seen.append("begin")
        results.append(by_region(network, model, volume, (0, 0, 0), volume.shape, edge=32, monkeypatch=monkeypatch))
    np.testing.assert_array_equal(*results)
    with_memory = seen[1:].index("begin")
    assert with_memory < (len(seen) - 2) / 2
