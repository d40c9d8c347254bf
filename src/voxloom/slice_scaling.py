"""Slices at a network's size, where a model scales them: image and labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor


def scale_image(planes: Tensor, size: Sequence[int]) -> Tensor:
    """Scale slices to a network's size: bilinear, with antialiasing where they shrink.

    Parameters
    ----------
    planes : Tensor of float32, shape (C, Y, X) or (N, C, Y, X)
    size : sequence of int
        (Y, X).

    Returns
    -------
    scaled : Tensor
    """
    batch = planes[None] if planes.ndim == 3 else planes
    scaled = F.interpolate(batch, tuple(size), mode="bilinear", antialias=True, align_corners=False)
    return scaled[0] if planes.ndim == 3 else scaled


def scale_codes(codes: NDArray[np.uint8], size: Sequence[int]) -> NDArray[np.uint8]:
    """Scale labels to a network's size: the code at each pixel's centre.

    Parameters
    ----------
    codes : ndarray of uint8, shape (..., Y, X)
        0 background, 1 foreground, 255 not annotated.
    size : sequence of int
        (Y, X).

    Returns
    -------
    scaled : ndarray of uint8

    Examples
    --------
    >>> scale_codes(np.array([[0, 1, 1, 0]], dtype=np.uint8), (1, 2)).tolist()
    [[1, 0]]
    """
    rows, columns = (
        # the pixel that holds the centre (k + 1/2) * have / want, in whole numbers
        (2 * np.arange(want) + 1) * have // (2 * want)
        for want, have in zip(size, codes.shape[-2:], strict=True)
    )
    return np.ascontiguousarray(codes[..., rows, :][..., columns])
