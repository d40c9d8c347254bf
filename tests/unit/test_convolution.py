"""The 3-D convolution against PyTorch's own, on both sides of where PyTorch changes its way."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from voxloom import networks
from voxloom.convolution import Conv3d


class Names(TorchDispatchMode):
    """The names of all operations."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append(func.__name__)
        return func(*args, **(kwargs or {}))


def pair(**options):
    """Ours and PyTorch's, with equal weights."""
    torch.manual_seed(0)
    ours, theirs = Conv3d(3, 4, **options), nn.Conv3d(3, 4, **options)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": (1, 3, 3), "padding": (0, 1, 1), "stride": (1, 2, 2), "bias": False},
        {"kernel_size": 1},
        {"kernel_size": 3, "padding": "same"},
        {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
    ],
    ids=str,
)
@pytest.mark.parametrize("shape", [(1, 3, 6, 10, 8), (2, 3, 6, 10, 8), (1, 3, 88, 88, 4)], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d], ids=str)
def test_result_and_gradients_are_those_of_pytorch(options, shape, layout):
    ours, theirs = pair(**options)
    x = torch.randn(shape).contiguous(memory_format=layout)
    results = {}
    for name, module in {"ours": ours, "theirs": theirs}.items():
        given = x.clone().requires_grad_(True)
        y = module.to(memory_format=layout)(given)
        (y**2).sum().backward()
        results[name] = [y.detach(), given.grad, *(each.grad for each in module.parameters())]
    for mine, other in zip(results["ours"], results["theirs"], strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))


def names(module, x):
    with torch.inference_mode(), Names() as names:
        module(x)
    return names.seen


def chosen_by_pytorch(module, x):
    options = (module.stride, module.padding, module.dilation, False, (0, 0, 0), module.groups)
    return str(torch._C._select_conv_backend(x, module.weight, None, *options, [module.out_channels]))


def test_small_input_is_not_unfolded():
    """PyTorch's own way copies the neighbourhood of every voxel; this one must not."""
    ours, theirs = pair(kernel_size=3, padding=1)
    small, large = torch.randn(1, 3, 8, 8, 8), torch.randn(1, 3, 88, 88, 4)
    assert names(ours, small) == names(ours, large) == ["mkldnn_convolution.default"]
    assert chosen_by_pytorch(theirs, large) == "_ConvBackend.Mkldnn"
    assert chosen_by_pytorch(theirs, small) == "_ConvBackend.Slow3d", "PyTorch chooses otherwise: is Conv3d needed?"


def test_kernels_of_1_are_a_matrix_product_where_channels_lie_apart():
    ours, _ = pair(kernel_size=1)
    x = torch.randn(1, 3, 8, 8, 8)
    assert names(ours, x) == ["conv3d.default"]
    assert names(ours, x.contiguous(memory_format=torch.channels_last_3d)) == ["mkldnn_convolution.default"]


def test_one_sample_without_its_axis():
    ours, theirs = pair(kernel_size=3, padding=1)
    x = torch.randn(3, 8, 8, 8)
    with torch.inference_mode():
        assert torch.equal(ours(x), theirs(x))


def test_low_precision_is_left_to_autocast():
    ours, theirs = pair(kernel_size=3, padding=1)
    x = torch.randn(1, 3, 8, 8, 8)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        mine, other = ours(x), theirs(x)
    assert mine.dtype == other.dtype == torch.bfloat16
    assert torch.equal(mine, other)


def test_every_3d_network_has_it():
    """Any plain one that is left would take several times as long and as much memory in small tiles."""
    for keys in ({"preset": "unet3d_8"}, {"dimensions": 3, "widths": [4, 8], "residual": True}):
        found = [each for each in networks.build(keys, seed=0).modules() if isinstance(each, nn.Conv3d)]
        assert found
        assert all(isinstance(each, Conv3d) for each in found)
