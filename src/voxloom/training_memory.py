"""How much memory a training step and a forward pass take, counted without taking it."""

from __future__ import annotations

import functools
import json
import math
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from voxloom import losses, networks
from voxloom.convolution import is_for_onednn
from voxloom.heap import KEPT_BYTES
from voxloom.objective import objective

BLAS_BYTES = 20 * 2**20
"""What the matrix library of the CPU holds from its first product on, as measured."""

CODE_BYTES = 3 * 2**20
"""What oneDNN compiles and keeps for the shapes of a network's convolutions, as measured."""

KEPT_SHARE = 0.5
"""Of a step's pieces of up to `heap.KEPT_BYTES`: what the C library keeps beside them, as measured."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
BCE = {"name": "bce", "terms": None}


def training_bytes(
    network: Mapping[str, Any],
    patch_voxels: Sequence[int],
    batch_size: int,
    precision: str,
    *,
    moments: int = 2,
    loss: Mapping[str, Any] = BCE,
    keeps_freed: bool = False,
) -> int:
    """Peak memory of a training step: weights, gradients, the optimiser's moments, and what the backward pass needs.

    Parameters
    ----------
    network : mapping
        The keys under ``network`` of a model.
    patch_voxels : sequence of int
        (Z, Y, X) of the network's input; Z is not read in 2-D.
    batch_size : int
    precision : {"float32", "bfloat16"}
        Of the arithmetic.
    moments : int
        Numbers that the optimiser keeps for each weight; 2 for Adam, 1 for SGD with momentum.
    loss : mapping
        The keys under ``loss`` of a model.
    keeps_freed : bool
        Whether freed memory is kept to be used again (`heap.keep_freed`), which adds an estimate of how much that is.

    Returns
    -------
    bytes : int
        Beside the interpreter, its libraries and the samples.

    Notes
    -----
    No formula, but a count: the step is run on tensors that have sizes and no contents (PyTorch's fake tensors), for
    any architecture of the registry, and the largest sum of those alive is taken. It takes about a second.

    Calibrated with ``benchmarks/training_memory.py``, which prints planned and measured resident memory of eight
    architectures, 2-D and 3-D, in both precisions: what the tensors don't explain was the input that small float32
    convolutions unfold (`convolution.Conv3d` for its gradients only), which is counted with them, `BLAS_BYTES` and
    `CODE_BYTES`. It holds where freed memory goes back to the system, see `devices.return_freed_memory`, or with
    `keeps_freed`. A GPU's buffers for convolutions are not counted.
    """
    step = _counted_step(
        _key(networks.resolved(network)), tuple(patch_voxels), batch_size, precision, moments, _key(loss)
    )
    return step.all + (round(KEPT_SHARE * step.small) if keeps_freed else 0)


def forward_bytes(network: Mapping[str, Any], shape: Sequence[int], precision: str) -> int:
    """Peak memory of a forward pass that nothing is learnt from, counted as in `training_bytes`.

    Parameters
    ----------
    network : mapping
        The keys under ``network`` of a model.
    shape : sequence of int
        (N, C, [Z,] Y, X) of its input.
    precision : {"float32", "bfloat16"}

    Returns
    -------
    bytes : int
        Beside the weights; with the input, and with the probabilities in float32.
    """
    return _counted_pass(_key(networks.resolved(network)), tuple(shape), precision)


def loss_bytes(loss: Mapping[str, Any], shape: Sequence[int]) -> int:
    """Peak memory of comparing probabilities with labels, as validation does.

    Parameters
    ----------
    loss : mapping
        The keys under ``loss`` of a model.
    shape : sequence of int
        (N, 1, [Z,] Y, X) of both.

    Returns
    -------
    bytes : int
        With both.
    """
    return _counted_loss(_key(loss), tuple(shape))


def _key(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)


class _Step(NamedTuple):
    """Bytes of a training step at its peak, and of its pieces that the C library keeps when they are freed."""

    all: int
    small: int


@functools.lru_cache(maxsize=256)
def _counted_step(
    network_key: str, patch_voxels: tuple[int, ...], batch_size: int, precision: str, moments: int, loss_key: str
) -> _Step:
    network, loss = json.loads(network_key), losses.chosen(json.loads(loss_key), target="mask")
    size = patch_voxels[-network["dimensions"] :]
    with FakeTensorMode(), _LiveBytes() as live:
        made = networks.construct(network, in_channels=network["slices"], out_channels=1).train()
        weights = list(made.parameters())
        live.add([*weights, *made.buffers()])
        x, truth = torch.empty(batch_size, network["slices"], *size), torch.empty(batch_size, 1, *size)
        ignore = torch.empty(truth.shape, dtype=torch.bool)
        networks.draw_dropout(made, samples=batch_size, generator=torch.Generator())
        with _arithmetic(precision):
            outputs = made(x)
        objective(outputs, truth, ignore, loss=loss, positive_weight=1.0).backward()  # type: ignore[no-untyped-call]
    moments_bytes = moments * 4 * sum(weight.numel() for weight in weights)
    return _Step(live.peak + _library_bytes(live) + moments_bytes, live.small_peak)


@functools.lru_cache(maxsize=256)
def _counted_pass(network_key: str, shape: tuple[int, ...], precision: str) -> int:
    network = json.loads(network_key)
    with FakeTensorMode(), torch.no_grad(), _LiveBytes() as live:
        made = networks.construct(network, in_channels=network["slices"], out_channels=1).eval()
        x = torch.empty(shape)
        with _arithmetic(precision):
            torch.sigmoid(made(x).float())
    return live.peak + _library_bytes(live)


@functools.lru_cache(maxsize=256)
def _counted_loss(loss_key: str, shape: tuple[int, ...]) -> int:
    loss = losses.chosen(json.loads(loss_key), target="mask")
    with FakeTensorMode(), torch.no_grad(), _LiveBytes() as live:
        probability, truth, ignore = torch.empty(shape), *(torch.empty(shape, dtype=torch.bool) for _ in range(2))
        loss.sums(torch.logit(probability, eps=1e-6), truth, ignore, 1.0)
    return live.peak


def _arithmetic(precision: str) -> torch.autocast:
    return torch.autocast("cpu", dtype=DTYPES[precision], enabled=precision != "float32")


def _library_bytes(live: _LiveBytes) -> int:
    return CODE_BYTES + (BLAS_BYTES if live.unfolds else 0)


class _LiveBytes(TorchDispatchMode):
    """Adds up the tensors that are alive while operations run inside this context."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}
        self.now = self.peak = self.small_now = self.small_peak = 0
        self.unfolds = False

    def add(self, tensors: Sequence[Any]) -> None:
        """Count memory that isn't counted yet, until it is freed."""
        for tensor in tensors:
            storage = tensor.untyped_storage() if isinstance(tensor, Tensor) else None
            if storage is None or storage._cdata in self.sizes:
                continue
            self.sizes[storage._cdata] = storage.nbytes()
            self.now += storage.nbytes()
            self.small_now += storage.nbytes() if storage.nbytes() < KEPT_BYTES else 0
            weakref.finalize(storage, self._remove, storage._cdata)
        self.peak, self.small_peak = max(self.peak, self.now), max(self.small_peak, self.small_now)

    def _remove(self, key: int) -> None:
        size = self.sizes.pop(key)
        self.now -= size
        self.small_now -= size if size < KEPT_BYTES else 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.add(tree_leaves(made))
        if func is torch.ops.aten.convolution.default:
            x, weight, _, *options = args
            is_transposed = options[3]
            if is_transposed or not is_for_onednn(x):  # the others are `Conv3d`
                self._unfold(x, weight, options)
        elif func is torch.ops.aten.convolution_backward.default:
            _, x, weight, _, *options, _ = args
            self._unfold(x, weight, options)
        return made

    def _unfold(self, x: Tensor, weight: Tensor, options: Sequence[Any]) -> None:
        """Count what a convolution takes for itself where PyTorch lays its input out anew.

        On a CPU in float32 it does so for kernels of 1 on one thread, and where a batch of one is small, and then once
        for each place in the kernel.
        """
        stride, _, _, transposed, *_ = options
        bias_sizes = [weight.shape[1 if transposed else 0]]
        backend = torch._C._select_conv_backend(x, weight, None, *options, bias_sizes)
        if not str(backend).startswith("_ConvBackend.Slow"):
            return
        rows = weight.shape[1] * math.prod(weight.shape[2:]) * len(x)
        columns = math.prod(x.shape[2:]) // (1 if transposed else math.prod(stride))
        is_wide = math.prod(weight.shape[2:]) > 1
        self.unfolds |= is_wide
        self.peak = max(self.peak, self.now + x.element_size() * (x.numel() + is_wide * rows * columns))
