"""Scores of all runs gathered into few tables: what the report's figures, headline and tables are made of."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxloom.deferred import Deferred
from voxloom.errors import FormatError

if TYPE_CHECKING:
    import pandas as pd

    from voxloom.report_inputs import Run
else:
    pd = Deferred("pandas")

HEADLINE_METRICS = ("average_precision", "f1", "precision", "recall", "iou", "accuracy", "all_background_accuracy")
SCORE_COLUMNS = (
    "against", "part", "scope", "name", "voxels", "prevalence", "threshold", "average_precision", "accuracy",
    "all_background_accuracy", "precision", "recall", "f1",
)  # fmt: skip
CURVE_COLUMNS = ("against", "part", "scope", "threshold", "precision", "recall", "tp", "fp", "fn", "tn")
RELIABILITY_COLUMNS = ("against", "part", "bin_from", "bin_to", "mean_probability", "foreground_share", "voxels")
RECIPE_COLUMNS = ("against", "part", "volume", "precision", "recall", "f1")
LOG_COLUMNS = (
    "epoch", "learning_rate", "training_loss", "validation_loss", "validation_average_precision", "validation_f1",
)  # fmt: skip
POOLED_NAMES = ("", "all", "pooled", "nan")


def read_table(path: Path, *, needs: Iterable[str]) -> pd.DataFrame:
    """A CSV table with the columns that the report needs.

    Parameters
    ----------
    path : Path
        CSV file with a header line.
    needs : iterable of str
        Columns that must be there.

    Returns
    -------
    table : DataFrame
        Names of volumes, folds and the like stay text.

    Raises
    ------
    FormatError
        If a column is missing; the message names the file and the columns.
    """
    text = dict.fromkeys(("against", "part", "scope", "name", "grid", "volume", "region", "fold", "block"), str)
    table = pd.read_csv(path, dtype=text, keep_default_na=False, na_values=[""])  # a volume may be called NA
    missing = [column for column in needs if column not in table.columns]
    if missing:
        raise FormatError(
            f"{path.parent.name}/{path.name} lacks the column(s) {', '.join(missing)}; it has "
            f"{', '.join(map(str, table.columns))}. Run the stage that writes it again"
        )
    return table


def read_threshold(directory: Path) -> dict[str, Any] | None:
    """The threshold that was chosen on the validation part.

    Parameters
    ----------
    directory : Path
        Evaluation folder of one model and fold.

    Returns
    -------
    threshold : dict or None
        What threshold.json holds; None where there is no such file, or no threshold could be chosen.

    Raises
    ------
    FormatError
        If the file holds something else.
    """
    path = directory / "threshold.json"
    if not path.is_file():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict) or "stored" not in found:
        raise FormatError(
            f"{directory.name}/threshold.json needs the key 'stored', the chosen threshold's stored level"
        )
    return found if found["stored"] is not None else None


def gather(runs: Sequence[Run], *, file: str, needs: Iterable[str]) -> pd.DataFrame:
    """One kind of table of many runs below each other.

    Parameters
    ----------
    runs : sequence of Run
        Models and folds.
    file : str
        Name inside a run's evaluation folder, or, for training_log.csv, its model's folder.
    needs : iterable of str
        Columns that must be there.

    Returns
    -------
    table : DataFrame
        The files' columns behind task, model and fold. A run without the file adds nothing; no run at all gives an
        empty table with the needed columns.
    """
    needs = list(needs)
    parts = []
    for run in runs:
        folder = run.directory if file == "training_log.csv" else run.evaluation
        path = folder / file if folder else None
        if path is not None and path.is_file():
            table = read_table(path, needs=needs)
            for place, column in enumerate(("task", "model", "fold")):
                if column in table.columns:
                    table = table.drop(columns=column)
                table.insert(place, column, str(getattr(run, column)))
            if not table.empty:
                parts.append(table)
    if not parts:
        return pd.DataFrame(columns=["task", "model", "fold", *needs])
    return pd.concat(parts, ignore_index=True)


def headline(scores: pd.DataFrame, *, models: Sequence[str], part: str = "test", grid: str = "native") -> pd.DataFrame:
    """One row per ground truth and model, of the pooled scores of one part.

    Parameters
    ----------
    scores : DataFrame
        One task's rows of scores.csv with their model and fold.
    models : sequence of str
        The order of a ground truth's rows.
    part : str
        "train", "validation" or "test".
    grid : str
        "native", or "network" for the scale that a model works at where that differs; rows of a table without this
        column are native.

    Returns
    -------
    rows : DataFrame
        Columns against, model, folds, voxels, prevalence, threshold, the metrics and their `_low` and `_high`. Of one
        fold these are the table's own numbers with their 95 % intervals. Of several each metric is the mean over
        folds, its interval the folds' smallest and largest value, and voxels their sum.
    """
    grids = scores["grid"].fillna("native") if "grid" in scores.columns else pd.Series("native", index=scores.index)
    chosen = scores[(scores["scope"] == "pooled") & (scores["part"] == part) & (grids == grid)]
    columns = [column for column in (*HEADLINE_METRICS, "prevalence", "threshold") if column in chosen.columns]
    rows = []
    for against in pd.unique(chosen["against"]):
        for model in models:
            found = chosen[(chosen["against"] == against) & (chosen["model"] == model)]
            if found.empty:
                continue
            row: dict[str, Any] = {"against": against, "model": model, "folds": len(found)}
            row["voxels"] = int(found["voxels"].sum())
            for column in columns:
                values = found[column].astype(float)
                row[column] = float(values.mean())
                if len(found) > 1:
                    row[f"{column}_low"], row[f"{column}_high"] = float(values.min()), float(values.max())
                elif f"{column}_low" in found.columns:
                    row[f"{column}_low"] = float(found[f"{column}_low"].iloc[0])
                    row[f"{column}_high"] = float(found[f"{column}_high"].iloc[0])
            rows.append(row)
    return pd.DataFrame(rows, columns=None if rows else ["against", "model", "folds", "voxels", *columns])


def recipe_points(recipe: pd.DataFrame, *, part: str = "test") -> pd.DataFrame:
    """The scores of the recipe's own mask, one row a ground truth.

    Parameters
    ----------
    recipe : DataFrame
        One task's rows of recipe.csv with their model and fold: against, part, volume (empty or "pooled" for all
        together), precision, recall, f1. Every model repeats the same rows.
    part : str
        "train", "validation" or "test".

    Returns
    -------
    points : DataFrame
        Columns against, precision, recall, f1 and further scores; means over folds. "annotation" is left out, since
        that is the mask itself, and so is a ground truth with several volumes but no pooled row, since means over
        volumes are not pooled scores.
    """
    metrics = [column for column in (*HEADLINE_METRICS, "dice", "prevalence") if column in recipe.columns]
    chosen = recipe[(recipe["part"] == part) & (recipe["against"] != "annotation")]
    rows = []
    for against in pd.unique(chosen["against"]):
        found = chosen[chosen["against"] == against]
        found = found[found["model"] == found["model"].iloc[0]]
        if "scope" in found.columns:
            pooled = found[found["scope"] == "pooled"]
        else:
            pooled = found[found["volume"].fillna("").astype(str).isin(POOLED_NAMES)]
            if pooled.empty and found["volume"].nunique() == 1:
                pooled = found
        if not pooled.empty:
            rows.append({"against": against, **{m: float(pooled[m].astype(float).mean()) for m in metrics}})
    return pd.DataFrame(rows, columns=None if rows else ["against", *metrics])


def synthetic_note(volumes: Iterable[str], *, is_synthetic: Mapping[str, bool]) -> str:
    """How scores on these volumes must be called.

    Parameters
    ----------
    volumes : iterable of str
    is_synthetic : mapping of str to bool
        Of every volume of the report.

    Returns
    -------
    note : str
        "synthetic" if all are phantoms, "partly synthetic" if some are, "" if none is.
    """
    known = [is_synthetic.get(volume, False) for volume in volumes]
    if known and all(known):
        return "synthetic"
    return "partly synthetic" if any(known) else ""


def row_note(row: pd.Series, *, splits: pd.DataFrame, is_synthetic: Mapping[str, bool]) -> str:
    """How one row of scores.csv or recipe.csv must be called.

    Parameters
    ----------
    row : Series
        With part and, where the table has them, fold, scope, name and volume.
    splits : DataFrame
        The task's split table.
    is_synthetic : mapping of str to bool

    Returns
    -------
    note : str
        As `synthetic_note`.
    """
    scope = row.get("scope")
    of = row["name"] if "name" in row else row.get("volume")
    if scope == "volume" or (scope is None and of in is_synthetic):
        return synthetic_note([str(of)], is_synthetic=is_synthetic)
    inside = splits[splits["part"] == row["part"]]
    if "fold" in row:
        inside = inside[inside["fold"].astype(str) == str(row["fold"])]
    if scope == "region":
        inside = inside[inside["region"].fillna("") == ("" if pd.isna(of) else str(of))]
    return synthetic_note(pd.unique(inside["volume"]), is_synthetic=is_synthetic)


def interval_words(rows: pd.DataFrame) -> str:
    """What the brackets behind a headline's numbers mean.

    Parameters
    ----------
    rows : DataFrame
        As `headline` returns them.

    Returns
    -------
    words : str
        One sentence.
    """
    if (rows["folds"] > 1).any():
        return "Each number is the mean over folds; brackets are the smallest and largest fold."
    if any(column.endswith("_low") and rows[column].notna().any() for column in rows.columns):
        return "Brackets are 95 % intervals from resampling spatial blocks of the test part."
    return "No intervals were computed."


def best_row(rows: pd.DataFrame) -> pd.Series | None:
    """The model with the highest average precision, or None where none has one."""
    known = rows[rows["average_precision"].notna()]
    if known.empty:
        return None
    values = known["average_precision"].to_numpy(dtype=float)
    return known.iloc[max(range(len(values)), key=lambda place: (values[place], -place))]
