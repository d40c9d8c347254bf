"""The report: one self-contained page about what ran, how good it is and where it fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from voxloom import report_membranes, report_page, report_record, report_results, report_run, report_scores
from voxloom.errors import ConfigError
from voxloom.io.files import atomic_file
from voxloom.report_inputs import Material, ReportInputs, Run, Task, Volume
from voxloom.report_page import Section, paragraph, text
from voxloom.report_viewer import Gallery

SECTIONS: dict[str, tuple[str, str, Callable[[Material], str]]] = {
    "what": ("What ran on what", "What went in, and what was made of it.", report_record.what),
    "headline": (
        "Headline",
        "Each model on the test part, which no model learned from and no threshold was chosen on.",
        report_results.headline,
    ),
    "membranes": (
        "Membranes",
        "The ISBI 2012 challenge's measures: how well membranes tell objects apart, section by section.",
        report_membranes.membranes,
    ),
    "curves": ("Precision and recall", "Precision against recall at every threshold.", report_results.curves),
    "panels": (
        "Image, output, truth",
        "Typical is the slice with the median F1, worst the one with the lowest, among test slices with foreground.",
        report_results.panels,
    ),
    "training": ("Training", "Loss and validation score after every epoch.", report_results.training),
    "annotation": ("Annotation", "What each step of the recipe left.", report_record.annotation),
    "split": ("Split and audit", "Which boxes trained, validated and tested, and how far apart.", report_record.split),
    "reliability": ("Reliability", "Whether the probabilities can be believed.", report_results.reliability),
    "tables": ("All scores", "Every score; nothing is rounded in the download.", report_results.tables),
    "provenance": ("Provenance", "What made these numbers, and what it cost.", report_record.provenance),
    "graph": ("The workflow", "Which rule takes what from which.", report_record.graph),
}
"""Sections of the page in order: name to title, default caption and the function that fills it; without empty ones."""

__all__ = ["SECTIONS", "ReportInputs", "Run", "Task", "Volume", "build_report"]


def build_report(
    inputs: ReportInputs,
    *,
    out_directory: Path,
    open_volume: Callable[[Path], Any],
    max_slices: int = 9,
    panel_voxels: int = 512,
    pictures_mib: float = 24.0,
) -> Path:
    """Write index.html and figures/ of a run.

    Parameters
    ----------
    inputs : ReportInputs
    out_directory : Path
        Folder of the report; made if it isn't there.
    open_volume : function
        From a store's path to something with shape, dtype, spacing_um, quantisation, metadata and NumPy slicing, such
        as `voxloom.io.open_volume`.
    max_slices : int
        Most slices in each viewer. Every model's typical and worst one are shown in any case.
    panel_voxels : int
        Largest edge of an embedded picture.
    pictures_mib : float
        What all viewers' pictures may take in the page, roughly; fewer slices are shown where they would take more.

    Returns
    -------
    page : Path
        `out_directory`/index.html, complete: it is renamed into place when everything else is written.

    Raises
    ------
    ConfigError
        If a run names an unknown task, a split an unknown volume, or a caption an unknown section.
    FormatError
        If a table lacks a column.

    Notes
    -----
    Volumes are read slice by slice: memory does not grow with their depth. The same inputs give the same bytes.
    """
    viewers = sum(len(task.truths) for task in inputs.tasks)
    gallery = Gallery(
        open_volume,
        {volume.name: volume.store for volume in inputs.volumes},
        panel_voxels=panel_voxels,
        viewer_mib=pictures_mib / max(viewers, 1),
    )
    material = _gather(
        inputs,
        figures_directory=out_directory / "figures",
        gallery=gallery,
        max_slices=max_slices,
    )
    material.figures_directory.mkdir(parents=True, exist_ok=True)
    sections = []
    for name, (title, caption, build) in SECTIONS.items():
        if body := build(material):
            said = paragraph(text(inputs.captions.get(name, caption)))
            sections.append(Section(name, title, f"{said}\n{body}"))
    page = report_page.page(title=inputs.title, subtitle=report_record.subtitle(material), sections=sections)
    target = out_directory / "index.html"
    with atomic_file(target) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return target


def _gather(inputs: ReportInputs, *, figures_directory: Path, gallery: Gallery, max_slices: int) -> Material:
    if unknown := sorted(set(inputs.captions) - set(SECTIONS)):
        raise ConfigError(f"there is no section {unknown[0]} of the report to caption; known: {', '.join(SECTIONS)}")
    tasks = {task.name for task in inputs.tasks}
    for run in inputs.runs:
        if run.task not in tasks:
            raise ConfigError(f"model {run.model} is of task {run.task}, but the report was given {sorted(tasks)}")
    splits = {task.name: report_scores.read_table(task.splits, needs=report_run.SPLIT_COLUMNS) for task in inputs.tasks}
    known = {volume.name for volume in inputs.volumes}
    for task, table in splits.items():
        if unknown := sorted(set(table["volume"]) - known):
            raise ConfigError(f"the split of task {task} names volumes that the report was not given: {unknown}")
    return Material(
        inputs=inputs,
        figures_directory=figures_directory,
        gallery=gallery,
        max_slices=max_slices,
        scores=report_scores.gather(inputs.runs, file="scores.csv", needs=report_scores.SCORE_COLUMNS),
        curves=report_scores.gather(inputs.runs, file="curve.csv", needs=report_scores.CURVE_COLUMNS),
        recipe=report_scores.gather(inputs.runs, file="recipe.csv", needs=report_scores.RECIPE_COLUMNS),
        splits=splits,
    )
