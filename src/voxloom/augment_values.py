"""Random changes of training patches' grey values; labels stay."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from voxloom.augment_draws import between, seeded
from voxloom.augment_space import is_isotropic

CONTRASTS = (0.75, 1.33)
BRIGHTNESS_DEVIATIONS = 0.3
SHIFT_DEVIATIONS = 0.5
GAMMAS = (0.7, 1.5)
DARK_DEPTHS = (0.2, 0.7)
DARK_WIDTHS = (0.15, 0.5)
"""Of the patch's longest edge: deviation of the Gaussian."""
NOISE_DEVIATIONS = 0.3
BLUR_VOXELS = 1.0
COARSENINGS = (1.0, 2.0)
BLUR_REACH = 3.0

Change = Callable[..., Tensor]


def _contrast(image: Tensor, numbers: Tensor, *, deviation: float, spacing_um: Sequence[float]) -> Tensor:
    """Stretch the grey values about their mean, and shift them."""
    factor = _each(between(numbers[:, 1], CONTRASTS), image)
    shift = _each(deviation * between(numbers[:, 2], (-BRIGHTNESS_DEVIATIONS, BRIGHTNESS_DEVIATIONS)), image)
    mean = image.mean(_patch(image), keepdim=True)
    return torch.addcmul(mean - mean * factor + shift, image, factor)


def _brightness(image: Tensor, numbers: Tensor, *, deviation: float, spacing_um: Sequence[float]) -> Tensor:
    """Shift the grey values."""
    return image + _each(deviation * between(numbers[:, 1], (-SHIFT_DEVIATIONS, SHIFT_DEVIATIONS)), image)


def _gamma(image: Tensor, numbers: Tensor, *, deviation: float, spacing_um: Sequence[float]) -> Tensor:
    """Raise the grey values to a power; the darkest and the brightest stay."""
    low, high = image.amin(_patch(image), keepdim=True), image.amax(_patch(image), keepdim=True)
    extent = (high - low).clamp(min=1e-6 * deviation)
    power = _each(between(numbers[:, 1], GAMMAS), image)
    # exp(power * log(x)): a quarter of the time of x ** power, and 0 stays 0
    share = ((image - low) / extent).clamp_(0, 1).log_().mul_(power).exp_()
    return torch.addcmul(low, share, extent)


def _darken(image: Tensor, numbers: Tensor, *, deviation: float, spacing_um: Sequence[float]) -> Tensor:
    """Make a smooth patch darker, or all but a smooth patch (a vignette); black is the patch's darkest value."""
    sizes = image.shape[2:]
    edges = [size * spacing for size, spacing in zip(sizes, spacing_um[-len(sizes) :], strict=True)]
    width = _each(max(edges) * between(numbers[:, 2], DARK_WIDTHS), image)
    profile = torch.ones((), device=image.device)
    for axis, (size, edge) in enumerate(zip(sizes, edges, strict=True)):
        places = (torch.arange(size, device=image.device, dtype=image.dtype) + 0.5) * (edge / size)
        places = places.view(-1, *[1] * (len(sizes) - 1 - axis))
        profile = profile * torch.exp(-0.5 * ((places - _each(edge * numbers[:, 3 + axis], image)) / width) ** 2)
    profile = torch.where(_each(numbers[:, 6], image) < 0.5, profile, 1 - profile)
    low = image.amin(_patch(image), keepdim=True)
    factor = 1 - _each(between(numbers[:, 1], DARK_DEPTHS), image) * profile
    return torch.addcmul(low, image - low, factor)


def _blur(image: Tensor, numbers: Tensor, *, deviation: float, spacing_um: Sequence[float]) -> Tensor:
    """Smooth by less than a voxel along every axis."""
    sigmas = between(numbers[:, 1], (0.0, BLUR_VOXELS)).tolist()
    axes = range(-(image.ndim - 2), 0)
    return torch.stack([blurred(one, sigma, axes) for one, sigma in zip(image, sigmas, strict=True)])


def _low_resolution(image: Tensor, numbers: Tensor, *, deviation: float, spacing_um: Sequence[float]) -> Tensor:
    """Show larger voxels, interpolated; along Z only where voxels are isotropic."""
    is_flat = image.ndim == 5 and not is_isotropic(spacing_um)
    volumes = image.flatten(1, 2) if is_flat else image
    mode = "bilinear" if volumes.ndim == 4 else "trilinear"
    coarse = []
    for one, factor in zip(volumes, between(numbers[:, 1], COARSENINGS).tolist(), strict=True):
        sizes = [max(1, round(size / factor)) for size in one.shape[1:]]
        small = F.interpolate(one[None], sizes, mode="area")
        coarse.append(F.interpolate(small, one.shape[1:], mode=mode, align_corners=False)[0])
    return torch.stack(coarse).reshape(image.shape)


def _noise(image: Tensor, numbers: Tensor, *, deviation: float, spacing_um: Sequence[float]) -> Tensor:
    """Add Gaussian noise."""
    amounts = (deviation * between(numbers[:, 1], (0.0, NOISE_DEVIATIONS))).tolist()
    noisy = torch.empty_like(image, memory_format=torch.contiguous_format)
    for one, number in zip(noisy, numbers[:, 2], strict=True):
        one.normal_(generator=seeded(number, image.device))  # drawn on the device of the image, without waiting
    return noisy.mul_(_each(torch.tensor(amounts), image)).add_(image)


def blurred(image: Tensor, sigma_voxels: float, axes: Sequence[int]) -> Tensor:
    """Convolve with a Gaussian.

    Parameters
    ----------
    image : Tensor of float32
    sigma_voxels : float
        0 leaves the image as it is.
    axes : sequence of int
        The border is repeated.

    Returns
    -------
    smooth : Tensor
        The kernel ends at three sigma.
    """
    reach = math.ceil(BLUR_REACH * sigma_voxels)
    weights = [math.exp(-0.5 * (step / sigma_voxels) ** 2) for step in range(1, reach + 1)]
    total = 1 + 2 * sum(weights)
    for axis in axes if reach else ():
        size = image.shape[axis]
        index = torch.arange(-reach, size + reach, device=image.device).clamp_(0, size - 1)
        padded = image.index_select(axis, index)
        image = padded.narrow(axis, reach, size) / total
        for step, weight in enumerate(weights, start=1):
            image.add_(padded.narrow(axis, reach - step, size), alpha=weight / total)
            image.add_(padded.narrow(axis, reach + step, size), alpha=weight / total)
    return image


def _each(values: Tensor, image: Tensor) -> Tensor:
    """One value a sample, to be multiplied with a batch."""
    return values.to(image).view(-1, *[1] * (image.ndim - 1))


def _patch(image: Tensor) -> tuple[int, ...]:
    """All axes but the samples'."""
    return tuple(range(1, image.ndim))


VALUES: dict[str, Change] = {
    "contrast": _contrast,
    "brightness": _brightness,
    "gamma": _gamma,
    "darken": _darken,
    "blur": _blur,
    "low_resolution": _low_resolution,
    "noise": _noise,
}
"""Name to what it does to the samples (N, C, [Z,] Y, X) it happens to, given their random numbers; in this order."""
