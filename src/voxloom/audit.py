"""Proves that the parts of a split are apart, and looks for slices of training that test holds once more."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from voxloom import boxes
from voxloom.blocks import Readable
from voxloom.boxes import Box
from voxloom.deferred import Deferred
from voxloom.errors import SplitError
from voxloom.split import boxes_of
from voxloom.split_plan import SplitVolume

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = Deferred("pandas")

COLUMNS = ("check", "fold", "volume_a", "volume_b", "value", "unit", "limit", "verdict", "detail")
PAIRS = (("train", "test"), ("train", "validation"), ("validation", "test"))
THUMBNAIL = 32
"""Edge in pixels to which slices are shrunk before they are compared."""

SLAB_VOXELS = 1 << 26
"""Voxels that are read at once."""

LAYER_SLICES = 64
"""Slices that a store holds in one piece."""

ROUNDING = 1e-4
"""Of a slice's mean; thumbnails whose pixels differ less are of one value but for the rounding of float32."""

MAX_SLICES = 4000
"""Most slices of a part that are compared, evenly chosen; bounds time and memory."""


def distances(
    split: pd.DataFrame, volumes: Sequence[SplitVolume], *, gaps: Mapping[str, tuple[int, int, int]]
) -> pd.DataFrame:
    """Smallest distance between the parts of a split, measured on the boxes themselves.

    Parameters
    ----------
    split : DataFrame
        From `voxloom.split.make_split`.
    volumes : sequence of SplitVolume
    gaps : mapping of str to tuple of int
        Voxels (Z, Y, X) that must lie between along one axis at least; from `voxloom.split.gap_voxels`.

    Returns
    -------
    table : DataFrame
        Columns `COLUMNS`, one row for every fold, volume and pair of parts. `value` is what lies between the closest
        boxes along the axis that keeps them furthest apart, `limit` the gap along that axis, both in um; the verdict is
        "ok" or "violated". Without such a pair in a volume, `value` and `limit` are not numbers and the verdict "ok".
    """
    rows = []
    for fold in sorted(set(split["fold"])):
        for volume in volumes:
            for first, second in PAIRS:
                row = _closest(
                    boxes_of(split, fold=fold, volume=volume.name, part=first),
                    boxes_of(split, fold=fold, volume=volume.name, part=second),
                    gap=gaps[volume.name],
                    spacing_um=volume.spacing_um,
                )
                row |= {"check": f"distance {first}-{second}", "fold": fold}
                rows.append(row | {"volume_a": volume.name, "volume_b": volume.name, "unit": "um"})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _closest(
    first: Sequence[Box], second: Sequence[Box], *, gap: Sequence[int], spacing_um: Sequence[float]
) -> dict[str, Any]:
    """The pair of boxes with the least to spare on its best axis."""
    if not first or not second:
        return {"value": np.nan, "limit": np.nan, "verdict": "ok", "detail": "not both parts are in this volume"}
    others = boxes.as_array(second)
    least: tuple[float, int, Box, int, int] | None = None
    for box in first:
        one = np.asarray(box)
        between = np.maximum(one[:, 0], others[:, :, 0]) - np.minimum(one[:, 1], others[:, :, 1])
        # to spare along an axis, in um; touching boxes (0 between) are apart when no gap is asked for
        spare = np.where(between >= 0, (between - np.asarray(gap)) * np.asarray(spacing_um), -np.inf)
        axis = spare.argmax(axis=1)
        to_spare = spare[np.arange(len(axis)), axis]
        tightest = int(to_spare.argmin())
        if least is None or to_spare[tightest] < least[0]:
            voxels = int(between[tightest, axis[tightest]])
            least = (float(to_spare[tightest]), tightest, box, int(axis[tightest]), voxels)
    assert least is not None
    spare_um, index, box, axis_, voxels = least
    name = "ZYX"[axis_]
    other = second[index]
    return {
        "value": max(0, voxels) * spacing_um[axis_],
        "limit": gap[axis_] * spacing_um[axis_],
        "verdict": "ok" if spare_um >= 0 else "violated",
        "detail": f"{max(0, voxels)} voxel(s) along {name}, {gap[axis_]} needed (Z, Y, X: "
        f"{gap[0]}, {gap[1]}, {gap[2]}), between {_in_words(box)} and {_in_words(other)}",
    }


