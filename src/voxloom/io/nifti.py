"""NIfTI (.nii, .nii.gz): stored x first, right-anterior-superior, usually in millimetres."""

from __future__ import annotations

import contextlib
import gzip
import io
import logging
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from voxloom.errors import FormatError
from voxloom.io.arrays import Read, array_source
from voxloom.io.files import atomic_file
from voxloom.io.nrrd_geometry import micrometres_per
from voxloom.io.source import Source
from voxloom.volume import Geometry

RAS = "right-anterior-superior"
MM_UM = 1000.0
_UNITS = {1: "m", 2: "mm", 3: "um"}
_FLIPS = {
    "right": (0, 1), "left": (0, -1), "anterior": (1, 1), "posterior": (1, -1), "superior": (2, 1), "inferior": (2, -1),
}  # fmt: skip
"""For each name of a direction: which of right, anterior and superior it runs along, and which way."""


def open_nifti(path: Path) -> Source:
    """Open a NIfTI-1 or NIfTI-2 volume.

    Parameters
    ----------
    path : Path

    Returns
    -------
    source : Source
        Values scaled by the header's slope are float32. Voxel size, origin and directions are those of the affine.

    Raises
    ------
    FormatError
        If it is not a whole NIfTI file.
    """
    import nibabel

    image = _load(path)
    header = image.header
    proxy = image.dataobj
    stored = proxy.dtype
    scaled = not (proxy.slope == 1 and proxy.inter == 0)
    unit = _UNITS.get(int(header["xyzt_units"]) % 8, "unknown")
    factor = micrometres_per(unit)
    notes = []
    if scaled:
        notes.append(f"values are stored * {proxy.slope} + {proxy.inter}, handed out as float32")
    if factor is None:
        notes.append("the unit of the voxel size is not stated; taken as millimetres")
    shape = tuple(int(n) for n in proxy.shape)
    axes = "XYZTC"[: len(shape)] if len(shape) <= 5 else "?"
    if axes == "?" or any(n > 1 for n in shape[5:]):
        raise FormatError(f"{path} has {len(shape)} axes of sizes {shape}; expected X, Y, Z and at most channels")
    order = [n for n, axis in enumerate(axes) if axis != "T" or shape[n] > 1]
    kept_axes = "".join(axes[n] for n in order)[::-1]
    kept_shape = tuple(shape[n] for n in order)[::-1]
    dtype = np.dtype(np.float32) if scaled else stored
    if dtype.fields:
        raise FormatError(f"{path} holds colours ({dtype}); expected one number a voxel, or channels as a fifth axis")

    @contextlib.contextmanager
    def opened() -> Iterator[Read]:
        # one handle a pass: a gzip stream is read on from where it stands, never from its start
        held = _load(path, keep_file_open=True)

        def read(index: tuple[slice, ...]) -> Any:
            asked: list[slice] = [slice(0, 1)] * len(shape)
            for axis, part in zip(order, reversed(index), strict=True):
                asked[axis] = part
            try:
                values = np.asanyarray(held.dataobj[tuple(asked)])
            except (ValueError, OSError, EOFError, zlib.error) as error:
                raise FormatError(f"{path} ends early or is damaged ({error}); copy it again") from None
            return values.astype(dtype, copy=False).reshape([values.shape[axis] for axis in order]).T

        yield read

    return array_source(
        path,
        format="nifti",
        shape=kept_shape,
        dtype=dtype,
        axes=kept_axes,
        opened=opened,
        facts={"encoding": "gzip" if path.suffix == ".gz" else "raw", "unit": unit},
        geometry=_geometry(image.affine, factor or MM_UM) if _states_size(path, header) else None,
        unit_stated=factor is not None,
        header={
            "description": _text(header["descrip"]),
            "intent_code": int(header["intent_code"]),
            "qform_code": int(header["qform_code"]),
            "sform_code": int(header["sform_code"]),
            "version": 2 if isinstance(header, nibabel.Nifti2Header) else 1,
        },
        warnings=tuple(notes),
    )


def _load(path: Path, **how: Any) -> Any:
    import nibabel

    damaged = (
        nibabel.filebasedimages.ImageFileError,
        nibabel.spatialimages.HeaderDataError,
        ValueError,
        nibabel.wrapstruct.WrapStructError,
        OSError,
        EOFError,
        zlib.error,
    )
    for kind in (nibabel.Nifti1Image, nibabel.Nifti2Image):
        try:
            with _without_its_remarks():
                image = kind.from_filename(path, **how)
        except damaged:
            continue
        if len(image.shape) < 2:
            break
        return image
    raise FormatError(f"{path} is not a NIfTI file; copy it again, or correct its suffix if it is something else")


