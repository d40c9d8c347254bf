"""How a range of voxels is cut into tiles that a network sees at once."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Tile:
    """A range of voxels along one axis that is predicted at once.

    Parameters
    ----------
    core : tuple of int
        First voxel and the one after the last that are kept.
    read : tuple of int
        The core and what it sees, on the pooling grid of the whole volume; may end past the volume.
    """

    core: tuple[int, int]
    read: tuple[int, int]


def axis_tiles(start: int, stop: int, size: int, *, edge: int, halo: int, factor: int) -> list[Tile]:
    """Cut a range of voxels into as few tiles of nearly equal length as may be.

    Parameters
    ----------
    start, stop : int
        The range to predict.
    size : int
        Of the whole volume along this axis; it is mirrored up to the next multiple of `factor`.
    edge : int
        Length to read at most; exceeded by up to two factors, or where the halo leaves no room.
    halo : int
        How far a predicted voxel sees.
    factor : int
        Period of the pooling grid: a tile that doesn't begin on it would see another grid than the whole volume.

    Returns
    -------
    tiles : list of Tile

    Examples
    --------
    A tile at the volume's border has a halo on one side only:

    >>> [tile.read for tile in axis_tiles(0, 100, 100, edge=64, halo=5, factor=4)]
    [(0, 56), (44, 100)]
    >>> [tile.read for tile in axis_tiles(0, 256, 256, edge=160, halo=22, factor=4)]
    [(0, 152), (104, 256)]

    What fits at once is read at once, however far a voxel sees:

    >>> [tile.read for tile in axis_tiles(0, 512, 512, edge=640, halo=891, factor=128)]
    [(0, 512)]
    """
    end = math.ceil(size / factor) * factor
    most = math.ceil((stop - start) / max(edge - 2 * halo, factor))
    for count in range(1, most + 1):
        length = math.ceil((stop - start) / count)
        cores = [(low, min(low + length, stop)) for low in range(start, stop, length)]
        if all(min(high + halo, end) - max(low - halo, 0) <= edge for low, high in cores):
            break
    return [_tile(core, core, end=end, halo=halo, factor=factor) for core in cores]


def fixed_tiles(start: int, stop: int, size: int, *, core: int, halo: int, factor: int) -> list[Tile]:
    """The tiles of a grid that lies fixed in the volume, as far as a range of voxels needs them.

    Whatever the range, a voxel is seen with the same surroundings: so its prediction doesn't depend on how the volume
    is cut into blocks, even where the halo is narrower than what the network sees.

    Parameters
    ----------
    start, stop, size, halo, factor : int
        See `axis_tiles`.
    core : int
        Edge of the grid, a multiple of `factor`.

    Returns
    -------
    tiles : list of Tile
        The cores cover the range, the reads those of whole cells of the grid.

    Examples
    --------
    >>> [(tile.core, tile.read) for tile in fixed_tiles(10, 70, 100, core=32, halo=8, factor=4)]
    [((10, 32), (0, 40)), ((32, 64), (24, 72)), ((64, 70), (56, 100))]
    """
    end = math.ceil(size / factor) * factor
    cells = [(low, min(low + core, size)) for low in range(start // core * core, stop, core)]
    kept = [(max(low, start), min(high, stop)) for low, high in cells]
    return [_tile(part, cell, end=end, halo=halo, factor=factor) for part, cell in zip(kept, cells, strict=True)]


def spread(size: int, *, edge: int, factor: int) -> tuple[int, list[int]]:
    """Overlapping tiles of one size, spread evenly over an axis.

    Parameters
    ----------
    size : int
        Of the volume along this axis.
    edge : int
        Of a tile, raised to a multiple of `factor`.
    factor : int
        Sizes that the network takes are multiples of it.

    Returns
    -------
    edge : int
        No longer than the volume needs; then it is mirrored up to the next multiple of `factor`.
    begins : list of int
        First voxel of every tile: as few as overlap their neighbours by half at least.

    Examples
    --------
    >>> spread(512, edge=480, factor=8)
    (480, [0, 32])
    >>> spread(1000, edge=480, factor=8)
    (480, [0, 173, 346, 520])
    >>> spread(100, edge=480, factor=8)
    (104, [0])
    """
    edge = min(math.ceil(edge / factor), math.ceil(size / factor)) * factor
    if edge >= size:
        return edge, [0]
    steps = math.ceil((size - edge) / max(edge // 2, 1))
    return edge, [step * (size - edge) // steps for step in range(steps + 1)]


def spread_tiles(start: int, stop: int, size: int, *, edge: int, factor: int) -> list[Tile]:
    """Those of the tiles of `spread` that a range of voxels is in, so that a mean over tiles knows no blocks.

    Parameters
    ----------
    start, stop : int
        The range to predict.
    size, edge, factor : int
        As in `spread`.

    Returns
    -------
    tiles : list of Tile
        Their cores overlap: what of the range lies in a tile.

    Examples
    --------
    >>> [(tile.core, tile.read) for tile in spread_tiles(0, 20, 512, edge=480, factor=8)]
    [((0, 20), (0, 480))]
    >>> [(tile.core, tile.read) for tile in spread_tiles(0, 40, 512, edge=480, factor=8)]
    [((0, 40), (0, 480)), ((32, 40), (32, 512))]
    """
    edge, begins = spread(size, edge=edge, factor=factor)
    inside = [low for low in begins if low < stop and low + edge > start]
    return [Tile((max(low, start), min(low + edge, stop)), (low, low + edge)) for low in inside]


def each_shape_first(boxes: Iterable[tuple[Tile, ...]]) -> list[tuple[Tile, ...]]:
    """The same tiles, beginning with one of every shape; then shape by shape.

    Parameters
    ----------
    boxes : iterable of tuple of Tile
        One along every axis.

    Returns
    -------
    boxes : list of tuple of Tile
        See `tile_memory.TileMemory` for what that is good for.

    Examples
    --------
    >>> lengths = [12, 9, 12, 9, 12]
    >>> tiles = [Tile((8 * k, 8 * k + 8), (0, length)) for k, length in enumerate(lengths)]
    >>> [tile.core[0] for (tile,) in each_shape_first((tile,) for tile in tiles)]
    [0, 8, 16, 32, 24]
    """
    alike: dict[tuple[int, ...], list[tuple[Tile, ...]]] = {}
    for box in boxes:
        alike.setdefault(tuple(tile.read[1] - tile.read[0] for tile in box), []).append(box)
    return [*(first for first, *_ in alike.values()), *(box for _, *later in alike.values() for box in later)]


def _tile(kept: tuple[int, int], seen_from: tuple[int, int], *, end: int, halo: int, factor: int) -> Tile:
    """A tile that keeps one range and reads another one and its halo, on the pooling grid."""
    low, high = seen_from
    first, last = max(low - halo, 0) // factor * factor, math.ceil((high + halo) / factor) * factor
    return Tile(kept, (first, min(last, end)))
