"""The text at the head of a NRRD file: read as the format says, refused where it says too little or contradicts itself.

The format is described at http://teem.sourceforge.net/nrrd/format.html. What is read here is what the file says;
what its axes and units mean is `nrrd_geometry`'s, where its values lie is `nrrd_data`'s.
"""

from __future__ import annotations

import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np

from voxloom.io.nrrd_text import NrrdText

MAX_DIMENSION = 16  # NRRD_DIM_MAX of the reference implementation

TYPES: dict[str, str] = {
    name: code
    for code, names in {
        "i1": "signed char, int8, int8_t",
        "u1": "uchar, unsigned char, uint8, uint8_t",
        "i2": "short, short int, signed short, signed short int, int16, int16_t",
        "u2": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
        "i4": "int, signed int, int32, int32_t",
        "u4": "uint, unsigned int, uint32, uint32_t",
        "i8": "longlong, long long, long long int, signed long long, signed long long int, int64, int64_t",
        "u8": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
        "f4": "float",
        "f8": "double",
    }.items()
    for name in names.split(", ")
}
"""NumPy type codes by the format's spellings."""

ENCODINGS = {
    "raw": "raw",
    "txt": "ascii",
    "text": "ascii",
    "ascii": "ascii",
    "hex": "hex",
    "gz": "gzip",
    "gzip": "gzip",
    "bz2": "bzip2",
    "bzip2": "bzip2",
}
"""Encodings by the format's spellings."""

SPACES = {
    "right-anterior-superior": 3,
    "left-anterior-superior": 3,
    "left-posterior-superior": 3,
    "right-anterior-superior-time": 4,
    "left-anterior-superior-time": 4,
    "left-posterior-superior-time": 4,
    "scanner-xyz": 3,
    "scanner-xyz-time": 4,
    "3d-right-handed": 3,
    "3d-left-handed": 3,
    "3d-right-handed-time": 4,
    "3d-left-handed-time": 4,
}
"""World spaces that the format names, with their number of axes."""

SPACE_SHORT = {
    "ras": "right-anterior-superior",
    "las": "left-anterior-superior",
    "lps": "left-posterior-superior",
    "rast": "right-anterior-superior-time",
    "last": "left-anterior-superior-time",
    "lpst": "left-posterior-superior-time",
}

WorldVector = tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class NrrdHeader:
    """What a NRRD header says. Axes are in file order: the first is the fastest, for images x.

    Parameters
    ----------
    path : Path
        The file.
    magic : str
        "NRRD0001" to "NRRD0005".
    fields : dict of str
        Every field as written, by its name in the format; unknown ones too.
    key_values : dict of str
        Key/value pairs, with escapes undone.
    comments : tuple of str
        Lines after ``#``.
    dtype : numpy dtype
        Of the values as they are stored: with the file's byte order.
    sizes : tuple of int
    encoding : str
        "raw", "ascii", "hex", "gzip" or "bzip2".
    line_skip, byte_skip : int
        Lines, then bytes, before the values of each data file; -1 bytes means that they stand at its end.
    data_file : str or None
        The field as written; None where the values follow the header.
    data_list : tuple of str
        File names below ``data file: LIST``.
    data_offset : int or None
        Where the header ends and, without `data_file`, values begin; None where no empty line ended it.
    space : str or None
        Name of the world's axes, in full.
    space_dimension : int or None
    directions : tuple of (tuple of float or None), or None
        World vector from one sample to the next, per axis.
    origin : tuple of float or None
        World position of the first sample.
    space_units : tuple of str or None
        Per world axis.
    spacings, axis_mins, axis_maxs : tuple of float or None
        Per axis, NaN where an axis has none.
    units, kinds, centers, labels : tuple of str or None
        Per axis.
    warnings : tuple of str
        What the format doesn't allow but could be read.
    """

    path: Path
    magic: str
    fields: dict[str, str]
    key_values: dict[str, str]
    comments: tuple[str, ...]
    dtype: np.dtype[Any]
    sizes: tuple[int, ...]
    encoding: str
    line_skip: int
    byte_skip: int
    data_file: str | None
    data_list: tuple[str, ...]
    data_offset: int | None
    space: str | None
    space_dimension: int | None
    directions: tuple[WorldVector | None, ...] | None
    origin: WorldVector | None
    space_units: tuple[str, ...] | None
    spacings: tuple[float, ...] | None
    axis_mins: tuple[float, ...] | None
    axis_maxs: tuple[float, ...] | None
    units: tuple[str, ...] | None
    kinds: tuple[str, ...] | None
    centers: tuple[str, ...] | None
    labels: tuple[str, ...] | None
    warnings: tuple[str, ...]

    @property
    def count(self) -> int:
        """Number of values."""
        return math.prod(self.sizes)


def is_nrrd(path: str | Path) -> bool:
    """Whether the file begins as every NRRD file does, whatever its name."""
    with open(path, "rb") as file:
        return file.read(4) == b"NRRD"


