"""Write NRRD files slab by slab: the same voxels give the same bytes, and 3D Slicer finds them in their place."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from isal import isal_zlib
from numpy.typing import DTypeLike, NDArray

from voxloom.errors import VolumeError
from voxloom.io.files import atomic_file
from voxloom.io.nrrd_header import SPACE_SHORT, SPACES, byte_order, native
from voxloom.io.nrrd_segments import segment_keys
from voxloom.io.source import Index, Segment
from voxloom.volume import Geometry

STEP_BYTES = 4 << 20
LEVEL = 1  # of isal: as small as zlib's 6 on grey values, nine times as fast
_TYPES = {
    "i1": "signed char", "u1": "unsigned char", "i2": "short", "u2": "unsigned short", "i4": "int",
    "u4": "unsigned int", "i8": "long long int", "u8": "unsigned long long int", "f4": "float", "f8": "double",
}  # fmt: skip
_KEPT = ("content", "labels", "sample units", "measurement frame")
_MICROMETRES_PER_MM = 1000.0


def write_nrrd(
    path: str | Path,
    blocks: Iterable[tuple[Index, NDArray[Any]]],
    *,
    shape: tuple[int, ...],
    dtype: DTypeLike,
    geometry: Geometry,
    header: Mapping[str, Any] | None = None,
    segments: Sequence[Segment] = (),
    encoding: Literal["gzip", "raw"] = "gzip",
) -> None:
    """Write a NRRD file in bounded memory; it appears under its name when it is complete.

    Parameters
    ----------
    path : str or Path
        Ending in .nrrd, for a segmentation in .seg.nrrd.
    blocks : iterable of (index, array)
        Slabs in ascending Z, with all channels, as `Source.read_blocks` yields them; together the whole volume.
    shape : tuple of int
        (Z, Y, X) or (C, Z, Y, X).
    dtype : dtype
        Integer of 8 to 64 bits, float32 or float64; bool is written as uint8.
    geometry : Geometry
        Written in millimetres, the unit that 3D Slicer and ITK take every NRRD file to have, and stated. A world
        without a name is written as "left-posterior-superior".
    header : mapping, optional
        As `Source.header` of a NRRD file: its "key_values", "comments" and descriptive fields are written too.
    segments : sequence of Segment, optional
        Makes the file a segmentation of 3D Slicer; channels are its layers.
    encoding : {"gzip", "raw"}

    Raises
    ------
    VolumeError
        If the type has no name in NRRD, or the slabs don't fit `shape` or leave a part of it out. Nothing is left
        under `path` then.
    """
    stored = _stored_type(dtype)
    if encoding not in ("gzip", "raw"):
        raise VolumeError(f"encoding must be 'gzip' or 'raw', got {encoding!r}")
    if len(shape) not in (3, 4):
        raise VolumeError(f"shape must be (Z, Y, X) or (C, Z, Y, X), got {shape}")
    text = _header_text(shape, stored, geometry, header or {}, segments, encoding)
    with atomic_file(path) as temporary, open(temporary, "wb") as file:
        file.write(text.encode("utf-8"))
        packer = isal_zlib.compressobj(LEVEL, isal_zlib.DEFLATED, 31) if encoding == "gzip" else None
        for values in _in_file_order(blocks, shape, np.dtype(dtype), stored):
            view = memoryview(values.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
            for start in range(0, len(view), STEP_BYTES):
                part = view[start : start + STEP_BYTES]
                file.write(packer.compress(part) if packer else part)
        if packer:
            file.write(packer.flush())


def _stored_type(dtype: DTypeLike) -> np.dtype[Any]:
    stored = np.dtype(np.uint8) if np.dtype(dtype) == bool else np.dtype(dtype)
    if f"{stored.kind}{stored.itemsize}" not in _TYPES:
        raise VolumeError(f"NRRD has no type for {stored}; convert to an integer, float32 or float64 first")
    return stored.newbyteorder("<")


def _in_file_order(
    blocks: Iterable[tuple[Index, NDArray[Any]]], shape: tuple[int, ...], dtype: np.dtype[Any], stored: np.dtype[Any]
) -> Iterator[NDArray[Any]]:
    """Check that slabs follow each other, and put their channels last: the fastest axis of the file."""
    done = 0
    for index, block in blocks:
        *channels, z, _, _ = index
        extent = (*shape[:-3], (z.stop or 0) - (z.start or 0), *shape[-2:])
        whole = all(part.indices(size) == (0, size, 1) for part, size in zip(channels, shape[:-3], strict=True))
        if z.start != done or not whole or block.shape != extent or native(block.dtype) != native(dtype):
            raise VolumeError(
                f"blocks must be slabs of {dtype} with all channels in ascending Z, the next from slice {done} on, of "
                f"a volume of shape {shape}; got {block.dtype} of shape {block.shape} at {index}"
            )
        done = z.stop
        values = np.moveaxis(block, 0, -1) if channels else block
        yield np.ascontiguousarray(values, dtype=stored)
    if done != shape[-3]:
        raise VolumeError(f"blocks end after {done} of {shape[-3]} slices; give the whole volume")


def _header_text(
    shape: tuple[int, ...],
    stored: np.dtype[Any],
    geometry: Geometry,
    header: Mapping[str, Any],
    segments: Sequence[Segment],
    encoding: str,
) -> str:
    channels = shape[:-3]
    kept = {name: str(header[name]) for name in _KEPT if name in header}
    if len(re.findall(r'"(?:[^"\\]|\\.)*"|\S+', kept.get("labels", ""))) != len(shape):
        kept.pop("labels", None)  # of a file with other axes
    kind = f"{_channel_kind(header, channels, segments)} " if channels else ""
    lines = [
        "NRRD0004",
        "# Complete NRRD file format specification at:",
        "# http://teem.sourceforge.net/nrrd/format.html",
        *(f"# {comment}" for comment in header.get("comments", ()) if _is_comment(comment)),
        f"type: {_TYPES[f'{stored.kind}{stored.itemsize}']}",
        f"dimension: {len(shape)}",
        _space_line(geometry),
        f"sizes: {' '.join(str(size) for size in (*channels, *shape[:-4:-1]))}",
        f"space directions: {'none ' if channels else ''}{_directions(geometry)}",
        f"kinds: {kind}domain domain domain",
        *([f"endian: {byte_order(stored)}"] if stored.itemsize > 1 else []),
        f"encoding: {encoding}",
        'space units: "mm" "mm" "mm"',
        f"space origin: {_vector(_in_mm(geometry.origin_um))}",
        *(f"{name}: {_one_line(value)}" for name, value in kept.items()),
        *(f"{_key(key)}:={_escape(value)}" for key, value in _key_values(header, segments, shape).items()),
    ]
    return "\n".join(lines) + "\n\n"


def _is_comment(comment: str) -> bool:
    """Whether a comment is worth repeating: every file has the two lines on the format."""
    return not re.search(r"NRRD file format specification|teem\.sourceforge\.net|[\r\n]", comment)


def _channel_kind(header: Mapping[str, Any], channels: tuple[int, ...], segments: Sequence[Segment]) -> str:
    """Kind of the channel axis: the source's own where it fits, else a list of unrelated values."""
    kinds = [] if segments else str(header.get("kinds", "")).split()
    own = [kind for kind in kinds if kind.lower() not in ("domain", "space", "none", "???", "time")]
    lengths = {"RGB-color": 3, "RGBA-color": 4, "vector": channels[0]}
    return own[0] if len(own) == 1 and lengths.get(own[0]) == channels[0] else "list"


