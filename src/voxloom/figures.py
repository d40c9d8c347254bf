"""The style of all figures, and how they are written: as SVG and PNG, the same bytes for the same figure."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

from voxloom.deferred import Deferred
from voxloom.io.files import atomic_file

if TYPE_CHECKING:
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
else:
    matplotlib = Deferred("matplotlib")
    FigureCanvasAgg = Deferred("matplotlib.backends.backend_agg", "FigureCanvasAgg")
    Figure = Deferred("matplotlib.figure", "Figure")


P = ParamSpec("P")

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette: told apart with any kind of colour vision, and in this order in greyscale too."""

DASHES = ("-", "--", ":", "-.")

INK = "#1d1d1f"
MUTED = "#6b7075"
FAINT = "#d5d8dc"

STYLE: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that every machine lays out the same figure
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.titlesize": 11.5,
    "figure.titleweight": "bold",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",  # text stays text: searchable, and edited in any drawing program
    "svg.hashsalt": "voxloom",
    "path.simplify": False,
}

PAGE_WIDTH_IN = 10.0
"""Width of a figure that fills the report's column."""


def styled(function: Callable[P, Figure]) -> Callable[P, Figure]:
    """Let a function that draws a figure do so in the report's style, whatever the caller's matplotlib settings."""

    @functools.wraps(function)
    def draw(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with matplotlib.rc_context(STYLE):
            return function(*args, **kwargs)

    return draw


def new_figure(width_in: float, height_in: float) -> Figure:
    """An empty figure that no window system knows of.

    Parameters
    ----------
    width_in, height_in : float
        Size in inches.

    Returns
    -------
    figure : Figure
    """
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, stem: Path, *, png_dpi: int = 150) -> tuple[Path, Path]:
    """Write a figure as SVG and as PNG, without dates or random names.

    Parameters
    ----------
    figure : Figure
    stem : Path
        Path without suffix; `.svg` and `.png` are appended. Its folder is made.
    png_dpi : int
        Pixels per inch of the PNG.

    Returns
    -------
    svg, png : Path
        What was written. The same figure always gives the same bytes.
    """
    svg, png = stem.parent / f"{stem.name}.svg", stem.parent / f"{stem.name}.png"
    with matplotlib.rc_context(STYLE):
        for path, options in (
            (svg, {"metadata": {"Date": None, "Creator": None}}),
            (png, {"dpi": png_dpi, "metadata": {"Software": None}}),
        ):
            with atomic_file(path) as temporary:
                figure.savefig(temporary, format=path.suffix[1:], facecolor="white", **options)
            figure.set_layout_engine(None)  # the second file has the first one's layout, which takes as long as drawing
    return svg, png


def colour_of(models: Sequence[str]) -> dict[str, str]:
    """One colour a model, the same in every figure.

    Parameters
    ----------
    models : sequence of str
        Names in the order in which they are shown; after seven the colours repeat.

    Returns
    -------
    colours : dict
        Name to hexadecimal colour.
    """
    return {model: COLOURS[index % len(COLOURS)] for index, model in enumerate(models)}


def dash_of(models: Sequence[str]) -> dict[str, Any]:
    """The line style of each model, which tells models of one colour apart.

    Parameters
    ----------
    models : sequence of str
        As for `colour_of`.

    Returns
    -------
    styles : dict of str to str
    """
    return {model: DASHES[index // len(COLOURS) % len(DASHES)] for index, model in enumerate(models)}
