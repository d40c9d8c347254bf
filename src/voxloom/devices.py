"""Where and how exactly a network computes: processor, number format, threads, reproducibility."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch

from voxloom.errors import ModelError

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "float32", "bfloat16")


def choose_device(name: str) -> torch.device:
    """The processor that a network runs on.

    Parameters
    ----------
    name : {"auto", "cpu", "cuda", "mps"}
        "auto" takes a CUDA device where there is one, else Apple's MPS, else the CPU. "cuda:1" names the second.

    Returns
    -------
    device : torch.device

    Raises
    ------
    ModelError
        If the name is unknown, or this machine lacks the device.
    """
    kind = name.partition(":")[0]
    if kind not in DEVICES:
        raise ModelError(f"device must be one of {', '.join(DEVICES)}, got {name!r}")
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if kind == "auto":
        return torch.device(next(device for device in ("cuda", "mps", "cpu") if available[device]))
    if not available[kind]:
        raise ModelError(f"device {name!r} was asked for, but this machine has none that PyTorch can use; set auto")
    return torch.device(name)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """The number format of a network's arithmetic; its weights are float32 in any case.

    Parameters
    ----------
    name : {"auto", "float32", "bfloat16"}
        "auto" is bfloat16 where the device computes it natively (elsewhere it is emulated and slower), else float32.
    device : torch.device

    Returns
    -------
    dtype : torch.dtype

    Raises
    ------
    ModelError
        If the name is unknown.
    """
    if name not in PRECISIONS:
        raise ModelError(f"precision must be one of {', '.join(PRECISIONS)}, got {name!r}")
    if name == "auto":
        return torch.bfloat16 if _has_native_bfloat16(device) else torch.float32
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def _has_native_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "mps":
        return False
    if hasattr(torch.cpu, "get_capabilities"):
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def arithmetic(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """A context in which networks compute in `dtype`.

    Parameters
    ----------
    device : torch.device
    dtype : torch.dtype
        float32 or bfloat16.

    Returns
    -------
    context : torch.autocast
    """
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


def memory_format(dimensions: int) -> torch.memory_format:
    """The order of a tensor's numbers in memory that convolutions are fastest in: channels last.

    Parameters
    ----------
    dimensions : {2, 3}

    Returns
    -------
    memory_format : torch.memory_format
    """
    return torch.channels_last if dimensions == 2 else torch.channels_last_3d


@contextlib.contextmanager
def reproducible(*, threads: int) -> Iterator[None]:
    """A context in which equal inputs give equal bytes on the same machine; what it sets, it restores.

    Parameters
    ----------
    threads : int
        Threads of the CPU's arithmetic. Set explicitly, since more threads than cores are several times slower and the
        sums of another number of threads differ in their last digit.
    """
    # cuBLAS reads this when it is first used, and refuses deterministic algorithms without it
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    deterministic: Any = torch.utils.deterministic
    before = (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        deterministic.fill_uninitialized_memory,
        torch.backends.cudnn.benchmark,
    )
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    deterministic.fill_uninitialized_memory = False  # no memory is read before it is written; filling costs time
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
        deterministic.fill_uninitialized_memory = before[2]
        torch.backends.cudnn.benchmark = before[3]
