"""The registry of networks, from voxels to a foreground logit, and their random weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from voxloom.contextual import Branch, ContextualNetwork
from voxloom.errors import ModelError
from voxloom.network_memory import activation_bytes
from voxloom.network_reach import branches, native_reach, receptive_field, size_factor, slices_beside
from voxloom.network_settings import SHALLOW, problems, resolved
from voxloom.unet import ChannelDropout, UNet

__all__ = [
    "NETWORKS",
    "activation_bytes",
    "branches",
    "build",
    "check",
    "construct",
    "draw_dropout",
    "initialise",
    "native_reach",
    "receptive_field",
    "resolved",
    "size_factor",
    "slices_beside",
]

NETWORKS: dict[str, Callable[..., nn.Module]] = {"contextual": ContextualNetwork, "unet": UNet}
"""Constructors by name: take in_channels, out_channels and the structural keys of `network_settings.SHALLOW`.

A new one is an entry here, one in `network_reach.SEEN` and in `network_memory.HELD`, and its presets in
`network_settings.PRESETS`.
"""

LINEAR_PARTS = frozenset({"up", "head", "coarse_heads", "shortcut"})
"""Names of modules whose convolutions are not followed by a ReLU."""


def build(network: Mapping[str, Any], *, seed: int) -> nn.Module:
    """Make a network with random weights, for one foreground logit a voxel.

    Parameters
    ----------
    network : mapping
        The keys under ``network`` of a model; what is null or left out is the preset's.
    seed : int
        Equal seeds give equal weights; see `initialise`.

    Returns
    -------
    network : torch.nn.Module

    Raises
    ------
    ModelError
        If the name is unknown or the keys don't fit together.
    """
    made = _constructed(network)
    initialise(made, seed=seed)
    return made


def shapes(network: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shapes of a network's tensors, without their memory.

    Parameters
    ----------
    network : mapping
        See `build`.

    Returns
    -------
    shapes : dict of str to tuple of int
        By the tensors' names.

    Raises
    ------
    ModelError
        As `build`.
    """
    with torch.device("meta"):
        made = _constructed(network)
    return {name: tuple(tensor.shape) for name, tensor in made.state_dict().items()}


def _constructed(network: Mapping[str, Any]) -> nn.Module:
    check(network)
    return construct(network, in_channels=resolved(network)["slices"], out_channels=1)


def construct(network: Mapping[str, Any], *, in_channels: int, out_channels: int) -> nn.Module:
    """Make a network with PyTorch's own first weights.

    Parameters
    ----------
    network : mapping
        The keys under ``network`` of a model, checked; what is null or left out is the preset's.
    in_channels, out_channels : int

    Returns
    -------
    network : torch.nn.Module
    """
    whole = resolved(network)
    structure = {key: whole[key] for key in SHALLOW if key != "name"}
    return NETWORKS[whole["name"]](in_channels=in_channels, out_channels=out_channels, **structure)


def initialise(network: nn.Module, *, seed: int) -> None:
    """Draw random weights.

    Parameters
    ----------
    network : torch.nn.Module
        Modified.
    seed : int
        Equal seeds give equal weights. Convolutions before a ReLU are initialised after He et al. [1]_, those of
        `LINEAR_PARTS` with unit gain; biases are zero. How a branch begins says `contextual.Branch.initialise`.

    References
    ----------
    .. [1] He, Zhang, Ren, Sun (2015). ICCV, Delving deep into rectifiers.
    """
    generator = torch.Generator().manual_seed(seed)
    transposed = (nn.ConvTranspose2d, nn.ConvTranspose3d)
    with torch.no_grad():
        for name, module in network.named_modules():
            if isinstance(module, (nn.Conv2d, nn.Conv3d, *transposed)):
                # a transposed convolution whose kernel is its stride makes every voxel of one, a wider one of several
                spread = math.prod(module.stride) if isinstance(module, transposed) else 1
                fan_in = module.in_channels * math.prod(module.kernel_size) // spread
                gain = 1.0 if LINEAR_PARTS & set(name.split(".")) else 2.0
                module.weight.normal_(0.0, math.sqrt(gain / fan_in), generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
    for module in network.modules():
        if isinstance(module, Branch):
            module.initialise(generator)


def draw_dropout(network: nn.Module, *, samples: int, generator: torch.Generator, share: slice = slice(None)) -> None:
    """Choose the channels that a network with dropout lacks while it learns the next batches.

    Parameters
    ----------
    network : torch.nn.Module
    samples : int
        In a batch.
    generator : torch.Generator
        On the CPU.
    share : slice
        Samples of the batch that this process sees.
    """
    for module in network.modules():
        if isinstance(module, ChannelDropout):
            module.draw(samples, generator, share)


def check(network: Mapping[str, Any]) -> None:
    """Refuse keys under ``network`` of a model that don't fit together.

    Parameters
    ----------
    network : mapping

    Raises
    ------
    ModelError
        If the name is unknown, or for the first of `network_settings.problems`.
    """
    name = resolved(network)["name"]
    if name not in NETWORKS:
        raise ModelError(f"network.name must be one of {', '.join(sorted(NETWORKS))}, got {name!r}")
    for problem in problems(network):
        raise ModelError(problem)


def parameters(network: nn.Module) -> int:
    """Numbers that a network learns.

    Parameters
    ----------
    network : torch.nn.Module

    Returns
    -------
    count : int
    """
    return sum(weights.numel() for weights in network.parameters())
