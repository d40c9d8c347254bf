"""Random moves of training patches: mirrored, turned, scaled and warped, image and labels together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from voxloom import augment_kernels
from voxloom.augment_draws import Draws, between, seeded
from voxloom.errors import ModelError

MOVES = ("flip", "rotate90", "affine", "rotate", "scale", "elastic")
RESAMPLING = ("affine", "rotate", "scale", "elastic")
FULL = ("rotate", "scale", "elastic")
"""These act along all axes of an isotropic volume."""

SCALES = (0.85, 1.15)
ZOOMS = (0.7, 1.4)
ELASTIC_SIGMA_VOXELS = 16.0
ELASTIC_AMPLITUDE_VOXELS = 3.0
ELASTIC_SHARES = (0.3, 1.0)
"""Of the amplitude; it differs from sample to sample."""
MOST_AMPLITUDE_PER_SIGMA = 0.4
"""Above this the displacement folds the image onto itself here and there."""
MOST_ANISOTROPY = 1.1
"""Voxels whose longest edge is up to so many times the shortest are as good as cubes."""
ELASTIC_REACH = 3.0
VOXELS_AT_ONCE = 2**21
"""Resampled at a time: what it takes beside a batch doesn't grow with the batch."""


def is_isotropic(spacing_um: Sequence[float]) -> bool:
    """Whether turning out of the plane makes sense.

    Parameters
    ----------
    spacing_um : sequence of float
        Voxel edge lengths (Z, Y, X).

    Returns
    -------
    isotropic : bool
    """
    return max(spacing_um) <= MOST_ANISOTROPY * min(spacing_um)


def elastic_lengths_um(settings: Mapping[str, Any], spacing_um: Sequence[float]) -> tuple[float, float]:
    """Smoothness and size of elastic displacements.

    Parameters
    ----------
    settings : mapping
        elastic_sigma_um and elastic_amplitude_um are read; None stands for so many voxels of the plane.
    spacing_um : sequence of float
        Voxel edge lengths (Z, Y, X).

    Returns
    -------
    sigma_um, amplitude_um : float

    Raises
    ------
    ModelError
        If the displacement would fold the image.
    """
    edge = min(spacing_um[1:])
    sigma, amplitude = settings["elastic_sigma_um"], settings["elastic_amplitude_um"]
    sigma = ELASTIC_SIGMA_VOXELS * edge if sigma is None else sigma
    amplitude = ELASTIC_AMPLITUDE_VOXELS * edge if amplitude is None else amplitude
    if amplitude > MOST_AMPLITUDE_PER_SIGMA * sigma:
        raise ModelError(
            f"augment.elastic_amplitude_um is {amplitude:g} and elastic_sigma_um {sigma:g} (voxels of "
            f"{tuple(spacing_um)} um): above {MOST_AMPLITUDE_PER_SIGMA:g} of sigma the image folds onto itself; set "
            f"the amplitude to {MOST_AMPLITUDE_PER_SIGMA * sigma:.3g} or less, or sigma to "
            f"{amplitude / MOST_AMPLITUDE_PER_SIGMA:.3g} or more"
        )
    return sigma, amplitude


