"""Mutex watershed: objects from affinities of short range that join and of long range that keep apart."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxloom.affinities import Offsets, check_affinities
from voxloom.errors import VolumeError
from voxloom.kernels import compiled
from voxloom.objects import root_of

MIXER = np.uint64(0x9E3779B97F4A7C15)
NEITHER = np.uint64(0)
DIGIT_BITS = 11


def mutex_watershed(
    affinities: NDArray[Any], *, offsets: Offsets, attractive: int, strides: tuple[int, int, int] = (1, 1, 1)
) -> tuple[NDArray[np.uint32], int]:
    """Objects that neither a threshold nor seeds need.

    Parameters
    ----------
    affinities : ndarray of one of `voxloom.affinities.DTYPES`, shape (C, Z, Y, X)
        Channel c at a voxel is that of its edge to the voxel at ``offsets[c]`` from it: large where both are of one
        object. Integers stand for shares of the largest integer. Not modified.
    offsets : sequence of tuple of int
        (Z, Y, X) of each channel in voxels; Z is at most 0.
    attractive : int
        The first so many channels join voxels, with their affinity as weight; the others keep them apart, with 1 minus
        their affinity.
    strides : tuple of int
        Only edges of the other channels from voxels whose (Z, Y, X) are multiples of these count; (2, 2, 2) takes a
        third of the time and memory and is usually as good.

    Returns
    -------
    labels : ndarray of uint32, shape (Z, Y, X)
        Objects are numbered from 1 in the order of their first voxel (C order); every voxel is of one.
    count : int
        Number of objects.

    Raises
    ------
    VolumeError
        If channels and offsets don't fit, or the type is another.

    Notes
    -----
    Edges are taken by falling weight, of one weight in the order of channel and voxel: an attractive one joins
    its two objects unless these are to be kept apart, the other kind keeps them apart unless they are one [1]_. The
    order is that of the whole array, so that there is no exact way of doing this by blocks: a block gives objects that
    may differ at its border.

    References
    ----------
    .. [1] Wolf et al. (2021). IEEE TPAMI 43(10), The mutex watershed and its objective.

    Examples
    --------
    >>> near, far = [0.0, 0.9, 0.8, 0.7], [1.0, 1.0, 1.0, 0.1]
    >>> affinities = np.array([near, far]).reshape(2, 1, 1, 4)
    >>> mutex_watershed(affinities, offsets=[(0, 0, -1), (0, 0, -3)], attractive=1)
    (array([[[1, 1, 1, 2]]], dtype=uint32), 2)
    """
    check_affinities(affinities.shape, affinities.dtype, offsets)
    if not 0 < attractive <= len(offsets) or min(strides) < 1:
        raise VolumeError(
            f"attractive must be 1 to {len(offsets)} (the number of channels) and strides at least 1, got {attractive} "
            f"and {strides}"
        )
    shape = affinities.shape[1:]
    ranks, edges = _edges(affinities, offsets, attractive, strides)
    _sort(ranks, edges)
    steps = np.array([(z * shape[1] + y) * shape[2] + x for z, y, x in offsets], np.int64)
    labels = np.empty(shape, np.uint32)
    return labels, int(_cluster(edges, steps, attractive, labels.reshape(-1)))


def _edges(
    affinities: NDArray[Any], offsets: Offsets, attractive: int, strides: tuple[int, int, int]
) -> tuple[NDArray[np.uint32], NDArray[Any]]:
    """For each edge a rank, small for a large weight, and its number: voxel times channels plus channel."""
    channels, shape = affinities.shape[0], affinities.shape[1:]
    voxels = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)
    number_type = np.uint32 if voxels.size * channels <= np.iinfo(np.uint32).max else np.int64
    ranks, numbers = [], []
    for channel, offset in enumerate(offsets):
        every = strides if channel >= attractive else (1, 1, 1)
        here = tuple(
            slice(-(-max(0, -k) // step) * step, max(0, n - max(0, k)), step)
            for k, n, step in zip(offset, shape, every, strict=True)
        )
        weights = affinities[channel][here].ravel()
        if affinities.dtype.kind == "u":
            largest = np.uint32(np.iinfo(affinities.dtype).max)
            ranks.append(largest - weights if channel < attractive else weights.astype(np.uint32))
        else:
            weights = weights.astype(np.float32)
            ranks.append(_falling(weights if channel < attractive else 1 - weights))
        numbers.append((voxels[here].ravel() * channels + channel).astype(number_type))
    return np.concatenate(ranks).astype(np.uint32, copy=False), np.concatenate(numbers)


def _falling(weights: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Integers in the order of falling weights, from the bits of IEEE numbers."""
    bits = (weights + np.float32(0)).view(np.uint32)  # adding 0 makes -0 the same as 0
    is_negative = bits >> np.uint32(31) != 0
    return np.where(is_negative, bits, ~bits & np.uint32(0x7FFFFFFF))


