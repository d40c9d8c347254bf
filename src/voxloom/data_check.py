"""Looks through what a training will read before it begins, so that nothing stops it hours later."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from voxloom import networks
from voxloom.blocks import grid
from voxloom.errors import ModelError, VolumeError
from voxloom.intensity import OF_VOLUME
from voxloom.labelled import LabelledVolume, PartBox, Shape, TrainingVolume, holds_slices, labelled_volumes

LOGGER = logging.getLogger("voxloom")
BLOCK = (64, 256, 256)
"""Voxels (Z, Y, X) that are looked at at once."""


def refuse_unusable(
    volumes: Mapping[str, TrainingVolume], boxes: Sequence[PartBox], settings: Mapping[str, Any]
) -> None:
    """Refuse what no network can be trained on: patches that no volume holds, images with values that are no numbers.

    Parameters
    ----------
    volumes : mapping of str to TrainingVolume
    boxes : sequence of PartBox
        Of one fold.
    settings : mapping
        A model's settings.

    Raises
    ------
    ModelError
        If the patch is larger than every training volume, unless it holds whole slices of all of them, which are then
        seen as they are. Where only some volumes are smaller, they are filled with mirror images that count as not
        annotated, and named in the log.
    VolumeError
        If image and annotation differ in shape, or a floating-point image holds NaN or infinity where training reads
        it: names the volume, how many voxels, and the first of them.

    Notes
    -----
    Images of whole numbers have no such values and aren't read.
    """
    training = labelled_volumes(volumes, boxes, part="train")
    if settings["input"]["size"] is None:
        _refuse_large_patches(training, settings)
    for part, looked_at in (("train", training), ("validation", labelled_volumes(volumes, boxes, part="validation"))):
        for labelled in looked_at:
            if labelled.dtype.kind == "f":
                _refuse_nonfinite(labelled, part, _reach(labelled, settings))


def _refuse_large_patches(training: Sequence[LabelledVolume], settings: Mapping[str, Any]) -> None:
    """A patch may end beyond a volume by what the network's pooling needs."""
    patch, factor = settings["input"]["patch_voxels"], networks.size_factor(settings["network"])

    if settings["network"]["dimensions"] == 2 and holds_slices(training, patch):
        return

    def holds_patch(labelled: LabelledVolume) -> bool:
        sizes = (math.ceil(size / step) * step for size, step in zip(labelled.shape, factor, strict=True))
        return all(edge <= size for edge, size in zip(patch, sizes, strict=True))

    small = {labelled.name: labelled.shape for labelled in training if not holds_patch(labelled)}
    if small and len(small) == len(training):
        sizes = ", ".join(f"{name} {shape}" for name, shape in small.items())
        most = [max(shape[axis] for shape in small.values()) // factor[axis] * factor[axis] for axis in range(3)]
        raise ModelError(
            f"input.patch_voxels is {list(patch)}, larger than every training volume (Z, Y, X): {sizes}; set it to "
            f"{[min(edge, max(step, size)) for edge, step, size in zip(patch, factor, most, strict=True)]} or less"
        )
    for name, shape in small.items():
        LOGGER.warning(
            "volume %s %s is smaller than input.patch_voxels %s: its patches are filled with mirror images, which "
            "count as not annotated",
            name,
            shape,
            list(patch),
        )


def _reach(labelled: LabelledVolume, settings: Mapping[str, Any]) -> Shape:
    """Voxels (Z, Y, X) beside a part's boxes that slices, patches or validation's tiles may read."""
    network, given = settings["network"], settings["input"]
    if given["normalise"] in OF_VOLUME:
        return labelled.shape
    sees = zip(networks.receptive_field(network), networks.size_factor(network), strict=True)
    z, y, x = (reach + 2 * step for reach, step in sees)  # a patch exceeds its box by no more
    if network["dimensions"] == 3:
        return z, y, x
    is_whole = given["size"] is not None or holds_slices([labelled], given["patch_voxels"])
    return (networks.slices_beside(network), *(labelled.shape[1:] if is_whole else (y, x)))


def _refuse_nonfinite(labelled: LabelledVolume, part: str, reach: Shape) -> None:
    count, first = 0, None
    start, stop = labelled.window(reach)
    for block in grid([high - low for low, high in zip(start, stop, strict=True)], BLOCK):
        low = [axis.start + begin for axis, begin in zip(block.core, start, strict=True)]
        bad = ~np.isfinite(labelled.image(low, [axis.stop - axis.start for axis in block.core]))
        found = int(np.count_nonzero(bad))
        if found and first is None:
            inside = np.unravel_index(int(np.argmax(bad)), bad.shape)
            first = tuple(begin + int(place) for begin, place in zip(low, inside, strict=True))
        count += found
    if count:
        raise VolumeError(
            f"volume {labelled.name}: {count} voxels in or near its {part} boxes are not finite (NaN or infinite), the "
            f"first at {first} (Z, Y, X); no network can take them: replace them in the raw file and run convert again"
        )
