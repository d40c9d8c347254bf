"""Measurements of segmented objects in micrometres: one row an object, and a summary of the volume."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from voxloom.blocks import Block, Readable, reduce_blocks
from voxloom.budget import Layout, fixed_within
from voxloom.deferred import Deferred
from voxloom.errors import VolumeError
from voxloom.kernels import compiled
from voxloom.skeleton import TILE, skeleton_length_um, skeletonise
from voxloom.volume import Vector

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = Deferred("pandas")

BLOCK = (64, 512, 512)
SKELETON_HALO = 16
"""Context in voxels around a tile whose centre lines are measured; more than the radius of what is thinned well."""

WAITING = 1.5
"""Blocks in memory for each that is being read: up to one more waits to be measured."""

THINNING_BYTES = 7
"""For each voxel of a tile beside the mask itself: the mask as booleans, with a border, and if all is foreground, its
places."""

OBJECT_COLUMNS = (
    "label",
    "voxels",
    "volume_um3",
    "centroid_z_um",
    "centroid_y_um",
    "centroid_x_um",
    "z_from",
    "z_to",
    "y_from",
    "y_to",
    "x_from",
    "x_to",
    "touches_border",
    "mean_grey",
)


class Volume(Readable, Protocol):
    """A volume that is read by slicing and tells its type before."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values."""


