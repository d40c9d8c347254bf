"""Components of an affinity graph (T14), against SciPy's of the same graph, and by slabs against one piece.

    python benchmarks/affinity_components.py [--size 192] [--rounds 5]

Three affinities a voxel to its nearest neighbours, noisy, of touching cells; an edge joins where it is above 0.5.
"""

import argparse

import cells
import numpy as np
import timing
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from voxloom.affinities import NEAREST, label_components, label_components_volume

THRESHOLD = 0.5
LEAST, MOST_BYTES = 15.0, 14.0


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    timing.pin(1)
    affinities = cells.affinities(cells.cells(options.size))
    whole, count = label_components(affinities, threshold=THRESHOLD)
    is_equal = bool(np.array_equal(whole - 1, by_scipy(affinities)))  # both number by first voxels
    is_seamless = is_the_same_by_slabs(affinities, whole)
    del whole
    cases = {
        "ours": lambda: label_components(affinities, threshold=THRESHOLD),
        "scipy": lambda: by_scipy(affinities),
    }
    seconds = timing.interleaved(cases, rounds=options.rounds)
    faster = timing.ratio(seconds["scipy"], seconds["ours"])
    peak, peer_peak = timing.peak_mib(cases["ours"]), timing.peak_mib(cases["scipy"])
    bytes_per_voxel = peak * 2**20 / options.size**3
    timing.record(
        f"affinities to components, {options.size}³",
        target="T14",
        ours=round(float(np.median(seconds["ours"])), 4),
        peer=round(float(np.median(seconds["scipy"])), 4),
        peer_name="scipy csgraph",
        ratio=round(faster, 1),
        limit=f"at least {LEAST:g} times as fast, {MOST_BYTES:g} B/voxel, the same components, also by slabs",
        peak_mib=round(peak),
        peak_mib_peer=round(peer_peak),
        bytes_per_voxel=round(bytes_per_voxel, 1),
        identical=is_equal and is_seamless,
        holds=bool(faster >= LEAST and bytes_per_voxel <= MOST_BYTES and is_equal and is_seamless),
        components=count,
    )


if __name__ == "__main__":
    main()
