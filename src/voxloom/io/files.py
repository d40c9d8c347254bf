"""Files that appear whole or not at all, and their checksums."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


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


@contextlib.contextmanager
def atomic_directory(path: str | Path) -> Iterator[Path]:
    """Give a temporary folder beside `path`; rename it into place when the block ends well, remove it when it doesn't.

    Parameters
    ----------
    path : str or Path
        The folder to write; one that is there already is replaced.

    Yields
    ------
    temporary : Path
        An empty folder.
    """
    path = Path(path)
    with _beside(path) as temporary:
        temporary.mkdir()
        yield temporary
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{path.name}.tmp-*"):  # of a run that was killed
        _remove(left)
    suffix = "".join(path.suffixes[-2:])
    temporary = path.with_name(f".{path.name}.tmp-{os.uname().nodename}-{os.getpid()}{suffix}")
    try:
        yield temporary
    finally:
        _remove(temporary)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


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
