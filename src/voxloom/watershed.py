"""Seeded watershed: every voxel goes to the seed whose flood reaches it first, in memory and exactly by blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxloom.blocks import Block, Readable, ReadableWritable, Slices, grid, reduce_blocks
from voxloom.budget import blocks_within, shard_shape
from voxloom.errors import VolumeError
from voxloom.kernels import compiled, prefetch

BYTES_PER_VOXEL = 23
"""Of a block in work: states, queue, heights, seeds, mask; then states, labels and costs."""

# A voxel's state, smaller is better: 8 bits of level, 16 bits of steps and 8 of parts of a step since the water stands
# at that level, 32 bits of label
LEVEL, COST = np.uint64(56), np.uint64(32)
STEP, DOWNHILL, LABEL = np.uint64(1 << 40), np.uint64(1 << 32), np.uint64((1 << 32) - 1)
TIME, HEIGHT = np.uint64((1 << 24) - 1), np.uint64((1 << 8) - 1)
MOST_STEPS = (1 << 16) - 3
MOST_TIME = np.uint64(MOST_STEPS << 8)
DRY = np.uint64(0xFFFFFE << 40)
"""The smallest state of a voxel that no water has reached: the voxel's height stands where parts of a step would."""
CLOSED = np.uint64((1 << 64) - 1)
AHEAD = 12
"""So many voxels before its turn a voxel's neighbours are fetched."""


@dataclass(frozen=True)
class _Seam:
    """Where a block meets another: its own outermost layer along an axis, and the layer beyond."""

    own: Slices
    beyond: Slices
    inner: Slices  # its own layer, inside the block


@dataclass(frozen=True)
class _Offer:
    """The water in the layer of voxels beyond a seam: where that lies around the block, and its state."""

    around: Slices  # in the block with a layer of voxels around it
    inwards: tuple[int, ...]
    states: NDArray[np.uint64]


def watershed(
    heights: NDArray[np.uint8], seeds: NDArray[Any], *, mask: NDArray[np.bool_] | None = None
) -> NDArray[np.uint32]:
    """Flood a landscape from seeds.

    Parameters
    ----------
    heights : ndarray of uint8, shape (Z, Y, X)
        High where objects should be separated, such as stored boundary probabilities. Not modified.
    seeds : ndarray of unsigned integer of at most 32 bits, shape (Z, Y, X)
        0, or the label of the object that begins here; voxels of one label needn't touch.
    mask : ndarray of bool, shape (Z, Y, X), optional
        Where there is something to flood. Seeds outside are ignored.

    Returns
    -------
    labels : ndarray of uint32, shape (Z, Y, X)
        Of the seed that every voxel belongs to; 0 outside the mask and where no seed leads to.

    Raises
    ------
    VolumeError
        If shapes differ, a type is another, or a flood takes more than 65533 steps at one level.

    Notes
    -----
    Water rises from the seeds and passes to the six neighbours that share a face. It reaches a voxel at a level, which
    is the height of the highest voxel on the way, and the lowest level first; at one level, sooner or later. A step
    onto a voxel as high as the level takes 256 times as long as one downhill, onto a lower voxel: a basin without a
    seed is filled from where the first water comes over its rim, and a plateau is shared by distance. Where water rises
    to a higher level, time begins anew, a 256th of a step later for each grey value of the level from which it rose.
    A voxel belongs to the flood of that neighbour to which water came first; among several, to the smallest label.
    This is Meyer's flooding [1]_ with its ties decided: the result is a property of the image and depends neither on
    an order of visits nor on blocks. Steps are counted in voxels, whatever their spacing.

    References
    ----------
    .. [1] Beucher, Meyer (1993). Mathematical Morphology in Image Processing, chapter 12.

    Examples
    --------
    >>> heights = np.array([[[1, 2, 9, 2, 1]]], np.uint8)
    >>> watershed(heights, np.array([[[7, 0, 0, 0, 3]]], np.uint8))
    array([[[7, 7, 3, 3, 3]]], dtype=uint32)
    """
    _check(heights, seeds, mask)
    states = _flooded(heights, seeds, mask, offers=[])
    labels = np.empty(heights.shape, np.uint32)
    _unpack(states, labels, np.empty((0, 0, 0), np.uint32))
    return labels