def measure_objects(
    labels: Volume,
    *,
    spacing_um: Vector,
    objects: int | None = None,
    image: Volume | None = None,
    threads: int = 1,
    memory_mib: float = math.inf,
) -> pd.DataFrame:
    """Measure every object of a labelled volume.

    Parameters
    ----------
    labels : volume of integer, shape (Z, Y, X)
        0 is background, objects are numbered from 1.
    spacing_um : tuple of float
        Voxel edge lengths along (Z, Y, X), in micrometres.
    objects : int, optional
        Largest label; where nobody knows it, a pass over the volume finds it.
    image : volume, shape (Z, Y, X), optional
        Grey values.
    threads : int
        Blocks that are read at a time, fewer where the budget holds fewer.
    memory_mib : float
        Budget for the blocks, in MiB.

    Returns
    -------
    table : DataFrame
        Columns `OBJECT_COLUMNS`, one row for each label that occurs. Centroids are in micrometres from the centre of
        the volume's first voxel; boxes are half-open voxel ranges; an object that touches the volume's border may be
        larger than what is seen of it. `mean_grey` is not a number without an image.

    Raises
    ------
    VolumeError
        If a label is larger than `objects`, the shapes differ, or the budget doesn't hold one block.
    """
    inputs = [labels] if image is None else [labels, image]
    layout = read_layout(inputs, memory_mib=memory_mib, threads=threads)
    if objects is None:
        highest = reduce_blocks(
            lambda found: int(found.max(initial=0)),
            labels,
            description="read block",
            **layout.grid,
        )
        objects = max(label for _, label in highest)
    shape = np.asarray(labels.shape)
    counts = np.zeros(objects + 1, dtype=np.int64)
    sums = np.zeros((objects + 1, 3), dtype=np.int64)  # of voxel coordinates
    grey = np.zeros(objects + 1, dtype=np.float64)
    low = np.full((objects + 1, 3), np.iinfo(np.int64).max, dtype=np.int64)
    high = np.zeros((objects + 1, 3), dtype=np.int64)

    def read(*arrays: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        return arrays

    for block, arrays in reduce_blocks(read, *inputs, description="measured block", **layout.grid):
        if arrays[0].max(initial=0) > objects:
            raise VolumeError(f"labels reach {arrays[0].max()}, but {objects} objects were announced; segment anew")
        corner = np.array([axis.start for axis in block.core], dtype=np.int64)
        values = arrays[1] if image is not None else np.zeros((1, 1, 1), np.uint8)
        _add_voxels(arrays[0], values, image is not None, corner, counts, sums, grey, low, high)
    seen = np.flatnonzero(counts[1:]) + 1
    centroids = sums[seen] / counts[seen, None] * np.asarray(spacing_um)
    columns = {
        "label": seen,
        "voxels": counts[seen],
        "volume_um3": counts[seen] * float(np.prod(spacing_um)),
        **{f"centroid_{axis}_um": centroids[:, k] for k, axis in enumerate("zyx")},
        **{
            f"{axis}_{end}": edge[seen, k]
            for k, axis in enumerate("zyx")
            for end, edge in (("from", low), ("to", high))
        },
        "touches_border": ((low[seen] == 0) | (high[seen] == shape)).any(axis=1),
        "mean_grey": grey[seen] / counts[seen] if image is not None else np.full(len(seen), np.nan),
    }
    return pd.DataFrame(columns)[list(OBJECT_COLUMNS)]


@compiled
def _add_voxels(labels, values, has_values, corner, counts, sums, grey, low, high):  # type: ignore[no-untyped-def]
    depth, height, width = labels.shape
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                label = labels[z, y, x]
                if label == 0:
                    continue
                counts[label] += 1
                if has_values:
                    grey[label] += values[z, y, x]
                at_z, at_y, at_x = corner[0] + z, corner[1] + y, corner[2] + x
                sums[label, 0] += at_z
                sums[label, 1] += at_y
                sums[label, 2] += at_x
                low[label, 0] = min(low[label, 0], at_z)
                low[label, 1] = min(low[label, 1], at_y)
                low[label, 2] = min(low[label, 2], at_x)
                high[label, 0] = max(high[label, 0], at_z + 1)
                high[label, 1] = max(high[label, 1], at_y + 1)
                high[label, 2] = max(high[label, 2], at_x + 1)


def read_layout(volumes: Sequence[Volume], *, memory_mib: float, threads: int) -> Layout:
    """The blocks that `measure_objects` reads.

    Parameters
    ----------
    volumes : sequence of volume, shape (Z, Y, X)
        Labels, and grey values where there are any.
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
        volumes[0].shape,
        BLOCK,
        bytes_per_voxel=WAITING * sum(volume.dtype.itemsize for volume in volumes),
        memory_mib=memory_mib,
        threads=threads,
    )


def tile_layout(mask: Volume, *, memory_mib: float, threads: int) -> Layout:
    """The tiles in which `measure_length_um` thins a mask.

    Parameters
    ----------
    mask : volume, shape (Z, Y, X)
    memory_mib : float
        Budget, in MiB.
    threads : int
        Tiles that could be in work at a time.

    Returns
    -------
    layout : Layout

    Raises
    ------
    VolumeError
        If the budget doesn't hold one tile.
    """
    return fixed_within(
        mask.shape,
        TILE,
        bytes_per_voxel=mask.dtype.itemsize + THINNING_BYTES,
        memory_mib=memory_mib,
        threads=threads,
        halo_voxels=(SKELETON_HALO,) * 3,
    )


def measure_length_um(mask: Volume, *, spacing_um: Vector, threads: int = 1, memory_mib: float = math.inf) -> float:
    """Length of a mask's centre lines.

    Parameters
    ----------
    mask : volume of uint8, shape (Z, Y, X)
        Non-zero is foreground.
    spacing_um : tuple of float
        Voxel edge lengths along (Z, Y, X), in micrometres.
    threads : int
        Tiles in work at a time, fewer where the budget holds fewer.
    memory_mib : float
        Budget for the tiles, in MiB.

    Returns
    -------
    length_um : float

    Raises
    ------
    VolumeError
        If the budget doesn't hold one tile.

    Notes
    -----
    Thinned in tiles of at most 256 voxels an edge with `SKELETON_HALO` voxels of context. An object that is thicker
    than the context can get another line in each tile, so that lengths of thick objects depend a little on the tiles.
    """

    def length(values: NDArray[np.uint8], block: Block) -> float:
        return skeleton_length_um(skeletonise(values != 0), spacing_um=spacing_um, inner=block.inner)

    layout = tile_layout(mask, memory_mib=memory_mib, threads=threads)
    lengths = reduce_blocks(length, mask, description="centre lines of tile", **layout.grid)
    return float(sum(length_um for _, length_um in lengths))


def summarise(
    table: pd.DataFrame, *, shape: tuple[int, ...], spacing_um: Vector, length_um: float | None = None
) -> pd.DataFrame:
    """What all objects of a volume are together, as a table of one row.

    Parameters
    ----------
    table : DataFrame
        From `measure_objects`.
    shape : tuple of int
        The volume's (Z, Y, X).
    spacing_um : tuple of float
        Voxel edge lengths along (Z, Y, X), in micrometres.
    length_um : float, optional
        From `measure_length_um`; adds the length, its density and the diameter of a cylinder of that volume and length.

    Returns
    -------
    summary : DataFrame
        Columns voxels, volume_um3, foreground_voxels, foreground_um3, volume_fraction, objects, objects_per_mm3,
        median_object_um3, largest_object_um3, mean_grey, and with a length length_um, length_density_m_per_mm3 and
        mean_diameter_um.
    """
    voxel_um3 = float(np.prod(spacing_um))
    voxels = int(np.prod(shape))
    foreground = int(table["voxels"].sum())
    summary: dict[str, Any] = {
        "voxels": voxels,
        "volume_um3": voxels * voxel_um3,
        "foreground_voxels": foreground,
        "foreground_um3": foreground * voxel_um3,
        "volume_fraction": foreground / voxels,
        "objects": len(table),
        "objects_per_mm3": len(table) / (voxels * voxel_um3) * 1e9,
        "median_object_um3": float(table["volume_um3"].median()) if len(table) else np.nan,
        "largest_object_um3": float(table["volume_um3"].max()) if len(table) else np.nan,
        "mean_grey": float((table["mean_grey"] * table["voxels"]).sum() / foreground) if foreground else np.nan,
    }
    if table["mean_grey"].isna().any():
        summary["mean_grey"] = np.nan
    if length_um is not None:
        summary["length_um"] = length_um
        summary["length_density_m_per_mm3"] = length_um / (voxels * voxel_um3) * 1e3  # 1 um / um3 is 1000 m / mm3
        summary["mean_diameter_um"] = (
            float(2 * np.sqrt(foreground * voxel_um3 / (np.pi * length_um))) if length_um > 0 else np.nan
        )
    return pd.DataFrame([summary])
