"""A split by boxes that a person named: what no box names is training, at a distance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from voxloom import boxes
from voxloom.boxes import Box
from voxloom.errors import SplitError
from voxloom.split_plan import Piece, SplitSettings, SplitVolume


def by_boxes(
    volumes: Mapping[str, SplitVolume], settings: SplitSettings, gaps: Mapping[str, tuple[int, int, int]]
) -> list[list[Piece]]:
    """The named boxes, and what no box names as training; the gap is cut off training, box-shaped all around.

    Parameters
    ----------
    volumes : mapping of str to SplitVolume
    settings : SplitSettings
    gaps : mapping of str to tuple of int
        Voxels (Z, Y, X) between parts, for every volume.

    Returns
    -------
    folds : list of list of Piece

    Raises
    ------
    SplitError
        If a box is outside its volume, overlaps one of another part, or a fold has none.
    """
    folds = []
    unknown = sorted({entry["fold"] for entry in settings.boxes} - set(range(settings.folds)))
    if unknown:
        raise SplitError(
            f"split.boxes names fold {unknown[0]}, but split.folds is {settings.folds}; folds count from 0"
        )
    for fold in range(settings.folds):
        named = [
            Piece(entry["volume"], -1, _range_of(entry, volumes), entry["part"])
            for entry in settings.boxes
            if entry["fold"] == fold
        ]
        if not named:
            raise SplitError(f"split.boxes names no box of fold {fold} (split.folds is {settings.folds}); add one")
        pieces: list[Piece] = []
        for name, volume in volumes.items():
            mine = [piece for piece in named if piece.volume == name]
            _refuse_overlap(mine, fold)
            pieces += _fill_with_training(volume, mine, gaps[name])
        folds.append(pieces)
    return folds


def _range_of(entry: Mapping[str, Any], volumes: Mapping[str, SplitVolume]) -> Box:
    if entry["volume"] not in volumes:
        raise SplitError(f"split.boxes names volume {entry['volume']!r}; known volumes: {', '.join(volumes)}")
    shape = volumes[entry["volume"]].shape
    ranges = []
    for axis, size in zip("zyx", shape, strict=True):
        first, last = entry.get(axis) or (0, size)
        if not 0 <= first < last <= size:
            raise SplitError(
                f"split.boxes: {axis}: [{first}, {last}] is not a range of volume {entry['volume']}, "
                f"which has {size} voxels along {axis}; give [from, to] with 0 <= from < to <= {size}"
            )
        ranges.append((int(first), int(last)))
    return ranges[0], ranges[1], ranges[2]


def _refuse_overlap(pieces: Sequence[Piece], fold: int) -> None:
    for index, piece in enumerate(pieces):
        for other in pieces[:index]:
            if piece.part != other.part and boxes.intersect(piece.box, other.box):
                raise SplitError(
                    f"split.boxes of fold {fold}, volume {piece.volume}: {other.part} {other.box} and {piece.part} "
                    f"{piece.box} share voxels; move one of them"
                )


def _fill_with_training(volume: SplitVolume, named: Sequence[Piece], gap: Sequence[int]) -> list[Piece]:
    whole = boxes.whole(volume.shape)
    placed: dict[str, list[Box]] = {}
    for part in ("test", "unused", "validation"):  # boxes of one part may overlap: each voxel is given once
        placed[part] = []
        for piece in named:
            if piece.part == part:
                placed[part] += boxes.subtract_all([piece.box], placed[part])
    cut_off: list[Box] = []
    validation: list[Box] = []
    walls = boxes.as_array(placed["test"])
    for box in placed["validation"]:
        kept = boxes.trim(box, walls, gap=gap)
        validation += [kept] if kept else []
        cut_off += boxes.subtract(box, kept) if kept else [box]
    given = placed["test"] + placed["unused"] + validation + cut_off
    free = boxes.subtract_all([whole], given)
    guarded = [boxes.grow(box, gap, within=whole) for box in placed["test"] + validation]
    training = boxes.subtract_all([whole], guarded + placed["unused"] + cut_off)
    gap_boxes = cut_off + boxes.subtract_all(free, training)
    parts = {
        "test": placed["test"],
        "validation": validation,
        "train": training,
        "gap": gap_boxes,
        "excluded": placed["unused"],
    }
    numbered = [(part, box) for part, held in parts.items() for box in held]
    return [Piece(volume.name, number, box, part) for number, (part, box) in enumerate(numbered)]
