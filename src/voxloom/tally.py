"""Reads predictions and ground truths once and counts scores by part, volume and spatial cell, in bounded memory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from voxloom import boxes
from voxloom.blocks import Block, reduce_blocks
from voxloom.boxes import Box
from voxloom.budget import Layout, fixed_within
from voxloom.errors import VolumeError
from voxloom.kernels import compiled
from voxloom.logs import LOGGER
from voxloom.metrics import LEVELS
from voxloom.split import boxes_of
from voxloom.volume import Quantisation, Vector

if TYPE_CHECKING:
    import pandas as pd

BLOCK = (64, 512, 512)
"""What is read at once: a shard."""

MAX_CELLS = 4000
MAX_CELL_BYTES = 64 << 20
"""Most cells that are counted apart for one truth and part, and most memory for them."""


class Volume(Protocol):
    """A stored volume, or an array that knows its voxel size."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(Z, Y, X)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the stored values."""

    @property
    def spacing_um(self) -> Vector:
        """Voxel edge lengths (Z, Y, X)."""

    @property
    def quantisation(self) -> Quantisation | None:
        """What stored integers stand for."""

    def __getitem__(self, index: Any) -> NDArray[Any]: ...


@dataclass(frozen=True)
class Tally:
    """Joint histograms of one truth and part.

    Parameters
    ----------
    volumes : tuple of str, length n
        Volume of every cell.
    histograms : ndarray of int64, shape (n, 2, levels)
        Background and foreground voxels of every stored score, for every cell.
    """

    volumes: tuple[str, ...]
    histograms: NDArray[np.int64]

    def of(self, volumes: Sequence[str]) -> NDArray[np.int64]:
        """Histograms of the cells of some volumes that hold an annotated voxel, shape (k, 2, levels)."""
        chosen = np.isin(np.asarray(self.volumes, dtype=object), list(volumes))
        chosen &= self.histograms.any(axis=(1, 2))
        return self.histograms[chosen]


@dataclass(frozen=True)
class _Cells:
    """The cells of one part of one volume: a cubic lattice from the volume's first voxel, cut by the part's boxes."""

    edge: NDArray[np.int64]  # (Z, Y, X) voxels
    lattice: tuple[int, ...]  # cells along (Z, Y, X)
    flat: NDArray[np.int64]  # rising C-order numbers of those that hold a voxel of the part
    first: int  # row of the first of them in the tally

    def rows(self, box: Box) -> NDArray[np.int64]:
        """Tally rows of the cells that a box of this part meets, in C order."""
        return self.first + np.searchsorted(self.flat, _flat_cells(box, self.edge, self.lattice))


