"""What a report is made of, as the caller gives it and as its sections share it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxloom import figures, report_page, report_scores
from voxloom.deferred import Deferred
from voxloom.report_membrane_scores import Step
from voxloom.report_viewer import Gallery

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
else:
    pd = Deferred("pandas")


@dataclass(frozen=True)
class Volume:
    """A volume of the run.

    Parameters
    ----------
    name : str
    store : Path
        Its OME-Zarr store.
    region : str
        Where in the specimen it lies, or "".
    is_synthetic : bool
        True for a phantom: scores on it are called synthetic wherever they appear.
    """

    name: str
    store: Path
    region: str = ""
    is_synthetic: bool = False


@dataclass(frozen=True)
class Task:
    """A task of the run.

    Parameters
    ----------
    name : str
    splits : Path
        Its split table.
    truths : mapping
        Ground truth's name ("annotation", an annotator) to volume to annotation store.
    audit : Path, optional
        The split's audit table, shown as it is; a column "verdict" is marked.
    annotation_figures : mapping of str to Path
        Volume to the PNG of the annotation's figure; an SVG of the same name beside it is kept, too.
    description : str
        One line.
    has_membranes : bool
        Whether its models were scored by the ISBI 2012 challenge's measures, too.
    steps : sequence of Step
        Pairs of models that differ in one step, which the page says the gain of.
    """

    name: str
    splits: Path
    truths: Mapping[str, Mapping[str, Path]]
    audit: Path | None = None
    annotation_figures: Mapping[str, Path] = field(default_factory=dict)
    description: str = ""
    has_membranes: bool = False
    steps: Sequence[Step] = ()


@dataclass(frozen=True)
class Run:
    """One model of a task, trained and scored on one fold.

    Parameters
    ----------
    task, model, fold : str
    evaluation : Path
        Folder of scores.csv, curve.csv, reliability.csv, recipe.csv and threshold.json.
    predictions : mapping of str to Path
        Volume to prediction store.
    directory : Path, optional
        The model's folder, with training_log.csv, model.yaml and weights.safetensors.
    description : str
        One line about the model.
    """

    task: str
    model: str
    fold: str
    evaluation: Path
    predictions: Mapping[str, Path]
    directory: Path | None = None
    description: str = ""


@dataclass(frozen=True)
class ReportInputs:
    """Everything a report is made of.

    Parameters
    ----------
    title : str
    volumes : sequence of Volume
    tasks : sequence of Task
    runs : sequence of Run
        The models' order here is their order, and gives them their colours, everywhere.
    configuration : mapping
        Configuration file's name to its resolved content.
    provenance : mapping
        What made the results: group ("code", "versions", "hardware", "seeds") to name to value.
    benchmarks : Path, optional
        Folder of Snakemake's benchmark tables, one folder a stage.
    planned : sequence of mapping
        What each stage was planned to take: "stage", "seconds" (of all its jobs), "memory_mib" (of the largest), None
        where nobody could say. See `voxloom.forecast_page.stages_of`.
    rulegraph : str
        What `snakemake --rulegraph` printed, in dot.
    introduction : str
        Plain text under the title.
    captions : mapping of str to str
        Section's name (see `report.SECTIONS`) to the plain text under its heading; the default where one is missing.
    """

    title: str
    volumes: Sequence[Volume]
    tasks: Sequence[Task]
    runs: Sequence[Run]
    configuration: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    benchmarks: Path | None = None
    planned: Sequence[Mapping[str, Any]] = ()
    rulegraph: str = ""
    introduction: str = ""
    captions: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Material:
    """What the sections share: loaded tables, the figures' folder, embedded pictures.

    Parameters
    ----------
    inputs : ReportInputs
    figures_directory : Path
        Where every figure is written as SVG and PNG.
    gallery : Gallery
        Takes the viewers' pictures in.
    max_slices : int
        Slices in a viewer.
    scores, curves, recipe : DataFrame
        Tables of all runs, behind task, model and fold.
    splits : mapping of str to DataFrame
        Task to its split table.
    """

    inputs: ReportInputs
    figures_directory: Path
    gallery: Gallery
    max_slices: int
    scores: pd.DataFrame
    curves: pd.DataFrame
    recipe: pd.DataFrame
    splits: Mapping[str, pd.DataFrame]

    @property
    def is_synthetic(self) -> dict[str, bool]:
        """Whether a volume is a phantom, by its name."""
        return {volume.name: volume.is_synthetic for volume in self.inputs.volumes}

    def runs(self, task: str) -> list[Run]:
        """All models and folds of a task."""
        return [run for run in self.inputs.runs if run.task == task]

    def models(self, task: str) -> list[str]:
        """Names of a task's models, in order."""
        return list(dict.fromkeys(run.model for run in self.runs(task)))

    def volumes(self, task: str, part: str | None = None) -> list[str]:
        """Volumes of a task, or those that a part of its split lies in."""
        splits = self.splits[task]
        chosen = splits if part is None else splits[splits["part"] == part]
        return [str(volume) for volume in pd.unique(chosen["volume"])]

    def note(self, task: str, part: str | None = "test") -> str:
        """ "synthetic", "partly synthetic" or "", for scores of this part."""
        return report_scores.synthetic_note(self.volumes(task, part), is_synthetic=self.is_synthetic)

    def of_task(self, table: pd.DataFrame, task: str) -> pd.DataFrame:
        """A task's rows of a table."""
        return table[table["task"] == task]

    def draw(self, figure: Figure, name: str, *, alt: str, caption: str) -> str:
        """Save a figure as SVG and PNG, and return it as HTML."""
        stem = self.figures_directory / file_name(name)
        svg, _ = figures.save_figure(figure, stem)
        return report_page.figure(svg.read_bytes(), kind="image/svg+xml", alt=alt, caption=caption, file=stem.name)

    def keep(self, path: Path, name: str, *, alt: str, caption: str) -> str:
        """Copy a figure that another stage saved as SVG and PNG, and return `path`, one of the two, as HTML."""
        stem = file_name(name)
        for suffix in (".png", ".svg"):
            if path.with_suffix(suffix).is_file():
                shutil.copyfile(path.with_suffix(suffix), self.figures_directory / f"{stem}{suffix}")
        kind = "image/svg+xml" if path.suffix == ".svg" else "image/png"
        return report_page.figure(path.read_bytes(), kind=kind, alt=alt, caption=caption, file=stem)


def file_name(name: str) -> str:
    """A name as part of a file's name: letters, digits, hyphens, points and underscores.

    Examples
    --------
    >>> file_name("axons of/brain 1")
    'axons_of_brain_1'
    """
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)
