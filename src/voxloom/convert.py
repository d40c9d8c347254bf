"""From any format to a stored volume: its voxel size made sure, its header kept, in bounded memory."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from voxloom import addresses, job_memory
from voxloom.errors import FormatError, VolumeError
from voxloom.io.files import sha256
from voxloom.io.formats import (
    kind_of,
    open_source,
    quantisation_of,
    source_files,
    writable_suffix,
    write_volume,
)
from voxloom.io.nrrd_geometry import micrometres_per
from voxloom.io.source import Source
from voxloom.io.zarr import is_zarr, write_zarr
from voxloom.volume import Geometry, Vector

LOGGER = logging.getLogger("voxloom")

BASE_MIB = 128
"""What a process takes before the first voxel: interpreter and libraries."""

SLABS_IN_MEMORY = 4
"""One that is being decoded, one that is being written, and room for the encoded and the temporary."""

SHARD_SLICES = 64
CONTRADICTION = 0.01
"""Relative difference of voxel sizes above which two statements are said to contradict each other."""

RANGE_UM = (1e-4, 100.0)


class Described(Protocol):
    """What is known of a file before its voxels are read."""

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """How it is stored; "axes" is read."""

    def require_shape(self) -> tuple[int, ...]:
        """(Z, Y, X) or (C, Z, Y, X)."""


def convert(
    source: Source,
    out_path: str | Path,
    *,
    memory_mib: float,
    voxel_size_um: Vector | None = None,
    slices: int | None = None,
    unit_when_unstated: str = "mm",
    voxel_um_range: tuple[float, float] = RANGE_UM,
    kind: str | None = None,
    compression: str = "zstd",
    named: str = "",
) -> None:
    """Convert an opened file to any format, by the suffix of `out_path`.

    Parameters
    ----------
    source : Source
        From `voxloom.io.formats.open_source`.
    out_path : str or Path
        ``.zarr`` is a stored volume: OME-Zarr with a pyramid, the file's header and its checksum.
    memory_mib : float
        Memory that the process may take, in MiB; decides how many slices are read at a time.
    voxel_size_um, unit_when_unstated, voxel_um_range
        See `with_voxel_size`.
    slices : int, optional
        Slices (Z) that there must be.
    kind : str, optional
        One of `voxloom.io.store.KINDS`; by default what `voxloom.io.formats.kind_of` says.
    compression : {"zstd", "none"}
        Of a stored volume; see `voxloom.io.store.create_volume`.
    named : str
        Address of which the file is a copy.

    Raises
    ------
    FormatError
        If the file is not a volume, its voxel size is not known for sure, it is short of slices, or the format can't
        hold it.
    VolumeError
        If not even one slice fits in `memory_mib`.
    """
    suffix = writable_suffix(out_path)
    _check_target(source, Path(str(out_path).partition("::")[0]))
    shape = source.require_shape()
    if slices is not None and shape[-3] != slices:
        raise FormatError(
            f"{source.path} has {shape[-3]} slices, expected {slices}; copy the file again, or correct slices in "
            "volumes.tsv"
        )
    source = with_voxel_size(
        source,
        voxel_size_um=voxel_size_um,
        unit_when_unstated=unit_when_unstated,
        voxel_um_range=voxel_um_range,
    )
    for warning in source.warnings:
        LOGGER.warning("%s: %s", source.path, warning)
    depth = slab_slices(source, memory_mib=memory_mib)
    if suffix == ".zarr":
        write_zarr(
            Path(out_path),
            source,
            slices=depth,
            kind=kind or kind_of(source),
            quantisation=quantisation_of(source),
            metadata=_metadata(source, named),
            compression=compression,
            description=f"{source.path}: slabs",
        )
    else:
        if kind is not None:
            source = replace(source, facts={**source.facts, "kind": kind})
        write_volume(out_path, source, slices=depth)


def _check_target(source: Source, out_path: Path) -> None:
    target = out_path.resolve()
    if target == source.path.resolve():
        raise FormatError(f"{out_path} can't be converted onto itself; name another file")
    for held in (source.path, *source_files(source)):
        place = held.resolve()
        if target == place or target in place.parents or (source.path.is_dir() and place in target.parents):
            raise FormatError(
                f"writing {out_path} would overwrite {held}, which holds voxels of {source.path}; name another file"
            )
    if out_path.is_dir() and any(out_path.iterdir()) and not is_zarr(out_path):
        raise FormatError(f"{out_path} is a folder that holds no Zarr store, so it isn't replaced; name another")


def convert_file(
    path: str | Path,
    out_path: str | Path,
    *,
    memory_mib: float,
    files: Sequence[str | Path] = (),
    axes: str | None = None,
    decode: bool = False,
    **how: Any,
) -> None:
    """Open a file and convert it.

    Parameters
    ----------
    path : str or Path
        See `voxloom.io.formats.open_source`; or an address.
    out_path : str or Path
    memory_mib : float
        Memory that the process may take, in MiB; more is refused, whatever the file says.
    files : sequence of str or Path
        Where the path's file lies, if that is elsewhere: the copy of what an address names.
    axes, decode
        See `voxloom.io.formats.open_source`.
    **how
        See `convert`.
    """
    with job_memory.bounded(memory_mib, source=path):
        source = open_source(addresses.local_path(str(path), files), axes=axes, decode=decode)
        convert(source, out_path, memory_mib=memory_mib, named=str(path), **how)


def with_voxel_size(
    source: Source,
    *,
    voxel_size_um: Vector | None = None,
    unit_when_unstated: str = "mm",
    voxel_um_range: tuple[float, float] = RANGE_UM,
) -> Source:
    """The same file with a voxel size that is known for sure.

    Parameters
    ----------
    source : Source
    voxel_size_um : tuple of float, optional
        Voxel edges (Z, Y, X) in micrometres, which win over the file's own. A contradiction is a warning.
    unit_when_unstated : str
        Unit of a file's voxel size that has none.
    voxel_um_range : tuple of float
        Smallest and largest edge, in micrometres, that are believed of a file that doesn't state its unit.

    Returns
    -------
    source : Source
        With a geometry.

    Raises
    ------
    FormatError
        If no voxel size is stated or given, or the unit that was assumed makes it implausible.
    VolumeError
        If `voxel_size_um` is not three positive numbers.
    """
    stated = source.geometry
    if stated is not None and not source.unit_stated:
        stated = _scaled(stated, _factor(unit_when_unstated) / 1000.0)
    if voxel_size_um is not None:
        given = Geometry((float(voxel_size_um[0]), float(voxel_size_um[1]), float(voxel_size_um[2])))
        return _replaced(source, stated, given)
    if stated is None:
        raise FormatError(
            f"{source.path} states no voxel size{_reason(source)}; give one: voxel_size_um in volumes.tsv, "
            "or --voxel-size-um on the command line"
        )
    lowest, highest = voxel_um_range
    spacing = stated.spacing_um
    if not source.unit_stated and not all(lowest <= size <= highest for size in spacing):
        number = " x ".join(f"{size / _factor(unit_when_unstated):.6g}" for size in spacing)
        raise FormatError(
            f"{source.path} gives a voxel size of {number} without a unit; read as {unit_when_unstated} that would be "
            f"{_sizes(stated)} um, outside {lowest:g} to {highest:g} um. Write voxel_size_um in volumes.tsv, or set "
            "convert.unit_when_unstated: um (on the command line --voxel-size-um or --unit um)"
        )
    warnings = source.warnings
    if not all(lowest <= size <= highest for size in spacing):
        odd = f"a voxel of {_sizes(stated)} um is outside {lowest:g} to {highest:g} um: is the unit right?"
        warnings = (*warnings, odd)
    if not source.unit_stated and unit_when_unstated != "mm":
        warnings = (*warnings, f"a length without a unit was read as {unit_when_unstated}")
    return replace(source, geometry=stated, warnings=warnings)


def _factor(unit: str) -> float:
    factor = micrometres_per(unit)
    if factor is None:
        raise FormatError(f"unit_when_unstated must be m, mm, um or nm, got {unit!r}")
    return factor


def _scaled(geometry: Geometry, factor: float) -> Geometry:
    z, y, x = geometry.spacing_um
    at = geometry.origin_um
    return replace(
        geometry,
        spacing_um=(z * factor, y * factor, x * factor),
        origin_um=(at[0] * factor, at[1] * factor, at[2] * factor),
    )


def _reason(source: Source) -> str:
    said = [warning for warning in source.warnings if "voxel size" in warning]
    return f" ({said[0]})" if said else ""


def _replaced(source: Source, stated: Geometry | None, given: Geometry) -> Source:
    """The source with the given voxel size; the place of its first voxel follows where only the unit was wrong."""
    if stated is None:
        return replace(source, geometry=given, unit_stated=True)
    ratios = np.asarray(given.spacing_um) / np.asarray(stated.spacing_um)
    warnings = source.warnings
    if np.any(np.abs(ratios - 1) > CONTRADICTION) and source.unit_stated:
        warnings = (
            *warnings,
            f"the file states voxels of {_sizes(stated)} um, voxel_size_um says {_sizes(given)}; the latter was taken",
        )
    geometry = replace(stated, spacing_um=given.spacing_um)
    if np.all(np.abs(ratios / ratios[0] - 1) <= CONTRADICTION):
        geometry = replace(geometry, origin_um=_scaled(stated, float(ratios[0])).origin_um)
    return replace(source, geometry=geometry, unit_stated=True, warnings=warnings)


def _sizes(geometry: Geometry) -> str:
    return " x ".join(f"{size:.6g}" for size in geometry.spacing_um)


def slab_slices(source: Described, *, memory_mib: float) -> int:
    """How many slices to read at a time.

    Parameters
    ----------
    source : Described
        A `voxloom.io.source.Source`, or what stands for one.
    memory_mib : float
        Memory of the process, in MiB.

    Returns
    -------
    slices : int
        One layer of shards (64 slices) where it fits, as that is fastest; more only where every slab costs a pass over
        the file.

    Raises
    ------
    VolumeError
        If not even one slice fits.
    """
    _check_chunks(source, memory_mib)
    slice_mib = _slice_mib(source)
    fits = int(max(memory_mib - BASE_MIB, 0) / (slice_mib * SLABS_IN_MEMORY))
    if fits < 1:
        raise VolumeError(
            f"{source.path} has slices of {slice_mib:.0f} MiB, which need "
            f"{BASE_MIB + math.ceil(slice_mib * SLABS_IN_MEMORY)} MiB of memory; memory_mib is {memory_mib:g}"
        )
    if fits < SHARD_SLICES:
        return 1 << (fits.bit_length() - 1)
    slowest = next((axis for axis in source.facts.get("axes", "ZYX") if axis in "ZYX"), "Z")
    is_reread = slowest != "Z"
    return fits // SHARD_SLICES * SHARD_SLICES if is_reread else SHARD_SLICES


def _check_chunks(source: Described, memory_mib: float) -> None:
    """Refuse a file that is compressed in pieces, one of which doesn't fit in memory beside its bytes."""
    chunk_mib = math.prod(source.facts.get("chunks") or ()) * source.dtype.itemsize / 2**20
    if chunk_mib * 2 > max(memory_mib - BASE_MIB, 0):
        raise VolumeError(
            f"{source.path} is stored in chunks of {chunk_mib:.0f} MiB, each of which is read whole and needs "
            f"{BASE_MIB + math.ceil(2 * chunk_mib)} MiB of memory; memory_mib is {memory_mib:g}. Raise it, or write "
            "the file with smaller chunks"
        )


