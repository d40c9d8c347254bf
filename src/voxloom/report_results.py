"""The report's sections about results: headline, curves, panels, training, reliability, tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from voxloom import (
    figures,
    report_adaptation,
    report_curves,
    report_page,
    report_panels,
    report_pictures,
    report_plan,
    report_scores,
    report_training,
    report_viewer,
)
from voxloom.deferred import Deferred
from voxloom.report_inputs import Material, Run, Task, file_name
from voxloom.report_page import badge, paragraph, score, text
from voxloom.report_viewer import Output

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = Deferred("pandas")

AUGMENTED = "augmented_patches.png"
HEADINGS = {"average_precision": "AP", "f1": "F1", "all_background_accuracy": "accuracy of all background"}
HEADLINE_COLUMNS = (
    "average_precision", "f1", "precision", "recall", "accuracy", "all_background_accuracy", "prevalence", "threshold",
)  # fmt: skip


FIRST_COLUMNS = (
    "task", "data", "model", "fold", "against", "part", "grid", "scope", "name", "volume", "average_precision", "f1",
    "precision", "recall", "accuracy", "all_background_accuracy", "prevalence", "threshold", "voxels",
)  # fmt: skip


def heading(material: Material, task: str, *, note: str | None = None) -> str:
    """A task's name as a heading, with its badge."""
    return f"<h3>{text(task)}{badge(material.note(task) if note is None else note)}</h3>"


def headline(material: Material) -> str:
    """Models side by side, per task and ground truth, beside what an empty mask and the recipe's own mask reach."""
    parts = [
        paragraph(
            "Accuracy counts background, too: compare it with the accuracy of calling everything background. Average "
            "precision (AP) and F1 look at the foreground only; an AP as low as the prevalence is chance."
        )
    ]
    for task in material.inputs.tasks:
        models, note = material.models(task.name), material.note(task.name)
        scores = material.of_task(material.scores, task.name)
        rows = report_scores.headline(scores, models=models)
        parts.append(heading(material, task.name))
        if rows.empty:
            parts.append(paragraph("No model was scored on a test part: no test voxel is annotated.", kind="note"))
            continue
        recipe = report_scores.recipe_points(material.of_task(material.recipe, task.name))
        for against in pd.unique(rows["against"]):
            parts.append(_headline_words(rows[rows["against"] == against], recipe, against=str(against), note=note))
        network = report_scores.headline(scores, models=models, grid="network")
        parts.append(_headline_table(rows, recipe, network, note=note))
        parts.append(report_adaptation.adaptation(material, task.name))
        parts.append(
            material.draw(
                report_curves.headline_figure(rows, recipe=recipe, models=models, title=task.name, note=note),
                f"headline_{task.name}",
                alt=f"Average precision and F1 of each model of {task.name}; the numbers are in the table above.",
                caption=text(report_scores.interval_words(rows).replace("Brackets", "Bars")),
            )
        )
    return "\n".join(parts) if material.inputs.tasks else paragraph("No task ran.", kind="note")


def _headline_words(rows: pd.DataFrame, recipe: pd.DataFrame, *, against: str, note: str) -> str:
    called = f" ({note})" if note else ""
    best = report_scores.best_row(rows)
    if best is None:
        return paragraph(
            f"Against <strong>{text(against)}</strong>{called} there is no foreground in the test part, so that "
            "recall and average precision are not defined.",
            kind="note",
        )

    def said(metric: str) -> str:
        return score(best[metric], low=best.get(f"{metric}_low"), high=best.get(f"{metric}_high"))

    words = (
        f"Against <strong>{text(against)}</strong>{called}, <strong>{text(best['model'])}</strong> reaches AP "
        f"{said('average_precision')} and F1 {said('f1')}"
    )
    others = rows[rows["model"] != best["model"]]
    if not others.empty:
        words += "; " + ", ".join(
            f"{text(row['model'])} AP {score(row['average_precision'])}" for _, row in others.iterrows()
        )
    mask = recipe[recipe["against"] == against]
    words += f". The recipe's own mask has F1 {score(mask['f1'].iloc[0])}" if not mask.empty else ""
    return paragraph(words + ".")


