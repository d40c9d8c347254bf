"""Centre lines of masks, how well those of two masks agree (clDice), and how long they are."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxloom.errors import VolumeError

TILE = (256, 256, 256)
"""Largest box that is made a skeleton at once when a whole volume is scored or measured; bounds the memory."""


def skeletonise(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Thin a mask to lines of one voxel that keep its topology.

    Parameters
    ----------
    mask : ndarray of bool, shape (Y, X) or (Z, Y, X)
        Foreground is True. Not modified.

    Returns
    -------
    skeleton : ndarray of bool, same shape
        Part of `mask`. Two dimensions are thinned as in [1]_, three as in [2]_.

    Raises
    ------
    VolumeError
        If `mask` is not a boolean array of 2 or 3 dimensions.

    Notes
    -----
    scikit-image's thinning, which published clDice values were made with, erases some compact objects (a cube of
    2 x 2 x 2 voxels) in three dimensions. Elongated objects keep their lines.

    References
    ----------
    .. [1] Zhang, Suen (1984). Communications of the ACM 27(3).
    .. [2] Lee, Kashyap, Chu (1994). CVGIP: Graphical Models and Image Processing 56(6).
    """
    from skimage.morphology import skeletonize

    if mask.dtype != np.bool_ or mask.ndim not in (2, 3):
        raise VolumeError(f"a skeleton is made of a 2D or 3D boolean array, got {mask.ndim}D {mask.dtype}")
    skeleton = np.zeros_like(mask)
    if mask.any():
        # only the foreground's box and a border of background: thinning looks at every voxel many times
        box = tuple(slice(max(int(i.min()) - 1, 0), int(i.max()) + 2) for i in np.nonzero(mask))
        method = "zhang" if mask.ndim == 2 else "lee"
        skeleton[box] = skeletonize(np.ascontiguousarray(mask[box]), method=method) > 0
    return skeleton


@dataclass(frozen=True)
class CentreLineCounts:
    """Skeleton voxels of a prediction and of a truth, and those that lie in the other's mask; they add up over tiles.

    Parameters
    ----------
    predicted, predicted_inside : int
        Voxels of the prediction's skeleton, and those of them in the true mask.
    true, true_inside : int
        Voxels of the truth's skeleton, and those of them in the predicted mask.
    """

    predicted: int = 0
    predicted_inside: int = 0
    true: int = 0
    true_inside: int = 0

    def __add__(self, other: CentreLineCounts) -> CentreLineCounts:
        return CentreLineCounts(
            self.predicted + other.predicted,
            self.predicted_inside + other.predicted_inside,
            self.true + other.true,
            self.true_inside + other.true_inside,
        )

    @property
    def cldice(self) -> float:
        """Harmonic mean of both shares; 0 when one skeleton is empty, 1 when both are."""
        if self.predicted == 0 and self.true == 0:
            return 1.0
        if self.predicted == 0 or self.true == 0:
            return 0.0
        precision, sensitivity = self.predicted_inside / self.predicted, self.true_inside / self.true
        return 2 * precision * sensitivity / (precision + sensitivity) if precision + sensitivity else 0.0


def centre_line_counts(
    prediction: NDArray[np.bool_], truth: NDArray[np.bool_], *, ignore: NDArray[np.bool_] | None = None
) -> CentreLineCounts:
    """Count what clDice is made of.

    Parameters
    ----------
    prediction, truth : ndarray of bool, shape (Y, X) or (Z, Y, X)
    ignore : ndarray of bool, same shape, optional
        Voxels that don't count: both masks are background there before they are thinned.

    Returns
    -------
    counts : CentreLineCounts

    Raises
    ------
    VolumeError
        If shapes differ.
    """
    if prediction.shape != truth.shape or (ignore is not None and ignore.shape != truth.shape):
        raise VolumeError(
            f"prediction has shape {prediction.shape} but truth {truth.shape}; they must be the same voxels"
        )
    if ignore is not None:
        prediction, truth = prediction & ~ignore, truth & ~ignore
    of_prediction, of_truth = skeletonise(prediction), skeletonise(truth)
    return CentreLineCounts(
        predicted=int(of_prediction.sum()),
        predicted_inside=int((of_prediction & truth).sum()),
        true=int(of_truth.sum()),
        true_inside=int((of_truth & prediction).sum()),
    )


def cldice(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Centre-line Dice: do the lines of each lie in the other?

    Parameters
    ----------
    prediction, truth : ndarray of bool, shape (Y, X) or (Z, Y, X)

    Returns
    -------
    cldice : float
        Between 0 and 1; 1 when both are empty, 0 when only one is.

    References
    ----------
    .. [1] Shit et al. (2021). CVPR, clDice: a novel topology-preserving loss function.
    """
    return centre_line_counts(prediction, truth).cldice


def skeleton_length_um(
    skeleton: NDArray[np.bool_],
    *,
    spacing_um: tuple[float, float, float],
    inner: tuple[slice, ...] = (slice(None), slice(None), slice(None)),
) -> float:
    """Length of lines of voxels, along the steps between neighbouring voxel centres.

    Parameters
    ----------
    skeleton : ndarray of bool, shape (Z, Y, X)
    spacing_um : tuple of float
        Voxel edge lengths along (Z, Y, X), in micrometres.
    inner : tuple of slice
        Only steps that begin in here (at the voxel that is first in C order) count, so that the lengths of tiles with
        a halo add up.

    Returns
    -------
    length_um : float
        Sum over pairs of 26-neighbours. A diagonal is left out where its ends are joined by shorter steps over a third
        skeleton voxel, so that corners and junctions aren't counted twice. A single voxel has no length.

    Examples
    --------
    >>> line = np.ones((1, 1, 4), dtype=bool)
    >>> skeleton_length_um(line, spacing_um=(1.0, 1.0, 2.0))
    6.0
    """
    padded = np.pad(skeleton, 1)
    begins = np.zeros_like(padded)
    begins[1:-1, 1:-1, 1:-1][inner] = skeleton[inner]
    voxels = np.argwhere(begins)
    steps = [s for s in itertools.product((-1, 0, 1), repeat=3) if s > (0, 0, 0)]  # each pair once
    length = 0.0
    for step in steps:
        linked = voxels[_is_set(padded, voxels + step)]
        for via in itertools.product((-1, 0, 1), repeat=3):
            rest = tuple(s - v for s, v in zip(step, via, strict=True))
            is_shorter = _is_shorter(via, step) and _is_shorter(rest, step)
            if is_shorter and len(linked):
                linked = linked[~_is_set(padded, linked + via)]
        length += len(linked) * float(np.linalg.norm(np.multiply(step, spacing_um)))
    return length


def _is_set(padded: NDArray[np.bool_], places: NDArray[Any]) -> NDArray[np.bool_]:
    return padded[places[:, 0], places[:, 1], places[:, 2]]


def _is_shorter(step: tuple[int, ...], diagonal: tuple[int, ...]) -> bool:
    """Whether `step` is a step to a neighbour that moves along fewer axes than `diagonal`."""
    return 0 < sum(map(abs, step)) < sum(map(abs, diagonal)) and max(map(abs, step)) == 1
