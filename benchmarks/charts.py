"""Draws the figures of docs/performance.md from the records' points: x, y, and one line a record."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from voxloom.figures import COLOURS, FAINT, INK, new_figure, save_figure, styled

Record = Mapping[str, Any]
MARKERS = "osD^vP*X"
ALLOWED = 1.1
"""Of the budget."""


def save(chart: str, records: Sequence[Record], folder: Path) -> list[Path]:
    """Draw one figure and write it as SVG and PNG; the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    save_figure(DRAWN[chart](records), folder / chart)
    return [folder / f"{chart}.{suffix}" for suffix in ("svg", "png")]


def _lines(axes: Axes, records: Sequence[Record]) -> None:
    for number, record in enumerate(records):
        x, y = zip(*record["points"], strict=True)
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        dashed = "--" if number >= len(COLOURS) else "-"
        axes.plot(x, y, color=colour, linestyle=dashed, marker=marker, markersize=5, label=record["line"])


@styled
def size_figure(records: Sequence[Record]) -> Figure:
    """Seconds against voxels, on logarithmic axes, with lines of slope 1 behind them."""
    figure = new_figure(7.5, 4.8)
    axes = figure.subplots()
    voxels = np.array(sorted({x for record in records for x, _ in record["points"]}), dtype=float)
    fastest = min(y / x for record in records for x, y in record["points"])
    slowest = max(y / x for record in records for x, y in record["points"])
    for seconds_a_voxel in np.geomspace(fastest / 4, slowest * 4, 7):
        axes.plot(voxels, seconds_a_voxel * voxels, color=FAINT, linewidth=0.8, zorder=0)
    _lines(axes, records)
    seconds = [y for record in records for _, y in record["points"]]
    axes.set(xscale="log", yscale="log", ylabel="seconds", ylim=(min(seconds) / 2, max(seconds) * 2))
    axes.set_xticks(voxels, [_cube(count) for count in voxels])
    axes.minorticks_off()
    axes.set_xlabel("voxels")
    _legend(axes)
    return figure


def _cube(count: float) -> str:
    edge = round(count ** (1 / 3))
    return f"{edge}³" if edge**3 == count else f"{count:.3g}"


def _legend(axes: Axes) -> None:
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


@styled
def memory_figure(records: Sequence[Record]) -> Figure:
    """Peaks as shares of the budget: a bar a volume for every stage, and lines at the budget and what is allowed."""
    stages = list(dict.fromkeys(record["points"][0][0] for record in records))
    volumes = list(dict.fromkeys(record["line"] for record in records))
    figure = new_figure(7.5, 1.2 + (0.15 + 0.2 * len(volumes)) * len(stages))
    axes = figure.subplots()
    height = 0.8 / len(volumes)
    for number, volume in enumerate(volumes):
        shares = dict(record["points"][0] for record in records if record["line"] == volume)
        rows = [stages.index(stage) + (number - (len(volumes) - 1) / 2) * height for stage in shares]
        bars = axes.barh(rows, list(shares.values()), height * 0.9, color=COLOURS[number], label=volume)
        axes.bar_label(bars, fmt=lambda share: f"{share:.0%}", padding=3, fontsize=8)
    axes.axvline(1, color=INK, linewidth=1)
    axes.axvline(ALLOWED, color=INK, linewidth=1, linestyle=":")
    axes.set_yticks(range(len(stages)), stages)
    axes.invert_yaxis()
    axes.set_xlabel("peak memory / budget (dotted: 10 % above)")
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    _legend(axes)
    return figure


@styled
def relative_figure(records: Sequence[Record], *, of: str) -> Figure:
    """Times relative to the first point of each line, with the least that this many could take."""
    figure = new_figure(7.5, 4.2)
    axes = figure.subplots()
    counts = sorted({x for record in records for x, _ in record["points"]})
    axes.plot(counts, [counts[0] / count for count in counts], color=FAINT, linewidth=3, label="1 / number")
    _lines(axes, [{**record, "points": _relative(record["points"])} for record in records])
    axes.axhline(1, color=INK, linewidth=0.8)
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.set(xlabel=of, ylabel="time, relative", ylim=(0, None))
    _legend(axes)
    return figure


def _relative(points: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    return [(x, y / points[0][1]) for x, y in points]


DRAWN = {
    "size": size_figure,
    "memory": memory_figure,
    "threads": lambda records: relative_figure(records, of="threads"),
    "shards": lambda records: relative_figure(records, of="shards, on as many cores as there are"),
}