def _headline_table(rows: pd.DataFrame, recipe: pd.DataFrame, network: pd.DataFrame, *, note: str) -> str:
    parts = []
    for against in pd.unique(rows["against"]):
        for table, ending in ((rows, ""), (network, ", at the network's own scale"), (recipe, None)):
            found = table[table["against"] == against] if not table.empty else table
            names = found["model"] + ending if ending is not None and not found.empty else "recipe's own mask"
            parts.append(found.assign(model=names))
    full = pd.concat([part for part in parts if not part.empty], ignore_index=True)
    metrics = [metric for metric in HEADLINE_COLUMNS if metric in full.columns]

    def cell_of(metric: str) -> Callable[[pd.Series], str]:
        def cell(row: pd.Series) -> str:
            if metric in ("prevalence", "threshold"):
                return text(report_page.number(row[metric], column=metric))
            return score(row[metric], low=row.get(f"{metric}_low"), high=row.get(f"{metric}_high"))

        return cell

    return report_page.table(
        full,
        columns=["against", "model", *metrics],
        kind="compact",
        caption=f"Test part{f', {note}' if note else ''}. {report_scores.interval_words(rows)}",
        headings=HEADINGS,
        cells={
            "against": lambda row: text(row["against"]) + badge(note),
            **{metric: cell_of(metric) for metric in metrics},
        },
    )


def curves(material: Material) -> str:
    """Precision against recall over all thresholds."""
    parts = [
        paragraph(
            "The dot is the chosen threshold. Grey lines join points of equal F1. A line further up and to the right "
            "is better; one along the dotted line is chance."
        )
    ]
    for task in material.inputs.tasks:
        note = material.note(task.name)
        rows = report_scores.headline(material.of_task(material.scores, task.name), models=material.models(task.name))
        lines = material.of_task(material.curves, task.name)
        lines = lines[(lines["scope"] == "pooled") & (lines["part"] == "test")]
        if "grid" in lines.columns:
            lines = lines[lines["grid"].fillna("native") == "native"]
        if rows.empty or lines.empty:
            parts.append(heading(material, task.name))
            parts.append(paragraph("There is no curve: no test voxel was scored.", kind="note"))
            continue
        recipe = report_scores.recipe_points(material.of_task(material.recipe, task.name))
        folds = " Thin lines are folds, the thick line pools their counts." if (rows["folds"] > 1).any() else ""
        parts.append(
            material.draw(
                report_curves.precision_recall_figure(
                    lines, rows, recipe=recipe, models=material.models(task.name), title=task.name, note=note
                ),
                f"precision_recall_{task.name}",
                alt=f"Precision-recall curves of every model of {task.name}, one panel a ground truth.",
                caption=f"{text(task.name)}{badge(note)}, test part.{folds}",
            )
        )
    return "\n".join(parts)


def panels(material: Material) -> str:
    """Slices of the test part with every model's output, typical and worst ones marked."""
    parts = [paragraph("The slider runs through the test slices; arrow keys move it, and a click enlarges a picture.")]
    for task in material.inputs.tasks:
        outputs, notes = _outputs(material, task.name)
        for against, truths in task.truths.items():
            note = material.note(task.name)
            parts.append(f"<h3>{text(task.name)} against {text(against)}{badge(note)}</h3>")
            counts = report_viewer.count_slices(
                outputs, truths=truths, splits=material.splits[task.name], open_volume=material.gallery.open_volume
            )
            shown = report_viewer.viewer(
                material.gallery,
                name=file_name(f"panels-{task.name}-{against}"),
                against=against,
                outputs=outputs,
                counts=counts,
                truths=truths,
                splits=material.splits[task.name],
                limit=material.max_slices,
            )
            if not shown:
                parts.append(paragraph(f"No test slice is annotated by {text(against)}.", kind="note"))
                continue
            parts += [*(paragraph(n, kind="note") for n in notes), shown]
            files = _save_cases(material, task, against=against, outputs=outputs, counts=counts, note=note)
            if files:
                parts.append(f'<p class="muted">Typical and worst slice as figures: {files}</p>')
        if not task.truths:
            parts += [heading(material, task.name), paragraph("There is no ground truth to show.", kind="note")]
    return material.gallery.definitions() + "\n".join(parts)


