"""The report's section about membranes: the ISBI 2012 challenge's measures, on the training stack."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from voxloom import report_membrane_curves, report_page, report_scores
from voxloom.deferred import Deferred
from voxloom.error_maps import MARKS, MERGER_MARK, MISSED_MARK, SPLIT_MARK, TOLERANCE
from voxloom.report_inputs import Material, Task, file_name
from voxloom.report_membrane_scores import (
    COUNTS,
    HIGHER_IS_BETTER,
    LOWER_IS_BETTER,
    SCORE_COLUMNS,
    SECTION_COLUMNS,
    WEIGHT_COLUMNS,
    Gain,
    SectionCase,
    Step,
    ablation,
    best_model,
    best_of,
    choose_sections,
    gain,
    map_thresholds,
)
from voxloom.report_page import badge, paragraph, text

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = Deferred("pandas")

TITLE = "Cross-validation on the training stack"
ONE_FOLD_TITLE = "Held-out sections of the training stack"
MINUS = "\N{MINUS SIGN}"
HEADINGS = {
    "v_rand": "V_rand, best threshold",
    "v_rand_at_validation": "V_rand, validation's threshold",
    "v_info": "V_info, best threshold",
    "v_info_at_validation": "V_info, validation's threshold",
    "rand_error": "Rand error (2012)",
    "warping_error": "warping error (2012)",
    "pixel_error": "pixel error (2012)",
}
PUBLISHED = (
    ("SFCNN", "0.98680", "0.99144"),
    ("CUMedVision", "0.97682", "0.98865"),
    ("U-Net", "0.97276", "0.98662"),
    ("plain re-implementations", "0.951 to 0.964", "0.9805 to 0.983"),
)
"""System, V_rand and V_info after thinning, from the challenge's server, of the hidden labels of its test stack."""

MEANINGS = {
    SPLIT_MARK: "one object of the truth is cut in two",
    MERGER_MARK: "two objects of the truth are one",
    MISSED_MARK: f"none was found within {TOLERANCE} pixels",
}
"""What an error map's marks say about a place."""


def membranes(material: Material) -> str:
    """Ablation, published numbers, error maps and curves of every task that asked for the challenge's measures.

    Parameters
    ----------
    material : Material

    Returns
    -------
    html : str
        Empty where no task did: then the page has no such section.
    """
    return "\n".join(_of_task(material, task) for task in material.inputs.tasks if task.has_membranes)


def _of_task(material: Material, task: Task) -> str:
    runs, models, note = material.runs(task.name), material.models(task.name), material.note(task.name)
    scores = report_scores.gather(runs, file="membrane_scores.csv", needs=SCORE_COLUMNS)
    table = ablation(scores, models=models)
    title = ONE_FOLD_TITLE if table["folds"].max() == 1 else TITLE
    heading = f"<h3>{text(task.name)}: {title}{badge(note)}</h3>"
    if table.empty:
        return heading + paragraph("No model was scored on a test section.", kind="note")
    sections = report_scores.gather(runs, file="membranes.csv", needs=SECTION_COLUMNS)
    return "\n".join(
        [
            heading,
            _ablation_table(table, title=title, note=note),
            *_gain_words(scores, task),
            _published(),
            *_error_maps(material, task, scores, sections, best=best_model(table)),
            _threshold_curves(material, task, sections),
            _weight_curves(material, task),
        ]
    )


def _ablation_table(table: pd.DataFrame, *, title: str, note: str) -> str:
    metrics = [*HIGHER_IS_BETTER, *LOWER_IS_BETTER]
    best = {column: best_of(table, column) for column in (*metrics, *COUNTS)}

    def cell(column: str) -> Callable[[pd.Series], str]:
        def shown(row: pd.Series) -> str:
            said = _shown(row[column], column)
            is_best = row[column] == best[column] and table[column].nunique() > 1
            said = f"<strong>{said}</strong>" if is_best else said
            if column in metrics and row["folds"] > 1:
                each = (_shown(value, column) for value in row[f"{column}_folds"])
                said += "".join(f' <span class="interval">{value}</span>' for value in each)
            return said

        return shown

    columns = ["model", *metrics, *COUNTS]
    folds = int(table["folds"].max())
    each = f"Mean over {folds} folds, below it each fold's own" if folds > 1 else "One fold"
    return report_page.table(
        table,
        columns=columns,
        kind="compact",
        caption=f"{title}{f', {note}' if note else ''}. {each}; {int(table['sections'].max())} test sections. "
        "V_rand and V_info are taken after thinning. The best threshold is that of the highest mean over the test "
        "sections, the challenge's own rule; the validation's was chosen without them. Splits and mergers "
        "are those of all test sections at the warping error's threshold; by the challenge's rule that is the lowest "
        "of all thresholds, also one at which hardly anything is left to be split. The best value of a column is bold.",
        headings=HEADINGS,
        cells={
            "model": lambda row: f'<div style="white-space:normal;max-width:8em">{text(row["model"])}</div>',
            **{column: cell(column) for column in (*metrics, *COUNTS)},
        },
    )


def _shown(value: float, column: str) -> str:
    """A score with the digits in which models differ."""
    if pd.isna(value):
        return '<span class="missing">–</span>'
    if column in COUNTS:
        return text(report_page.number(int(value)))
    return f"{value + 0.0:.5f}" if column == "warping_error" else f"{value:.4f}"  # an error of -0.0 is 0


