"""The steps of a recipe on an array: threshold and subtraction (T5), small objects (T6), growth (T7), distances (T8).

    python benchmarks/annotation_steps.py [--only PART ...] [--size 512] [--edt-size 256] [--rounds 5]

Ours, the usual libraries' functions, and for T5 a plain copy take turns on one core. Every result is compared with the
peer's; what works by blocks is compared with the whole.
"""

import argparse
from collections.abc import Callable
from functools import partial

import against
import numpy as np
import scipy.ndimage as ndi
import timing
import tissue
from numpy.typing import NDArray
from skimage import morphology

from voxloom import instances, recipe_plan
from voxloom.blocks import map_blocks
from voxloom.distance import clipped_distance, grow

MIB = against.MIB
BAND, ABOVE = (60, 140), 110
LEAST_OF_COPY = 0.35
MIN_SIZE_VOXELS = 2000
GROW_UM, CLIP_UM = 4.0, 10.0
SLAB = 64

Mask = NDArray[np.bool_]


def copied(nbytes: float) -> Callable[[], None]:
    """Copies half as many bytes: as many are read as are written."""
    source, target = np.ones(int(nbytes) // 8, np.float32), np.zeros(int(nbytes) // 8, np.float32)
    return lambda: np.copyto(target, source)


def threshold_and_subtract(options: argparse.Namespace) -> None:
    for dtype in ("uint8", "uint16"):
        full = 180 if dtype == "uint16" else 1
        shape = (options.size,) * 3
        image = tissue.whole(shape, tissue.greys(shape, dtype))
        low, high, above = (image.dtype.type(value * full) for value in (*BAND, ABOVE))
        nodes = recipe_plan.nodes_of(
            [{"threshold": {"between": [int(low), int(high)]}}, {"subtract": [{"threshold": {"above": int(above)}}]}]
        )
        run = recipe_plan.Run(image, tissue.GEOMETRY.spacing_um, 0.0, 1)
        ours = partial(recipe_plan.evaluate, nodes[-1], run, {"image": image}, (0, 0, 0))

        def plain(image=image, low=low, high=high, above=above) -> Mask:
            return ((image >= low) & (image < high)) & ~(image >= above)

        traffic = image.nbytes + image.size
        seconds = timing.interleaved({"ours": ours, "copy": copied(traffic)}, rounds=options.rounds)
        share = timing.ratio(seconds["copy"], seconds["ours"])
        against.compare(
            f"threshold band minus threshold, {options.size}³ {dtype}",
            ours,
            {"NumPy": against.Peer(plain, 2, "numpy")},
            target="T5",
            rounds=options.rounds,
            identical=np.array_equal(ours(), plain()),
            most_mib=2 * image.size / MIB,
            memory_words=f"at least {LEAST_OF_COPY:.0%} of a copy's bandwidth, the result and a block of memory",
            also_holds=share >= LEAST_OF_COPY,
            traffic=traffic,
            share_of_copy=round(share, 2),
        )


def by_slabs(mask: Mask, connectivity: int, slab: int = SLAB) -> Mask:
    """Small objects removed slab by slab, as from a store; the array is not changed."""
    source, out = mask.view(np.uint8), np.empty(mask.shape, np.uint8)
    instances.remove_small_objects_volume(
        source,
        out,
        min_size_voxels=MIN_SIZE_VOXELS,
        connectivity=connectivity,
        memory_mib=1.001 * slab * mask[0].size * instances.BYTES_PER_VOXEL / MIB,
    )
    return out.view(np.bool_)


def small_objects(options: argparse.Namespace) -> None:
    shape = (options.size,) * 3
    mask = tissue.whole(shape, tissue.masks(shape))
    for connectivity, order, least in ((26, 3, 3.0), (6, 1, 2.0)):
        theirs = partial(morphology.remove_small_objects, mask, max_size=MIN_SIZE_VOXELS - 1, connectivity=order)
        expected = theirs()
        whole = partial(
            instances.remove_small_objects, mask, min_size_voxels=MIN_SIZE_VOXELS, connectivity=connectivity
        )
        slabs = partial(by_slabs, mask, connectivity)
        slab_mib = SLAB * mask[0].size * instances.BYTES_PER_VOXEL / MIB
        for words, ours, factor, most_mib, memory in (
            ("whole", whole, least, 6 * mask.size / MIB, "6 bytes a voxel"),
            ("by slabs", slabs, 2.0, mask.size / MIB + slab_mib, "the result and a slab of memory"),
        ):
            against.compare(
                f"small objects {words}, {connectivity} neighbours, {options.size}³",
                ours,
                {"scikit-image": against.Peer(theirs, factor, "skimage")},
                target="T6",
                rounds=options.rounds,
                identical=np.array_equal(ours(), expected)
                and np.array_equal(by_slabs(mask, connectivity, 7), expected),
                most_mib=most_mib,
                memory_words=memory,
            )


def edts(mask: Mask, spacing_um: tuple[float, ...]) -> NDArray[np.float32]:
    import edt

    return edt.edt(~mask, anisotropy=spacing_um, parallel=1)


def scipys(mask: Mask, spacing_um: tuple[float, ...]) -> NDArray[np.float64]:
    return ndi.distance_transform_edt(~mask, sampling=spacing_um)


def growth(options: argparse.Namespace) -> None:
    shape = (options.edt_size,) * 3
    mask = tissue.whole(shape, tissue.masks(shape))
    for words, spacing_um, least in (("isotropic", (0.65,) * 3, (6, 35)), ("3:1", (1.95, 0.65, 0.65), (2.5, 20))):

        def near(transform: Callable[..., NDArray], spacing_um=spacing_um) -> Mask:
            return transform(mask, spacing_um) <= GROW_UM * (1 + 1e-6)

        ours = partial(grow, mask, spacing_um=spacing_um, grow_um=GROW_UM)
        against.compare(
            f"growth by 4 µm, {words}, {options.edt_size}³",
            ours,
            {
                "edt": against.Peer(partial(near, edts), least[0], "edt"),
                "SciPy": against.Peer(partial(near, scipys), least[1], "scipy"),
            },
            target="T7",
            rounds=options.rounds,
            identical=np.array_equal(ours(), near(scipys)),
            most_mib=3 * mask.size / MIB,
            memory_words="3 bytes a voxel",
        )


def distances(options: argparse.Namespace) -> None:
    shape = (options.edt_size,) * 3
    mask = tissue.whole(shape, tissue.masks(shape))
    for words, spacing_um, least in (("isotropic", (1.0,) * 3, (6, 35)), ("3:1", (3.0, 1.0, 1.0), (4, 20))):

        def clipped(transform: Callable[..., NDArray], spacing_um=spacing_um) -> NDArray[np.float32]:
            return np.minimum(transform(mask, spacing_um), CLIP_UM).astype(np.float32, copy=False)

        transform = partial(clipped_distance, spacing_um=spacing_um, clip_um=CLIP_UM)
        whole, blocks = transform(mask), np.empty(shape, np.float32)
        map_blocks(
            transform,
            mask,
            out=blocks,
            block_shape=[max(1, n // 3) for n in shape],
            halo_voxels=[int(CLIP_UM / s) for s in spacing_um],
        )
        against.compare(
            f"distance clipped at 10, {words}, {options.edt_size}³",
            partial(transform, mask),
            {
                "edt": against.Peer(partial(clipped, edts), least[0], "edt"),
                "SciPy": against.Peer(partial(clipped, scipys), least[1], "scipy"),
            },
            target="T8",
            rounds=options.rounds,
            identical=bool(np.abs(whole - clipped(scipys)).max() <= 1e-6 and np.array_equal(blocks, whole)),
            most_mib=9 * mask.size / MIB,
            memory_words="9 bytes a voxel",
            stage="distance",
        )


PARTS = {"threshold": threshold_and_subtract, "objects": small_objects, "growth": growth, "distance": distances}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--size", type=int, default=512, help="edge of the cube of T5 and T6, in voxels")
    parser.add_argument("--edt-size", type=int, default=256, help="edge of the cube of T7 and T8, in voxels")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    timing.pin(1)
    for part in options.only:
        PARTS[part](options)


if __name__ == "__main__":
    main()
