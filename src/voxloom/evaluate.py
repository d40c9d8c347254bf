"""Scores predictions against every ground truth: precision-recall curves, scores with intervals, reliability.

The threshold is chosen on validation and applied to test. Precision and recall are exact on the quantised scores, and
memory doesn't grow with the volume: what is kept are counts (see `voxloom.tally`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from voxloom import boxes, heap, metrics
from voxloom.budget import Layout, fixed_within
from voxloom.deferred import Deferred
from voxloom.errors import SplitError, VolumeError
from voxloom.logs import progress
from voxloom.skeleton import TILE, CentreLineCounts, centre_line_counts
from voxloom.split import boxes_of
from voxloom.tally import Tally, Volume, tally, tally_masks, tiles
from voxloom.volume import IGNORE, Quantisation

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = Deferred("pandas")

PARTS = ("validation", "test")
POOLED = "pooled"
THINNING_BYTES = 12
"""For each voxel of a tile: scores and labels as stored, both masks, what nobody annotated, skeletons, places."""

OWN = "annotation"
"""Name of the truth that the task's own recipe made (or a person corrected); every other name is an annotator's."""

SCORE_COLUMNS = (
    "against",
    "part",
    "scope",
    "name",
    "grid",
    "voxels",
    "prevalence",
    "threshold",
    "average_precision",
    "average_precision_low",
    "average_precision_high",
    "accuracy",
    "all_background_accuracy",
    "precision",
    "recall",
    "f1",
    "f1_low",
    "f1_high",
    "iou",
    "iou_low",
    "iou_high",
    "dice",
    "dice_low",
    "dice_high",
    "cldice",
    "accuracy_at_half",
    "precision_at_half",
    "recall_at_half",
    "bootstrap_blocks",
    "bootstrap_block_um",
)
CURVE_COLUMNS = ("against", "part", "scope", "name", "threshold", "precision", "recall", "tp", "fp", "fn", "tn")
RELIABILITY_COLUMNS = (
    "against",
    "part",
    "bin_from",
    "bin_to",
    "mean_probability",
    "foreground_share",
    "voxels",
)
RECIPE_COLUMNS = (
    "against",
    "part",
    "scope",
    "volume",
    "voxels",
    "prevalence",
    "accuracy",
    "all_background_accuracy",
    "precision",
    "recall",
    "f1",
    "dice",
    "iou",
    "tp",
    "fp",
    "fn",
    "tn",
)


@dataclass(frozen=True)
class Evaluation:
    """What is known of one model's predictions in one fold.

    Parameters
    ----------
    threshold : dict
        "threshold" (probability), "stored" (level), "metric", "value" (on validation) and "against".
    scores : DataFrame
        Columns `SCORE_COLUMNS`: one row for every truth, part, grid and scope (pooled, each volume, each region).
    curve : DataFrame
        Columns `CURVE_COLUMNS`: one row for every score that occurs in that truth, part and scope.
    reliability : DataFrame
        Columns `RELIABILITY_COLUMNS`, pooled.
    recipe : DataFrame
        Columns `RECIPE_COLUMNS`: the annotation scored as if it were a prediction, pooled and each volume.
    """

    threshold: dict[str, Any]
    scores: pd.DataFrame
    curve: pd.DataFrame
    reliability: pd.DataFrame
    recipe: pd.DataFrame


@dataclass(frozen=True)
class _Scope:
    scope: str
    name: str
    volumes: tuple[str, ...]


def evaluate_prediction(
    predictions: Mapping[str, Volume],
    truths: Mapping[str, Mapping[str, Volume]],
    split: pd.DataFrame,
    *,
    fold: int,
    threshold_metric: str,
    bootstrap_samples: int,
    bootstrap_block_um: float,
    seed: int,
    recipe: Mapping[str, Volume] | None = None,
    network_histograms: Mapping[tuple[str, str, str], NDArray[np.int64]] | None = None,
    threads: int = 1,
    memory_mib: float = math.inf,
) -> Evaluation:
    """Score one model's predictions of one fold.

    Parameters
    ----------
    predictions : mapping of str to stored volume of uint8 or uint16
        Predicted probabilities by volume name, with their quantisation.
    truths : mapping of str to mapping of str to stored volume of uint8
        By name of the truth ("annotation", or an annotator) and volume: 0 background, 1 foreground, 255 not annotated.
        The threshold is chosen against the first. A truth may lack volumes.
    split : DataFrame
        From `voxloom.split.make_split`.
    fold : int
    threshold_metric : {"f1", "iou"}
        What the threshold maximises on the validation part.
    bootstrap_samples : int
        Resamples behind the 95 % intervals; 0 leaves them out.
    bootstrap_block_um : float
        Edge of the blocks that are resampled, in um; doubled where that would be too many to count (the edge that was
        used stands in the scores).
    seed : int
        Of the resampling; every row draws from it anew, so that no row depends on which others there are.
    recipe : mapping of str to stored volume of uint8, optional
        The annotation that is itself scored, as a baseline, against every truth but `OWN`.
    network_histograms : mapping of (truth, part, volume) to ndarray of int64, shape (2, levels), optional
        Joint histograms at the scale at which the network worked, for models that scale whole slices; they give rows of
        grid "network", without intervals and clDice.
    threads : int
        Blocks that are read at a time, fewer where the budget holds fewer.
    memory_mib : float
        Budget for the blocks, in MiB.

    Returns
    -------
    evaluation : Evaluation

    Raises
    ------
    SplitError
        If there is no foreground to choose the threshold on.
    VolumeError
        If volumes don't fit together or a prediction doesn't say what its numbers stand for.

    Notes
    -----
    clDice is of the test part and at the chosen threshold; skeletons are made tile by tile, tiles of at most 256 voxels
    an edge and without overlap, and their counts added up. What nobody annotated is background in both there.
    """
    quantisation = _common_quantisation(predictions)
    # every truth is counted; those without a voxel in a part give no rows
    tallies, cell_um = tally(
        predictions,
        truths,
        split,
        fold=fold,
        parts=PARTS,
        cell_um=bootstrap_block_um,
        threads=threads,
        memory_mib=memory_mib,
    )
    threshold = _choose_threshold(tallies, next(iter(truths)), threshold_metric, quantisation, predictions, fold)
    layouts = [tile_layout(prediction.shape, memory_mib=memory_mib) for prediction in predictions.values()]
    with heap.keeping(all(layout.keeps_freed for layout in layouts)):
        centre_lines = _centre_lines(predictions, truths, split, fold=fold, level=threshold["stored"])
    scores: list[dict[str, Any]] = []
    curves: list[pd.DataFrame] = []
    bins: list[pd.DataFrame] = []
    for (against, part), counted in tallies.items():
        known: dict[tuple[str, ...], dict[str, tuple[float, float]]] = {}  # one volume is also the pool and its region
        for scope in _scopes(split, predictions):
            cells = counted.of(scope.volumes)
            if not len(cells):
                continue
            histogram = cells.sum(axis=0)
            row = {"against": against, "part": part, "scope": scope.scope, "name": scope.name}
            if scope.volumes not in known:
                known[scope.volumes] = metrics.bootstrap_intervals(
                    cells, level=threshold["stored"], samples=bootstrap_samples, rng=np.random.default_rng(seed)
                )
            lines = [centre_lines[against, v] for v in scope.volumes if (against, v) in centre_lines]
            scores.append(
                row
                | {"grid": "native"}
                | _scores_of(histogram, threshold["stored"], quantisation)
                | _named_intervals(known[scope.volumes])
                | {"cldice": sum(lines, CentreLineCounts()).cldice if lines and part == "test" else np.nan}
                | {"bootstrap_blocks": len(cells), "bootstrap_block_um": cell_um}
            )
            curves.append(_curve_of(histogram, quantisation).assign(**row))
            if scope.scope == POOLED:
                bins.append(_reliability_of(histogram, quantisation).assign(against=against, part=part))
    scores += _network_scores(network_histograms or {}, _scopes(split, predictions), threshold["stored"], quantisation)
    return Evaluation(
        threshold=threshold,
        scores=_table(pd.DataFrame(scores), SCORE_COLUMNS),
        curve=_table(pd.concat(curves, ignore_index=True), CURVE_COLUMNS),
        reliability=_table(pd.concat(bins, ignore_index=True), RELIABILITY_COLUMNS),
        recipe=score_recipe(recipe or {}, truths, split, fold=fold),
    )


def _table(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    return table.reindex(columns=list(columns))


def _common_quantisation(predictions: Mapping[str, Volume]) -> Quantisation:
    if not predictions:
        raise VolumeError("there is no prediction to evaluate; give at least one volume")
    quantisations = {name: volume.quantisation for name, volume in predictions.items()}
    first = next(iter(quantisations.values()))
    for name, quantisation in quantisations.items():
        if quantisation is None:
            raise VolumeError(
                f"volume {name}: the prediction doesn't say what its stored numbers stand for (no quantisation in its "
                "metadata); predict it anew"
            )
        if quantisation != first or np.dtype(predictions[name].dtype) != next(iter(predictions.values())).dtype:
            raise VolumeError(
                f"volume {name}: predictions of one model must be stored alike to be pooled, got {quantisation} and "
                f"{first}; predict all volumes anew"
            )
    assert first is not None
    return first


def _choose_threshold(
    tallies: Mapping[tuple[str, str], Tally],
    against: str,
    metric: str,
    quantisation: Quantisation,
    predictions: Mapping[str, Volume],
    fold: int,
) -> dict[str, Any]:
    if (against, "validation") not in tallies:
        raise SplitError(
            f"fold {fold} has no validation boxes, so no threshold can be chosen; set split.validation_fraction above "
            "0, or name a validation box"
        )
    histogram = tallies[against, "validation"].of(list(predictions)).sum(axis=0)
    if not histogram.size or histogram[1].sum() == 0:
        voxels = int(histogram.sum()) if histogram.size else 0
        raise SplitError(
            f"fold {fold}: the validation part has {voxels} voxels that {against} annotated and no foreground among "
            "them, so no threshold can be chosen; raise split.validation_fraction, try another seed, or put another "
            "truth first under evaluate.against"
        )
    level, value = metrics.best_threshold(histogram, metric=metric)
    return {
        "threshold": _probability(level, quantisation),
        "stored": level,
        "metric": metric,
        "value": value,
        "against": against,
    }


def _probability(level: int, quantisation: Quantisation) -> float:
    return float(level * quantisation.scale + quantisation.offset)


def _scopes(split: pd.DataFrame, predictions: Mapping[str, Volume]) -> list[_Scope]:
    """All volumes together, each alone, and those of each region that has a name."""
    names = tuple(predictions)
    regions: dict[str, list[str]] = {}
    for name in names:
        region = split.loc[split["volume"] == name, "region"]
        regions.setdefault(str(region.iloc[0]) if len(region) else "", []).append(name)
    return [
        _Scope(POOLED, POOLED, names),
        *(_Scope("volume", name, (name,)) for name in names),
        *(_Scope("region", region, tuple(held)) for region, held in regions.items() if region),
    ]


def _scores_of(histogram: NDArray[np.int64], level: int, quantisation: Quantisation) -> dict[str, Any]:
    counts = metrics.confusion(histogram, level=level)
    half = int(np.ceil((0.5 - quantisation.offset) / quantisation.scale))
    at_half = metrics.confusion(histogram, level=half)
    return {
        "voxels": counts.voxels,
        "prevalence": counts.prevalence,
        "threshold": _probability(level, quantisation),
        "average_precision": metrics.average_precision(histogram),
        "accuracy": counts.accuracy,
        "all_background_accuracy": counts.all_background_accuracy,
        "precision": counts.precision,
        "recall": counts.recall,
        "f1": counts.f1,
        "iou": counts.iou,
        "dice": counts.dice,
        "accuracy_at_half": at_half.accuracy,
        "precision_at_half": at_half.precision,
        "recall_at_half": at_half.recall,
    }


def _named_intervals(intervals: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    return {
        f"{name}_{end}": value
        for name, interval in intervals.items()
        for end, value in zip(("low", "high"), interval, strict=True)
    }


def _curve_of(histogram: NDArray[np.int64], quantisation: Quantisation) -> pd.DataFrame:
    curve = metrics.precision_recall_curve(histogram)
    return pd.DataFrame(
        {
            "threshold": curve.levels * quantisation.scale + quantisation.offset,
            "precision": curve.precision,
            "recall": curve.recall,
            "tp": curve.tp,
            "fp": curve.fp,
            "fn": curve.fn,
            "tn": curve.tn,
        }
    )


def _reliability_of(histogram: NDArray[np.int64], quantisation: Quantisation) -> pd.DataFrame:
    return pd.DataFrame(vars(metrics.reliability(histogram, quantisation=quantisation)))


def _network_scores(
    histograms: Mapping[tuple[str, str, str], NDArray[np.int64]],
    scopes: Sequence[_Scope],
    level: int,
    quantisation: Quantisation,
) -> Iterator[dict[str, Any]]:
    for against, part in dict.fromkeys((against, part) for against, part, _ in histograms):
        for scope in scopes:
            held = [histograms[against, part, v] for v in scope.volumes if (against, part, v) in histograms]
            if held and np.sum(held):
                row = {"against": against, "part": part, "scope": scope.scope, "name": scope.name, "grid": "network"}
                yield row | _scores_of(np.sum(held, axis=0), level, quantisation)


def _centre_lines(
    predictions: Mapping[str, Volume],
    truths: Mapping[str, Mapping[str, Volume]],
    split: pd.DataFrame,
    *,
    fold: int,
    level: int,
) -> dict[tuple[str, str], CentreLineCounts]:
    """Skeleton counts of the test part by truth and volume, tile by tile."""
    found: dict[tuple[str, str], CentreLineCounts] = {}
    work = [
        (name, box) for name in predictions for box in tiles(boxes_of(split, fold=fold, volume=name, part="test"), TILE)
    ]
    for name, box in progress(work, description="centre lines of tile"):
        at = boxes.slices(box)
        predicted = predictions[name][at] >= level
        for truth, held in truths.items():
            if name not in held:
                continue
            codes = held[name][at]
            ignore = codes == IGNORE
            if not ignore.all():
                counts = centre_line_counts(predicted, codes == 1, ignore=ignore)
                found[truth, name] = found.get((truth, name), CentreLineCounts()) + counts
    return found


def tile_layout(shape: Sequence[int], *, memory_mib: float) -> Layout:
    """The tiles in which centre lines of predictions and truths are compared.

    Parameters
    ----------
    shape : sequence of int
        (Z, Y, X).
    memory_mib : float
        Budget, in MiB.

    Returns
    -------
    layout : Layout

    Raises
    ------
    VolumeError
        If the budget doesn't hold one tile.
    """
    return fixed_within(shape, TILE, bytes_per_voxel=THINNING_BYTES, memory_mib=memory_mib, threads=1)


def score_recipe(
    recipe: Mapping[str, Volume],
    truths: Mapping[str, Mapping[str, Volume]],
    split: pd.DataFrame,
    *,
    fold: int,
) -> pd.DataFrame:
    """Score an annotation as if it were a prediction: what a model that learnt from it has to beat.

    Parameters
    ----------
    recipe : mapping of str to stored volume of uint8
        By volume name: 0, 1, and 255 where it says nothing.
    truths : mapping of str to mapping of str to stored volume of uint8
        `OWN` is left out: it is the recipe's own annotation.
    split : DataFrame
    fold : int

    Returns
    -------
    table : DataFrame
        Columns `RECIPE_COLUMNS`, over voxels that both annotated; no rows where there is no other truth.
    """
    others = {truth: held for truth, held in truths.items() if truth != OWN}
    counted = tally_masks(recipe, others, split, fold=fold, parts=PARTS)
    rows = []
    for truth, part in dict.fromkeys((truth, part) for truth, part, _ in counted):
        each = {n: histogram for (t, p, n), histogram in counted.items() if (t, p) == (truth, part)}
        together = np.sum(list(each.values()), axis=0)
        for scope, name, histogram in [(POOLED, POOLED, together), *(("volume", n, h) for n, h in each.items())]:
            if histogram.sum() == 0:
                continue
            counts = metrics.confusion(histogram, level=1)
            known = {column: getattr(counts, column) for column in RECIPE_COLUMNS[4:]}
            rows.append({"against": truth, "part": part, "scope": scope, "volume": name} | known)
    return pd.DataFrame(rows, columns=list(RECIPE_COLUMNS))