def _outputs(material: Material, task: str) -> tuple[list[Output], list[str]]:
    """Predictions with their thresholds, and what is to be said where one had to do without."""
    outputs, notes = [], []
    for run in material.runs(task):
        threshold = report_scores.read_threshold(run.evaluation)
        if threshold is None:
            notes.append(
                f"No threshold could be chosen for {text(run.model)}, fold {text(run.fold)}, since its validation part "
                "has no foreground; its overlay is drawn at a probability of 0.5."
            )
        stored = _half(material, run) if threshold is None else int(threshold["stored"])
        outputs.append(Output(task, run.model, run.fold, run.predictions, stored))
    return outputs, notes


def _half(material: Material, run: Run) -> int:
    """The stored level of probability 0.5."""
    quantisation = material.gallery.open_volume(next(iter(run.predictions.values()))).quantisation
    return math.ceil((0.5 - quantisation.offset) / quantisation.scale)


def _save_cases(
    material: Material,
    task: Task,
    *,
    against: str,
    outputs: Sequence[Output],
    counts: dict[str, pd.DataFrame],
    note: str,
) -> str:
    """Write each model's typical and worst slice as a figure; the files' names as HTML."""
    names = []
    splits, gallery, truths = material.splits[task.name], material.gallery, task.truths[against]
    for model, table in counts.items():
        pictures = []
        cases = report_panels.choose_cases({model: table}, limit=0)
        for case in sorted(cases, key=lambda case: "typical" not in case.tags[0]):
            output = next(o for o in outputs if o.model == model and o.fold == case.fold)
            boxes = report_viewer.test_boxes(splits, fold=case.fold, volume=case.volume)
            window = report_panels.window_of(
                gallery.open_volume(truths[case.volume]), z=case.z, boxes=boxes, size_voxels=gallery.panel_voxels
            )
            here = table[(table["fold"] == case.fold) & (table["volume"] == case.volume) & (table["z"] == case.z)]
            kinds = " and ".join(tag.split(" ")[0] for tag in case.tags)
            said = f"{kinds}: {case.volume}, z {case.z}\nF1 {report_panels.f1_of(here).iloc[0]:.3f}"
            pictures.append(
                gallery.picture(case, output=output, truth=truths[case.volume], window=window, heading=said)
            )
        if pictures:
            title = f"{task.name}, {model}, against {against}"
            name = file_name(f"panels_{task.name}_{model}_{against}")
            figures.save_figure(
                report_pictures.case_figure(pictures, title=title, note=note), material.figures_directory / name
            )
            names.append(f'<span class="file">figures/{text(name)}.svg, .png</span>')
    return "; ".join(names)


def training(material: Material) -> str:
    """Losses and validation scores over the epochs."""
    parts = []
    for task in material.inputs.tasks:
        logs = report_scores.gather(material.runs(task.name), file="training_log.csv", needs=report_scores.LOG_COLUMNS)
        note = material.note(task.name, "validation")
        if logs.empty:
            parts += [heading(material, task.name, note=note), paragraph("There is no training log.", kind="note")]
            continue
        missing = [model for model, rows in logs.groupby("model") if rows["validation_average_precision"].isna().all()]
        caption = f"{text(task.name)}{badge(note)}. Solid and dashed lines as named in each panel, one colour a model."
        if missing:
            caption += f" No foreground to validate {text(', '.join(missing))} on, hence no validation score."
        parts.append(
            material.draw(
                report_training.training_figure(logs, models=material.models(task.name), title=task.name, note=note),
                f"training_{task.name}",
                alt=f"Loss, validation scores and learning rate of the models of {task.name} over the epochs.",
                caption=caption,
            )
        )
        seen = report_training.receptive_fields(material.runs(task.name))
        if not seen.empty:
            said = "How far each network sees, in voxels of its input (Z, Y, X); a branch makes scores of its own."
            parts.append(report_page.table(seen, caption=said))
        memory = report_training.training_memory(logs)
        if not memory.empty:
            said = "Peak memory of every training, the interpreter and its libraries included."
            parts.append(report_page.table(memory, caption=said))
        parts += _augmented(material, task.name)
        parts += report_plan.plans(material, task.name)
    return "\n".join(parts) or paragraph("No model was trained.", kind="note")


