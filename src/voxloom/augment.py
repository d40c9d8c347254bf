"""Random changes of training patches, on the device: an image, its mask and what nobody annotated move together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

SCALES = (0.85, 1.15)
CONTRASTS = (0.75, 1.33)
BRIGHTNESS_DEVIATIONS = 0.3
GAMMAS = (0.7, 1.5)
NOISE_DEVIATIONS = 0.3
BLUR_VOXELS = 1.0


def augment(
    image: Tensor,
    mask: Tensor,
    ignore: Tensor,
    *,
    probabilities: Mapping[str, float],
    spacing_um: Sequence[float],
    deviation: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """Change every sample of a batch at random.

    Parameters
    ----------
    image : Tensor of float32, shape (N, C, [Z,] Y, X)
        Without a Z axis the channels are neighbouring slices.
    mask : Tensor of float32, shape (N, 1, [Z,] Y, X)
        Foreground is 1.
    ignore : Tensor of bool, same shape as `mask`
    probabilities : mapping
        Probability of each of flip (along each axis), rotate90, affine, contrast, gamma, noise and blur for a sample.
    spacing_um : sequence of float
        Voxel edge lengths (Z, Y, X). Rotations are in the plane and in micrometres; quarter turns need equal spacing
        along Y and X and square patches, else only half turns are made.
    deviation : float
        Standard deviation of the training set's image in units of `image`; noise and brightness are shares of it.
    generator : torch.Generator
        On the CPU, whatever the device of the tensors.

    Returns
    -------
    image, mask, ignore : Tensor
        Of the same shapes. Where an affine change looks outside the patch the image is reflected and nothing counts as
        annotated.
    """
    samples = []
    for one_image, one_mask, one_ignore in zip(image, mask, ignore, strict=True):
        labels = torch.cat([one_mask, one_ignore.to(one_mask.dtype)])  # (2, [Z,] Y, X)
        moved, labels = _move(one_image, labels, probabilities, spacing_um, generator)
        samples.append((_change_values(moved, probabilities, deviation, generator), labels[:1], labels[1:] > 0.5))
    images, masks, ignores = zip(*samples, strict=True)
    return torch.stack(images), torch.stack(masks), torch.stack(ignores)


def _move(
    image: Tensor,
    labels: Tensor,
    probabilities: Mapping[str, float],
    spacing_um: Sequence[float],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    for axis in (-3, -2, -1):
        if _happens(probabilities["flip"], generator):
            image = image.flip(axis)
            # along Z, slices that are channels are reversed; the labels are of the middle one and stay
            labels = labels.flip(axis) if axis > -3 or labels.ndim == 4 else labels
    if _happens(probabilities["rotate90"], generator):
        turns = int(torch.randint(1, 4, (), generator=generator))
        if not math.isclose(spacing_um[1], spacing_um[2], rel_tol=1e-3) or image.shape[-1] != image.shape[-2]:
            turns = 2
        image, labels = image.rot90(turns, (-2, -1)), labels.rot90(turns, (-2, -1))
    if _happens(probabilities["affine"], generator):
        angle = _uniform(-math.pi, math.pi, generator)
        scale = _uniform(*SCALES, generator)
        image, labels = turn_and_scale(image, labels, angle=angle, scale=scale, spacing_um=spacing_um)
    return image, labels


def turn_and_scale(
    image: Tensor, labels: Tensor, *, angle: float, scale: float, spacing_um: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Rotate and scale a patch in the plane about its centre.

    Parameters
    ----------
    image : Tensor of float32, shape (C, [Z,] Y, X)
        Interpolated linearly, reflected at its border.
    labels : Tensor of float32, shape (2, [Z,] Y, X)
        Mask and ignore; nearest neighbour, ignored outside.
    angle : float
        Radians, from X towards Y.
    scale : float
        Above 1 enlarges.
    spacing_um : sequence of float
        Voxel edge lengths (Z, Y, X); a rotation keeps lengths in micrometres.

    Returns
    -------
    image, labels : Tensor
    """
    height, width = image.shape[-2] * spacing_um[1], image.shape[-1] * spacing_um[2]  # um
    cosine, sine = math.cos(angle) / scale, math.sin(angle) / scale
    # from a place in the result, -1 to 1 along (X, Y), to the place in the patch that is shown there
    theta = torch.tensor([[cosine, sine * height / width, 0.0], [-sine * width / height, cosine, 0.0]])
    planes = image.reshape(1, -1, *image.shape[-2:])
    grid = F.affine_grid(theta[None].to(image.device), list(planes.shape), align_corners=False)
    turned = F.grid_sample(planes, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    codes = F.grid_sample(labels.reshape(1, -1, *labels.shape[-2:]), grid, mode="nearest", align_corners=False)
    outside = (grid.abs() > 1).any(dim=-1)[0]  # (Y, X)
    codes = codes.reshape(labels.shape)
    codes = torch.stack([codes[0].masked_fill(outside, 0.0), codes[1].masked_fill(outside, 1.0)])
    return turned.reshape(image.shape), codes


def _change_values(
    image: Tensor, probabilities: Mapping[str, float], deviation: float, generator: torch.Generator
) -> Tensor:
    if _happens(probabilities["contrast"], generator):
        factor = _uniform(*CONTRASTS, generator)
        shift = deviation * _uniform(-BRIGHTNESS_DEVIATIONS, BRIGHTNESS_DEVIATIONS, generator)
        mean = image.mean()
        image = (image - mean) * factor + mean + shift
    if _happens(probabilities["gamma"], generator):
        gamma = _uniform(*GAMMAS, generator)
        low, high = image.min(), image.max()
        extent = (high - low).clamp(min=1e-6 * deviation)
        image = ((image - low) / extent).clamp(0, 1) ** gamma * extent + low
    if _happens(probabilities["blur"], generator):
        image = _blur(image, _uniform(0.0, BLUR_VOXELS, generator))
    if _happens(probabilities["noise"], generator):
        amount = deviation * _uniform(0.0, NOISE_DEVIATIONS, generator)
        seed = int(torch.randint(2**62, (), generator=generator))  # drawn on the device of the image, without waiting
        own = torch.Generator(image.device).manual_seed(seed)
        image = image + amount * torch.randn(image.shape, generator=own, device=image.device, dtype=image.dtype)
    return image


def _blur(image: Tensor, sigma_voxels: float) -> Tensor:
    """Gaussian of at most one voxel along the spatial axes of (C, [Z,] Y, X); the border is repeated."""
    radius = 3
    places = torch.arange(-radius, radius + 1, device=image.device, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (places / max(sigma_voxels, 1e-3)) ** 2)
    kernel = kernel / kernel.sum()
    for axis in range(1, image.ndim):
        size = image.shape[axis]
        rows = image.movedim(axis, -1)
        index = torch.arange(-radius, size + radius, device=image.device).clamp(0, size - 1)
        rows = sum(weight * rows[..., index[k : k + size]] for k, weight in enumerate(kernel))  # type: ignore[assignment]
        image = rows.movedim(-1, axis)
    return image


def _happens(probability: float, generator: torch.Generator) -> bool:
    """True with that probability; always draws, so that one augmentation's choice doesn't move the others'."""
    return bool(torch.rand((), generator=generator) < probability)


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))
