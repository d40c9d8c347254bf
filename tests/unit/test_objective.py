"""Every scale of a network's outputs counts, with the labels of its own voxels."""

import pytest
import torch

from voxloom import losses, networks
from voxloom.objective import auxiliary_weight, objective


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


def decay(**changes):
    return {"auxiliary": {"start": 1.0, "factor": 0.1, "every_steps": 10, "floor": 0.01, **changes}}


def test_auxiliary_outputs_are_added_with_their_weight():
    torch.manual_seed(0)
    mask, ignore = (torch.rand(2, 1, 8, 8) > 0.5).float(), torch.rand(2, 1, 8, 8) > 0.8
    outputs = [torch.randn(2, 1, 8, 8) for _ in range(4)]
    loss = losses.named("bce")
    own, *others = (float(loss(output, mask, ignore, positive_weight=1.0)) for output in outputs)
    value = objective(outputs, mask, ignore, loss=loss, positive_weight=1.0, auxiliary_weight=0.3)
    assert float(value) == pytest.approx(own + 0.3 * sum(others), rel=1e-6)
    alone = objective(outputs[0], mask, ignore, loss=loss, positive_weight=1.0, auxiliary_weight=0.3)
    assert float(alone) == pytest.approx(own, rel=1e-6)


def test_the_weight_of_auxiliary_outputs_falls_by_steps_to_exactly_nothing():
    weights = [auxiliary_weight(decay(), step=step) for step in (0, 9, 10, 19, 20, 10_000)]
    assert weights == [1.0, 1.0, 0.1, 0.1, 0.0, 0.0]
    assert auxiliary_weight(decay(floor=0.0), step=30) == pytest.approx(0.001)
    assert auxiliary_weight(decay(start=0.5, factor=1.0), step=10_000) == 0.5
    assert auxiliary_weight({"auxiliary": None}, step=0) is None
    assert auxiliary_weight({}, step=0) is None


@pytest.mark.parametrize(("step", "is_over"), [(19, False), (20, True)])
def test_at_the_floor_the_gradient_is_that_of_the_fused_output_alone(step, is_over):
    """To the last bit, and every weight still has one, which processes that train together exchange."""
    torch.manual_seed(0)
    image, mask, ignore = torch.randn(1, 1, 16, 16), (torch.rand(1, 1, 16, 16) > 0.5).float(), torch.zeros(1, 1, 16, 16)
    description = {"preset": "chen2016", "widths": [3, 4, 5, 6], "slices": 1}
    gradients = []
    for supervised in (True, False):
        network = networks.build({**description, "deep_supervision": supervised}, seed=0).train()
        outputs, weight = network(image), auxiliary_weight(decay(), step=step)
        if supervised:
            for output in outputs[1:]:
                output.retain_grad()
        loss = losses.named("bce")
        objective(outputs, mask, ignore.bool(), loss=loss, positive_weight=1.0, auxiliary_weight=weight).backward()
        if supervised:
            assert all(output.grad is not None and bool(output.grad.any()) != is_over for output in outputs[1:])
        gradients.append([parameter.grad for parameter in network.parameters()])
    same = [torch.equal(one, other) for one, other in zip(*gradients, strict=True)]
    assert all(same) == is_over


def test_coarser_levels_of_a_u_net_take_the_decaying_weight_too():
    torch.manual_seed(0)
    network = networks.build({"widths": [2, 3, 4], "deep_supervision": True, "slices": 1}, seed=0).train()
    mask, ignore = torch.ones(2, 1, 8, 8), torch.zeros(2, 1, 8, 8, dtype=torch.bool)
    outputs = network(torch.randn(2, 1, 8, 8))
    objective(outputs, mask, ignore, loss=losses.named("bce"), positive_weight=1.0, auxiliary_weight=0.0).backward()
    assert not any(parameter.grad.any() for parameter in network.coarse_heads.parameters())
    assert network.head.weight.grad.any()