def _augmented(material: Material, task: str) -> list[str]:
    """Patches as a network saw them, for every model of a task that was trained with augmentation."""
    parts = []
    for model in material.models(task):
        folders = [run.directory for run in material.runs(task) if run.model == model and run.directory]
        drawn = [folder / AUGMENTED for folder in folders if (folder / AUGMENTED).is_file()]
        if drawn:
            parts.append(
                material.keep(
                    drawn[0],
                    f"augmented_patches_{task}_{model}",
                    alt=f"Patches of {task} before and after the augmentation of {model}.",
                    caption=f"Augmented patches of {text(model)}{badge(material.note(task, 'train'))}: what it learnt "
                    "from, and what each change does. If a person can't tell the foreground any more, lower the "
                    "probabilities under augment.",
                )
            )
    return parts


def reliability(material: Material) -> str:
    """Whether a probability of 0.7 is foreground in 7 of 10 cases."""
    parts = [
        paragraph(
            "Of the voxels with a predicted probability of, say, 0.7, seven of ten should be foreground: then the line "
            "follows the diagonal. The calibration error is the mean distance from it, weighted by voxels."
        )
    ]
    for task in material.inputs.tasks:
        note = material.note(task.name)
        bins = report_scores.gather(
            material.runs(task.name), file="reliability.csv", needs=report_scores.RELIABILITY_COLUMNS
        )
        bins = bins[(bins["part"] == "test") & (bins["voxels"] > 0)]
        if bins.empty:
            parts += [heading(material, task.name), paragraph("No test voxel was scored.", kind="note")]
            continue
        parts.append(
            material.draw(
                report_training.reliability_figure(bins, models=material.models(task.name), title=task.name, note=note),
                f"reliability_{task.name}",
                alt=f"Share of foreground against predicted probability, {task.name}.",
                caption=f"{text(task.name)}{badge(note)}, test part.",
            )
        )
    return "\n".join(parts)


def tables(material: Material) -> str:
    """Every row of every scores.csv and recipe.csv."""
    parts = [paragraph("A click on a heading sorts.")]
    for name, title, table in (
        ("scores", "Models", material.scores),
        ("recipe", "The recipe's mask as if it were a prediction", material.recipe),
    ):
        parts.append(f"<h3>{title}</h3>")
        if table.empty:
            parts.append(paragraph("There are no rows.", kind="note"))
            continue
        if name == "recipe":  # every model's folder repeats the same rows
            table = table.drop(columns="model").drop_duplicates(ignore_index=True)
        notes = [
            report_scores.row_note(row, splits=material.splits[row["task"]], is_synthetic=material.is_synthetic)
            for _, row in table.iterrows()
        ]
        table = table.assign(data=[note or "real" for note in notes])
        first = [column for column in FIRST_COLUMNS if column in table.columns]
        table = table[[*first, *(column for column in table.columns if column not in first)]]
        shown = report_page.table(
            table.dropna(axis="columns", how="all"),
            is_sortable=True,
            kind="long",
            headings=HEADINGS,
            cells={"data": lambda row: badge(row["data"]) if "synthetic" in row["data"] else text(row["data"])},
        )
        parts += [report_page.download(table, name=f"{name}.csv"), shown]
    return "\n".join(parts)
