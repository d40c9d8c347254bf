"""The steps of an annotation recipe: from grey values to a mask, and from mask to mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxloom import distance, instances, levels
from voxloom.blocks import Shape, Slices
from voxloom.errors import ConfigError
from voxloom.kernels import compiled
from voxloom.smooth import gaussian, smooth_reach_voxels
from voxloom.volume import Vector

Range = Sequence[float]


def smooth(array: NDArray[Any], *, spacing_um: Vector, sigma_um: float) -> NDArray[Any]:
    """Smooth grey values, or a mask, with a Gaussian.

    Parameters
    ----------
    array : ndarray, shape (Z, Y, X)
        Grey values, or a mask (bool).
    spacing_um : tuple of float
        Voxel edge lengths along (Z, Y, X), in micrometres.
    sigma_um : float
        Standard deviation, in micrometres.

    Returns
    -------
    smooth : ndarray, shape (Z, Y, X)
        Grey values as float32; of a mask, True where the smoothed mask is at least one half.
    """
    smoothed = gaussian(array, spacing_um=spacing_um, sigma_um=sigma_um)
    return smoothed >= np.float32(0.5) if array.dtype == np.bool_ else smoothed


def threshold(
    image: NDArray[Any],
    *,
    spacing_um: Vector | None = None,
    above: float | str | None = None,
    below: float | str | None = None,
    between: tuple[float | str, float | str] | None = None,
) -> NDArray[np.bool_]:
    """Mark the voxels of a range of grey values.

    Parameters
    ----------
    image : ndarray, shape (Z, Y, X)
        Grey values.
    spacing_um : tuple of float, optional
        Not used; every step takes it.
    above : float or str, optional
        Marks this value and larger ones.
    below : float or str, optional
        Marks smaller values.
    between : pair of float or str, optional
        Marks the first value and larger ones that are smaller than the second.

    Returns
    -------
    mask : ndarray of bool, shape (Z, Y, X)
        A value that is not a number is not marked.

    Raises
    ------
    ConfigError
        If the first value of `between` is not smaller than the second.
    VolumeError
        If a level can't be found in the image.

    Notes
    -----
    A level is a grey value, "otsu" or a percentile such as "p97.5", both of the values of `image` itself (see
    `voxloom.levels`). Levels are compared in the image's own data type: 0.7 marks a float32 voxel of 0.7.

    Examples
    --------
    >>> threshold(np.array([[[1, 2, 3, 4]]]), between=(2, 4))
    array([[[False,  True,  True, False]]])
    """
    low, high = (above, below) if between is None else between
    if isinstance(low, str) or isinstance(high, str):
        bins = levels.bins_of(image.dtype)
        if bins is None:
            smallest, largest = levels.grey_range(image)
            bins = levels.bins_between(smallest, largest, is_integer=image.dtype.kind in "iu")
        counts = levels.count_values(image, bins)
        low = None if low is None else levels.resolve(low, counts, bins)
        high = None if high is None else levels.resolve(high, counts, bins)
    if low is not None and high is not None and not low < high:
        raise ConfigError(f"between is [{low:g}, {high:g}]: the first value must be smaller than the second; swap them")
    bounds = (None if level is None else _like(image, level) for level in (low, high))
    return _band(image, *bounds)


def every_value(dtype: np.dtype[Any]) -> NDArray[Any]:
    """Every grey value that an integer type of at most 16 bits holds, in rising order, shape (1, 1, values)."""
    limits = np.iinfo(dtype)
    return np.arange(limits.min, limits.max + 1).astype(dtype).reshape(1, 1, -1)


def marked(image: NDArray[Any], is_marked: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mark the voxels of some grey values.

    Parameters
    ----------
    image : ndarray, shape (Z, Y, X)
        Grey values, integers of at most 16 bits.
    is_marked : ndarray of bool, shape (1, 1, values)
        For each of `every_value` whether it is.

    Returns
    -------
    mask : ndarray of bool, shape (Z, Y, X)
    """
    values, chosen = every_value(image.dtype).reshape(-1), is_marked.reshape(-1)
    edges = np.flatnonzero(np.diff(chosen, prepend=False, append=False)).tolist()
    bands = [
        (int(values[first]), int(values[last - 1]) + 1) for first, last in zip(edges[::2], edges[1::2], strict=True)
    ]
    mask = _band(image, *(bands[0] if bands else (0, 0)))
    for low, high in bands[1:]:
        np.logical_or(mask, _band(image, low, high), out=mask)
    return mask


