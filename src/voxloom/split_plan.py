"""Plans a split: cuts volumes into blocks, draws their parts, and trims a gap between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxloom import boxes
from voxloom.boxes import Box
from voxloom.errors import SplitError
from voxloom.split_units import Unit, balanced_folds, balanced_parts
from voxloom.volume import Vector

Reach = tuple[int | None, int | None, int | None]
Count = Callable[[str, Sequence[Box]], NDArray[np.int64]]


@dataclass(frozen=True)
class SplitVolume:
    """A volume that is to be split.

    Parameters
    ----------
    name, region : str
    shape : tuple of int
        (Z, Y, X).
    spacing_um : tuple of float
        Voxel edge lengths (Z, Y, X), in micrometres.
    """

    name: str
    region: str
    shape: tuple[int, int, int]
    spacing_um: Vector


@dataclass(frozen=True)
class SplitSettings:
    """The keys of a task's ``split`` section, under their own names.

    Parameters
    ----------
    by : {"block", "volume", "region", "box"}
        The unit that is kept together.
    block_um : sequence of float or None
        Edges (Z, Y, X) of a block in um; None is the whole axis.
    gap_um : float
        Least distance between parts in um.
    test_fraction, validation_fraction : float
        Share of the units. With several folds each tests once, and `test_fraction` has no effect.
    test_slices : int or None
        Exact number of whole XY slices that test.
    folds : int
        1, or the number of cross-validation folds.
    min_foreground_voxels : int
        Training boxes with fewer are left out.
    boxes : sequence of dict
        For by "box": keys fold, volume, part and optionally z, y, x as [from, to].
    """

    by: str
    block_um: Sequence[float | None]
    gap_um: float
    test_fraction: float
    validation_fraction: float
    test_slices: int | None = None
    folds: int = 1
    min_foreground_voxels: int = 0
    boxes: Sequence[Mapping[str, Any]] = field(default=())


@dataclass(frozen=True)
class Piece:
    """A box of a volume and the part that it is for.

    Parameters
    ----------
    volume : str
    block : int
        Number of the block in its volume; what is trimmed off a block keeps its number.
    box : Box
    part : str
        One of `voxloom.split.PARTS`.
    """

    volume: str
    block: int
    box: Box
    part: str


def gap_voxels(volume: SplitVolume, *, gap_um: float, reach_voxels: Sequence[Reach]) -> tuple[int, int, int]:
    """Voxels that must lie between two parts along an axis, for the two to count as apart along it.

    Parameters
    ----------
    volume : SplitVolume
    gap_um : float
    reach_voxels : sequence of tuple
        For every model, how many voxels (Z, Y, X) to each side of a voxel its prediction depends on; None is without
        limit, as in the plane of a network that sees whole slices.

    Returns
    -------
    gap : tuple of int
        The larger of both along (Z, Y, X); no more than the axis is long.
    """
    gap = []
    for axis, (size, spacing) in enumerate(zip(volume.shape, volume.spacing_um, strict=True)):
        wanted = int(np.ceil(gap_um / spacing - 1e-9))
        reaches = [size if reach[axis] is None else int(reach[axis] or 0) for reach in reach_voxels]
        gap.append(min(size, max([wanted, *reaches])))
    return gap[0], gap[1], gap[2]


def _blocks_of(volume: SplitVolume, settings: SplitSettings) -> list[Box]:
    if settings.by in ("volume", "region"):
        return [boxes.whole(volume.shape)]
    edges = [
        None if um is None else um / spacing for um, spacing in zip(settings.block_um, volume.spacing_um, strict=True)
    ]
    if any(edge is not None and edge < 1 for edge in edges):
        raise SplitError(
            f"split.block_um is {list(settings.block_um)}, less than one voxel of {volume.name}; "
            "give edges of many voxels, such as [20, null, null]"
        )
    return boxes.cut(volume.shape, edges)


def by_units(
    volumes: Mapping[str, SplitVolume], count: Count, settings: SplitSettings, rng: np.random.Generator
) -> list[list[Piece]]:
    """Cut every volume into blocks and draw the part of each unit, for every fold; nothing is trimmed yet."""
    pieces: list[tuple[Piece, int]] = []
    units: list[Unit] = []
    names: dict[str, int] = {}
    for volume in volumes.values():
        cut = _blocks_of(volume, settings)
        for block, (box, (annotated, foreground)) in enumerate(zip(cut, count(volume.name, cut), strict=True)):
            key = {"block": f"{volume.name}/{block}", "volume": volume.name, "region": volume.region}[settings.by]
            index = names.setdefault(key, len(names))
            if index == len(units):
                units.append(Unit(annotated=0, foreground=0))
            units[index] = units[index].plus(int(annotated), int(foreground))
            pieces.append((Piece(volume.name, block, box, "excluded"), index))
    if settings.folds > 1:
        assigned = balanced_folds(
            units, folds=settings.folds, validation_fraction=settings.validation_fraction, rng=rng, what=settings.by
        )
    else:
        fractions = {"test": settings.test_fraction, "validation": settings.validation_fraction}
        assigned = [balanced_parts(units, fractions=fractions, rng=rng, what=settings.by)]
    return [[replace(piece, part=parts[unit]) for piece, unit in pieces] for parts in assigned]


def by_test_slices(
    volumes: Mapping[str, SplitVolume], count: Count, settings: SplitSettings, rng: np.random.Generator
) -> list[list[Piece]]:
    """One contiguous run of whole slices in each volume tests; the rest is cut into blocks."""
    wanted = settings.test_slices or 0
    depths = {name: volume.shape[0] for name, volume in volumes.items()}
    total = sum(depths.values())
    if settings.by != "block" or settings.folds != 1:
        raise SplitError(
            f"test_slices: {wanted} is one test set of slices; it needs by: block and folds: 1, "
            f"got by: {settings.by} and folds: {settings.folds}"
        )
    if wanted >= total:
        raise SplitError(f"test_slices: {wanted} leaves nothing of the {total} slices to train on; ask for fewer")
    exact = {name: wanted * depth / total for name, depth in depths.items()}
    runs = {name: int(share) for name, share in exact.items()}
    for name in sorted(exact, key=lambda n: runs[n] - exact[n])[: wanted - sum(runs.values())]:
        runs[name] += 1
    tests: list[Piece] = []
    rest: list[Piece] = []
    for name, volume in volumes.items():
        full = boxes.whole(volume.shape)
        slabs: list[Box] = [((z, z + 1), full[1], full[2]) for z in range(volume.shape[0])]
        first = _representative_run(count(name, slabs), runs[name], rng) if runs[name] else 0
        test: Box = ((first, first + runs[name]), full[1], full[2])
        blocks_before = 0
        for piece in [full] if not runs[name] else boxes.subtract(full, test):
            depth = (piece[0][1] - piece[0][0], *volume.shape[1:])
            for box in _blocks_of(replace(volume, shape=depth), settings):
                z, y, x = box
                shifted = ((z[0] + piece[0][0], z[1] + piece[0][0]), y, x)
                rest.append(Piece(name, blocks_before, shifted, "train"))
                blocks_before += 1
        if runs[name]:
            tests.append(Piece(name, blocks_before, test, "test"))
    units = []
    for name in volumes:
        mine = [piece.box for piece in rest if piece.volume == name]
        units += [Unit(int(annotated), int(foreground)) for annotated, foreground in count(name, mine)]
    parts = balanced_parts(units, fractions={"validation": settings.validation_fraction}, rng=rng, what="block")
    return [[*tests, *(replace(piece, part=part) for piece, part in zip(rest, parts, strict=True))]]


def _representative_run(counts: NDArray[np.int64], length: int, rng: np.random.Generator) -> int:
    """First slice of a run whose foreground share is close to the volume's; one of the best tenth, at random."""
    sums = np.concatenate((np.zeros((1, 2), dtype=np.int64), counts.cumsum(axis=0)))
    windows = sums[length:] - sums[:-length]
    share = windows[:, 1] / np.maximum(windows[:, 0], 1)
    whole = sums[-1, 1] / max(1, sums[-1, 0])
    # least annotated windows last, then by how far their share is from the volume's
    order = np.lexsort((np.abs(share - whole), -windows[:, 0]))
    return int(order[rng.integers(max(1, len(order) // 10))])


def keep_gap(pieces: list[Piece], gaps: Mapping[str, tuple[int, int, int]]) -> list[Piece]:
    """Trim validation away from test, then training away from both; the trimmed remains become the gap."""
    kept = [piece for piece in pieces if piece.part in ("test", "excluded")]
    for part, stronger in (("validation", {"test"}), ("train", {"test", "validation"})):
        walls = {
            name: boxes.as_array([p.box for p in kept if p.volume == name and p.part in stronger]) for name in gaps
        }
        trimmed = []
        for piece in (p for p in pieces if p.part == part):
            box = boxes.trim(piece.box, walls[piece.volume], gap=gaps[piece.volume])
            if box is None:
                trimmed.append(replace(piece, part="gap"))
                continue
            trimmed.append(replace(piece, box=box))
            trimmed += [replace(piece, box=rest, part="gap") for rest in boxes.subtract(piece.box, box)]
        kept += trimmed
    return kept
