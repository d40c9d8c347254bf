"""Centre lines of masks, how well those of two masks agree (clDice), and how long they are."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voxloom.errors import VolumeError
from voxloom.kernels import compiled
from voxloom.thinning import STEPS, neighbours_of, thin_in_order

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
    The lines are scikit-image's, with which published clDice values were made. In three dimensions that thinning erases
    some compact objects (a cube of 2 x 2 x 2 voxels); elongated objects keep their lines.

    References
    ----------
    .. [1] Zhang, Suen (1984). Communications of the ACM 27(3).
    .. [2] Lee, Kashyap, Chu (1994). CVGIP: Graphical Models and Image Processing 56(6).
    """
    if mask.dtype != np.bool_ or mask.ndim not in (2, 3):
        raise VolumeError(f"a skeleton is made of a 2D or 3D boolean array, got {mask.ndim}D {mask.dtype}")
    if mask.ndim == 3:
        return thin_in_order(mask)
    from skimage.morphology import skeletonize

    skeleton = np.zeros_like(mask)
    if mask.any():
        # only the foreground's box and a border of background: thinning looks at every pixel many times
        box = tuple(slice(max(int(i.min()) - 1, 0), int(i.max()) + 2) for i in np.nonzero(mask))
        skeleton[box] = skeletonize(np.ascontiguousarray(mask[box]), method="zhang")
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
    padded = np.pad(np.ascontiguousarray(skeleton), 1)
    first = [axis.indices(size)[0] for axis, size in zip(inner, skeleton.shape, strict=True)]
    voxels = np.argwhere(skeleton[inner]) + first + 1  # in the padded array
    steps = [step for step in itertools.product((-1, 0, 1), repeat=3) if step > (0, 0, 0)]  # each pair once
    ends, vias = (np.array([bits(step) for step in steps]) for bits in (_bit, _vias))
    counts = np.zeros(len(steps), np.int64)
    around = (STEPS @ np.array(padded.strides)).astype(np.int64)
    places = np.ravel_multi_index(tuple(voxels.T), padded.shape)
    _count_steps(padded.reshape(-1), places, around, ends, vias, counts)
    lengths_um = np.linalg.norm(np.multiply(steps, spacing_um), axis=1)
    return float(sum(counts * lengths_um))


@compiled
def _count_steps(padded, places, around, ends, vias, counts):  # type: ignore[no-untyped-def]
    for i in places:
        neighbours = neighbours_of(padded, i, around)
        for k in range(ends.size):
            if neighbours & ends[k] and not neighbours & vias[k]:
                counts[k] += 1


def _bit(step: tuple[int, ...]) -> int:
    """Of a voxel among the 27 around one."""
    return 1 << int(np.ravel_multi_index(tuple(np.add(step, 1)), (3, 3, 3)))


def _vias(diagonal: tuple[int, ...]) -> int:
    """Bits of the voxels over which shorter steps lead to the end of a diagonal."""
    found = 0
    for via in itertools.product((-1, 0, 1), repeat=3):
        rest = tuple(s - v for s, v in zip(diagonal, via, strict=True))
        if _is_shorter(via, diagonal) and _is_shorter(rest, diagonal):
            found |= _bit(via)
    return found


def _is_shorter(step: tuple[int, ...], diagonal: tuple[int, ...]) -> bool:
    """Whether `step` is a step to a neighbour that moves along fewer axes than `diagonal`."""
    return 0 < sum(map(abs, step)) < sum(map(abs, diagonal)) and max(map(abs, step)) == 1
