"""The lines of a NRRD header, sorted into fields, key/value pairs, comments and names of data files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NoReturn

from voxloom.errors import FormatError

MAX_HEADER_BYTES = 16 << 20

_ALIASES = {
    "datafile": "data file",
    "lineskip": "line skip",
    "byteskip": "byte skip",
    "centers": "centerings",
    "axismins": "axis mins",
    "axismaxs": "axis maxs",
    "oldmin": "old min",
    "oldmax": "old max",
    "blocksize": "block size",
}
_FIELDS = {
    "content", "number", "type", "block size", "dimension", "space", "space dimension", "sizes", "spacings",
    "thicknesses", "axis mins", "axis maxs", "centerings", "labels", "units", "kinds", "min", "max", "old min",
    "old max", "endian", "encoding", "line skip", "byte skip", "data file", "sample units", "space units",
    "space origin", "space directions", "measurement frame",
}  # fmt: skip


class NrrdText:
    """Lines of a header, sorted; what they say is not looked at.

    Parameters
    ----------
    path : Path
        For error messages.
    file : binary file
        At its beginning; left where the header ends.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self.fields: dict[str, str] = {}
        self.key_values: dict[str, str] = {}
        self.comments: list[str] = []
        self.data_list: list[str] = []
        self.warnings: list[str] = []
        self.data_offset: int | None = None
        self.magic = self._read_magic(file)
        for number, line in self._lines(file):
            if line.startswith("#"):
                self.comments.append(line[1:].strip())
            else:
                self._sort(number, line)
            if self.fields.get("data file", "").split()[:1] == ["LIST"]:
                self.data_list = [name for _, line in self._lines(file, number) if (name := line.strip())]
                break

    def refuse(self, what: str, todo: str) -> NoReturn:
        """Raise FormatError with the file's name."""
        raise FormatError(f"{self.path}: {what}; {todo}")

    def _read_magic(self, file: BinaryIO) -> str:
        start = file.read(10)
        magic = start[:8].decode("latin-1")
        if not start:
            self.refuse("the file is empty", "copy or download it again")
        if not magic.startswith("NRRD"):
            self.refuse(
                f"a NRRD file begins with 'NRRD0001' to 'NRRD0005', this one with {start[:8]!r}",
                "check that it is what its name says",
            )
        if start == b"NRRD00.01\n":  # the name of version 1 before there was a version 2
            return "NRRD0001"
        if magic[4:] not in {"0001", "0002", "0003", "0004", "0005"}:
            self.refuse(
                f"voxloom reads NRRD versions 1 to 5, the first line says {magic!r}", "save it in version 5 or older"
            )
        end = 10 if start[8:10] == b"\r\n" else 9
        if start[8:9] not in (b"\n", b"\r") or (start[8:9] == b"\r" and end == 9):
            self.refuse(f"the first line must be {magic!r} alone, got {start!r}", "correct it")
        file.seek(end)
        return magic

    def _lines(self, file: BinaryIO, number: int = 1) -> Iterator[tuple[int, str]]:
        """Numbered lines up to the empty one that ends a header, or the end of the file."""
        while True:
            line = file.readline(MAX_HEADER_BYTES)
            number += 1
            if file.tell() > MAX_HEADER_BYTES:
                self.refuse(
                    f"no empty line ends the header within {MAX_HEADER_BYTES >> 20} MiB",
                    "an empty line must stand between header and values",
                )
            if not line:
                return
            line = line.removesuffix(b"\n").removesuffix(b"\r")
            if not line:
                self.data_offset = file.tell()
                return
            yield number, self._decode(number, line)

    def _decode(self, number: int, line: bytes) -> str:
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            text = line.decode("latin-1")  # older writers: "µm" in one byte
        if any(character < " " and character != "\t" for character in text):
            shown = text[:40].encode("unicode_escape").decode()
            self.refuse(
                f"line {number} of the header is not text: '{shown}'",
                "an empty line must stand between header and values",
            )
        return text

    def _sort(self, number: int, line: str) -> None:
        field, pair = line.find(": "), line.find(":=")
        if pair >= 0 and (field < 0 or pair < field):
            self.key_values[_unescape(line[:pair])] = _unescape(line[pair + 2 :])
            return
        lenient = field < 0
        if lenient:
            field = line.find(":")
        name = " ".join(line[: max(field, 0)].lower().split())
        name = _ALIASES.get(name, name)
        if field < 0 or not re.fullmatch(r"[a-z][\w .()/-]*", name):
            self.refuse(
                f"line {number} of the header is neither 'field: value' nor 'key:=value': {line[:60]!r}",
                "correct it; an empty line must stand between header and values",
            )
        if name in self.fields:
            self.refuse(f"line {number} of the header gives {name!r} a second time", "delete the line that is wrong")
        if name not in _FIELDS:
            self.warnings.append(f"unknown field {name!r} is kept but not used")
        elif lenient and line[field + 1 :].strip():
            self.warnings.append(f"field {name!r} lacks the space after its colon; other programs refuse the file")
        self.fields[name] = line[field + 1 :].strip()


def _unescape(value: str) -> str:
    return re.sub(r"\\([\\n])", lambda match: "\n" if match.group(1) == "n" else "\\", value)
