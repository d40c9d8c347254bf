"""Every format by its suffix: one reader and one writer each."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxloom.errors import FormatError
from voxloom.faults import damage_told, disk_errors_told
from voxloom.io.arrays import with_all_channels, with_axes
from voxloom.io.slices import open_slices, slice_files
from voxloom.io.source import Segment, Source
from voxloom.io.store import KINDS
from voxloom.volume import IGNORE, Quantisation

MAX_SEGMENTS = 255


def _read_nrrd(path: Path, inside: str, axes: str | None) -> Source:
    from voxloom.io.nrrd import open_nrrd

    source = open_nrrd(path)
    return with_axes(source, axes) if axes else source


def _read_tiff(path: Path, inside: str, axes: str | None) -> Source:
    from voxloom.io.tiff import open_tiff

    return open_tiff(path, axes=axes)


def _read_hdf5(path: Path, inside: str, axes: str | None) -> Source:
    from voxloom.io.hdf5 import open_hdf5

    return open_hdf5(path, inside=inside, axes=axes)


def _read_mrc(path: Path, inside: str, axes: str | None) -> Source:
    from voxloom.io.mrc import open_mrc

    source = open_mrc(path)
    return with_axes(source, axes) if axes else source


def _read_nifti(path: Path, inside: str, axes: str | None) -> Source:
    from voxloom.io.nifti import open_nifti

    source = open_nifti(path)
    return with_axes(source, axes) if axes else source


def _read_slice(path: Path, inside: str, axes: str | None) -> Source:
    return open_slices(path, axes=axes)


READERS: dict[str, Callable[[Path, str, str | None], Source]] = {
    ".nrrd": _read_nrrd,
    ".nhdr": _read_nrrd,
    ".tif": _read_tiff,
    ".tiff": _read_tiff,
    ".png": _read_slice,
    ".h5": _read_hdf5,
    ".hdf5": _read_hdf5,
    ".hdf": _read_hdf5,
    ".mrc": _read_mrc,
    ".rec": _read_mrc,
    ".map": _read_mrc,
    ".nii": _read_nifti,
    ".nii.gz": _read_nifti,
}
"""How a file is opened, by its suffix. Folders are Zarr stores or hold single slices."""


def _write_nrrd(path: Path, source: Source, inside: str, slices: int) -> None:
    from voxloom.io.nrrd import write_nrrd

    _write_header_and_values(write_nrrd, path, source, slices, source.segments)


def _write_segmentation(path: Path, source: Source, inside: str, slices: int) -> None:
    from voxloom.io.nrrd import write_nrrd

    _write_header_and_values(write_nrrd, path, source, slices, source.segments or _segments(path, source, slices))


def _write_header_and_values(
    write: Callable[..., None], path: Path, source: Source, slices: int, segments: tuple[Segment, ...]
) -> None:
    write(
        path,
        with_all_channels(source).read_blocks(slices),
        shape=source.require_shape(),
        dtype=source.dtype,
        geometry=source.geometry,
        header=source.header if source.format == "nrrd" else {},
        segments=segments,
    )


def _segments(path: Path, source: Source, slices: int) -> tuple[Segment, ...]:
    """One segment for every value but 0."""
    if source.dtype.kind not in "iu" or len(source.require_shape()) != 3:
        raise FormatError(
            f"{path}: a segmentation is (Z, Y, X) of integers, {source.path} is {source.shape} {source.dtype}"
        )
    values: set[int] = set()
    for _, block in source.read_blocks(slices):
        values.update(np.unique(block).tolist())
        if len(values) > MAX_SEGMENTS + 1:
            raise FormatError(
                f"{source.path} has more than {MAX_SEGMENTS} values, too many to be segments of {path}; write .nrrd"
            )
    values.discard(0)
    is_mask = values <= {1, IGNORE}
    found = []
    for number, value in enumerate(sorted(values)):
        name = "foreground" if is_mask else f"label {value}"
        if is_mask and value == IGNORE:
            name = "not annotated"
        color = _COLORS[number % len(_COLORS)] if name != "not annotated" else (0.5, 0.5, 0.5)
        found.append(Segment(id=f"Segment_{value}", name=name, color=color, layer=0, label_value=value))
    return tuple(found)


_COLORS = (
    (0.90, 0.62, 0.00), (0.34, 0.71, 0.91), (0.00, 0.62, 0.45), (0.94, 0.89, 0.26),
    (0.00, 0.45, 0.70), (0.84, 0.37, 0.00), (0.80, 0.47, 0.65),
)  # fmt: skip
"""Okabe and Ito's colours, told apart by colour-blind people too."""


