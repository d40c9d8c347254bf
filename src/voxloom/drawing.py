"""What pictures of slices are made of: enlarged voxels, outlines of masks, tinted voxels, scale bars."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from voxloom.deferred import Deferred

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Rectangle
else:
    to_rgb = Deferred("matplotlib.colors", "to_rgb")
    Rectangle = Deferred("matplotlib.patches", "Rectangle")


def enlarged(array: NDArray[Any], scale: int) -> NDArray[Any]:
    """Every voxel as a square of pixels.

    Parameters
    ----------
    array : ndarray, shape (Y, X)
    scale : int
        Edge of the square.

    Returns
    -------
    enlarged : ndarray

    Examples
    --------
    >>> enlarged(np.array([[1, 2]]), 2).tolist()
    [[1, 1, 2, 2], [1, 1, 2, 2]]
    """
    return array.repeat(scale, axis=0).repeat(scale, axis=1)


def outline(mask: NDArray[np.bool_], scale: int) -> NDArray[np.bool_]:
    """The mask's inner edge, as fine as the enlarged picture allows; the slice's border is no edge.

    Parameters
    ----------
    mask : ndarray of bool, shape (Y, X)
        Enlarged.
    scale : int
        By how much.

    Returns
    -------
    outline : ndarray of bool
    """
    from scipy import ndimage  # the job begins its work without waiting for what only the drawing needs

    inner = ndimage.binary_erosion(mask, iterations=max(1, min(2, scale - 1)), border_value=1)
    edge: NDArray[np.bool_] = mask & ~inner
    return edge


def fill(picture: NDArray[np.float64], where: NDArray[np.bool_], colour: str, opacity: float) -> None:
    """Tint a part of a picture.

    Parameters
    ----------
    picture : ndarray of float64, shape (Y, X, 3)
        Red, green and blue from 0 to 1. Modified.
    where : ndarray of bool, shape (Y, X)
    colour : str
    opacity : float
        From 0 to 1.
    """
    picture[where] = (1 - opacity) * picture[where] + opacity * np.array(to_rgb(colour))


def scale_bar_um(width_um: float) -> float:
    """A round length of about a quarter of a picture.

    Parameters
    ----------
    width_um : float
        Width of the picture in micrometres. Positive.

    Returns
    -------
    length_um : float
        1, 2 or 5 times a power of ten, at most 30 % of the width.

    Examples
    --------
    >>> scale_bar_um(234.0)
    50.0
    """
    target = 0.3 * width_um
    power = 10.0 ** math.floor(math.log10(target))
    return max(step * power for step in (1.0, 2.0, 5.0) if step * power <= target * (1 + 1e-9))


def scale_bar(axis: Axes, extent: tuple[float, float, float, float]) -> None:
    """Draw a bar of `scale_bar_um` in the lower left corner.

    Parameters
    ----------
    axis : matplotlib.axes.Axes
        Shows a picture.
    extent : tuple of float
        Of the picture in micrometres: 0, width, height, 0.
    """
    width, height = extent[1], extent[2]
    length = scale_bar_um(width)
    thickness, margin = height / 50, width / 25
    bottom = height - margin
    box = {"facecolor": "black", "alpha": 0.55, "edgecolor": "none", "pad": 1.5}
    corner = (margin, bottom - thickness)
    axis.add_patch(Rectangle(corner, length, thickness, facecolor="white", edgecolor="black", lw=0.5))
    axis.text(margin, bottom - 1.8 * thickness, f"{length:g} µm", color="white", va="bottom", fontsize=8.5, bbox=box)
