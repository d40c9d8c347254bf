"""Seeded watershed: every voxel goes to the seed whose flood reaches it first, in memory and exactly by blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxloom.blocks import Block, Readable, ReadableWritable, Slices, grid, reduce_blocks
from voxloom.budget import blocks_within, shard_shape
from voxloom.errors import VolumeError
from voxloom.kernels import compiled

BYTES_PER_VOXEL = 23
"""Of a block in work: states, queue, heights, seeds, mask; then states, labels and costs."""

# A voxel's state, smaller is better: 8 bits of water level, 16 bits of steps at that level, 8 bits of the level from
# which the flood rose to it, 32 bits of label
LEVEL, STEP, ORIGIN = np.uint64(56), np.uint64(40), np.uint64(32)
ONE_STEP, STEPS, LABEL = np.uint64(1 << 40), np.uint64((1 << 16) - 1), np.uint64((1 << 32) - 1)
MOST_STEPS = np.uint64((1 << 16) - 2)
CLOSED = np.uint64(0)
DRY, HEIGHT = np.uint64((1 << 64) - 256), np.uint64(255)
"""The smallest state of a voxel that no water has reached: its last 8 bits are the voxel's height."""


@dataclass(frozen=True)
class _Seam:
    """Where a block meets another: its own outermost layer along an axis, and the layer beyond."""

    own: Slices
    beyond: Slices
    inner: Slices  # its own layer, inside the block


@dataclass(frozen=True)
class _Offers:
    """What the water beyond a layer of voxels would make of them: their place in the block, and their state."""

    inner: Slices
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
        If shapes differ, a type is another, or a flood takes more than 65534 steps at one level.

    Notes
    -----
    Water rises from the seeds and passes to the six neighbours that share a face. A voxel belongs to the flood that
    reaches it at the lowest level, which is the height of the highest voxel on the way; among floods of one level to
    the one that took the fewest steps since it stands at that level, then to the one that rose to it from the lowest,
    then to the smallest label. This is Meyer's flooding [1]_ with its ties decided: the result is a property of the
    image and depends neither on an order of visits nor on blocks. Steps are counted in voxels, whatever their spacing.

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
        Scratch: takes level, steps and origin of the flood at every voxel.
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
    sides changed, the neighbours beyond are flooded again, until all agree. Then every voxel has the level, the steps
    and the label that follow from its neighbours', and only one state of a volume has that property: the result is
    that of the volume in one piece, for any blocks and threads. It costs: a block is flooded some five times, and more
    often where it is small beside the objects.
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
        looks = reduce_blocks(
            work, nothing, block_shape=layout.block_shape, threads=layout.threads, description=description
        )
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
    offers = [
        _Offers(seam.inner, costs[seam.beyond].astype(np.uint64) << ORIGIN | labels[seam.beyond]) for seam in seams
    ]
    states = _flooded(*landscape, offers)
    new_labels, new_costs = (np.empty(landscape[0].shape, np.uint32) for _ in range(2))
    _unpack(states, new_labels, new_costs)
    costs[block.core] = new_costs
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


def _flooded(
    heights: NDArray[np.uint8], seeds: NDArray[Any], mask: NDArray[np.bool_] | None, offers: list[_Offers]
) -> NDArray[np.uint64]:
    """States of all voxels, with a layer of closed ones around them that spares every look at the border."""
    padded = tuple(n + 2 for n in heights.shape)
    states = np.zeros(padded, np.uint64)
    is_open = np.ones(heights.shape, np.bool_) if mask is None else np.ascontiguousarray(mask)
    _begin(states, np.ascontiguousarray(heights), np.ascontiguousarray(seeds, np.uint32), is_open)
    del is_open
    strides = np.array([padded[1] * padded[2], padded[2], 1], np.int64)
    places, values = _in_turn(heights, offers, strides)
    queue = np.empty(states.size, np.int32 if states.size < 1 << 31 else np.int64)
    steps = tuple((*-strides, *strides[::-1]))  # a tuple: the loop over it is unrolled
    if not _flood(states.reshape(-1), queue, places, values, steps):
        raise VolumeError(
            f"a flood takes more than {int(MOST_STEPS)} steps at one height, more than can be counted; seed or mask it"
        )
    return states


