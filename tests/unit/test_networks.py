"""Networks see as far as they say, start equal from equal seeds, and have the size they are known by."""

import hashlib

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from voxloom import network_memory, network_reach, network_settings, networks, unet
from voxloom.errors import ModelError


def settings(**changes):
    return {"name": "unet", "dimensions": 2, "widths": [4, 8, 16], "slices": 1, "slice_step": 1, **changes}


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_the_weights_file_of_the_published_network_has_1_9_mb(tmp_path, norm):
    network = networks.build(settings(widths=[32, 64, 128], norm=norm), seed=0)
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    assert 1.8e6 < (tmp_path / "weights.safetensors").stat().st_size < 1.95e6


ANISOTROPIC = {"strides": [[1, 2, 2], [2, 2, 2]], "kernels": [[1, 3, 3], [3, 3, 3], [3, 3, 5]]}


@pytest.mark.parametrize(
    "changes",
    [
        {"widths": [3, 5]},
        {"widths": [2, 3, 4], "upsampling": "nearest"},
        {"widths": [2, 2, 2, 2], "slices": 3},
        {"widths": [2, 3], "dimensions": 3},
        {"widths": [2, 4, 4], "dimensions": 3, **ANISOTROPIC, "upsampling": "transposed_wide", "late_widening": True},
        {"widths": [2, 3, 4], "kernels": [[1, 5, 3], [1, 3, 3], [1, 1, 3]], "strides": [[1, 3, 2], [1, 2, 4]]},
        {"widths": [2, 3], "convolutions": 3},
        {"widths": [2, 2, 2, 2], "convolutions": 1},
        {"widths": [2, 3, 4], "residual": True},
        {"widths": [2, 3], "dimensions": 3, "residual": True, "convolutions": 1},
        {"widths": [2, 3, 3], "dimensions": 3, **ANISOTROPIC, "residual": True, "convolutions": 3},
        {"widths": [2, 3, 2], "strides": [[1, 3, 1], [1, 2, 3]], "residual": True, "shortcut": "padding"},
        {"name": "contextual", "widths": [2, 2, 2, 2], "slices": 3},
        {"name": "contextual", "widths": [2, 3]},
    ],
    ids=str,
)
def test_the_receptive_field_is_as_wide_as_said_and_no_wider(changes):
    """A gradient flows from an output voxel to exactly the voxels that it depends on; every weight is positive."""
    description = settings(norm="none", **changes)
    network = networks.build(description, seed=0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_().add_(0.01)
        for branch in getattr(network, "branches", ()):  # so that the classes' difference takes nothing away
            branch.head.weight[0].zero_()
    reach = networks.receptive_field(description)
    if description["dimensions"] == 2:
        assert reach[0] == description["slices"] // 2
    for axis in range(3 - description["dimensions"], 3):
        assert farthest_seen(network, description, axis) == reach[axis]


def farthest_seen(network, description, axis):
    """By gradients, from every place in the pooling grid along an axis (Z, Y, X) of a box that is long along it."""
    factor, reach = networks.size_factor(description), networks.receptive_field(description)
    dimensions = description["dimensions"]
    shape = list(factor[-dimensions:])
    long = axis - 3  # counted from the end
    middle = -(-(reach[axis] + 2) // factor[axis]) * factor[axis]
    shape[long] = 2 * middle + factor[axis]
    seen = 0
    for place in range(factor[axis]):
        x = torch.ones((1, description["slices"], *shape), requires_grad=True)
        # where voxels tie, pooling sends the gradient to the first; a slope decides otherwise for half the runs
        for slope in (torch.linspace(0, 1, shape[long]), torch.linspace(1, 0, shape[long])):
            out = network(x + slope.reshape(-1, *(1,) * (-long - 1)))
            (gradient,) = torch.autograd.grad(out.movedim(long, 0)[middle + place].sum(), x)
            touched = torch.nonzero(gradient.movedim(long, 0).flatten(1).abs().sum(1)).flatten()
            seen = max(seen, middle + place - int(touched.min()), int(touched.max()) - middle - place)
    return seen


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
    network = networks.build(settings(widths=[16, 32, 64, 128], norm="none"), seed=0)
    x = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert 0.2 < float(network(x).std()) < 5


@pytest.mark.parametrize("stride", [(2, 2, 2), (1, 2, 2), (2, 3, 1)])
def test_both_ways_of_pooling_agree_in_value_and_gradient(stride):
    x = torch.randn(2, 3, 4, 6, 8, generator=torch.Generator().manual_seed(0))
    results = []
    for pool in (unet.pool, unet._pool_by_maximum):
        leaf = x.clone().requires_grad_()
        pooled = pool(leaf, stride)
        (pooled**2).sum().backward()
        results.append((pooled.detach(), leaf.grad))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_an_unknown_network_lists_the_known_ones():
    with pytest.raises(ModelError, match="one of contextual, unet, got 'vnet'"):
        networks.build(settings(name="vnet"), seed=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"slices": 4}, "slices is 4; use an odd number.*5 say"),
        ({"slices": 3, "dimensions": 3}, "slices is 3, which is for 2 dimensions.*use 1"),
        ({"dimensions": 4}, "dimensions must be one of 2, 3, got 4"),
        ({"norm": "layer"}, "norm must be one of batch, instance, group, none, got 'layer'"),
        ({"preset": "vgg"}, "preset must be one of shallow, .*got 'vgg'"),
        ({"strides": [[1, 2, 2]]}, "strides has 1 entries for 3 widths; give 2, one for each step"),
        ({"kernels": [[1, 3, 3]]}, "kernels has 1 entries for 3 widths; give 3, one a level"),
        ({"strides": [[1, 2, 2], [2, 2, 2]]}, r"strides\[1\] is \[2, 2, 2\]; .* has no Z, so begin with 1"),
        ({"kernels": [[1, 3, 3], [1, 2, 3], [1, 3, 3]]}, r"kernels\[1\] is \[1, 2, 3\]; use odd numbers"),
        ({"kernels": [[1, 3, 3], [3, 3], [1, 3, 3]]}, r"kernels\[1\] is \[3, 3\]; give three"),
        ({"dropout": 1.0}, "dropout is 1.0; use a share from 0 to below 1"),
        ({"late_widening": True, "convolutions": 1}, "late_widening is for two or more convolutions"),
        ({"batch_norm": True}, "batch_norm is not a key; it is norm: batch"),
        ({"width": [3]}, "width is not a key; known: preset"),
        ({"name": "contextual", "dimensions": 3}, "dimensions is 3, but the network contextual always has 2; remove"),
        ({"name": "contextual", "residual": True}, "residual is True, but the network contextual always has False"),
        ({"name": "contextual", "convolutions": 3}, "convolutions is 3, but .* contextual always has 2"),
        ({"name": "contextual", "upsampling": "nearest"}, "upsampling is nearest, but .* always has transposed; "),
        (
            {"name": "contextual", "strides": [[1, 2, 2], [1, 3, 3]]},
            r"strides is \[\[1, 2, 2\], \[1, 3, 3\]\], but .* contextual always has \[\[1, 2, 2\], \[1, 2, 2\]\]",
        ),
    ],
)
def test_keys_that_don_t_fit_are_refused(changes, message):
    with pytest.raises(ModelError, match=f"network.{message}"):
        networks.build(settings(**changes), seed=0)


