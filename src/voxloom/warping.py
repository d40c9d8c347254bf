"""Topological errors of a section: what is left of the differences when borders may be moved, but not cut or joined."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voxloom.errors import VolumeError
from voxloom.instances import label_objects
from voxloom.kernels import compiled
from voxloom.section_scores import objects_of

SPLIT, MERGER, OBJECT_DELETION, OBJECT_ADDITION, HOLE_DELETION, HOLE_ADDITION = range(1, 7)
"""What a pixel that warping couldn't mend is."""

RING = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))
"""Steps (Y, X) to the eight neighbours, one after the other; every second shares an edge."""


@dataclass(frozen=True)
class WarpingErrors:
    """What warping left over of the differences between a section's truth and a proposal; sections add up.

    Parameters
    ----------
    mismatches : int
        Pixels that differ.
    split_pixels, merger_pixels : int
        Those at which an object is cut in two, or two objects are joined.
    splits, mergers : int
        How many connected groups these are: 4-connected of splits, 8-connected of mergers.
    """

    mismatches: int = 0
    split_pixels: int = 0
    merger_pixels: int = 0
    splits: int = 0
    mergers: int = 0

    def __add__(self, other: WarpingErrors) -> WarpingErrors:
        return WarpingErrors(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


def warp(
    truth: NDArray[np.bool_], interior_probability: NDArray[np.floating], *, threshold: float
) -> NDArray[np.bool_]:
    """Move the borders of a section towards a proposal's without changing what they separate.

    Parameters
    ----------
    truth : ndarray of bool, shape (Y, X)
        True inside an object. Not modified.
    interior_probability : ndarray of float, shape (Y, X)
        The proposal.
    threshold : float
        The proposal's objects are where it is above.

    Returns
    -------
    warped : ndarray of bool, shape (Y, X)
        The truth with pixels changed one by one, as long as each is a simple point (4 neighbours inside, 8 on the
        border): its objects and holes stay as many. Beyond the section everything is border.

    Raises
    ------
    VolumeError
        If shapes differ or `truth` is not a 2D boolean array.

    Notes
    -----
    Pixels that differ are looked at again and again, those first whose probability is farthest from the threshold,
    and of equal ones column by column, until no more can be changed.

    References
    ----------
    .. [1] Jain et al. (2010). Boundary learning by optimization with topological constraints. CVPR.
    """
    if truth.ndim != 2 or truth.dtype != np.bool_ or truth.shape != interior_probability.shape:
        raise VolumeError(
            f"the truth must be a 2D boolean array of the proposal's shape {interior_probability.shape}, got "
            f"{truth.dtype} of shape {truth.shape}"
        )
    # columns lie side by side, so that what lies one after the other in memory is in the order of the visits
    values = np.ascontiguousarray(interior_probability.astype(np.float64, copy=False).T)
    inside = np.ascontiguousarray(truth.T)
    differs = np.pad((values > threshold) != inside, 1)
    places = np.flatnonzero(differs)
    far = np.abs(values[differs[1:-1, 1:-1]] - threshold)
    places = places[np.argsort(np.negative(far, out=far), kind="stable")]
    warped = np.pad(inside, 1).view(np.uint8)
    objects, borders = _pieces_around()
    _flip_simple(warped.reshape(-1), places, _steps(warped.shape[1]), (objects == 1) & (borders == 1))
    return np.ascontiguousarray(warped[1:-1, 1:-1].T).view(np.bool_)


def classify(warped: NDArray[np.bool_], proposal: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Say of every pixel that still differs after warping what its change would do to the objects.

    Parameters
    ----------
    warped, proposal : ndarray of bool, shape (Y, X)
        True inside an object.

    Returns
    -------
    kinds : ndarray of uint8, shape (Y, X)
        0 where both agree, else `SPLIT` (the proposal cuts an object in two), `MERGER` (it joins two) or one of the
        errors that change no other object.
    """
    labels = np.pad(objects_of(warped).astype(np.int32), 1, constant_values=-1)
    borders = label_objects(~np.pad(warped, 1)[None], connectivity=18)[0].view(np.int32)
    kinds = np.zeros(labels.shape, np.uint8)
    places = np.flatnonzero(np.pad(warped != proposal, 1))
    steps = _steps(labels.shape[1])
    _name_kinds(labels.reshape(-1), borders.reshape(-1), places, steps, _pieces_around()[0], kinds.reshape(-1))
    return kinds[1:-1, 1:-1]


def count_errors(kinds: NDArray[np.uint8]) -> WarpingErrors:
    """Count what `classify` found in a section.

    Parameters
    ----------
    kinds : ndarray of uint8, shape (Y, X)

    Returns
    -------
    errors : WarpingErrors
    """
    is_split, is_merger = kinds == SPLIT, kinds == MERGER
    return WarpingErrors(
        mismatches=int(np.count_nonzero(kinds)),
        split_pixels=int(np.count_nonzero(is_split)),
        merger_pixels=int(np.count_nonzero(is_merger)),
        splits=label_objects(is_split[None], connectivity=6)[1],
        mergers=label_objects(is_merger[None], connectivity=18)[1],
    )


def _steps(row: int) -> NDArray[np.int64]:
    return np.array([y * row + x for y, x in RING], np.int64)


@functools.cache
def _pieces_around() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """How many pieces a pixel's neighbours are, for every pattern of them: bit k for the k-th of `RING`.

    Of those inside the 4-connected ones that share an edge with the pixel; of those on the border the 8-connected.
    """
    patterns = [[bool(code >> k & 1) for k in range(8)] for code in range(256)]
    inside = [[step for step, is_in in zip(RING, pattern, strict=True) if is_in] for pattern in patterns]
    border = [[step for step, is_in in zip(RING, pattern, strict=True) if not is_in] for pattern in patterns]
    by_edge = [sum(any(0 in step for step in piece) for piece in _pieces(held, corners=False)) for held in inside]
    by_corner = [len(_pieces(held, corners=True)) for held in border]
    return np.array(by_edge, np.uint8), np.array(by_corner, np.uint8)


def _pieces(steps: list[tuple[int, int]], *, corners: bool) -> list[set[tuple[int, int]]]:
    """Neighbours that hang together by edges, or by corners as well."""
    pieces: list[set[tuple[int, int]]] = []
    for y, x in steps:
        meets = [
            p for p in pieces if any(max(abs(y - b), abs(x - a)) == 1 and (corners or y == b or x == a) for b, a in p)
        ]
        pieces = [p for p in pieces if p not in meets] + [{(y, x)}.union(*meets)]
    return pieces


@compiled
def _flip_simple(inside, places, steps, is_simple):  # type: ignore[no-untyped-def]
    # the patterns around pixels are kept, as most are looked at again and again and few of them change
    codes = np.zeros(inside.size, np.uint8)
    for pixel in places:
        for k in range(8):
            codes[pixel] |= inside[pixel + steps[k]] << k
    left, before = places.size, -1
    while left and left != before:
        before, left = left, 0
        for i in range(before):
            pixel = places[i]
            if is_simple[codes[pixel]]:
                inside[pixel] = 1 - inside[pixel]
                for k in range(8):
                    codes[pixel + steps[k]] ^= np.uint8(1 << ((k + 4) & 7))
            else:
                places[left] = pixel
                left += 1


@compiled
def _name_kinds(labels, borders, places, steps, pieces, kinds):  # type: ignore[no-untyped-def]
    for pixel in places:
        first, second, has_more = -1, -1, False
        for step in steps:
            label = labels[pixel + step]
            if label < 0 or label in (first, second):  # beyond the section, or known
                continue
            if first < 0:
                first = label
            elif second < 0:
                second = label
            else:
                has_more = True
        is_inside = labels[pixel] > 0
        if has_more:
            kinds[pixel] = SPLIT if is_inside else MERGER
        elif second >= 0:
            if not is_inside:
                kinds[pixel] = HOLE_ADDITION
            else:
                kinds[pixel] = SPLIT if _is_cut(borders, pixel, steps, pieces) else HOLE_DELETION
        elif first > 0:
            kinds[pixel] = HOLE_ADDITION if is_inside else HOLE_DELETION
        else:
            kinds[pixel] = OBJECT_DELETION if is_inside else OBJECT_ADDITION


@compiled
def _is_cut(borders, pixel, steps, pieces):  # type: ignore[no-untyped-def]
    # in the plane, what hangs together around a pixel stays in one piece without it unless two of the borders between
    # are one: by Euler's formula there are as many pieces more as there are borders that meet twice
    code, different = 0, 0
    for k in range(8):
        border = borders[pixel + steps[k]]
        if border == 0:
            code |= 1 << k
            continue
        different += 1
        for before in range(k):
            if borders[pixel + steps[before]] == border:
                different -= 1
                break
    return pieces[code] > max(different, 1)
