"""Which samples a step sees, and what the network sees of them: augmented, on the device, this process's share."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from voxloom import devices, networks
from voxloom.augment import augment
from voxloom.divergence import Places, Seen
from voxloom.loading import Prefetched
from voxloom.process_group import Group
from voxloom.sampling import Batch, Sampler

AUGMENT, DROPOUT = 3, 4  # streams of random numbers


class Batches:
    """The batches of a training; everything follows from seed, epoch and number.

    Parameters
    ----------
    sampler : Sampler
    settings : mapping
        A model's settings.
    seed : int
    device : torch.device
    group : Group
        This process's place among those that train together.
    """

    def __init__(
        self, sampler: Sampler, *, settings: Mapping[str, Any], seed: int, device: torch.device, group: Group
    ) -> None:
        self.sampler, self.settings, self.seed, self.device, self.group = sampler, settings, seed, device, group

    def ahead(self, epoch: int, numbers: Iterable[int], *, workers: int) -> Prefetched[Batch]:
        """This process's share of some batches, read while the network learns.

        Parameters
        ----------
        epoch : int
        numbers : iterable of int
        workers : int

        Returns
        -------
        batches : Prefetched
        """
        return Prefetched(lambda number: self._share(epoch, number), numbers, workers=workers)

    def _share(self, epoch: int, number: int) -> Batch:
        """Where there is nothing left for this process, a sample that counts for nothing."""
        numbers = self.sampler.numbers(number)
        batch = self.sampler.samples(epoch, numbers[self._place(number)])
        if len(self.group.share(numbers)):
            return batch
        return dataclasses.replace(batch, ignore=torch.ones_like(batch.ignore))

    def _place(self, number: int) -> slice:
        """Which samples of a batch this process sees; the first where there is none left for it."""
        share = self.group.share(range(len(self.sampler.numbers(number))))
        return slice(share[0], share[-1] + 1) if len(share) else slice(0, 1)

    def seen(self, batch: Batch, epoch: int, number: int) -> Seen:
        """What the network sees of this process's share.

        Parameters
        ----------
        batch : Batch
        epoch, number : int

        Returns
        -------
        image, mask, ignore : Tensor
            On the device.
        """
        return self._augmented(batch, epoch, number, first=self._place(number).start)

    def whole(self, epoch: int, number: int) -> tuple[Seen, Places]:
        """What the networks of all processes see of a batch, and where it is from.

        Parameters
        ----------
        epoch, number : int

        Returns
        -------
        seen : tuple of Tensor
            Image, mask and ignore, on the device.
        places : sequence
            Volume and first voxel of every sample.
        """
        batch = self.sampler.batch(epoch, number)
        return self._augmented(batch, epoch, number, first=0), batch.places

    def _augmented(self, batch: Batch, epoch: int, number: int, *, first: int) -> Seen:
        image, mask, ignore = augment(
            *(tensor.to(self.device, non_blocking=True) for tensor in (batch.image, batch.mask, batch.ignore)),
            settings=self.settings["augment"],
            spacing_um=self.sampler.sample_spacing_um,
            deviation=self.sampler.scan.normalisation.unit_deviation,
            generator=self._generator(AUGMENT, epoch, number),
            first=first,
        )
        return image.contiguous(memory_format=devices.memory_format(image.ndim - 2)), mask, ignore

    def draw_dropout(self, network: nn.Module, epoch: int, number: int) -> None:
        """Draw which channels a network drops in a batch.

        Parameters
        ----------
        network : torch.nn.Module
        epoch, number : int
        """
        networks.draw_dropout(
            network,
            samples=len(self.sampler.numbers(number)),
            generator=self._generator(DROPOUT, epoch, number),
            share=self._place(number),
        )

    def _generator(self, stream: int, epoch: int, number: int) -> torch.Generator:
        state = np.random.SeedSequence([self.seed, stream, epoch, number]).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))
