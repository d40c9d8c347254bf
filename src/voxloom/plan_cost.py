"""What training a network costs, in arithmetic and memory, and what a machine can give."""

from __future__ import annotations

import functools
import json
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
    processes : int
        That train one network together; threads and memory are those of all of them.
    """

    device: str
    precision: str
    threads: int
    memory_mib: float
    processes: int = 1

    @property
    def has_joint_statistics(self) -> bool:
        """Whether a batch's statistics can be taken over all processes, which PyTorch does on GPUs only."""
        return self.processes == 1 or self.device == "cuda"

    @property
    def gflops(self) -> float:
        """Operations a second in training, in 1e9; assumed, not measured, so that equal machines plan alike."""
        return GFLOPS.get(self.device, GFLOPS_PER_THREAD[self.precision] * self.threads)


def machine(*, device: str, precision: str, threads: int, memory_mib: float, processes: int = 1) -> Machine:
    """The machine that this runs on.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda", "mps"}
        As ``resources.device``.
    precision : {"auto", "float32", "bfloat16"}
        As a model's ``precision``.
    threads : int
    memory_mib : float
    processes : int

    Returns
    -------
    machine : Machine
    """
    where = devices.choose_device(device)
    dtype = devices.choose_precision(precision, where)
    return Machine(where.type, str(dtype).removeprefix("torch."), threads, float(memory_mib), processes)


STEP_SHARE = 0.85
"""Of a training's time that is steps; the rest is validation, loading and checkpoints."""


def training_seconds(flops: float, *, voxels: float, machine: Machine) -> float:
    """Time of a training, roughly.

    Parameters
    ----------
    flops : float
        Of a forward pass for each voxel, see `forward_flops`; a training step takes three times as many.
    voxels : float
        Of all samples together.
    machine : Machine

    Returns
    -------
    seconds : float
    """
    return 3 * flops * voxels / (machine.gflops * 1e9) / STEP_SHARE


def weights_mib(network: Mapping[str, Any]) -> float:
    """What a network's weights and buffers take.

    Parameters
    ----------
    network : mapping
        The keys under ``network`` of a model.

    Returns
    -------
    mib : float
    """
    state = _without_numbers(json.dumps(network, sort_keys=True)).state_dict()
    return sum(tensor.numel() * tensor.element_size() for tensor in state.values()) / 2**20


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
    return _counted_flops(json.dumps(network, sort_keys=True))


@functools.lru_cache(maxsize=256)
def _without_numbers(key: str) -> nn.Module:
    network = json.loads(key)
    with torch.device("meta"):
        return networks.construct(network, in_channels=network["slices"], out_channels=1).eval()


@functools.lru_cache(maxsize=256)
def _counted_flops(key: str) -> float:
    network, made = json.loads(key), _without_numbers(key)
    factor = network_reach.size_factor(network)
    # the coarsest level has two voxels along an axis: of a single voxel no mean and spread can be taken
    edges = [2 * edge for edge in (factor if network["dimensions"] == 3 else factor[1:])]
    counted: list[int] = []

    def count(module: nn.Module, taken: tuple[Tensor, ...], given: Tensor) -> None:
        # a convolution touches its weights once for each voxel it makes, a transposed one for each that it takes
        transposed = isinstance(module, (nn.ConvTranspose2d, nn.ConvTranspose3d))
        voxels = math.prod((taken[0] if transposed else given).shape[2:])
        counted.append(2 * voxels * module.weight.numel())  # type: ignore[operator]

    convolutions = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    hooks = [m.register_forward_hook(count) for m in made.modules() if isinstance(m, convolutions)]
    with torch.no_grad():
        made(torch.zeros(1, network["slices"], *edges, device="meta"))
    for hook in hooks:
        hook.remove()
    return sum(counted) / math.prod(edges)
