"""From a volume of any size to stored foreground probabilities, in bounded memory."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from voxloom import devices, halo, networks
from voxloom.blocks import (
    Block,
    Readable,
    Writable,
    block_shape_for,
    grid,
    part_of,
    read_voxels,
    unfinished,
    write_block,
)
from voxloom.errors import ModelError, VolumeError
from voxloom.intensity import for_volume
from voxloom.job_memory import memory_for
from voxloom.labelled import Shape, Window
from voxloom.logs import Shares, progress
from voxloom.network_settings import common_size
from voxloom.occupancy import EDGE, Occupancy, clear_empty
from voxloom.predictor import Predictor, prepare, read_box
from voxloom.tile_memory import TileMemory, tidy_heap

LOGGER = logging.getLogger("voxloom")
SHARD = (64, 512, 512)
MOST_BLOCK_VOXELS = 2**26
"""Of a block, whatever the memory: so that reading, networks and writing overlap in volumes of several blocks."""
FORWARD_SHARE, BLOCK_SHARE = 0.55, 0.4
"""Of the memory beside the weights: for a forward pass, and for the blocks that are read and written."""
COPIES = 2
"""Of the weights: the network's, and folded."""
Member = tuple[nn.Module, Mapping[str, Any]]
"""A network and the settings that `model.load_model` returned with it."""


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
    halo_voxels: int | str = "exact",
    tiles: str = "exact",
    empty_below: float | None = None,
    empty_above: float | None = None,
    description: str = "predict",
) -> list[dict[str, Any]]:
    """Predict a whole volume with one model; see `predict_ensemble`.

    Parameters
    ----------
    network : torch.nn.Module
    settings : mapping
        What `model.load_model` returned with it.
    image : array-like, shape (Z, Y, X)
    out : object
    memory_mib : float
    threads : int
    device, precision, halo_voxels, tiles, empty_below, empty_above, description
        As `predict_ensemble` takes them.

    Returns
    -------
    facts : list of dict
    """
    return predict_ensemble(
        [(network, settings)],
        image,
        out,
        memory_mib=memory_mib,
        threads=threads,
        device=device,
        precision=precision,
        halo_voxels=halo_voxels,
        tiles=tiles,
        empty_below=empty_below,
        empty_above=empty_above,
        description=description,
    )


