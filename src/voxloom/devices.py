"""Where and how exactly a network computes: processor, number format, threads, reproducibility."""

from __future__ import annotations

import contextlib
import copy
import logging
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from voxloom import heap
from voxloom.errors import ModelError

LOGGER = logging.getLogger("voxloom")

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "float32", "bfloat16")
RETURNED_BYTES = 2**17
"""With 2**20 a training with soft clDice, which makes many small tensors, took half as much again as was planned."""


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


def limit_gpu_memory(device: torch.device, memory_mib: float) -> None:
    """Keep this process to a part of a GPU's memory; what would take more fails instead.

    Parameters
    ----------
    device : torch.device
        Nothing is limited on other devices than CUDA's.
    memory_mib : float
        0 for no limit.
    """
    if device.type == "cuda" and memory_mib:
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, memory_mib * 2**20 / total), device)


def free_gpu_bytes(device: torch.device) -> float:
    """What a GPU can still give this process: what is free, and within the limit that it was given.

    Parameters
    ----------
    device : torch.device
        Of CUDA.

    Returns
    -------
    free_bytes : float
    """
    free, total = torch.cuda.mem_get_info(device)
    limit = torch.cuda.get_per_process_memory_fraction(device) * total
    return float(min(free, limit - torch.cuda.memory_allocated(device)))


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


def compiled(network: nn.Module, parallel: nn.Module, example: Tensor, dtype: torch.dtype) -> nn.Module:
    """A network compiled by ``torch.compile``, or as it is where this machine can't, with a line in the log.

    Parameters
    ----------
    network : torch.nn.Module
        On its device. A copy of it is tried out.
    parallel : torch.nn.Module
        What is compiled: the network, or what joins it with other processes'.
    example : Tensor, shape (N, C, [Z,] Y, X)
        A batch, on the device.
    dtype : torch.dtype
        Of the arithmetic.

    Returns
    -------
    network : torch.nn.Module
    """
    torch.use_deterministic_algorithms(torch.are_deterministic_algorithms_enabled())  # tells the compiler, too
    try:
        with arithmetic(example.device, dtype):
            outputs = torch.compile(copy.deepcopy(network))(example)
        finest = outputs if isinstance(outputs, Tensor) else outputs[0]
        finest.float().sum().backward()
    except Exception as error:  # a missing compiler, an operation it doesn't know: its errors have no common class
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        LOGGER.warning("torch.compile failed, training goes on without it: %s", reason)
        return parallel
    return torch.compile(parallel)  # type: ignore[return-value]


def return_freed_memory(*, largest_bytes: int) -> None:
    """Give every large piece of memory back to the system when it is freed, from here on in this process.

    The C library of Linux otherwise keeps freed pieces of up to 32 MiB to use again (`heap.keep_freed`), and what
    doesn't fit stays: a training step of small patches then takes much more memory than it uses. Fetching them anew
    takes time, the more the more threads there are. Elsewhere nothing changes.

    Pieces that are too large to be kept come in huge pages, which are faster to fetch. PyTorch reads whether to ask for
    them at its first tensor: call this before. Smaller ones that are kept would need more memory in
    huge pages; those that aren't take longer without.

    Parameters
    ----------
    largest_bytes : int
        Of what a convolution will make.
    """
    if largest_bytes >= heap.KEPT_BYTES:
        os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    heap.set_option(heap.M_MMAP_THRESHOLD, RETURNED_BYTES)


@contextlib.contextmanager
def reproducible(*, threads: int, deterministic: bool = True) -> Iterator[None]:
    """A context in which equal inputs give equal bytes on the same machine; what it sets, it restores.

    Parameters
    ----------
    threads : int
        Threads of the CPU's arithmetic. Set explicitly, since more threads than cores are several times slower and the
        sums of another number of threads differ in their last digit.
    deterministic : bool
        False lets a GPU choose the fastest way, whose sums may differ in their last digit from run to run.
    """
    # cuBLAS reads this when it is first used, and refuses deterministic algorithms without it
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    settings: Any = torch.utils.deterministic
    before = (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        settings.fill_uninitialized_memory,
        torch.backends.cudnn.benchmark,
    )
    torch.set_num_threads(threads)
    _refuse_nondeterministic(deterministic)
    settings.fill_uninitialized_memory = False  # no memory is read before it is written; filling costs time
    torch.backends.cudnn.benchmark = not deterministic
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        _refuse_nondeterministic(before[1])
        settings.fill_uninitialized_memory = before[2]
        torch.backends.cudnn.benchmark = before[3]


def _refuse_nondeterministic(is_refused: bool) -> None:
    """What ``torch.use_deterministic_algorithms`` does, less the second that it takes to load the compiler."""
    torch.set_deterministic_debug_mode("error" if is_refused else "default")