def peak_mib(source: Described, *, memory_mib: float) -> float:
    """What converting to a store takes, the whole process counted.

    Parameters
    ----------
    source : Described
        A `voxloom.io.source.Source`, or what stands for one.
    memory_mib : float
        Memory of the process, in MiB.

    Returns
    -------
    mib : float

    Raises
    ------
    VolumeError
        If not even one slice fits.
    """
    depth = min(slab_slices(source, memory_mib=memory_mib), source.require_shape()[-3])
    return BASE_MIB + depth * _slice_mib(source) * SLABS_IN_MEMORY


def _slice_mib(source: Described) -> float:
    shape = source.require_shape()
    channels = shape[0] if len(shape) == 4 else 1
    return float(channels * shape[-2] * shape[-1] * max(source.dtype.itemsize, 1) / 2**20)


def _metadata(source: Source, named: str) -> dict[str, Any]:
    """What a store keeps of its source."""
    return {
        "source": source_record(source, named),
        "header": source.header,
        "segments": [vars(segment) for segment in source.segments],
        "unit_stated": source.unit_stated,
        "warnings": list(source.warnings),
        "facts": {key: value for key, value in source.facts.items() if key not in ("kind", "quantisation")},
    }


def source_record(source: Source, named: str = "") -> dict[str, Any]:
    """Which file a store was made of.

    Parameters
    ----------
    source : Source
    named : str
        Its path in the table of volumes; counts where it is an address.

    Returns
    -------
    record : dict
        "path", "format", "files" (how many), "bytes" and "sha256", see `checksum`.
    """
    files = source_files(source)
    return {
        "path": named if addresses.scheme(named) else source.path.as_posix(),
        "format": source.format,
        "files": len(files),
        "bytes": sum(file.stat().st_size for file in files),
        "sha256": checksum(source),
    }


def checksum(source: Source) -> str:
    """SHA-256 of a source's file; of several files, that of the list that ``sha256sum`` would print of them.

    Parameters
    ----------
    source : Source

    Returns
    -------
    digest : str
        Hexadecimal. Names in the list are relative to the source's folder.
    """
    files = source_files(source)
    if len(files) == 1:
        return sha256(files[0])
    folder = source.path if source.path.is_dir() else source.path.parent
    lines = [f"{sha256(file)}  {file.relative_to(folder).as_posix()}\n" for file in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