def predict_ensemble(
    members: Sequence[Member],
    image: Readable,
    out: Writable,
    *,
    memory_mib: float,
    threads: int,
    device: str = "auto",
    precision: str | None = None,
    halo_voxels: int | str = "exact",
    tiles: str = "exact",
    empty_below: float | None = None,
    empty_above: float | None = None,
    test_time_flips: bool | None = None,
    test_time_rotations: bool | None = None,
    part: str = "1-of-1",
    description: str = "predict",
) -> list[dict[str, Any]]:
    """Predict a whole volume as the mean of several models, in bounded memory; reading, networks and writing overlap.

    Parameters
    ----------
    members : sequence of (torch.nn.Module, mapping)
        What `model.load_model` returned, once a model; one is a model by itself. Their inputs may differ.
    image : array-like, shape (Z, Y, X)
        Grey values; an array or a stored volume.
    out : object
        Takes ``out[slices] = array`` of uint8 probabilities (255 is 1).
    memory_mib : float
        Budget beside the interpreter and its libraries; the networks' weights count.
    threads : int
        Of the arithmetic.
    device : {"auto", "cpu", "cuda", "mps"}
    precision : {"auto", "float32", "bfloat16"}, optional
        The model's own where it is left out.
    halo_voxels : int or {"exact", "measured"}
    tiles : {"exact", "averaged"}
        See `halo.chosen` for both.
    empty_below, empty_above : float, optional
        Squares of a slice whose every grey value is below the one, or above the other, get probability 0; see
        `occupancy.Occupancy`.
    test_time_flips, test_time_rotations : bool, optional
        Mean over mirrored, over turned tiles too; each member's own where it is left out.
    part : str
        Which of several jobs' shares to predict, whole layers of shards; see `blocks.part_of`.
    description : str
        For the lines in the log: progress, and the share of the time that reading, networks and writing took.

    Returns
    -------
    facts : list of dict
        Of each member, how far the network sees and how far it was shown; see `halo.chosen`.

    Raises
    ------
    VolumeError
        If the image has other than three axes, holds values that are not finite, or the budget is too small.
    ModelError
        If there is no member, or a network's output is not finite.

    Notes
    -----
    Probabilities are averaged as float32, block by block, and rounded once. A volume that is scored must be one that no
    member learnt from: members of one fold share a test set, members of several folds have none.

    A tile's halo is the network's receptive field and its pooling grid is the volume's, so the result is that of whole
    slices (in 3-D: of the whole volume) but for the rounding of float32 sums, and doesn't depend on tile or budget. A
    narrower halo gives another result, of tiles that lie fixed in the volume, so that it depends on no budget either. A
    model with ``input.size`` predicts whole slices scaled to that size; its probabilities are scaled back bilinearly.

    Averaged tiles are what many published systems take the mean over: near its border a tile sees mirrored or missing
    surroundings, so the result is another one than that of whole slices, but it depends on no block or budget either.

    What a network made of a tile of one value it is not asked again.
    """
    if len(image.shape) != 3:
        raise VolumeError(f"image must have three axes (Z, Y, X), got shape {image.shape}; take one channel")
    if not members:
        raise ModelError("an ensemble of no model predicts nothing; give the folder of one model at least")
    for _, settings in members:
        _compare_spacing(settings, image)
    members = with_test_time(members, test_time_flips=test_time_flips, test_time_rotations=test_time_rotations)
    memory_mib -= COPIES * sum(_weights_mib(network) for network, _ in members)
    shares, occupancy = Shares(description), Occupancy(empty_below, empty_above)
    with devices.reproducible(threads=threads), tidy_heap():
        predictors, facts = _prepared(
            members,
            image,
            memory_mib=FORWARD_SHARE * memory_mib,
            device=device,
            precision=precision,
            halo_voxels=halo_voxels,
            tiles=tiles,
        )
        blocks = _blocks(predictors, image, out, memory_mib=BLOCK_SHARE * memory_mib, part=part)
        blocks = unfinished(blocks, out, description)
        margin = _margin(predictors)
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
            writing: Future[None] | None = None
            for block, window in progress(
                _read_ahead(reader, image, blocks, margin, shares), total=len(blocks), description=description
            ):
                with shares.of("network"), _placed_in_errors(image, block):
                    result = _mean_of_block(predictors, window, block, occupancy)
                if writing is not None:
                    writing.result()
                writing = writer.submit(_write, out, block, result, shares)
            if writing is not None:
                writing.result()
    shares.log()
    if occupancy.squares:
        share = 100 * occupancy.empty / occupancy.squares
        LOGGER.info("%.0f %% of the squares of %d x %d voxels hold nothing and got probability 0", share, EDGE, EDGE)
    return facts


@contextlib.contextmanager
def _placed_in_errors(image: Readable, block: Block) -> Iterator[None]:
    """Say of an error in which block of which volume it happened."""
    try:
        yield
    except VolumeError as error:
        start, stop = ([getattr(axis, end) for axis in block.core] for end in ("start", "stop"))
        error.add_note(f"in voxels {start} to {stop} (Z, Y, X) of {getattr(image, 'path', 'the image')}, or near them")
        raise


def with_test_time(members: Sequence[Member], **given: bool | None) -> list[Member]:
    """Members with other transforms at test time than they were trained to have.

    Parameters
    ----------
    members : sequence of (torch.nn.Module, mapping)
        Not modified.
    **given : bool or None
        ``test_time_flips`` and ``test_time_rotations``; None leaves each member its own.

    Returns
    -------
    members : list of (torch.nn.Module, mapping)
    """
    instead = {key: value for key, value in given.items() if value is not None}
    return [(network, {**settings, **instead}) for network, settings in members]


def _prepared(
    members: Sequence[Member],
    image: Readable,
    *,
    memory_mib: float,
    device: str,
    precision: str | None,
    halo_voxels: int | str,
    tiles: str,
) -> tuple[list[Predictor], list[dict[str, Any]]]:
    """The members on their device, each with its halo, and what is known of it."""
    predictors, facts = [], []
    for network, settings in members:
        whole = prepare(network, for_volume(settings, image), memory_mib=memory_mib, device=device, precision=precision)
        predictor, of_halo = halo.chosen(whole, image, halo_voxels=halo_voxels, tiles=tiles)
        predictors.append(replace(predictor, memory=TileMemory()) if predictor.device.type == "cpu" else predictor)
        facts.append(of_halo)
    return predictors, facts


def _write(out: Writable, block: Block, result: NDArray[np.uint8], shares: Shares) -> None:
    with shares.of("writing"):
        write_block(out, block, result)


