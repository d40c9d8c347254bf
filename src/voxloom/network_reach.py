"""How far a network sees, and what sizes it takes.

Imported while the Snakefile is parsed, so it needs nothing but the standard library.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from voxloom.network_settings import resolved, vgg_convolutions

Shape = tuple[int, int, int]
Range = tuple[int, int]
Seen = Callable[[Range, Mapping[str, Any], int], Range]

KEYS = ("name", "dimensions", "widths", "strides", "kernels", "convolutions", "residual", "slices", "slice_step")
"""The keys under ``network`` that decide how far it sees."""


def size_factor(network: Mapping[str, Any]) -> Shape:
    """Sizes (Z, Y, X) whose multiples the network takes: the product of its strides.

    Parameters
    ----------
    network : mapping
        The keys under ``network`` of a model.

    Returns
    -------
    factor : tuple of int

    Examples
    --------
    >>> size_factor({"dimensions": 3, "widths": [4, 8, 16], "strides": [[1, 2, 2], [2, 2, 2]]})
    (2, 4, 4)
    """
    z, y, x = (math.prod(stride[axis] for stride in resolved(network)["strides"]) for axis in range(3))
    return z, y, x


def receptive_field(network: Mapping[str, Any]) -> Shape:
    """How far a predicted voxel sees: half widths (Z, Y, X) in voxels of the network's input.

    Parameters
    ----------
    network : mapping
        The keys under ``network`` of a model.

    Returns
    -------
    reach_voxels : tuple of int
        No voxel farther away along an axis can change the prediction. Exact for the worst place in the pooling grid.

    Notes
    -----
    Instance and group normalisation divide by the deviation of the whole tile, so through them every voxel has a little
    influence on every other; this is how far the convolutions see.

    Examples
    --------
    >>> receptive_field({"name": "unet", "dimensions": 2, "widths": [32, 64, 128], "slices": 3, "slice_step": 1})
    (1, 23, 23)
    """
    whole = resolved(network)
    z, y, x = (_reach_along(whole, axis) for axis in range(3))
    return z if whole["dimensions"] == 3 else slices_beside(whole), y, x


def branches(network: Mapping[str, Any]) -> list[Shape]:
    """How far each branch of a network sees, the finest first; none where it has no branches.

    Parameters
    ----------
    network : mapping
        The keys under ``network`` of a model.

    Returns
    -------
    reaches_voxels : list of tuple of int
        Half widths (Z, Y, X), as `receptive_field`, which is the widest of them.

    Examples
    --------
    >>> branches({"preset": "chen2016"})
    [(0, 9, 9), (0, 24, 24), (0, 54, 54)]
    """
    whole = resolved(network)
    if whole["name"] != "contextual":
        return []
    reaches = []
    for level in range(1, len(whole["widths"])):
        seen = functools.partial(_seen_by_branch, level=level)
        y, x = (_farthest(whole, axis, seen) for axis in (1, 2))
        reaches.append((slices_beside(whole), y, x))
    return reaches


def in_words(network: Mapping[str, Any]) -> str:
    """How far a network sees, and each of its branches, as a sentence.

    Parameters
    ----------
    network : mapping
        The keys under ``network`` of a model.

    Returns
    -------
    sentence : str

    Examples
    --------
    >>> print(in_words({"preset": "chen2016"}))
    Its output sees 1 x 109 x 109 voxels (Z, Y, X), its branches 1 x 19 x 19, 1 x 49 x 49, 1 x 109 x 109.
    """
    field, *others = map(edges, (receptive_field(network), *branches(network)))
    of_branches = f", its branches {', '.join(others)}" if others else ""
    return f"Its output sees {field} voxels (Z, Y, X){of_branches}."


def edges(reach: Shape) -> str:
    """The box that a voxel depends on, as words.

    Parameters
    ----------
    reach : tuple of int
        Half widths (Z, Y, X).

    Returns
    -------
    edges : str

    Examples
    --------
    >>> edges((1, 23, 23))
    '3 x 47 x 47'
    """
    return " x ".join(str(2 * half + 1) for half in reach)


def slices_beside(network: Mapping[str, Any]) -> int:
    """How many slices to each side of the predicted one a network of 2 dimensions looks across.

    Parameters
    ----------
    network : mapping
        Its keys ``slices`` and ``slice_step`` are read.

    Returns
    -------
    beside : int

    Examples
    --------
    >>> slices_beside({"slices": 5, "slice_step": 3})
    6
    """
    return int(network["slices"]) // 2 * int(network["slice_step"])


def native_reach(settings: Mapping[str, Any], slice_shape: Sequence[int]) -> Shape:
    """How far a predicted voxel sees in the volume's own voxels, also where slices are scaled for the network.

    Parameters
    ----------
    settings : mapping
        A model's settings: its keys ``network`` and ``input`` are read.
    slice_shape : sequence of int
        (Y, X) of the volume.

    Returns
    -------
    reach_voxels : tuple of int
        Half widths (Z, Y, X). Scaling adds the width of its two filters.
    """
    z, *plane = receptive_field(settings["network"])
    if settings["input"]["size"] is None:
        return z, plane[0], plane[1]
    scales = [native / size for native, size in zip(slice_shape, settings["input"]["size"], strict=True)]
    y, x = (math.ceil((reach + 1) * scale + max(scale, 1.0) + 1) for reach, scale in zip(plane, scales, strict=True))
    return z, y, x


def _reach_along(whole: Mapping[str, Any], axis: int) -> int:
    return _farthest(whole, axis, SEEN[whole["name"]])


def _farthest(whole: Mapping[str, Any], axis: int, seen: Seen) -> int:
    """The farthest that any place of the pooling grid sees along an axis."""
    reach = 0
    for place in range(size_factor(whole)[axis]):
        low, high = seen((place, place), whole, axis)
        reach = max(reach, place - low, high - place)
    return reach


def _seen_by_unet(places: Range, whole: Mapping[str, Any], axis: int, level: int = 0) -> Range:
    """First and last voxel of a level's input that a range of its output depends on."""
    half = whole["kernels"][level][axis] // 2
    low, high = _wider(places, whole["convolutions"] * half)
    if level < len(whole["strides"]):
        stride = whole["strides"][level][axis]
        below = (low // stride, high // stride)
        coarse_low, coarse_high = _seen_by_unet(below, whole, axis, level + 1)
        low, high = min(low, coarse_low), max(high, coarse_high)
        low, high = _wider((low, high), whole["convolutions"] * half)
    if level == 0:
        return low, high
    return _before_shrinking((low, high), whole, axis, level)


def _before_shrinking(places: Range, whole: Mapping[str, Any], axis: int, level: int) -> Range:
    """The range of the finer level that shrinks to this range of a level."""
    low, high = places
    stride = whole["strides"][level - 1][axis]
    if not whole["residual"]:
        return low * stride, high * stride + stride - 1  # maximum over cells
    # the level's first convolution has the stride: it widens on the finer grid, where the caller had widened here
    half = whole["kernels"][level][axis] // 2
    return (low + half) * stride - half, (high - half) * stride + half


def _seen_by_contextual(places: Range, whole: Mapping[str, Any], axis: int) -> Range:
    if axis == 0:
        return places
    ranges = [_seen_by_branch(places, whole, axis, level=level) for level in range(1, len(whole["widths"]))]
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def _seen_by_branch(places: Range, whole: Mapping[str, Any], axis: int, *, level: int) -> Range:
    """What a range of a branch's scores depends on: its convolutions, then its level's, then the finer levels'."""
    low, high = _wider(places, 1)
    stride = 2**level
    # a transposed convolution of kernel 2k, stride k and padding k/2: voxel i makes i k - k/2 to i k + 3k/2 - 1
    low, high = -((3 * stride // 2 - 1 - low) // stride), (high + stride // 2) // stride
    for finer in range(level, -1, -1):
        low, high = _wider((low, high), vgg_convolutions(finer))
        if finer:
            low, high = low * 2, high * 2 + 1  # maximum over cells
    return low, high


def _wider(places: Range, more: int) -> Range:
    return places[0] - more, places[1] + more


SEEN: dict[str, Seen] = {"contextual": _seen_by_contextual, "unet": _seen_by_unet}
"""By network: first and last input voxel along an axis that a range of its output depends on."""
