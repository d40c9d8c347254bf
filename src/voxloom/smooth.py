"""Gaussian smoothing of an anisotropic volume, the same in a block with a halo as in the whole."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxloom.blocks import Shape
from voxloom.errors import VolumeError
from voxloom.kernels import compiled
from voxloom.volume import Vector

TRUNCATE = 4.0
"""The kernel ends at this many standard deviations."""


def gaussian(values: NDArray[Any], *, spacing_um: Vector, sigma_um: float) -> NDArray[np.float32]:
    """Convolve with a Gaussian of a physical width.

    Parameters
    ----------
    values : ndarray, shape (Z, Y, X)
        Grey values or a mask. Not modified.
    spacing_um : tuple of float
        Voxel edge lengths along (Z, Y, X), in micrometres.
    sigma_um : float
        Standard deviation in micrometres, the same along all axes. Positive.

    Returns
    -------
    smooth : ndarray of float32, shape (Z, Y, X)

    Raises
    ------
    VolumeError
        If `values` is not 3D or `sigma_um` is not positive.

    Notes
    -----
    The kernel ends at four standard deviations and the volume is mirrored at its border (d c b a | a b c d), as in
    ``scipy.ndimage.gaussian_filter``, whose result it equals up to rounding. Sums are taken in double precision from
    the middle outwards: a constant stays that constant, and the flipped input gives the flipped result.
    """
    if values.ndim != 3:
        raise VolumeError(f"the array must have three axes (Z, Y, X), got {values.ndim}")
    if not sigma_um > 0:
        raise VolumeError(f"sigma_um must be a positive number of micrometres, got {sigma_um}")
    kernels = []
    for spacing, reach in zip(spacing_um, smooth_reach_voxels(spacing_um=spacing_um, sigma_um=sigma_um), strict=True):
        weights = np.exp(-0.5 * (np.arange(reach + 1) * (spacing / sigma_um)) ** 2)
        kernels.append(weights / (weights[0] + 2 * weights[1:].sum()))
    out = np.empty(values.shape, np.float32)
    _convolve(np.ascontiguousarray(values), *kernels, out)
    return out


def smooth_reach_voxels(*, spacing_um: Vector, sigma_um: float) -> Shape:
    """Voxels (Z, Y, X) of context on each side that `gaussian` needs.

    Parameters
    ----------
    spacing_um, sigma_um
        As in `gaussian`.

    Returns
    -------
    reach_voxels : tuple of int
    """
    z, y, x = (int(TRUNCATE * sigma_um / spacing + 0.5) for spacing in spacing_um)
    return z, y, x


@compiled
def _mirrored(index, size):  # type: ignore[no-untyped-def]
    index = index % (2 * size)
    return index if index < size else 2 * size - 1 - index


@compiled
def _convolve(values, kernel_z, kernel_y, kernel_x, out):  # type: ignore[no-untyped-def]
    """Slice by slice: along z into a plane, along y into a row, along x into the result."""
    depth, height, width = values.shape
    reach = kernel_x.size - 1
    plane = np.empty((height, width), np.float64)
    row = np.empty(width + 2 * reach, np.float64)
    line = np.empty(width, np.float64)
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                plane[y, x] = kernel_z[0] * values[z, y, x]
            for step in range(1, kernel_z.size):
                before, after = values[_mirrored(z - step, depth), y], values[_mirrored(z + step, depth), y]
                for x in range(width):
                    plane[y, x] += kernel_z[step] * (np.float64(before[x]) + np.float64(after[x]))
        for y in range(height):
            for x in range(width):
                row[reach + x] = kernel_y[0] * plane[y, x]
            for step in range(1, kernel_y.size):
                above, below = plane[_mirrored(y - step, height)], plane[_mirrored(y + step, height)]
                for x in range(width):
                    row[reach + x] += kernel_y[step] * (above[x] + below[x])
            for x in range(reach):
                row[x] = row[reach + _mirrored(x - reach, width)]
                row[reach + width + x] = row[reach + _mirrored(width + x, width)]
            for x in range(width):
                line[x] = kernel_x[0] * row[reach + x]
            for step in range(1, kernel_x.size):
                for x in range(width):
                    line[x] += kernel_x[step] * (row[reach + x - step] + row[reach + x + step])
            for x in range(width):
                out[z, y, x] = line[x]
