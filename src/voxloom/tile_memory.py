"""Where a network's numbers lie on a CPU: tiles of several shapes take little more memory than the largest."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from voxloom import heap

LARGE_BYTES = 2**20


class TileMemory:
    """Memory of the tiles that are predicted one after the other.

    The C library of Linux keeps freed memory to use again, since fetching it anew takes a good part of a forward
    pass. But in the first one over a shape, oneDNN compiles and keeps code for that shape: small pieces between the
    large ones, which split what is freed, so that the next shape's pieces don't fit and memory grows with every shape.

    So the large pieces of a shape's first forward pass come from the system and go back there, and what stays lies
    close together. All later ones share the memory that is kept. A pass finds nothing in it, however small, or its
    pieces would not fit where those of the former one were. Call the first ones first (see `tiles.each_shape_first`),
    and hold `apart` what is there before a pass or after it. Elsewhere than on Linux with glibc nothing changes.
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
        heap.join_small_pieces()
        heap.set_option(heap.M_MMAP_THRESHOLD, LARGE_BYTES)
        heap.set_option(heap.M_TRIM_THRESHOLD, heap.NEVER)  # what a tile leaves is the next one's, however much it is
        if tuple(shape) in self._known:
            heap.set_option(heap.M_MMAP_MAX, 0)
        else:
            heap.give_back()
        try:
            yield
        finally:
            heap.set_option(heap.M_MMAP_MAX, heap.MOST_PIECES)
        self._known.add(tuple(shape))


def apart(numbers: Tensor) -> Tensor:
    """A copy in pages of its own, away from all that comes and goes; the same numbers where `heap` changes nothing.

    Parameters
    ----------
    numbers : Tensor
        Not empty.

    Returns
    -------
    copy : Tensor
        Its memory goes back to the system when nothing refers to it.
    """
    if not heap.is_glibc():
        return numbers
    heap.join_small_pieces()  # the copy's own small ones must not be those that lie between large ones
    pages = mmap.mmap(-1, numbers.nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(pages, dtype=numbers.dtype).view(numbers.shape).copy_(numbers)


@contextlib.contextmanager
def tidy_heap() -> Iterator[None]:
    """A context that tiles find all free memory joined in, and after which it is kept as glibc does by itself."""
    heap.join_small_pieces()
    heap.give_back()
    try:
        yield
    finally:
        heap.join_small_pieces()
        heap.keep_freed()
        heap.give_back()
