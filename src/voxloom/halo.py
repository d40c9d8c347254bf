"""What a network is shown around a tile: all that it sees, as little as a sample of the volume allows, or nothing."""

from __future__ import annotations

import itertools
import logging
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxloom import networks
from voxloom.blocks import Readable
from voxloom.constant_tiles import ConstantTiles
from voxloom.labelled import Shape
from voxloom.predictor import Predictor

LOGGER = logging.getLogger("voxloom")
CANDIDATES = (8, 16, 32, 48)
TOLERANCE = 1 / 255
"""A step of a stored probability."""
SAMPLES, DRAWN = 8, 32


def chosen(
    predictor: Predictor, image: Readable, *, halo_voxels: int | str, tiles: str = "exact"
) -> tuple[Predictor, dict[str, Any]]:
    """A predictor with the halo, or the overlapping tiles, that were asked for.

    Parameters
    ----------
    predictor : Predictor
    image : array-like, shape (Z, Y, X)
        The volume that will be predicted.
    halo_voxels : int or {"exact", "measured"}
        At most so many voxels along each axis; "measured" is the narrowest of `CANDIDATES` whose probabilities differ
        by less than `TOLERANCE` from those of a halo twice as wide, on samples of the volume, or else all.
    tiles : {"exact", "averaged"}
        "averaged" has no halo: the mean over tiles of the model's ``input.patch_voxels``, which overlap by half at
        least.

    Returns
    -------
    predictor : Predictor
    facts : dict
        What is kept with the prediction: halo_voxels and sees_voxels (Z, Y, X), and largest_difference, which is None
        where nothing was measured; for averaged tiles halo_voxels is None, and averaged_tile_voxels (Z, Y, X) is there.
    """
    sees = networks.receptive_field(predictor.settings["network"])
    difference: float | None = None
    if tiles == "averaged" and predictor.settings["input"]["size"] is None:
        z, y, x = predictor.settings["input"]["patch_voxels"]
        facts = {"sees_voxels": list(sees), "halo_voxels": None, "largest_difference": None}
        return replace(predictor, averaged=(z, y, x)), {**facts, "averaged_tile_voxels": [z, y, x]}
    if predictor.settings["input"]["size"] is None and halo_voxels != "exact":
        if halo_voxels == "measured":
            predictor, difference = _measured(predictor, image)
        else:
            predictor = _limited(predictor, int(halo_voxels))
    return predictor, {
        "halo_voxels": list(predictor.halo),
        "sees_voxels": list(sees),
        "largest_difference": difference,
    }


def _limited(predictor: Predictor, most: int) -> Predictor:
    z, y, x = networks.receptive_field(predictor.settings["network"])
    is_3d = predictor.settings["network"]["dimensions"] == 3
    return replace(predictor, halo=(min(z, most) if is_3d else z, min(y, most), min(x, most)))


def _measured(predictor: Predictor, image: Readable) -> tuple[Predictor, float]:
    """The predictor with the narrowest halo that will do, and the largest difference that it made."""
    places = _sample_cells(_limited(predictor, CANDIDATES[0]), image)
    for candidate in CANDIDATES:
        narrow, wide = _limited(predictor, candidate), _limited(predictor, 2 * candidate)
        if narrow.is_exact:
            break
        difference = max(
            float(np.abs(_probability(narrow, image, *place) - _probability(wide, image, *place)).max())
            for place in places
        )
        LOGGER.info(
            "a halo of %d voxels: probabilities differ by at most %.2g from those of twice the halo",
            candidate,
            difference,
        )
        if difference < TOLERANCE:
            return narrow, difference
    return predictor, 0.0


def _sample_cells(predictor: Predictor, image: Readable) -> list[tuple[Shape, Shape]]:
    """Cells (start, stop) of the fixed grid: of some drawn ones, always the same, those that vary most."""
    z, y, x = image.shape
    edges = predictor.fixed_core((z, y, x))
    corners = list(itertools.product(*(range(0, size, edge) for size, edge in zip((z, y, x), edges, strict=True))))
    drawn = np.random.default_rng(0).permutation(len(corners))[:DRAWN]
    cells = []
    for number in sorted(drawn):
        low = corners[number]
        high = tuple(min(first + edge, size) for first, edge, size in zip(low, edges, (z, y, x), strict=True))
        spread = float(np.std(image[tuple(slice(a, b) for a, b in zip(low, high, strict=True))], dtype=np.float64))
        cells.append((spread, number, (low[0], low[1], low[2]), (high[0], high[1], high[2])))
    return [(start, stop) for _, _, start, stop in sorted(cells, reverse=True)[:SAMPLES]]


def _probability(predictor: Predictor, image: Readable, start: Shape, stop: Shape) -> NDArray[np.float32]:
    probability = np.empty(np.subtract(stop, start), dtype=np.float32)
    # what it made of tiles of one value is not what all transforms make of them
    once = replace(predictor, transforms=predictor.transforms[:1], constant=ConstantTiles(0))
    once.region(image, start, stop, probability)
    return probability
