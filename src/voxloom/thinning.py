"""Centre lines of masks of any size: thinned layer by layer so that blocks, threads and their order don't show."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxloom.blocks import Block, Readable, ReadableWritable, grid, reduce_blocks
from voxloom.budget import blocks_within, shard_shape
from voxloom.errors import VolumeError
from voxloom.kernels import compiled

REACH = 48
"""How far, in voxels, one layer of thinning can depend on what is there: 6 directions times 8 steps."""

BYTES_PER_VOXEL = 12
"""Of a block in work, if all of it is foreground: mask in, padded and out, places and candidates."""


def thin(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Thin a mask to lines of one voxel that keep its topology.

    Parameters
    ----------
    mask : ndarray of bool, shape (Z, Y, X)
        Foreground is True. Not modified.

    Returns
    -------
    lines : ndarray of bool, shape (Z, Y, X)
        Part of `mask`, with as many objects (of 26 neighbours), tunnels and cavities.

    Raises
    ------
    VolumeError
        If `mask` is not a 3D boolean array.

    Notes
    -----
    A layer is taken off from each of the six directions in turn, as by Lee, Kashyap and Chu [1]_: voxels that are
    open to the direction, aren't the end of a line, and whose removal changes no topology. Where neighbours are such
    voxels, removing one can make the next one necessary; they are looked at again in eight turns by whether their
    coordinates are even or odd. Voxels of one turn aren't neighbours, so that the order of looking doesn't matter:
    unlike scikit-image's, this thinning is a property of the image and the same by blocks. It never erases an object.

    References
    ----------
    .. [1] Lee, Kashyap, Chu (1994). CVGIP: Graphical Models and Image Processing 56(6).

    Examples
    --------
    >>> thin(np.ones((3, 3, 7), np.bool_))[1, 1]
    array([False,  True,  True,  True,  True,  True, False])
    """
    return _thinned(mask, first=(0, 0, 0))