def test_sizes_that_can_t_be_pooled_are_refused():
    with pytest.raises(ModelError, match=r"multiples of \(4, 2\), got \(30, 32\)"):
        networks.build(settings(strides=[[1, 2, 1], [1, 2, 2]]), seed=0)(torch.zeros(1, 1, 30, 32))


@pytest.mark.parametrize(
    ("changes", "digest"),
    [
        ({"widths": [32, 64, 128]}, "2e5fff4942b273dbef5796cd5fe044657fd9f8a2fd22fccc8131356ac03cbf89"),
        (
            {"widths": [4, 8, 16, 32], "dimensions": 3},
            "bebf6f820b2cf858ed4a69c07efb844f44b3d2379dffe7166642d6967314c6e6",
        ),
        (
            {"widths": [32, 64, 128], "slices": 7, "norm": "none"},
            "12058b0bdfdc9cff282154d10cf191a2d7eca6f84cc10a78f74e286c37ade108",
        ),
    ],
)
def test_first_weights_are_those_of_the_first_version(changes, digest):
    found = hashlib.sha256()
    for name, tensor in networks.build(settings(**changes), seed=0).state_dict().items():
        found.update(name.encode() + tensor.numpy().tobytes())
    assert found.hexdigest() == digest


def test_null_takes_the_presets_value_and_an_explicit_key_wins():
    null = dict.fromkeys(network_settings.SHALLOW)
    whole = networks.resolved({"preset": "zhang2018", **null, "norm": "group", "slices": 3})
    assert (whole["widths"], whole["residual"], whole["norm"]) == ([64, 128, 256, 512], True, "group")
    assert whole["strides"] == [[1, 2, 2]] * 3
    assert networks.resolved(whole) == whole
    assert networks.resolved({}) == networks.resolved({"preset": "shallow"})


def test_every_network_of_the_registry_says_how_far_it_sees():
    assert networks.NETWORKS.keys() == network_reach.SEEN.keys() == network_memory.HELD.keys()


