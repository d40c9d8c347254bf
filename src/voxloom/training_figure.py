"""The figure of a training log: losses, validation scores and learning rate over the epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from voxloom.figures import COLOURS, MUTED, PAGE_WIDTH_IN, new_figure, styled

PANELS = {
    "Loss": {"training_loss": "training", "validation_loss": "validation"},
    "Validation score": {"validation_average_precision": "average precision", "validation_f1": "best F1"},
    "Learning rate at the epoch's end": {"learning_rate": ""},
}


@styled
def draw(log: Sequence[Mapping[str, Any]], *, kept_epoch: int, title: str) -> Figure:
    """Draw three panels over the epochs.

    Parameters
    ----------
    log : sequence of mapping
        Rows of the training log; see `training.LOG_COLUMNS`.
    kept_epoch : int
        The epoch whose weights were kept; marked by a dotted line.
    title : str

    Returns
    -------
    figure : Figure
    """
    epochs = [int(row["epoch"]) for row in log]
    figure = new_figure(PAGE_WIDTH_IN, 3.0)
    panels = figure.subplots(1, len(PANELS))
    for axes, (name, lines) in zip(panels, PANELS.items(), strict=True):
        for (column, label), colour in zip(lines.items(), COLOURS, strict=False):
            values = [float(row[column]) for row in log]
            axes.plot(epochs, values, color=colour, marker="o" if len(epochs) <= 40 else None, ms=3, label=label)
        axes.axvline(kept_epoch, color=MUTED, lw=0.8, ls=":", zorder=0, label=f"kept: epoch {kept_epoch}")
        axes.set_title(name)
        axes.set_xlabel("epoch")
        axes.set_xlim(0.5, max(epochs) + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    loss, score, rate = panels
    loss.set_ylim(bottom=0)
    score.set_ylim(0, 1.02)
    rate.set_yscale("log")
    loss.legend(fontsize=8)
    score.legend(fontsize=8, loc="lower right")
    figure.suptitle(title, x=0.01, ha="left")
    return figure
