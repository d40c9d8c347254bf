"""What a training step takes is what was counted for it."""

import math

import pytest
import torch

from voxloom import networks
from voxloom.training_memory import CODE_BYTES, _LiveBytes, training_bytes


def test_one_level_of_sums_is_counted_by_hand():
    """Two convolutions of 8 channels at 64 x 64 in batches of 2, no normalisation, no coarser level that matters."""
    network = {"widths": [8, 1], "norm": "none"}
    one = 2 * 8 * 64 * 64 * 4  # a tensor of 8 channels
    counted = training_bytes(network, (1, 64, 64), 2, "float32") - CODE_BYTES
    # kept: two on the way down, two joined, two on the way up; their gradients: two joined and one that makes them;
    # what has single channels is less than one more
    assert 9 * one < counted < 10 * one


def test_it_grows_with_batch_and_patch_and_halves_in_bfloat16():
    network = {"preset": "unet3d_8", "widths": [8, 16, 32]}
    base = training_bytes(network, (32, 64, 64), 2, "float32")
    assert training_bytes(network, (32, 64, 64), 4, "float32") / base == pytest.approx(2, rel=0.05)
    assert training_bytes(network, (32, 64, 128), 2, "float32") / base == pytest.approx(2, rel=0.05)
    assert 0.45 < training_bytes(network, (32, 64, 64), 2, "bfloat16") / base < 0.75


def test_moments_of_the_optimiser_are_counted():
    network = {"widths": [4, 8, 256]}
    adam, sgd = (training_bytes(network, (1, 32, 32), 2, "float32", moments=n) for n in (2, 0))
    weights = sum(weight.numel() for weight in networks.build(network, seed=0).parameters())
    assert adam - sgd == 2 * 4 * weights


def test_small_float32_convolutions_unfold_their_input():
    """A batch of one takes more than half of a batch of two: 27 copies of 16 channels, before they are multiplied."""
    network = {"preset": "unet3d_16", "widths": [16, 32]}
    one, two = (training_bytes(network, (16, 32, 32), batch, "float32") for batch in (1, 2))
    assert one - two / 2 > 16 * 27 * 16 * 32 * 32 * 4 / 2


@pytest.mark.parametrize(
    "network",
    [
        {"dropout": 0.5, "deep_supervision": True, "widths": [4, 8, 16]},
        {"preset": "zhang2018", "widths": [4, 8, 16]},
        {"dimensions": 3, "widths": [4, 8], "strides": [[1, 2, 2]], "norm": "group", "upsampling": "nearest"},
    ],
    ids=str,
)
def test_counting_leaves_no_trace_and_takes_every_option(network):
    state = torch.random.get_rng_state()
    assert training_bytes(network, (8, 16, 16), 2, "float32") > 0
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    "network",
    [
        {},
        {"preset": "unet3d_8"},
        {"dimensions": 3, "widths": [8, 16, 32, 64], "strides": [[1, 1, 2], [1, 2, 2], [2, 2, 2]]},
        {"dimensions": 3, "widths": [4, 16, 64], "strides": [[1, 1, 2], [1, 1, 2]], "upsampling": "nearest"},
        {"preset": "zhang2018_projected", "widths": [8, 16, 32]},
        {"preset": "cicek2016", "widths": [8, 16, 32]},
        {"preset": "chen2016"},
        {"preset": "chen2016", "widths": [2, 3, 4, 5], "norm": "batch", "slices": 3},
    ],
    ids=str,
)
def test_memory_of_a_forward_pass_is_an_upper_estimate(network):
    """Everything that is alive after any operation of a real forward pass, beside the weights."""
    whole = networks.resolved(network)
    size = [2 * n for n in networks.size_factor(network)][-whole["dimensions"] :]
    made = networks.build(network, seed=0).eval()
    with torch.no_grad(), _LiveBytes() as live:
        made(torch.zeros(2, whole["slices"], *size))
    assert live.peak <= networks.activation_bytes(network) * 2 * math.prod(size)