def moved(
    image: Tensor, labels: Tensor, *, draws: Draws, settings: Mapping[str, Any], spacing_um: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Mirror, turn, scale and warp samples of a batch.

    Parameters
    ----------
    image : Tensor of float32, shape (N, C, [Z,] Y, X)
    labels : Tensor of float32, shape (N, K, [Z,] Y, X)
        Nearest neighbour; 0 where a move looks outside the patch.
    draws : Draws
    settings : mapping
        Section ``augment`` of a model.
    spacing_um : sequence of float
        Voxel edge lengths (Z, Y, X).

    Returns
    -------
    image, labels : Tensor
    """
    image, labels = _mirrored(image, labels, draws, spacing_um)
    happening = {name: set(draws.chosen(name)) for name in RESAMPLING}
    in_space: set[int] = set()
    if image.ndim == 5 and is_isotropic(spacing_um):
        in_space = set().union(*(happening[name] for name in FULL))
    in_plane = set().union(*happening.values()) - in_space
    lengths_um = elastic_lengths_um(settings, spacing_um) if happening["elastic"] else (1.0, 0.0)
    for dimensions, samples in ((2, sorted(in_plane)), (3, sorted(in_space))):
        image, labels = _warped(image, labels, samples, dimensions, happening, draws, spacing_um, lengths_um)
    return image, labels


def _mirrored(image: Tensor, labels: Tensor, draws: Draws, spacing_um: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Flips and quarter turns: no value changes."""
    turned = set(draws.chosen("rotate90"))
    has_quarters = math.isclose(spacing_um[1], spacing_um[2], rel_tol=1e-3) and image.shape[-1] == image.shape[-2]
    flips = draws.numbers["flip"] < draws.probabilities["flip"]
    if not turned and not flips[:, :3].any():
        return image, labels
    images, marks = [], []
    for sample in range(len(image)):
        # where slices are channels their order is reversed along Z, and the middle one's labels have nothing to reverse
        axes = {axis for axis, is_flipped in zip((-3, -2, -1), flips[sample].tolist(), strict=False) if is_flipped}
        turns = 0
        if sample in turned:
            turns = 1 + int(3 * draws.numbers["rotate90"][sample, 1]) if has_quarters else 2
        images.append(_placed(image[sample], axes, turns))
        marks.append(_placed(labels[sample], axes if image.ndim == 5 else axes - {-3}, turns))
    return torch.stack(images), torch.stack(marks)


def _placed(patch: Tensor, flipped: set[int], turns: int) -> Tensor:
    """Mirror along axes, then turn by quarters from Y towards X, with one copy."""
    axes = flipped ^ [set(), {-1}, {-2, -1}, {-2}][turns]
    patch = patch.flip(sorted(axes)) if axes else patch
    return patch.transpose(-2, -1) if turns % 2 else patch


def _warped(
    image: Tensor,
    labels: Tensor,
    samples: Sequence[int],
    dimensions: int,
    happening: Mapping[str, set[int]],
    draws: Draws,
    spacing_um: Sequence[float],
    lengths_um: tuple[float, float],
) -> tuple[Tensor, Tensor]:
    """Resample some samples of a batch, in the plane (all slices alike) or in space."""
    if not samples:
        return image, labels
    stay = image.ndim - dimensions
    planes, marks = image.flatten(1, stay - 1).clone(), labels.flatten(1, stay - 1).clone()
    sizes, axes_um = planes.shape[2:], spacing_um[-dimensions:]
    step = max(1, VOXELS_AT_ONCE // math.prod(sizes))
    for begin in range(0, len(samples), step):
        part = list(samples[begin : begin + step])
        displacement = None
        if happening["elastic"] & set(part):
            lattice = _lattice(sizes, axes_um, sigma_um=lengths_um[0])
            noise = torch.stack(
                [_noise(draws.numbers["elastic"][k], lattice, k in happening["elastic"], lengths_um[1]) for k in part]
            )
            displacement = smooth_field(noise.to(image.device), sizes, axes_um, sigma_um=lengths_um[0])
        matrices = torch.stack([_matrix(draws, happening, k, dimensions) for k in part])
        planes[part], marks[part] = resampled(
            planes[part], marks[part], matrices=matrices, spacing_um=axes_um, displacement_um=displacement
        )
    return planes.reshape(image.shape), marks.reshape(labels.shape)


def _matrix(draws: Draws, happening: Mapping[str, set[int]], sample: int, dimensions: int) -> Tensor:
    """From a place in the result to the place in the patch that is shown there, in um from the centre."""
    matrix = torch.eye(dimensions, dtype=torch.float64)
    if sample in happening["affine"]:
        number = draws.numbers["affine"][sample]
        angle, scale = between(number[1], (-math.pi, math.pi)), between(number[2], SCALES)
        matrix[-2:, -2:] = turn_in_plane(float(angle)) / scale
    if sample in happening["rotate"]:
        number = draws.numbers["rotate"][sample]
        turn = turn_in_plane(2 * math.pi * float(number[1])) if dimensions == 2 else turn_in_space(number[1:4].tolist())
        matrix = turn @ matrix
    if sample in happening["scale"]:
        low, high = ZOOMS
        matrix = matrix / (low * (high / low) ** float(draws.numbers["scale"][sample, 1]))
    return matrix


def turn_in_plane(angle: float) -> Tensor:
    """Rotation from X towards Y.

    Parameters
    ----------
    angle : float
        Radians.

    Returns
    -------
    matrix : Tensor of float64, shape (2, 2)
        From places (Y, X) in the result to places in the patch.
    """
    cosine, sine = math.cos(angle), math.sin(angle)
    return torch.tensor([[cosine, -sine], [sine, cosine]], dtype=torch.float64)


def turn_in_space(numbers: Sequence[float]) -> Tensor:
    """Rotation about any axis, every one as likely.

    Parameters
    ----------
    numbers : sequence of float
        Three, from 0 to 1.

    Returns
    -------
    matrix : Tensor of float64, shape (3, 3)

    References
    ----------
    .. [1] Shoemake (1992). Uniform random rotations. Graphics Gems III, 124-132.
    """
    share, one, other = numbers
    one, other = 2 * math.pi * one, 2 * math.pi * other
    small, large = math.sqrt(1 - share), math.sqrt(share)
    x, y, z, w = small * math.sin(one), small * math.cos(one), large * math.sin(other), large * math.cos(other)
    return torch.tensor(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ],
        dtype=torch.float64,
    )


def _lattice(sizes: Sequence[int], spacing_um: Sequence[float], *, sigma_um: float) -> list[int]:
    """Points a sigma apart that cover a patch and what reaches into it."""
    return [
        math.ceil(size * spacing / sigma_um) + 2 * math.ceil(ELASTIC_REACH) + 1
        for size, spacing in zip(sizes, spacing_um, strict=True)
    ]


def _noise(numbers: Tensor, lattice: Sequence[int], happens: bool, amplitude_um: float) -> Tensor:
    amplitude = float(between(numbers[1], ELASTIC_SHARES)) * amplitude_um if happens else 0.0
    own = seeded(numbers[2], torch.device("cpu"))  # so small that its way to the device costs nothing
    return amplitude * torch.randn((len(lattice), *lattice), generator=own)


def smooth_field(noise: Tensor, sizes: Sequence[int], spacing_um: Sequence[float], *, sigma_um: float) -> Tensor:
    """Sums of Gaussians that are weighted at random.

    Parameters
    ----------
    noise : Tensor of float32, shape (N, D, points along each axis)
        Weights of Gaussians a sigma apart; as many as `_lattice` says.
    sizes : sequence of int
        Of the patch, along the same axes.
    spacing_um : sequence of float
        Voxel edge lengths along these axes.
    sigma_um : float
        Of a Gaussian.

    Returns
    -------
    field : Tensor of float32, shape (N, D, *sizes)
        Of the same deviation as the noise, everywhere.
    """
    field = noise
    for size, spacing in zip(sizes, spacing_um, strict=True):
        points = field.shape[2]
        at = (torch.arange(size, device=noise.device, dtype=noise.dtype) + 0.5 - size / 2) * (spacing / sigma_um)
        knots = torch.arange(points, device=noise.device, dtype=noise.dtype) - (points - 1) / 2
        weights = torch.exp(-0.5 * (at[:, None] - knots) ** 2)  # (size, points)
        weights = weights / weights.square().sum(dim=1, keepdim=True).sqrt()
        field = field.movedim(2, -1) @ weights.T  # the axes come round to where they were
    return field


def resampled(
    image: Tensor,
    labels: Tensor,
    *,
    matrices: Tensor,
    spacing_um: Sequence[float],
    displacement_um: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Show at each voxel what is elsewhere in the patch.

    Parameters
    ----------
    image : Tensor of float32, shape (N, C, *sizes)
        Along D axes, 2 or 3; interpolated linearly, reflected at its border.
    labels : Tensor of float32, shape (N, K, *sizes)
        Nearest neighbour; 0 outside.
    matrices : Tensor of float64, shape (N, D, D)
        From a place in the result to the place that is shown there, in um from the centre.
    spacing_um : sequence of float
        Voxel edge lengths along the D axes.
    displacement_um : Tensor of float32, shape (N, D, *sizes), optional
        Added to that place.

    Returns
    -------
    image, labels : Tensor
    """
    if image.device.type == "cpu":
        return augment_kernels.resampled(
            image, labels, matrices=matrices, spacing_um=spacing_um, displacement_um=displacement_um
        )
    return resampled_by_torch(image, labels, matrices=matrices, spacing_um=spacing_um, displacement_um=displacement_um)


def resampled_by_torch(
    image: Tensor, labels: Tensor, *, matrices: Tensor, spacing_um: Sequence[float], displacement_um: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The same as `resampled`, on any device; a CPU is several times faster with `augment_kernels.resampled`.

    Parameters
    ----------
    image, labels, matrices, spacing_um, displacement_um
        As in `resampled`.

    Returns
    -------
    image, labels : Tensor
    """
    sizes = image.shape[2:]
    edges = torch.tensor([size * spacing for size, spacing in zip(sizes, spacing_um, strict=True)], dtype=torch.float64)
    theta = (matrices * edges / edges[:, None]).to(image)  # in halves of the patch's edges
    ramps = [
        ((torch.arange(size, device=image.device, dtype=image.dtype) + 0.5) * (2 / size) - 1).view(
            -1, *[1] * (len(sizes) - 1 - axis)
        )
        for axis, size in enumerate(sizes)
    ]
    places = image.new_empty(len(image), len(sizes), *sizes)
    for row, place in zip(theta.unbind(1), places.unbind(1), strict=True):
        weights = row.T.reshape(len(sizes), -1, *[1] * len(sizes))  # (D, N, 1, ...)
        torch.add(sum(w * r for w, r in zip(weights[:-1], ramps[:-1], strict=True)), weights[-1] * ramps[-1], out=place)
    if displacement_um is not None:
        places += displacement_um * (2 / edges).to(image).view(-1, *[1] * len(sizes))
    return _looked_up(image, labels, places)


def _looked_up(image: Tensor, labels: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Values at places, in halves of the patch's edges from its centre; see `resampled`."""
    marks = F.grid_sample(labels, _grid(places), mode="nearest", padding_mode="zeros", align_corners=False)
    # grid_sample's own reflection takes twice as long in 3-D
    inside = 1 - (places.add_(1).remainder_(4).sub_(2)).abs_()
    inside *= torch.tensor([size / (size + 2) for size in image.shape[2:]]).to(image).view(-1, *[1] * (image.ndim - 2))
    padded = F.pad(image, (1,) * (2 * (image.ndim - 2)), mode="replicate")
    values = F.grid_sample(padded, _grid(inside), mode="bilinear", padding_mode="zeros", align_corners=False)
    return values, marks


def _grid(places: Tensor) -> Tensor:
    """Places (N, D, *sizes) as grid_sample takes them: the fastest axis first."""
    return places.flip(1).movedim(1, -1)
