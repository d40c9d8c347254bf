"""The report's tables of planned settings: what each is, and why."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxloom import report_page
from voxloom.deferred import Deferred
from voxloom.report_inputs import Material
from voxloom.report_page import paragraph, text
from voxloom.yaml_file import read_yaml

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = Deferred("pandas")


def plans(material: Material, task: str) -> list[str]:
    """A table for every model of a task that was planned.

    Parameters
    ----------
    material : Material
    task : str

    Returns
    -------
    parts : list of str
        HTML; empty where no model was planned.
    """
    parts = []
    seen = set()
    for run in material.runs(task):
        if run.model in seen or run.directory is None or not (run.directory / "plan.yaml").is_file():
            continue
        seen.add(run.model)
        said = (
            f"How <strong>{text(run.model)}</strong> of {text(task)} was planned from the annotation and the machine. "
            "plan.yaml in the model's folder has the same, to be copied and edited."
        )
        table = planned_settings(run.directory, run.model)
        parts += [paragraph(said), report_page.table(table, wrap=["reason"])]
    return parts


def planned_settings(folder: Path, model: str) -> pd.DataFrame:
    """What a planned model was trained with, and why.

    Parameters
    ----------
    folder : Path
        Of the model: its model.yaml and plan.yaml are read.
    model : str

    Returns
    -------
    settings : DataFrame
        Columns setting, value, reason; a value that the task file overruled says so.
    """
    used = read_yaml(folder / "model.yaml")
    choices = read_yaml(folder / "plan.yaml")["models"][model]["choices"]
    rows = []
    for key, choice in choices.items():
        value = _at(used, key)
        reason = choice.get("reason", "")
        if value != choice["value"]:
            reason = f"written in the task file; the plan would have taken {_in_words(choice['value'])}: {reason}"
        rows.append({"setting": key, "value": _in_words(value), "reason": reason})
    return pd.DataFrame(rows, columns=["setting", "value", "reason"])


def _at(settings: Mapping[str, Any], key: str) -> Any:
    value: Any = settings
    for part in key.split("."):
        value = value[part]
    return value


def _in_words(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(f"[{_in_words(part)}]" if isinstance(part, list) else _in_words(part) for part in value)
    if value is None or isinstance(value, bool):
        return {True: "yes", False: "no", None: "none"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
