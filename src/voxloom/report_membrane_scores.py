"""Scores of membranes by the ISBI 2012 challenge's measures, for the report: one row a model, and what helped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from voxloom.deferred import Deferred
from voxloom.membranes import best_threshold

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = Deferred("pandas")

HIGHER_IS_BETTER = ("v_rand", "v_rand_at_validation", "v_info", "v_info_at_validation")
LOWER_IS_BETTER = ("rand_error", "warping_error", "pixel_error")
COUNTS = ("splits", "mergers")
SCORE_COLUMNS = ("part", "sections", "v_rand_threshold", *HIGHER_IS_BETTER, *LOWER_IS_BETTER, *COUNTS)
SECTION_COLUMNS = ("part", "volume", "z", "threshold", "v_rand")
WEIGHT_COLUMNS = ("weight", "rand_error", "is_chosen")


@dataclass(frozen=True)
class Step:
    """What was done to one model's predictions to get another's.

    Parameters
    ----------
    what : str
        "Watershed fusion" or "Test-time transforms".
    model : str
        The model with it.
    without : str
        The model without it, otherwise the same.
    """

    what: str
    model: str
    without: str


@dataclass(frozen=True)
class Gain:
    """What a step changed in one score.

    Parameters
    ----------
    step : Step
    by_fold : mapping of str to float
        Fold to the score with the step less that without it.
    """

    step: Step
    by_fold: Mapping[str, float]

    @property
    def mean(self) -> float:
        """Over folds."""
        return sum(self.by_fold.values()) / len(self.by_fold)

    @property
    def raised(self) -> int:
        """Folds in which the score is higher with the step."""
        return sum(value > 0 for value in self.by_fold.values())


@dataclass(frozen=True)
class SectionCase:
    """A test section to show.

    Parameters
    ----------
    fold, volume : str
    z : int
    threshold : float
        Of the interior probability.
    v_rand : float
        Of this section at that threshold.
    """

    fold: str
    volume: str
    z: int
    threshold: float
    v_rand: float


def ablation(scores: pd.DataFrame, *, models: Sequence[str]) -> pd.DataFrame:
    """One row a model: the mean over folds of every score of the test part, and the folds' own.

    Parameters
    ----------
    scores : DataFrame
        One task's rows of membrane_scores.csv with their model and fold; columns `SCORE_COLUMNS`.
    models : sequence of str
        The order of the rows.

    Returns
    -------
    table : DataFrame
        Columns model, folds, sections (sums), every score (mean over folds, not defined where one fold's isn't),
        ``<score>_folds`` (a tuple, by fold), and splits and mergers (sums over all test sections).
    """
    test = scores[scores["part"] == "test"].sort_values("fold", kind="stable")
    metrics = [*HIGHER_IS_BETTER, *LOWER_IS_BETTER]
    rows = []
    for model in models:
        found = test[test["model"] == model]
        if found.empty:
            continue
        row = {"model": model, "folds": len(found), "sections": int(found["sections"].sum())}
        row |= {metric: float(found[metric].astype(float).mean(skipna=False)) for metric in metrics}
        row |= {f"{metric}_folds": tuple(found[metric].astype(float)) for metric in metrics}
        row |= {count: int(found[count].sum()) for count in COUNTS}
        rows.append(row)
    columns = ["model", "folds", "sections", *metrics, *(f"{metric}_folds" for metric in metrics), *COUNTS]
    return pd.DataFrame(rows, columns=columns)


def best_of(table: pd.DataFrame, column: str) -> float:
    """The best value of a column of `ablation`: the highest of V_rand and V_info, the lowest of errors and counts."""
    values = table[column].astype(float)
    return float(values.max() if column in HIGHER_IS_BETTER else values.min())


def best_model(table: pd.DataFrame) -> str | None:
    """The model with the highest V_rand (of equals the first), or None where none has one."""
    known = table[table["v_rand"].notna()]
    return None if known.empty else str(known["model"].loc[known["v_rand"].idxmax()])


def gain(scores: pd.DataFrame, step: Step, *, metric: str) -> Gain | None:
    """What a step changed in a score of the test part, fold by fold.

    Parameters
    ----------
    scores : DataFrame
        As `ablation` takes it.
    step : Step
    metric : str
        Column of `scores`.

    Returns
    -------
    gain : Gain or None
        None where no fold has the score of both.
    """
    test = scores[scores["part"] == "test"]
    by_fold = {
        model: test[test["model"] == model].set_index("fold")[metric].astype(float)
        for model in (step.model, step.without)
    }
    differences = (by_fold[step.model] - by_fold[step.without]).dropna().sort_index()
    return Gain(step, {str(fold): float(value) for fold, value in differences.items()}) if len(differences) else None


def map_thresholds(scores: pd.DataFrame, *, model: str) -> dict[str, float]:
    """The threshold at which each fold's error maps are drawn.

    Parameters
    ----------
    scores : DataFrame
        As `ablation` takes it.
    model : str

    Returns
    -------
    thresholds : dict of str to float
        By fold; see `voxloom.membranes.best_threshold`.
    """
    own = scores[scores["model"] == model]
    return {str(fold): best_threshold(rows, part="validation") for fold, rows in own.groupby("fold")}


def choose_sections(sections: pd.DataFrame, *, thresholds: Mapping[str, float]) -> dict[str, SectionCase]:
    """The typical and the worst test section of one model.

    Parameters
    ----------
    sections : DataFrame
        One model's rows of membranes.csv with their fold; columns `SECTION_COLUMNS`.
    thresholds : mapping of str to float
        Fold to the threshold at which its sections are compared.

    Returns
    -------
    cases : dict of str to SectionCase
        "worst", the section with the lowest V_rand, and "typical", that with the median (of two middle ones the lower),
        over the test sections of all folds; one section is only "worst", none gives an empty dict.
    """
    test = sections[(sections["part"] == "test") & sections["v_rand"].notna()]
    at = [
        rows[(rows["threshold"] - thresholds[fold]).abs() < 1e-6]
        for fold, rows in test.groupby("fold")
        if fold in thresholds
    ]
    if not at or pd.concat(at).empty:
        return {}
    ranked = pd.concat(at).sort_values(["v_rand", "fold", "volume", "z"], kind="stable")
    places = {"worst": 0, "typical": (len(ranked) - 1) // 2}
    cases = {}
    for kind, place in places.items():
        row = ranked.iloc[place]
        if kind == "worst" or place != places["worst"]:
            cases[kind] = SectionCase(
                str(row["fold"]), str(row["volume"]), int(row["z"]), float(row["threshold"]), float(row["v_rand"])
            )
    return cases
