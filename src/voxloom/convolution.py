"""A 3-D convolution that is fast on a CPU however small its input is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Conv3d(nn.Conv3d):
    """PyTorch's 3-D convolution, whose forward pass a CPU computes with oneDNN for inputs of every size.

    PyTorch itself takes oneDNN for one sample only if its channels times its size along Z and Y exceed 20480, or its
    kernel is large. Below, it copies every voxel's neighbourhood (27 times the input for a kernel of 3), which takes
    several times as long and as much memory: in the first layer, of one channel, of every tile up to 143 voxels along
    Z and Y. Weights, keys and arguments are those of `torch.nn.Conv3d`; the result differs by the rounding of its sums.
    Gradients are PyTorch's, in its own way.

    References
    ----------
    .. [1] ``use_mkldnn`` in PyTorch's ``aten/src/ATen/native/Convolution.cpp``.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Convolve a batch.

        Parameters
        ----------
        x : Tensor, shape (N, C, Z, Y, X)

        Returns
        -------
        result : Tensor, shape (N, out_channels, Z, Y, X)
            Z, Y, X as of `torch.nn.Conv3d`.
        """
        if isinstance(self.padding, str) or self.padding_mode != "zeros" or not self._takes_onednn(x):
            return super().forward(x)
        return torch.mkldnn_convolution(
            x, self.weight, self.bias, self.padding, self.stride, self.dilation, self.groups
        )

    def _takes_onednn(self, x: Tensor) -> bool:
        if torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
            return False
        is_pointwise = max(self.kernel_size) == 1  # of channels that lie apart, a matrix product as it is
        is_real = type(x) is Tensor  # one that only stands for a tensor, as where memory is planned, has no contents
        return is_real and is_for_onednn(x) and not (is_pointwise and x.is_contiguous())


def is_for_onednn(x: Tensor) -> bool:
    """Whether `Conv3d` takes oneDNN for a batch.

    Parameters
    ----------
    x : Tensor, shape (N, C, Z, Y, X)

    Returns
    -------
    is_for_onednn : bool
    """
    onednn: Any = torch.backends.mkldnn
    return (
        x.ndim == 5 and x.device.type == "cpu" and x.dtype == torch.float32 and onednn.is_available() and onednn.enabled
    )