def watershed_volume(
    heights: Readable,
    seeds: Readable,
    labels: ReadableWritable,
    costs: ReadableWritable,
    *,
    mask: Readable | None = None,
    memory_mib: float,
    threads: int = 1,
) -> int:
    """The same as `watershed` for stored volumes, block by block.

    Parameters
    ----------
    heights, seeds : volume, shape (Z, Y, X)
        As in `watershed`. The seeds are those of the whole volume: one object has one label in all blocks.
    labels : volume of uint32, shape (Z, Y, X)
        Takes the labels and is read back; all zero at the start.
    costs : volume of uint32, shape (Z, Y, X)
        Scratch: takes level and time of the flood at every voxel.
    mask : volume of uint8, shape (Z, Y, X), optional
        Non-zero where there is something to flood.
    memory_mib : float
        Budget, in MiB.
    threads : int
        Blocks in work at a time, fewer where the budget holds fewer.

    Returns
    -------
    passes : int
        How often blocks were looked at until nothing changed any more.

    Raises
    ------
    VolumeError
        As in `watershed`, or if the budget doesn't hold one block.

    Notes
    -----
    A block is flooded from its own seeds and from the water that stands in the voxels around it. Where the water at its
    sides changed, the neighbours beyond are flooded again, until all agree. Then every voxel has the level, the time
    and the label that follow from its neighbours' earlier ones, and only one state of a volume has that property: the
    result is that of the volume in one piece, for any blocks and threads. It ends, because neither level nor time of a
    voxel ever rises from pass to pass, and they don't depend on labels. It costs: a block is flooded some five times,
    and more often where it is small beside the objects.
    """
    shape = heights.shape
    _check(heights[0:1, 0:1, 0:1], seeds[0:1, 0:1, 0:1], None)
    if seeds.shape != shape or (mask is not None and mask.shape != shape):
        raise VolumeError(f"heights have shape {shape}, seeds {seeds.shape}; they must be the same voxels")
    layout = blocks_within(
        shape,
        bytes_per_voxel=BYTES_PER_VOXEL,
        memory_mib=memory_mib,
        halo_voxels=(1, 1, 1),
        align=shard_shape(labels),
        threads=threads,
    )
    pending = {block.index for block in grid(shape, layout.block_shape)}
    passes = 0

    def work(_: NDArray[Any], block: Block) -> list[Slices]:
        if block.index not in pending:
            return []
        landscape = heights[block.core], seeds[block.core], None if mask is None else mask[block.core] != 0
        return _flood_block(block, shape, landscape, labels, costs)

    while pending:
        passes += 1
        nothing = np.broadcast_to(np.zeros((), np.bool_), shape)  # blocks that aren't pending read nothing
        description = f"watershed, pass {passes}, block"
        looks = reduce_blocks(work, nothing, block_shape=layout.block_shape, description=description, **layout.how)
        changed = [layer for _, layers in looks for layer in layers]
        pending = {_block_at(layer, shape, layout.block_shape) for layer in changed}
    return passes


def _check(heights: NDArray[Any], seeds: NDArray[Any], mask: NDArray[np.bool_] | None) -> None:
    if heights.ndim != 3 or heights.dtype != np.uint8:
        raise VolumeError(
            f"heights must be a 3D array of uint8, got {heights.ndim}D {heights.dtype}; scale them to 0..255 first"
        )
    if seeds.dtype.kind != "u" or seeds.dtype.itemsize > 4:
        raise VolumeError(f"seeds must be unsigned integers of at most 32 bits, got {seeds.dtype}")
    for name, other in {"seeds": seeds, "mask": mask}.items():
        if other is not None and other.shape != heights.shape:
            raise VolumeError(f"heights have shape {heights.shape}, {name} {other.shape}; they must be the same voxels")