def thin_in_order(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Thin a mask to lines of one voxel as scikit-image does, voxel after voxel.

    Parameters
    ----------
    mask : ndarray of bool, shape (Z, Y, X)
        Foreground is True. Not modified.

    Returns
    -------
    lines : ndarray of bool, shape (Z, Y, X)
        What ``skimage.morphology.skeletonize(mask, method="lee")`` returns.

    Raises
    ------
    VolumeError
        If `mask` is not a 3D boolean array.

    Notes
    -----
    The layers of `thin`, in another order of directions; the voxels of a layer are looked at again one after the other
    in C order, and only for whether their neighbours stay together. So a mirrored mask has other lines, and compact
    objects may vanish. Published values of clDice were made in this way.

    References
    ----------
    .. [1] Lee, Kashyap, Chu (1994). CVGIP: Graphical Models and Image Processing 56(6).
    """
    return _thinned(mask)


def _thinned(mask: NDArray[np.bool_], *, first: tuple[int, ...] | None = None) -> NDArray[np.bool_]:
    """Take off all layers; see `_Lines`."""
    if mask.ndim != 3 or mask.dtype != np.bool_:
        raise VolumeError(
            f"mask must be a 3D boolean array, got {mask.ndim}D {mask.dtype}; "
            "compare the labels with 0 first (labels > 0)"
        )
    lines = _Lines(mask, first=first)
    while lines.take_layer():
        pass
    return lines.mask()


def thin_volume(
    mask: Readable, out: ReadableWritable, scratch: ReadableWritable, *, memory_mib: float, threads: int = 1
) -> int:
    """The same as `thin` for a stored mask, block by block.

    Parameters
    ----------
    mask : volume, shape (Z, Y, X)
        Non-zero is foreground.
    out, scratch : volume of uint8, shape (Z, Y, X)
        Both take 0 and 1 and are read back; the lines are in `out`.
    memory_mib : float
        Budget, in MiB.
    threads : int
        Blocks in work at a time, fewer where the budget holds fewer.

    Returns
    -------
    voxels : int
        Of the lines.

    Raises
    ------
    VolumeError
        If the budget doesn't hold one block.

    Notes
    -----
    In each pass one layer is taken off every block with `REACH` voxels of context, as far as a layer depends on
    anything; so each pass is that of the volume in one piece, for any blocks and threads. There are as many passes as
    the thickest object has layers, and one more; blocks around which nothing changed any more are left out.
    """
    shape = mask.shape
    halo = (REACH,) * 3
    layout = blocks_within(
        shape,
        bytes_per_voxel=BYTES_PER_VOXEL,
        memory_mib=memory_mib,
        halo_voxels=halo,
        align=shard_shape(out),
        threads=threads,
    )
    blocks = grid(shape, layout.block_shape, halo_voxels=halo)
    pending = {block.index for block in blocks}
    voxels = np.zeros(len(blocks), np.int64)
    source, target = mask, out
    nothing = np.broadcast_to(np.zeros((), np.bool_), shape)  # blocks that aren't pending read nothing

    def work(_: NDArray[Any], block: Block) -> int:
        if block.index not in pending:
            return 0
        lines = _Lines(source[block.read] != 0, first=tuple(axis.start for axis in block.read))
        before = np.count_nonzero(lines.mask()[block.inner])
        lines.take_layer()
        core = lines.mask()[block.inner]
        target[block.core] = np.ascontiguousarray(core).view(np.uint8)
        voxels[block.index] = np.count_nonzero(core)
        return int(before - voxels[block.index])

    for number in itertools.count(1):
        looks = reduce_blocks(work, nothing, description=f"thinning, layer {number}, block", **layout.grid)
        changed = [block for block, taken in looks if taken]
        if not changed:
            return int(voxels.sum())
        # only when both stores hold a block can it be left out: what a pass without changes wrote is what it read
        pending = {block.index for block in blocks if number == 1 or any(_meets(block, other) for other in changed)}
        source, target = (out, scratch) if number % 2 else (scratch, out)
    raise AssertionError("unreachable")


def _meets(block: Block, other: Block) -> bool:
    """Whether a block reads voxels of another's core."""
    return all(
        read.start < core.stop and core.start < read.stop for read, core in zip(block.read, other.core, strict=True)
    )


class _Lines:
    """A mask that is being thinned: with a border of background, and the places of its foreground.

    `first` is the place of its first voxel in the volume, which decides whose turn is when; without it voxels come in
    order.
    """

    def __init__(self, mask: NDArray[np.bool_], *, first: tuple[int, ...] | None = None) -> None:
        self.padded = np.pad(np.ascontiguousarray(mask), 1)
        self.around = (STEPS @ np.array(self.padded.strides)).astype(np.int64)
        self.in_order = first is None
        count = np.count_nonzero(mask)
        self.places = np.empty(count, np.int32 if self.padded.size < 1 << 31 else np.int64)
        self.turns = np.empty(0 if self.in_order else count, np.uint8)
        _list(self.padded, np.array(first or (0, 0, 0), np.int64), self.places, self.turns)

    def mask(self) -> NDArray[np.bool_]:
        return self.padded[1:-1, 1:-1, 1:-1]

    def take_layer(self) -> int:
        """Take off one layer; how many voxels that were."""
        flat = self.padded.reshape(-1)
        if self.in_order:
            is_slice = self.padded.shape[0] == 3  # which is not thinned from above and below
            taken = _take_layer_in_order(flat, self.places, self.around, IN_ORDER[: 4 if is_slice else 6])
        else:
            taken = _take_layer(flat, self.places, self.turns, self.around)
        left = _drop_taken(flat, self.places, self.turns)
        self.places, self.turns = self.places[:left], self.turns[:left]
        return int(taken)


def _bits(steps: NDArray[np.bool_]) -> int:
    """A bit for each of the 27 voxels around one, in C order."""
    return int(steps @ (1 << np.arange(27)))


STEPS = np.array(list(itertools.product((-1, 0, 1), repeat=3)))
"""To the 27 voxels around one, in the order of their bits."""

ITSELF = _bits(np.abs(STEPS).sum(axis=1) == 0)
THE_6, THE_18 = (_bits((np.abs(STEPS).sum(axis=1) <= axes) & STEPS.any(axis=1)) for axes in (1, 2))
NOT_BEFORE_Y, NOT_BEHIND_Y, NOT_BEFORE_X, NOT_BEHIND_X = (
    _bits(STEPS[:, axis] != side) for axis in (1, 2) for side in (-1, 1)
)
SIDES = np.array([4, 22, 10, 16, 12, 14])
"""Which of the 27 lie before and behind along Z, Y and X."""

IN_ORDER = np.array([10, 16, 14, 12, 22, 4])
"""The same, in scikit-image's order."""


@compiled
def _list(padded, first, places, turns):  # type: ignore[no-untyped-def]
    depth, height, width = padded.shape
    n = 0
    for z in range(1, depth - 1):
        for y in range(1, height - 1):
            for x in range(1, width - 1):
                if padded[z, y, x]:
                    places[n] = (z * height + y) * width + x
                    if turns.size:
                        turns[n] = (z + first[0]) % 2 * 4 + (y + first[1]) % 2 * 2 + (x + first[2]) % 2
                    n += 1


@compiled
def _drop_taken(mask, places, turns):  # type: ignore[no-untyped-def]
    """Move what is still foreground to the front; how many voxels that are."""
    left = 0
    for n in range(places.size):
        if mask[places[n]]:
            places[left] = places[n]
            if turns.size:
                turns[left] = turns[n]
            left += 1
    return left


@compiled
def neighbours_of(mask, i, around):  # type: ignore[no-untyped-def]
    """A bit for each of the 27 voxels around one that is foreground, but for itself."""
    found = np.int64(0)
    for k in range(27):
        found |= np.int64(mask[i + around[k]]) << k
    return found & ~ITSELF


@compiled
def _along_x(found):  # type: ignore[no-untyped-def]
    return (found & NOT_BEHIND_X) << 1 | (found & NOT_BEFORE_X) >> 1


@compiled
def _along_y(found):  # type: ignore[no-untyped-def]
    return (found & NOT_BEHIND_Y) << 3 | (found & NOT_BEFORE_Y) >> 3


@compiled
def _is_one(neighbours):  # type: ignore[no-untyped-def]
    """Whether all of them are one object of 26 neighbours; all are reached from the first, some steps at once."""
    reached, more = 0, neighbours & -neighbours
    while more != reached:
        reached = more
        more |= _along_x(more)
        more |= _along_y(more)
        more = (more | more << 9 | more >> 9) & neighbours
    return reached == neighbours


@compiled
def _is_simple(neighbours):  # type: ignore[no-untyped-def]
    """Whether a voxel can go: its neighbours stay one object, and the background beside it one background."""
    if neighbours == 0 or not _is_one(neighbours):
        return False
    background = ~neighbours & THE_18
    beside = background & THE_6
    reached, more = 0, beside & -beside
    while more != reached:
        reached = more
        more = (more | _along_x(more) | _along_y(more) | more << 9 | more >> 9) & background
    return beside != 0 and reached & beside == beside


@compiled
def _find_candidates(mask, places, around, direction, candidates):  # type: ignore[no-untyped-def]
    """The voxels that are open to a direction, aren't ends of lines and could go by themselves; how many they are."""
    count = 0
    for n in range(places.size):
        i = places[n]
        if mask[i] and not mask[i + around[direction]]:
            neighbours = neighbours_of(mask, i, around)
            is_end = neighbours & (neighbours - 1) == 0
            if not is_end and _is_simple(neighbours):
                candidates[count] = n
                count += 1
    return count


@compiled
def _take_layer(mask, places, turns, around):  # type: ignore[no-untyped-def]
    candidates = np.empty(places.size, places.dtype)
    taken = 0
    for direction in SIDES:
        count = _find_candidates(mask, places, around, direction, candidates)
        for turn in range(8):
            for n in candidates[:count]:
                if turns[n] == turn and _is_simple(neighbours_of(mask, places[n], around)):
                    mask[places[n]] = False
                    taken += 1
    return taken


@compiled
def _take_layer_in_order(mask, places, around, sides):  # type: ignore[no-untyped-def]
    candidates = np.empty(places.size, places.dtype)
    taken = 0
    for direction in sides:
        count = _find_candidates(mask, places, around, direction, candidates)
        for n in candidates[:count]:
            neighbours = neighbours_of(mask, places[n], around)
            if _is_one(neighbours):  # none is taken for one: the last voxel of an object goes, too
                mask[places[n]] = False
                taken += 1
    return taken