def _write_tiff(path: Path, source: Source, inside: str, slices: int) -> None:
    from voxloom.io.tiff import write_tiff

    write_tiff(path, source, slices=slices)


def _write_hdf5(path: Path, source: Source, inside: str, slices: int) -> None:
    from voxloom.io.hdf5 import write_hdf5

    write_hdf5(path, source, slices=slices, inside=inside)


def _write_zarr(path: Path, source: Source, inside: str, slices: int) -> None:
    from voxloom.io.zarr import write_zarr

    kept: dict[str, Any] = {"header": source.header, "segments": [vars(segment) for segment in source.segments]}
    write_zarr(path, source, slices=slices, kind=kind_of(source), quantisation=quantisation_of(source), metadata=kept)


def _write_mrc(path: Path, source: Source, inside: str, slices: int) -> None:
    from voxloom.io.mrc import write_mrc

    write_mrc(path, source, slices=slices)


def _write_nifti(path: Path, source: Source, inside: str, slices: int) -> None:
    from voxloom.io.nifti import write_nifti

    write_nifti(path, source, slices=slices)


WRITERS: dict[str, Callable[[Path, Source, str, int], None]] = {
    ".nrrd": _write_nrrd,
    ".seg.nrrd": _write_segmentation,
    ".tif": _write_tiff,
    ".tiff": _write_tiff,
    ".h5": _write_hdf5,
    ".hdf5": _write_hdf5,
    ".zarr": _write_zarr,
    ".mrc": _write_mrc,
    ".nii": _write_nifti,
    ".nii.gz": _write_nifti,
}
"""How a file is written, by its suffix."""


def suffix_of(path: Path, known: dict[str, Any]) -> str | None:
    """The longest known suffix of a file name.

    Parameters
    ----------
    path : Path
    known : dict
        By suffix, with its dot and in lower case.

    Returns
    -------
    suffix : str or None

    Examples
    --------
    >>> suffix_of(Path("a.b.nii.gz"), READERS)
    '.nii.gz'
    """
    name = path.name.lower()
    return max((suffix for suffix in known if name.endswith(suffix)), key=len, default=None)


def open_source(path: str | Path, *, axes: str | None = None, decode: bool = False) -> Source:
    """Open a volume of any format; no voxel is read yet.

    Parameters
    ----------
    path : str or Path
        A file, a folder of single slices or a pattern of them (``scan/*.tif``), a Zarr store; ``file.h5::/dataset`` and
        ``store.zarr::/array`` name one array of several.
    axes : str, optional
        Letters of the array's axes, slowest first, where they aren't ZYX: "XYZ" for a folder of slices along X.
    decode : bool
        Hand out what quantised values of our own stores stand for, as float32, instead of the stored integers.

    Returns
    -------
    source : Source

    Raises
    ------
    FormatError
        If there is no such file, its suffix is unknown, or it is not what its suffix says.
    """
    text, _, inside = str(path).partition("::")
    base = Path(text)
    axes = axes or None
    if not base.exists():
        if any(sign in base.name for sign in "*?["):
            return open_slices(base, axes=axes)
        raise FormatError(_missing(base))
    suffix = suffix_of(base, READERS)
    if base.is_dir():
        from voxloom.io.zarr import is_zarr, open_zarr

        if is_zarr(base) or base.name.lower().endswith(".zarr"):
            return open_zarr(base, inside=inside, axes=axes, decode=decode)
        if inside:
            raise FormatError(f"{base} is a folder of slices; '::' names an array of an HDF5 file or a Zarr store")
        return open_slices(base, axes=axes)
    if suffix is None:
        raise FormatError(
            f"{base} has no suffix that voxloom reads; known: {', '.join(READERS)}, .zarr, folders of {_slice_kinds()}"
        )
    if inside and READERS[suffix] is not _read_hdf5:
        raise FormatError(f"{base} holds one array; '::{inside}' names an array of an HDF5 file or Zarr store only")
    with disk_errors_told(base), damage_told(base):
        with open(base, "rb") as file:  # readers take a file that may not be read for a damaged one
            if not file.read(1):
                raise FormatError(f"{base} is empty; copy or download it again")
        return READERS[suffix](base, inside, axes)


