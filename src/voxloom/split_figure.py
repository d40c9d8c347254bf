"""Draws which boxes of which volumes train, validate and test, and the gap between them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from voxloom.boxes import Box
from voxloom.deferred import Deferred
from voxloom.figures import MUTED, PAGE_WIDTH_IN, new_figure, styled
from voxloom.split import PARTS, boxes_of
from voxloom.split_plan import SplitVolume

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch, Rectangle
else:
    Patch = Deferred("matplotlib.patches", "Patch")
    Rectangle = Deferred("matplotlib.patches", "Rectangle")

LOOKS: dict[str, dict[str, Any]] = {
    "train": {"facecolor": "#56B4E9", "hatch": None},
    "validation": {"facecolor": "#F0E442", "hatch": None},
    "test": {"facecolor": "#D55E00", "hatch": None},
    "gap": {"facecolor": "#FFFFFF", "hatch": "////"},
    "excluded": {"facecolor": "#D5D8DC", "hatch": None},
}
"""Okabe and Ito's colours; they differ in brightness too."""

PLANES = {"XZ": (2, 0, 1), "YZ": (1, 0, 2), "XY": (2, 1, 0)}
"""Plane: the axis (of Z, Y, X) drawn to the right, the one drawn downwards, and the one that is cut."""


@styled
def split_figure(split: pd.DataFrame, volumes: Sequence[SplitVolume], *, fold: int) -> Figure:
    """Map of one fold: a row for each volume, sections through it.

    Parameters
    ----------
    split : DataFrame
        From `voxloom.split.make_split`.
    volumes : sequence of SplitVolume
    fold : int

    Returns
    -------
    figure : Figure
        Sections XZ and YZ, and XY where a box doesn't span whole slices, each where most parts and least of the gap
        are seen; axes in micrometres, z downwards. The legend says how many voxels each part has and how much of what
        is annotated in it is foreground.
    """
    rows = split[split["fold"] == fold]
    has_whole_slices = all(_spans_slices(rows[rows["volume"] == volume.name], volume) for volume in volumes)
    planes = [name for name in PLANES if name != "XY" or not has_whole_slices]
    figure = new_figure(PAGE_WIDTH_IN, 0.9 + 2.6 * len(volumes))
    grid = figure.subplots(len(volumes), len(planes), squeeze=False)
    for volume, panels in zip(volumes, grid, strict=True):
        for plane, axes in zip(planes, panels, strict=True):
            _draw_section(axes, rows, volume, plane, fold)
    figure.suptitle(f"split, fold {fold}", x=0.01, ha="left")
    figure.legend(handles=_legend(rows), loc="outside lower left", ncols=2, fontsize=8.5)
    return figure


def _spans_slices(rows: pd.DataFrame, volume: SplitVolume) -> bool:
    _, height, width = volume.shape
    return bool(((rows["y_to"] - rows["y_from"] == height) & (rows["x_to"] - rows["x_from"] == width)).all())


def _draw_section(axes: Axes, rows: pd.DataFrame, volume: SplitVolume, plane: str, fold: int) -> None:
    right, down, cut = PLANES[plane]
    held = {part: boxes_of(rows, fold=fold, volume=volume.name, part=part) for part in PARTS}
    at = _telling_section(held, volume, right, down, cut)
    um = volume.spacing_um
    for part in PARTS:
        for box in held[part]:
            if box[cut][0] <= at < box[cut][1]:
                axes.add_patch(_rectangle(box, right, down, um, part))
    axes.set(
        xlim=(0, volume.shape[right] * um[right]),
        ylim=(volume.shape[down] * um[down], 0),
        xlabel=f"{'zyx'[right]} [µm]",
        ylabel=f"{'zyx'[down]} [µm]",
        aspect="equal" if _is_compact(volume, right, down) else "auto",
    )
    axes.set_title(f"{volume.name}, {plane} at {'zyx'[cut]} = {at * um[cut]:.0f} µm", fontsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(True)


def _telling_section(held: Mapping[str, Sequence[Box]], volume: SplitVolume, right: int, down: int, cut: int) -> int:
    """The section with most parts in it, then least gap, then nearest the middle."""
    middle = volume.shape[cut] // 2
    borders = sorted({0, volume.shape[cut], *(edge for boxes in held.values() for box in boxes for edge in box[cut])})
    between = [(first + last) // 2 for first, last in itertools.pairwise(borders)]

    def rank(at: int) -> tuple[int, int, int]:
        met = {part: [box for box in boxes if box[cut][0] <= at < box[cut][1]] for part, boxes in held.items()}
        hidden = sum((box[right][1] - box[right][0]) * (box[down][1] - box[down][0]) for box in met["gap"])
        return -sum(bool(boxes) for part, boxes in met.items() if part != "gap"), hidden, abs(at - middle)

    return min([middle, *between], key=rank)


def _is_compact(volume: SplitVolume, right: int, down: int) -> bool:
    """Whether a section drawn to scale leaves room to see the boxes."""
    width, height = (volume.shape[axis] * volume.spacing_um[axis] for axis in (right, down))
    return 0.25 < height / width < 2.0


def _rectangle(box: Box, right: int, down: int, um: Sequence[float], part: str) -> Rectangle:
    (left, end), (top, bottom) = box[right], box[down]
    return Rectangle(
        (left * um[right], top * um[down]),
        (end - left) * um[right],
        (bottom - top) * um[down],
        facecolor=LOOKS[part]["facecolor"],
        hatch=LOOKS[part]["hatch"],
        edgecolor=MUTED,
        linewidth=0.6,
    )


def _legend(rows: pd.DataFrame) -> list[Patch]:
    handles = []
    for part in PARTS:
        held = rows[rows["part"] == part]
        if held.empty:
            continue
        voxels, annotated, foreground = (
            int(held[column].sum()) for column in ("voxels", "annotated_voxels", "foreground_voxels")
        )
        share = f"{100 * foreground / annotated:.3g} % of annotated is foreground" if annotated else "not annotated"
        label = f"{part}: {voxels:,} voxels in {len(held)} box{'es' if len(held) > 1 else ''}, {share}"
        look = LOOKS[part]
        handles.append(Patch(facecolor=look["facecolor"], hatch=look["hatch"], edgecolor=MUTED, label=label))
    return handles
