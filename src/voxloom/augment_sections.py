"""Random faults of single sections, as serial-section electron microscopy makes them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from voxloom.augment_draws import Draws, between
from voxloom.augment_values import Change, blurred

SHIFT_VOXELS = (1.0, 8.0)
SECTION_BLUR_VOXELS = (1.0, 3.0)
SECTION_DARKENING = (0.2, 0.6)
"""What is left of the grey values above black."""

MISALIGNED = "misaligned_section"


def misaligned(image: Tensor, labels: Tensor, *, draws: Draws) -> tuple[Tensor, Tensor]:
    """Shift one section of some samples in the plane.

    Parameters
    ----------
    image : Tensor of float32, shape (N, C, [Z,] Y, X)
        Without a Z axis the sections are the channels.
    labels : Tensor of float32, shape (N, K, [Z,] Y, X)
        The last channel is 0 where nothing is annotated. Labels move with their own section: without a Z axis they are
        of the middle one.
    draws : Draws

    Returns
    -------
    image, labels : Tensor
        Where something from outside the patch would be seen the image is reflected, and labels are 0.
    """
    chosen = draws.chosen(MISALIGNED)
    if not chosen:
        return image, labels
    image, labels = image.clone(), labels.clone()
    sections = _sections(image)
    for sample in chosen:
        numbers = draws.numbers[MISALIGNED][sample]
        number = _which(numbers, sections.shape[1])
        shift = _shift(numbers, image.shape[-2:])
        sections[sample, number] = _shifted(sections[sample, number], shift)
        if image.ndim == 5 or number == sections.shape[1] // 2:
            own = labels[sample, :, number] if image.ndim == 5 else labels[sample]
            own.copy_(_shifted(own, shift, outside=0.0))
    return image, labels


def _shift(numbers: Tensor, sizes: Sequence[int]) -> list[int]:
    """Voxels along (Y, X); never none, never more than the patch."""
    distance, angle = float(between(numbers[2], SHIFT_VOXELS)), 2 * math.pi * float(numbers[3])
    steps = (round(distance * math.sin(angle)), round(distance * math.cos(angle)))
    return [max(1 - size, min(size - 1, step)) for step, size in zip(steps, sizes, strict=True)]


def _shifted(section: Tensor, shift: Sequence[int], *, outside: float | None = None) -> Tensor:
    """Move along the last two axes; filled by reflection or by a value."""
    for axis, step in zip((-2, -1), shift, strict=True):
        size = section.shape[axis]
        index = torch.arange(size, device=section.device) - step
        mirrored = torch.where(index < 0, -1 - index, torch.where(index >= size, 2 * size - 1 - index, index))
        section = section.index_select(axis, mirrored)
        if outside is not None and step:
            section.narrow(axis, 0 if step > 0 else size + step, abs(step)).fill_(outside)
    return section


def _missing(section: Tensor, sample: Tensor, numbers: Tensor) -> Tensor:
    fill = sample.amin() if numbers[2] < 0.5 else sample.mean()
    return fill.expand_as(section)


def _blurred(section: Tensor, sample: Tensor, numbers: Tensor) -> Tensor:
    return blurred(section, float(between(numbers[2], SECTION_BLUR_VOXELS)), (-2, -1))


def _dark(section: Tensor, sample: Tensor, numbers: Tensor) -> Tensor:
    low = sample.amin()
    return low + (section - low) * float(between(numbers[2], SECTION_DARKENING))


def _fault(change: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Change:
    def faulty(image: Tensor, numbers: Tensor, *, deviation: float, spacing_um: Sequence[float]) -> Tensor:
        image = image.clone()
        for sample, own in zip(_sections(image), numbers, strict=True):
            number = _which(own, len(sample))
            sample[number] = change(sample[number], sample, own)
        return image

    return faulty


def _sections(batch: Tensor) -> Tensor:
    """The batch as (N, sections, ...): a view."""
    return batch.movedim(-3, 1)


def _which(numbers: Tensor, sections: int) -> int:
    return int(float(numbers[1]) * sections)


FAULTS: dict[str, Change] = {
    "blurred_section": _fault(_blurred),
    "dark_section": _fault(_dark),
    "missing_section": _fault(_missing),
}
"""As in `augment_values.VALUES`."""
