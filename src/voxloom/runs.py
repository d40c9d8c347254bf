"""Connected objects of a mask as runs along its rows: memory and time of what is foreground, not of all voxels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxloom.kernels import compiled
from voxloom.objects import Labelled, root_of

REACHES = {6: (0, 0, -1), 18: (1, 1, 0), 26: (1, 1, 1)}
"""Connectivity: how far apart along X neighbours may be in the row beside, the one above, and those diagonal to it."""

FULL = np.uint64(0x0101010101010101)


@dataclass(frozen=True)
class Runs:
    """Objects of a mask, each row of which is cut into runs of foreground.

    Parameters
    ----------
    shape : tuple of int
        (Z, Y, X) of the mask.
    firsts : ndarray of int64, shape (Z * Y + 1,)
        For each row the number of its first run.
    starts, ends : ndarray of int64, shape (runs,)
        First voxel, and the one behind the last, counted through the mask in C order.
    labels : ndarray of uint32, shape (runs,)
        Objects are numbered from 1 in the order of their first voxel (C order).
    count : int
        Number of objects.
    """

    shape: tuple[int, ...]
    firsts: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
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
        width = self.shape[2]
        out = np.zeros((last - first) * width, table.dtype)
        part = slice(self.firsts[first], self.firsts[last])
        _draw(self.starts[part], self.ends[part], self.labels[part], first * width, table, out)
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
    depth, height, width = mask.shape
    voxels = np.ascontiguousarray(mask).view(np.uint8).reshape(-1)
    words = voxels[: voxels.size // 8 * 8].view(np.uint64)
    firsts = np.zeros(depth * height + 1, np.int64)
    room = voxels.size // 32 + 1
    while True:
        starts, ends = np.empty(room, np.int64), np.empty(room, np.int64)
        count = _cut(voxels, words, width, firsts, starts, ends)
        if count <= room:
            break
        room = count
    starts, ends = starts[:count], ends[:count]
    labels = np.empty(count, np.uint32)
    objects = _unite(firsts, starts, ends, height, width, REACHES[connectivity], labels)
    return Runs(mask.shape, firsts, starts, ends, labels, int(objects))


@compiled
def _cut(voxels, words, width, firsts, starts, ends):  # type: ignore[no-untyped-def]
    """Find the runs, eight voxels at a time where they are equal; those without room are only counted."""
    n = 0
    for row in range(firsts.size - 1):
        firsts[row] = n
        i, last = row * width, (row + 1) * width
        while i < last:
            if i % 8 == 0 and i + 8 <= last and words[i // 8] == 0:
                i += 8
                continue
            if voxels[i] == 0:
                i += 1
                continue
            start = i
            while i < last:
                if i % 8 == 0 and i + 8 <= last and words[i // 8] == FULL:
                    i += 8
                elif voxels[i] != 0:
                    i += 1
                else:
                    break
            if n < starts.size:
                starts[n], ends[n] = start, i
            n += 1
    firsts[firsts.size - 1] = n
    return n


@compiled
def _unite_rows(firsts, starts, ends, row, other, width, reach, parents):  # type: ignore[no-untyped-def]
    i, j = firsts[row], firsts[other]
    shift = (row - other) * width
    while i < firsts[row + 1] and j < firsts[other + 1]:
        if starts[i] < ends[j] + shift + reach and starts[j] + shift < ends[i] + reach:
            a, b = root_of(parents, i), root_of(parents, j)
            if a < b:
                parents[b] = a
            else:
                parents[a] = b
        if ends[i] < ends[j] + shift:
            i += 1
        else:
            j += 1


@compiled
def _unite(firsts, starts, ends, height, width, reaches, parents):  # type: ignore[no-untyped-def]
    beside, above, diagonal = reaches
    for i in range(parents.size):
        parents[i] = i
    for row in range(firsts.size - 1):
        if firsts[row] == firsts[row + 1]:
            continue
        y = row % height
        if y > 0:
            _unite_rows(firsts, starts, ends, row, row - 1, width, beside, parents)
        if row >= height:
            _unite_rows(firsts, starts, ends, row, row - height, width, above, parents)
            if diagonal >= 0 and y > 0:
                _unite_rows(firsts, starts, ends, row, row - height - 1, width, diagonal, parents)
            if diagonal >= 0 and y + 1 < height:
                _unite_rows(firsts, starts, ends, row, row - height + 1, width, diagonal, parents)
    count = 0
    for i in range(parents.size):  # parents come before their children
        if parents[i] == i:
            count += 1
            parents[i] = count
        else:
            parents[i] = parents[parents[i]]
    return count


@compiled
def _draw(starts, ends, labels, first, table, out):  # type: ignore[no-untyped-def]
    for n in range(starts.size):
        value = table[labels[n]]
        if value != 0:
            for i in range(starts[n] - first, ends[n] - first):
                out[i] = value


@compiled
def _measure(firsts, starts, ends, labels, depth, height, width, has_ends, sizes, border):  # type: ignore[no-untyped-def]
    for row in range(firsts.size - 1):
        z, y = row // height, row % height
        is_outer = (has_ends[0] and z == 0) or (has_ends[1] and z == depth - 1)
        is_outer = is_outer or (height > 1 and (y == 0 or y == height - 1))
        for n in range(firsts[row], firsts[row + 1]):
            sizes[labels[n]] += ends[n] - starts[n]
            if is_outer or (width > 1 and (starts[n] == row * width or ends[n] == (row + 1) * width)):
                border[labels[n]] = True
