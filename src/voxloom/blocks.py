"""Runs an algorithm over a volume of any size: block by block, with context, on several threads, in bounded memory."""

from __future__ import annotations

import inspect
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from voxloom.errors import VolumeError
from voxloom.job_memory import memory_for
from voxloom.logs import progress

Slices = tuple[slice, ...]
Shape = tuple[int, int, int]


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


def grid(shape: Sequence[int], block_shape: Sequence[int], *, halo_voxels: Sequence[int] = (0, 0, 0)) -> list[Block]:
    """Cut a volume into blocks.

    Parameters
    ----------
    shape : sequence of int
        The volume's (Z, Y, X).
    block_shape : sequence of int
        The core's edge lengths (Z, Y, X); blocks at the far border are smaller.
    halo_voxels : sequence of int
        Context (Z, Y, X) read on each side.

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
    starts = [range(0, size, step) for size, step in zip(shape, block_shape, strict=True)]
    for index, corner in enumerate(itertools.product(*starts)):
        core, read, inner = [], [], []
        for first, step, size, halo in zip(corner, block_shape, shape, halo_voxels, strict=True):
            last = min(first + step, size)
            low, high = max(first - halo, 0), min(last + halo, size)
            core.append(slice(first, last))
            read.append(slice(low, high))
            inner.append(slice(first - low, last - low))
        blocks.append(Block(index, tuple(core), tuple(read), tuple(inner)))
    return blocks


def halo_for(reach_um: float, spacing_um: Sequence[float]) -> Shape:
    """Voxels (Z, Y, X) that a reach in micrometres covers, rounded up.

    Parameters
    ----------
    reach_um : float
    spacing_um : sequence of float
        Voxel edge lengths (Z, Y, X).

    Returns
    -------
    halo_voxels : tuple of int
    """
    z, y, x = (int(np.ceil(reach_um * (1 + 1e-6) / spacing)) for spacing in spacing_um)
    return z, y, x


def block_shape_for(
    shape: Sequence[int],
    *,
    bytes_per_voxel: float,
    memory_mib: float,
    halo_voxels: Sequence[int] = (0, 0, 0),
    align: Sequence[int] = (64, 64, 64),
    workers: int = 1,
) -> Shape:
    """The largest block that fits the memory budget.

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
            if longer[axis] > edges[axis] and read_voxels(longer, shape, halo_voxels) <= budget:
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
    block_shape: Sequence[int],
    halo_voxels: Sequence[int] = (0, 0, 0),
    threads: int = 1,
    description: str = "",
) -> Iterator[tuple[Block, Any]]:
    """Apply a function to every block and hand on its results in the grid's order.

    Parameters
    ----------
    function : callable
        Takes one array an input (core and halo); may also take a keyword argument ``block``.
    *inputs : array-like
        Volumes of equal (Z, Y, X) shape.
    block_shape, halo_voxels : sequence of int
        See `grid`.
    threads : int
        Blocks in work at a time; one more result may wait to be handed on.
    description : str
        For the progress line in the log.

    Yields
    ------
    block : Block
    result : object
        What `function` returned.

    Raises
    ------
    VolumeError
        If the inputs' shapes differ.
    """
    shape = inputs[0].shape[-3:]
    for other in inputs[1:]:
        if other.shape[-3:] != shape:
            raise VolumeError(f"volumes of different shapes can't be read together: {shape} and {other.shape[-3:]}")
    blocks = grid(shape, block_shape, halo_voxels=halo_voxels)
    takes_block = "block" in inspect.signature(function).parameters

    def work(block: Block) -> Any:
        arrays = [volume[(..., *block.read)] for volume in inputs]
        return function(*arrays, block=block) if takes_block else function(*arrays)

    yield from progress(_in_order(work, blocks, threads=threads), total=len(blocks), description=description)


def map_blocks(
    function: Callable[..., NDArray[Any]],
    *inputs: Readable,
    out: Writable,
    block_shape: Sequence[int],
    halo_voxels: Sequence[int] = (0, 0, 0),
    threads: int = 1,
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
        Takes ``out[slices] = array``. `block_shape` should be whole shards of it, so that no two blocks share one.
    block_shape, halo_voxels, threads, description
        See `reduce_blocks`.
    """
    takes_block = "block" in inspect.signature(function).parameters

    def work(*arrays: NDArray[Any], block: Block) -> None:
        result = function(*arrays, block=block) if takes_block else function(*arrays)
        if result.shape[-3:] != arrays[0].shape[-3:]:
            raise VolumeError(f"a block of {arrays[0].shape} became one of {result.shape}; expected the same shape")
        z, y, x = block.inner
        out[(..., *block.core) if result.ndim > 3 else block.core] = np.ascontiguousarray(result[..., z, y, x])

    for _ in reduce_blocks(
        work, *inputs, block_shape=block_shape, halo_voxels=halo_voxels, threads=threads, description=description
    ):
        pass


def _in_order(work: Callable[[Block], Any], blocks: list[Block], *, threads: int) -> Iterator[tuple[Block, Any]]:
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