def _gain_words(scores: pd.DataFrame, task: Task) -> list[str]:
    """Whether each step raised V_rand, from the scores."""
    words = []
    for step in task.steps:
        by_challenge = gain(scores, step, metric="v_rand")
        by_validation = gain(scores, step, metric="v_rand_at_validation")
        if by_challenge is not None:
            words.append(paragraph(_said(step, by_challenge, by_validation)))
    return words or [
        paragraph("No model ran both with and without watershed fusion or test-time transforms.", kind="note")
    ]


def _said(step: Step, by_challenge: Gain, by_validation: Gain | None) -> str:
    first = (
        f"<strong>{text(step.what)} {_verdict(by_challenge)}</strong>: {text(step.model)} against {text(step.without)} "
        f"at the best threshold {_differences(by_challenge)}"
    )
    second = "" if by_validation is None else f"; at the validation's threshold {_differences(by_validation)}"
    return f"{first}{second}."


def _verdict(found: Gain) -> str:
    folds = len(found.by_fold)
    if found.raised == folds:
        return "raised V_rand" + (" in each fold" if folds > 1 else "")
    if not found.raised:
        return "did not raise V_rand" + (" in any fold" if folds > 1 else "")
    mean = "raised" if found.mean > 0 else "did not raise"
    return f"raised V_rand in {found.raised} of {folds} folds and {mean} its mean"


def _differences(found: Gain) -> str:
    each = ", ".join(f"{_signed(value)} in fold {text(fold)}" for fold, value in found.by_fold.items())
    return each + (f", {_signed(found.mean)} on average" if len(found.by_fold) > 1 else "")


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", MINUS)


def _published() -> str:
    table = pd.DataFrame(PUBLISHED, columns=["system", "V_rand (thinned)", "V_info (thinned)"])
    return "<h4>Published, on the challenge's server</h4>\n" + report_page.table(
        table,
        headings={name: name for name in table.columns},
        caption="Scores that the challenge's server gave for the hidden labels of its test stack. They are of other "
        "sections than the table above, which is of the training stack: rows of the two can't be compared one by one.",
    )


def _error_maps(
    material: Material, task: Task, scores: pd.DataFrame, sections: pd.DataFrame, *, best: str | None
) -> list[str]:
    cases = choose_sections(sections[sections["model"] == best], thresholds=map_thresholds(scores, model=str(best)))
    folders = {run.fold: run.evaluation / "membranes" for run in material.runs(task.name) if run.model == best}
    shown = [
        _error_map(material, task, kind, case, model=str(best), path=path)
        for kind, case in cases.items()
        if (path := folders[case.fold] / f"{case.volume}-{case.z:04d}.png").is_file()
    ]
    if not shown:
        return [paragraph("There is no error map of a test section.", kind="note")]
    legend = "".join(
        f'<li><i style="background:rgb{MARKS[mark][1]}"></i>{MARKS[mark][0]}: {meaning}</li>'
        for mark, meaning in MEANINGS.items()
    )
    return [
        f"<h4>Where {text(best)} errs</h4>",
        f'<div class="panels" style="grid-template-columns:repeat({len(shown)},minmax(0,1fr))">{"".join(shown)}</div>',
        f'<ul class="legend">{legend}</ul>',
    ]


def _error_map(material: Material, task: Task, kind: str, case: SectionCase, *, model: str, path: Path) -> str:
    where = f"{case.volume}, section {case.z}"
    name = file_name(f"membranes_{task.name}_{model}_{kind}")
    shutil.copyfile(path, material.figures_directory / f"{name}.png")
    return report_page.figure(
        path.read_bytes(),
        kind="image/png",
        alt=f"Error map of {where}, the {kind} test section of {model} with V_rand {case.v_rand:.4f}: the image in "
        f"grey, splits red, mergers blue, missed membrane yellow.",
        caption=f"{kind.capitalize()} test section of {text(model)}: {text(where)} (fold {text(case.fold)}), V_rand "
        f"{case.v_rand:.4f} at threshold {case.threshold:.1f}{badge(material.note(task.name))}. "
        f'<span class="file">figures/{text(name)}.png</span>',
    )


def _threshold_curves(material: Material, task: Task, sections: pd.DataFrame) -> str:
    curves = report_membrane_curves.mean_curves(sections)
    if curves.empty:
        return ""
    models, note = material.models(task.name), material.note(task.name)
    folds = " Thin lines are folds, dots their best thresholds, the thick line is their mean."
    return material.draw(
        report_membrane_curves.threshold_figure(curves, models=models, title=task.name, note=note),
        f"membranes_thresholds_{task.name}",
        alt=f"V_rand after thinning over the threshold of the interior probability, one line a model of "
        f"{task.name}; the highest values are in the table above.",
        caption=f"{text(task.name)}{badge(note)}: V_rand after thinning, mean over test sections. A flat top means "
        f"that the threshold hardly matters.{folds if curves['fold'].nunique() > 1 else ''}",
    )


def _weight_curves(material: Material, task: Task) -> str:
    weights = report_scores.gather(material.runs(task.name), file="fusion.csv", needs=WEIGHT_COLUMNS)
    if weights.empty:
        return ""
    note = material.note(task.name, "train")
    return material.draw(
        report_membrane_curves.weight_figure(weights, models=material.models(task.name), title=task.name, note=note),
        f"membranes_fusion_{task.name}",
        alt=f"Rand error of the training sections of {task.name} over the weight of the watershed's contour.",
        caption=f"{text(task.name)}{badge(note)}: how much of the watershed's contour is mixed into the probability. "
        "w was chosen on the training sections (dots), at 0 the model stays as it is.",
    )