def _space_line(geometry: Geometry) -> str:
    space = (geometry.space or "left-posterior-superior").lower()
    space = SPACE_SHORT.get(space, space)
    if SPACES.get(space) != 3:
        known = ", ".join(name for name, axes in SPACES.items() if axes == 3)
        raise VolumeError(f"space must be one that NRRD names ({known}) or None, got {geometry.space!r}")
    return f"space: {space}"


def _in_mm(values_um: Iterable[float]) -> list[float]:
    return [value / _MICROMETRES_PER_MM for value in values_um]


def _directions(geometry: Geometry) -> str:
    edges = [
        [spacing * part for part in direction]
        for spacing, direction in zip(_in_mm(geometry.spacing_um), geometry.directions, strict=True)
    ]
    return " ".join(_vector(edge) for edge in reversed(edges))


def _vector(values: Sequence[float]) -> str:
    """A vector of the world as NRRD writes it: x first."""
    if not all(math.isfinite(value) for value in values):
        raise VolumeError(f"geometry must be of finite numbers, got {values}")
    return "(" + ",".join(repr(float(value) + 0.0).removesuffix(".0") for value in reversed(values)) + ")"


def _key_values(header: Mapping[str, Any], segments: Sequence[Segment], shape: tuple[int, ...]) -> dict[str, Any]:
    pairs = dict(header.get("key_values", {}))
    if segments:
        pairs = {key: value for key, value in pairs.items() if not re.match(r"Segment\d+_", key)}
        offset = pairs.get("Segmentation_ReferenceImageExtentOffset")
        pairs |= segment_keys(segments, shape)
        if offset is not None:
            pairs["Segmentation_ReferenceImageExtentOffset"] = offset
    return pairs


def _one_line(value: str) -> str:
    return " ".join(value.split())


def _key(key: str) -> str:
    if ":=" in key or ": " in key or key.startswith("#") or not key.strip():
        raise VolumeError(f"a key of a NRRD file can't hold ':=' or ': ', begin with '#' or be empty, got {key!r}")
    return _escape(key)


def _escape(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", " ")
