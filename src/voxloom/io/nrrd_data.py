"""How the bytes of a NRRD file become numbers: a stream of values in file order, in bounded memory."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import logging
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from isal import igzip, igzip_lib, isal_zlib
from numpy.typing import NDArray

from voxloom.errors import FormatError
from voxloom.io.nrrd_files import Data, skip_lines
from voxloom.io.nrrd_header import native

LOGGER = logging.getLogger("voxloom")
STEP_BYTES = 4 << 20
_DAMAGED: tuple[Any, ...] = (EOFError, gzip.BadGzipFile, igzip_lib.IsalError, zlib.error)


@contextlib.contextmanager
def open_values(data: Data) -> Iterator[ValueStream]:
    """Open the values for reading once, from the first to the last.

    Parameters
    ----------
    data : Data

    Yields
    ------
    stream : ValueStream
    """
    stream = ValueStream(data)
    try:
        yield stream
    finally:
        stream.close()


class ValueStream:
    """All values of a file, or of several, in file order.

    Parameters
    ----------
    data : Data
    """

    def __init__(self, data: Data) -> None:
        self._data = data
        self._waiting = iter(data.files)
        self._file: _FileValues | None = None

    def fill(self, values: NDArray[Any]) -> None:
        """Fill an array with the next values.

        Parameters
        ----------
        values : ndarray, one axis
            Of the header's type in native byte order; written to.

        Raises
        ------
        FormatError
            If the file ends before, or is damaged.
        """
        done = 0
        while done < len(values):
            if self._file is None:
                path = next(self._waiting)
                kind = _AsciiValues if self._data.header.encoding == "ascii" else _ByteValues
                self._file = kind(self._data, path)
                self._file.begin()
            count = min(len(values) - done, self._file.left)
            self._file.fill(values[done : done + count])
            done += count
            if self._file.left == 0:
                self.close()

    def close(self) -> None:
        """Close the file that is open."""
        if self._file is not None:
            self._file.close()
            self._file = None


class _FileValues:
    """The values of one file."""

    def __init__(self, data: Data, path: Path) -> None:
        self.header = data.header
        self.path = path
        self.offset = data.offset
        self.left = data.values_per_file
        self.dtype = native(data.header.dtype)
        self._raw = open(path, "rb")  # noqa: SIM115  closed by close()

    def begin(self) -> None:
        """Go to the first value."""
        skip_lines(self.header, self.path, self._raw, self.offset)

    def fill(self, values: NDArray[Any]) -> None:
        """Fill `values`, at most `left` of them."""
        self._fill(values)
        self.left -= len(values)
        if self.left == 0:
            self._finish()

    def _fill(self, values: NDArray[Any]) -> None:
        raise AssertionError("filled by its kinds")

    def _finish(self) -> None:
        """Check what can only be checked after the last value."""

    def close(self) -> None:
        self._raw.close()

    def damaged(self, what: str) -> FormatError:
        """The error for values that can't be read."""
        return FormatError(
            f"{self.path}: the {self.header.encoding} values can't be read to their end: {what}; the file is damaged "
            "or cut short, copy or download it again"
        )


