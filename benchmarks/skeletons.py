"""Centre lines of thin fibres (T16), against kimimaro's of the same objects, and by blocks against one piece.

    python benchmarks/skeletons.py [--size 256] [--rounds 3]

Kimimaro extends its lines to the tips of an object, thinning ends a little before them: lengths agree where fibres are
much longer than thick. It is a peer of the benchmarks only (GPL), never imported by the library.
"""

import argparse
import importlib.util

import cells
import numpy as np
import timing
from numpy.typing import NDArray

from voxloom.instances import label_objects
from voxloom.skeleton import skeleton_length_um
from voxloom.thinning import BYTES_PER_VOXEL, REACH, thin, thin_volume

LEAST, MOST_BYTES, MOST_APART = 15.0, 12.0, 0.02
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    name = f"centre lines of fibres, {options.size}³"
    if importlib.util.find_spec("kimimaro") is None:
        timing.skip(name, target="T16", why="kimimaro is not installed")
        return
    import kimimaro

    timing.pin(1)
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
    seconds = timing.interleaved({"ours": lambda: thin(mask), "kimimaro": by_kimimaro}, rounds=options.rounds)
    faster = timing.ratio(seconds["kimimaro"], seconds["ours"])
    peak, peer_peak = timing.peak_mib(lambda: thin(mask)), timing.peak_mib(by_kimimaro)
    bytes_per_voxel = peak * 2**20 / options.size**3
    apart = abs(length / peer_length - 1)
    timing.record(
        name,
        target="T16",
        ours=round(float(np.median(seconds["ours"])), 4),
        peer=round(float(np.median(seconds["kimimaro"])), 4),
        peer_name="kimimaro",
        ratio=round(faster, 1),
        limit=f"at least {LEAST:g} times as fast, {MOST_BYTES:g} B/voxel, as many objects, length within "
        f"{MOST_APART:.0%}, no seams",
        peak_mib=round(peak),
        peak_mib_peer=round(peer_peak),
        bytes_per_voxel=round(bytes_per_voxel, 1),
        identical=is_seamless,
        holds=bool(
            faster >= LEAST
            and bytes_per_voxel <= MOST_BYTES
            and components == count == len(peers)
            and apart <= MOST_APART
            and is_seamless
        ),
        objects=count,
        components=components,
        components_peer=len(peers),
        length_voxels=round(length, 1),
        length_voxels_peer=round(peer_length, 1),
    )


if __name__ == "__main__":
    main()