def _in_words(box: Box) -> str:
    return " ".join(f"{axis} {first}:{last}" for axis, (first, last) in zip("zyx", box, strict=True))


def duplicates(split: pd.DataFrame, images: Mapping[str, Readable], *, duplicate_correlation: float) -> pd.DataFrame:
    """Look for slices of training that are nearly the same as a slice of test, in the same volume or another.

    Parameters
    ----------
    split : DataFrame
        From `voxloom.split.make_split`.
    images : mapping of str to array-like, shape (Z, Y, X)
        Grey values of every volume.
    duplicate_correlation : float
        Correlation from which two slices are reported.

    Returns
    -------
    table : DataFrame
        Columns `COLUMNS`, one row for every fold and pair of volumes that train and test: the highest correlation,
        with the verdict "ok" or "warning" and how many pairs of slices reach the limit.

    Notes
    -----
    Each box's XY slices are shrunk to `THUMBNAIL` pixels an edge by averaging and compared by Pearson correlation,
    `MAX_SLICES` a part at most, evenly chosen. Mirrored, turned or shifted copies are not found. Neighbouring slices of
    smooth tissue can be alike without being copies: a warning is a reason to look, not a proof.
    """
    rows = []
    for fold in sorted(set(split["fold"])):
        train = _Thumbnails.of(split, images, fold=int(fold), part="train")
        test = _Thumbnails.of(split, images, fold=int(fold), part="test")
        for volume_a in train.volumes():
            for volume_b in test.volumes():
                found = _most_alike(train.only(volume_a), test.only(volume_b), duplicate_correlation)
                row = {"check": "near-duplicate slices train-test", "fold": fold, "unit": "correlation"}
                rows.append(row | {"volume_a": volume_a, "volume_b": volume_b} | found)
    return pd.DataFrame(rows, columns=list(COLUMNS))


