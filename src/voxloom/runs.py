"""Connected objects of a mask as runs along its rows: memory and time of what is foreground, not of all voxels."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxloom.bits import lowest, ones, packed
from voxloom.blocks import Roomy, Scratch
from voxloom.kernels import compiled
from voxloom.objects import Labelled, root_of

REACHES = {6: (0, 0, -1), 18: (1, 1, 0), 26: (1, 1, 1)}
"""Connectivity: how far apart along X neighbours may be in the row beside, the one above, and those diagonal to it."""


@dataclass(frozen=True)
class Runs:
    """Objects of a mask, each row of which is cut into runs of foreground.

    Parameters
    ----------
    shape : tuple of int
        (Z, Y, X) of the mask.
    firsts : ndarray of int64, shape (Z * Y + 1,)
        For each row the number of its first run.
    starts, ends : ndarray of uint16 or uint32, shape (runs,)
        First voxel along X, and the one behind the last.
    labels : ndarray of uint32, shape (runs,)
        Objects are numbered from 1 in the order of their first voxel (C order).
    count : int
        Number of objects.
    """

    shape: tuple[int, ...]
    firsts: NDArray[np.int64]
    starts: NDArray[np.uint16] | NDArray[np.uint32]
    ends: NDArray[np.uint16] | NDArray[np.uint32]
    labels: NDArray[np.uint32]
    count: int

    def draw(self, table: NDArray[Any]) -> NDArray[Any]:
        """The mask's voxels with what a table holds for their label, the others 0.

        Parameters
        ----------
        table : ndarray, shape (count + 1,)

        Returns
        -------
        values : ndarray of the table's data type, shape (Z, Y, X)
        """
        return self._rows(table, 0, self.firsts.size - 1).reshape(self.shape)

    def labelled(self, *, shape: tuple[int, ...], first_slice: int) -> Labelled:
        """What is known of the objects, with the labels of the first and the last slice only.

        Parameters
        ----------
        shape : tuple of int
            The whole volume's (Z, Y, X).
        first_slice : int
            Number of this mask's first slice in the volume.

        Returns
        -------
        labelled : Labelled
        """
        sizes, border = np.zeros(self.count + 1, np.int64), np.zeros(self.count + 1, np.bool_)
        depth, height, width = self.shape
        has_ends = (shape[0] > 1 and first_slice == 0, shape[0] > 1 and first_slice + depth == shape[0])
        _measure(self.firsts, self.starts, self.ends, self.labels, depth, height, width, has_ends, sizes, border)
        sizes[0] = depth * height * width - sizes.sum()
        numbers = np.arange(self.count + 1, dtype=np.uint32)
        outer = [self._rows(numbers, first, first + height) for first in (0, (depth - 1) * height)]
        return Labelled(np.stack(outer).reshape(2, height, width), sizes, border)

    def _rows(self, table: NDArray[Any], first: int, last: int) -> NDArray[Any]:
        out = np.zeros((last - first, self.shape[2]), table.dtype)
        _draw(self.firsts[first : last + 1], self.starts, self.ends, self.labels, table, out)
        return out


def find_runs(mask: NDArray[np.bool_] | NDArray[np.uint8], *, connectivity: int) -> Runs:
    """Cut a mask into runs and number its objects.

    Parameters
    ----------
    mask : ndarray of bool or uint8, shape (Z, Y, X)
        Non-zero is foreground. Not modified.
    connectivity : {6, 18, 26}
        Neighbours that make two voxels one object.

    Returns
    -------
    runs : Runs
    """
    _, height, width = mask.shape
    bits = packed(mask, width)
    firsts = np.zeros(bits.shape[0] + 1, np.int64)
    _count(bits, firsts)
    along_x = np.uint16 if width <= np.iinfo(np.uint16).max else np.uint32
    starts, ends, labels = (np.empty(firsts[-1], dtype) for dtype in (along_x, along_x, np.uint32))
    _cut(bits, width, starts, ends)
    objects = _unite(firsts, starts, ends, height, REACHES[connectivity], labels)
    return Runs(mask.shape, firsts, starts, ends, labels, int(objects))


Look = tuple[Runs, Labelled]
"""The runs of a slab, and what is known of its objects."""


class Looks:
    """What was found in slabs by a first pass, for a second one: in memory, and in files where that isn't enough.

    Used in a ``with`` statement, at the end of which the files are removed.

    Parameters
    ----------
    memory_mib : float
        Budget of both passes, in MiB; one part in sixteen is for this, which holds the runs of tissue.
    beside : object
        What the second pass writes. Where it has no place for files (`voxloom.blocks.Roomy`), slabs that don't fit in
        memory are looked at again.
    """

    def __init__(self, memory_mib: float, beside: object) -> None:
        self._left = memory_mib * 2**20 / 16
        self._held: dict[int, Look] = {}
        self._filed: set[int] = set()
        self._beside = beside if isinstance(beside, Roomy) else None
        self._scratch: Scratch | None = None
        self._open = contextlib.ExitStack()
        self._lock = threading.Lock()

    def __enter__(self) -> Looks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def first(self, index: int, find: Callable[[], Look]) -> Look:
        """Look at a slab and keep what is found.

        Parameters
        ----------
        index : int
            Of the slab. Slabs may be looked at by several threads.
        find : callable
            Looks at it.

        Returns
        -------
        look : Look
        """
        runs, slab = find()
        small = runs, slab._replace(labels=np.zeros((0, 0, 0), np.uint32))
        with self._lock:
            fits = _nbytes(small) <= self._left
            if fits:
                self._left -= _nbytes(small)
                self._held[index] = small
            elif self._beside is not None and self._scratch is None:
                self._scratch = self._open.enter_context(self._beside.scratch_arrays("runs"))
        if not fits and self._scratch is not None:
            self._scratch.save(str(index), _as_arrays(small))
            with self._lock:
                self._filed.add(index)
        return runs, slab

    def second(self, index: int, find: Callable[[], Look]) -> Look:
        """What was found in a slab, which is then forgotten.

        Parameters
        ----------
        index, find
            As in `first`; called if nothing was kept.

        Returns
        -------
        look : Look
            The labels of the slab's outer slices may be lacking.
        """
        with self._lock:
            held = self._held.pop(index, None)
            is_filed = index in self._filed
            self._filed.discard(index)
        if held is not None:
            return held
        return _of_arrays(self._scratch.take(str(index))) if is_filed and self._scratch else find()


def _as_arrays(look: Look) -> list[NDArray[Any]]:
    runs, slab = look
    parts = (runs.shape, runs.firsts, runs.starts, runs.ends, runs.labels, runs.count, *slab)
    return [np.asarray(part) for part in parts]


def _of_arrays(arrays: Sequence[NDArray[Any]]) -> Look:
    shape, firsts, starts, ends, labels, count, *slab = arrays
    z, y, x = shape.tolist()
    return Runs((z, y, x), firsts, starts, ends, labels, int(count)), Labelled(*slab)


def _nbytes(look: Look) -> int:
    runs, slab = look
    arrays = (runs.firsts, runs.starts, runs.ends, runs.labels, slab.sizes, slab.touches_border)
    return sum(array.nbytes for array in arrays)


@compiled
def _count(bits, firsts):  # type: ignore[no-untyped-def]
    """For each row the number of its first run: there begin as many as there are bits behind an empty one."""
    n = 0
    for row in range(bits.shape[0]):
        before = np.uint64(0)
        for k in range(bits.shape[1]):
            word = bits[row, k]
            n += ones(word & ~((word << np.uint64(1)) | before))
            before = word >> np.uint64(63)
        firsts[row + 1] = n


@compiled
def _cut(bits, width, starts, ends):  # type: ignore[no-untyped-def]
    """Where runs begin and end: at bits that differ from the one before them, in turn."""
    n, is_inside = 0, False
    for row in range(bits.shape[0]):
        before = np.uint64(0)
        for k in range(bits.shape[1]):
            word = bits[row, k]
            changes = word ^ ((word << np.uint64(1)) | before)
            before = word >> np.uint64(63)
            while changes != 0:
                x = 64 * k + lowest(changes)
                changes &= changes - np.uint64(1)
                if is_inside:
                    ends[n] = x
                    n += 1
                else:
                    starts[n] = x
                is_inside = not is_inside
        if is_inside:  # up to the row's end
            ends[n] = width
            n += 1
            is_inside = False


@compiled
def _unite_rows(firsts, starts, ends, row, other, reach, parents):  # type: ignore[no-untyped-def]
    i, j = firsts[row], firsts[other]
    last_i, last_j = firsts[row + 1], firsts[other + 1]
    while i < last_i and j < last_j:
        is_neighbour = (starts[i] < ends[j] + reach) & (starts[j] < ends[i] + reach)
        if is_neighbour & (parents[i] != parents[j]):
            a, b = root_of(parents, i), root_of(parents, j)
            if a < b:
                parents[b] = a
            else:
                parents[a] = b
        is_first = ends[i] < ends[j]
        i += is_first
        j += not is_first


@compiled
def _unite(firsts, starts, ends, height, reaches, parents):  # type: ignore[no-untyped-def]
    beside, above, diagonal = reaches
    for i in range(parents.size):
        parents[i] = i
    for row in range(firsts.size - 1):
        if firsts[row] == firsts[row + 1]:
            continue
        y = row % height
        if y > 0:
            _unite_rows(firsts, starts, ends, row, row - 1, beside, parents)
        if row >= height:
            _unite_rows(firsts, starts, ends, row, row - height, above, parents)
            if diagonal >= 0 and y > 0:
                _unite_rows(firsts, starts, ends, row, row - height - 1, diagonal, parents)
            if diagonal >= 0 and y + 1 < height:
                _unite_rows(firsts, starts, ends, row, row - height + 1, diagonal, parents)
    count = 0
    for i in range(parents.size):  # parents come before their children
        if parents[i] == i:
            count += 1
            parents[i] = count
        else:
            parents[i] = parents[parents[i]]
    return count


@compiled
def _draw(firsts, starts, ends, labels, table, out):  # type: ignore[no-untyped-def]
    for row in range(firsts.size - 1):
        for n in range(firsts[row], firsts[row + 1]):
            value = table[labels[n]]
            if value != 0:
                out[row, starts[n] : ends[n]] = value


@compiled
def _measure(firsts, starts, ends, labels, depth, height, width, has_ends, sizes, border):  # type: ignore[no-untyped-def]
    for row in range(firsts.size - 1):
        z, y = row // height, row % height
        is_outer = (has_ends[0] and z == 0) or (has_ends[1] and z == depth - 1)
        is_outer = is_outer or (height > 1 and (y == 0 or y == height - 1))
        for n in range(firsts[row], firsts[row + 1]):
            sizes[labels[n]] += np.int64(ends[n]) - np.int64(starts[n])
            if is_outer or (width > 1 and (starts[n] == 0 or ends[n] == width)):
                border[labels[n]] = True
