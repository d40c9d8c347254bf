"""MRC (.mrc, .rec, .map): electron tomography and X-ray tomography, voxel size in Angstrom."""

from __future__ import annotations

import contextlib
import struct
import warnings as python_warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from voxloom.errors import FormatError
from voxloom.io.arrays import Read, array_source
from voxloom.io.files import atomic_file
from voxloom.io.source import Source
from voxloom.volume import Geometry

ANGSTROM_UM = 1e-4
HEADER_BYTES = 1024
WRITTEN_AS = {name: name for name in ("int8", "int16", "uint16", "float16", "float32")} | {"uint8": "uint16"}
"""Type in the file of each type of voxel that MRC can hold."""


def open_mrc(path: Path) -> Source:
    """Open an MRC volume.

    Parameters
    ----------
    path : Path

    Returns
    -------
    source : Source
        The axes are put in order by the header's MAPC, MAPR and MAPS. Bytes that IMOD marked as unsigned are uint8.

    Raises
    ------
    FormatError
        If it is not a whole MRC file.
    """
    with _opened_file(path) as file:
        header = file.header
        data = file.data
        dtype, shape = data.dtype, tuple(data.shape)
        stacked = bool(file.is_volume_stack())
        unsigned = dtype == np.int8 and _imod_unsigned(header)
        voxel = [float(file.voxel_size[axis]) for axis in "xyz"]
        origin = [float(header.origin[axis]) for axis in "xyz"]
        mapped = [int(header.maps), int(header.mapr), int(header.mapc)]
        kept = {
            "labels": [line.decode("ascii", errors="replace").strip() for line in header.label[: int(header.nlabl)]],
            "mode": int(header.mode),
            "space_group": int(header.ispg),
            "nstart": [int(header.nxstart), int(header.nystart), int(header.nzstart)],
        }
    notes: list[str] = []
    if unsigned:
        dtype = np.dtype(np.uint8)
    axes = "".join({1: "X", 2: "Y", 3: "Z"}.get(axis, "?") for axis in mapped)
    if sorted(axes) != ["X", "Y", "Z"]:
        notes.append(f"MAPC, MAPR and MAPS are {mapped[::-1]}, not an order of 1, 2 and 3; taken as 1, 2, 3")
        axes = "ZYX"
    if dtype.fields:
        raise FormatError(f"{path} holds colours ({dtype}); expected a volume of one number a voxel")
    if len(shape) == 2:
        axes = "YX"
    if stacked:
        axes = "T" + axes

    @contextlib.contextmanager
    def opened() -> Iterator[Read]:
        def read(index: tuple[slice, ...]) -> Any:
            # mapped anew for every slab, so that what was read doesn't stay mapped
            with _opened_file(path) as file:
                values = np.array(file.data[index])
                return values.view(np.uint8) if unsigned else values

        yield read

    a = ANGSTROM_UM
    geometry = None
    if all(np.isfinite(v) and v > 0 for v in voxel):
        at = [o if np.isfinite(o) else 0.0 for o in origin]
        geometry = Geometry(
            spacing_um=(voxel[2] * a, voxel[1] * a, voxel[0] * a), origin_um=(at[2] * a, at[1] * a, at[0] * a)
        )
    return array_source(
        path,
        format="mrc",
        shape=shape,
        dtype=dtype,
        axes=axes,
        opened=opened,
        geometry=geometry,
        unit_stated=geometry is not None,
        header=kept,
        warnings=tuple(notes),
    )


@contextlib.contextmanager
def _opened_file(path: Path) -> Iterator[Any]:
    import mrcfile

    try:
        _check_extended_header(path)
        with python_warnings.catch_warnings():
            python_warnings.simplefilter("ignore", RuntimeWarning)  # odd header fields that don't touch the voxels
            file = mrcfile.mmap(path, mode="r", permissive=False)
    except (ValueError, OSError) as error:
        raise FormatError(
            f"{path} is not a whole MRC file ({error}); copy it again, or correct its suffix if it is something else"
        ) from None
    with file:
        yield file


def _check_extended_header(path: Path) -> None:
    """Refuse an extended header that reaches past the file's end, before the reader makes room for it."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(HEADER_BYTES)
    order = ">" if head[212:213] == b"\x11" else "<"
    (extended,) = struct.unpack(f"{order}i", head[92:96]) if len(head) == HEADER_BYTES else (0,)
    if not 0 <= extended <= size - HEADER_BYTES:
        raise ValueError(f"its extended header has {extended} bytes, the file {size}")


def _imod_unsigned(header: Any) -> bool:
    """Whether IMOD wrote mode 0 and says that its bytes are unsigned."""
    raw = header.tobytes()
    order = "<" if raw[212:213] == b"D" else ">"
    stamp, flags = np.frombuffer(raw[152:160], dtype=f"{order}i4")
    return bool(stamp == 1146047817 and not flags & 1)


def write_mrc(path: Path, source: Source, *, slices: int) -> None:
    """Write a volume as MRC.

    Parameters
    ----------
    path : Path
    source : Source
        With a geometry and three axes. uint8 becomes uint16, the smallest unsigned type that MRC has.
    slices : int
        Slices read at a time.

    Raises
    ------
    FormatError
        If MRC has no type for the voxels, or no place for the channels.
    """
    import mrcfile

    shape = source.require_shape()
    if len(shape) != 3 or source.dtype.name not in WRITTEN_AS:
        raise FormatError(
            f"{path}: MRC holds (Z, Y, X) of {', '.join(WRITTEN_AS)}, got {shape} of {source.dtype}; "
            "write .nrrd, .h5 or .zarr"
        )
    dtype = np.dtype(WRITTEN_AS[source.dtype.name])
    mode = mrcfile.utils.mode_from_dtype(dtype)
    with atomic_file(path) as temporary:
        with mrcfile.new_mmap(temporary, shape=shape, mrc_mode=mode, overwrite=True) as file:
            file.set_volume()
            if source.geometry is not None:
                a = ANGSTROM_UM
                z, y, x = (size / a for size in source.geometry.spacing_um)
                file.voxel_size = (x, y, z)
                file.header.origin = tuple(at / a for at in reversed(source.geometry.origin_um))
            start, order = HEADER_BYTES + int(file.header.nsymbt), dtype.newbyteorder("<")
        lowest, highest, total, squares = np.inf, -np.inf, 0.0, 0.0
        with open(temporary, "r+b") as raw:
            for index, values in source.read_blocks(slices):
                raw.seek(start + index[0].start * shape[1] * shape[2] * order.itemsize)
                raw.write(np.ascontiguousarray(values, dtype=order).data)
                lowest, highest = min(lowest, float(values.min())), max(highest, float(values.max()))
                total += float(values.sum(dtype=np.float64))
                squares += float(np.square(values, dtype=np.float64).sum())
            mean = total / np.prod(shape)
            # where the header has the density's statistics
            raw.seek(76)
            raw.write(struct.pack("<3f", lowest, highest, mean))
            raw.seek(216)
            raw.write(struct.pack("<f", max(squares / np.prod(shape) - mean**2, 0.0) ** 0.5))