@contextlib.contextmanager
def _without_its_remarks() -> Iterator[None]:
    """Keep nibabel from printing which oddities of a header it tolerates or mends."""
    logger = logging.getLogger("nibabel.global")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


def _text(value: Any) -> str:
    return bytes(value.item()).decode("ascii", errors="replace").strip("\0 ")


def _states_size(path: Path, header: Any) -> bool:
    """Whether the file has voxel sizes of its own; nibabel takes 1 for those that are 0."""
    if int(header["sform_code"]):
        return True
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rb") as file:
        stored = type(header)(file.read(header.sizeof_hdr), check=False)
    return bool(np.all(stored["pixdim"][1:4] != 0))


def _geometry(affine: Any, factor: float) -> Geometry | None:
    columns = np.asarray(affine, dtype=float)[:3, :3]
    lengths = np.linalg.norm(columns, axis=0)
    if not np.all(np.isfinite(affine)) or np.any(lengths <= 0):
        return None
    unit = (columns / lengths)[::-1, ::-1].T  # rows: directions of Z, Y, X; each read (Z, Y, X) in the world
    spacing = lengths[::-1] * factor
    origin = np.asarray(affine, dtype=float)[:3, 3][::-1] * factor
    return Geometry(
        spacing_um=(float(spacing[0]), float(spacing[1]), float(spacing[2])),
        origin_um=(float(origin[0]), float(origin[1]), float(origin[2])),
        directions=tuple(tuple(float(v) for v in row) for row in unit),  # type: ignore[arg-type]
        space=RAS,
    )


def affine_mm(geometry: Geometry) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Affine from voxel (x, y, z) to right-anterior-superior millimetres.

    Parameters
    ----------
    geometry : Geometry
        A world that names no directions is taken as right-anterior-superior.

    Returns
    -------
    affine : ndarray of float64, shape (4, 4)
    """
    affine = np.eye(4)
    affine[:3, :3] = (np.asarray(geometry.directions) * np.asarray(geometry.spacing_um)[:, None])[::-1, ::-1].T
    affine[:3, 3] = np.asarray(geometry.origin_um)[::-1]
    affine[:3] /= MM_UM
    world = np.eye(4)
    names = (geometry.space or RAS).split("-")
    if len(names) == 3 and {_FLIPS[name][0] for name in names if name in _FLIPS} == {0, 1, 2}:
        world[:3, :3] = 0
        for column, name in enumerate(names):
            row, sign = _FLIPS[name]
            world[row, column] = sign
    return world @ affine


def write_nifti(path: Path, source: Source, *, slices: int) -> None:
    """Write a volume as NIfTI in millimetres; NIfTI-2 where an axis is longer than 32767.

    Parameters
    ----------
    path : Path
        Compressed where it ends in .gz.
    source : Source
        With a geometry. Channels become the fifth axis.
    slices : int
        Slices read at a time.

    Raises
    ------
    FormatError
        If NIfTI has no type for the voxels, or the file doesn't hand out its channels one after another.
    """
    import nibabel
    from isal import igzip

    shape = source.require_shape()
    kind = nibabel.Nifti1Header if max(shape) < 32768 else nibabel.Nifti2Header
    header = kind()
    try:
        header.set_data_dtype(source.dtype)
    except nibabel.spatialimages.HeaderDataError:
        raise FormatError(f"{path}: NIfTI has no type for {source.dtype}; write .nrrd, .h5 or .zarr") from None
    spatial = shape[-3:][::-1]
    header.set_data_shape(spatial if len(shape) == 3 else (*spatial, 1, shape[0]))
    header.set_xyzt_units("mm")
    if source.geometry is not None:
        affine = affine_mm(source.geometry)
        header.set_sform(affine, code="scanner")
        header.set_qform(affine, code="scanner", strip_shears=True)
    header.set_data_offset(header.sizeof_hdr + 4 if kind is nibabel.Nifti1Header else 544)
    expected = 0
    with atomic_file(path) as temporary, contextlib.ExitStack() as stack:
        file: Any = stack.enter_context(open(temporary, "wb"))
        if path.suffix == ".gz":
            file = stack.enter_context(igzip.IGzipFile(filename="", fileobj=file, mode="wb", compresslevel=1, mtime=0))
        head = io.BytesIO()
        header.write_to(head)
        file.write(head.getvalue().ljust(int(header.get_data_offset()), b"\0"))
        for index, values in source.read_blocks(slices):
            channel = index[0].start if len(index) == 4 else 0
            if channel * shape[-3] + index[-3].start != expected or (len(index) == 4 and len(values) > 1):
                raise FormatError(f"{path}: NIfTI takes one channel after another; convert to .zarr first, then again")
            expected += values.shape[-3]
            file.write(np.ascontiguousarray(values).data)
