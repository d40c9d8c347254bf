"""Figures of the ISBI 2012 challenge's measures: V_rand over the threshold, Rand error over the fusion's weight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from voxloom.deferred import Deferred
from voxloom.figures import DASHES, PAGE_WIDTH_IN, colour_of, dash_of, new_figure, styled

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
else:
    pd = Deferred("pandas")

MIDDLE = (0.15, 0.85)
"""Thresholds that decide how far down the axis reaches: at 0 and 1 nearly everything is one object, or none is left."""


def mean_curves(sections: pd.DataFrame, *, part: str = "test") -> pd.DataFrame:
    """V_rand at every threshold, averaged over a fold's sections, as the challenge does.

    Parameters
    ----------
    sections : DataFrame
        Rows of membranes.csv with their model and fold: columns part, threshold, v_rand.
    part : str
        "train", "validation" or "test".

    Returns
    -------
    curves : DataFrame
        Columns model, fold, threshold, v_rand; one row a model, fold and threshold.
    """
    chosen = sections[sections["part"] == part]
    means = chosen.groupby(["model", "fold", "threshold"], sort=True)["v_rand"].mean()
    return means.reset_index()


@styled
def threshold_figure(curves: pd.DataFrame, *, models: Sequence[str], title: str, note: str = "") -> Figure:
    """V_rand after thinning over the threshold of the interior probability, one line a model.

    Parameters
    ----------
    curves : DataFrame
        As `mean_curves` returns them.
    models : sequence of str
        All models in the order that gives them their colours.
    title : str
        The task's name for instance.
    note : str
        Said in the title, "synthetic" for instance.

    Returns
    -------
    figure : Figure
        Of several folds each is thin, with a dot at its highest value, and their mean is thick. The axis ends below the
        lowest value of the thresholds between 0.15 and 0.85.
    """
    figure = new_figure(PAGE_WIDTH_IN, 4.6)
    axes = figure.subplots()
    colours, dashes = colour_of(models), dash_of(models)
    for model in models:
        own = curves[curves["model"] == model]
        if own.empty:
            continue
        line: dict[str, Any] = {"color": colours[model], "linestyle": dashes[model]}
        for _, fold in own.groupby("fold"):
            axes.plot(fold["threshold"], fold["v_rand"], linewidth=0.8, alpha=0.6, **line)
            highest = fold.loc[fold["v_rand"].idxmax()] if fold["v_rand"].notna().any() else None
            if highest is not None:
                axes.plot(highest["threshold"], highest["v_rand"], "o", color=colours[model], markersize=4)
        mean = own.groupby("threshold")["v_rand"].mean()
        axes.plot(mean.index, mean.to_numpy(), label=model, **line)
    inner = curves[curves["threshold"].between(*MIDDLE)]["v_rand"].dropna()
    if not inner.empty:
        axes.set_ylim(max(0.0, inner.min() - 0.05 * (1.02 - inner.min())), 1.0)
    axes.set(xlim=(0, 1), xlabel="threshold of the interior probability", ylabel="V_rand after thinning")
    axes.set_title(f"{title}, test sections" + (f" ({note})" if note else ""))
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8.5)
    return figure


@styled
def weight_figure(weights: pd.DataFrame, *, models: Sequence[str], title: str, note: str = "") -> Figure:
    """Rand error of the training sections over the fusion's weight w, one line a fused model and fold.

    Parameters
    ----------
    weights : DataFrame
        Columns model, fold, weight, rand_error and is_chosen.
    models : sequence of str
        All models in the order that gives them their colours.
    title, note : str
        As in `threshold_figure`.

    Returns
    -------
    figure : Figure
        A dot stands at the chosen w.
    """
    figure = new_figure(PAGE_WIDTH_IN, 3.8)
    axes = figure.subplots()
    colours = colour_of(models)
    for (model, fold), own in weights.groupby(["model", "fold"], sort=True):
        own = own.sort_values("weight")
        dashes = DASHES[sorted(weights["fold"].unique()).index(fold) % len(DASHES)]
        chosen = own[own["is_chosen"]]
        said = f"{model}, fold {fold}" + "".join(f": w = {w:g}" for w in chosen["weight"])
        axes.plot(own["weight"], own["rand_error"], color=colours[str(model)], linestyle=dashes, label=said)
        axes.plot(chosen["weight"], chosen["rand_error"], "o", color=colours[str(model)], markersize=6)
    axes.set(xlim=(0, 1), xlabel="weight w of the watershed's contour", ylabel="Rand error (2012)")
    axes.set_title(f"{title}, training sections" + (f" ({note})" if note else ""))
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8.5)
    return figure