def _band(image: NDArray[Any], low: Any, high: Any) -> NDArray[np.bool_]:
    """Voxels from `low` up to, but without, `high`; bounds in the image's data type, or None."""
    if image.dtype.kind in "iu":  # a bound beyond what the type holds bounds nothing, or everything
        limits = np.iinfo(image.dtype)
        low = None if low is None or low <= limits.min else low
        high = None if high is None or high > limits.max else high
        is_empty = low is not None and (low > limits.max or (high is not None and high <= low))
        if is_empty or (high is not None and high <= limits.min):
            return np.zeros(image.shape, np.bool_)
    if low is None and high is None:
        return np.ones(image.shape, np.bool_)
    if low is None:
        return np.less(image, high)
    if high is None:
        return np.greater_equal(image, low)
    mask = np.empty(image.shape, np.bool_)
    values = np.ascontiguousarray(image, np.float32 if image.dtype == np.float16 else image.dtype)
    bounds = np.array([low, high], values.dtype)
    _between(values.reshape(-1), bounds[0], bounds[1], mask.reshape(-1))
    return mask


@compiled
def _between(values, low, high, mask):  # type: ignore[no-untyped-def]
    for i in range(values.size):
        mask[i] = (values[i] >= low) & (values[i] < high)


def _like(image: NDArray[Any], level: float | str) -> Any:
    """The level in the image's data type; for integers the next whole number, for v >= 59.5 is v >= 60."""
    return int(np.ceil(float(level))) if image.dtype.kind in "iu" else image.dtype.type(level)


def remove_small_objects(
    mask: NDArray[np.bool_],
    *,
    spacing_um: Vector,
    min_size_voxels: int | None = None,
    min_size_um3: float | None = None,
    connectivity: int = 6,
) -> NDArray[np.bool_]:
    """`voxloom.instances.remove_small_objects` with the size in voxels or in cubic micrometres.

    Parameters
    ----------
    mask : ndarray of bool, shape (Z, Y, X)
    spacing_um : tuple of float
        Voxel edge lengths along (Z, Y, X), in micrometres.
    min_size_voxels : int, optional
    min_size_um3 : float, optional
        Exactly one of the two. An object of just that size stays.
    connectivity : {6, 18, 26}

    Returns
    -------
    kept : ndarray of bool, shape (Z, Y, X)
    """
    size = size_voxels(spacing_um=spacing_um, min_size_voxels=min_size_voxels, min_size_um3=min_size_um3)
    return instances.remove_small_objects(mask, min_size_voxels=size, connectivity=connectivity)


def size_voxels(*, spacing_um: Vector, min_size_voxels: int | None = None, min_size_um3: float | None = None) -> int:
    """Number of voxels of the smallest object that is not too small.

    Parameters
    ----------
    spacing_um : tuple of float
        Voxel edge lengths along (Z, Y, X), in micrometres.
    min_size_voxels : int, optional
    min_size_um3 : float, optional
        Exactly one of the two.

    Returns
    -------
    voxels : int

    Examples
    --------
    >>> size_voxels(spacing_um=(2.0, 1.0, 1.0), min_size_um3=5.0)
    3
    """
    if min_size_um3 is None:
        assert min_size_voxels is not None
        return min_size_voxels
    return int(np.ceil(min_size_um3 / float(np.prod(spacing_um)) * (1 - 1e-9)))


def fill_holes(
    mask: NDArray[np.bool_], *, spacing_um: Vector | None = None, connectivity: int = 6
) -> NDArray[np.bool_]:
    """`voxloom.instances.fill_holes`, as a step.

    Parameters
    ----------
    mask : ndarray of bool, shape (Z, Y, X)
    spacing_um : tuple of float, optional
        Not used; every step takes it.
    connectivity : {6, 18, 26}

    Returns
    -------
    filled : ndarray of bool, shape (Z, Y, X)
    """
    return instances.fill_holes(mask, connectivity=connectivity)


