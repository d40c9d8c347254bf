"""Coarser levels of a volume: made of what is being written, while it is in memory, and of the rest at the end."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from voxloom.volume import Vector

COARSEST = 256
"""Voxels an axis in which a volume fits that needs no coarser level."""

PENDING_BYTES = 2**26
"""Of reduced voxels that wait for the rest of their shard; what is more is read again at the end."""

Slices = tuple[slice, ...]
Shard = tuple[int, ...]


@dataclass(frozen=True)
class Level:
    """One coarser level.

    Parameters
    ----------
    shape : tuple of int
        ([C,] Z, Y, X).
    step : tuple of int
        Voxels ([C,] Z, Y, X) of the next finer level that one voxel stands for.
    factor : tuple of int
        Voxels (Z, Y, X) of the full size.
    """

    shape: tuple[int, ...]
    step: tuple[int, ...]
    factor: tuple[int, int, int]


def levels_of(shape: Sequence[int], spacing_um: Vector) -> list[Level]:
    """The levels of a pyramid: each of half the size along the axes that are finest, until the volume is small.

    Parameters
    ----------
    shape : sequence of int
        ([C,] Z, Y, X) of the full size.
    spacing_um : tuple of float
        Voxel edge lengths (Z, Y, X).

    Returns
    -------
    levels : list of Level
        Without the full size.
    """
    lead, size, factor = tuple(shape[:-3]), tuple(shape[-3:]), (1, 1, 1)
    found = []
    while max(size) > COARSEST:
        spacing = [s * f for s, f in zip(spacing_um, factor, strict=True)]
        # halve only the axes that are finer than the others, so that voxels become isotropic on the way
        finest = min(s for s, n in zip(spacing, size, strict=True) if n > 1)
        step = [2 if s < 1.5 * finest and n > 1 else 1 for s, n in zip(spacing, size, strict=True)]
        size = tuple(-(-n // k) for n, k in zip(size, step, strict=True))
        factor = tuple(f * k for f, k in zip(factor, step, strict=True))  # type: ignore[assignment]
        found.append(Level((*lead, *size), (*[1] * len(lead), *step), factor))
    return found


class Array(Protocol):
    """A level, as `voxloom.io.store.VolumeWriter` has it."""

    shape: tuple[int, ...]
    shard_shape: tuple[int, ...]

    def __getitem__(self, index: Any) -> NDArray[Any]: ...

    def __setitem__(self, index: Any, values: NDArray[Any]) -> None: ...

    def is_done(self, core: Slices) -> bool:
        """Whether a box was written before."""

    def mark_done(self, core: Slices) -> None:
        """Note that a box is written."""


class Pyramid:
    """The coarser levels of a volume that is being written.

    Reading a volume again takes as long as writing it, so every box is reduced when it is written, and a coarser shard
    is written when all of it is there. What came in odd pieces, twice, from another run or from another job, or would
    have waited in more than `PENDING_BYTES`, is read again by `finish`.

    Parameters
    ----------
    full : Array
    levels : sequence of Level
    method : {"mean", "max", "annotation", "nearest"}
        See `reduced`.
    begin : callable
        Creates the array of a level, by its number from 1.
    """

    def __init__(self, full: Array, levels: Sequence[Level], *, method: str, begin: Callable[[int], Array]) -> None:
        self.levels, self.method, self._begin = levels, method, begin
        self._arrays: dict[int, Array] = {0: full}
        self._pending: dict[tuple[int, Shard], list[tuple[Slices, NDArray[Any]]]] = {}
        self._pending_bytes = 0
        self._whole: list[tuple[int, Slices, list[tuple[Slices, NDArray[Any]]]]] = []
        self._made: set[tuple[int, Shard]] = set()
        self._spoilt: set[tuple[int, Shard]] = set()
        self._lock = threading.Lock()

    def take(self, box: Slices | None, values: NDArray[Any]) -> None:
        """Reduce what was written to the full size; `write` writes it. Both are safe to call from several threads.

        Parameters
        ----------
        box : tuple of slice or None
            Where ([C,] Z, Y, X), step 1; None if it isn't a box.
        values : ndarray
        """
        if self.levels and box is None:
            self._spoil(1, tuple(slice(0, n) for n in self._arrays[0].shape))
        elif self.levels:
            self._take(1, box, values)  # type: ignore[arg-type]

    def write(self) -> None:
        """Write the shards that are whole by now."""
        while True:
            with self._lock:
                if not self._whole:
                    return
                number, whole, pieces = self._whole.pop()
            joined = np.empty([b.stop - b.start for b in whole], pieces[0][1].dtype)
            for at, each in pieces:
                joined[tuple(slice(a.start - b.start, a.stop - b.start) for a, b in zip(at, whole, strict=True))] = each
            coarser = self._array(number)
            if not coarser.is_done(whole):  # by a run that was interrupted before it noted the finer box
                coarser[whole] = joined
                coarser.mark_done(whole)
            self._take(number + 1, whole, joined)

    def finish(self) -> None:
        """Write what is left, and make what is missing."""
        self.write()
        self._pending.clear()
        for number, level in enumerate(self.levels, start=1):
            finer, coarser = self._array(number - 1), self._array(number)
            for shard in itertools.product(
                *(range(-(-n // s)) for n, s in zip(coarser.shape, coarser.shard_shape, strict=True))
            ):
                box = _box_of(coarser, shard)
                is_made = (number, shard) in self._made or coarser.is_done(box)
                if is_made and (number, shard) not in self._spoilt:
                    continue
                coarser[box] = reduced(finer[_finer(box, level.step, finer.shape)], level.step[-3:], self.method)
                coarser.mark_done(box)

    def _array(self, number: int) -> Array:
        with self._lock:
            if number not in self._arrays:
                self._arrays[number] = self._begin(number)
            return self._arrays[number]

    def _take(self, number: int, box: Slices, values: NDArray[Any]) -> None:
        """Reduce a box of the next finer level."""
        if number > len(self.levels):
            return
        step, finer = self.levels[number - 1].step, self._array(number - 1).shape
        if any(b.start % k or (b.stop % k and b.stop < n) for b, k, n in zip(box, step, finer, strict=True)):
            self._spoil(number, box)
            return
        coarse = tuple(slice(b.start // k, -(-b.stop // k)) for b, k in zip(box, step, strict=True))
        coarser = self._array(number)
        for shard in _shards(coarser, coarse):
            whole = _box_of(coarser, shard)
            piece = tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(coarse, whole, strict=True))
            fine = _finer(piece, step, finer)
            inside = tuple(slice(f.start - b.start, f.stop - b.start) for f, b in zip(fine, box, strict=True))
            self._add(number, shard, whole, piece, reduced(values[inside], step[-3:], self.method))

    def _add(self, number: int, shard: Shard, whole: Slices, piece: Slices, values: NDArray[Any]) -> None:
        """Keep a part of a shard until all of it is there."""
        key = number, shard
        with self._lock:
            pieces = self._pending.setdefault(key, [])
            is_left = key in self._made or any(_overlap(piece, other) for other, _ in pieces)
            if not is_left and key not in self._spoilt:
                pieces.append((piece, values))
                self._pending_bytes += values.nbytes
                is_whole = sum(each.size for _, each in pieces) == math.prod(b.stop - b.start for b in whole)
                if is_whole:
                    self._forget(key)
                    self._made.add(key)
                    self._whole.append((number, whole, pieces))
                elif self._pending_bytes > PENDING_BYTES:
                    is_left = True
        if is_left or key in self._spoilt:
            self._spoil(number, _finer(piece, self.levels[number - 1].step, self._array(number - 1).shape))

    def _spoil(self, number: int, box: Slices) -> None:
        """Leave to `finish` all that depends on a box of the next finer level."""
        if number > len(self.levels):
            return
        step, coarser = self.levels[number - 1].step, self._array(number)
        coarse = tuple(slice(b.start // k, -(-b.stop // k)) for b, k in zip(box, step, strict=True))
        for shard in _shards(coarser, coarse):
            with self._lock:
                self._forget((number, shard))
                self._spoilt.add((number, shard))
            self._spoil(number + 1, _box_of(coarser, shard))

    def _forget(self, key: tuple[int, Shard]) -> None:
        self._pending_bytes -= sum(values.nbytes for _, values in self._pending.pop(key, []))


def _shards(array: Array, box: Slices) -> Iterator[Shard]:
    return itertools.product(
        *(range(b.start // s, -(-b.stop // s)) for b, s in zip(box, array.shard_shape, strict=True))
    )


def _box_of(array: Array, shard: Shard) -> Slices:
    edges = zip(shard, array.shard_shape, array.shape, strict=True)
    return tuple(slice(k * edge, min((k + 1) * edge, size)) for k, edge, size in edges)


def _finer(box: Slices, step: Sequence[int], shape: Sequence[int]) -> Slices:
    """The voxels of the next finer level that a box stands for."""
    return tuple(slice(b.start * k, min(b.stop * k, n)) for b, k, n in zip(box, step, shape, strict=True))


def _overlap(one: Slices, other: Slices) -> bool:
    return all(a.start < b.stop and b.start < a.stop for a, b in zip(one, other, strict=True))


def reduced(values: NDArray[Any], step: Sequence[int], method: str) -> NDArray[Any]:
    """One coarser block from one finer block; an odd border is repeated.

    Parameters
    ----------
    values : ndarray, shape ([C,] Z, Y, X)
        Not modified.
    step : sequence of int
        1 or 2 along (Z, Y, X), 2 along one axis at least.
    method : {"mean", "max", "annotation", "nearest"}
        Of a cell's voxels: "annotation" lets foreground (1) win over background and both over "not annotated" (255);
        "nearest" takes the first.

    Returns
    -------
    coarser : ndarray
        Of the same type.
    """
    lead = [(0, 0)] * (values.ndim - 3)
    odd = [(0, -n % k) for n, k in zip(values.shape[-3:], step, strict=True)]
    padded = np.pad(values, lead + odd, mode="edge") if any(after for _, after in odd) else values
    if method == "mean":
        return _means(padded, step)
    if method == "nearest":
        return padded[..., :: step[0], :: step[1], :: step[2]].copy()  # of voxels that their owner may overwrite
    if method == "annotation":  # one more, so that 255 becomes 0: foreground wins over background, and both over it
        return _largest(padded + np.uint8(1), step) - np.uint8(1)
    return _largest(padded, step)


def _largest(values: NDArray[Any], step: Sequence[int]) -> NDArray[Any]:
    """The largest of every cell; axis by axis, the one along which memory isn't contiguous last."""
    for axis, factor in zip((-3, -2, -1), step, strict=True):
        if factor == 2:
            before = [slice(None)] * values.ndim
            before[axis] = slice(0, None, 2)
            after = list(before)
            after[axis] = slice(1, None, 2)
            values = np.maximum(values[tuple(before)], values[tuple(after)])
    return values


