"""How the phantom's anatomy turns into grey values: tissue texture, blur, phase fringe, noise, rings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from voxloom.deferred import Deferred
from voxloom.phantom_anatomy import Cells, Region, Vessels
from voxloom.phantom_fibres import Fibres, Floats, fibrous_noise, smooth_field

if TYPE_CHECKING:
    from scipy import ndimage
else:
    ndimage = Deferred("scipy.ndimage")

LUMEN_GREY = 1.0
WALL_BRIGHTER = 30.0
"""The wall over the tissue around it: with the fringe, the +10 to +18 measured 3 to 4 voxels from a lumen."""

DRIFT_GREY = 4.0
"""Standard deviation of what tissue and cupping change over about 100 um."""

AXON_TEXTURE_GREY = 28.0
NEUROPIL_TEXTURE_GREY = 46.0
"""Standard deviations before the blur, which leaves about half."""

BLUR_VOXELS = (1.75, 1.15, 0.65)
"""Along (Z, Y, X), 1.2 in the mean: the published volume was cut anew at a slant after reconstruction."""

FRINGE_SHARE = 0.15
FRINGE_VOXELS = 3.0
NOISE_GREY = 5.5
NOISE_VOXELS = (2.0, 1.3, 0.9)
"""Correlation of the noise along (Z, Y, X)."""

RING_GREY = 3.0
SPECK_SHARE = 4e-6
COUNTS = 400.0
"""Photons behind a voxel of mean grey."""


def _cover(distance_um: Floats, spacing_um: tuple[float, float, float]) -> Floats:
    """Return the share of each voxel, about, that lies inside a surface."""
    return np.clip(0.5 - distance_um / np.float32(np.mean(spacing_um)), 0, 1)


def tissue_greys(
    fibres: Fibres, *, region: Region, bundles: Floats, vessels: Vessels, cells: Cells, rng: np.random.Generator
) -> Floats:
    """Grey value of the tissue itself, before any microscope looks at it.

    Parameters
    ----------
    fibres : Fibres
        Where every voxel lies along and across the fibres.
    region : Region
        Gives mean grey values.
    bundles : ndarray of float32, shape (Z, Y, X)
        Signed distance to the fascicles, in micrometres.
    vessels : Vessels
        Signed distances to the vessels.
    cells : Cells
        Signed distances to the cells, and their greys.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    tissue : ndarray of float32, shape (Z, Y, X)
        Grey values, unbounded.
    """
    shape, spacing_um = bundles.shape, fibres.spacing_um
    drift = np.float32(DRIFT_GREY) * smooth_field(shape, spacing_um, correlation_um=50.0, rng=rng)
    drift -= drift.mean()  # so that an absolute threshold means the same in every volume of a region
    tissue = np.float32(0.97) * fibrous_noise(fibres, along_um=2.0, across_um=0.6, rng=rng)
    tissue += np.float32(0.24) * fibrous_noise(fibres, along_um=6.0, across_um=2.0, rng=rng)
    tissue *= np.float32(NEUROPIL_TEXTURE_GREY)
    tissue += np.float32(region.neuropil_grey)
    if region.axon_fraction > 0:
        strands = np.float32(0.97) * fibrous_noise(fibres, along_um=12.0, across_um=0.6, rng=rng)
        strands += np.float32(0.24) * fibrous_noise(fibres, along_um=25.0, across_um=2.2, rng=rng)
        strands *= np.float32(AXON_TEXTURE_GREY)
        strands += np.float32(region.axon_grey)
        tissue += _cover(bundles, spacing_um) * (strands - tissue)
    tissue += drift
    tissue += _cover(cells.distance_um, spacing_um) * (cells.grey - tissue)
    tissue += _cover(vessels.wall_um, spacing_um) * (0.5 * (region.neuropil_grey - tissue) + np.float32(WALL_BRIGHTER))
    tissue += _cover(vessels.lumen_um, spacing_um) * (np.float32(LUMEN_GREY) - tissue)
    return tissue


def ring_artefacts(shape: tuple[int, ...], *, rng: np.random.Generator) -> Floats:
    """Faint arcs round a slightly tilted axis outside the volume, over half of the circumference.

    Parameters
    ----------
    shape : tuple of int
        Voxels (Z, Y, X).
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    rings : ndarray of float32, shape (Z, Y, X)
        Grey values to add.
    """
    depth, height, width = shape
    direction = rng.uniform(0, 2 * np.pi)
    away = rng.uniform(0.9, 1.6) * max(height, width)
    tilt = rng.uniform(-0.1, 0.1, 2)
    z = np.arange(depth, dtype=np.float32)[:, None, None]
    y = np.arange(height, dtype=np.float32)[None, :, None] - (height / 2 + away * np.sin(direction)) - tilt[0] * z
    x = np.arange(width, dtype=np.float32)[None, None, :] - (width / 2 + away * np.cos(direction)) - tilt[1] * z
    radius = np.sqrt(y**2 + x**2)
    profile = ndimage.gaussian_filter1d(rng.standard_normal(int(radius.max()) + 2), 0.7)
    profile *= RING_GREY / profile.std()
    rings = np.interp(radius, np.arange(len(profile)), profile).astype(np.float32)
    # The bright half fades out at a line through the axis that crosses the volume.
    normal = direction + np.pi / 2 + rng.uniform(-0.3, 0.3)
    side = (y * np.sin(normal) + x * np.cos(normal)) / (0.1 * away)
    rings *= 1 / (1 + np.exp(-np.clip(side, -20, 20)))
    return rings


def acquire(tissue: Floats, *, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Look at tissue with the microscope: blur, phase fringe, counting noise, rings, specks, eight bits.

    Parameters
    ----------
    tissue : ndarray of float32, shape (Z, Y, X)
        Grey values. Not modified.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    image : ndarray of uint8, shape (Z, Y, X)
        Clipped to 0 to 255, as the published volume is.
    """
    speck = rng.random(tissue.shape, dtype=np.float32) < SPECK_SHARE
    seen = ndimage.gaussian_filter(np.where(speck, np.float32(4000), tissue), BLUR_VOXELS)
    seen += FRINGE_SHARE * (seen - ndimage.gaussian_filter(seen, FRINGE_VOXELS))
    expected = COUNTS * np.exp(-0.5 * np.clip(seen, 0, 255) / 255)  # more metal lets fewer photons through
    noise = (rng.poisson(expected) - expected).astype(np.float32)
    noise = ndimage.gaussian_filter(noise, NOISE_VOXELS)
    seen += np.float32(NOISE_GREY) / noise.std() * noise
    seen += ring_artefacts(tissue.shape, rng=rng)
    return np.clip(np.rint(seen), 0, 255).astype(np.uint8)