def _sort(ranks: NDArray[np.uint32], edges: NDArray[Any]) -> None:
    """Both by rising rank, in place; edges of one rank stay in their order."""
    spare_ranks, spare_edges = np.empty_like(ranks), np.empty_like(edges)
    for shift in range(0, int(ranks.max(initial=0)).bit_length(), DIGIT_BITS):
        _scatter(ranks, edges, shift, spare_ranks, spare_edges)
        ranks[:], edges[:] = spare_ranks, spare_edges


@compiled
def _scatter(ranks, edges, shift, to_ranks, to_edges):  # type: ignore[no-untyped-def]
    """One pass of a radix sort."""
    digits = (1 << DIGIT_BITS) - 1
    firsts = np.zeros(digits + 2, np.int64)
    for i in range(ranks.size):
        firsts[((np.int64(ranks[i]) >> shift) & digits) + 1] += 1
    firsts = np.cumsum(firsts)
    for i in range(ranks.size):
        digit = (np.int64(ranks[i]) >> shift) & digits
        to_ranks[firsts[digit]] = ranks[i]
        to_edges[firsts[digit]] = edges[i]
        firsts[digit] += 1


@compiled
def _pair(a, b):  # type: ignore[no-untyped-def]
    return np.uint64(min(a, b)) << np.uint64(32) | np.uint64(max(a, b))


@compiled
def _slot(table, pair):  # type: ignore[no-untyped-def]
    """Where in the table a pair is, or would be."""
    last = table.size - 1  # its size is a power of 2
    i = np.int64((pair * MIXER) >> np.uint64(32)) & last
    while table[i] != NEITHER and table[i] != pair:
        i = (i + 1) & last
    return i


@compiled
def _larger(table):  # type: ignore[no-untyped-def]
    grown = np.zeros(2 * table.size, np.uint64)
    for pair in table:
        if pair != NEITHER:
            grown[_slot(grown, pair)] = pair
    return grown


@compiled
def _cluster(edges, steps, attractive, parents):  # type: ignore[no-untyped-def]
    """Join and keep apart in the order of the edges; number the objects in the array of their parents.

    `table` holds the pairs of objects that are kept apart, by the numbers of their roots. Each root has a linked list
    of voxels in those others, from which its pairs are told anew when it is joined to another: the shorter list moves.
    """
    voxels, channels = parents.size, steps.size
    for i in range(voxels):
        parents[i] = i
    table, pairs = np.zeros(1 << 16, np.uint64), 0
    heads, lengths = np.full(voxels, -1, np.int64), np.zeros(voxels, np.int32)
    others, following, entries = np.empty(1 << 16, np.int64), np.empty(1 << 16, np.int64), 0
    for edge in edges:
        number = np.int64(edge)
        voxel, channel = number // channels, number % channels
        a, b = root_of(parents, voxel), root_of(parents, voxel + steps[channel])
        if a == b:
            continue
        slot = _slot(table, _pair(a, b))
        if table[slot] != NEITHER:
            continue
        if entries + 2 > others.size:
            others, following = np.append(others, np.empty_like(others)), np.append(following, np.empty_like(others))
        if channel >= attractive:
            table[slot] = _pair(a, b)
            pairs += 1
            for one, other in ((a, b), (b, a)):
                others[entries], following[entries] = other, heads[one]
                heads[one] = entries
                lengths[one] += 1
                entries += 1
        else:
            if lengths[a] < lengths[b]:
                a, b = b, a
            entry = heads[b]
            while entry >= 0:
                other = root_of(parents, others[entry])
                slot = _slot(table, _pair(a, other))
                after = following[entry]
                if table[slot] == NEITHER:
                    table[slot] = _pair(a, other)
                    pairs += 1
                    following[entry] = heads[a]
                    heads[a] = entry
                    lengths[a] += 1
                    if 2 * pairs > table.size:
                        table = _larger(table)
                entry = after
            parents[b] = a
        if 2 * pairs > table.size:
            table = _larger(table)
    return _number(parents, heads)


@compiled
def _number(parents, numbers):  # type: ignore[no-untyped-def]
    numbers[:] = 0
    count = 0
    for i in range(parents.size):
        root = root_of(parents, i)
        if numbers[root] == 0:
            count += 1
            numbers[root] = count
    for i in range(parents.size):
        numbers[i] = numbers[root_of(parents, i)]
    for i in range(parents.size):
        parents[i] = numbers[i]
    return count
