"""What samples a model can't be given: of a size that doesn't go with its network, or with the split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from voxloom import networks
from voxloom.errors import ModelError, SplitError
from voxloom.labelled import LabelledVolume


def check_input(settings: Mapping[str, Any]) -> None:
    """Say what is wrong with a model's keys ``network`` and ``input``.

    Parameters
    ----------
    settings : mapping

    Raises
    ------
    ModelError
        If patches or scaled slices don't go with the network.
    """
    networks.check(settings["network"])
    dimensions, size, patch = (
        settings["network"]["dimensions"],
        settings["input"]["size"],
        settings["input"]["patch_voxels"],
    )
    if dimensions == 3 and size is not None:
        raise ModelError(f"input.size scales slices for 2 dimensions; set it to null for 3, got {size}")
    if dimensions == 2 and patch[0] != 1:
        raise ModelError(
            f"input.patch_voxels must begin with 1 for 2 dimensions, got {list(patch)}; "
            "network.slices says how many neighbouring slices are seen"
        )
    factor = networks.size_factor(settings["network"])
    if any(edge % f for edge, f in zip(patch, factor, strict=True)):
        fitting = [-(-edge // f) * f for edge, f in zip(patch, factor, strict=True)]
        raise ModelError(
            f"input.patch_voxels must be multiples of {list(factor)}, the product of the network's strides, "
            f"got {list(patch)}; set {fitting}"
        )


def refuse_reads_across_the_gap(
    parts: Sequence[LabelledVolume], settings: Mapping[str, Any], *, whole_slices: bool
) -> None:
    """Refuse samples so large that they would reach across the gap into boxes that test.

    Labels outside a box are never seen, but grey values there would move batch statistics and augmentation.

    Parameters
    ----------
    parts : sequence of LabelledVolume
        The volumes with training boxes.
    settings : mapping
        A model's settings.
    whole_slices : bool
        Whether samples are whole slices.

    Raises
    ------
    SplitError
        Naming both sizes.
    """
    reach = networks.native_reach(settings, parts[0].shape[1:])
    for part in parts:
        for box in part.boxes:
            read = (1, *part.shape[1:]) if whole_slices else settings["input"]["patch_voxels"]
            for axis in range(3):
                # what is kept from the other parts is the receptive field at least
                if box.shape[axis] < part.shape[axis] and read[axis] > box.shape[axis] + reach[axis]:
                    raise SplitError(
                        f"a training box of {part.name} has {box.shape} voxels, samples have {tuple(read)}: "
                        "they would reach into boxes that test; use a smaller patch_voxels or a larger block_um"
                    )
