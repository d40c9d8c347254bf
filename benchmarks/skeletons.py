"""Centre lines of thin fibres (T16), against kimimaro's of the same objects, and by blocks against one piece; and
scikit-image's lines, of which scores and lengths are made, against scikit-image.

    python benchmarks/skeletons.py [--size 256] [--rounds 3]

Kimimaro extends its lines to the tips of an object, thinning ends a little before them: lengths agree where fibres are
much longer than thick. It is a peer of the benchmarks only (GPL), never imported by the library.
"""

from functools import partial

import against
import cells
import numpy as np
import timing
import tissue
from numpy.typing import NDArray
from skimage.morphology import skeletonize

from voxloom.instances import label_objects
from voxloom.skeleton import skeleton_length_um
from voxloom.thinning import BYTES_PER_VOXEL, REACH, thin, thin_in_order, thin_volume

MOST_BYTES, MOST_APART, LEAST_IN_ORDER = 12.0, 0.02, 3.0
SPACING_UM = (1.0, 1.0, 1.0)
TEASAR = {
    "scale": 1.5,
    "const": 5,
    "pdrf_exponent": 4,
    "pdrf_scale": 100_000,
    "soma_detection_threshold": 1e9,
    "soma_acceptance_threshold": 1e9,
}


def is_the_same_by_blocks(mask: NDArray[np.bool_], whole: NDArray[np.bool_]) -> bool:
    """In slabs of 64 slices, where the volume is larger."""
    out, scratch = np.zeros(mask.shape, np.uint8), np.zeros(mask.shape, np.uint8)
    depth, height, width = mask.shape
    memory_mib = min(depth, 64 + 2 * REACH) * height * width * BYTES_PER_VOXEL / 2**20
    thin_volume(mask.view(np.uint8), out, scratch, memory_mib=1.01 * memory_mib)
    return bool(np.array_equal(out, whole))


def in_order(size: int, rounds: int) -> None:
    """Of the tubes that the stages are measured with: thick enough for many layers."""
    mask = tissue.whole((size,) * 3, tissue.masks((size,) * 3))
    by_peer = partial(skeletonize, mask, method="lee")
    against.compare(
        f"scikit-image's centre lines of tubes, {size}³",
        partial(thin_in_order, mask),
        {"scikit-image": against.Peer(by_peer, LEAST_IN_ORDER, "skimage")},
        target="centre lines",
        rounds=rounds,
        identical=np.array_equal(thin_in_order(mask), by_peer()),
        most_mib=MOST_BYTES * size**3 / against.MIB,
        memory_words=f"{MOST_BYTES:g} bytes a voxel",
    )


def main() -> None:
    options = timing.sized(__doc__, size=256, rounds=3)
    in_order(options.size, options.rounds)
    name = f"centre lines of fibres, {options.size}³"
    if not against.is_installed("kimimaro"):
        timing.skip(name, target="T16", why="kimimaro is not installed")
        return
    import kimimaro

    mask = cells.fibres(options.size)
    objects, count = label_objects(mask, connectivity=26)

    def by_kimimaro() -> dict[int, "kimimaro.Skeleton"]:
        return kimimaro.skeletonize(
            objects,
            teasar_params=TEASAR,
            dust_threshold=0,
            anisotropy=SPACING_UM,
            fix_branching=True,
            progress=False,
            parallel=1,
        )

    lines = thin(mask)
    length = skeleton_length_um(lines, spacing_um=SPACING_UM)
    peers = by_kimimaro()
    peer_length = float(sum(skeleton.cable_length() for skeleton in peers.values()))
    components = label_objects(lines, connectivity=26)[1]
    is_seamless = is_the_same_by_blocks(mask, lines)
    del lines
    apart = abs(length / peer_length - 1)
    against.compare(
        name,
        partial(thin, mask),
        {"kimimaro": against.Peer(by_kimimaro, 15, "kimimaro")},
        target="T16",
        rounds=options.rounds,
        identical=is_seamless,
        most_mib=MOST_BYTES * options.size**3 / against.MIB,
        memory_words=f"{MOST_BYTES:g} bytes a voxel, as many objects, length within {MOST_APART:.0%}, no seams",
        also_holds=components == count == len(peers) and apart <= MOST_APART,
        objects=count,
        components=components,
        components_peer=len(peers),
        length_voxels=round(length, 1),
        length_voxels_peer=round(peer_length, 1),
    )


if __name__ == "__main__":
    main()
