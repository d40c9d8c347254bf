"""Seeded watershed (T15), against scikit-image's of the same heights and seeds, and by blocks against one piece.

    python benchmarks/seeded_watershed.py [--size 128] [--rounds 5]

Heights are 8-bit boundary probabilities of touching cells; the adapted Rand error is the mean of that to the true cells
over several specimens. scikit-image floods in the order of a queue, ours in that of levels and times that the image
alone determines; both fill a basin without a seed from where the first water comes over its rim.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import against
import cells
import numpy as np
import timing
from numpy.typing import NDArray
from skimage.segmentation import watershed as by_skimage

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


def both(truth: NDArray[np.uint32]) -> tuple[Callable[[], NDArray[Any]], Callable[[], NDArray[Any]]]:
    """Ours and the peer's watershed of a specimen."""
    heights, seeds = cells.landscape(cells.affinities(truth))
    return partial(watershed, heights, seeds), partial(by_skimage, heights, seeds.astype(np.int32))


def main() -> None:
    options = timing.sized(__doc__, size=128, rounds=5)
    ours, theirs = both(cells.cells(options.size))
    heights, seeds = ours.args
    whole = watershed(heights, seeds)
    is_seamless, passes = is_the_same_by_blocks(heights, seeds, whole)
    del whole
    errors = cells.errors(options.size, both)
    against.compare(
        f"seeded watershed, {options.size}³",
        ours,
        {"scikit-image": against.Peer(theirs, 5, "skimage")},
        target="T15",
        rounds=options.rounds,
        identical=is_seamless,
        most_mib=MOST_BYTES * options.size**3 / against.MIB,
        memory_words=f"{MOST_BYTES:g} bytes a voxel, adapted Rand error no worse "
        f"({errors['adapted_rand_difference']}), no seams",
        also_holds=errors["is_no_worse"],
        **errors,
        seeds=int(seeds.max()),
        passes=passes,
    )


if __name__ == "__main__":
    main()