def _weights_mib(network: nn.Module) -> float:
    return sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values()) / 2**20


def _mean_of_block(
    predictors: Sequence[Predictor], window: Window, block: Block, occupancy: Occupancy
) -> NDArray[np.uint8]:
    """The mean probability of a block, rounded once; 0 in empty squares."""
    start, stop = [part.start for part in block.core], [part.stop for part in block.core]
    occupied = occupancy.squares_of(window[block.core])
    result = np.empty(np.subtract(stop, start), dtype=np.uint8)
    if len(predictors) == 1:
        predictors[0].region(window, start, stop, result, occupied=occupied)
    else:
        _mean_of_members(predictors, window, block, result, occupied)
    clear_empty(occupied, result)
    return result


def _mean_of_members(
    predictors: Sequence[Predictor],
    window: Window,
    block: Block,
    result: NDArray[np.uint8],
    occupied: NDArray[np.bool_] | None,
) -> None:
    start, stop = [part.start for part in block.core], [part.stop for part in block.core]
    total, single = np.zeros(result.shape, dtype=np.float32), np.empty(result.shape, dtype=np.float32)
    for predictor in predictors:
        predictor.region(window, start, stop, single, occupied=occupied)
        total += single
    total *= 255 / len(predictors)
    np.copyto(result, np.rint(total, out=total), casting="unsafe")


def _margin(predictors: Sequence[Predictor]) -> Shape:
    """Voxels (Z, Y, X) beyond a block that predicting it may read."""
    z, y, x = (max(reach) for reach in zip(*(_reach(each) for each in predictors), strict=True))
    return z, y, x


def _reach(predictor: Predictor) -> Shape:
    settings = predictor.settings
    if settings["input"]["size"] is not None:
        return networks.slices_beside(settings["network"]), 0, 0
    factor = networks.size_factor(settings["network"])
    if predictor.averaged is not None:  # a tile that holds a voxel of the block may begin or end so far away
        z, y, x = (edge + f for edge, f in zip(predictor.averaged, factor, strict=True))
        is_3d = settings["network"]["dimensions"] == 3
        return z if is_3d else networks.slices_beside(settings["network"]), y, x
    z, y, x = (n + (f if f > 1 else 0) for n, f in zip(predictor.halo, factor, strict=True))
    return z, y, x


def _blocks(
    predictors: Sequence[Predictor], image: Readable, out: Writable, *, memory_mib: float, part: str
) -> list[Block]:
    """Blocks of whole shards, and of whole cells of fixed grids; of whole slices where they are scaled."""
    shape = image.shape
    shard = getattr(out, "shard_shape", SHARD)
    for predictor in predictors:
        if not predictor.is_exact:
            shard = [math.lcm(a, b) for a, b in zip(shard, predictor.fixed_core(shape), strict=True)]
    z_range = part_of(shape, shard, part)
    held = _held_bytes(predictors, image)
    margin = _margin(predictors)
    if all(each.settings["input"]["size"] is None for each in predictors):
        least = math.prod(edge + 2 * beside for edge, beside in zip(shard, margin, strict=True))
        most_mib = max(MOST_BLOCK_VOXELS, least) * held / 2**20
        block_shape = block_shape_for(
            shape, bytes_per_voxel=held, memory_mib=min(memory_mib, most_mib), halo_voxels=margin, align=shard
        )
        return grid(shape, block_shape, z_range=z_range)
    window = 2 * margin[0] + 1
    depth = int(memory_mib * 2**20 / (held * shape[1] * shape[2])) - window + 1
    if depth < 1:
        needed = held * shape[1] * shape[2] * window / 2**20 / BLOCK_SHARE
        raise VolumeError(
            f"one slice of {shape[1]} x {shape[2]} voxels doesn't fit; raise resources.memory_mib to at least "
            f"{memory_for(needed)}"
        )
    depth = depth // shard[0] * shard[0] or depth
    return grid(shape, (min(depth, shape[0]), shape[1], shape[2]), z_range=z_range)


def _held_bytes(predictors: Sequence[Predictor], image: Readable) -> int:
    """For each voxel: the block in work and the one that is read ahead, two results, and the writer's copy."""
    held = 2 * image[0:1, 0:1, 0:1].dtype.itemsize + 3
    if len(predictors) > 1:
        return held + 8  # the sum of the members and the one in work, as float32
    return held if predictors[0].averaged is None else held + 4  # the sum over tiles


