"""Checksums of whole folders, file by file, in lists that `sha256sum` reads; streamed, so that memory stays bounded."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from voxloom.errors import FormatError
from voxloom.io.files import atomic_file, sha256

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Checksum:
    """A line of a list of checksums.

    Parameters
    ----------
    name : str
        Of the file, from the list's folder, with "/".
    sha256 : str
        64 hexadecimal digits.
    """

    name: str
    sha256: str

    def __str__(self) -> str:
        """As ``sha256sum`` writes it."""
        return f"{self.sha256}  {self.name}\n"


@dataclass(frozen=True)
class Difference:
    """A file that is not as a list says.

    Parameters
    ----------
    what : str
        "differs", "missing" or "surplus".
    name : str
    """

    what: str
    name: str


def files_below(folder: str | Path, *, leave_out: Iterable[str] = ()) -> Iterator[str]:
    """Names of all files of a folder and of those in it, in the order of their bytes (``LC_ALL=C sort``).

    Parameters
    ----------
    folder : str or Path
    leave_out : iterable of str
        Names, from the folder, of files and folders that don't count.

    Yields
    ------
    name : str
        From the folder, with "/". Hidden files and folders don't count: Snakemake's time stamps, work of interrupted
        jobs; nor do links that lead nowhere, pipes and the like. What a link leads to does: a cache hands out links.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("a.b", "a/x", ".hidden"):
    ...     (folder / name).parent.mkdir(exist_ok=True)
    ...     _ = (folder / name).write_text("")
    >>> list(files_below(folder))
    ['a.b', 'a/x']
    """
    return _files_below(Path(folder), "", frozenset(leave_out))


def _files_below(folder: Path, prefix: str, leave_out: frozenset[str]) -> Iterator[str]:
    with os.scandir(folder) as entries:
        shown = [entry for entry in entries if not entry.name.startswith(".")]
        names = sorted(e.name + "/" * e.is_dir() for e in shown if e.is_dir() or e.is_file())
    for name in names:
        path = prefix + name
        if path.rstrip("/") in leave_out:
            continue
        if name.endswith("/"):
            yield from _files_below(folder / name, path, leave_out)
        else:
            yield path


def checksums(
    folder: str | Path, names: Iterable[str], *, threads: int = 1, known: Known | None = None
) -> Iterator[Checksum]:
    """Checksums of files.

    Parameters
    ----------
    folder : str or Path
    names : iterable of str
        From the folder.
    threads : int
        Files read at a time.
    known : Known, optional
        What needn't be read again.

    Yields
    ------
    checksum : Checksum
        In the order of `names`.
    """
    folder = Path(folder)
    asked = ((name, known.look_up(folder / name, name) if known else None) for name in names)
    for line in _in_order(asked, lambda ask: Checksum(ask[0], ask[1] or sha256(folder / ask[0])), threads):
        if known:
            known.note(line)
        yield line


def _in_order(items: Iterable[Item], work: Callable[[Item], Result], threads: int) -> Iterator[Result]:
    """Results of items that are worked on side by side, a few ahead of the one that is handed out."""
    waiting: collections.deque[Future[Result]] = collections.deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > 4 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def tree_sha256(folder: str | Path) -> str:
    """Checksum of a folder's contents, whenever and wherever they were written.

    Parameters
    ----------
    folder : str or Path

    Returns
    -------
    digest : str
        That of the list of its files, see `tree_of`.
    """
    return tree_of(checksums(folder, files_below(folder)))


def tree_of(listed: Iterable[Checksum]) -> str:
    """Checksum of a folder, from those of its files.

    Parameters
    ----------
    listed : iterable of Checksum
        Names from that folder, sorted.

    Returns
    -------
    digest : str
        SHA-256 of the lines, each of which ends in a line break.
    """
    digest = hashlib.sha256()
    for line in listed:
        digest.update(str(line).encode(errors="surrogateescape"))
    return digest.hexdigest()


def read_list(path: str | Path) -> Iterator[Checksum]:
    """Read a list of checksums, line by line.

    Parameters
    ----------
    path : str or Path

    Yields
    ------
    checksum : Checksum

    Raises
    ------
    FormatError
        If a line isn't one of such a list, leads out of the folder, or is out of order.
    """
    before = ""
    with _opened(path) as lines:
        for number, line in enumerate(lines, 1):
            digest, _, name = line.rstrip("\n").partition("  ")
            is_outside = name.startswith("/") or ".." in name.split("/")
            if len(digest) != 64 or is_outside or name <= before:
                raise FormatError(
                    f"{path} line {number}: expected a checksum, two blanks and the name of a file below the folder, "
                    "sorted; the list was edited or cut short, so have it written again"
                )
            before = name
            yield Checksum(name, digest)


def write_list(path: str | Path, listed: Iterable[Checksum]) -> Iterator[Checksum]:
    """Write a list of checksums while it is made.

    Parameters
    ----------
    path : str or Path
        Appears when the list is complete.
    listed : iterable of Checksum

    Yields
    ------
    checksum : Checksum
        Each of `listed`.

    Raises
    ------
    FormatError
        If a name has a line break or isn't UTF-8, which no line can hold.
    """
    with atomic_file(path) as temporary, _opened(temporary, "w") as file:
        for line in listed:
            if len(line.name.splitlines()) != 1 or not _is_utf8(line.name):
                raise FormatError(
                    f"the name {line.name!r} has a line break or isn't UTF-8; rename that file, or move it elsewhere"
                )
            file.write(str(line))
            yield line


def _is_utf8(name: str) -> bool:
    return not any("\ud800" <= sign <= "\udfff" for sign in name)


def compare(
    folder: str | Path, listed: Iterable[Checksum], names: Iterable[str], *, threads: int = 1
) -> Iterator[Difference | None]:
    """Compare the files of a folder with a list.

    Parameters
    ----------
    folder : str or Path
    listed : iterable of Checksum
        Sorted by name.
    names : iterable of str
        Files of the folder, sorted.
    threads : int
        Files read at a time.

    Yields
    ------
    difference : Difference or None
        Of every file that is listed or there, sorted by name; None of one that is as it should be.
    """
    folder = Path(folder)

    def judge(pair: tuple[Checksum | None, str | None]) -> Difference | None:
        line, name = pair
        if line is None:
            assert name is not None
            return Difference("surplus", name)
        if name is None:
            return Difference("missing", line.name)
        return None if sha256(folder / name) == line.sha256 else Difference("differs", name)

    return _in_order(_side_by_side(listed, names), judge, threads)


def _side_by_side(listed: Iterable[Checksum], names: Iterable[str]) -> Iterator[tuple[Checksum | None, str | None]]:
    """Pairs of a line and the file of its name; None where one of the two is not there."""
    lines, present = iter(listed), iter(names)
    line, name = next(lines, None), next(present, None)
    while line is not None or name is not None:
        if name is None or (line is not None and line.name < name):
            yield line, None
            line = next(lines, None)
        elif line is None or name < line.name:
            yield None, name
            name = next(present, None)
        else:
            yield line, name
            line, name = next(lines, None), next(present, None)


class Known:
    """Checksums of files that have the size, time and number on the disk that they had when they were read before.

    Stores are written once, so that a page that is made anew has nobody read them again. Files are asked for in the
    order of their names, and what was found is noted in the same order.
    """

    def __init__(self, before: Iterator[tuple[str, str, str]], now: IO[str]) -> None:
        self._before = before
        self._line = ("", "", "")
        self._now = now
        self._stamps: collections.deque[str] = collections.deque()

    @classmethod
    @contextlib.contextmanager
    def kept_in(cls, path: Path) -> Iterator[Known]:
        """What the last run kept in a file; replaced, when the block ends well, by what was noted.

        Parameters
        ----------
        path : Path
            Nothing is known where it isn't there.

        Yields
        ------
        known : Known
        """
        with contextlib.ExitStack() as opened:
            before = opened.enter_context(_opened(path)) if path.is_file() else io.StringIO()
            temporary = opened.enter_context(atomic_file(path))
            yield cls(_stamped(before), opened.enter_context(_opened(temporary, "w")))

    def look_up(self, path: Path, name: str) -> str | None:
        """The checksum of a file that is as it was; None where it must be read."""
        status = path.stat()
        stamp = f"{status.st_size}/{status.st_mtime_ns}/{status.st_ino}"
        self._stamps.append(stamp)
        while self._line[0] < name:
            self._line = next(self._before, ("\U0010ffff", "", ""))
        return self._line[2] if self._line[:2] == (name, stamp) else None

    def note(self, line: Checksum) -> None:
        """Keep the checksum of the file that was asked for first and isn't noted yet."""
        self._now.write(f"{line.sha256} {self._stamps.popleft()} {line.name}\n")


def _stamped(lines: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    for line in lines:
        digest, stamp, name = line.rstrip("\n").split(" ", 2)
        yield name, stamp, digest


def _opened(path: str | Path, mode: str = "r") -> IO[str]:
    """A text file of names, which on Linux may be any bytes."""
    return open(path, mode, encoding="utf-8", errors="surrogateescape")