def _slice_kinds() -> str:
    return ".tif or .png slices"


def _missing(path: Path) -> str:
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    if folder != path.parent:
        return f"{path} does not exist: there is no folder {path.parent}, only {folder}; correct the path"
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    close = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
    near = f"the closest name in that folder is {close[0]}" if close else f"the folder holds {len(names)} other entries"
    return f"{path} does not exist; {near}; correct the path"


def source_files(source: Source) -> list[Path]:
    """All files that a source's voxels and header come from.

    Parameters
    ----------
    source : Source

    Returns
    -------
    files : list of Path
        In a fixed order: the named file first, or the files of a folder by their names.
    """
    path = source.path
    if path.is_dir() and source.format == "zarr":
        # what snakemake leaves in a folder is not the volume's
        return sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith(".snakemake"))
    if path.is_dir() or not path.exists():
        return slice_files(path)
    beside = [path.parent / name for name in source.facts.get("data files", [])]
    return [path, *(file for file in beside if file != path)]


def kind_of(source: Source) -> str:
    """What a volume of this source is, by `voxloom.io.store.KINDS`.

    Parameters
    ----------
    source : Source

    Returns
    -------
    kind : str
        What our own store says; "labels" for a segmentation; else "image".
    """
    kind = source.facts.get("kind")
    return kind if kind in KINDS else "labels" if source.segments else "image"


def quantisation_of(source: Source) -> Quantisation | None:
    """What the stored values of our own store stand for.

    Parameters
    ----------
    source : Source

    Returns
    -------
    quantisation : Quantisation or None
    """
    said = source.facts.get("quantisation")
    return Quantisation(**said) if said else None


def write_volume(path: str | Path, source: Source, *, slices: int = 64) -> None:
    """Write a volume in any format, by the suffix of `path`.

    Parameters
    ----------
    path : str or Path
        Replaced where it is there; ``file.h5::/dataset`` names the dataset.
    source : Source
        With a geometry.
    slices : int
        Slices read at a time; memory is two or three of such slabs.

    Raises
    ------
    FormatError
        If the suffix is unknown, or the format can't hold the volume.
    """
    text, _, inside = str(path).partition("::")
    suffix = writable_suffix(text)
    if source.geometry is None:
        raise FormatError(f"{source.path} has no voxel size; give one before it is written to {text}")
    WRITERS[suffix](Path(text), source, inside, slices)


def read_array(source: Source) -> NDArray[Any]:
    """All voxels of a file at once.

    Parameters
    ----------
    source : Source

    Returns
    -------
    values : ndarray, shape (Z, Y, X) or (C, Z, Y, X)
        A single channel is left out of the shape.
    """
    values = np.empty(source.require_shape(), source.dtype)
    for index, block in source.read_blocks(64):
        values[index] = block
    return values[0] if values.ndim == 4 and len(values) == 1 else values


def writable_suffix(path: str | Path) -> str:
    """The suffix that decides how a volume is written.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    suffix : str

    Raises
    ------
    FormatError
        If voxloom doesn't write such files.
    """
    suffix = suffix_of(Path(str(path).partition("::")[0]), WRITERS)
    if suffix is None:
        raise FormatError(f"{path} has no suffix that voxloom writes; known: {', '.join(WRITERS)}")
    return suffix
