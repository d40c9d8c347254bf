"""Networks see as far as they say, start equal from equal seeds, and have the size they are known by."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from voxloom import networks
from voxloom.errors import ModelError


def settings(**changes):
    return {
        "name": "unet",
        "dimensions": 2,
        "widths": [4, 8, 16],
        "slices": 1,
        "slice_step": 1,
        "batch_norm": True,
        **changes,
    }


@pytest.mark.parametrize("batch_norm", [True, False])
def test_the_weights_file_of_the_published_network_has_1_9_mb(tmp_path, batch_norm):
    network = networks.build(settings(widths=[32, 64, 128], batch_norm=batch_norm), seed=0)
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    assert 1.8e6 < (tmp_path / "weights.safetensors").stat().st_size < 1.95e6


@pytest.mark.parametrize(
    ("changes", "shape"),
    [
        ({"widths": [3, 5]}, (1, 64, 64)),
        ({"widths": [2, 3, 4]}, (1, 96, 96)),
        ({"widths": [2, 2, 2, 2], "slices": 3}, (3, 160, 160)),
        ({"widths": [2, 3], "dimensions": 3}, (24, 24, 24)),
    ],
)
def test_the_receptive_field_is_as_wide_as_said_and_no_wider(changes, shape):
    """A gradient flows from an output voxel to exactly the voxels that it depends on; every weight is positive."""
    description = settings(batch_norm=False, **changes)
    network = networks.build(description, seed=0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_().add_(0.01)
    reach = networks.receptive_field(description)
    factor = network.factor
    seen = 0
    for place in range(factor):
        x = torch.ones((1, *shape) if description["dimensions"] == 2 else (1, 1, *shape), requires_grad=True)
        # where voxels tie, pooling sends the gradient to the first; a slope along x decides otherwise for half the runs
        for slope in (torch.linspace(0, 1, shape[-1]), torch.linspace(1, 0, shape[-1])):
            centre = shape[-1] // 2 // factor * factor + place
            (gradient,) = torch.autograd.grad(network(x + slope)[..., centre].sum(), x)
            touched = torch.nonzero(gradient.reshape(-1, shape[-1]).abs().sum(0)).flatten()
            seen = max(seen, centre - int(touched.min()), int(touched.max()) - centre)
    assert seen == reach[2]
    assert reach[1] == reach[2]
    assert reach[0] == (reach[2] if description["dimensions"] == 3 else description["slices"] // 2)


def test_a_change_beyond_the_receptive_field_changes_nothing():
    description = settings(slices=3)
    network = networks.build(description, seed=1).eval()
    x = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    reach = networks.receptive_field(description)[2]
    changed = x.clone()
    changed[..., : 48 - reach] += 10
    with torch.no_grad():
        assert torch.equal(network(x)[..., 48:], network(changed)[..., 48:])
        assert not torch.equal(network(x)[..., 44:48], network(changed)[..., 44:48])


def test_scaled_slices_widen_the_receptive_field_in_the_volume():
    model = {"network": settings(), "input": {"size": [400, 400]}}
    assert networks.native_reach({**model, "input": {"size": None}}, (1000, 1000)) == (0, 23, 23)
    z, y, x = networks.native_reach(model, (1000, 400))
    assert z == 0
    assert y >= 23 * 2.5 + 2.5
    assert 23 <= x <= 27


def test_equal_seeds_give_equal_weights_and_others_don_t():
    first, again, other = (networks.build(settings(), seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["down.0.0.weight"], other["down.0.0.weight"])


def test_signals_keep_their_size_through_a_deep_network_at_the_start():
    network = networks.build(settings(widths=[16, 32, 64, 128], batch_norm=False), seed=0)
    x = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert 0.2 < float(network(x).std()) < 5


def test_both_ways_of_halving_agree_in_value_and_gradient():
    x = torch.randn(2, 3, 4, 6, 8, generator=torch.Generator().manual_seed(0))
    results = []
    for halve in (networks.halve, networks._halve_by_maximum):
        leaf = x.clone().requires_grad_()
        halved = halve(leaf)
        (halved**2).sum().backward()
        results.append((halved.detach(), leaf.grad))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_an_unknown_network_lists_the_known_ones():
    with pytest.raises(ModelError, match="one of unet, got 'vnet'"):
        networks.build(settings(name="vnet"), seed=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"slices": 4}, "must be odd.*set 5"),
        ({"slices": 3, "dimensions": 3}, "for 2 dimensions; set it to 1"),
        ({"dimensions": 4}, "must be 2 or 3"),
    ],
)
def test_keys_that_don_t_fit_are_refused(changes, message):
    with pytest.raises(ModelError, match=message):
        networks.build(settings(**changes), seed=0)


def test_sizes_that_can_t_be_pooled_are_refused():
    with pytest.raises(ModelError, match="multiples of 4"):
        networks.build(settings(), seed=0)(torch.zeros(1, 1, 30, 32))


def test_parameter_counts_are_the_published_ones(golden):
    reference = np.load(golden / "networks.npz")
    counts = dict(zip(reference["counts_names"].tolist(), reference["counts_values"].tolist(), strict=True))
    for name, batch_norm in (("nobn", False), ("bn", True)):
        network = networks.build(settings(widths=[32, 64, 128], batch_norm=batch_norm), seed=0)
        parameters = sum(parameter.numel() for parameter in network.parameters())
        assert parameters == counts[f"shallow_unet_b32_convT_{name}_1in_1out"]
    assert parameters == 467_233
