"""Seeded watershed (T15), against scikit-image's of the same heights and seeds, and by blocks against one piece.

    python benchmarks/seeded_watershed.py [--size 128] [--rounds 5]

Heights are 8-bit boundary probabilities of touching cells; the adapted Rand error is that to the true cells.
"""

import argparse

import cells
import numpy as np
import timing
from numpy.typing import NDArray
from skimage.segmentation import watershed as by_skimage

from voxloom.partitions import adapted_rand, contingency
from voxloom.watershed import BYTES_PER_VOXEL, watershed, watershed_volume

LEAST, MOST_BYTES = 5.0, 20.0


def is_the_same_by_blocks(
    heights: NDArray[np.uint8], seeds: NDArray[np.uint32], whole: NDArray[np.uint32]
) -> tuple[bool, int]:
    """In blocks of an eighth of the volume, at least 64³, and in how many passes."""
    labels, costs = np.zeros_like(whole), np.zeros_like(whole)
    memory_mib = (max(64, heights.shape[0] // 2) + 2) ** 3 * BYTES_PER_VOXEL / 2**20
    passes = watershed_volume(heights, seeds, labels, costs, memory_mib=memory_mib)
    return bool(np.array_equal(labels, whole)), passes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    timing.pin(1)
    truth = cells.cells(options.size)
    heights, seeds = cells.landscape(cells.affinities(truth))
    whole = watershed(heights, seeds)
    error = adapted_rand(contingency(whole, truth)).error
    peer_error = adapted_rand(contingency(by_skimage(heights, seeds.astype(np.int32)), truth)).error
    is_seamless, passes = is_the_same_by_blocks(heights, seeds, whole)
    del whole
    cases = {
        "ours": lambda: watershed(heights, seeds),
        "skimage": lambda: by_skimage(heights, seeds.astype(np.int32)),
    }
    seconds = timing.interleaved(cases, rounds=options.rounds)
    faster = timing.ratio(seconds["skimage"], seconds["ours"])
    peak, peer_peak = timing.peak_mib(cases["ours"]), timing.peak_mib(cases["skimage"])
    bytes_per_voxel = peak * 2**20 / options.size**3
    timing.record(
        f"seeded watershed, {options.size}³",
        target="T15",
        ours=round(float(np.median(seconds["ours"])), 4),
        peer=round(float(np.median(seconds["skimage"])), 4),
        peer_name="scikit-image",
        ratio=round(faster, 1),
        limit=f"at least {LEAST:g} times as fast, {MOST_BYTES:g} B/voxel, adapted Rand error within 0.001, no seams",
        peak_mib=round(peak),
        peak_mib_peer=round(peer_peak),
        bytes_per_voxel=round(bytes_per_voxel, 1),
        identical=is_seamless,
        holds=bool(faster >= LEAST and bytes_per_voxel <= MOST_BYTES and error <= peer_error + 1e-3 and is_seamless),
        adapted_rand_error=round(error, 4),
        adapted_rand_error_peer=round(peer_error, 4),
        seeds=int(seeds.max()),
        passes=passes,
    )


if __name__ == "__main__":
    main()
