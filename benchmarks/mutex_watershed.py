"""Mutex watershed (T15), against mwatershed on the same affinities and strides.

    python benchmarks/mutex_watershed.py [--size 128] [--rounds 3]

Three near and nine far affinities a voxel, noisy, of touching cells; every second far edge along each axis counts. The
peer takes the same edges with the same weights, its repulsive ones negative; it orders them in double precision, so
that a few voxels may differ. The adapted Rand error is that to the true cells.
"""

import argparse
import importlib.util

import cells
import numpy as np
import timing
from numpy.typing import NDArray

from voxloom.affinities import NEAREST
from voxloom.mutex import mutex_watershed
from voxloom.partitions import adapted_rand, contingency

LEAST, MOST_BYTES = 1.3, 250.0
STRIDES = (2, 2, 2)
OFFSETS = [
    *NEAREST,
    *[(-3, 0, 0), (0, -3, 0), (0, 0, -3), (-9, 0, 0), (0, -9, 0), (0, 0, -9), (0, -3, -3), (0, -9, -4), (-3, -3, 0)],
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    name = f"mutex watershed, {options.size}³"
    if importlib.util.find_spec("mwatershed") is None:
        timing.skip(name, target="T15", why="mwatershed is not installed")
        return
    import mwatershed

    timing.pin(1)
    truth = cells.cells(options.size)
    affinities = cells.affinities(truth, OFFSETS)
    signed = affinities.astype(np.float64)
    signed[len(NEAREST) :] -= 1
    strides = [[1, 1, 1]] * len(NEAREST) + [list(STRIDES)] * (len(OFFSETS) - len(NEAREST))

    def ours() -> NDArray[np.uint32]:
        return mutex_watershed(affinities, offsets=OFFSETS, attractive=len(NEAREST), strides=STRIDES)[0]

    def by_mwatershed() -> NDArray[np.uint64]:
        return mwatershed.agglom(signed, OFFSETS, strides=strides)

    error = adapted_rand(contingency(ours(), truth)).error
    peer_error = adapted_rand(contingency(by_mwatershed().astype(np.int64), truth)).error
    seconds = timing.interleaved({"ours": ours, "mwatershed": by_mwatershed}, rounds=options.rounds)
    faster = timing.ratio(seconds["mwatershed"], seconds["ours"])
    peak, peer_peak = timing.peak_mib(ours), timing.peak_mib(by_mwatershed)
    bytes_per_voxel = peak * 2**20 / options.size**3
    timing.record(
        name,
        target="T15",
        ours=round(float(np.median(seconds["ours"])), 4),
        peer=round(float(np.median(seconds["mwatershed"])), 4),
        peer_name="mwatershed",
        ratio=round(faster, 2),
        limit=f"at least {LEAST:g} times as fast, {MOST_BYTES:g} B/voxel, adapted Rand error within 0.001",
        peak_mib=round(peak),
        peak_mib_peer=round(peer_peak),
        bytes_per_voxel=round(bytes_per_voxel),
        holds=bool(faster >= LEAST and bytes_per_voxel <= MOST_BYTES and error <= peer_error + 1e-3),
        adapted_rand_error=round(error, 4),
        adapted_rand_error_peer=round(peer_error, 4),
    )


if __name__ == "__main__":
    main()
