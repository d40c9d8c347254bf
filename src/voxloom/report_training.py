"""Figures of what was learnt: training curves, and whether the probabilities can be believed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from voxloom import network_reach
from voxloom.deferred import Deferred
from voxloom.figures import INK, MUTED, PAGE_WIDTH_IN, colour_of, new_figure, styled
from voxloom.report_inputs import Run
from voxloom.yaml_file import read_yaml

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import LogLocator, NullFormatter
else:
    pd = Deferred("pandas")
    Line2D = Deferred("matplotlib.lines", "Line2D")
    LogLocator = Deferred("matplotlib.ticker", "LogLocator")
    NullFormatter = Deferred("matplotlib.ticker", "NullFormatter")


def _names(values: pd.Series) -> list[str]:
    return [str(value) for value in pd.unique(values)]


@styled
def reliability_figure(reliability: pd.DataFrame, *, models: Sequence[str], title: str, note: str = "") -> Figure:
    """How often voxels of a predicted probability are foreground: on the diagonal the probabilities can be believed.

    Parameters
    ----------
    reliability : DataFrame
        Columns against, model, fold, bin_from, bin_to, mean_probability, foreground_share, voxels.
    models : sequence of str
        All models in the order that gives them their colours.
    title, note : str
        As in `precision_recall_figure`.

    Returns
    -------
    figure : Figure
        Folds are pooled, weighted by their voxels. The lower panels show how many voxels are behind each point.
    """
    truths = _names(reliability["against"])
    colours = colour_of(models)
    figure = new_figure(min(PAGE_WIDTH_IN, 5.0 * max(len(truths), 1) + 1.0), 5.2)
    grid = figure.subplots(2, len(truths), squeeze=False, sharex=True, gridspec_kw={"height_ratios": (3, 1)})
    for column, against in enumerate(truths):
        upper, lower = grid[0, column], grid[1, column]
        upper.plot([0, 1], [0, 1], color=MUTED, linestyle=":", linewidth=1.2)
        for model in _names(reliability["model"]):
            bins = pool_bins(reliability[(reliability["against"] == against) & (reliability["model"] == model)])
            if bins.empty:
                continue
            label = f"{model}: calibration error {calibration_error(bins):.3f}"
            upper.plot(
                bins["mean_probability"],
                bins["foreground_share"],
                "o-",
                color=colours[model],
                markersize=4,
                label=label,
            )
            lower.stairs(
                bins["voxels"] / bins["voxels"].sum(),
                np.append(bins["bin_from"], bins["bin_to"].iloc[-1]),
                color=colours[model],
                linewidth=1.4,
            )
        upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="share of foreground")
        upper.set_title(f"{title} against {against}" + (f" ({note})" if note else ""))
        upper.legend(loc="best", fontsize=8.5)
        lower.set(xlabel="predicted probability", ylabel="share of voxels", yscale="log")
        lower.yaxis.set_minor_formatter(NullFormatter())
        lower.yaxis.set_major_locator(LogLocator(numticks=4))
    return figure


def pool_bins(reliability: pd.DataFrame) -> pd.DataFrame:
    """Add up the reliability bins of several folds.

    Parameters
    ----------
    reliability : DataFrame
        Columns bin_from, bin_to, mean_probability, foreground_share, voxels; equal bins in every fold.

    Returns
    -------
    bins : DataFrame
        The same columns, one row a bin that holds voxels, means weighted by voxels, sorted by probability.
    """
    filled = reliability[reliability["voxels"] > 0]
    weighted = filled.assign(
        mean_probability=filled["mean_probability"] * filled["voxels"],
        foreground_share=filled["foreground_share"] * filled["voxels"],
    )
    sums = weighted.groupby(["bin_from", "bin_to"], sort=True)[["mean_probability", "foreground_share", "voxels"]].sum()
    bins = sums.reset_index()
    bins["mean_probability"] /= bins["voxels"]
    bins["foreground_share"] /= bins["voxels"]
    return bins


def calibration_error(bins: pd.DataFrame) -> float:
    """Expected calibration error: mean distance from the diagonal, weighted by voxels.

    Parameters
    ----------
    bins : DataFrame
        As `pool_bins` returns them.

    Returns
    -------
    error : float
        0 is perfect; NaN without voxels.
    """
    voxels = bins["voxels"].sum()
    if voxels == 0:
        return math.nan
    return float(((bins["mean_probability"] - bins["foreground_share"]).abs() * bins["voxels"]).sum() / voxels)


@styled
def training_figure(logs: pd.DataFrame, *, models: Sequence[str], title: str, note: str = "") -> Figure:
    """Loss, validation scores and learning rate over the epochs.

    Parameters
    ----------
    logs : DataFrame
        Columns model, fold, epoch, learning_rate, training_loss, validation_loss, validation_average_precision,
        validation_f1; NaN where an epoch was not validated.
    models : sequence of str
        All models in the order that gives them their colours.
    title, note : str
        As in `precision_recall_figure`.

    Returns
    -------
    figure : Figure
        One colour a model, one line a fold.
    """
    colours = colour_of(models)
    panels: Any = (
        ("loss", (("training_loss", "-", "training"), ("validation_loss", "--", "validation"))),
        ("validation score", (("validation_average_precision", "-", "AP"), ("validation_f1", "--", "F1"))),
        ("learning rate", (("learning_rate", "-", ""),)),
    )
    figure = new_figure(PAGE_WIDTH_IN, 3.6)
    for axes, (name, lines) in zip(figure.subplots(1, 3), panels, strict=True):
        drawn = 0
        for column, linestyle, _ in lines:
            for (model, _fold), rows in logs.groupby(["model", "fold"], sort=False):
                rows = rows[rows[column].notna()]
                drawn += len(rows)
                marker = "o" if len(rows) == 1 else None
                axes.plot(
                    rows["epoch"], rows[column], linestyle, marker=marker, markersize=4, color=colours[str(model)]
                )
        handles = [
            Line2D([], [], color=INK, linestyle=linestyle, label=label) for _, linestyle, label in lines if label
        ]
        axes.set(title=name, xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        if name == "validation score":
            axes.set_ylim(0, 1.02)
            if not drawn:
                axes.text(0.5, 0.5, "no foreground to validate on", transform=axes.transAxes, ha="center", color=MUTED)
        if name == "learning rate" and (logs["learning_rate"] > 0).any():
            axes.set_yscale("log")
            axes.yaxis.set_minor_formatter(NullFormatter())
            axes.yaxis.set_major_locator(LogLocator(numticks=5))
        if name == "learning rate":
            handles = [
                Line2D([], [], color=colours[model], linewidth=3, label=model)
                for model in models
                if model in set(logs["model"].astype(str))
            ]
        axes.legend(handles=handles, loc="best", fontsize=8.5)
    figure.suptitle(title + (f" ({note})" if note else ""), x=0.01, ha="left")
    return figure


def training_memory(logs: pd.DataFrame) -> pd.DataFrame:
    """Peak memory of every training, planned beside measured.

    Parameters
    ----------
    logs : DataFrame
        Columns model, fold, epoch, planned_memory_mib, peak_memory_mib; trainings of before these were kept lack the
        last two.

    Returns
    -------
    memory : DataFrame
        Columns model, fold, planned_memory_mib, peak_memory_mib, measured_over_planned; a row a training.
    """
    columns = ["planned_memory_mib", "peak_memory_mib"]
    if not set(columns) <= set(logs.columns):
        return pd.DataFrame(columns=["model", "fold", *columns, "measured_over_planned"])
    last = logs.dropna(subset=columns).groupby(["model", "fold"], sort=False).tail(1)[["model", "fold", *columns]]
    ratio = (last["peak_memory_mib"] / last["planned_memory_mib"]).round(2)
    return last.round({column: 0 for column in columns}).assign(measured_over_planned=ratio).reset_index(drop=True)


def receptive_fields(runs: Sequence[Run]) -> pd.DataFrame:
    """How far networks see.

    Parameters
    ----------
    runs : sequence of Run
        Of a task.

    Returns
    -------
    fields : DataFrame
        Columns model, sees, branches (the finest first; empty for a network without); a row a model whose folder is
        there.
    """
    folders = {run.model: run.directory for run in reversed(runs) if run.directory is not None}
    rows = []
    for model in dict.fromkeys(run.model for run in runs):
        path = folders[model] / "model.yaml" if model in folders else None
        network = read_yaml(path).get("network") if path is not None and path.is_file() else None
        if network is not None:
            branches = "; ".join(map(network_reach.edges, network_reach.branches(network)))
            sees = network_reach.edges(network_reach.receptive_field(network))
            rows.append({"model": model, "sees": sees, "branches": branches})
    return pd.DataFrame(rows, columns=["model", "sees", "branches"])
