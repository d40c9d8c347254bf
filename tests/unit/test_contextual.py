"""The deep contextual network has the published shapes, and its branches are those that it says it adds up."""

import pytest
import torch

from voxloom import networks
from voxloom.errors import ModelError


def narrow(**changes):
    return {"preset": "chen2016", "widths": [4, 6, 8, 10], "slices": 1, "slice_step": 1, **changes}


def image(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_480_x_480_pixels_make_three_maps_of_two_classes():
    with torch.device("meta"):
        network = networks.construct({"preset": "chen2016"}, in_channels=1, out_channels=1).eval()
        x = torch.empty(1, 1, 480, 480)
    assert [tuple(scores.shape) for scores in network.scores(x)] == [(1, 2, 480, 480)] * 3
    assert tuple(network(x).shape) == (1, 1, 480, 480)


def test_it_has_16_convolutions_3_poolings_and_3_transposed_convolutions():
    with torch.device("meta"):
        network = networks.construct({"preset": "chen2016"}, in_channels=1, out_channels=1)
    convolutions = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)]
    up = [module for module in network.modules() if isinstance(module, torch.nn.ConvTranspose2d)]
    assert len(convolutions) == 16
    assert [(m.kernel_size[0], m.stride[0], m.padding[0]) for m in up] == [(4, 2, 1), (8, 4, 2), (16, 8, 4)]
    assert [module.in_channels for module in up] == [128, 256, 512]
    assert network.factor == 2**3


def test_the_sigmoid_of_its_logit_is_the_softmax_of_the_added_branches():
    network = networks.build(narrow(), seed=1).train()
    x = image(2, 1, 16, 24)
    fused, *auxiliary = network(x)
    scores = network.scores(x)
    torch.testing.assert_close(torch.sigmoid(fused[:, 0]), torch.softmax(sum(scores), dim=1)[:, 1])
    for logit, own in zip(auxiliary, scores, strict=True):
        torch.testing.assert_close(torch.sigmoid(logit[:, 0]), torch.softmax(own, dim=1)[:, 1])
    torch.testing.assert_close(sum(auxiliary), fused)
    assert torch.equal(network.eval()(x), fused)


def test_without_auxiliary_classifiers_only_the_sum_is_learnt_from():
    whole, fused_only = (networks.build(narrow(deep_supervision=on), seed=1).train() for on in (True, False))
    x = image(1, 1, 8, 8)
    assert torch.equal(whole(x)[0], fused_only(x))
    assert whole.state_dict().keys() == fused_only.state_dict().keys()


def test_several_classes_have_a_logit_each():
    network = networks.construct(narrow(), in_channels=2, out_channels=3).eval()
    assert tuple(network(image(1, 2, 8, 16)).shape) == (1, 3, 8, 16)


def test_sizes_that_are_no_multiples_of_8_are_refused():
    with pytest.raises(ModelError, match=r"multiples of 8, got \(12, 16\); pad first"):
        networks.build(narrow(), seed=0)(torch.zeros(1, 1, 12, 16))


def test_every_branch_sees_as_far_as_it_says():
    """By gradients, from every place of the pooling grid; every weight is positive."""
    network = networks.build(narrow(), seed=0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_().add_(0.01)
    middle, seen = 64, [0, 0, 0]
    for place in range(middle, middle + 8):
        for slope in (1, -1):  # where voxels tie, pooling sends the gradient to the first
            x = (1 + slope * torch.linspace(0, 0.5, 136)).expand(1, 1, 8, 136).contiguous().requires_grad_()
            for branch, scores in enumerate(network.scores(x)):
                (gradient,) = torch.autograd.grad(scores[..., place].sum(), x, retain_graph=True)
                touched = torch.nonzero(gradient.abs().sum(dim=(0, 1, 2))).flatten()
                seen[branch] = max(seen[branch], place - int(touched.min()), int(touched.max()) - place)
    assert [(0, far, far) for far in seen] == networks.branches(narrow())
    assert networks.branches({"preset": "shallow"}) == []


@pytest.mark.parametrize("seed", range(6))
def test_no_branch_begins_dead(seed):
    """Two channels before a ReLU would often be shut for good; every branch's weights get a gradient."""
    network = networks.build(narrow(widths=[8, 8, 8, 8]), seed=seed).train()
    _, *auxiliary = network(image(1, 1, 32, 32))
    for logits, branch in zip(auxiliary, network.branches, strict=True):
        assert logits.std() > 0
        (gradient,) = torch.autograd.grad(logits.square().sum(), branch.up.weight, retain_graph=True)
        assert gradient.abs().sum() > 0


def test_transposed_convolutions_begin_as_linear_interpolation():
    """Of a constant they make a constant, away from the border; classes sum to zero."""
    for branch in networks.build(narrow(), seed=3).branches:
        channels, edge = branch.up.in_channels, branch.up.stride[0]
        enlarged = branch.up(torch.ones(1, channels, 6, 6)).detach()
        inner = enlarged[..., 2 * edge : -2 * edge, 2 * edge : -2 * edge]
        torch.testing.assert_close(inner, inner[..., :1, :1].expand_as(inner))
        torch.testing.assert_close(enlarged.sum(dim=1), torch.zeros_like(enlarged[:, 0]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("norm", ["none", "batch", "instance", "group"])
def test_a_step_down_the_gradient_lowers_the_loss(norm):
    network = networks.build(narrow(norm=norm), seed=0).train()
    x = image(2, 1, 32, 32)
    truth, losses = (x > 0.5).float(), []
    optimiser = torch.optim.SGD(network.parameters(), lr=0.02)
    for _ in range(2):
        loss = sum(torch.nn.functional.binary_cross_entropy_with_logits(logits, truth) for logits in network(x))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[1] < losses[0]
    assert all(parameter.grad is not None for parameter in network.parameters())
