"""The volumes that the benchmarks of instances are given: touching cells with noisy affinities, and thin fibres."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.ndimage as ndi
from numpy.typing import NDArray

from voxloom.affinities import NEAREST, Offsets
from voxloom.instances import label_objects, remove_small_objects
from voxloom.partitions import adapted_rand, contingency

VOXELS_A_CELL = 20_000
SPECIMENS = 8
LEAST_FIBRE_VOXELS = 200


def cells(size: int, specimen: int = 0) -> NDArray[np.uint32]:
    """Voronoi cells around random points, which fill a cube."""
    rng = np.random.default_rng(3 + specimen)
    points = rng.integers(0, size, (max(30, size**3 // VOXELS_A_CELL), 3))
    numbers = np.zeros((size,) * 3, np.uint32)
    numbers[tuple(points.T)] = np.arange(1, len(points) + 1)
    nearest = ndi.distance_transform_edt(numbers == 0, return_distances=False, return_indices=True)
    return numbers[tuple(nearest)]


def affinities(labels: NDArray[np.uint32], offsets: Offsets = NEAREST) -> NDArray[np.float32]:
    """What a fair network would predict of cells: blurred, noisy, between 0 and 1."""
    rng = np.random.default_rng(0)
    found = np.zeros((len(offsets), *labels.shape), np.float32)
    for channel, offset in zip(found, offsets, strict=True):
        here = tuple(slice(max(0, -k), n - max(0, k)) for k, n in zip(offset, labels.shape, strict=True))
        there = tuple(slice(max(0, k), n + min(0, k)) for k, n in zip(offset, labels.shape, strict=True))
        channel[here] = labels[here] == labels[there]
        channel[:] = ndi.gaussian_filter(channel, 0.7) + rng.normal(0, 0.12, labels.shape)
    return found.clip(0.001, 0.999, out=found)


def errors(
    size: int, segment: Callable[[NDArray[np.uint32]], tuple[Callable[[], NDArray[Any]], Callable[[], NDArray[Any]]]]
) -> dict[str, Any]:
    """Adapted Rand errors over several specimens of what ours and a peer make of them, for a record.

    Ties among voxels are decided otherwise by each, which moves the error of one specimen either way: ours is no worse
    where its mean isn't above the peer's by more than the standard error of the difference.
    """
    found = []
    for specimen in range(SPECIMENS):
        truth = cells(size, specimen)
        found.append([adapted_rand(contingency(make(), truth)).error for make in segment(truth)])
    (ours, peer), difference = np.mean(found, axis=0), -np.diff(found)[:, 0]
    uncertain = float(difference.std(ddof=1) / SPECIMENS**0.5)
    return {
        "adapted_rand_error": round(float(ours), 4),
        "adapted_rand_error_peer": round(float(peer), 4),
        "adapted_rand_difference": f"{difference.mean():+.4f} ± {uncertain:.4f} over {SPECIMENS} specimens",
        "is_no_worse": bool(difference.mean() <= uncertain),
    }


def landscape(near: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.uint32]]:
    """Heights of a watershed between cells, and a seed in the middle of what is surely inside one."""
    inside = near[:3].mean(axis=0)
    depth = ndi.distance_transform_edt(inside > 0.5)
    peaks = (ndi.maximum_filter(depth, 7) == depth) & (depth > 1)
    return np.rint(255 * (1 - inside)).astype(np.uint8), label_objects(peaks, connectivity=6)[0]


def fibres(size: int) -> NDArray[np.bool_]:
    """Bending tubes of a radius of 1.2 to 2.5 voxels, one to two of a hundred voxels; without crumbs at the border."""
    rng = np.random.default_rng(size)
    mask = np.zeros((size,) * 3, np.bool_)
    for path in _paths(rng, round(140 * (size / 256) ** 2), size):
        radius = rng.uniform(1.2, 2.5)
        reach = int(np.ceil(radius))
        offsets = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
        ball = offsets[(offsets**2).sum(axis=1) <= radius**2]
        voxels = (np.rint(path).astype(np.int64)[:, None] + ball).reshape(-1, 3)
        voxels = voxels[((voxels >= 0) & (voxels < size)).all(axis=1)]
        mask[tuple(voxels.T)] = True
    return remove_small_objects(mask, min_size_voxels=LEAST_FIBRE_VOXELS, connectivity=26)


def _paths(rng: np.random.Generator, count: int, size: int) -> Iterator[NDArray[np.float64]]:
    """Smooth random walks in steps of one voxel, from anywhere until they leave the cube."""
    for _ in range(count):
        heading = rng.normal(size=3)
        place, path = rng.uniform(0, size, 3), []
        while len(path) < 3 * size and ((place >= 0) & (place < size)).all():
            path.append(place)
            heading = heading / np.linalg.norm(heading) + 0.05 * rng.normal(size=3)
            place = place + heading / np.linalg.norm(heading)
        yield np.array(path)
