"""Which test slices a reader should see, and which part of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from voxloom.deferred import Deferred
from voxloom.volume import IGNORE

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = Deferred("pandas")

Ranges = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
Window = tuple[tuple[int, int], tuple[int, int]]

READ_VOXELS = 1 << 26


class ReadsSlices(Protocol):
    """What the report needs of a stored volume; `voxloom.io.StoredVolume` is one."""

    def __getitem__(self, index: tuple[slice, ...]) -> NDArray: ...


@dataclass(frozen=True)
class Case:
    """A slice of a test part, and why it is shown.

    Parameters
    ----------
    fold : str
        Fold whose test part it belongs to.
    volume : str
        Name of the volume.
    z : int
        Slice index.
    tags : tuple of str
        For instance "typical for best"; empty for a slice that only fills the row.
    """

    fold: str
    volume: str
    z: int
    tags: tuple[str, ...] = ()


def slice_confusion(
    prediction: ReadsSlices, truth: ReadsSlices, *, boxes: Sequence[Ranges], stored_threshold: int
) -> pd.DataFrame:
    """Count right and wrong voxels slice by slice, reading a bounded number of voxels at a time.

    Parameters
    ----------
    prediction : array-like, shape (Z, Y, X)
        Stored probabilities; foreground where at least `stored_threshold`.
    truth : array-like of uint8, shape (Z, Y, X)
        0 background, 1 foreground, 255 not annotated.
    boxes : sequence of ((z_from, z_to), (y_from, y_to), (x_from, x_to))
        Half-open voxel ranges to look at, disjoint.
    stored_threshold : int
        On the prediction's stored scale.

    Returns
    -------
    counts : DataFrame
        Columns z, tp, fp, fn, tn (int64), sorted by z; voxels that are not annotated count nowhere.
    """
    totals: dict[int, NDArray[np.int64]] = {}
    for (z_from, z_to), (y_from, y_to), (x_from, x_to) in boxes:
        rows = max(1, min(y_to - y_from, READ_VOXELS // max(1, x_to - x_from)))
        slab = max(1, READ_VOXELS // max(1, rows * (x_to - x_from)))
        for z in range(z_from, z_to, slab):
            for y in range(y_from, y_to, rows):
                where = (slice(z, min(z + slab, z_to)), slice(y, min(y + rows, y_to)), slice(x_from, x_to))
                codes = np.asarray(truth[where])
                positive = np.asarray(prediction[where]) >= stored_threshold
                foreground, background = codes == 1, codes == 0
                counts = [positive & foreground, positive & background, ~positive & foreground, ~positive & background]
                sums = np.stack([np.count_nonzero(part, axis=(1, 2)) for part in counts], axis=1).astype(np.int64)
                for offset, row in enumerate(sums):
                    totals[z + offset] = totals.get(z + offset, np.zeros(4, np.int64)) + row
    table = pd.DataFrame(
        [[z, *totals[z]] for z in sorted(totals)], columns=["z", "tp", "fp", "fn", "tn"], dtype=np.int64
    )
    return table


def f1_of(counts: pd.DataFrame) -> pd.Series:
    """F1 of every row of counts.

    Parameters
    ----------
    counts : DataFrame
        Columns tp, fp, fn.

    Returns
    -------
    f1 : Series of float
        NaN where there is neither foreground nor anything predicted.
    """
    double = 2.0 * counts["tp"]
    total = double + counts["fp"] + counts["fn"]
    return double / total.where(total > 0)


def choose_cases(counts: Mapping[str, pd.DataFrame], *, limit: int) -> list[Case]:
    """Slices to show: each model's typical and worst one, and others evenly between.

    Parameters
    ----------
    counts : mapping of str to DataFrame
        Per model: columns fold, volume, z, tp, fp, fn, tn.
    limit : int
        Largest number of slices, but every model's typical and worst slice are always among them.

    Returns
    -------
    cases : list of Case
        In the order (fold, volume, z). "typical" is the slice with the median F1 (of two middle ones the lower),
        "worst" the one with the lowest, both among slices with foreground; of equals the first. Empty if no slice of
        any model's test part is annotated.
    """
    tags: dict[tuple[str, str, int], list[str]] = {}
    everywhere: set[tuple[str, str, int]] = set()
    for model, table in counts.items():
        annotated = table[table[["tp", "fp", "fn", "tn"]].sum(axis=1) > 0]
        everywhere |= set(zip(annotated["fold"].astype(str), annotated["volume"], annotated["z"], strict=True))
        ranked = annotated[annotated["tp"] + annotated["fn"] > 0]
        if ranked.empty:
            continue
        ranked = ranked.assign(f1=f1_of(ranked)).sort_values(["f1", "fold", "volume", "z"], kind="stable")
        for tag, row in (("typical", ranked.iloc[(len(ranked) - 1) // 2]), ("worst", ranked.iloc[0])):
            key = (str(row["fold"]), str(row["volume"]), int(row["z"]))
            tags.setdefault(key, []).append(f"{tag} for {model}")
    in_order = sorted(everywhere)
    chosen = set(tags)
    room = max(0, limit - len(chosen))
    others = [key for key in in_order if key not in chosen]
    if room and others:
        places = np.unique(np.linspace(0, len(others) - 1, min(room, len(others))).round().astype(int))
        chosen |= {others[place] for place in places}
    return [
        Case(fold=fold, volume=volume, z=int(z), tags=tuple(tags.get((fold, volume, z), ())))
        for fold, volume, z in sorted(chosen)
    ]


def window_of(truth: ReadsSlices, *, z: int, boxes: Sequence[Ranges], size_voxels: int) -> Window:
    """The part of a slice to show: all of its boxes where they fit, else the window with the most foreground.

    Parameters
    ----------
    truth : array-like of uint8, shape (Z, Y, X)
        0 background, 1 foreground, 255 not annotated.
    z : int
        Slice index.
    boxes : sequence of ((z_from, z_to), (y_from, y_to), (x_from, x_to))
        Boxes of the test part; those without this slice do not count.
    size_voxels : int
        Largest width and height.

    Returns
    -------
    window : ((y_from, y_to), (x_from, x_to))
        Of windows with equal foreground the one with more annotated voxels, then the first.
    """
    here = [box for box in boxes if box[0][0] <= z < box[0][1]]
    y_from, y_to = min(b[1][0] for b in here), max(b[1][1] for b in here)
    x_from, x_to = min(b[2][0] for b in here), max(b[2][1] for b in here)
    if y_to - y_from <= size_voxels and x_to - x_from <= size_voxels:
        return (y_from, y_to), (x_from, x_to)
    best, window = (-1, -1), ((y_from, min(y_to, y_from + size_voxels)), (x_from, min(x_to, x_from + size_voxels)))
    step = max(1, size_voxels // 2)
    for y in range(y_from, max(y_from, y_to - size_voxels) + step, step):
        for x in range(x_from, max(x_from, x_to - size_voxels) + step, step):
            y0 = max(y_from, min(y, y_to - size_voxels))
            x0 = max(x_from, min(x, x_to - size_voxels))
            place = ((y0, min(y_to, y0 + size_voxels)), (x0, min(x_to, x0 + size_voxels)))
            codes = read_slice(truth, z=z, window=place)
            score = (int(np.count_nonzero(codes == 1)), int(np.count_nonzero(codes != IGNORE)))
            if score > best:
                best, window = score, place
    return window


def read_slice(volume: ReadsSlices, *, z: int, window: Window) -> NDArray:
    """One slice's window as a 2-D array.

    Parameters
    ----------
    volume : array-like, shape (Z, Y, X) or (C, Z, Y, X)
        Of several channels the first is read.
    z : int
    window : ((y_from, y_to), (x_from, x_to))

    Returns
    -------
    values : ndarray, shape (Y, X)
    """
    (y_from, y_to), (x_from, x_to) = window
    where = (slice(z, z + 1), slice(y_from, y_to), slice(x_from, x_to))
    if getattr(volume, "ndim", 3) == 4:
        return np.asarray(volume[slice(0, 1), *where])[0, 0]
    return np.asarray(volume[where])[0]