def _in_turn(
    heights: NDArray[np.uint8], offers: list[_Offers], strides: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Voxels at the seams and the states that are offered to them, best first."""
    places, values = [np.empty(0, np.int64)], [np.empty(0, np.uint64)]
    for offer in offers:
        is_wet = (offer.states & LABEL) != 0
        height, state = heights[offer.inner][is_wet].astype(np.uint64), offer.states[is_wet]
        risen = height << LEVEL | ONE_STEP | state >> LEVEL << ORIGIN | state & LABEL
        values.append(np.where(height > state >> LEVEL, risen, state + ONE_STEP))
        z, y, x = np.ogrid[offer.inner]
        places.append(((z + 1) * strides[0] + (y + 1) * strides[1] + x + 1)[is_wet])
    place, value = np.concatenate(places), np.concatenate(values)
    order = np.argsort(value, kind="stable")
    return place[order], value[order]


@compiled
def _begin(states, heights, seeds, is_open):  # type: ignore[no-untyped-def]
    """Seeds stand in water of their own height, other voxels that are open are dry."""
    depth, height, width = heights.shape
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                if is_open[z, y, x]:
                    label = np.uint64(seeds[z, y, x])
                    level = np.uint64(heights[z, y, x]) << LEVEL
                    dry = DRY | np.uint64(heights[z, y, x])
                    states[z + 1, y + 1, x + 1] = level | label if label != CLOSED else dry


@compiled
def _append(queue, heads, tails, level, i):  # type: ignore[no-untyped-def]
    queue[i] = -1
    if heads[level] < 0:
        heads[level] = i
    else:
        queue[tails[level]] = i
    tails[level] = i


@compiled
def _flood(states, queue, places, values, steps):  # type: ignore[no-untyped-def]
    """One queue a level, linked through `queue`, each in the order of steps; False if steps can't be counted.

    A voxel's state is final when its turn comes, because every neighbour that could better it had its turn before.
    Offers from outside take their turn before the voxels of the queue that have as many steps.
    """
    heads, tails = np.full(256, -1, np.int64), np.full(256, -1, np.int64)
    for i in range(states.size):
        if states[i] != CLOSED and states[i] < DRY:
            _append(queue, heads, tails, np.int64(states[i] >> LEVEL), i)
    level, offer = 0, 0
    while level < 256:
        i = heads[level]
        is_offer = offer < places.size and np.int64(values[offer] >> LEVEL) == level
        if is_offer and (i < 0 or values[offer] >> STEP <= states[i] >> STEP):
            i = places[offer]
            offer += 1
            if not values[offer - 1] < states[i]:
                continue
            states[i] = values[offer - 1]
        elif i >= 0:
            heads[level] = queue[i]
        else:
            level += 1
            continue
        state = states[i]
        if (state >> STEP) & STEPS == MOST_STEPS:
            return False
        level_here, further = state >> LEVEL, state + ONE_STEP
        risen = ONE_STEP | level_here << ORIGIN | state & LABEL
        for step in steps:
            j = i + step
            other = states[j]
            if other <= state:
                continue
            # water that came from lower and stands higher here stands at the voxel's own height
            is_dry = other >= DRY
            height = other & HEIGHT if is_dry else other >> LEVEL
            candidate = height << LEVEL | risen if height > level_here else further
            if is_dry:
                _append(queue, heads, tails, np.int64(candidate >> LEVEL), j)
                states[j] = candidate
            elif candidate < other:
                states[j] = candidate
    return True


@compiled
def _unpack(states, labels, costs):  # type: ignore[no-untyped-def]
    depth, height, width = labels.shape
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                state = states[z + 1, y + 1, x + 1]
                is_wet = state < DRY
                labels[z, y, x] = state & LABEL if is_wet else CLOSED
                if costs.size:
                    costs[z, y, x] = state >> ORIGIN if is_wet else CLOSED
