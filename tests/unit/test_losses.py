"""Losses are what a plain loop says, and what nobody annotated counts for nothing."""

import math

import numpy as np
import pytest
import torch

from voxloom import losses
from voxloom.errors import ModelError


def example(seed=0):
    rng = np.random.default_rng(seed)
    logits = torch.tensor(rng.normal(0, 2, (2, 1, 3, 4)), dtype=torch.float32)
    mask = torch.tensor(rng.integers(0, 2, (2, 1, 3, 4)), dtype=torch.float32)
    ignore = torch.tensor(rng.random((2, 1, 3, 4)) < 0.3)
    return logits, mask, ignore


def by_loop(name, logits, mask, ignore, weight):
    entropy, voxels, overlap, predicted, true = 0.0, 0, 0.0, 0.0, 0.0
    for z, y, skip in zip(logits.flatten().tolist(), mask.flatten().tolist(), ignore.flatten().tolist(), strict=True):
        if skip:
            continue
        p = 1 / (1 + math.exp(-z))
        entropy -= weight * y * math.log(p) + (1 - y) * math.log(1 - p)
        voxels += 1
        overlap, predicted, true = overlap + p * y, predicted + p, true + y
    value = entropy / voxels
    return value + 1 - (2 * overlap + 1) / (predicted + true + 1) if name == "bce_dice" else value


@pytest.mark.parametrize("name", sorted(losses.LOSSES))
@pytest.mark.parametrize("weight", [1.0, 7.5])
def test_equals_a_plain_loop(name, weight):
    logits, mask, ignore = example()
    value = losses.named(name)(logits, mask, ignore, positive_weight=weight)
    assert value.item() == pytest.approx(by_loop(name, logits, mask, ignore, weight), rel=1e-5)


@pytest.mark.parametrize("name", sorted(losses.LOSSES))
def test_ignored_voxels_contribute_nothing(name):
    logits, mask, ignore = example()
    logits.requires_grad_()
    value = losses.named(name)(logits, mask, ignore, positive_weight=2.0)
    (gradient,) = torch.autograd.grad(value, logits)
    assert (gradient[ignore] == 0).all()
    assert (gradient[~ignore] != 0).all()
    relabelled = losses.named(name)(logits, torch.where(ignore, 1 - mask, mask), ignore, positive_weight=2.0)
    everywhere = losses.named(name)(logits, mask, torch.zeros_like(ignore), positive_weight=2.0)
    assert torch.equal(relabelled, value)
    assert not torch.equal(everywhere, value)


@pytest.mark.parametrize("name", sorted(losses.LOSSES))
def test_nothing_annotated_is_no_loss_and_no_gradient(name):
    logits, mask, ignore = example()
    logits.requires_grad_()
    value = losses.named(name)(logits, mask, torch.ones_like(ignore), positive_weight=1.0)
    (gradient,) = torch.autograd.grad(value, logits)
    assert value.item() == 0
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("name", sorted(losses.LOSSES))
def test_a_volume_by_parts_has_the_loss_of_the_whole(name):
    logits, mask, ignore = example()
    loss = losses.named(name)
    parts = sum(loss.sums(logits[k], mask[k], ignore[k], 3.0) for k in range(2))
    assert float(loss.value(parts)) == pytest.approx(float(loss(logits, mask, ignore, positive_weight=3.0)), rel=1e-6)


def test_a_weight_acts_once():
    """One foreground voxel at logit 0 costs ln 2, so weight times ln 2."""
    one = torch.zeros(1)
    value = losses.named("bce")(one, torch.ones(1), torch.zeros(1, dtype=torch.bool), positive_weight=5.0)
    assert value.item() == pytest.approx(5 * math.log(2))


@pytest.mark.parametrize("name", sorted(losses.LOSSES))
def test_extreme_logits_stay_finite(name):
    logits = torch.tensor([1e4, -1e4], requires_grad=True)
    value = losses.named(name)(logits, torch.tensor([0.0, 1.0]), torch.tensor([False, False]), positive_weight=1.0)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(logits.grad).all()


def test_an_unknown_loss_lists_the_known_ones():
    with pytest.raises(ModelError, match="one of bce, bce_dice, got 'mse'"):
        losses.named("mse")
