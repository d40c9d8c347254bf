"""The heap of Linux's C library (glibc), what it does with freed memory; with another library nothing changes."""

from __future__ import annotations

import ctypes
import functools
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -3, -4, -8  # of malloc.h
KEPT_BYTES = 2**25
"""Where glibc arrives by itself in a process that freed large arrays: smaller pieces are kept to be used again."""


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


def give_back() -> None:
    """Return to the system what is free."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    """The C library, where it is glibc."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return library if library is not None and hasattr(library, "malloc_trim") else None
