"""What a training step sees: a pure function of seed, epoch and step, so that resuming and workers change nothing."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from voxloom import networks, sampling_scan
from voxloom.errors import SplitError
from voxloom.labelled import PartBox, Shape, TrainingVolume, holds_slices, labelled_volumes, reflected
from voxloom.sampling_check import check_input
from voxloom.sampling_scan import Cell
from voxloom.slice_scaling import scale_codes, scale_image
from voxloom.volume import IGNORE, split_annotation

LOGGER = logging.getLogger("voxloom")
PATCHES, ORDER = 1, 2  # streams of random numbers
EXAMPLES_OF = 12


@dataclass(frozen=True)
class Batch:
    """Samples of one step.

    Parameters
    ----------
    image : Tensor of float32, shape (N, C, [Z,] Y, X)
        Normalised.
    mask : Tensor of float32, shape (N, 1, [Z,] Y, X)
        Foreground is 1.
    ignore : Tensor of bool, same shape
    places : tuple of (str, tuple of int)
        Volume and first voxel (Z, Y, X) of every sample; may lie outside the volume.
    """

    image: Tensor
    mask: Tensor
    ignore: Tensor
    places: tuple[tuple[str, Shape], ...]


@dataclass(frozen=True)
class Examples:
    """Samples to be shown, and what augmenting them needs.

    Parameters
    ----------
    batch : Batch
        Not augmented.
    spacing_um : tuple of float
        Voxel edge lengths (Z, Y, X) of the samples.
    unit_deviation : float
        Standard deviation of the training set in the network's numbers.
    """

    batch: Batch
    spacing_um: tuple[float, float, float]
    unit_deviation: float


_Sample = tuple[NDArray[np.float32], NDArray[np.uint8], tuple[str, Shape]]


@contextlib.contextmanager
def _named_in_errors(volume: str, start: Shape) -> Iterator[None]:
    """Errors of a loader say what was being read."""
    try:
        yield
    except Exception as error:
        error.add_note(f"while reading a training sample of volume {volume} at voxel {tuple(map(int, start))}")
        raise


class Sampler:
    """Picks training samples from stored volumes.

    Whole slices are taken, each once an epoch in shuffled order, where the model scales them (``input.size``) or where
    a patch would be as large as every slice; otherwise patches.

    Parameters
    ----------
    volumes : mapping of str to TrainingVolume
    boxes : sequence of PartBox
        Of one fold; those of part train are used.
    settings : mapping
        A model's settings (``$defs/model`` of the task schema, defaults filled in).
    seed : int
    memory_mib : float
        What training boxes may take in memory; where they are larger, patches are read from the store.

    Attributes
    ----------
    scan : Scan
        What a look at the training boxes found.
    positive_weight : float
        Of the loss; "balanced" resolved.
    samples_per_epoch, steps_per_epoch : int
    whole_slices : bool
    held_bytes : int
        Memory of the training boxes that are kept in it.

    Raises
    ------
    ModelError
        If patches don't fit the network, or the training boxes hold nothing to learn from.
    SplitError
        If there are no training boxes.
    """

    def __init__(
        self,
        volumes: Mapping[str, TrainingVolume],
        *,
        boxes: Sequence[PartBox],
        settings: Mapping[str, Any],
        seed: int,
        memory_mib: float,
    ) -> None:
        check_input(settings)
        self.settings, self.seed = settings, seed
        self.parts = labelled_volumes(volumes, boxes, part="train")
        if not self.parts:
            raise SplitError("the split has no training box in this fold; give it fewer test and validation blocks")
        self.dimensions, self.step = settings["network"]["dimensions"], settings["network"]["slice_step"]
        self.beside = networks.slices_beside(settings["network"])
        self.factor = networks.size_factor(settings["network"])
        self.patch: Shape = tuple(settings["input"]["patch_voxels"])
        self.whole_slices = self.dimensions == 2 and (
            settings["input"]["size"] is not None or holds_slices(self.parts, self.patch)
        )
        self._hold(memory_mib)
        self.scan = sampling_scan.scan(self.parts, settings)
        self.ends = self.scan.ends
        self.positive_weight = sampling_scan.positive_weight(self.scan, settings["loss"]["positive_weight"])
        self._set_epoch()

    @property
    def sample_spacing_um(self) -> tuple[float, float, float]:
        """Voxel edge lengths (Z, Y, X) of the samples: the first volume's, scaled where its slices are."""
        part = self.parts[0]
        z, y, x = part.volume.spacing_um
        _, height, width = part.shape
        to_height, to_width = self.settings["input"]["size"] or (height, width)
        return z, y * height / to_height, x * width / to_width

    @property
    def sample_voxels(self) -> Shape:
        """Edge lengths (Z, Y, X) of the samples."""
        return (1, *self.plane_shape) if self.whole_slices else self.patch

    def _hold(self, memory_mib: float) -> None:
        """Read what training needs into memory if it fits."""
        self.held_bytes = 0
        for part in self.parts:
            _, height, width = part.shape
            margin = (self.beside, height, width) if self.whole_slices else [n + self.beside for n in self.patch]
            if self.held_bytes + part.bytes_held(margin) <= memory_mib * 2**20:
                self.held_bytes += part.bytes_held(margin)
                part.hold(margin)
            else:
                LOGGER.info("%s is larger than the memory left: its training samples are read from disk", part.name)

    def _set_epoch(self) -> None:
        samples = self.settings["samples_per_epoch"]
        if samples is None and self.whole_slices:
            samples = len(self.scan.planes)
        elif samples is None:
            samples = max(1, math.ceil(self.scan.annotated_voxels / math.prod(self.patch)))
        self.samples_per_epoch = int(samples)
        self.steps_per_epoch = math.ceil(self.samples_per_epoch / self.settings["batch_size"])
        heights, widths = ([part.shape[axis] for part in self.parts] for axis in (1, 2))
        target = self.settings["input"]["size"] or (max(heights), max(widths))
        # every sample has the same size, and one that the network can pool
        height, width = (-(-n // f) * f for n, f in zip(target, self.factor[1:], strict=True))
        self.plane_shape = (height, width)

    def batch(self, epoch: int, step: int) -> Batch:
        """The samples of one step.

        Parameters
        ----------
        epoch, step : int
            From 0; `step` below `steps_per_epoch`.

        Returns
        -------
        batch : Batch
            Depends on nothing but the arguments and the sampler's own settings.
        """
        return self.samples(epoch, self.numbers(step))

    def numbers(self, step: int) -> range:
        """Which of an epoch's samples a step sees.

        Parameters
        ----------
        step : int
            From 0; below `steps_per_epoch`.

        Returns
        -------
        numbers : range
            Fewer than ``batch_size`` in the last step, where they don't divide.
        """
        size = self.settings["batch_size"]
        return range(step * size, min((step + 1) * size, self.samples_per_epoch))

    def samples(self, epoch: int, numbers: Sequence[int]) -> Batch:
        """Some samples of an epoch.

        Parameters
        ----------
        epoch : int
            From 0.
        numbers : sequence of int
            From 0; below `samples_per_epoch`.

        Returns
        -------
        batch : Batch
        """
        read = self._slice if self.whole_slices else self._patch
        images, codes, places = zip(*(read(epoch, number) for number in numbers), strict=True)
        joined = np.stack(codes)[:, None]
        mask, ignore = split_annotation(joined)
        return Batch(
            torch.from_numpy(np.stack(images)),
            torch.from_numpy(mask.astype(np.float32)),
            torch.from_numpy(ignore),
            places,
        )

    def examples(self, count: int) -> Examples:
        """Samples of the first epoch that have something to show.

        Parameters
        ----------
        count : int

        Returns
        -------
        examples : Examples
            Of the first `EXAMPLES_OF` samples those with the most foreground, in their order; fewer where an epoch has
            fewer. What training sees stays as it is.
        """
        looked_at = range(min(EXAMPLES_OF, self.samples_per_epoch))
        foreground = [float(self.samples(0, [number]).mask.mean()) for number in looked_at]
        chosen = sorted(looked_at, key=lambda number: -foreground[number])[:count]
        return Examples(self.samples(0, sorted(chosen)), self.sample_spacing_um, self.scan.normalisation.unit_deviation)

    def _slice(self, epoch: int, number: int) -> _Sample:
        """Image (C, Y, X) and codes (Y, X) of a whole slice."""
        turn, place = divmod(number, len(self.scan.planes))
        order = np.random.default_rng([self.seed, ORDER, epoch, turn]).permutation(len(self.scan.planes))
        volume, z = self.scan.planes[order[place]]
        part = self.parts[volume]
        _, height, width = part.shape
        with _named_in_errors(part.name, (z, 0, 0)):
            window = part.image((z - self.beside, 0, 0), (2 * self.beside + 1, height, width))
            codes = part.codes((z, 0, 0), (1, height, width))[0]
        stack = self.scan.normalisations[volume].apply(window[:: self.step])
        if self.settings["input"]["size"] is not None:
            stack = scale_image(torch.from_numpy(stack), self.settings["input"]["size"]).numpy()
            codes = scale_codes(codes, self.settings["input"]["size"])
        rows, columns = (reflected(0, n, have) for n, have in zip(self.plane_shape, codes.shape, strict=True))
        padding = [(0, n - have) for n, have in zip(self.plane_shape, codes.shape, strict=True)]
        return stack[:, rows][:, :, columns], np.pad(codes, padding, constant_values=IGNORE), (part.name, (z, 0, 0))

    def _patch(self, epoch: int, number: int) -> _Sample:
        """Image (C, Y, X) and codes (Y, X) of a patch, with a Z axis each for 3 dimensions."""
        rng = np.random.default_rng([self.seed, PATCHES, epoch, number])
        by_first = rng.random() < self.settings["annotator_share"]
        is_foreground = rng.random() < self.settings["foreground_share"]
        cell, centre = self._centre(rng, by_first=by_first, is_foreground=is_foreground)
        part = self.parts[cell.volume]
        z, y, x = (
            _patch_start(*axis)
            for axis in zip(centre, self.patch, cell.box.start, cell.box.stop, part.shape, strict=True)
        )
        with _named_in_errors(part.name, (z, y, x)):
            codes = part.codes((z, y, x), self.patch)
            window = part.image((z - self.beside, y, x), (self.patch[0] + 2 * self.beside, *self.patch[1:]))
        image = self.scan.normalisations[cell.volume].apply(window[:: self.step])
        place = (part.name, (z, y, x))
        return (image, codes[0], place) if self.dimensions == 2 else (image[None], codes, place)

    def _centre(self, rng: np.random.Generator, *, by_first: bool, is_foreground: bool) -> tuple[Cell, list[int]]:
        """A voxel of the wanted kind, each with the same probability."""
        kind = 2 * by_first + is_foreground
        if self.ends[-1, kind] == 0:  # the first annotation has no foreground: what it annotated, then
            kind -= 1
        chosen = int(rng.integers(self.ends[-1, kind]))
        number = int(np.searchsorted(self.ends[:, kind], chosen, side="right"))
        cell = self.scan.cells[number]
        part = self.parts[cell.volume]
        with _named_in_errors(part.name, cell.start):
            codes = part.codes(cell.start, cell.shape)
            has_others = len(part.volume.annotations) > 1
            firsts = part.codes(cell.start, cell.shape, first_only=True) if has_others else codes
        places = np.flatnonzero(sampling_scan.kinds(codes, firsts)[kind])
        before = int(self.ends[number - 1, kind]) if number else 0
        inside = np.unravel_index(int(places[chosen - before]), cell.shape)
        return cell, [low + int(place) for low, place in zip(cell.start, inside, strict=True)]


def _patch_start(centre: int, edge: int, low: int, high: int, size: int) -> int:
    """First voxel of a patch along one axis: inside the box where it fits, else inside the volume, else around it."""
    if edge > size:
        return -((edge - size) // 2)
    inside = sorted((low, high - edge))  # the box inside the patch, where it is smaller
    start = min(max(centre - edge // 2, inside[0]), inside[1])
    return min(max(start, 0), size - edge)
