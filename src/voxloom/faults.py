"""What a disk does to a job (full, read-only, closed, a file gone) and damaged files: told with file and mend."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import struct
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from voxloom.errors import DiskError, FormatError, VoxloomError

AGAIN = "then run the same command again: what is finished stays, nothing half-written is taken for finished"

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM)
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)
_TOLD = (*_FULL, errno.EROFS, *_FORBIDDEN, *_GONE, errno.EIO, errno.EMFILE, errno.ENFILE, errno.EISDIR)

_SENSELESS = (
    ArithmeticError, AttributeError, EOFError, LookupError, RuntimeError, SyntaxError, TypeError, ValueError,
    struct.error, zlib.error,
)  # fmt: skip
"""What decoders raise that were not written for files which lie."""

_NUMBER = re.compile(r"os_error_code='(\d+)'|\(os error (\d+)\)")
"""How tensorstore and safetensors say which error of the system was behind theirs."""

_NAME = re.compile(r'"(/[^"]+)"')


@contextlib.contextmanager
def disk_errors_told(path: str | Path | None = None) -> Iterator[None]:
    """Turn what a disk refuses, in whatever words a library says it, into a `DiskError`.

    Parameters
    ----------
    path : str or Path, optional
        What is read or written, for errors that don't say which file they are about.

    Raises
    ------
    DiskError
        Instead of the error that came; every other error passes.
    """
    try:
        yield
    except Exception as error:
        told = disk_error(error, path)
        if told is None:
            raise
        raise told from error


@contextlib.contextmanager
def damage_told(path: str | Path) -> Iterator[None]:
    """Turn what a library raises over bytes that make no sense to it into a `FormatError`, with the file's name.

    Parameters
    ----------
    path : str or Path
        What is read.

    Raises
    ------
    FormatError
        Its cause is the library's error. Errors of ours and of the system pass.
    """
    try:
        yield
    except VoxloomError:
        raise
    except _SENSELESS as error:
        raise FormatError(
            f"{path} can't be read ({error!r}); it is damaged, or not what its suffix says: copy it again"
        ) from error


def disk_error(error: BaseException, path: str | Path | None = None) -> DiskError | None:
    """Say what the disk refused and what to do.

    Parameters
    ----------
    error : exception
        Of the system, of a library that passes its number on, or one of ours that was raised because of such a one.
    path : str or Path, optional
        What is read or written, where the error doesn't name a file.

    Returns
    -------
    told : DiskError or None
        None where no disk is to blame, or it is told already.
    """
    if isinstance(error, DiskError):
        return None
    behind = error.__context__ if isinstance(error, VoxloomError) else error
    number = _number(behind)
    if number not in _TOLD:
        return None
    named = getattr(behind, "filename", None) or next(iter(_NAME.findall(str(behind))), None)
    named = path if named is None else named
    told = DiskError(_message(number, None if named is None else Path(os.fsdecode(named))))
    told.errno = number
    return told


def _number(error: BaseException | None) -> int | None:
    if isinstance(error, OSError):
        return error.errno
    found = _NUMBER.search(str(error))
    return int(found[1] or found[2]) if found else None


def _message(number: int, path: Path | None) -> str:
    if number in _FULL:
        return _full(number, path)
    what = path or "a file"
    if number == errno.EROFS:
        return (
            f"{what} can't be written: its disk is mounted read-only; have it mounted for writing, or run in a folder "
            f"of another disk, {AGAIN}"
        )
    if number in _FORBIDDEN:
        return f"{what} is closed to user {os.geteuid()}{_owner(path)}; give this user the right, {AGAIN}"
    if number in _GONE:
        return (
            f"{what} isn't there, or was moved or removed while it was read; put it back (a result is made again by "
            f"itself), {AGAIN}"
        )
    if number in (errno.EMFILE, errno.ENFILE):
        return f"{what} can't be opened: too many files are open; raise the limit (ulimit -n 4096), {AGAIN}"
    if number == errno.EISDIR:
        return f"{what} is a folder, expected a file; remove or rename it, {AGAIN}"
    return f"{what} can't be read or written: its disk reports a fault ({os.strerror(number)}); mend it, {AGAIN}"


def _full(number: int, path: Path | None) -> str:
    anywhere = [Path.cwd(), Path("results").resolve(), Path(tempfile.gettempdir())]  # which may be disks of their own
    places = [_place(path)] if path else list(dict.fromkeys(map(_place, anywhere)))
    left = "; ".join(f"{place} has {shutil.disk_usage(place).free >> 20} MiB left" for place in places)
    why = {errno.EDQUOT: "the user's quota is used up", errno.EFBIG: "files may not be that long there"}
    said = why.get(number, "no space is left on the disk")
    return (
        f"{path or 'a file'} can't be written: {said} ({left}; `voxloom plan` says what a run takes); make room, or "
        f"move the folder to a larger disk, {AGAIN}"
    )


def _place(path: Path) -> Path:
    """The path, or the folder above it that is there, as far as one may look."""
    with contextlib.suppress(PermissionError):
        while not path.exists():
            path = path.parent
    return path


def _owner(path: Path | None) -> str:
    """Whose it is, or the folder in which it would be, as far as one may look."""
    if path is None:
        return ""
    try:
        status = (place := _place(path)).stat()
    except OSError:
        return ""
    return f" ({place} belongs to user {status.st_uid}, mode {status.st_mode & 0o7777:o})"