def _flood_block(
    block: Block,
    shape: tuple[int, ...],
    landscape: tuple[NDArray[np.uint8], NDArray[Any], NDArray[np.bool_] | None],
    labels: ReadableWritable,
    costs: ReadableWritable,
) -> list[Slices]:
    """Flood one block from its seeds and its surroundings, write it, and name the layers beyond that may now change."""
    seams = _seams(block.core, shape)
    before = [(labels[seam.own].copy(), costs[seam.own].copy()) for seam in seams]
    offers = [_offer(seam, labels, costs) for seam in seams]
    states = _flooded(*landscape, offers)
    new_labels, new_costs = (np.empty(landscape[0].shape, np.uint32) for _ in range(2))
    _unpack(states, new_labels, new_costs)
    costs[block.core] = new_costs  # before the labels: who floods a neighbour meanwhile finds none without its cost
    labels[block.core] = new_labels
    return [
        seam.beyond
        for seam, (label, cost) in zip(seams, before, strict=True)
        if not (np.array_equal(new_labels[seam.inner], label) and np.array_equal(new_costs[seam.inner], cost))
    ]


def _seams(core: Slices, shape: tuple[int, ...]) -> list[_Seam]:
    seams = []
    for axis, size in enumerate(shape):
        for own, beyond in (
            (core[axis].start, core[axis].start - 1),
            (core[axis].stop - 1, core[axis].stop),
        ):
            if 0 <= beyond < size:
                inside = tuple(slice(0, s.stop - s.start) for s in core)
                inner = _layer(inside, axis, own - core[axis].start)
                seams.append(_Seam(_layer(core, axis, own), _layer(core, axis, beyond), inner))
    return seams


def _layer(box: Slices, axis: int, at: int) -> Slices:
    return (*box[:axis], slice(at, at + 1), *box[axis + 1 :])


