"""From a prediction to a mask and its objects, slab by slab in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from voxloom.blocks import Readable, ReadableWritable, Writable, map_blocks
from voxloom.budget import Layout, slabs_within
from voxloom.errors import VolumeError
from voxloom.instances import Filtered, label_volume, remove_small_objects_volume


@dataclass(frozen=True)
class Segmented:
    """What became of a prediction.

    Parameters
    ----------
    foreground_voxels : int
        In the final mask.
    objects : int
        In the final mask.
    removed_objects, removed_voxels : int
        Smaller than the smallest allowed.
    """

    foreground_voxels: int
    objects: int
    removed_objects: int
    removed_voxels: int


def segment_volume(
    prediction: Readable,
    mask: ReadableWritable,
    *,
    stored_threshold: int,
    min_size_voxels: int,
    connectivity: int,
    memory_mib: float,
    labels: Writable | None = None,
    threads: int = 1,
) -> Segmented:
    """Cut a prediction at a threshold, remove small objects, and number the rest.

    Parameters
    ----------
    prediction : volume of uint8 or uint16, shape (Z, Y, X)
        Stored scores.
    mask : volume of uint8, shape (Z, Y, X)
        Takes 0 and 1; is read back when small objects are removed.
    stored_threshold : int
        A voxel whose stored score is at least this is foreground; "stored" of an evaluation's threshold.
    min_size_voxels : int
        Objects with fewer voxels are removed; one of exactly this size stays.
    connectivity : {6, 18, 26}
        Neighbours that make two voxels one object.
    memory_mib : float
        Budget, in MiB.
    labels : volume of uint32, shape (Z, Y, X), optional
        Takes the objects' numbers; see `voxloom.instances.label_volume`.
    threads : int
        Slabs in work at a time, fewer where the budget holds fewer.

    Returns
    -------
    segmented : Segmented

    Raises
    ------
    VolumeError
        If the prediction isn't stored scores, or the budget doesn't hold one slice.
    """
    first = np.asarray(prediction[0:1, 0:1, 0:1])
    if first.dtype not in (np.uint8, np.uint16):
        raise VolumeError(f"a prediction is stored as uint8 or uint16, got {first.dtype}; predict it anew")
    layout = threshold_layout(prediction.shape, mask, first.dtype, memory_mib=memory_mib, threads=threads)
    map_blocks(
        lambda stored: (stored >= stored_threshold).view(np.uint8),
        prediction,
        out=mask,
        description="thresholded slab",
        **layout.grid,
    )
    removed = Filtered(objects=0, changed_objects=0, changed_voxels=0)
    if min_size_voxels > 1:
        removed = remove_small_objects_volume(
            mask,
            mask,
            min_size_voxels=min_size_voxels,
            connectivity=connectivity,
            memory_mib=memory_mib,
            threads=threads,
        )
    voxels, objects = label_volume(mask, labels, connectivity=connectivity, memory_mib=memory_mib, threads=threads)
    return Segmented(voxels, objects, removed.changed_objects, removed.changed_voxels)


def threshold_layout(shape: Sequence[int], mask: Any, dtype: DTypeLike, *, memory_mib: float, threads: int) -> Layout:
    """The slabs by which a prediction is cut at its threshold; its objects have those of `instances.slab_layout`.

    Parameters
    ----------
    shape : sequence of int
        (Z, Y, X).
    mask : object
        The volume that is written; its ``shard_shape`` counts where it has one.
    dtype : dtype
        Of the prediction.
    memory_mib : float
        Budget, in MiB.
    threads : int
        Slabs that could be in work at a time.

    Returns
    -------
    layout : Layout

    Raises
    ------
    VolumeError
        If the budget doesn't hold one slice.
    """
    return slabs_within(
        shape,
        bytes_per_voxel=2 + np.dtype(dtype).itemsize,
        memory_mib=memory_mib,
        shards_of=mask,
        threads=threads,
    )
