"""Files that appear whole or not at all, and their checksums."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import io
import logging
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxloom.errors import VolumeError
from voxloom.faults import disk_errors_told

if TYPE_CHECKING:
    from pandas import DataFrame

WORK = "resume"
"""In a folder that is being written: what a later run needs to go on; removed when the folder is complete."""

SCRATCH = ".scratch-"
"""Begins the names of what is removed when a process that was killed is followed by another."""

KEY = "key"
WAIT_S = 60.0
"""How long a process waits for another one that writes the same folder, such as a job whose workflow was killed."""

LOGGER = logging.getLogger("voxloom")


@contextlib.contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it into place when the block ends well, remove it when it doesn't.

    Parameters
    ----------
    path : str or Path
        The file to write. Its folder is made.

    Yields
    ------
    temporary : Path
        Where to write; keeps the suffix of `path`.
    """
    path = Path(path)
    with _beside(path) as temporary:
        yield temporary
        os.replace(temporary, path)


def save_table(table: DataFrame, path: str | Path) -> None:
    """Write a table as CSV, without its index; the file appears whole or not at all.

    Parameters
    ----------
    table : DataFrame
    path : str or Path
    """
    with atomic_file(path) as temporary:
        table.to_csv(temporary, index=False)


@contextlib.contextmanager
def atomic_directory(path: str | Path, *, resume: str | None = None) -> Iterator[Path]:
    """Give a temporary folder beside `path`; rename it into place when the block ends well, remove it when it doesn't.

    Parameters
    ----------
    path : str or Path
        The folder to write; one that is there already is replaced.
    resume : str, optional
        From `voxloom.io.resume.resume_key`. With it the folder is found again as it was left by a run of the same key
        that was killed or failed; what a run of another key left is removed.

    Yields
    ------
    temporary : Path
        An empty folder; with `resume` it has a folder `WORK` for what is needed to go on, and whatever was left.

    Raises
    ------
    VolumeError
        If another process is at work on the same folder, and doesn't end within `WAIT_S`.
    """
    path = Path(path)
    with _beside(path, resume) as temporary, contextlib.ExitStack() as held:
        if resume is None:
            temporary.mkdir()
        else:
            held.enter_context(_taken_up(temporary, resume))
        yield temporary
        finished = temporary.with_name(temporary.name + ".done")
        if resume is not None:
            os.replace(temporary / WORK, finished)
        if path.is_symlink() or path.is_file():
            path.unlink()
        former = temporary.with_name(temporary.name + ".former")
        if path.exists():  # moved and not removed, which takes long: who reads it meanwhile must not find half of it
            os.replace(path, former)
        os.replace(temporary, path)
        _remove(former)
        _remove(finished)


@contextlib.contextmanager
def _beside(path: Path, resume: str | None = None) -> Iterator[Path]:
    owner = resume[:16] if resume else f"{os.uname().nodename}-{os.getpid()}"
    temporary = path.with_name(f".{path.name}.tmp-{owner}{''.join(path.suffixes[-2:])}")
    try:
        with disk_errors_told(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            for left in path.parent.glob(f".{path.name}.tmp-*"):  # of a run that was killed
                if left != temporary:
                    _remove(left)
            yield temporary
    finally:
        if resume is None:
            with contextlib.suppress(OSError):  # the next run removes it
                _remove(temporary)


@contextlib.contextmanager
def _taken_up(folder: Path, key: str) -> Iterator[None]:
    """Go on with a folder of the same key, or begin it anew; no other process can do so meanwhile."""
    file = folder / WORK / KEY
    if not file.is_file() or file.read_text() != key:
        _remove(folder)
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(file) as written:  # another process of this key reads all of it, or begins anew as well
            written.write_text(key)
    with open(file) as held:
        _lock(held.fileno(), folder)
        if not file.is_file() or not os.path.samestat(os.fstat(held.fileno()), file.stat()):
            raise VolumeError(
                f"another process completed {folder} meanwhile, or began it anew; run this again if it is still needed"
            )
        for left in folder.rglob("*.__lock"):  # of a writer that was killed
            left.unlink()
        for left in (folder / WORK).glob(f"{SCRATCH}*"):  # likewise
            _remove(left)
        try:
            yield
        finally:
            if not _holds_work(folder):
                _remove(folder)


def _lock(file: int, folder: Path) -> None:
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise VolumeError(
                    f"another process is at work on {folder}, perhaps a job of a workflow that was killed; end it, or "
                    "wait until it has ended, and run this again"
                ) from None
            time.sleep(0.2)
        except OSError as error:  # a disk without locks
            LOGGER.warning("%s can't be locked (%s): make sure that no other process writes it", folder, error.strerror)
            return


def _holds_work(folder: Path) -> bool:
    return any(path.is_file() and path.name not in (KEY, "zarr.json") for path in folder.rglob("*"))


def _remove(path: Path) -> None:
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    for is_last in (False, False, True):
        try:
            shutil.rmtree(path)
            return
        except OSError as error:  # another process removes it too, or still writes
            if not path.exists():
                return
            if is_last or error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
                raise


class SafeFile(io.RawIOBase):
    """A new file for libraries that crash, or lose the reason, when a disk is full.

    After the first write that fails they are told that all is well, and what they write is thrown away; `check`, and
    leaving the context, raise the error.

    Parameters
    ----------
    path : str or Path
        Written anew.
    """

    def __init__(self, path: str | Path) -> None:
        self._file = open(path, "w+b", buffering=0)  # noqa: SIM115  closed by close()
        self._error: OSError | None = None

    def check(self) -> None:
        """Raise the error of the first write that failed."""
        if self._error is not None:
            raise self._error

    def __exit__(self, *reason: Any) -> None:
        super().__exit__(*reason)
        self.check()

    def write(self, data: Any) -> int:
        """Write, or throw away."""
        data = memoryview(data).cast("B")
        written = 0
        while written < len(data) and self._error is None:
            try:
                written += self._file.write(data[written:])
            except OSError as error:
                self._error = error
        self._file.seek(len(data) - written, os.SEEK_CUR)
        return len(data)

    def readinto(self, buffer: Any) -> int:
        """Read what was written."""
        return self._file.readinto(buffer)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a position."""
        return self._file.seek(offset, whence)

    def truncate(self, size: int | None = None, /) -> int:
        """Cut or lengthen the file, where writing hasn't failed."""
        at = self.tell() if size is None else size
        return at if self._error is not None else self._file.truncate(at)

    def readable(self) -> bool:
        """It is."""
        return True

    def writable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


def link_or_copy(source: Path, target: Path) -> None:
    """Have a file under a second name without its bytes twice, where the disk can do that; else as a copy.

    Parameters
    ----------
    source, target : Path
        A `target` that exists is replaced.
    """
    target.unlink(missing_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    digest : str
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
