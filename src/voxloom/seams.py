"""Objects of a volume that is labelled slab by slab: united across seams, kept or dropped as wholes, then numbered."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from voxloom.blocks import Block, Readable, reduce_blocks
from voxloom.errors import VolumeError
from voxloom.objects import NO_LINKS, Labelled, Wanted, labels_on


class Slab(NamedTuple):
    """What is remembered of a slab, in arrays: its outer objects, which reach its first or last slices, and counts.

    Parameters
    ----------
    outer : ndarray of int64, shape (n,)
        Their labels in the slab, rising.
    sizes, touches_border : ndarray, shape (n,)
        Of the outer objects.
    kept_before : ndarray of int64, shape (n,)
        For each outer object the wanted inner ones that come before it.
    inner : ndarray of int64, shape (4,)
        Number and voxels of the other objects, and number and voxels of those that are wanted.
    first, last : ndarray of uint32, shape (reach, Y, X)
        The slices that neighbours in other slabs can see: 1 for the first outer object, 0 where there is none.
    links : ndarray of bool
        As in `Labelled`.
    """

    outer: NDArray[np.int64]
    sizes: NDArray[np.int64]
    touches_border: NDArray[np.bool_]
    kept_before: NDArray[np.int64]
    inner: NDArray[np.int64]
    first: NDArray[np.uint32]
    last: NDArray[np.uint32]
    links: NDArray[np.bool_]


@dataclass(frozen=True)
class Joined:
    """The objects of the whole volume.

    Parameters
    ----------
    objects, kept : int
        How many there are, and how many are kept.
    voxels, kept_voxels : int
        Of those.
    outer : list of ndarray of int64
        For each slab the labels of its outer objects.
    numbers : list of ndarray of uint32
        For each slab the final numbers of its outer objects, 0 for those that are dropped.
    is_new : list of ndarray of bool
        Whether an outer object is kept and begins in this slab.
    before : ndarray of int64
        For each slab the kept objects that begin in earlier ones.
    wanted : callable
        The decision about inner objects.
    """

    objects: int
    kept: int
    voxels: int
    kept_voxels: int
    outer: list[NDArray[np.int64]]
    numbers: list[NDArray[np.uint32]]
    is_new: list[NDArray[np.bool_]]
    before: NDArray[np.int64]
    wanted: Wanted

    def table(self, index: int, slab: Labelled) -> NDArray[np.uint32]:
        """Final number of every label of a slab, 0 for dropped ones and background.

        Parameters
        ----------
        index : int
            Of the slab, in the order in which they were joined.
        slab : Labelled
            Labelled as the first time.

        Returns
        -------
        numbers : ndarray of uint32, shape (count + 1,)
            From 1 in the order of the kept objects' first voxels in the volume (C order).
        """
        begins = slab.kept(self.wanted)
        begins[self.outer[index]] = self.is_new[index]
        numbers = np.where(begins, np.cumsum(begins) + self.before[index], 0).astype(np.uint32)
        numbers[self.outer[index]] = self.numbers[index]
        return numbers


def remember(slab: Labelled, *, wanted: Wanted, reach: int = 1) -> Slab:
    """What of a slab is needed to join it with others.

    Parameters
    ----------
    slab : Labelled
    wanted : callable
        Decides about objects by their size and whether they touch the volume's border.
    reach : int
        Slices across which two voxels can be neighbours. All slabs but the last hold at least as many.

    Returns
    -------
    slab : Slab
    """
    count = slab.sizes.size - 1
    is_outer = labels_on(slab.labels, count, [(slice(None, reach),), (slice(-reach, None),)])
    outer = np.flatnonzero(is_outer)
    number = np.zeros(count + 1, np.uint32)
    number[outer] = np.arange(1, outer.size + 1)
    is_inner = ~is_outer
    is_inner[0] = False
    kept_inner = slab.kept(wanted) & is_inner
    return Slab(
        outer=outer,
        sizes=slab.sizes[outer],
        touches_border=slab.touches_border[outer],
        kept_before=np.cumsum(kept_inner, dtype=np.int64)[outer],
        inner=np.array([is_inner.sum(), slab.sizes[is_inner].sum(), kept_inner.sum(), slab.sizes[kept_inner].sum()]),
        first=number[slab.labels[:reach]],
        last=number[slab.labels[-reach:]],
        links=slab.links,
    )


def join(slabs: Iterable[Slab], *, touching: Callable[[Slab, Slab], NDArray[np.int64]], wanted: Wanted) -> Joined:
    """Unite the objects that touch across seams, and decide about them and number them as wholes.

    Parameters
    ----------
    slabs : iterable of Slab
        In the order of their slices.
    touching : callable
        From two consecutive slabs to pairs, an ndarray of int64 of shape (2, n): which of the first one's `last`
        objects is one with which of the second one's `first`.
    wanted : callable
        As in `remember`.

    Returns
    -------
    joined : Joined
        The same objects and numbers for any slabs, and those of the whole volume in one piece.

    Raises
    ------
    VolumeError
        If there are more objects than a 32-bit number can count.
    """
    held: list[Slab] = []
    pairs, total = [np.zeros((2, 0), np.int64)], 0
    above: Slab | None = None
    for slab in slabs:
        if above is not None:
            pairs.append(touching(above, slab) + np.array([[total - above.outer.size], [total]]) - 1)
        total += slab.outer.size
        above = slab
        nothing = np.zeros((0, 0, 0), np.uint32)
        held.append(slab._replace(first=nothing, last=nothing, links=NO_LINKS))  # only the seam at hand takes memory
    united, count = _united(np.concatenate(pairs, axis=1), total)
    sizes, touches_border = np.zeros(count, np.int64), np.zeros(count, np.bool_)
    np.add.at(sizes, united, _joined([slab.sizes for slab in held]))
    touches_border[united[_joined([slab.touches_border for slab in held]).astype(np.bool_)]] = True
    kept = wanted(sizes, touches_border)
    is_new = np.zeros(total, np.bool_)
    is_new[np.unique(united, return_index=True)[1]] = True
    is_new &= kept[united]
    numbers, before, total_kept = _numbered(held, united, kept.size, is_new)
    borders = np.cumsum([slab.outer.size for slab in held])[:-1]
    inner = np.sum([slab.inner for slab in held], axis=0)
    return Joined(
        objects=kept.size + int(inner[0]),
        kept=total_kept,
        voxels=int(sizes.sum() + inner[1]),
        kept_voxels=int(sizes[kept].sum() + inner[3]),
        outer=[slab.outer for slab in held],
        numbers=np.split(numbers, borders),
        is_new=np.split(is_new, borders),
        before=before,
        wanted=wanted,
    )


def join_volume(
    label: Callable[..., Labelled],
    *inputs: Readable,
    touching: Callable[[Slab, Slab], NDArray[np.int64]],
    wanted: Wanted,
    reach: int = 1,
    description: str,
    **layout: Any,
) -> Joined:
    """Label every slab of a stored volume once, keep what `remember` keeps, and join the slabs.

    Parameters
    ----------
    label : callable
        Takes one array an input and a keyword argument ``block``.
    *inputs : volume
    touching, wanted, reach
        As in `join` and `remember`.
    description, **layout
        As in `voxloom.blocks.reduce_blocks`; blocks are whole slices.

    Returns
    -------
    joined : Joined
    """

    def look(*arrays: NDArray[Any], block: Block) -> Slab:
        return remember(label(*arrays, block=block), wanted=wanted, reach=reach)

    with contextlib.closing(reduce_blocks(look, *inputs, description=description, **layout)) as looks:
        return join((Slab(*slab) for _, slab in looks), touching=touching, wanted=wanted)


def pairs_where(chosen: NDArray[np.bool_], first: NDArray[np.uint32], second: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Pairs of objects at chosen voxels; along a row, where the same pair comes many times, it is told once.

    Parameters
    ----------
    chosen : ndarray of bool
    first, second : ndarray of uint32, same shape

    Returns
    -------
    pairs : ndarray of int64, shape (2, n)
    """
    pairs = np.stack([first[chosen], second[chosen]]).astype(np.int64)
    is_new = np.ones(pairs.shape[1], np.bool_)
    is_new[1:] = np.any(pairs[:, 1:] != pairs[:, :-1], axis=0)
    return pairs[:, is_new]


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _united(pairs: NDArray[np.int64], total: int) -> tuple[NDArray[np.int64], int]:
    """For each object the number of what it is united with, and how many those are."""
    if total == 0:
        return np.zeros(0, np.int64), 0
    from scipy.sparse import coo_array  # a job that unites nothing needn't wait for it
    from scipy.sparse.csgraph import connected_components

    rows, columns = pairs
    graph = coo_array((np.ones(rows.size, np.bool_), (rows, columns)), shape=(total, total))
    count, united = connected_components(graph, directed=False)
    return united, int(count)


def _numbered(
    slabs: list[Slab], united: NDArray[np.int64], count: int, is_new: NDArray[np.bool_]
) -> tuple[NDArray[np.uint32], NDArray[np.int64], int]:
    """Count kept objects through the slabs in the order of their first voxels."""
    numbers = np.zeros(count, np.int64)
    before, passed, first = np.zeros(len(slabs), np.int64), 0, 0
    for index, slab in enumerate(slabs):
        part = slice(first, first + slab.outer.size)
        before[index] = passed
        rank = passed + slab.kept_before + np.cumsum(is_new[part])
        numbers[united[part][is_new[part]]] = rank[is_new[part]]
        passed += int(slab.inner[2] + is_new[part].sum())
        first = part.stop
    if passed > np.iinfo(np.uint32).max:
        raise VolumeError(f"{passed} objects are more than 32 bits can number; drop small ones (min_size_voxels)")
    return numbers[united].astype(np.uint32), before, passed
