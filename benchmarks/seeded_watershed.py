"""Seeded watershed (T15), against scikit-image's of the same heights and seeds, and by blocks against one piece.

    python benchmarks/seeded_watershed.py [--size 128] [--rounds 5]

Heights are 8-bit boundary probabilities of touching cells; the adapted Rand error is that to the true cells.
"""

from functools import partial

import against
import cells
import numpy as np
import timing
from numpy.typing import NDArray
from skimage.segmentation import watershed as by_skimage

from voxloom.partitions import adapted_rand, contingency
from voxloom.watershed import BYTES_PER_VOXEL, watershed, watershed_volume

MOST_BYTES = 20.0


def is_the_same_by_blocks(
    heights: NDArray[np.uint8], seeds: NDArray[np.uint32], whole: NDArray[np.uint32]
) -> tuple[bool, int]:
    """In blocks of an eighth of the volume, at least 64³, and in how many passes."""
    labels, costs = np.zeros_like(whole), np.zeros_like(whole)
    memory_mib = (max(64, heights.shape[0] // 2) + 2) ** 3 * BYTES_PER_VOXEL / 2**20
    passes = watershed_volume(heights, seeds, labels, costs, memory_mib=memory_mib)
    return bool(np.array_equal(labels, whole)), passes


def main() -> None:
    options = timing.sized(__doc__, size=128, rounds=5)
    truth = cells.cells(options.size)
    heights, seeds = cells.landscape(cells.affinities(truth))
    whole = watershed(heights, seeds)
    theirs = partial(by_skimage, heights, seeds.astype(np.int32))
    error, peer_error = (adapted_rand(contingency(labels, truth)).error for labels in (whole, theirs()))
    is_seamless, passes = is_the_same_by_blocks(heights, seeds, whole)
    del whole
    against.compare(
        f"seeded watershed, {options.size}³",
        partial(watershed, heights, seeds),
        {"scikit-image": against.Peer(theirs, 5, "skimage")},
        target="T15",
        rounds=options.rounds,
        identical=is_seamless,
        most_mib=MOST_BYTES * options.size**3 / against.MIB,
        memory_words=f"{MOST_BYTES:g} bytes a voxel, adapted Rand error within 0.001, no seams",
        also_holds=error <= peer_error + 1e-3,
        adapted_rand_error=round(error, 4),
        adapted_rand_error_peer=round(peer_error, 4),
        seeds=int(seeds.max()),
        passes=passes,
    )


if __name__ == "__main__":
    main()
