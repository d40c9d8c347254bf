"""Which way the phantom's fibres run, and random fields that follow them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from voxloom.deferred import Deferred

if TYPE_CHECKING:
    from scipy import ndimage
else:
    ndimage = Deferred("scipy.ndimage")

Floats = NDArray[np.float32]

TEXTURE_SAMPLES = (96, 160, 320)
"""Most samples of a texture along, across and aside of the fibres before it repeats, which their bends hide."""


@dataclass(frozen=True)
class Fibres:
    """Curved coordinates in which fibres run straight.

    Parameters
    ----------
    along_um, across_um, aside_um : ndarray of float32, shape (Z, Y, X)
        Position along the fibres, and on the two axes across them.
    spacing_um : tuple of float
        Voxel edge lengths (Z, Y, X).
    """

    along_um: Floats
    across_um: Floats
    aside_um: Floats
    spacing_um: tuple[float, float, float]


def smooth_field(
    shape: tuple[int, ...], spacing_um: tuple[float, ...], *, correlation_um: float, rng: np.random.Generator
) -> Floats:
    """Gaussian random field of unit variance that changes over `correlation_um`, sampled on a volume's grid.

    Parameters
    ----------
    shape : tuple of int
        Voxels (Z, Y, X).
    spacing_um : tuple of float
        Voxel edge lengths.
    correlation_um : float
        Standard deviation of the Gaussian that made it smooth.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    field : ndarray of float32
        Drawn on a grid four times finer than `correlation_um` and interpolated.
    """
    step_um = correlation_um / 4
    margin = 16  # samples: four deviations, so that no edge effect is left
    coarse_shape = [int(np.ceil(n * s / step_um)) + 2 + 2 * margin for n, s in zip(shape, spacing_um, strict=True)]
    coarse = ndimage.gaussian_filter(rng.standard_normal(coarse_shape, dtype=np.float32), 4.0, mode="wrap")
    coarse *= np.float32((2 * np.sqrt(np.pi) * 4.0) ** (len(shape) / 2))  # the filter's gain on white noise
    scale = [s / step_um for s in spacing_um]
    return ndimage.affine_transform(coarse, scale, offset=margin, output_shape=shape, order=1, output=np.float32)


def fibre_frame(
    shape: tuple[int, int, int],
    spacing_um: tuple[float, float, float],
    *,
    tilt_degrees: float,
    rng: np.random.Generator,
) -> Fibres:
    """Lay a direction of fibres through the volume, gently bent.

    Parameters
    ----------
    shape : tuple of int
        Voxels (Z, Y, X).
    spacing_um : tuple of float
        Voxel edge lengths.
    tilt_degrees : float
        Standard deviation of the angle between fibres and the XY plane.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    fibres : Fibres
        Coordinates with their zero near the volume's centre.
    """
    azimuth = np.deg2rad(rng.choice([45.0, 135.0]) + rng.uniform(-20, 20))  # oblique, as in the volume measured
    tilt = np.deg2rad(tilt_degrees) * rng.standard_normal()
    along = np.array([np.sin(tilt), np.cos(tilt) * np.sin(azimuth), np.cos(tilt) * np.cos(azimuth)])
    across = np.cross(along, [1.0, 0.0, 0.0])
    across /= np.linalg.norm(across)
    aside = np.cross(along, across)
    z, y, x = (
        (np.arange(n, dtype=np.float32) - np.float32((n - 1) / 2)) * np.float32(s)
        for n, s in zip(shape, spacing_um, strict=True)
    )
    grids = []
    for direction, bend_um in ((along, 0.0), (across, 14.0), (aside, 14.0)):
        dz, dy, dx = direction.astype(np.float32)
        grid = dz * z[:, None, None] + dy * y[None, :, None] + dx * x[None, None, :]
        if bend_um:
            grid += np.float32(bend_um) * smooth_field(shape, spacing_um, correlation_um=60.0, rng=rng)
        grids.append(grid)
    return Fibres(along_um=grids[0], across_um=grids[1], aside_um=grids[2], spacing_um=spacing_um)


def sample_along_fibres(reference: Floats, steps_um: tuple[float, float, float], fibres: Fibres) -> Floats:
    """Read a reference block, whose axes are (along, across, aside), at every voxel.

    Parameters
    ----------
    reference : ndarray of float32, 3D
        Sampled every `steps_um` with its centre at the zero of the coordinates. Repeats itself outside.
    steps_um : tuple of float
        Distance of its samples.
    fibres : Fibres
        Where every voxel lies.

    Returns
    -------
    values : ndarray of float32, shape (Z, Y, X)
        Linearly interpolated.
    """
    axes = (fibres.along_um, fibres.across_um, fibres.aside_um)
    values = np.empty(fibres.along_um.shape, dtype=np.float32)
    for z in range(len(values)):  # slice by slice: the index arrays stay small
        places = [grid[z] / step + (n - 1) / 2 for grid, step, n in zip(axes, steps_um, reference.shape, strict=True)]
        values[z] = ndimage.map_coordinates(reference, places, order=1, mode="grid-wrap")
    return values


def fibrous_noise(fibres: Fibres, *, along_um: float, across_um: float, rng: np.random.Generator) -> Floats:
    """Gaussian random field of about unit variance, stretched along the fibres.

    Parameters
    ----------
    fibres : Fibres
        Where every voxel lies.
    along_um, across_um : float
        Standard deviations of the Gaussian that made it smooth.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    noise : ndarray of float32, shape (Z, Y, X)
        Mean 0, standard deviation 1.
    """
    steps_um = (along_um / 2, across_um / 1.5, across_um / 1.5)
    axes = (fibres.along_um, fibres.across_um, fibres.aside_um)
    needed = [int(np.ceil(2 * float(np.abs(axis).max()) / step)) + 4 for axis, step in zip(axes, steps_um, strict=True)]
    white = rng.standard_normal(np.minimum(needed, TEXTURE_SAMPLES), dtype=np.float32)
    reference = ndimage.gaussian_filter(white, (2.0, 1.5, 1.5), mode="wrap")
    noise = sample_along_fibres(reference, steps_um, fibres)
    noise -= noise.mean()
    noise /= noise.std()
    return noise
