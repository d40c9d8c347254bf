"""The files that hold the values of a NRRD file: found beside their header, and large enough for what it promises."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from voxloom.errors import FormatError
from voxloom.io.nrrd_header import NrrdHeader

MAX_FILES = 1_000_000
MAX_NAME = 4096
_MARKS = {b"\x1f\x8b": "gzip", b"BZ": "bzip2"}
_LARGEST_RATIO = {"gzip": 1100, "bzip2": 1_500_000, "hex": 0.5, "ascii": 0.5, "raw": 1}
"""Bytes (for ascii: values) that a byte of the file can stand for at most, so that a header can't promise more."""


@dataclass(frozen=True)
class Data:
    """The files that hold the values, in order; each holds the same number of them.

    Parameters
    ----------
    header : NrrdHeader
    files : tuple of Path
    offset : int
        Where in the file data begin, before lines and bytes are skipped.
    """

    header: NrrdHeader
    files: tuple[Path, ...]
    offset: int

    @property
    def values_per_file(self) -> int:
        """Number of values in each file."""
        return self.header.count // len(self.files)


def locate(header: NrrdHeader) -> Data:
    """Find the files that hold the values, and check that they can.

    Parameters
    ----------
    header : NrrdHeader

    Returns
    -------
    data : Data

    Raises
    ------
    FormatError
        If there is no data file, it lies outside the header's folder, their number doesn't fit the sizes, or one is
        missing or too small for what the header promises.
    """
    if header.data_file is None:
        if header.data_offset is None:
            raise FormatError(
                f"{header.path}: the header is followed neither by an empty line and values nor names a 'data file'; "
                "copy the file again, or add 'data file: name'"
            )
        data = Data(header, (header.path,), header.data_offset)
    else:
        data = Data(header, _data_files(header), 0)
    for path in data.files:
        _check_file(data, path)
    return data


def _data_files(header: NrrdHeader) -> tuple[Path, ...]:
    value = header.data_file or ""
    words = value.split()
    if len(value) > MAX_NAME:
        raise FormatError(f"{header.path}: field 'data file' has {len(value)} characters; expected a name, correct it")
    pattern = re.fullmatch(
        r"([^%]*)%(0?\d{0,2})[du]([^%]*?)\s+(-?\d{1,9})\s+(-?\d{1,9})\s+(-?\d{1,9})(\s+\d{1,9})?", value
    )
    if words[:1] == ["LIST"]:
        subdimension = words[1] if len(words) == 2 else None
        if len(words) > 2 or (subdimension is not None and not subdimension.isdecimal()):
            raise FormatError(f"{header.path}: field 'data file' must be 'LIST' or 'LIST n', got {value!r}; correct it")
        names: tuple[str, ...] = header.data_list
        _check_count(header, len(names), subdimension)
    elif pattern is not None:
        before, width, after, first, last, step, subdimension = pattern.groups()
        if int(step) == 0 or (int(last) - int(first)) * int(step) < 0:
            raise FormatError(
                f"{header.path}: field 'data file' counts from {first} to {last} in steps of {step}; correct it"
            )
        numbers = range(int(first), int(last) + (1 if int(step) > 0 else -1), int(step))
        _check_count(header, len(numbers), subdimension)
        names = tuple(f"{before}{each:{width}d}{after}" for each in numbers)
    else:
        names = (value,)
    return tuple(_inside(header, name) for name in names)


def _check_count(header: NrrdHeader, count: int, subdimension: str | None) -> None:
    """Each file holds the first `subdimension` axes, or a slab of equal thickness where that is all of them."""
    dimension = len(header.sizes)
    per_file = int(subdimension) if subdimension is not None else dimension - 1
    if not 1 <= per_file <= dimension:
        raise FormatError(
            f"{header.path}: field 'data file' says that each file has {per_file} axes; expected 1 to {dimension}, "
            "correct it"
        )
    expected = math.prod(header.sizes[per_file:])
    if count > MAX_FILES:
        raise FormatError(f"{header.path}: field 'data file' names {count} files, voxloom opens up to {MAX_FILES}")
    fits = count > 0 and header.sizes[-1] % count == 0 if per_file == dimension else count == expected
    if not fits:
        wanted = f"a number that divides {header.sizes[-1]}" if per_file == dimension else f"{expected}"
        raise FormatError(
            f"{header.path}: field 'data file' names {count} files, expected {wanted} for sizes "
            f"{' '.join(map(str, header.sizes))}; correct it or the sizes"
        )


def _inside(header: NrrdHeader, name: str) -> Path:
    """Path of a data file; a header from elsewhere must not make voxloom read what lies outside its own folder."""
    folder = header.path.parent.absolute()
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts:
        raise FormatError(
            f"{header.path}: data file {name!r} lies outside the header's folder, where voxloom doesn't follow it; "
            f"move or link it into {folder} and write its plain name into the field 'data file'"
        )
    return header.path.parent / name


def _check_file(data: Data, path: Path) -> None:
    header = data.header
    if not path.is_file():
        raise FormatError(f"{header.path}: data file {path} doesn't exist; put it there or correct 'data file'")
    size = path.stat().st_size
    first = data.offset
    if header.line_skip or header.encoding != "raw":
        with open(path, "rb") as file:
            first = skip_lines(header, path, file, data.offset)
            _check_mark(header, path, file.read(2))
    needed = data.values_per_file * (1 if header.encoding == "ascii" else header.dtype.itemsize)
    skipped = max(header.byte_skip, 0) if header.encoding in ("raw", "hex", "ascii") else 0
    available = max(size - first - skipped, 0)
    if header.encoding == "ascii":
        available += 1  # the last value needs no space after it
    if needed > available * _LARGEST_RATIO[header.encoding]:
        unit = "values" if header.encoding == "ascii" else "bytes"
        raise FormatError(
            f"{path}: sizes {' '.join(map(str, header.sizes))} of type {header.fields['type']!r} need {needed} {unit} "
            f"({header.encoding}), the file has {available} bytes for them; it is cut short, or 'sizes' or 'type' is "
            "wrong: copy it again or correct the header"
        )
    if header.byte_skip == -1 and header.encoding in ("ascii", "hex"):
        raise FormatError(f"{header.path}: field 'byte skip' can't be -1 for {header.encoding} values; give a number")


def _check_mark(header: NrrdHeader, path: Path, mark: bytes) -> None:
    if header.encoding in ("gzip", "bzip2") and _MARKS.get(mark) != header.encoding:
        looks = f"looks like {_MARKS[mark]}" if mark in _MARKS else f"begins with {mark!r}"
        raise FormatError(
            f"{path}: 'encoding' says {header.encoding}, but the data {looks}; correct 'encoding', 'line skip' or "
            "'data file' in the header"
        )


def skip_lines(header: NrrdHeader, path: Path, file: BinaryIO, offset: int) -> int:
    """Go to the first byte after the lines that the header says to skip.

    Parameters
    ----------
    header : NrrdHeader
    path : Path
        Of `file`.
    file : binary file
    offset : int
        Where to begin.

    Returns
    -------
    position : int

    Raises
    ------
    FormatError
        If the file has fewer lines.
    """
    file.seek(offset)
    for skipped in range(header.line_skip):
        while not (line := file.readline(1 << 16)).endswith(b"\n"):
            if not line:
                raise FormatError(
                    f"{path}: 'line skip' is {header.line_skip}, the file has {skipped} lines; correct it"
                )
    return file.tell()
