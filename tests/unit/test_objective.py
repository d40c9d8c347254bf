"""Every scale of a network's outputs counts, with the labels of its own voxels."""

import pytest
import torch

from voxloom import losses
from voxloom.objective import objective


def test_scales_are_weighted_by_halves_and_labels_are_every_second_voxel():
    torch.manual_seed(0)
    mask = (torch.rand(2, 1, 8, 8) > 0.5).float()
    ignore = torch.rand(2, 1, 8, 8) > 0.8
    outputs = [torch.randn(2, 1, size, size) for size in (8, 4, 2)]
    loss = losses.named("bce")
    expected = sum(
        weight * loss(output, mask[..., ::every, ::every], ignore[..., ::every, ::every], positive_weight=1.0)
        for weight, output, every in zip((4 / 7, 2 / 7, 1 / 7), outputs, (1, 2, 4), strict=True)
    )
    value = objective(outputs, mask, ignore, loss=loss, positive_weight=1.0)
    assert float(value) == pytest.approx(float(expected), rel=1e-6)


def test_a_single_output_is_the_plain_loss():
    mask, ignore, output = torch.ones(1, 1, 4, 4), torch.zeros(1, 1, 4, 4, dtype=torch.bool), torch.randn(1, 1, 4, 4)
    loss = losses.named("bce_dice")
    plain = loss(output, mask, ignore, positive_weight=2.0)
    assert float(objective(output, mask, ignore, loss=loss, positive_weight=2.0)) == float(plain)