def keep(
    mask: NDArray[np.bool_],
    *,
    spacing_um: Vector,
    z_um: Range | None = None,
    y_um: Range | None = None,
    x_um: Range | None = None,
    first_voxel: Shape = (0, 0, 0),
) -> NDArray[np.bool_]:
    """Set everything outside a box to background.

    Parameters
    ----------
    mask : ndarray of bool, shape (Z, Y, X)
        Not modified.
    spacing_um, z_um, y_um, x_um
        As in `box_voxels`.
    first_voxel : tuple of int
        Where in the volume `mask` begins, when it is a part of it.

    Returns
    -------
    kept : ndarray of bool, shape (Z, Y, X)
    """
    end = tuple(first + size for first, size in zip(first_voxel, mask.shape, strict=True))
    box = box_voxels(end, spacing_um=spacing_um, z_um=z_um, y_um=y_um, x_um=x_um)
    here = tuple(slice(max(s.start - f, 0), max(s.stop - f, 0)) for s, f in zip(box, first_voxel, strict=True))
    kept = np.zeros_like(mask)
    kept[here] = mask[here]
    return kept


def box_voxels(
    shape: Sequence[int],
    *,
    spacing_um: Vector,
    z_um: Range | None = None,
    y_um: Range | None = None,
    x_um: Range | None = None,
) -> Slices:
    """The voxels of a box that is given in micrometres.

    Parameters
    ----------
    shape : sequence of int
        The volume's (Z, Y, X).
    spacing_um : tuple of float
        Voxel edge lengths along (Z, Y, X), in micrometres.
    z_um, y_um, x_um : pair of float, optional
        From and to, in micrometres from the centre of the volume's first voxel; the whole axis where it is not given.

    Returns
    -------
    box : tuple of slice
        Voxels whose centre is at or after the first and before the second number, so that boxes that follow on each
        other share no voxel.

    Examples
    --------
    >>> box_voxels((10, 4, 4), spacing_um=(2.0, 1.0, 1.0), z_um=(4.0, 8.0))
    (slice(2, 4, None), slice(0, 4, None), slice(0, 4, None))
    """
    box = []
    for size, spacing, bounds in zip(shape, spacing_um, (z_um, y_um, x_um), strict=True):
        # a millionth of a voxel of tolerance: 117 um are 100 voxels of 1.17 um, whatever the division's last bit says
        first, last = (0, size) if bounds is None else (int(np.ceil(value / spacing - 1e-6)) for value in bounds)
        box.append(slice(min(first, size), min(last, size)))
    return tuple(box)


def _no_reach(**settings: Any) -> Shape:
    return (0, 0, 0)


def _shrink_reach(*, spacing_um: Vector, shrink_um: float) -> Shape:
    return distance.grow_reach_voxels(spacing_um=spacing_um, grow_um=shrink_um)


@dataclass(frozen=True)
class Step:
    """What the workflow knows of a step.

    Parameters
    ----------
    apply : callable
        Takes an array (Z, Y, X), the keyword ``spacing_um`` and the step's settings; returns an array of that shape.
    keys : tuple of str
        Names of the settings.
    takes : {"mask", "image", "either"}
        What it works on.
    reach_voxels : callable
        From ``spacing_um`` and the settings to the context (Z, Y, X) that a voxel's result depends on.
    is_global : bool
        Whether a voxel's result depends on the whole volume.
    lengths : tuple of str
        Those settings that are positive lengths in micrometres and at most the volume's longest edge.
    """

    apply: Callable[..., NDArray[Any]]
    keys: tuple[str, ...]
    takes: str = "mask"
    reach_voxels: Callable[..., Shape] = _no_reach
    is_global: bool = False
    lengths: tuple[str, ...] = field(default=())


STEPS = {
    "smooth": Step(smooth, ("sigma_um",), takes="either", reach_voxels=smooth_reach_voxels, lengths=("sigma_um",)),
    "threshold": Step(threshold, ("above", "below", "between"), takes="image"),
    "remove_small_objects": Step(
        remove_small_objects, ("min_size_voxels", "min_size_um3", "connectivity"), is_global=True
    ),
    "fill_holes": Step(fill_holes, ("connectivity",), is_global=True),
    "grow": Step(distance.grow, ("grow_um", "mode"), reach_voxels=distance.grow_reach_voxels, lengths=("grow_um",)),
    "shrink": Step(distance.shrink, ("shrink_um",), reach_voxels=_shrink_reach, lengths=("shrink_um",)),
    "keep": Step(keep, ("z_um", "y_um", "x_um")),
}
"""Steps that work on what the step before them left. A new step is a function, its entry here and in the schema."""

COMBINATIONS: dict[str, Callable[..., NDArray[np.bool_]]] = {
    "subtract": np.greater,  # of masks: True only where the first is and the other is not
    "intersect": lambda mask, other: mask & other,
    "union": lambda mask, other: mask | other,
}
"""Steps that join the mask with that of a second recipe, begun from the image again."""