class _Thumbnails:
    """Standardised small images of slices, and where each is from."""

    def __init__(self, pixels: NDArray[np.float32], places: list[tuple[str, int]], step: int) -> None:
        self.pixels = pixels  # (n, THUMBNAIL ** 2), each row of mean 0 and length 1
        self.places = places
        self.step = step

    @classmethod
    def of(cls, split: pd.DataFrame, images: Mapping[str, Readable], *, fold: int, part: str) -> _Thumbnails:
        slices = [(name, box) for name in images for box in boxes_of(split, fold=fold, volume=name, part=part)]
        total = sum(box[0][1] - box[0][0] for _, box in slices)
        step = max(1, -(-total // MAX_SLICES))
        pixels, places = [], []
        for name, image in images.items():
            for z, thumbnail in _shrunk(image, [box for of, box in slices if of == name], step):
                pixels.append(thumbnail)
                places.append((name, z))
        empty = np.zeros((0, THUMBNAIL**2), dtype=np.float32)
        return cls(np.stack(pixels) if pixels else empty, places, step)

    def volumes(self) -> list[str]:
        return list(dict.fromkeys(name for name, _ in self.places))

    def only(self, volume: str) -> _Thumbnails:
        chosen = [index for index, (name, _) in enumerate(self.places) if name == volume]
        return _Thumbnails(self.pixels[chosen], [self.places[index] for index in chosen], self.step)


def _shrunk(image: Readable, boxes: Sequence[Box], step: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Standardised thumbnails of every `step`-th slice of each box; a slice without contrast is left out.

    Boxes beside each other in Z are read together: a store's chunks are `LAYER_SLICES` deep.
    """
    slices: dict[tuple[tuple[int, int], tuple[int, int]], set[int]] = {}
    for (first, last), y, x in boxes:
        slices.setdefault((y, x), set()).update(range(first, last, step))
    for (y, x), wanted in slices.items():
        height, width = y[1] - y[0], x[1] - x[0]
        fits = max(1, SLAB_VOXELS // max(1, height * width))
        depth = 1 << min(LAYER_SLICES, fits).bit_length() - 1  # a part of a layer, so that none is read for two slabs
        rows, columns = _averaging(height), _averaging(width).T
        for _, group in itertools.groupby(sorted(wanted), key=lambda z: z // depth):
            together = list(group)
            slab = image[together[0] : together[-1] + 1, y[0] : y[1], x[0] : x[1]]
            for z in together:
                small = rows @ slab[z - together[0]].astype(np.float32) @ columns
                mean = float(small.mean())
                small -= mean
                length = float(np.linalg.norm(small))
                if length > max(1e-3, ROUNDING * mean):
                    yield z, (small / length).reshape(-1)


def _averaging(size: int) -> NDArray[np.float32]:
    """The matrix (`THUMBNAIL`, size) that shrinks one axis by averaging, or stretches it by repetition."""
    starts = np.arange(THUMBNAIL) * size // THUMBNAIL
    ends = np.maximum(np.append(starts[1:], size), starts + 1)
    at = np.arange(size)
    inside = (starts[:, None] <= at) & (at < ends[:, None])
    return (inside / inside.sum(axis=1, keepdims=True)).astype(np.float32)


def _most_alike(train: _Thumbnails, test: _Thumbnails, limit: float) -> dict[str, Any]:
    best, where, alike = -np.inf, (0, 0), 0
    for first in range(0, len(test.pixels), 256):
        correlation = test.pixels[first : first + 256] @ train.pixels.T
        alike += int(np.count_nonzero(correlation >= limit))
        highest = int(correlation.argmax())
        if correlation.flat[highest] > best:
            row, column = divmod(highest, correlation.shape[1])
            best, where = float(correlation.flat[highest]), (first + row, column)
    detail = f"slice {train.places[where[1]][1]} of training and {test.places[where[0]][1]} of test are most alike"
    if alike:
        detail += f"; {alike} pair(s) of slices reach the limit"
    if max(train.step, test.step) > 1:
        detail += f"; looked at 1 in {train.step} slices of training and 1 in {test.step} of test"
    verdict = "warning" if alike else "ok"
    return {"value": min(best, 1.0), "limit": limit, "verdict": verdict, "detail": detail}


def audited(
    split: pd.DataFrame,
    volumes: Sequence[SplitVolume],
    images: Mapping[str, Readable],
    *,
    gaps: Mapping[str, tuple[int, int, int]],
    duplicate_correlation: float,
) -> pd.DataFrame:
    """Distances and near-duplicates of a split whose parts are far enough apart.

    Parameters
    ----------
    split, volumes, gaps
        As in `distances`.
    images, duplicate_correlation
        As in `duplicates`.

    Returns
    -------
    table : DataFrame
        Columns `COLUMNS`: the rows of both.

    Raises
    ------
    SplitError
        See `refuse_violations`.
    """
    apart = distances(split, volumes, gaps=gaps)
    refuse_violations(apart)
    alike = duplicates(split, images, duplicate_correlation=duplicate_correlation)
    return pd.concat([apart, alike], ignore_index=True)


def refuse_violations(table: pd.DataFrame) -> None:
    """Fail when an audit found parts that are too close.

    Parameters
    ----------
    table : DataFrame
        From `distances` (and `duplicates`, whose warnings pass).

    Raises
    ------
    SplitError
        For the first violation; says where, how close and how far it should be.
    """
    violated = table[table["verdict"] == "violated"]
    if len(violated):
        row = violated.iloc[0]
        raise SplitError(
            f"the split leaks ({len(violated)} violation(s)): fold {row['fold']}, volume {row['volume_a']}, "
            f"{row['check']} is {row['value']:g} um where {row['limit']:g} um are needed: {row['detail']}; "
            "make the split anew, and don't edit its table by hand"
        )
