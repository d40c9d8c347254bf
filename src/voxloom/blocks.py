"""Runs an algorithm over a volume of any size: block by block, with context, on several threads, in bounded memory."""

from __future__ import annotations

import inspect
import itertools
import math
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from voxloom import heap
from voxloom.errors import VolumeError
from voxloom.job_memory import memory_for
from voxloom.logs import LOGGER, progress

Slices = tuple[slice, ...]
Shape = tuple[int, int, int]

MOST_VOXELS = 2**26
"""Of a block that loses little to its halo: what is larger is no faster, and more of it is lost by an interruption."""

LITTLE = 1.25
"""Voxels that are read for each voxel of a block, up to which the halo costs little."""


class Readable(Protocol):
    """Anything that is read by slicing: an array, or a stored volume."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(Z, Y, X), or (C, Z, Y, X)."""

    def __getitem__(self, index: Any) -> NDArray[Any]: ...


class Writable(Protocol):
    """Anything that is written by slicing."""

    def __setitem__(self, index: Any, values: NDArray[Any]) -> None: ...


class ReadableWritable(Readable, Writable, Protocol):
    """A volume that is read back while it is written."""


@runtime_checkable
class Resumable(Writable, Protocol):
    """A volume that knows which boxes of it an interrupted run had finished."""

    def is_done(self, core: Slices) -> bool:
        """Whether a box was written before, and its bytes are still the same."""

    def mark_done(self, core: Slices) -> None:
        """Note that a box is written."""


class Scratch(Protocol):
    """A place where arrays wait that don't fit in memory."""

    def save(self, key: str, arrays: Sequence[NDArray[Any]]) -> None:
        """Keep arrays under a key that is not in use."""

    def take(self, key: str) -> list[NDArray[Any]]:
        """What stands under a key, which is then forgotten."""


@runtime_checkable
class Roomy(Writable, Protocol):
    """A volume that has such a place beside it."""

    def scratch_arrays(self, name: str) -> AbstractContextManager[Scratch]:
        """A new one, which is removed at the end."""


class Results(Protocol):
    """A place where results of blocks outlive an interruption."""

    def load(self, core: Slices) -> tuple[NDArray[Any], ...] | None:
        """The result of a block, or None where it isn't there whole."""

    def save(self, core: Slices, arrays: Sequence[NDArray[Any]]) -> None:
        """Keep the result of a block."""


@dataclass(frozen=True)
class Block:
    """A box of voxels that is processed at once.

    Parameters
    ----------
    index : int
        Its number in the grid, in C order.
    core : tuple of slice
        Where its result goes. The cores of a grid tile the volume, each voxel once.
    read : tuple of slice
        The core and its halo, clipped to the volume.
    inner : tuple of slice
        The core inside `read`.
    """

    index: int
    core: Slices
    read: Slices
    inner: Slices


def grid(
    shape: Sequence[int],
    block_shape: Sequence[int],
    *,
    halo_voxels: Sequence[int] = (0, 0, 0),
    z_range: tuple[int, int] | None = None,
) -> list[Block]:
    """Cut a volume, or some slices of it, into blocks.

    Parameters
    ----------
    shape : sequence of int
        The volume's (Z, Y, X).
    block_shape : sequence of int
        The core's edge lengths (Z, Y, X); blocks at the far border are smaller.
    halo_voxels : sequence of int
        Context (Z, Y, X) read on each side.
    z_range : pair of int, optional
        First slice and the one after the last of the cores; context is read beyond. All slices by default.

    Returns
    -------
    blocks : list of Block
        In C order.

    Examples
    --------
    >>> [block.read[2] for block in grid((1, 1, 10), (1, 1, 6), halo_voxels=(0, 0, 2))]
    [slice(0, 8, None), slice(4, 10, None)]
    """
    blocks = []
    ends = [z_range or (0, shape[0]), *((0, size) for size in shape[1:])]
    starts = [range(*end, step) for end, step in zip(ends, block_shape, strict=True)]
    for index, corner in enumerate(itertools.product(*starts)):
        core, read, inner = [], [], []
        for first, step, (_, end), size, halo in zip(corner, block_shape, ends, shape, halo_voxels, strict=True):
            last = min(first + step, end)
            low, high = max(first - halo, 0), min(last + halo, size)
            core.append(slice(first, last))
            read.append(slice(low, high))
            inner.append(slice(first - low, last - low))
        blocks.append(Block(index, tuple(core), tuple(read), tuple(inner)))
    return blocks


