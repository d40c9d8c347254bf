"""What training a network costs, in arithmetic and memory, and what a machine can give."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from voxloom import devices, network_reach, networks

GFLOPS_PER_THREAD = {"float32": 60.0, "bfloat16": 180.0}
"""What a CPU thread is taken to do in training convolutions, in 1e9 operations a second: measured on server cores."""

GFLOPS = {"cuda": 20_000.0, "mps": 2_000.0}
"""What a GPU is taken to do; a small one of today, so that a plan made for it is no surprise on any other."""

MINUTES = {"cpu": 30.0, "mps": 30.0, "cuda": 120.0}
"""How long a training is planned for where the user doesn't say."""


@dataclass(frozen=True)
class Machine:
    """What a training may use.

    Parameters
    ----------
    device : {"cpu", "cuda", "mps"}
    precision : {"float32", "bfloat16"}
    threads : int
    memory_mib : float
        For training, beside the interpreter and its libraries.
    """

    device: str
    precision: str
    threads: int
    memory_mib: float

    @property
    def gflops(self) -> float:
        """Operations a second in training, in 1e9; assumed, not measured, so that equal machines plan alike."""
        return GFLOPS.get(self.device, GFLOPS_PER_THREAD[self.precision] * self.threads)


def machine(*, device: str, precision: str, threads: int, memory_mib: float) -> Machine:
    """The machine that this runs on.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda", "mps"}
        As ``resources.device``.
    precision : {"auto", "float32", "bfloat16"}
        As a model's ``precision``.
    threads : int
    memory_mib : float

    Returns
    -------
    machine : Machine
    """
    where = devices.choose_device(device)
    dtype = devices.choose_precision(precision, where)
    return Machine(where.type, str(dtype).removeprefix("torch."), threads, float(memory_mib))


def forward_flops(network: Mapping[str, Any]) -> float:
    """Operations of a forward pass for each voxel of its input.

    Parameters
    ----------
    network : mapping
        The keys under ``network`` of a model.

    Returns
    -------
    flops_per_voxel : float
        A training step takes about three times as many.
    """
    factor = network_reach.size_factor(network)
    edges = factor if network["dimensions"] == 3 else factor[1:]
    with torch.device("meta"):  # shapes without numbers
        made = networks.construct(network, in_channels=network["slices"], out_channels=1).eval()
    counted: list[int] = []

    def count(module: nn.Module, taken: tuple[Tensor, ...], given: Tensor) -> None:
        # a convolution touches its weights once for each voxel it makes, a transposed one for each that it takes
        transposed = isinstance(module, (nn.ConvTranspose2d, nn.ConvTranspose3d))
        voxels = math.prod((taken[0] if transposed else given).shape[2:])
        counted.append(2 * voxels * module.weight.numel())  # type: ignore[operator]

    for module in made.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
            module.register_forward_hook(count)
    with torch.no_grad():
        made(torch.zeros(1, network["slices"], *edges, device="meta"))
    return sum(counted) / math.prod(edges)
