"""From a volume of any size to stored foreground probabilities, in bounded memory."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from voxloom import devices, networks
from voxloom.blocks import Block, Readable, Writable, block_shape_for, grid
from voxloom.errors import ModelError, VolumeError
from voxloom.intensity import for_volume
from voxloom.labelled import Shape, Window
from voxloom.logs import progress
from voxloom.predictor import prepare, read_box

LOGGER = logging.getLogger("voxloom")
SHARD = (64, 512, 512)


def predict_volume(
    network: nn.Module,
    settings: Mapping[str, Any],
    image: Readable,
    out: Writable,
    *,
    memory_mib: float,
    threads: int,
    device: str = "auto",
    precision: str | None = None,
    description: str = "predict",
) -> None:
    """Predict a whole volume in bounded memory; reading, network and writing overlap.

    Parameters
    ----------
    network : torch.nn.Module
    settings : mapping
        What `model.load_model` returned with it.
    image : array-like, shape (Z, Y, X)
        Grey values; an array or a stored volume.
    out : object
        Takes ``out[slices] = array`` of uint8 probabilities (255 is 1).
    memory_mib : float
        Budget beside the interpreter and its libraries.
    threads : int
        Of the arithmetic.
    device : {"auto", "cpu", "cuda", "mps"}
    precision : {"auto", "float32", "bfloat16"}, optional
        The model's own where it is left out.
    description : str
        For the progress line in the log.

    Raises
    ------
    VolumeError
        If the image has other than three axes, holds values that are not finite, or the budget is too small.
    ModelError
        If the network's output is not finite.

    Notes
    -----
    A tile's halo is the network's receptive field and its pooling grid is the volume's, so the result is that of whole
    slices (in 3-D: of the whole volume) but for the rounding of float32 sums, and doesn't depend on tile or budget. A
    model with ``input.size`` predicts whole slices scaled to that size; its probabilities are scaled back bilinearly.
    """
    if len(image.shape) != 3:
        raise VolumeError(f"image must have three axes (Z, Y, X), got shape {image.shape}; take one channel")
    _compare_spacing(settings, image)
    settings = for_volume(settings, image)
    with devices.reproducible(threads=threads):
        predictor = prepare(network, settings, memory_mib=0.55 * memory_mib, device=device, precision=precision)
        blocks = _blocks(settings, image, out, memory_mib=0.4 * memory_mib)
        margin = _margin(settings)
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
            writing: Future[None] | None = None
            for block, window in progress(
                _read_ahead(reader, image, blocks, margin), total=len(blocks), description=description
            ):
                start, stop = [part.start for part in block.core], [part.stop for part in block.core]
                result = np.empty(np.subtract(stop, start), dtype=np.uint8)
                predictor.region(window, start, stop, result)
                if writing is not None:
                    writing.result()
                writing = writer.submit(out.__setitem__, block.core, result)
            if writing is not None:
                writing.result()


def _margin(settings: Mapping[str, Any]) -> Shape:
    """Voxels (Z, Y, X) beyond a block that predicting it may read."""
    if settings["input"]["size"] is not None:
        return networks.slices_beside(settings["network"]), 0, 0
    reach = networks.receptive_field(settings["network"])
    factor = networks.size_factor(settings["network"])
    z, y, x = (n + (f if f > 1 else 0) for n, f in zip(reach, factor, strict=True))
    return z, y, x


def _blocks(settings: Mapping[str, Any], image: Readable, out: Writable, *, memory_mib: float) -> list[Block]:
    """Blocks of whole shards; of whole slices where they are scaled."""
    shape = image.shape
    shard = getattr(out, "shard_shape", SHARD)
    # the block in work and the one that is read ahead, two results, and the writer's copy
    held = 2 * image[0:1, 0:1, 0:1].dtype.itemsize + 3
    if settings["input"]["size"] is None:
        block_shape = block_shape_for(
            shape, bytes_per_voxel=held, memory_mib=memory_mib, halo_voxels=_margin(settings), align=shard
        )
        return grid(shape, block_shape)
    window = 2 * networks.slices_beside(settings["network"]) + 1
    depth = int(memory_mib * 2**20 / (held * shape[1] * shape[2])) - window + 1
    if depth < 1:
        needed = held * shape[1] * shape[2] * window / 2**20 / 0.4
        raise VolumeError(
            f"one slice of {shape[1]} x {shape[2]} voxels doesn't fit; raise resources.memory_mib to at least "
            f"{math.ceil(needed)}"
        )
    depth = depth // shard[0] * shard[0] or depth
    return grid(shape, (min(depth, shape[0]), shape[1], shape[2]))


def _read_ahead(
    reader: ThreadPoolExecutor, image: Readable, blocks: list[Block], margin: Shape
) -> Iterator[tuple[Block, Window]]:
    """Each block with its image; the next one is read meanwhile."""
    z, y, x = image.shape

    def read(block: Block) -> Window:
        ranges = [
            (max(part.start - more, 0), min(part.stop + more, size))
            for part, more, size in zip(block.core, margin, (z, y, x), strict=True)
        ]
        return Window(read_box(image, ranges), (ranges[0][0], ranges[1][0], ranges[2][0]), (z, y, x))

    following = reader.submit(read, blocks[0])
    for number, block in enumerate(blocks):
        window = following.result()
        if number + 1 < len(blocks):
            following = reader.submit(read, blocks[number + 1])
        yield block, window


def _compare_spacing(settings: Mapping[str, Any], image: Readable) -> None:
    """Warn where voxels are of another size than in training."""
    learnt, here = settings.get("spacing_um"), getattr(image, "spacing_um", None)
    if learnt and here and not np.allclose(learnt, here, rtol=0.05):
        LOGGER.warning(
            "the model learnt at voxels of %s um (Z, Y, X), this volume has %s um: expect it to do worse; resample the "
            "volume, or train on volumes of this voxel size",
            tuple(learnt),
            tuple(here),
        )


def predict_slices_at_network_scale(
    network: nn.Module,
    settings: Mapping[str, Any],
    image: Readable,
    z_slices: Sequence[int],
    *,
    threads: int,
    device: str = "auto",
    precision: str | None = None,
) -> NDArray[np.uint8]:
    """Predict slices at the size that the network sees, to be scored against labels of that size.

    Parameters
    ----------
    network : torch.nn.Module
    settings : mapping
        What `model.load_model` returned with it; with ``input.size``.
    image : array-like, shape (Z, Y, X)
    z_slices : sequence of int
    threads : int
    device, precision : str
        See `predict_volume`.

    Returns
    -------
    probability : ndarray of uint8, shape (len(z_slices), *input.size)
        255 is 1. `sampling.scale_codes` makes labels of this size.

    Raises
    ------
    ModelError
        If the model works at native resolution.
    """
    if settings["input"]["size"] is None:
        raise ModelError("the model works at the volume's own resolution; only one with input.size has another scale")
    settings = for_volume(settings, image)
    probability = np.empty((len(z_slices), *settings["input"]["size"]), dtype=np.uint8)
    with devices.reproducible(threads=threads):
        predictor = prepare(network, settings, memory_mib=0.0, device=device, precision=precision)
        for number, z in enumerate(z_slices):
            probability[number] = torch.round(predictor.at_network_scale(image, z) * 255).numpy()
    return probability
