"""A readable file before its voxels are read: what every format's opener returns, and all that converting needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxloom.errors import FormatError
from voxloom.volume import Geometry

Index = tuple[slice, ...]
Blocks = Iterator[tuple[Index, NDArray[Any]]]


@dataclass(frozen=True)
class Segment:
    """One structure of a segmentation file.

    Parameters
    ----------
    id, name : str
        The file's own identifier, and what people call it.
    color : tuple of float
        Red, green and blue, 0 to 1.
    layer : int
        Channel of the array that holds it; segments of one layer don't overlap.
    label_value : int
        Value of its voxels in that layer.
    extra : dict of str
        Whatever else the file says of it (extent, tags), by the file's own names.
    """

    id: str
    name: str
    color: tuple[float, float, float] = (1.0, 1.0, 1.0)
    layer: int = 0
    label_value: int = 1
    extra: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file that can be read, before its voxels are read.

    Parameters
    ----------
    path : Path
        The file that was named; data may lie in further files beside it (`facts`).
    format : str
        "nrrd", "tiff", "hdf5", "zarr", "mrc", "nifti", "v3draw".
    shape : tuple of int or None
        (Z, Y, X), or (C, Z, Y, X) with channels; a two-dimensional file is one slice. None where the file is not a
        volume: `refusal` then says why, and the voxels can only be read in file order.
    dtype : numpy dtype
        Of the values as they are handed out: native byte order.
    read_blocks : callable
        ``read_blocks(slices)`` yields pairs of an index (a tuple of slices into `shape`) and an array of that shape,
        C-contiguous, in ascending order, each voxel exactly once, at most `slices` slices along Z at a time. Where
        channels are the slowest axis of the file a block has one of them, otherwise all. Memory stays at one block
        and a few MiB.
    read_values : callable
        ``read_values()`` yields one-dimensional arrays of a few MiB with all values in file order (for NRRD: first
        axis fastest), for checksums that don't depend on how the file is encoded.
    geometry : Geometry or None
        None where the file states no usable voxel size.
    unit_stated : bool
        Whether the file names the unit of its voxel size; False where the format's custom had to be taken.
    header : dict
        What the file says of itself and is worth keeping, as JSON can hold it.
    segments : tuple of Segment
        Of a segmentation file.
    facts : dict
        How the file is stored, for people: encoding, byte order, sizes and kinds in file order, data files.
    warnings : tuple of str
        What was assumed, or is odd about the file.
    refusal : str or None
        Why the file is not a volume and what to do, where `shape` is None.
    """

    path: Path
    format: str
    shape: tuple[int, ...] | None
    dtype: np.dtype[Any]
    read_blocks: Callable[[int], Blocks]
    read_values: Callable[[], Iterator[NDArray[Any]]]
    geometry: Geometry | None = None
    unit_stated: bool = False
    header: dict[str, Any] = field(default_factory=dict)
    segments: tuple[Segment, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    refusal: str | None = None

    def require_shape(self) -> tuple[int, ...]:
        """Return `shape`, or say why there is none.

        Returns
        -------
        shape : tuple of int
            (Z, Y, X) or (C, Z, Y, X).

        Raises
        ------
        FormatError
            With `refusal`, if the file is not a volume.
        """
        if self.shape is None:
            raise FormatError(self.refusal or f"{self.path} is not a volume; give one with three axes Z, Y and X")
        return self.shape


def slabs(shape: tuple[int, ...], slices: int, *, one_channel: bool = True) -> Iterator[Index]:
    """Indices of slabs along Z that cover an array, each voxel once, in ascending order.

    Parameters
    ----------
    shape : tuple of int
        (Z, Y, X) or (C, Z, Y, X).
    slices : int
        Largest extent of a slab along Z. Positive.
    one_channel : bool
        For (C, Z, Y, X): a slab has one channel, channel after channel; else every slab has all channels.

    Yields
    ------
    index : tuple of slice
        One slice per axis of `shape`.

    Examples
    --------
    >>> [index[0] for index in slabs((3, 4, 5), 2)]
    [slice(0, 2, None), slice(2, 3, None)]
    """
    if slices < 1:
        raise ValueError(f"slices must be at least 1, got {slices}")
    *channels, depth, height, width = shape
    plane = (slice(0, height), slice(0, width))
    if not channels:
        leading: list[Index] = [()]
    elif one_channel:
        leading = [(slice(channel, channel + 1),) for channel in range(channels[0])]
    else:
        leading = [(slice(0, channels[0]),)]
    for lead in leading:
        for start in range(0, depth, slices):
            yield (*lead, slice(start, min(start + slices, depth)), *plane)