def read_header(path: str | Path) -> NrrdHeader:
    """Read the header of a NRRD file (.nrrd, .nhdr, .seg.nrrd); its values are not touched.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    header : NrrdHeader

    Raises
    ------
    FormatError
        If the file is not NRRD, or a field is missing, doubled or malformed. Names the field, its value, what was
        expected and what to do.
    OSError
        If the file can't be opened.
    """
    path = Path(path)
    with open(path, "rb") as file:
        text = NrrdText(path, file)
    return _Fields(text).header()


class _Fields:
    """Values of the fields, checked against each other."""

    def __init__(self, text: NrrdText) -> None:
        self.text = text
        self.fields = text.fields
        self.dimension = 0
        self.space_dimension: int | None = None

    def header(self) -> NrrdHeader:
        text = self.text
        self.dimension = self._dimension()
        sizes = self._sizes()
        space = self._space()
        directions = self._directions()
        encoding = self._encoding()
        return NrrdHeader(
            path=text.path,
            magic=text.magic,
            fields=dict(self.fields),
            key_values=text.key_values,
            comments=tuple(text.comments),
            dtype=self._dtype(encoding),
            sizes=sizes,
            encoding=encoding,
            line_skip=self._integer("line skip", 0, least=0),
            byte_skip=self._integer("byte skip", 0, least=-1),
            data_file=self.fields.get("data file"),
            data_list=tuple(text.data_list),
            data_offset=text.data_offset,
            space=space,
            space_dimension=self.space_dimension,
            directions=directions,
            origin=self._origin(),
            space_units=self._space_units(),
            spacings=self._numbers("spacings"),
            axis_mins=self._numbers("axis mins"),
            axis_maxs=self._numbers("axis maxs"),
            units=self._strings("units"),
            kinds=self._words("kinds"),
            centers=self._words("centerings"),
            labels=self._strings("labels"),
            warnings=tuple(text.warnings),
        )

    def refuse(self, name: str, expected: str) -> NoReturn:
        if name in self.fields:
            self.text.refuse(f"field {name!r} must be {expected}, got {self.fields[name][:80]!r}", "correct the header")
        self.text.refuse(f"the header lacks the field {name!r}", f"add it: {expected}")

    def _integer(self, name: str, default: int | None, *, least: int) -> int:
        expected = f"a whole number, {least} or more"
        if name not in self.fields and default is not None:
            return default
        value = self.fields.get(name, "")
        if not re.fullmatch(r"[+-]?\d{1,18}", value) or int(value) < least:
            self.refuse(name, expected)
        return int(value)

    def _dimension(self) -> int:
        dimension = self._integer("dimension", None, least=1)
        if dimension > MAX_DIMENSION:
            self.refuse("dimension", f"a number of axes, 1 to {MAX_DIMENSION}")
        return dimension

    def _sizes(self) -> tuple[int, ...]:
        expected = f"{self.dimension} whole numbers above 0, one per axis as 'dimension' says"
        words = _split(self.fields.get("sizes", ""))
        if len(words) != self.dimension or not all(re.fullmatch(r"\+?\d{1,18}", word) for word in words):
            self.refuse("sizes", expected)
        sizes = tuple(int(word) for word in words)
        if min(sizes) < 1:
            self.refuse("sizes", expected)
        return sizes

    def _encoding(self) -> str:
        name = self.fields.get("encoding", "").lower()
        if name not in ENCODINGS:
            self.refuse("encoding", f"one of {', '.join(sorted(ENCODINGS))}")
        return ENCODINGS[name]

    def _dtype(self, encoding: str) -> np.dtype[Any]:
        name = " ".join(self.fields.get("type", "").lower().split())
        if name == "block":
            self.text.refuse(
                "field 'type' is 'block': values are lumps of bytes that only their writer can interpret",
                "convert them to numbers with the program that wrote the file",
            )
        if name not in TYPES:
            self.refuse("type", "int8 to int64, uint8 to uint64, float or double, or another of NRRD's names for them")
        dtype = np.dtype(TYPES[name])
        endian = self.fields.get("endian", "").lower()
        if endian not in ("", "little", "big") or (not endian and dtype.itemsize > 1 and encoding != "ascii"):
            self.refuse("endian", "little or big (values of more than one byte have an order of bytes)")
        order: Literal["<", ">"] = ">" if endian == "big" else "<"
        return dtype.newbyteorder(order) if dtype.itemsize > 1 and encoding != "ascii" else dtype

    def _space(self) -> str | None:
        stated = self._integer("space dimension", None, least=1) if "space dimension" in self.fields else None
        self.space_dimension = stated
        if "space" not in self.fields:
            return None
        name = self.fields["space"].lower()
        name = SPACE_SHORT.get(name, name)
        if name not in SPACES:
            self.text.warnings.append(f"space {name!r} is not one that NRRD names; it is kept as it is")
        elif stated is not None and stated != SPACES[name]:
            self.refuse("space dimension", f"{SPACES[name]} as 'space' says, or left out")
        self.space_dimension = SPACES.get(name, stated)
        return name

    def _directions(self) -> tuple[WorldVector | None, ...] | None:
        if "space directions" not in self.fields:
            return None
        vectors = self._vectors("space directions")
        lengths = {len(vector) for vector in vectors if vector is not None}
        if len(vectors) != self.dimension or len(lengths) > 1:
            self.refuse("space directions", f"{self.dimension} vectors '(x,y,z)' or 'none', one per axis")
        for length in lengths:
            self._in_space("space directions", length)
        return vectors

    def _origin(self) -> WorldVector | None:
        if "space origin" not in self.fields:
            return None
        vectors = self._vectors("space origin")
        if len(vectors) != 1:
            self.refuse("space origin", "one vector '(x,y,z)'")
        if vectors[0] is not None:
            self._in_space("space origin", len(vectors[0]))
        return vectors[0]

    def _in_space(self, name: str, length: int) -> None:
        if self.space_dimension is None:
            self.text.warnings.append(f"{name!r} is given without 'space'; {length} world axes are taken from it")
            self.space_dimension = length
        elif length != self.space_dimension:
            self.refuse(name, f"of vectors with {self.space_dimension} numbers, as the space has axes")

    def _vectors(self, name: str) -> tuple[WorldVector | None, ...]:
        """Vectors in brackets, None for 'none' and for those that are NaN throughout (as pynrrd writes them)."""
        value = self.fields[name]
        vectors: list[WorldVector | None] = []
        expected = "of vectors '(x,y,z)' of finite numbers, or 'none'"
        if re.sub(r"\([^()]*\)|\bnone\b|\bnan\b|[\s,]", "", value, flags=re.IGNORECASE):
            self.refuse(name, expected)
        for match in re.finditer(r"\(([^()]*)\)|none|nan", value, flags=re.IGNORECASE):
            if match.group(1) is None:
                vectors.append(None)
                continue
            numbers = self._floats(name, _split(match.group(1)), expected)
            if numbers and all(math.isnan(number) for number in numbers):
                vectors.append(None)
            elif numbers and all(math.isfinite(number) for number in numbers):
                vectors.append(numbers)
            else:
                self.refuse(name, expected)
        return tuple(vectors)

    def _floats(self, name: str, words: list[str], expected: str) -> tuple[float, ...]:
        try:
            return tuple(float(word) for word in words)
        except ValueError:
            self.refuse(name, expected)

    def _numbers(self, name: str) -> tuple[float, ...] | None:
        if name not in self.fields:
            return None
        expected = f"{self.dimension} numbers, one per axis ('nan' where it has none)"
        words = ["nan" if word == "???" else word for word in _split(self.fields[name])]
        if len(words) != self.dimension:
            self.refuse(name, expected)
        return self._floats(name, words, expected)

    def _words(self, name: str) -> tuple[str, ...] | None:
        if name not in self.fields:
            return None
        words = tuple(self.fields[name].lower().split())
        if len(words) != self.dimension:
            self.refuse(name, f"{self.dimension} words, one per axis ('none' or '???' where it has none)")
        return words

    def _strings(self, name: str, count: int | None = None) -> tuple[str, ...] | None:
        if name not in self.fields:
            return None
        count = self.dimension if count is None else count
        words = tuple(
            re.sub(r"\\(.)", r"\1", match.group(1)) if match.group(1) is not None else match.group(2)
            for match in re.finditer(r'"((?:[^"\\]|\\.)*)"|(\S+)', self.fields[name])
        )
        if len(words) != count:
            self.refuse(name, f'{count} words in double quotes, one per axis ("" where it has none)')
        return words

    def _space_units(self) -> tuple[str, ...] | None:
        if "space units" in self.fields and self.space_dimension is None:
            self.refuse("space units", "given together with 'space' or 'space dimension'")
        return self._strings("space units", self.space_dimension)


def _split(value: str) -> list[str]:
    """Words between white space or commas, which some writers put between numbers."""
    return [word for word in re.split(r"[,\s]+", value) if word]


def native(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The same type in the byte order of this machine.

    Parameters
    ----------
    dtype : numpy dtype

    Returns
    -------
    dtype : numpy dtype
    """
    return dtype.newbyteorder("=")


def byte_order(dtype: np.dtype[Any]) -> str | None:
    """Name of a type's byte order as NRRD calls it, None for single bytes.

    Parameters
    ----------
    dtype : numpy dtype

    Returns
    -------
    endian : str or None
        "little" or "big".
    """
    if dtype.itemsize == 1:
        return None
    return {"<": "little", ">": "big"}.get(dtype.byteorder, sys.byteorder)
