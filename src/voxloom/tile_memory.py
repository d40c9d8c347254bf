"""Where a network's numbers lie on a CPU: tiles of several shapes take no more memory than the largest of them."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator, Sequence

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # of malloc.h
LARGE_BYTES = 2**20
MOST_PIECES, KEPT_BYTES = 65536, 2**25
"""What glibc begins with, and where it arrives by itself in a process that freed large arrays."""


class TileMemory:
    """Memory of the tiles that are predicted one after the other.

    The C library of Linux keeps freed memory to use again, since fetching it anew takes about a tenth of a forward
    pass. But in the first one over a shape, oneDNN compiles and keeps code for that shape: small pieces between the
    large ones, which split what is freed, so that the next shape's pieces don't fit and memory grows with every shape.

    So the large pieces of a shape's first forward pass come from the system and go back there, and what stays lies
    close together. All later ones share the memory that is kept, without anything between. Call the first ones first
    (see `tiles.each_shape_first`). Elsewhere than on Linux with glibc nothing changes.
    """

    def __init__(self) -> None:
        self._known: set[tuple[int, ...]] = set()

    @contextlib.contextmanager
    def of_forward_pass(self, shape: Sequence[int]) -> Iterator[None]:
        """A context for one forward pass.

        Parameters
        ----------
        shape : sequence of int
            Of the batch.
        """
        _set(M_MMAP_THRESHOLD, LARGE_BYTES)
        _set(M_TRIM_THRESHOLD, 2**31 - 1)  # what a tile leaves is the next one's, however much it is
        if tuple(shape) in self._known:
            _set(M_MMAP_MAX, 0)
        else:
            give_back()
        try:
            yield
        finally:
            _set(M_MMAP_MAX, MOST_PIECES)  # images and results live longer than a tile: not among its pieces
        self._known.add(tuple(shape))


@contextlib.contextmanager
def returned_afterwards() -> Iterator[None]:
    """A context after which memory that tiles left is the system's again, and is kept as glibc does by itself."""
    try:
        yield
    finally:
        _set(M_MMAP_THRESHOLD, KEPT_BYTES)
        _set(M_TRIM_THRESHOLD, 2 * KEPT_BYTES)
        give_back()


def give_back() -> None:
    """Return to the system what is free."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


def _set(parameter: int, value: int) -> None:
    library = _glibc()
    if library is not None:
        library.mallopt(parameter, value)


def _glibc() -> ctypes.CDLL | None:
    """The C library, where it is glibc."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return library if library is not None and hasattr(library, "malloc_trim") else None