def _means(values: NDArray[Any], step: Sequence[int]) -> NDArray[Any]:
    """Means of cells, plane by plane: several times as fast as one reduction, and without a copy of real numbers."""
    z, y, x = (n // k for n, k in zip(values.shape[-3:], step, strict=True))
    means = np.empty((*values.shape[:-3], z, y, x), values.dtype)
    if step[2] == 2 and values.dtype in _WIDER:
        _means_of_pairs(values, step, means)
        return means
    cell = math.prod(step)
    for plane in range(z):
        slices = values[..., plane * step[0] : (plane + 1) * step[0], :, :]
        sums = np.zeros((*values.shape[:-3], y, x))
        for dz, dy, dx in np.ndindex(*step):
            sums += slices[..., dz, dy :: step[1], dx :: step[2]]
        sums /= cell
        means[..., plane, :, :] = np.rint(sums) if values.dtype.kind in "iu" else sums
    return means


_WIDER: dict[np.dtype[Any], np.dtype[Any]] = {
    np.dtype(np.uint8): np.dtype(np.uint16),
    np.dtype(np.uint16): np.dtype(np.uint32),
}
"""What holds two neighbours side by side, and the sum of a cell."""


def _means_of_pairs(values: NDArray[Any], step: Sequence[int], means: NDArray[Any]) -> None:
    """Means where neighbours along X are the halves of a wider number, which are added without a conversion."""
    wider, cell = _WIDER[values.dtype], math.prod(step)
    pairs = (values if values.strides[-1] == values.itemsize else np.ascontiguousarray(values)).view(wider)
    half, low = wider.type(8 * values.itemsize), wider.type(np.iinfo(values.dtype).max)
    shift, below, odd = wider.type(cell.bit_length() - 1), wider.type(cell // 2 - 1), wider.type(1)
    total = np.empty((*means.shape[:-3], *means.shape[-2:]), wider)
    part = np.empty_like(total)
    for plane in range(means.shape[-3]):
        rows = [pairs[..., plane * step[0] + dz, dy :: step[1], :] for dz, dy in np.ndindex(*step[:2])]
        np.bitwise_and(rows[0], low, out=total)
        for others in rows[1:]:
            total += np.bitwise_and(others, low, out=part)
        for others in rows:
            total += np.right_shift(others, half, out=part)
        # halves are rounded to the even neighbour, as NumPy does
        np.right_shift(total, shift, out=part)
        part &= odd
        part += below
        total += part
        total >>= shift
        means[..., plane, :, :] = total