def planned_mib(
    settings: Sequence[Mapping[str, Any]],
    image: Readable,
    out: Any,
    *,
    weights_mib: float,
    memory_mib: float,
    device: str,
    halo_voxels: int | str,
    tiles: str = "exact",
    parts: int = 1,
) -> tuple[float, float]:
    """What `predict_ensemble` will take, known before anything is read or predicted.

    Parameters
    ----------
    settings : sequence of mapping
        Of each member.
    image : array-like, shape (Z, Y, X)
        Its shape and type count.
    out : object
        Its ``shard_shape`` counts where it has one.
    weights_mib : float
        Of all networks.
    memory_mib : float
    device : str
    halo_voxels : int or {"exact", "measured"}
        "measured" is taken for "exact", which it never exceeds.
    tiles : {"exact", "averaged"}
    parts : int
        Jobs that share the volume.

    Returns
    -------
    mib, gpu_mib : float
        Of the process, beside the interpreter and its libraries; on the GPU.

    Raises
    ------
    VolumeError
        If the budget is too small.
    """
    left = memory_mib - COPIES * weights_mib
    predictors = []
    for each in settings:
        whole = prepare(nn.Identity(), each, memory_mib=FORWARD_SHARE * left, device=device, precision=None)
        narrow = "exact" if halo_voxels == "measured" else halo_voxels
        predictors.append(halo.chosen(whole, image, halo_voxels=narrow, tiles=tiles)[0])
    largest = f"{parts}-of-{parts}"  # the last part has as many layers as any
    blocks, margin = _blocks(predictors, image, out, memory_mib=BLOCK_SHARE * left, part=largest), _margin(predictors)
    read = read_voxels([part.stop for part in blocks[0].core], image.shape, margin)
    forward_mib = max(predictor.forward_mib(image.shape) for predictor in predictors)
    mib = COPIES * weights_mib + read * _held_bytes(predictors, image) / 2**20
    return (mib + forward_mib, 0.0) if predictors[0].device.type == "cpu" else (mib, weights_mib + forward_mib)


def _read_ahead(
    reader: ThreadPoolExecutor, image: Readable, blocks: list[Block], margin: Shape, shares: Shares
) -> Iterator[tuple[Block, Window]]:
    """Each block with its image; the next one is read meanwhile."""
    z, y, x = image.shape

    def read(block: Block) -> Window:
        ranges = [
            (max(part.start - more, 0), min(part.stop + more, size))
            for part, more, size in zip(block.core, margin, (z, y, x), strict=True)
        ]
        with shares.of("reading"):
            return Window(read_box(image, ranges), (ranges[0][0], ranges[1][0], ranges[2][0]), (z, y, x))

    following = [reader.submit(read, block) for block in blocks[:1]]
    for number, block in enumerate(blocks):
        window = following.pop().result()
        following += [reader.submit(read, later) for later in blocks[number + 1 : number + 2]]
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
    members: Sequence[Member],
    image: Readable,
    z_slices: Sequence[int],
    *,
    threads: int,
    device: str = "auto",
    precision: str | None = None,
    test_time_flips: bool | None = None,
) -> NDArray[np.uint8]:
    """Predict slices at the size that the networks see, to be scored against labels of that size.

    Parameters
    ----------
    members : sequence of (torch.nn.Module, mapping)
        As `predict_ensemble` takes them; all of the same ``input.size``.
    image : array-like, shape (Z, Y, X)
    z_slices : sequence of int
    threads : int
    device, precision, test_time_flips
        See `predict_ensemble`; scaled slices are never turned.

    Returns
    -------
    probability : ndarray of uint8, shape (len(z_slices), *input.size)
        255 is 1. `slice_scaling.scale_codes` makes labels of this size.

    Raises
    ------
    ModelError
        If the members have no common size.
    """
    members = with_test_time(members, test_time_flips=test_time_flips)
    size = common_size([settings for _, settings in members])
    if size is None:
        raise ModelError("only models of one and the same input.size have another scale than the volume")
    probability = np.empty((len(z_slices), *size), dtype=np.uint8)
    with devices.reproducible(threads=threads):
        predictors = [
            prepare(network, for_volume(settings, image), memory_mib=0.0, device=device, precision=precision)
            for network, settings in members
        ]
        for number, z in enumerate(z_slices):
            total = torch.stack([predictor.at_network_scale(image, z) for predictor in predictors]).sum(dim=0)
            probability[number] = torch.round(total * (255 / len(members))).numpy()
    return probability
