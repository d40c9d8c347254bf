"""Mutex watershed (T15), against mwatershed on the same affinities and strides.

    python benchmarks/mutex_watershed.py [--size 128] [--rounds 3]

Three near and nine far affinities a voxel, noisy, of touching cells; every second far edge along each axis counts. The
peer takes the same edges with the same weights, its repulsive ones negative; it orders them in double precision, so
that a few voxels may differ. The adapted Rand error is the mean of that to the true cells over several specimens.
"""

from collections.abc import Callable
from typing import Any

import against
import cells
import numpy as np
import timing
from numpy.typing import NDArray

from voxloom.affinities import NEAREST
from voxloom.mutex import mutex_watershed

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

    strides = [[1, 1, 1]] * len(NEAREST) + [list(STRIDES)] * (len(OFFSETS) - len(NEAREST))

    def both(truth: NDArray[np.uint32]) -> tuple[Callable[[], NDArray[Any]], Callable[[], NDArray[Any]]]:
        affinities = cells.affinities(truth, OFFSETS)
        signed = affinities.astype(np.float64)
        signed[len(NEAREST) :] -= 1
        return (
            lambda: mutex_watershed(affinities, offsets=OFFSETS, attractive=len(NEAREST), strides=STRIDES)[0],
            lambda: mwatershed.agglom(signed, OFFSETS, strides=strides).astype(np.int64),
        )

    errors = cells.errors(options.size, both)
    ours, theirs = both(cells.cells(options.size))
    against.compare(
        name,
        ours,
        {"mwatershed": against.Peer(theirs, 1.3, "mwatershed")},
        target="T15",
        rounds=options.rounds,
        identical=f"adapted Rand error {errors['adapted_rand_error']}, theirs {errors['adapted_rand_error_peer']}",
        most_mib=MOST_BYTES * options.size**3 / against.MIB,
        memory_words=f"{MOST_BYTES:g} bytes a voxel, adapted Rand error no worse ({errors['adapted_rand_difference']})",
        also_holds=errors["is_no_worse"],
        **errors,
    )


if __name__ == "__main__":
    main()