class _ByteValues(_FileValues):
    """Values whose bytes are stored as they are, compressed, or as hexadecimal digits."""

    def __init__(self, data: Data, path: Path) -> None:
        super().__init__(data, path)
        self._done = 0  # bytes since the beginning of the decoded file
        self._stream: Any = None

    def begin(self) -> None:
        super().begin()
        self._stream = self._open()
        self._skip_bytes(self._start())

    def _open(self) -> Any:
        if self.header.encoding == "gzip":
            return igzip.IGzipFile(fileobj=self._raw)
        if self.header.encoding == "bzip2":
            return bz2.BZ2File(self._raw)
        return _Hex(self._raw) if self.header.encoding == "hex" else self._raw

    def _start(self) -> int:
        """Bytes to skip before the first value."""
        if self.header.byte_skip != -1:
            return self.header.byte_skip
        if self.header.encoding == "raw":
            size = self.path.stat().st_size - self._raw.tell()
        else:  # the length is only known at the end: decode once to count, and begin again
            size = 0
            while count := self._read_into(memoryview(bytearray(STEP_BYTES))):
                size += count
            self._raw.seek(0)
            skip_lines(self.header, self.path, self._raw, self.offset)
            self._done = 0
            self._stream = self._open()
        start = size - self.left * self.header.dtype.itemsize
        if start < 0:
            raise self.damaged(f"it holds {size} bytes, {-start} too few")
        return start

    def _skip_bytes(self, count: int) -> None:
        if self.header.encoding == "raw":
            self._raw.seek(count, io.SEEK_CUR)
            return
        buffer = memoryview(bytearray(min(count, STEP_BYTES)))
        while count:
            skipped = self._read_into(buffer[:count])
            if not skipped:
                raise self.damaged(f"it ends before the {self.header.byte_skip} bytes that 'byte skip' says")
            count -= skipped

    def _fill(self, values: NDArray[Any]) -> None:
        view = memoryview(values.view(np.uint8))  # type: ignore[arg-type]
        position = 0
        while position < len(view):
            count = self._read_into(view[position : position + STEP_BYTES])
            if not count:
                expected = self._data_bytes()
                raise self.damaged(f"it ends after {self._done} bytes of values, expected {expected}")
            position += count
        if self.header.dtype.newbyteorder("=") != self.header.dtype:
            values.byteswap(inplace=True)

    def _data_bytes(self) -> int:
        return max(self.header.byte_skip, 0) + self.header.count * self.header.dtype.itemsize

    def _read_into(self, view: memoryview) -> int:
        try:
            count = self._read_or_go_on(view)
        except _DAMAGED as error:
            raise self.damaged(str(error)) from error
        except (OSError, ValueError) as error:
            if getattr(error, "errno", None) is not None:
                raise
            raise self.damaged(str(error)) from error
        self._done += count
        return count

    def _read_or_go_on(self, view: memoryview) -> int:
        """Read; where gzip data are followed by bytes that aren't gzip, up to these.

        The fast reader looks ahead and gives up on all it holds when it meets them; the other one decodes again up to
        the same byte and goes on member by member.
        """
        try:
            return int(self._stream.readinto(view) or 0)
        except (EOFError, gzip.BadGzipFile) as error:
            is_rubbish = isinstance(error, EOFError) or "Not a gzipped file" in str(error)
            if not isinstance(self._stream, igzip.IGzipFile) or not is_rubbish:
                raise
        self._raw.seek(0)
        skip_lines(self.header, self.path, self._raw, self.offset)
        self._stream = _Members(self._raw)
        buffer = memoryview(bytearray(STEP_BYTES))
        left = self._done
        while left and (count := self._stream.readinto(buffer[:left])):
            left -= count
        return 0 if left else int(self._stream.readinto(view))

    def _finish(self) -> None:
        buffer = memoryview(bytearray(1 << 16))
        more = 0
        while more < STEP_BYTES and (count := self._read_into(buffer)):  # to the checksum that ends compressed data
            more += count
        if more:
            LOGGER.warning("%s: the file holds more values than its sizes say; they are ignored", self.path)


class _AsciiValues(_FileValues):
    """Values written as text between white space or commas."""

    def __init__(self, data: Data, path: Path) -> None:
        super().__init__(data, path)
        self._tail = b""
        self._ready: NDArray[Any] = np.empty(0, self.dtype)

    def begin(self) -> None:
        super().begin()
        self._raw.seek(self.header.byte_skip, io.SEEK_CUR)

    def _fill(self, values: NDArray[Any]) -> None:
        position = 0
        while position < len(values):
            if not len(self._ready):
                self._ready = self._parse(self._words())
            count = min(len(self._ready), len(values) - position)
            values[position : position + count] = self._ready[:count]
            self._ready = self._ready[count:]
            position += count

    def _words(self) -> list[bytes]:
        """Some more words; the last is kept back as long as it may go on."""
        while True:
            text = self._raw.read(1 << 18)
            joined = (self._tail + text).replace(b",", b" ")
            words = joined.split()
            self._tail = b""
            if text and words and not joined[-1:].isspace():
                self._tail = words.pop()
            if words:
                return words
            if not text:
                raise self.damaged("it ends before its last value")
            if len(self._tail) > 1024:
                raise self.damaged(f"{self._tail[:20]!r}... is not a number")

    def _parse(self, words: list[bytes]) -> NDArray[Any]:
        words = words[: self.left]
        convert = float if self.dtype.kind == "f" else int
        try:
            with np.errstate(over="ignore"):  # beyond float32: infinity, as in other readers
                return np.array(list(map(convert, words)), dtype=self.dtype)
        except (ValueError, OverflowError) as error:
            raise self.damaged(f"a value is not of type {self.header.fields['type']!r} ({error})") from error


class _Hex:
    """Bytes written as pairs of hexadecimal digits, with white space anywhere."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._half = b""

    def readinto(self, view: memoryview) -> int:
        while True:
            text = self._raw.read(2 * min(len(view), STEP_BYTES) - len(self._half))
            digits = self._half + text.translate(None, b" \t\r\n\v\f")
            even = len(digits) & ~1
            self._half = digits[even:]
            if even or not text:
                break
        decoded = bytes.fromhex(digits[:even].decode("latin-1"))
        view[: len(decoded)] = decoded
        return len(decoded)


class _Members:
    """Gzip data that end where no further member begins, read member by member; what follows is ignored."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._input = b""
        self._member: Any = isal_zlib.decompressobj(31)

    def readinto(self, view: memoryview) -> int:
        while len(view):
            if self._member.eof:
                self._input = (self._member.unused_data or self._raw.read(1 << 16)).lstrip(b"\0")  # padding of tapes
                if not self._input.startswith(b"\x1f\x8b"):
                    return 0
                self._member = isal_zlib.decompressobj(31)
            elif not self._input:
                self._input = self._raw.read(1 << 16)
                if not self._input:
                    raise EOFError("the compressed data end before their checksum")
            decoded = self._member.decompress(self._input, len(view))
            self._input = self._member.unconsumed_tail
            if decoded:
                view[: len(decoded)] = decoded
                return len(decoded)
        return 0
