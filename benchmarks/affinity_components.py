"""Components of an affinity graph (T14), against SciPy's of the same graph, and by slabs against one piece.

    python benchmarks/affinity_components.py [--size 192] [--rounds 5]

Three affinities a voxel to its nearest neighbours, noisy, of touching cells; an edge joins where it is above 0.5.
"""

from functools import partial

import against
import cells
import numpy as np
import timing
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from voxloom.affinities import NEAREST, label_components, label_components_volume

THRESHOLD = 0.5
MOST_BYTES = 14.0


def by_scipy(affinities: NDArray[np.float32]) -> NDArray[np.int32]:
    shape = affinities.shape[1:]
    numbers = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    ends: list[tuple[NDArray[np.int32], NDArray[np.int32]]] = []
    for channel, offset in zip(affinities, NEAREST, strict=True):
        here = tuple(slice(-k, None) for k in offset)
        there = tuple(slice(0, n + k) for k, n in zip(offset, shape, strict=True))
        joins = channel[here] > THRESHOLD
        ends.append((numbers[here][joins], numbers[there][joins]))
    first, second = (np.concatenate(parts) for parts in zip(*ends, strict=True))
    graph = coo_array((np.ones(first.size, np.int8), (first, second)), shape=(numbers.size,) * 2)
    return connected_components(graph, directed=False)[1].reshape(shape)


def is_the_same_by_slabs(affinities: NDArray[np.float32], whole: NDArray[np.uint32]) -> bool:
    """With a tenth of the memory that one piece would take."""
    labels = np.zeros_like(whole)
    label_components_volume(affinities, labels, threshold=THRESHOLD, memory_mib=24 * whole.size / 10 / 2**20)
    return bool(np.array_equal(labels, whole))


def main() -> None:
    options = timing.sized(__doc__, size=192, rounds=5)
    affinities = cells.affinities(cells.cells(options.size))
    whole, count = label_components(affinities, threshold=THRESHOLD)
    is_equal = bool(np.array_equal(whole - 1, by_scipy(affinities)))  # both number by first voxels
    is_seamless = is_the_same_by_slabs(affinities, whole)
    del whole
    against.compare(
        f"affinities to components, {options.size}³",
        partial(label_components, affinities, threshold=THRESHOLD),
        {"SciPy": against.Peer(partial(by_scipy, affinities), 15, "scipy")},
        target="T14",
        rounds=options.rounds,
        identical=is_equal and is_seamless,
        most_mib=MOST_BYTES * options.size**3 / against.MIB,
        memory_words=f"{MOST_BYTES:g} bytes a voxel, the same components, also by slabs",
        components=count,
    )


if __name__ == "__main__":
    main()