def _flat_cells(box: Box, edge: NDArray[np.int64], lattice: tuple[int, ...]) -> NDArray[np.int64]:
    axes = [np.arange(first // e, (last - 1) // e + 1) for (first, last), e in zip(box, edge, strict=True)]
    return np.ravel_multi_index(np.meshgrid(*axes, indexing="ij"), lattice).reshape(-1)


def tally(
    predictions: Mapping[str, Volume],
    truths: Mapping[str, Mapping[str, Volume]],
    split: pd.DataFrame,
    *,
    fold: int,
    parts: Sequence[str],
    cell_um: float,
    threads: int = 1,
    memory_mib: float = math.inf,
) -> tuple[dict[tuple[str, str], Tally], float]:
    """Count how truths and stored scores meet, in one pass over the predictions.

    Parameters
    ----------
    predictions : mapping of str to volume of uint8 or uint16
        By volume name.
    truths : mapping of str to mapping of str to volume of uint8
        By truth and volume name: 0 background, 1 foreground, 255 not annotated. A truth may lack volumes.
    split : DataFrame
    fold : int
    parts : sequence of str
        Parts of the split to count.
    cell_um : float
        Edge of a cell. It is doubled until there are at most `MAX_CELLS` cells in `MAX_CELL_BYTES`, which bounds the
        memory whatever the volume's size.
    threads : int
        Blocks that are read at a time, fewer where the budget holds fewer.
    memory_mib : float
        Budget for the blocks, in MiB.

    Returns
    -------
    tallies : dict of (truth, part) to Tally
    cell_um : float
        The edge that was used.

    Raises
    ------
    VolumeError
        If shapes differ, or the stored types are others.
    """
    for name, prediction in predictions.items():
        _check(name, prediction, {truth: held[name] for truth, held in truths.items() if name in held})
    levels = LEVELS[np.dtype(next(iter(predictions.values())).dtype)]
    part_boxes = {
        (name, part): boxes_of(split, fold=fold, volume=name, part=part) for name in predictions for part in parts
    }
    cells, used_um = _lay_cells(predictions, part_boxes, cell_um=cell_um, levels=levels)
    sizes = {part: sum(len(c.flat) for (_, p), c in cells.items() if p == part) for part in parts}
    tallies = {
        (truth, part): Tally(
            tuple(name for (name, p), c in cells.items() if p == part for _ in c.flat),
            np.zeros((sizes[part], 2, levels), dtype=np.int64),
        )
        for truth in truths
        for part in parts
        if sizes[part]
    }
    for name, prediction in predictions.items():
        known = [truth for truth, held in truths.items() if name in held]
        _tally_volume(
            name,
            prediction,
            {truth: truths[truth][name] for truth in known},
            {part: part_boxes[name, part] for part in parts},
            {part: cells[name, part] for part in parts if (name, part) in cells},
            tallies,
            layout=block_layout(prediction.shape, prediction.dtype, memory_mib=memory_mib, threads=threads),
        )
    return tallies, used_um


def block_layout(shape: Sequence[int], dtype: DTypeLike, *, memory_mib: float, threads: int) -> Layout:
    """The blocks by which `tally` reads a prediction and its truths.

    Parameters
    ----------
    shape : sequence of int
        (Z, Y, X).
    dtype : dtype
        Of the prediction.
    memory_mib : float
        Budget, in MiB.
    threads : int
        Blocks that could be read at a time.

    Returns
    -------
    layout : Layout

    Raises
    ------
    VolumeError
        If the budget doesn't hold one block.
    """
    return fixed_within(
        shape, BLOCK, bytes_per_voxel=np.dtype(dtype).itemsize + 2, memory_mib=memory_mib, threads=threads
    )


def _check(name: str, prediction: Volume, truths: Mapping[str, Volume]) -> None:
    if np.dtype(prediction.dtype) not in LEVELS or len(prediction.shape) != 3:
        raise VolumeError(
            f"volume {name}: a prediction is a 3D volume of uint8 or uint16, got {prediction.dtype} of shape "
            f"{tuple(prediction.shape)}; predict it anew"
        )
    for truth, annotation in truths.items():
        if tuple(annotation.shape) != tuple(prediction.shape) or annotation.dtype != np.uint8:
            raise VolumeError(
                f"volume {name}: {truth} has shape {tuple(annotation.shape)} and type {annotation.dtype}, the "
                f"prediction has shape {tuple(prediction.shape)}; they must be the same voxels, and an annotation uint8"
            )


def _lay_cells(
    predictions: Mapping[str, Volume],
    part_boxes: Mapping[tuple[str, str], Sequence[Box]],
    *,
    cell_um: float,
    levels: int,
) -> tuple[dict[tuple[str, str], _Cells], float]:
    limit = _most_cells(levels)
    used_um = cell_um
    while True:
        cells: dict[tuple[str, str], _Cells] = {}
        totals: dict[str, int] = {}
        for (name, part), held in part_boxes.items():
            if not held:
                continue
            volume = predictions[name]
            edge = np.maximum(1, np.rint(used_um / np.asarray(volume.spacing_um))).astype(np.int64)
            lattice = tuple(int(-(-n // e)) for n, e in zip(volume.shape, edge, strict=True))
            flat: set[int] = set()
            for box in held:
                meets = np.prod([(last - 1) // e - first // e + 1 for (first, last), e in zip(box, edge, strict=True)])
                if meets > limit or len(flat) > limit:
                    flat.update(range(limit + 1))  # far too many: not worth counting
                    break
                flat.update(_flat_cells(box, edge, lattice).tolist())
            cells[name, part] = _Cells(edge, lattice, np.sort(np.fromiter(flat, np.int64)), totals.get(part, 0))
            totals[part] = totals.get(part, 0) + len(flat)
        # one cell a volume and part is the least that there can be
        is_coarsest = all(c.flat.size == 1 for c in cells.values())
        if is_coarsest or max(totals.values(), default=0) <= limit:
            if used_um != cell_um:
                LOGGER.info("intervals resample blocks of %g um: %g um would be too many to count", used_um, cell_um)
            return cells, used_um
        used_um *= 2


def _most_cells(levels: int) -> int:
    return max(16, min(MAX_CELLS, MAX_CELL_BYTES // (levels * 16)))


def tallies_mib(dtype: DTypeLike, *, truths: int, parts: int) -> float:
    """What the counts take at most, whatever the volumes' size.

    Parameters
    ----------
    dtype : dtype
        Of the predictions.
    truths, parts : int

    Returns
    -------
    mib : float
        Of all tallies, and of the one of which the cells of a scope are copied.
    """
    levels = LEVELS[np.dtype(dtype)]
    return (truths * parts + 1) * _most_cells(levels) * levels * 16 / 2**20


def _tally_volume(
    name: str,
    prediction: Volume,
    truths: Mapping[str, Volume],
    part_boxes: Mapping[str, Sequence[Box]],
    cells: Mapping[str, _Cells],
    tallies: Mapping[tuple[str, str], Tally],
    *,
    layout: Layout,
) -> None:
    arrays = {part: boxes.as_array(held) for part, held in part_boxes.items()}

    def work(block: Block) -> list[tuple[str, str, NDArray[np.int64], NDArray[np.int64]]]:
        here: Box = tuple((axis.start, axis.stop) for axis in block.core)  # type: ignore[assignment]
        meets: list[tuple[str, Box]] = []
        for part in cells:
            for index in np.flatnonzero(boxes.near(here, arrays[part], gap=(0, 0, 0))):
                common = boxes.intersect(here, part_boxes[part][int(index)])
                assert common is not None
                meets.append((part, common))
        if not meets:
            return []
        edges = boxes.as_array([box for _, box in meets])
        low, high = edges[:, :, 0].min(axis=0), edges[:, :, 1].max(axis=0)
        window = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        stored = prediction[window]
        counted = []
        for truth, annotation in truths.items():
            codes = annotation[window]
            for part, box in meets:
                at = tuple(slice(a - int(c), b - int(c)) for (a, b), c in zip(box, low, strict=True))
                held = cells[part]
                rows = held.rows(box)
                counts = np.zeros((len(rows), 2, tallies[truth, part].histograms.shape[2]), dtype=np.int64)
                corner = np.array([first for first, _ in box], dtype=np.int64)
                _count_cells(stored[at], codes[at], corner, held.edge, counts)
                counted.append((truth, part, rows, counts))
        return counted

    everything = _Nothing(prediction.shape)
    for _, counted in reduce_blocks(
        lambda _, block: work(block), everything, description=f"scored {name}", **layout.grid
    ):
        for truth, part, rows, counts in counted:
            tallies[truth, part].histograms[rows] += counts


@dataclass(frozen=True)
class _Nothing:
    """Has the shape of a volume and reads as None, so that blocks without a box of interest cost nothing."""

    shape: tuple[int, ...]

    def __getitem__(self, index: Any) -> Any:
        return None


@compiled
def _count_cells(stored, codes, corner, edge, counts):  # type: ignore[no-untyped-def]
    depth, height, width = stored.shape
    first_z, first_y, first_x = corner[0] // edge[0], corner[1] // edge[1], corner[2] // edge[2]
    cells_y = (corner[1] + height - 1) // edge[1] - first_y + 1
    cells_x = (corner[2] + width - 1) // edge[2] - first_x + 1
    for z in range(depth):
        cell_z = (corner[0] + z) // edge[0] - first_z
        for y in range(height):
            cell_y = (corner[1] + y) // edge[1] - first_y
            cell = (cell_z * cells_y + cell_y) * cells_x
            x = 0
            while x < width:
                # up to the border of this cell
                end = min(width, ((corner[2] + x) // edge[2] + 1) * edge[2] - corner[2])
                for i in range(x, end):
                    code = codes[z, y, i]
                    if code < 2:
                        counts[cell, code, stored[z, y, i]] += 1
                cell += 1
                x = end


def tally_masks(
    masks: Mapping[str, Volume],
    truths: Mapping[str, Mapping[str, Volume]],
    split: pd.DataFrame,
    *,
    fold: int,
    parts: Sequence[str],
    threads: int = 1,
) -> dict[tuple[str, str, str], NDArray[np.int64]]:
    """Count how an annotation meets others, where both are annotated.

    Parameters
    ----------
    masks : mapping of str to volume of uint8
        The annotation that is scored, by volume: 0, 1, and 255 where it says nothing.
    truths, split, fold, parts, threads
        As in `tally`.

    Returns
    -------
    histograms : dict of (truth, part, volume) to ndarray of int64, shape (2, 2)
        Rows: background and foreground of the truth; columns: of the mask.
    """
    found: dict[tuple[str, str, str], NDArray[np.int64]] = {}
    for name, mask in masks.items():
        held = {truth: volumes[name] for truth, volumes in truths.items() if name in volumes}
        _check(name, mask, held)
        for part in parts:
            wanted = boxes_of(split, fold=fold, volume=name, part=part)
            for truth in held if wanted else ():
                found[truth, part, name] = np.zeros((2, 2), dtype=np.int64)
            for box in tiles(wanted, BLOCK):
                codes = mask[boxes.slices(box)]
                for truth, annotation in held.items():
                    others = annotation[boxes.slices(box)]
                    both = (codes < 2) & (others < 2)
                    pairs = np.bincount(2 * others[both] + codes[both], minlength=4)
                    found[truth, part, name] += pairs.reshape(2, 2)
    return found


def tiles(held: Sequence[Box], shape: Sequence[int]) -> list[Box]:
    """Boxes cut into tiles of at most `shape` voxels, on a lattice from the volume's first voxel."""
    found: list[Box] = []
    for box in held:
        axes = []
        for (first, last), edge in zip(box, shape, strict=True):
            borders = [first, *range((first // edge + 1) * edge, last, edge), last]
            axes.append(list(itertools.pairwise(borders)))
        found += [(z, y, x) for z in axes[0] for y in axes[1] for x in axes[2]]
    return found
