"""The heap of Linux's C library (glibc), what it does with freed memory; with another library nothing changes."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import platform
import sys
import threading
from collections.abc import Iterator

M_MXFAST, M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = 1, -1, -3, -4, -8  # of malloc.h
KEPT_BYTES = 2**25
"""Where glibc arrives by itself in a process that freed large arrays: smaller pieces are kept to be used again."""

MOST_PIECES = 65536
"""Of their own from the system: what glibc begins with."""

NEVER = -1
"""A threshold."""

SMALL_BYTES = range(24, 265, 16)
"""What the smallest pieces hold, size by size: among them are those that aligning a large piece leaves before it."""

FAST_BYTES = 128
"""Pieces up to which wait to be used again, beside those that threads keep: what glibc begins with."""

_LOCK = threading.RLock()  # the garbage collector may end a context of the thread that is at it
_keepers = 0
_own = threading.local()


def set_option(option: int, value: int) -> None:
    """Change how memory is given out and taken back, from here on in this process.

    Parameters
    ----------
    option : int
        One of the ``M_`` numbers of this module; see ``man mallopt``.
    value : int
    """
    library = _glibc()
    if library is not None:
        library.mallopt(option, value)


def keep_freed() -> None:
    """Keep what is freed, in pieces of up to `KEPT_BYTES`, to use it again, as glibc does by itself."""
    set_option(M_MMAP_THRESHOLD, KEPT_BYTES)
    set_option(M_TRIM_THRESHOLD, 2 * KEPT_BYTES)


@contextlib.contextmanager
def keeping(is_wanted: bool = True) -> Iterator[None]:
    """A context in which all that is freed is kept to be used again; afterwards it goes back, and `keep_freed` holds.

    Memory that is fetched anew must be cleared by the system, which takes a good part of the time of a block. What is
    freed and doesn't fit the next piece stays, too: see `voxloom.budget.KEPT`.

    Parameters
    ----------
    is_wanted : bool
        False leaves things as they are.
    """
    global _keepers
    if not is_wanted:
        yield
        return
    with _LOCK:
        _keepers += 1
        set_option(M_MMAP_MAX, 0)
        set_option(M_TRIM_THRESHOLD, NEVER)
    try:
        yield
    finally:
        with _LOCK:
            _keepers -= 1
            if not _keepers:
                set_option(M_MMAP_MAX, MOST_PIECES)
                keep_freed()
                give_back()


def give_back() -> None:
    """Return to the system what is free."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


def join_small_pieces() -> None:
    """Let small pieces that this thread freed join the free memory beside them.

    A thread keeps the last few pieces of each size to itself. To the heap they are in use, so that one between two
    large free ones keeps these apart, and what fitted there before doesn't fit again. So they are taken, and freed
    while the thread keeps others, which only serve for this.
    """
    library = _glibc()
    if library is None:
        return

    def some() -> dict[int, list[int]]:
        return {size: [library.malloc(size) for _ in range(_kept_of_a_size())] for size in SMALL_BYTES}

    kept = some()
    for pieces in (getattr(_own, "pieces", None) or some(), kept):
        for piece in itertools.chain.from_iterable(pieces.values()):
            library.free(piece)
    library.mallopt(M_MXFAST, FAST_BYTES)  # as it is; but being told joins what waits to be used again
    _own.pieces = some()


@functools.cache
def _kept_of_a_size() -> int:
    """How many freed pieces of each size a thread keeps to itself."""
    version = platform.libc_ver()[1]
    return 7 if [int(part) for part in version.split(".")[:2]] < [2, 42] else 16


def is_glibc() -> bool:
    """Whether this module changes anything here."""
    return _glibc() is not None


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    """The C library, where it is glibc."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if library is None or not hasattr(library, "malloc_trim"):
        return None
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    library.free.restype, library.free.argtypes = None, [ctypes.c_void_p]
    return library
