"""The report's table of models that began with other weights, beside those that began at random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxloom import report_page, report_scores
from voxloom.deferred import Deferred
from voxloom.report_inputs import Material, Run
from voxloom.report_page import badge, score, text
from voxloom.yaml_file import read_yaml

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = Deferred("pandas")

SCRATCH = "random weights"
COLUMNS = (
    "against", "model", "began with", "frozen", "annotated_voxels", "epochs", "average_precision", "f1",
    "compared with", "average_precision_difference", "f1_difference",
)  # fmt: skip
HEADINGS = {
    "annotated_voxels": "training labels [voxels]",
    "average_precision": "AP",
    "f1": "F1",
    "average_precision_difference": "ΔAP",
    "f1_difference": "ΔF1",
}


def adaptation(material: Material, task: str) -> str:
    """Adapted models of a task and those from scratch, no ensembles; empty where every model began at random.

    Parameters
    ----------
    material : Material
    task : str

    Returns
    -------
    html : str
    """
    facts = {model: _facts(_of(material.runs(task), model)) for model in material.models(task)}
    facts = {model: fact for model, fact in facts.items() if fact["network"] is not None}
    if all(fact["began with"] == SCRATCH for fact in facts.values()):
        return ""
    scores = report_scores.headline(material.of_task(material.scores, task), models=list(facts))
    if scores.empty:
        return ""
    note = material.note(task)
    table = compared(scores, facts)
    return report_page.table(
        table,
        columns=list(COLUMNS),
        kind="compact",
        wrap=["began with"],
        caption=f"Weights to begin with, test part{f', {note}' if note else ''}. Differences are to the best model of "
        "the same network that began at random and learnt from as many labels.",
        headings=HEADINGS,
        cells={
            "against": lambda row: text(row["against"]) + badge(note),
            "average_precision": lambda row: score(row["average_precision"]),
            "f1": lambda row: score(row["f1"]),
            "average_precision_difference": lambda row: _signed(row["average_precision_difference"]),
            "f1_difference": lambda row: _signed(row["f1_difference"]),
        },
    )


def compared(scores: pd.DataFrame, facts: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """One row a ground truth and model, with the difference to the model from scratch that it should be held against.

    Parameters
    ----------
    scores : DataFrame
        Columns against, model, average_precision and f1, as `report_scores.headline` makes them.
    facts : mapping of str to mapping
        By model: "began with", frozen, annotated_voxels, epochs, and network.

    Returns
    -------
    table : DataFrame
        Columns `COLUMNS`; "–" and missing numbers where there is no model to compare with.
    """
    rows = []
    for _, row in scores.iterrows():
        fact = facts[row["model"]]
        made = {column: fact[column] for column in ("began with", "frozen", "annotated_voxels", "epochs")}
        made |= {column: row[column] for column in ("against", "model", "average_precision", "f1")}
        beside = _beside(row, scores, facts)
        made["compared with"] = "–" if beside is None else beside["model"]
        for metric in ("average_precision", "f1"):
            made[f"{metric}_difference"] = float("nan") if beside is None else row[metric] - beside[metric]
        rows.append(made)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _beside(row: pd.Series, scores: pd.DataFrame, facts: Mapping[str, Mapping[str, Any]]) -> pd.Series | None:
    """The best model from scratch with the same network and as many labels, for a model that isn't."""
    mine = facts[row["model"]]
    if mine["began with"] == SCRATCH:
        return None
    alike = [
        model
        for model, fact in facts.items()
        if fact["began with"] == SCRATCH and all(fact[key] == mine[key] for key in ("annotated_voxels", "network"))
    ]
    found = scores[(scores["against"] == row["against"]) & scores["model"].isin(alike)]
    return report_scores.best_row(found)


def _of(runs: Sequence[Run], model: str) -> list[Run]:
    return [run for run in runs if run.model == model]


def _facts(runs: Sequence[Run]) -> dict[str, Any]:
    """What a model's folders say about its training, all folds together."""
    documents = [_document(run.directory) for run in runs]
    first = documents[0]
    begun = [document["initialised"]["source"] for document in documents if "initialised" in document]
    voxels = [document.get("counts", {}).get("training_annotated_voxels") for document in documents]
    epochs = [str(document["kept_epoch"]) for document in documents if "kept_epoch" in document]
    return {
        "began with": "; ".join(dict.fromkeys(begun)) or SCRATCH,
        "frozen": ", ".join(first.get("freeze", ())) or "–",
        "annotated_voxels": None if None in voxels else round(sum(voxels) / len(voxels)),
        "epochs": ", ".join(dict.fromkeys(epochs)) or "–",
        "network": first.get("network"),
    }


def _document(folder: Path | None) -> dict[str, Any]:
    """Contents of a model's model.yaml; nothing where the report was given no folder."""
    path = folder / "model.yaml" if folder is not None else None
    return read_yaml(path) if path is not None and path.is_file() else {}


def _signed(value: float) -> str:
    return score(None) if pd.isna(value) else f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")
