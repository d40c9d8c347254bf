"""How much memory a network takes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from voxloom.network_settings import resolved


def activation_bytes(network: Mapping[str, Any]) -> float:
    """Memory that a forward pass holds for each voxel of its input, in bytes; an upper estimate for float32.

    Parameters
    ----------
    network : mapping
        The keys under ``network`` of a model.

    Returns
    -------
    bytes_per_voxel : float
        Of the level that holds the most: the skips of the finer levels, its own skip, the enlarged coarser level and
        both joined, with the same again for a convolution's reordered copies.
    """
    whole = resolved(network)
    share, skips, most = 1.0, 0.0, 0.0  # of a level's voxels in the input's
    for level, width in enumerate(whole["widths"]):
        coarser = whole["widths"][min(level + 1, len(whole["widths"]) - 1)]
        enlarged = width if whole["upsampling"] == "transposed" else coarser
        most = max(most, skips + share * 4 * (width + enlarged))
        skips += share * width
        if level < len(whole["strides"]):
            share /= math.prod(whole["strides"][level])
    return 4.0 * (whole["slices"] + most)
