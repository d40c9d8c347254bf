"""Where fascicles, vessels and cells lie in the phantom: signed distances in micrometres, negative inside."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voxloom.phantom_fibres import Fibres, Floats, fibrous_noise, sample_along_fibres

FAR_UM = 1e3
"""Distance of a voxel that nothing was drawn near."""

STEEP = np.array([2.5, 1.0, 1.0])
"""Capillaries cross the XY plane more often than they run in it, as in the volume measured."""

CELL_TRIES = 60
"""Places tried for every cell that fits in, before a crowded volume is taken as full."""


@dataclass(frozen=True)
class Region:
    """What a part of the brain holds, and how bright it is.

    Parameters
    ----------
    axon_fraction, lumen_fraction, cell_fraction : float
        Shares of the volume.
    bundle_width_um : tuple of float
        Narrowest and widest fascicle, across.
    bundle_elongation : float
        Longer over shorter diameter of a fascicle's cross section, on average.
    fibre_tilt_degrees : float
        Standard deviation of the angle between fibres and the XY plane.
    neuropil_grey, axon_grey : float
        Mean grey values before drift.
    """

    axon_fraction: float
    lumen_fraction: float
    cell_fraction: float
    bundle_width_um: tuple[float, float]
    bundle_elongation: float
    fibre_tilt_degrees: float
    neuropil_grey: float
    axon_grey: float


@dataclass(frozen=True)
class Vessels:
    """Signed distances to the vessel tree.

    Parameters
    ----------
    lumen_um, wall_um : ndarray of float32, shape (Z, Y, X)
        To the inner and to the outer face of the wall; `FAR_UM` away from all vessels.
    """

    lumen_um: Floats
    wall_um: Floats


@dataclass(frozen=True)
class Cells:
    """Cells and their grey values.

    Parameters
    ----------
    distance_um : ndarray of float32, shape (Z, Y, X)
        Signed distance to the nearest cell's surface; `FAR_UM` away from all cells.
    grey : ndarray of float32, shape (Z, Y, X)
        Grey value of the cell there: dark rim, lighter nucleus, dark nucleolus.
    """

    distance_um: Floats
    grey: Floats


def draw_bundles(fibres: Fibres, *, region: Region, rng: np.random.Generator) -> Floats:
    """Lay fascicles along the fibres until they fill the region's share.

    Parameters
    ----------
    fibres : Fibres
        Where every voxel lies.
    region : Region
        Gives share and widths.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    distance_um : ndarray of float32, shape (Z, Y, X)
        About the signed distance to the nearest fascicle's surface; `FAR_UM` where the region has none.
    """
    if region.axon_fraction == 0:
        return np.full(fibres.along_um.shape, FAR_UM, dtype=np.float32)
    step_um = 3.0
    reach = [float(np.abs(g).max()) + 2 * step_um for g in (fibres.along_um, fibres.across_um, fibres.aside_um)]
    half = [int(np.ceil(r / step_um)) for r in reach]
    along, across, aside = np.meshgrid(
        *((np.arange(-n, n + 1, dtype=np.float32) * np.float32(step_um)) for n in half), indexing="ij", sparse=True
    )
    distance = np.full([2 * n + 1 for n in half], FAR_UM, dtype=np.float32)
    low, high = region.bundle_width_um
    covered, target = 0.0, region.axon_fraction * 4 * reach[1] * reach[2]
    placed: list[tuple[float, float, float]] = []
    for _ in range(2000):
        if covered > target:
            break
        half_width = 0.5 * np.exp(rng.uniform(np.log(low), np.log(high)))
        half_length = half_width * rng.uniform(1.0, 2 * region.bundle_elongation - 1)
        centre = rng.uniform(-1, 1, 2) * np.array(reach[1:])
        size = float(np.sqrt(half_width * half_length))
        if any(np.hypot(centre[0] - a, centre[1] - b) < 0.85 * (size + other) for a, b, other in placed):
            continue
        placed.append((centre[0], centre[1], size))
        covered += np.pi * half_width * half_length
        wave_um, phases = rng.uniform(150, 400), rng.uniform(0, 2 * np.pi, 3)
        v = across - centre[0] - 7 * np.sin(2 * np.pi * along / wave_um + phases[0])
        w = aside - centre[1] - 7 * np.sin(2 * np.pi * along / wave_um + phases[1])
        angle = rng.uniform(0, np.pi)
        p, q = v * np.cos(angle) + w * np.sin(angle), w * np.cos(angle) - v * np.sin(angle)
        swell = 1 + 0.15 * np.sin(2 * np.pi * along / wave_um + phases[2])
        radius = np.sqrt((p / half_width) ** 2 + (q / half_length) ** 2)
        np.minimum(distance, (radius - swell) * half_width, out=distance)
    surface = sample_along_fibres(distance, (step_um,) * 3, fibres)
    surface += np.float32(2.0) * fibrous_noise(fibres, along_um=30.0, across_um=5.0, rng=rng)  # frayed into strands
    surface -= np.quantile(surface[::2, ::2, ::2], region.axon_fraction)
    return surface


def _walk(
    start: NDArray[np.float64], heading: NDArray[np.float64], *, extent: NDArray[np.float64], bend: float,
    rng: np.random.Generator,
) -> NDArray[np.float64]:  # fmt: skip
    """Return points every micrometre of a bending path from `start` until it leaves the volume by 12 um."""
    points = [start]
    turn = np.zeros(3)
    for _ in range(int(3 * np.linalg.norm(extent))):
        turn = 0.97 * turn + bend * rng.standard_normal(3)
        heading = heading + 0.06 * turn
        heading /= np.linalg.norm(heading)
        points.append(points[-1] + heading)
        if np.any(points[-1] < -12) or np.any(points[-1] > extent + 12):
            break
    return np.array(points)


def grow_tree(
    extent: NDArray[np.float64], *, region: Region, rng: np.random.Generator
) -> list[tuple[NDArray[np.float64], NDArray[np.float64], float]]:
    """Grow a vessel tree: a larger vessel across the volume, and capillaries that branch off and on.

    Parameters
    ----------
    extent : ndarray of float, shape (3,)
        The volume's edges (Z, Y, X), in micrometres.
    region : Region
        Gives the share of the lumina.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    branches : list of (points, radii, wall)
        Points every micrometre, lumen radius at each, thickness of the wall; all in micrometres.
    """
    volume_um3 = float(np.prod(extent))
    target = region.lumen_fraction * volume_um3
    branches: list[tuple[NDArray[np.float64], NDArray[np.float64], float]] = []
    visited: set[tuple[int, ...]] = set()

    def add(points: NDArray[np.float64], radius: float, wall: float) -> float:
        knots = np.arange(0, len(points) + 20, 20)
        waist = np.interp(np.arange(len(points)), knots, 0.1 * rng.standard_normal(len(knots)))
        radii = radius * np.clip(1 + waist, 0.8, 1.2)
        branches.append((points, radii, wall))
        visited.update(map(tuple, (points // 15).astype(int).tolist()))
        inside = np.all((points > 0) & (points < extent), axis=1)
        return float((np.pi * radii**2 * inside).sum())

    # The trunk takes at most a fifth of the share, so that a small crop still has capillaries.
    length = float(extent.min())
    widest = np.sqrt(0.2 * target / (np.pi * length))
    radius = float(np.clip(min(rng.uniform(7, 13), widest), 3.5, 13))
    start = extent * rng.uniform(0.25, 0.75, 3)
    heading = 0.35 * rng.standard_normal(3)
    heading[rng.integers(3)] = 1.0
    heading /= np.linalg.norm(heading)
    back, ahead = (_walk(start, way, extent=extent, bend=0.1, rng=rng) for way in (-heading, heading))
    filled = add(np.concatenate([back[:0:-1], ahead]), radius, 3.5)
    while filled < target:
        trials = []
        for _ in range(4):  # the trial that reaches most new ground: capillaries supply everything
            parent = branches[rng.integers(len(branches))][0]
            at = int(rng.choice(np.flatnonzero(np.all((parent > 0) & (parent < extent), axis=1))))
            course = parent[min(at + 1, len(parent) - 1)] - parent[max(at - 1, 0)]
            heading = (np.cross(course, rng.standard_normal(3)) + 0.5 * course) * STEEP
            points = _walk(parent[at], heading / np.linalg.norm(heading), extent=extent, bend=0.35, rng=rng)
            places = list(map(tuple, (points // 15).astype(int).tolist()))
            trials.append((sum(place not in visited for place in places) / len(places), points))
        _, points = max(trials, key=lambda trial: trial[0])
        radius = float(np.clip(2.75 * np.exp(0.16 * rng.standard_normal()), 2.1, 4.0))
        filled += add(points, radius, float(rng.uniform(2.1, 3.2)))
    return branches


def _window(
    centre: NDArray[np.float64], reach_um: float, shape: tuple[int, ...], spacing: NDArray[np.float64]
) -> tuple[tuple[slice, ...], list[NDArray[np.float64]]] | None:
    """Return the slices within `reach_um` of a point and the offsets from it along each axis, None outside."""
    low = np.maximum(np.ceil((centre - reach_um) / spacing), 0).astype(int)
    high = np.minimum(np.floor((centre + reach_um) / spacing) + 1, shape).astype(int)
    if np.any(low >= high):
        return None
    offsets = [np.arange(a, b) * s - c for a, b, s, c in zip(low, high, spacing, centre, strict=True)]
    return tuple(slice(a, b) for a, b in zip(low, high, strict=True)), offsets


def draw_vessels(
    shape: tuple[int, int, int], spacing_um: tuple[float, float, float], *, region: Region, rng: np.random.Generator
) -> Vessels:
    """Grow a vessel tree and measure every voxel near it.

    Parameters
    ----------
    shape : tuple of int
        Voxels (Z, Y, X).
    spacing_um : tuple of float
        Voxel edge lengths.
    region : Region
        Gives the share of the lumina.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    vessels : Vessels
        Distances are exact within 3 um of the wall's outer face.
    """
    spacing = np.asarray(spacing_um, dtype=float)
    branches = grow_tree(np.asarray(shape) * spacing, region=region, rng=rng)
    lumen = np.full(shape, FAR_UM, dtype=np.float32)
    wall = np.full(shape, FAR_UM, dtype=np.float32)
    for points, radii, thickness in branches:
        for point, radius in zip(points, radii, strict=True):
            found = _window(point, radius + thickness + 3.0, shape, spacing)
            if found is None:
                continue
            box, (z, y, x) = found
            centre_distance = np.sqrt(z[:, None, None] ** 2 + y[None, :, None] ** 2 + x[None, None, :] ** 2)
            inner = (centre_distance - radius).astype(np.float32)
            np.minimum(lumen[box], inner, out=lumen[box])
            np.minimum(wall[box], inner - np.float32(thickness), out=wall[box])
    return Vessels(lumen_um=lumen, wall_um=wall)


def draw_cells(
    shape: tuple[int, int, int], spacing_um: tuple[float, float, float], *, region: Region, bundles: Floats,
    vessels: Vessels, rng: np.random.Generator,
) -> Cells:  # fmt: skip
    """Put cells beside fascicles and vessels, few inside fascicles, until they fill the region's share.

    Parameters
    ----------
    shape : tuple of int
        Voxels (Z, Y, X).
    spacing_um : tuple of float
        Voxel edge lengths.
    region : Region
        Gives the share.
    bundles : ndarray of float32, shape (Z, Y, X)
        Signed distance to the fascicles, in micrometres.
    vessels : Vessels
        Cells stay outside of them.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    cells : Cells
        Ellipsoids 6.4 to 14 um wide that don't touch each other. A crowded volume holds fewer than asked for.
    """
    spacing = np.asarray(spacing_um, dtype=float)
    distance = np.full(shape, FAR_UM, dtype=np.float32)
    grey = np.zeros(shape, dtype=np.float32)
    target = region.cell_fraction * np.prod(np.asarray(shape) * spacing)
    filled = 0.0
    tries = int(CELL_TRIES * (1 + target / 400))
    for _ in range(tries):
        if filled >= target:
            break
        radius = float(np.clip(0.5 * 11.0 * np.exp(0.17 * rng.standard_normal()), 3.2, 7.0))
        place = tuple(int(rng.integers(n)) for n in shape)
        in_bundle = rng.random() < 0.04
        if not in_bundle and bundles[place] < 0.7 * radius:
            continue
        if vessels.wall_um[place] < radius + 0.5 or distance[place] < 1.25 * radius:
            continue
        stretch = np.exp(0.18 * rng.standard_normal(3))
        found = _window(np.asarray(place) * spacing, 2.6 * radius, shape, spacing)
        assert found is not None  # the centre lies in the volume
        box, offsets = found
        z, y, x = (o / (radius * s) for o, s in zip(offsets, stretch / np.cbrt(stretch.prod()), strict=True))
        q = np.sqrt(z[:, None, None] ** 2 + y[None, :, None] ** 2 + x[None, None, :] ** 2)
        surface = ((q - 1) * radius).astype(np.float32)
        rim, nucleus = rng.normal(0, 5), rng.normal(74, 18)
        inside = rim + max(nucleus, 0.0) * np.clip((0.70 - q) * radius + 0.5, 0, 1)
        shift = rng.normal(0, 0.12, 3)
        core = np.sqrt((z[:, None, None] - shift[0]) ** 2 + (y[None, :, None] - shift[1]) ** 2
                       + (x[None, None, :] - shift[2]) ** 2) * radius  # fmt: skip
        inside = np.where((core < 1.3) & (nucleus > 15), rim - 8, inside)
        nearer = surface < distance[box]
        grey[box][nearer] = inside[nearer]
        distance[box][nearer] = surface[nearer]
        filled += 4 / 3 * np.pi * radius**3
    return Cells(distance_um=distance, grey=grey)