def test_a_deeply_supervised_network_returns_every_scale_in_training_only():
    description = settings(dimensions=3, strides=[[1, 2, 2], [2, 2, 2]], deep_supervision=True)
    network = networks.build(description, seed=0)
    x = torch.randn(2, 1, 4, 8, 12, generator=torch.Generator().manual_seed(0))
    fine, coarse = network.train()(x)
    assert (fine.shape, coarse.shape) == ((2, 1, 4, 8, 12), (2, 1, 4, 4, 6))
    plain = networks.build({**description, "deep_supervision": False}, seed=0)
    assert torch.equal(plain.train()(x), fine)
    assert network.eval()(x).shape == fine.shape
    (fine.sum() + coarse.sum()).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_dropout_is_what_was_drawn():
    network = networks.build(settings(dropout=0.5, norm="none"), seed=0).train()
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ModelError, match="dropout of 2 samples was not drawn; call networks.draw_dropout"):
        network(x)

    def drawn(seed):
        networks.draw_dropout(network, samples=2, generator=torch.Generator().manual_seed(seed))
        return network(x).detach()

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
    assert torch.equal(network.eval()(x), networks.build(settings(norm="none"), seed=0)(x))


def test_dropout_keeps_the_mean():
    dropout = unet.ChannelDropout(0.25, channels=4000)
    dropout.draw(2, torch.Generator().manual_seed(0))
    dropped = dropout(torch.ones(2, 4000, 1, 1))
    assert dropped.unique().tolist() == pytest.approx([0, 4 / 3])
    assert float(dropped.mean()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("norm", ["batch", "instance", "group", "none"])
@pytest.mark.parametrize("residual", [True, False])
def test_every_normalisation_learns_in_both_kinds_of_levels(norm, residual):
    """One step down the gradient lowers the loss, and the input stays as it was."""
    network = networks.build(settings(norm=norm, residual=residual), seed=0).train()
    x = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    before, truth = x.clone(), (x > 0.5).float()
    losses = []
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01)
    for _ in range(2):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(network(x), truth)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[1] < losses[0]
    assert torch.equal(x, before)


def test_residual_units_add_to_what_came_in():
    """With convolutions of zero only the shortcuts are left: the padded one keeps the input in the first channel."""
    unit = unet.ResidualUnit(
        [2, 4, 4], kernel=(3, 3), stride=(2, 1), norm="batch", dropout=0.0, shortcut="padding", is_raw=False
    )
    for parameter in unit.parameters():
        torch.nn.init.zeros_(parameter)
    x = torch.randn(1, 2, 6, 5)
    y = unit(x)
    assert torch.equal(y[:, :2], x[:, :, ::2])
    assert not y[:, 2:].any()


@pytest.fixture(scope="module")
def reference(golden):
    return np.load(golden / "networks.npz")


def parameters(network, *, kinds=torch.nn.Module):
    return sum(p.numel() for m in network.modules() if isinstance(m, kinds) for p in m.parameters(recurse=False))


BATCH_NORMS = (torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)
TRANSPOSED = (torch.nn.ConvTranspose2d, torch.nn.ConvTranspose3d)
COUNTS = [
    ("shallow_unet_b32_convT_bn_1in_1out", 1, {}),
    ("shallow_unet_b32_convT_nobn_1in_1out", 1, {"norm": "none"}),
    ("shallow_unet_b32_bilinear_nobn_1in_1out", 1, {"norm": "none", "upsampling": "nearest"}),
    ("shallow_unet_b32_bilinear_bn_1in_1out", 1, {"upsampling": "nearest"}),
    ("unet3d_m8_levels4_convs2_bn", 1, {"preset": "unet3d_8"}),
    ("unet3d_m16_levels4_convs2_bn", 1, {"preset": "unet3d_16"}),
    ("unet3d_m32_levels4_convs2_bn", 1, {"preset": "unet3d_32"}),
    ("unet3d_m8_levels3_convs2_bn", 1, {"preset": "unet3d_8", "widths": [8, 16, 32, 64]}),
    ("unet3d_m16_levels3_convs2_bn", 1, {"preset": "unet3d_16", "widths": [16, 32, 64, 128]}),
    ("unet3d_m32_levels3_convs2_bn", 1, {"preset": "unet3d_32", "widths": [32, 64, 128, 256]}),
    ("resunet2d_skip1x1_bn_interp", 3, {"preset": "zhang2018_projected"}),
    ("resunet2d_skip1x1_bn_convT", 3, {"preset": "zhang2018_projected", "upsampling": "transposed_wide"}),
    (
        "resunet3d_skip1_bn_convT_f32_64_128_256_1ch",
        1,
        {
            "preset": "zhang2018_projected",
            "dimensions": 3,
            "widths": [32, 64, 128, 256],
            "upsampling": "transposed_wide",
        },
    ),
    ("cumedvision_1ch_2cls_nobn", 1, {"preset": "chen2016"}),
    ("cumedvision_1ch_2cls_bn", 1, {"preset": "chen2016", "norm": "batch"}),
    ("cumedvision_3ch_2cls_nobn", 3, {"preset": "chen2016", "deep_supervision": False}),
]


