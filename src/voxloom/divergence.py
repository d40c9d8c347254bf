"""Losses and gradients of an epoch's steps, and what is kept of a step whose numbers are none any more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor

from voxloom import io
from voxloom.errors import ModelError

Seen = tuple[Tensor, Tensor, Tensor]
Places = Sequence[tuple[str, tuple[int, int, int]]]


class Steps:
    """Loss and length of the gradient of every step of an epoch; they stay on the device until they are read.

    Parameters
    ----------
    losses, norms : sequence of float
        Of the steps before a restart.
    """

    def __init__(self, losses: Sequence[float], norms: Sequence[float]) -> None:
        self.losses, self.norms = list(losses), list(norms)
        self._unread: list[Tensor] = []
        self._parts: list[Tensor] = []

    def __len__(self) -> int:
        return len(self.losses) + len(self._unread)

    def add(self, loss: Tensor) -> None:
        """Take in one batch of the step.

        Parameters
        ----------
        loss : Tensor, scalar
            Its share of the step's loss.
        """
        self._parts.append(loss.detach())

    def end(self, norm: Tensor) -> None:
        """End the step.

        Parameters
        ----------
        norm : Tensor, scalar
            Length of its gradient.
        """
        self._unread.append(torch.stack([torch.stack(self._parts).sum(), norm]))
        self._parts = []

    def read(self) -> int | None:
        """Wait for the device and read what is there.

        Returns
        -------
        bad : int or None
            The first step, from 0, of those that weren't read before, whose loss or gradient isn't finite.
        """
        before = len(self.losses)
        for loss, norm in torch.stack(self._unread).tolist() if self._unread else ():
            self.losses.append(loss)
            self.norms.append(norm)
        self._unread = []
        steps = range(before, len(self.losses))
        return next((k for k in steps if not math.isfinite(self.losses[k] + self.norms[k])), None)


def stop(
    steps: Steps,
    bad: int,
    seen: Sequence[tuple[Seen, Places]],
    *,
    before: int,
    learning_rate: float,
    batch_file: str | Path | None,
) -> NoReturn:
    """End a training, and keep the samples of the step for ``numpy.load``.

    Parameters
    ----------
    steps : Steps
    bad : int
        See `Steps.read`.
    seen : sequence
        Image, mask and ignore of every batch of the step as the network saw them, with every sample's volume and first
        voxel.
    before : int
        Steps before this epoch.
    learning_rate : float
    batch_file : str or Path or None
        Where to keep the samples: image, mask, ignore, volume and first_voxel.

    Raises
    ------
    ModelError
        Always.
    """
    is_loss = not math.isfinite(steps.losses[bad])
    value = steps.losses[bad] if is_loss else steps.norms[bad]
    if batch_file is not None:
        _keep(Path(batch_file), [tensors for tensors, _ in seen], [place for _, places in seen for place in places])
    raise ModelError(
        f"the {'loss' if is_loss else 'gradient'} became {value} at step {before + bad + 1}, at a learning rate of "
        f"{learning_rate:.3g}: training diverged; lower optimiser.learning_rate (to {learning_rate / 10:.1g}, say), "
        "set gradient_clip to 1, or set precision to float32"
        + (f"; what the network saw in that step is in {batch_file}" if batch_file is not None else "")
    )


def _keep(path: Path, seen: Sequence[Seen], places: Places) -> None:
    image, mask, ignore = (torch.cat(tensors).cpu().numpy() for tensors in zip(*seen, strict=True))
    volume, first_voxel = zip(*places, strict=True)
    with io.atomic_file(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(
            file, image=image, mask=mask, ignore=ignore, volume=np.array(volume), first_voxel=np.array(first_voxel)
        )
