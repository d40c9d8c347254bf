"""Watershed contours of a membrane prediction, and their mixture with it that closes gaps; section by section."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from voxloom.blocks import Readable, Writable, map_blocks
from voxloom.budget import Layout, sections_within
from voxloom.deferred import Deferred
from voxloom.errors import VolumeError

if TYPE_CHECKING:
    from scipy import ndimage
    from skimage import segmentation
else:
    ndimage = Deferred("scipy.ndimage")
    segmentation = Deferred("skimage.segmentation")

OPENING = (3, 3)
"""Pixels (Y, X) of the square that opens the probability before markers are taken from it."""

SECTION_BYTES = 90
"""For each pixel of a section in work: its probability, markers and labels, and the queue of one that is all noise."""

SLAB_BYTES = 3
"""For each voxel of a slab: as stored, fused, and the copy that is written."""


def watershed_contours(membrane: NDArray[np.floating[Any]], *, marker_below: float) -> NDArray[np.bool_]:
    """Closed lines of one pixel along the ridges of a section's membrane probability.

    Parameters
    ----------
    membrane : ndarray of float, shape (Y, X)
        Probability of membrane. Not modified.
    marker_below : float
        Interiors are sure where the probability, opened with a square of 3 x 3 pixels, is below this: their 4-connected
        components are what the watershed [1]_ floods from.

    Returns
    -------
    contours : ndarray of bool, shape (Y, X)
        True between two basins, and where none is reached. A section of one basin has none; one without a sure
        interior has nothing to flood from, and is contour throughout.

    Raises
    ------
    VolumeError
        If `membrane` is not a 2D array of floating point numbers.

    Notes
    -----
    Where two basins meet on a plateau the earlier pixel of the queue decides, as in scikit-image.

    References
    ----------
    .. [1] Chen, Qi, Cheng, Heng (2016). AAAI: deep contextual networks for neuronal structure segmentation.

    Examples
    --------
    >>> watershed_contours(np.array([[0.0, 0.3, 0.4, 0.3, 0.0]] * 3), marker_below=0.25)[1]
    array([False, False,  True, False, False])
    """
    if membrane.ndim != 2 or membrane.dtype.kind != "f":
        raise VolumeError(
            f"membrane must be a 2D array of probabilities, got {membrane.ndim}D {membrane.dtype}; "
            "decode what is stored first (stored / 255)"
        )
    markers, _ = ndimage.label(ndimage.grey_opening(membrane, OPENING) < marker_below)
    basins = segmentation.watershed(membrane, markers, connectivity=1, watershed_line=True)
    return np.asarray(basins == 0)


def fuse(
    membrane: NDArray[np.floating[Any]], contours: NDArray[np.bool_], *, weight: float
) -> NDArray[np.floating[Any]]:
    """The mean of a probability and its contours.

    Parameters
    ----------
    membrane : ndarray of float
        Probability of membrane. Not modified.
    contours : ndarray of bool, same shape
        See `watershed_contours`.
    weight : float
        Of the contours, 0 to 1; 0 leaves the probability as it is.

    Returns
    -------
    fused : ndarray of float, same shape
    """
    return weight * contours + (1 - weight) * membrane


def fuse_stored(stored: NDArray[np.uint8], contours: NDArray[np.bool_], *, weight: float) -> NDArray[np.uint8]:
    """As `fuse`, of probabilities that are stored as uint8 (255 is 1), rounded once.

    Parameters
    ----------
    stored : ndarray of uint8
    contours : ndarray of bool, same shape
    weight : float

    Returns
    -------
    fused : ndarray of uint8, same shape
    """
    return np.rint(255 * fuse(stored / 255, contours, weight=weight)).astype(np.uint8)


def fuse_section(stored: NDArray[np.uint8], *, weight: float, marker_below: float) -> NDArray[np.uint8]:
    """A stored section with its contours in it.

    Parameters
    ----------
    stored : ndarray of uint8, shape (Y, X)
        Probability of membrane, 255 is 1.
    weight, marker_below : float
        See `fuse` and `watershed_contours`.

    Returns
    -------
    fused : ndarray of uint8, shape (Y, X)
    """
    if weight == 0:
        return stored
    return fuse_stored(stored, watershed_contours(stored / 255, marker_below=marker_below), weight=weight)


def fuse_volume(
    prediction: Readable, out: Writable, *, weight: float, marker_below: float, memory_mib: float, threads: int = 1
) -> None:
    """Fuse every section of a stored prediction with its contours.

    Parameters
    ----------
    prediction : volume of uint8, shape (Z, Y, X)
        Probability of membrane, 255 is 1.
    out : volume of uint8, shape (Z, Y, X)
        Takes the fused probability.
    weight, marker_below : float
        See `fuse` and `watershed_contours`.
    memory_mib : float
        Budget, in MiB.
    threads : int
        Sections in work at a time, fewer where the budget holds fewer.

    Raises
    ------
    VolumeError
        If the prediction isn't stored as uint8, or the budget doesn't hold one section.

    Notes
    -----
    Sections don't know of each other, so that neither threads nor budget show in the result.
    """
    dtype = prediction[0:1, 0:1, 0:1].dtype
    if dtype != np.uint8:
        raise VolumeError(f"contours are fused with a prediction of uint8, got {dtype}; predict it anew")
    layout = fusion_layout(prediction.shape, out, memory_mib=memory_mib, threads=threads)
    fused = partial(fuse_section, weight=weight, marker_below=marker_below)
    with ThreadPoolExecutor(layout.threads) as pool:
        map_blocks(
            lambda slab: np.stack(list(pool.map(fused, slab))),
            prediction,
            out=out,
            block_shape=layout.block_shape,
            description="fused contours of slab",
        )


def fusion_layout(shape: Sequence[int], out: Any, *, memory_mib: float, threads: int) -> Layout:
    """The slabs that are read and written at once, and how many of their sections are in work.

    Parameters
    ----------
    shape : sequence of int
        (Z, Y, X).
    out : object
        The volume that is written; its ``shard_shape`` counts where it has one.
    memory_mib : float
        Budget, in MiB.
    threads : int
        Sections that could be in work at a time.

    Returns
    -------
    layout : Layout
        Its threads work on the sections of one slab.

    Raises
    ------
    VolumeError
        If the budget doesn't hold one section.
    """
    return sections_within(
        shape,
        section_bytes=SECTION_BYTES,
        slab_bytes=SLAB_BYTES,
        memory_mib=memory_mib,
        shards_of=out,
        threads=threads,
    )