def part_of(shape: Sequence[int], shard_shape: Sequence[int], part: str) -> tuple[int, int]:
    """Slices of one of several parts of a volume: whole layers of shards, so that no two parts share a file.

    Parameters
    ----------
    shape, shard_shape : sequence of int
        Of the volume, (Z, Y, X).
    part : str
        Such as "2-of-3".

    Returns
    -------
    z_range : tuple of int
        First slice and the one after the last; equal where there are more parts than layers and this one has none.

    Examples
    --------
    >>> [part_of((200, 512, 512), (64, 512, 512), f"{k}-of-3") for k in (1, 2, 3)]
    [(0, 64), (64, 128), (128, 200)]
    """
    number, count = (int(word) for word in part.split("-of-"))
    layers = -(-shape[0] // shard_shape[0])
    first, last = (min(layers * k // count * shard_shape[0], shape[0]) for k in (number - 1, number))
    return first, last


def block_shape_for(
    shape: Sequence[int],
    *,
    bytes_per_voxel: float,
    memory_mib: float,
    halo_voxels: Sequence[int] = (0, 0, 0),
    align: Sequence[int] = (64, 64, 64),
    workers: int = 1,
) -> Shape:
    """The largest block that fits the memory budget and that it pays to work on at once.

    Parameters
    ----------
    shape : sequence of int
        The volume's (Z, Y, X).
    bytes_per_voxel : float
        What a worker holds for each voxel of core and halo: inputs, temporary arrays, results.
    memory_mib : float
        Budget of all workers together, in MiB.
    halo_voxels : sequence of int
        Context (Z, Y, X) on each side.
    align : sequence of int
        The block's edges are multiples of these (or the volume's own edge): the store's chunks or shards.
    workers : int
        Blocks in work at a time.

    Returns
    -------
    block_shape : tuple of int

    Raises
    ------
    VolumeError
        If not even the smallest aligned block fits; says the least memory that would do.
    """
    budget = memory_mib * 2**20 / workers / bytes_per_voxel
    edges = [min(a, s) for a, s in zip(align, shape, strict=True)]
    if read_voxels(edges, shape, halo_voxels) > budget:
        least = read_voxels(edges, shape, halo_voxels) * bytes_per_voxel * workers / 2**20
        raise VolumeError(
            f"a block of {tuple(edges)} voxels with a halo of {tuple(halo_voxels)} needs {least:.0f} MiB for {workers} "
            f"worker(s), the budget is {memory_mib:.0f} MiB; raise resources.memory_mib to at least "
            f"{memory_for(least)} or use fewer threads"
        )
    while True:
        # grow the axis whose halo costs most, that is the shortest one that can still grow
        for axis in sorted(range(3), key=lambda k: edges[k] / max(1, halo_voxels[k])):
            longer = list(edges)
            longer[axis] = min(edges[axis] + align[axis], shape[axis])
            costs_much = read_voxels(edges, shape, halo_voxels) > LITTLE * math.prod(edges)
            pays = costs_much or math.prod(longer) <= MOST_VOXELS
            if longer[axis] > edges[axis] and pays and read_voxels(longer, shape, halo_voxels) <= budget:
                edges = longer
                break
        else:
            return edges[0], edges[1], edges[2]


def read_voxels(block_shape: Sequence[int], shape: Sequence[int], halo_voxels: Sequence[int]) -> int:
    """Voxels of the largest block of a grid with its halo.

    Parameters
    ----------
    block_shape, shape, halo_voxels : sequence of int
        See `grid`.

    Returns
    -------
    voxels : int
    """
    return math.prod(min(e + 2 * h, s) for e, h, s in zip(block_shape, halo_voxels, shape, strict=True))


def reduce_blocks(
    function: Callable[..., Any],
    *inputs: Readable,
    block_shape: Sequence[int] = (),
    halo_voxels: Sequence[int] = (0, 0, 0),
    blocks: Sequence[Block] | None = None,
    threads: int = 1,
    keeps_freed: bool = False,
    description: str = "",
    keep: Results | None = None,
) -> Generator[tuple[Block, Any]]:
    """Apply a function to every block and hand on its results in the grid's order.

    Parameters
    ----------
    function : callable
        Takes one array an input (core and halo); may also take a keyword argument ``block``.
    *inputs : array-like
        Volumes of equal (Z, Y, X) shape.
    block_shape, halo_voxels : sequence of int
        See `grid`.
    blocks : sequence of Block, optional
        These instead of a grid.
    threads : int
        Blocks in work at a time; one more result may wait to be handed on.
    keeps_freed : bool
        Whether what one block frees is kept for the next, see `voxloom.heap.keeping`.
    description : str
        For the progress line in the log.
    keep : Results, optional
        Where results are kept, so that after an interruption only the others are worked out. Then `function` returns
        a tuple of arrays and numbers, and each of them is handed on as an array.

    Yields
    ------
    block : Block
    result : object
        What `function` returned.

    Raises
    ------
    VolumeError
        If the inputs' shapes differ.

    Notes
    -----
    Blocks run on threads: tensorstore, compiled kernels and PyTorch release the interpreter's lock, so that there are
    no processes to hand voxels to.
    """
    blocks = _blocks_of(inputs, block_shape, halo_voxels) if blocks is None else blocks
    work = _reading(function, inputs)

    def work_or_load(block: Block) -> Any:
        if keep is None:
            return work(block)
        kept = keep.load(block.core)
        if kept is None:
            kept = tuple(np.asarray(part) for part in work(block))
            keep.save(block.core, kept)
        return kept

    with heap.keeping(keeps_freed):
        results = _in_order(work_or_load, blocks, threads=threads)
        yield from progress(results, total=len(blocks), description=description)


def map_blocks(
    function: Callable[..., NDArray[Any]],
    *inputs: Readable,
    out: Writable,
    block_shape: Sequence[int] = (),
    halo_voxels: Sequence[int] = (0, 0, 0),
    blocks: Sequence[Block] | None = None,
    threads: int = 1,
    keeps_freed: bool = False,
    description: str = "",
) -> None:
    """Apply a function to every block and write the part of its result that has full context.

    Parameters
    ----------
    function : callable
        Takes one array an input (core and halo) and returns an array of the same (Z, Y, X) shape; may also take a
        keyword argument ``block``.
    *inputs : array-like
        Volumes of equal (Z, Y, X) shape.
    out : object
        Takes ``out[slices] = array``. `block_shape` should be whole shards of it, so that no two blocks share one. A
        volume that resumes (`Resumable`) is written by one such pass, not in place, and what it has is left out.
    block_shape, halo_voxels, blocks, threads, keeps_freed, description
        See `reduce_blocks`.
    """
    work = _reading(function, inputs)

    def work_and_write(block: Block) -> None:
        result = work(block)
        read = tuple(axis.stop - axis.start for axis in block.read)
        if result.shape[-3:] != read:
            raise VolumeError(f"a block of {read} became one of {result.shape}; expected the same shape")
        z, y, x = block.inner
        write_block(out, block, result[..., z, y, x])

    blocks = unfinished(_blocks_of(inputs, block_shape, halo_voxels) if blocks is None else blocks, out, description)
    with heap.keeping(keeps_freed):
        results = _in_order(work_and_write, blocks, threads=threads)
        for _ in progress(results, total=len(blocks), description=description):
            pass


def unfinished(blocks: Sequence[Block], out: Writable, description: str = "") -> list[Block]:
    """Those blocks that an interrupted run had not finished; all, where the volume doesn't resume.

    Parameters
    ----------
    blocks : sequence of Block
    out : object
        Where they are written.
    description : str
        For the log.

    Returns
    -------
    blocks : list of Block
    """
    if not isinstance(out, Resumable):
        return list(blocks)
    left = [block for block in blocks if not out.is_done(block.core)]
    if len(left) < len(blocks):
        LOGGER.info("%s: %d of %d were done before", description, len(blocks) - len(left), len(blocks))
    return left


def write_block(out: Writable, block: Block, values: NDArray[Any]) -> None:
    """Write a block's result and note that it is there.

    Parameters
    ----------
    out : object
        Takes ``out[slices] = array``.
    block : Block
    values : ndarray
        Of the block's core; (C, Z, Y, X) with channels.
    """
    out[(..., *block.core) if values.ndim > 3 else block.core] = values
    if isinstance(out, Resumable):
        out.mark_done(block.core)


def _blocks_of(inputs: Sequence[Readable], block_shape: Sequence[int], halo_voxels: Sequence[int]) -> list[Block]:
    shape = inputs[0].shape[-3:]
    for other in inputs[1:]:
        if other.shape[-3:] != shape:
            raise VolumeError(f"volumes of different shapes can't be read together: {shape} and {other.shape[-3:]}")
    return grid(shape, block_shape, halo_voxels=halo_voxels)


def _reading(function: Callable[..., Any], inputs: Sequence[Readable]) -> Callable[[Block], Any]:
    """The function of a block that reads what `function` takes."""
    takes_block = "block" in inspect.signature(function).parameters

    def work(block: Block) -> Any:
        arrays = [volume[(..., *block.read)] for volume in inputs]
        return function(*arrays, block=block) if takes_block else function(*arrays)

    return work


def _in_order(work: Callable[[Block], Any], blocks: Sequence[Block], *, threads: int) -> Iterator[tuple[Block, Any]]:
    """Results in the order of the blocks, with at most ``threads`` + 1 of them alive."""
    if threads == 1:
        for block in blocks:
            yield block, work(block)
        return
    waiting = iter(blocks)
    running: deque[tuple[Block, Future[Any]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for block in itertools.islice(waiting, threads):
                running.append((block, pool.submit(work, block)))
            while running:
                block, future = running.popleft()
                result = future.result()
                for following in itertools.islice(waiting, 1):
                    running.append((following, pool.submit(work, following)))
                yield block, result
        finally:
            for _, future in running:
                future.cancel()
