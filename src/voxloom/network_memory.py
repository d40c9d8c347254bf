"""How much memory a network takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from voxloom.network_settings import resolved

CLASSES = 2
TIMES_JOINED = 4.0
TIMES_JOINED_WITH = {("instance", False): 5.5, ("group", True): 5.5, ("instance", True): 7.0}
"""Times what a level joins, at most, by normalisation and whether units are residual: there it comes before the
convolutions, of all that is joined. Measured (benchmarks/prediction_memory.py)."""


def activation_bytes(network: Mapping[str, Any]) -> float:
    """Memory that a forward pass holds for each voxel of its input, in bytes; an upper estimate for float32.

    Parameters
    ----------
    network : mapping
        The keys under ``network`` of a model.

    Returns
    -------
    bytes_per_voxel : float
        Of the level that holds the most.
    """
    whole = resolved(network)
    return 4.0 * (whole["slices"] + HELD[whole["name"]](whole))


def _held_by_unet(whole: Mapping[str, Any]) -> float:
    """Numbers for each voxel: the skips of the finer levels, a level's own skip, the enlarged coarser level and both
    joined, with the same again for a convolution's reordered copies; and what normalising copies.
    """
    share, skips, most = 1.0, 0.0, 0.0  # of a level's voxels in the input's
    times = TIMES_JOINED_WITH.get((whole["norm"], whole["residual"]), TIMES_JOINED)
    for level, width in enumerate(whole["widths"]):
        coarser = whole["widths"][min(level + 1, len(whole["widths"]) - 1)]
        enlarged = width if whole["upsampling"] == "transposed" else coarser
        most = max(most, skips + share * times * (width + enlarged))
        skips += share * width
        if level < len(whole["strides"]):
            share /= math.prod(whole["strides"][level])
    return most


def _held_by_contextual(whole: Mapping[str, Any]) -> float:
    """Numbers for each voxel: a convolution's input and output, twice for reordered copies; and the scores of all
    branches, with those of one on their way.
    """
    scores = 2 * CLASSES * len(whole["widths"])
    return max(scores + 4.0 * width / 4**level for level, width in enumerate(whole["widths"]))


HELD: dict[str, Callable[[Mapping[str, Any]], float]] = {"contextual": _held_by_contextual, "unet": _held_by_unet}
"""By network: numbers that a forward pass holds at most for each voxel of its input, beside the input."""
