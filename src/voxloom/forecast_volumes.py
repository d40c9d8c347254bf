"""What is known of volumes before they are converted: sizes, type and voxel size, from their headers alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from voxloom.configuration import Configuration
from voxloom.errors import VoxloomError
from voxloom.references import raw_files
from voxloom.volume import Vector


@dataclass(frozen=True)
class Header:
    """A volume of which only the header was read; stands for a stored one where blocks are chosen.

    Parameters
    ----------
    shape : tuple of int
        (Z, Y, X), or (C, Z, Y, X) with channels.
    dtype : numpy.dtype
    spacing_um : tuple of float
        Voxel edges (Z, Y, X).
    path : Path
        Its file.
    facts : mapping
        How the file is stored; "axes" is read.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    spacing_um: Vector
    path: Path = Path()
    facts: Mapping[str, Any] = field(default_factory=dict)

    def require_shape(self) -> tuple[int, ...]:
        """The shape, as a `voxloom.io.source.Source` says it."""
        return self.shape

    @property
    def voxels(self) -> int:
        """Of all channels."""
        return math.prod(self.shape)

    @property
    def shard_shape(self) -> tuple[int, ...]:
        """Shards of the store that it will be, or that is made of it."""
        from voxloom.io.store import shards_of

        return shards_of(self.shape)

    def of_type(self, dtype: DTypeLike) -> Header:
        """A volume of the same size (Z, Y, X) and another type, such as what a stage makes of this one."""
        return Header(self.shape[-3:], np.dtype(dtype), self.spacing_um)

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """Zeros that take no memory: blocks are chosen by sizes and types alone."""
        zeros: NDArray[Any] = np.broadcast_to(np.zeros((), self.dtype), self.shape)
        return zeros[index]


def phantom_header(settings: Mapping[str, Any]) -> Header:
    """The header of a phantom.

    Parameters
    ----------
    settings : mapping
        Of config.yaml, under ``phantom.<volume>``.

    Returns
    -------
    header : Header
    """
    z, y, x = settings["shape"]
    depth, height, width = settings["spacing_um"]
    return Header((z, y, x), np.dtype(np.uint8), (depth, height, width))


def header_of(configuration: Configuration, volume: str) -> Header | None:
    """What is known of a volume of the configuration.

    Parameters
    ----------
    configuration : Configuration
    volume : str

    Returns
    -------
    header : Header or None
        Of its phantom, of the raw file, or of the converted volume; None where neither file is there yet.

    Raises
    ------
    VoxloomError
        If the file is there, but would be refused; says as whose.
    """
    if volume in configuration.config["phantom"]:
        return phantom_header(configuration.config["phantom"][volume])
    row = configuration.volumes[volume]
    store = Path("results/volumes") / f"{volume}.zarr"
    files = raw_files(row["path"])
    try:
        if (store / "zarr.json").is_file():
            return _stored(store)
        if files and Path(files[0]).exists():
            return _raw(row, configuration.config["convert"])
    except VoxloomError as error:
        error.add_note(f"volume {volume} of {configuration.config['volumes']}")
        raise
    return None


def _stored(store: Path) -> Header:
    from voxloom.io.store import open_volume

    found = open_volume(store)
    return Header(found.shape, found.dtype, found.spacing_um)


def _raw(row: Mapping[str, Any], convert: Mapping[str, Any]) -> Header:
    from voxloom.convert import with_voxel_size
    from voxloom.io.formats import open_source

    source = with_voxel_size(
        open_source(row["path"], axes=row["axes"] or None),
        voxel_size_um=row.get("voxel_size_um"),
        unit_when_unstated=convert["unit_when_unstated"],
        voxel_um_range=convert["voxel_um_range"],
    )
    assert source.geometry is not None
    return Header(source.require_shape(), source.dtype, source.geometry.spacing_um, source.path, source.facts)