@pytest.mark.parametrize(("name", "in_channels", "description"), COUNTS)
def test_parameter_counts_are_the_published_ones(reference, name, in_channels, description):
    counts = dict(zip(reference["counts_names"].tolist(), reference["counts_values"].tolist(), strict=True))
    network = networks.construct(description, in_channels=in_channels, out_channels=1)
    assert parameters(network) == counts[name]


def test_cicek_2016_has_the_19_069_955_parameters_of_its_paper():
    """Three channels and classes; without those of normalisation and the biases of the transposed convolutions."""
    network = networks.construct({"preset": "cicek2016"}, in_channels=3, out_channels=3)
    biases = sum(module.bias.numel() for module in network.modules() if isinstance(module, TRANSPOSED))
    assert parameters(network) - parameters(network, kinds=BATCH_NORMS) - biases == 19_069_955


def test_ronneberger_2015_has_the_31_million_parameters_of_its_drawing():
    """Its 23 convolutions, counted from the figure's channels, with two classes."""
    convolutions = [(1, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512)]
    convolutions += [(512, 1024), (1024, 1024), (1024, 512), (512, 512), (512, 256), (256, 256), (256, 128)]
    convolutions += [(128, 128), (128, 64), (64, 64)]
    upward = [(1024, 512), (512, 256), (256, 128), (128, 64)]
    expected = sum(9 * a * b + b for a, b in convolutions) + sum(4 * a * b + b for a, b in upward) + 2 * 64 + 2
    assert expected == 31_030_658
    network = networks.construct({"preset": "ronneberger2015"}, in_channels=1, out_channels=2)
    assert parameters(network) == expected


def test_zhang_2018_has_7_8_million_parameters_and_8_22_with_projections():
    padded, projected = (
        parameters(networks.construct({"preset": preset}, in_channels=3, out_channels=1))
        for preset in ("zhang2018", "zhang2018_projected")
    )
    assert (round(padded / 1e6, 1), round(projected / 1e6, 2)) == (7.8, 8.22)


@pytest.mark.parametrize(
    ("name", "description"),
    [
        ("unet3d_m2", {"dimensions": 3, "widths": [2, 4, 8, 16, 32]}),
        ("unet2d_m2", {"widths": [2, 4, 8], "convolutions": 1, "norm": "none"}),
    ],
)
def test_outputs_are_those_of_the_reference_unet(reference, name, description):
    network = networks.construct(description, in_channels=1, out_channels=1)
    ours = list(network.state_dict())
    theirs = [key for key in reference.files if key.startswith(f"{name}::")]
    # theirs goes up one level after the other, ours first lists all enlargements
    ups = [key for key in theirs if "upsampling" in key]
    at = theirs.index(ups[0])
    theirs = theirs[:at] + ups + [key for key in theirs[at:] if key not in ups]
    weights = {own: torch.from_numpy(reference[key]) for own, key in zip(ours, theirs, strict=True)}
    network.load_state_dict(weights)
    with torch.no_grad():
        found = torch.relu(network.eval()(torch.from_numpy(reference[f"{name}_in0"])))
    np.testing.assert_allclose(found.numpy(), reference[f"{name}_out"], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("name", "channels", "stride"), [("s2", [3, 5, 5], (2, 2)), ("s1", [5, 3, 3], (1, 1))])
def test_outputs_are_those_of_the_reference_residual_unit(reference, name, channels, stride):
    unit = unet.ResidualUnit(
        channels,
        kernel=(3, 3),
        stride=stride,
        norm="batch",
        dropout=0.0,
        shortcut="projection",
        is_raw=False,
        shortcut_kernel=3,
    )
    begin = f"resconv2d_{name}::"
    weights = {
        key.removeprefix(begin).replace("conv_block", "layers").replace("conv_skip", "shortcut"): reference[key]
        for key in reference.files
        if key.startswith(begin)
    }
    unit.load_state_dict({key: torch.from_numpy(array) for key, array in weights.items()})
    with torch.no_grad():
        found = unit.eval()(torch.from_numpy(reference[f"resconv2d_{name}_in0"]))
    np.testing.assert_allclose(found.numpy(), reference[f"resconv2d_{name}_out"], atol=1e-5, rtol=1e-4)
