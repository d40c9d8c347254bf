"""What chance decides about a batch: which samples an augmentation happens to, and by how much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

NUMBERS = 8
"""Random numbers that each augmentation of each sample may use."""


@dataclass(frozen=True)
class Draws:
    """Random numbers of a batch.

    Parameters
    ----------
    numbers : mapping of str to Tensor of float64, shape (N, NUMBERS)
        Name of the augmentation to numbers from 0 to 1 on the CPU; the first decides whether it happens.
    probabilities : mapping of str to float
    """

    numbers: Mapping[str, Tensor]
    probabilities: Mapping[str, float]

    def chosen(self, name: str) -> list[int]:
        """Which samples an augmentation happens to."""
        chosen: list[int] = (self.numbers[name][:, 0] < self.probabilities[name]).nonzero()[:, 0].tolist()
        return chosen


def draw(
    names: Sequence[str],
    *,
    probabilities: Mapping[str, float],
    samples: int,
    first: int,
    generator: torch.Generator,
) -> Draws:
    """Draw the random numbers of a batch.

    Parameters
    ----------
    names : sequence of str
        Augmentations.
    probabilities : mapping of str to float
    samples : int
    first : int
        Place of the first sample in the step's whole batch, of which another process may hold other samples.
    generator : torch.Generator
        On the CPU.

    Returns
    -------
    draws : Draws
        As many numbers are drawn whatever happens, so that switching one augmentation on or off leaves the others as
        they are, and so does the number of processes.
    """
    shape = (first + samples, len(names), NUMBERS)
    numbers = torch.rand(shape, generator=generator, dtype=torch.float64)[first:]
    return Draws(dict(zip(names, numbers.unbind(1), strict=True)), probabilities)


def between(number: Tensor, limits: tuple[float, float]) -> Tensor:
    """Map numbers from 0 to 1 onto a range.

    Parameters
    ----------
    number : Tensor of float64
    limits : tuple of float
        Lowest and highest value.

    Returns
    -------
    value : Tensor of float64
    """
    low, high = limits
    return low + (high - low) * number


def seeded(number: Tensor, device: torch.device) -> torch.Generator:
    """A generator on the images' device for more numbers than a sample's own.

    Parameters
    ----------
    number : Tensor of float64, shape ()
        From 0 to 1.
    device : torch.device

    Returns
    -------
    generator : torch.Generator
    """
    return torch.Generator(device).manual_seed(int(float(number) * 2**53))
