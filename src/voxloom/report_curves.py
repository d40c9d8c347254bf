"""Figures of scores: precision-recall curves, and the headline's dots and intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from voxloom.deferred import Deferred
from voxloom.figures import FAINT, INK, MUTED, PAGE_WIDTH_IN, colour_of, dash_of, new_figure, styled

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
else:
    pd = Deferred("pandas")
    Line2D = Deferred("matplotlib.lines", "Line2D")


def _in_order(values: pd.Series) -> list[str]:
    return [str(value) for value in pd.unique(values)]


def _legend_below(axes: Axes, handles: Sequence[Line2D]) -> None:
    axes.legend(handles=list(handles), loc="upper left", bbox_to_anchor=(-0.02, -0.16), borderaxespad=0.0, fontsize=8.5)


def _draw_iso_f1(axes: Axes) -> None:
    for f1 in (0.2, 0.4, 0.6, 0.8, 0.9):
        recall = np.linspace(f1 / (2 - f1), 1.0, 200)
        axes.plot(recall, f1 * recall / (2 * recall - f1), color=FAINT, linewidth=0.9, zorder=0)
        axes.annotate(
            f"F1 {f1:g}",
            (1.0, f1 / (2 - f1)),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=7.5,
            color=MUTED,
            annotation_clip=False,
        )


def _with_interval(row: pd.Series, metric: str) -> str:
    """ "0.931 [0.912, 0.948]", without the brackets where there is no interval."""
    if pd.isna(row[metric]):
        return "not defined"
    low, high = row.get(f"{metric}_low", math.nan), row.get(f"{metric}_high", math.nan)
    text = f"{row[metric]:.3f}"
    return text if pd.isna(low) or pd.isna(high) else f"{text} [{low:.3f}, {high:.3f}]"


def pool_folds(curves: pd.DataFrame) -> pd.DataFrame:
    """Precision and recall of several folds' counts added up, threshold by threshold.

    Parameters
    ----------
    curves : DataFrame
        Columns fold, threshold, tp, fp, fn; rows of one model, ground truth and part. A fold has a row for every
        threshold that makes a difference in it, and folds need not have the same ones.

    Returns
    -------
    pooled : DataFrame
        Columns threshold, precision, recall, one row for every threshold of any fold, the highest first. Precision is
        1 where nothing is positive, recall NaN where there is no foreground.
    """
    thresholds = np.unique(curves["threshold"].to_numpy(dtype=float))
    sums = np.zeros((3, thresholds.size))  # tp, fp, fn
    for _, fold in curves.groupby("fold"):
        fold = fold.sort_values("threshold")
        counts = fold[["tp", "fp", "fn"]].to_numpy(dtype=float).T
        # no score lies between a threshold and the fold's next one, so that both call the same voxels foreground
        above_all = np.array([[0.0], [0.0], [counts[0, 0] + counts[2, 0]]])
        place = np.searchsorted(fold["threshold"].to_numpy(dtype=float), thresholds, side="left")
        sums += np.concatenate([counts, above_all], axis=1)[:, place]
    tp, fp, fn = sums[:, ::-1]
    with np.errstate(invalid="ignore"):
        precision = np.where(tp + fp > 0, tp / (tp + fp), 1.0)
        recall = np.where(tp + fn > 0, tp / (tp + fn), np.nan)
    return pd.DataFrame({"threshold": thresholds[::-1], "precision": precision, "recall": recall})


@styled
def precision_recall_figure(
    curves: pd.DataFrame,
    headline: pd.DataFrame,
    *,
    recipe: pd.DataFrame,
    models: Sequence[str],
    title: str,
    note: str = "",
) -> Figure:
    """Precision against recall over all thresholds: one panel a ground truth, one line a model.

    Parameters
    ----------
    curves : DataFrame
        Pooled rows of the test part of one task: columns against, model, fold, threshold, precision, recall, tp, fp,
        fn, tn.
    headline : DataFrame
        One row per (against, model) with average_precision, precision, recall, threshold, prevalence and, where
        known, average_precision_low and average_precision_high; see `report_scores.headline`.
    recipe : DataFrame
        The recipe's mask as a point: columns against, precision, recall. May be empty.
    models : sequence of str
        All models in the order that gives them their colours.
    title : str
        What the scores are of, the task's name for instance.
    note : str
        Said in every panel's title, "synthetic" for instance.

    Returns
    -------
    figure : Figure
        Lines are steps, so that the area under them is the average precision. Of several folds each is thin and
        their summed counts are thick.
    """
    import seaborn  # a second, for those who draw only

    truths = _in_order(headline["against"])
    columns = min(len(truths), 2)
    rows = math.ceil(len(truths) / columns)
    figure = new_figure(PAGE_WIDTH_IN if columns > 1 else 6.2, 5.2 * rows)
    colours, dashes = colour_of(models), dash_of(models)
    for index, against in enumerate(truths):
        axes = figure.add_subplot(rows, columns, index + 1)
        _draw_iso_f1(axes)
        handles = []
        panel = headline[headline["against"] == against]
        for _, row in panel.iterrows():
            model = str(row["model"])
            colour, dash = colours[model], dashes[model]
            selected = curves[(curves["against"] == against) & (curves["model"] == row["model"])]
            folds = [fold.sort_values("threshold", ascending=False) for _, fold in selected.groupby("fold", sort=True)]
            if len(folds) > 1:
                for fold in folds:
                    thin: Any = {"linestyle": dash, "linewidth": 0.7, "alpha": 0.6}
                    axes.plot(fold.recall, fold.precision, color=colour, drawstyle="steps-pre", **thin)
                folds = [pool_folds(selected)]
            for line in folds:
                line = line[line["recall"].notna()]
                if line.empty:
                    continue
                seaborn.lineplot(  # the first step reaches back to recall 0: that area is part of the AP, too
                    x=np.append(0.0, line["recall"].to_numpy(dtype=float)),
                    y=np.append(line["precision"].iloc[0], line["precision"].to_numpy(dtype=float)),
                    color=colour,
                    linestyle=dash,
                    sort=False,
                    estimator=None,
                    drawstyle="steps-pre",
                    ax=axes,
                )
            axes.plot(
                [row["recall"]],
                [row["precision"]],
                "o",
                color=colour,
                markeredgecolor="white",
                markersize=8,
                clip_on=False,
                zorder=4,
            )
            label = f"{model}: AP {_with_interval(row, 'average_precision')}"
            label += "" if pd.isna(row["threshold"]) else f", point at threshold {row['threshold']:.3g}"
            handles.append(
                Line2D([], [], color=colour, linestyle=dash, marker="o", markeredgecolor="white", label=label)
            )
        for _, row in recipe[recipe["against"] == against].iterrows():
            axes.plot(
                [row["recall"]],
                [row["precision"]],
                "D",
                color=INK,
                markeredgecolor="white",
                markersize=8,
                clip_on=False,
                zorder=4,
            )
            handles.append(
                Line2D([], [], color="none", marker="D", markerfacecolor=INK, markeredgecolor="white",
                       label="the recipe's own mask")
            )  # fmt: skip
        prevalence = float(panel["prevalence"].iloc[0])
        axes.axhline(prevalence, color=MUTED, linestyle=":", linewidth=1.2, zorder=0)
        handles.append(
            Line2D([], [], color=MUTED, linestyle=":", linewidth=1.2, label=f"prevalence {prevalence:.3g} (chance)")
        )
        axes.set(xlim=(0, 1), ylim=(0, 1.015), xlabel="recall", ylabel="precision")
        axes.set_title(f"{title} against {against}" + (f" ({note})" if note else ""))
        _legend_below(axes, handles)
    return figure


@styled
def headline_figure(
    headline: pd.DataFrame, *, recipe: pd.DataFrame, models: Sequence[str], title: str, note: str = ""
) -> Figure:
    """Average precision and F1 of every model with their intervals, the recipe's own mask below them.

    Parameters
    ----------
    headline : DataFrame
        Columns against, model, average_precision, f1, their `_low` and `_high`, and prevalence.
    recipe : DataFrame
        Columns against and f1. May be empty.
    models : sequence of str
        All models in the order that gives them their colours.
    title, note : str
        As in `precision_recall_figure`.

    Returns
    -------
    figure : Figure
    """
    colours = colour_of(models)
    entries: list[tuple[str, str, pd.Series | None]] = []
    for against in _in_order(headline["against"]):
        for _, row in headline[headline["against"] == against].iterrows():
            entries.append((against, str(row["model"]), row))
        for _, row in recipe[recipe["against"] == against].iterrows():
            entries.append((against, "recipe's mask", row))
    figure = new_figure(PAGE_WIDTH_IN, 1.15 + 0.3 * len(entries))
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, metric, name in ((left, "average_precision", "average precision"), (right, "f1", "F1")):
        for height, (_, who, row) in enumerate(reversed(entries)):
            if row is None or metric not in row or pd.isna(row[metric]):
                continue
            colour, marker = (colours[who], "o") if who in colours else (INK, "D")
            low, high = row.get(f"{metric}_low", math.nan), row.get(f"{metric}_high", math.nan)
            if not (pd.isna(low) or pd.isna(high)):
                axes.plot([low, high], [height, height], color=colour, linewidth=2.2, solid_capstyle="butt")
            axes.plot(
                [row[metric]], [height], marker, color=colour, markeredgecolor="white", markersize=7.5, clip_on=False
            )
            if metric == "average_precision":
                axes.plot([row["prevalence"]], [height], "|", color=MUTED, markersize=12, markeredgewidth=1.5)
            axes.annotate(f"{row[metric]:.3f}", (1.02, height), xycoords=("axes fraction", "data"), va="center",
                          fontsize=8.5, annotation_clip=False)  # fmt: skip
        axes.set(xlim=(0, 1), ylim=(-0.6, len(entries) - 0.4), title=name)
        axes.grid(axis="x", color=FAINT, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    left.set_yticks(range(len(entries)), [f"{who} · {against}" for against, who, _ in reversed(entries)])
    left.set_xlabel("grey tick: prevalence, what chance reaches", color=MUTED, fontsize=8.5)
    figure.suptitle(f"{title}, test part" + (f" ({note})" if note else ""), x=0.01, ha="left")
    return figure
