"""Mutex watershed (T15), against mwatershed on the same affinities and strides.

    python benchmarks/mutex_watershed.py [--size 128] [--rounds 3]

Three near and nine far affinities a voxel, noisy, of touching cells; every second far edge along each axis counts. The
peer takes the same edges with the same weights, its repulsive ones negative; it orders them in double precision, so
that a few voxels may differ. The adapted Rand error is that to the true cells.
"""

import against
import cells
import numpy as np
import timing
from numpy.typing import NDArray

from voxloom.affinities import NEAREST
from voxloom.mutex import mutex_watershed
from voxloom.partitions import adapted_rand, contingency

MOST_BYTES = 250.0
STRIDES = (2, 2, 2)
OFFSETS = [
    *NEAREST,
    *[(-3, 0, 0), (0, -3, 0), (0, 0, -3), (-9, 0, 0), (0, -9, 0), (0, 0, -9), (0, -3, -3), (0, -9, -4), (-3, -3, 0)],
]


def main() -> None:
    options = timing.sized(__doc__, size=128, rounds=3)
    name = f"mutex watershed, {options.size}³"
    if not against.is_installed("mwatershed"):
        timing.skip(name, target="T15", why="mwatershed is not installed")
        return
    import mwatershed

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
    against.compare(
        name,
        ours,
        {"mwatershed": against.Peer(by_mwatershed, 1.3, "mwatershed")},
        target="T15",
        rounds=options.rounds,
        identical=f"adapted Rand error {error:.4f}, theirs {peer_error:.4f}",
        most_mib=MOST_BYTES * options.size**3 / against.MIB,
        memory_words=f"{MOST_BYTES:g} bytes a voxel, adapted Rand error within 0.001",
        also_holds=error <= peer_error + 1e-3,
    )


if __name__ == "__main__":
    main()
