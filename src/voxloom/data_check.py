"""Looks through what a training will read before it begins, so that nothing stops it hours later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from voxloom.blocks import grid
from voxloom.errors import VolumeError
from voxloom.labelled import LabelledVolume, PartBox, TrainingVolume, labelled_volumes

BLOCK = (64, 256, 256)
"""Voxels (Z, Y, X) that are looked at at once."""


def refuse_unusable(volumes: Mapping[str, TrainingVolume], boxes: Sequence[PartBox]) -> None:
    """Refuse images that no network can take, in the boxes that train and validate.

    Parameters
    ----------
    volumes : mapping of str to TrainingVolume
    boxes : sequence of PartBox
        Of one fold.

    Raises
    ------
    VolumeError
        If image and annotation differ in shape, or a floating-point image holds NaN or infinity: names the volume,
        how many voxels, and the first of them.

    Notes
    -----
    Images of whole numbers have no such values and aren't read.
    """
    for part in ("train", "validation"):
        for labelled in labelled_volumes(volumes, boxes, part=part):
            if labelled.dtype.kind == "f":
                _refuse_nonfinite(labelled, part)


def _refuse_nonfinite(labelled: LabelledVolume, part: str) -> None:
    count, first = 0, None
    for box in labelled.boxes:
        for block in grid(box.shape, BLOCK):
            start = [low + axis.start for low, axis in zip(box.start, block.core, strict=True)]
            bad = ~np.isfinite(labelled.image(start, [axis.stop - axis.start for axis in block.core]))
            found = int(np.count_nonzero(bad))
            if found and first is None:
                inside = np.unravel_index(int(np.argmax(bad)), bad.shape)
                first = tuple(low + int(place) for low, place in zip(start, inside, strict=True))
            count += found
    if count:
        raise VolumeError(
            f"volume {labelled.name}: {count} voxels of its {part} boxes are not finite (NaN or infinite), the first "
            f"at {first} (Z, Y, X); no network can take them: replace them in the raw file and run convert again"
        )
