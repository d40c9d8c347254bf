"""Random changes of training patches, on the device: an image, its mask and what nobody annotated move together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from voxloom import augment_sections, augment_space
from voxloom.augment_draws import Draws, draw
from voxloom.augment_sections import FAULTS, MISALIGNED
from voxloom.augment_space import MOVES
from voxloom.augment_values import VALUES, Change
from voxloom.errors import ModelError

# noise and the like belong to the detector, which sees a section that is out of focus, but none that is missing
CHANGES: dict[str, Change] = {
    "blurred_section": FAULTS["blurred_section"],
    "dark_section": FAULTS["dark_section"],
    **VALUES,
    "missing_section": FAULTS["missing_section"],
}
"""Changes of grey values, in their order."""

NAMES = (*MOVES, MISALIGNED, *CHANGES)
"""Every augmentation; each has its probability in section ``augment`` of a model."""


def enabled(settings: Mapping[str, Any]) -> list[str]:
    """Augmentations that may happen.

    Parameters
    ----------
    settings : mapping
        Section ``augment`` of a model.

    Returns
    -------
    names : list of str
        In the order of `NAMES`.
    """
    return [name for name in NAMES if settings[name] > 0]


def check_augment(settings: Mapping[str, Any], *, network: Mapping[str, Any], spacing_um: Sequence[float]) -> None:
    """Say what is wrong with section ``augment`` of a model.

    Parameters
    ----------
    settings : mapping
        Probability of each of `NAMES`, and elastic_sigma_um and elastic_amplitude_um.
    network : mapping
        Section ``network`` of the model.
    spacing_um : sequence of float
        Voxel edge lengths (Z, Y, X) of the samples.

    Raises
    ------
    ModelError
        If an augmentation leaves nothing to learn from, or folds the image.
    """
    if settings["missing_section"] > 0 and network["dimensions"] == 2 and network["slices"] == 1:
        raise ModelError(
            f"augment.missing_section is {settings['missing_section']}, but the network sees one slice: without it "
            "nothing is left to learn from; set it to 0, or network.slices to 3"
        )
    if settings["elastic"] > 0:
        augment_space.elastic_lengths_um(settings, spacing_um)


@torch.no_grad()
def augment(
    image: Tensor,
    mask: Tensor,
    ignore: Tensor,
    *,
    settings: Mapping[str, Any],
    spacing_um: Sequence[float],
    deviation: float,
    generator: torch.Generator,
    first: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Change every sample of a batch at random.

    Parameters
    ----------
    image : Tensor of float32, shape (N, C, [Z,] Y, X)
        Without a Z axis the channels are neighbouring slices. Not modified.
    mask : Tensor of float32, shape (N, 1, [Z,] Y, X)
        Foreground is 1, or any number is a label. Not modified.
    ignore : Tensor of bool, same shape as `mask`
        Not modified.
    settings : mapping
        Probability of each of `NAMES` for a sample, and elastic_sigma_um and elastic_amplitude_um.
    spacing_um : sequence of float
        Voxel edge lengths (Z, Y, X) of the samples. Turns, scales and warps keep lengths in micrometres; they are in
        the plane unless voxels are isotropic. Quarter turns need equal spacing along Y and X and square patches, else
        only half turns are made.
    deviation : float
        Standard deviation of the training set's image in units of `image`; noise and brightness are shares of it.
    generator : torch.Generator
        On the CPU, whatever the device of the tensors.
    first : int
        Place of the first sample in the step's whole batch, where several processes share it: what happens to a sample
        depends on the generator and its place only, and not on which other augmentations are switched on.

    Returns
    -------
    image, mask, ignore : Tensor
        Of the same shapes. Where a move looks outside the patch the image is reflected and nothing counts as
        annotated.
    """
    draws = draw(NAMES, probabilities=settings, samples=len(image), first=first, generator=generator)
    if any(settings[name] > 0 for name in (*MOVES, MISALIGNED)):
        labels = torch.cat([mask, (~ignore).to(mask.dtype)], dim=1)
        image, labels = augment_space.moved(image, labels, draws=draws, settings=settings, spacing_um=spacing_um)
        image, labels = augment_sections.misaligned(image, labels, draws=draws)
        mask, ignore = labels[:, :-1], labels[:, -1:] == 0
    for name, change in CHANGES.items():
        image = _changed(image, change, draws, name, spacing_um=spacing_um, deviation=deviation)
    return image, mask, ignore


def _changed(
    image: Tensor, change: Change, draws: Draws, name: str, *, spacing_um: Sequence[float], deviation: float
) -> Tensor:
    """The batch with the samples changed to which it happens."""
    chosen = draws.chosen(name)
    if not chosen:
        return image
    numbers = draws.numbers[name][chosen]
    if len(chosen) == len(image):
        return change(image, numbers, spacing_um=spacing_um, deviation=deviation)
    changed = image.clone()
    changed[chosen] = change(image[chosen], numbers, spacing_um=spacing_um, deviation=deviation)
    return changed
