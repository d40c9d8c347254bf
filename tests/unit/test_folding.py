"""A network with its batch normalisation folded away is the same network, and the first one is left as it was."""

import pytest
import torch
from torch import nn
from unit.test_inference import settings, trained_network

from voxloom.folding import NORMALISATIONS, folded

NETWORKS = [
    ({}, 10, 0),
    ({"dimensions": 3, "widths": [2, 3]}, 6, 0),
    ({"widths": [3, 4], "residual": True}, 8, 2),  # those before a ReLU and a convolution stay
    ({"norm": "group"}, 0, 0),
    ({"norm": "batch", "dropout": 0.5}, 10, 0),
]


def normalisations(network):
    return sum(isinstance(module, NORMALISATIONS) for module in network.modules())


@pytest.mark.parametrize(("keys", "before", "after"), NETWORKS)
def test_the_output_is_that_of_the_network(keys, before, after):
    model = settings(**keys)
    network = trained_network(model)
    for parameter in network.parameters():  # scales and shifts of the normalisations that are not 1 and 0
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    made = folded(network)
    batch = torch.randn(2, 1, *(16,) * model["network"]["dimensions"], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, got = torch.sigmoid(network(batch)), torch.sigmoid(made(batch))
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)
    assert expected.std() > 0.01  # the test would pass on a constant
    assert (normalisations(network), normalisations(made)) == (before, after)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in network.state_dict().items())


def test_a_network_in_training_stays_in_training():
    network = trained_network(settings()).train()
    assert not folded(network).training
    assert network.training


def test_a_normalisation_that_follows_something_else_stays():
    layers = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.BatchNorm2d(2)).eval()
    assert normalisations(folded(layers)) == 1