def _block_at(layer: Slices, shape: tuple[int, ...], block_shape: tuple[int, ...]) -> int:
    """The block of a grid that a layer of voxels lies in."""
    counts = [-(-n // edge) for n, edge in zip(shape, block_shape, strict=True)]
    return int(np.ravel_multi_index([s.start // edge for s, edge in zip(layer, block_shape, strict=True)], counts))


def _offer(seam: _Seam, labels: ReadableWritable, costs: ReadableWritable) -> _Offer:
    """What stands beyond a seam; where that is dry, nothing flows."""
    label = labels[seam.beyond].copy()  # before the costs, which are written first: what has a label has its cost
    states = np.where(label != 0, costs[seam.beyond].astype(np.uint64) << COST | label, CLOSED)
    outwards = tuple(beyond.start - own.start for beyond, own in zip(seam.beyond, seam.own, strict=True))
    around = tuple(slice(s.start + 1 + k, s.stop + 1 + k) for s, k in zip(seam.inner, outwards, strict=True))
    return _Offer(around, tuple(-k for k in outwards), states)


def _flooded(
    heights: NDArray[np.uint8], seeds: NDArray[Any], mask: NDArray[np.bool_] | None, offers: list[_Offer]
) -> NDArray[np.uint64]:
    """States of all voxels, with a layer around them that spares every look at the border: closed, or what is offered.

    A voxel takes its turn once, so that the queues of all heights fit into one array, each in a part of its own as long
    as there are voxels of that height.
    """
    padded = tuple(n + 2 for n in heights.shape)
    states = np.full(padded, CLOSED)
    counts = np.zeros(256, np.int64)
    is_open = np.ones(heights.shape, np.bool_) if mask is None else np.ascontiguousarray(mask)
    _begin(states, np.ascontiguousarray(heights), np.ascontiguousarray(seeds, np.uint32), is_open, counts)
    del is_open
    ends = np.cumsum(counts)
    starts = ends - counts
    queue = np.empty(ends[-1], np.int32 if states.size < 1 << 31 else np.int64)
    flat, filled = states.reshape(-1), starts.copy()
    _queue_seeds(flat, queue, filled)
    strides = (padded[1] * padded[2], padded[2], 1)
    steps = (-strides[0], -strides[1], -1, 1, strides[1], strides[0])  # a tuple: the loop over it is unrolled
    if not _flood(flat, queue, starts, filled, *_in_turn(states, offers, strides), steps):
        raise VolumeError(
            f"a flood takes more than {MOST_STEPS} steps at one height, more than can be counted; seed or mask it"
        )
    return states


def _in_turn(
    states: NDArray[np.uint64], offers: list[_Offer], strides: tuple[int, ...]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Put what is offered around the block; where there is water, first come first, and the voxels that it flows to."""
    places, into = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for offer in offers:
        states[offer.around] = offer.states
        z, y, x = np.ogrid[offer.around]
        wet = (z * strides[0] + y * strides[1] + x)[offer.states != CLOSED]
        places.append(wet)
        into.append(wet + int(np.dot(offer.inwards, strides)))
    place, target = np.concatenate(places), np.concatenate(into)
    order = np.argsort(states.reshape(-1)[place], kind="stable")
    return place[order], target[order]


@compiled
def _begin(states, heights, seeds, is_open, counts):  # type: ignore[no-untyped-def]
    """Seeds stand in water of their own height, other voxels that are open are dry; how many there are of a height."""
    depth, height, width = heights.shape
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                if is_open[z, y, x]:
                    label, level = np.uint64(seeds[z, y, x]), np.uint64(heights[z, y, x])
                    counts[level] += 1
                    states[z + 1, y + 1, x + 1] = level << LEVEL | label if label else DRY | level << COST


@compiled
def _queue_seeds(states, queue, filled):  # type: ignore[no-untyped-def]
    for i in range(states.size):
        if states[i] < DRY:
            level = states[i] >> LEVEL
            queue[filled[level]] = i
            filled[level] += 1


@compiled
def _flood(states, queue, starts, filled, offers, targets, steps):  # type: ignore[no-untyped-def]
    """Voxels take their turns in the order of their states; False if steps can't be counted.

    At one level there are two queues, both in that order because those who enter them are: voxels as high as the level,
    and lower ones. The latter stand where the queues of lower levels were. A voxel enters a queue with the first
    water that comes to it, as later water can't better its level and time, and gets its label at its turn.
    """
    offer = 0
    for level in range(256):
        even, low, lows = starts[level], 0, 0
        while True:
            is_low = low < lows and not (even < filled[level] and states[queue[even]] < states[queue[low]])
            if is_low:
                i, ahead = queue[low], queue[min(low + AHEAD, lows - 1)]
            elif even < filled[level]:
                i, ahead = queue[even], queue[min(even + AHEAD, filled[level] - 1)]
            else:
                i, ahead = -1, -1
            if offer < offers.size and states[offers[offer]] >> LEVEL == level:
                state = states[offers[offer]]
                if i < 0 or state < states[i]:
                    lows = _flow(states, queue, filled, lows, state, targets[offer])
                    offer += 1
                    continue
            if i < 0:
                break
            low, even = low + is_low, even + (not is_low)
            _fetch(states, ahead, steps)
            state = _labelled(states, i, steps)
            if state >> COST & TIME >= MOST_TIME:
                return False
            for step in steps:
                lows = _flow(states, queue, filled, lows, state, i + step)
    return True


@compiled
def _fetch(states, i, steps):  # type: ignore[no-untyped-def]
    prefetch(states, i)
    for step in steps:
        prefetch(states, i + step)


@compiled
def _labelled(states, i, steps):  # type: ignore[no-untyped-def]
    """A voxel's state with the label of the neighbour to which water came first; a seed has its own."""
    state = first = states[i]
    for step in steps:
        first = min(first, states[i + step])
    if not state & LABEL:
        state |= first & LABEL
        states[i] = state
    return state


@compiled
def _flow(states, queue, filled, lows, state, j):  # type: ignore[no-untyped-def]
    """Water flows on to a voxel, which enters a queue if it was dry; how many were in that of lower voxels."""
    other = states[j]
    if other < DRY or other == CLOSED:
        return lows
    level, height = state >> LEVEL, other >> COST & HEIGHT
    if height < level:
        states[j] = (state & ~LABEL) + DOWNHILL
        queue[lows] = j
        return lows + 1
    states[j] = height << LEVEL | level << COST if height > level else (state & ~LABEL) + STEP
    queue[filled[height]] = j
    filled[height] += 1
    return lows


@compiled
def _unpack(states, labels, costs):  # type: ignore[no-untyped-def]
    depth, height, width = labels.shape
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                state = states[z + 1, y + 1, x + 1]
                is_wet = state < DRY
                labels[z, y, x] = state & LABEL if is_wet else 0
                if costs.size:
                    costs[z, y, x] = state >> COST if is_wet else 0
