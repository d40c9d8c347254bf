"""Figures and tables of how a run was set up and what it cost: split map, benchmarks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from voxloom.deferred import Deferred
from voxloom.errors import FormatError
from voxloom.figures import COLOURS, INK, MUTED, PAGE_WIDTH_IN, new_figure, styled

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch, Rectangle
else:
    pd = Deferred("pandas")
    Patch = Deferred("matplotlib.patches", "Patch")
    Rectangle = Deferred("matplotlib.patches", "Rectangle")

PART_COLOURS = {
    "train": "#74b3d8",
    "validation": "#f3cf73",
    "test": "#e58b52",
    "gap": "#f7f7f7",
    "excluded": "#c4c8cc",
}
HATCHES = {"gap": "///", "excluded": "..."}
AXES = ("z", "y", "x")
TASK_STAGES = ("annotate", "annotate_import", "distance", "split")
MODEL_STAGES = ("train", "predict", "predict_fusion_weight", "predict_fused", "segment", "measure", "evaluate")
SPLIT_COLUMNS = (
    "fold", "volume", "part", "z_from", "z_to", "y_from", "y_to", "x_from", "x_to", "voxels", "annotated_voxels",
    "foreground_voxels",
)  # fmt: skip


def map_plane(boxes: pd.DataFrame) -> tuple[str, str]:
    """The two axes along which a volume's boxes differ most.

    Parameters
    ----------
    boxes : DataFrame
        Columns z_from, z_to, y_from, y_to, x_from, x_to.

    Returns
    -------
    across, down : str
        "z", "y" or "x": the axis to draw from left to right, and the one from top to bottom. Of equals the earlier.
    """
    cuts = {axis: len(set(boxes[f"{axis}_from"]) | set(boxes[f"{axis}_to"])) for axis in AXES}
    across, down, _ = sorted(AXES, key=lambda axis: (-cuts[axis], AXES.index(axis)))
    return across, down


@styled
def split_figure(
    splits: pd.DataFrame, *, spacing_um: Mapping[str, tuple[float, float, float]], title: str, max_volumes: int = 12
) -> Figure:
    """Where training, validation and test lie in every volume: one row a volume, one column a fold.

    Parameters
    ----------
    splits : DataFrame
        Columns fold, volume, part and the boxes' half-open voxel ranges.
    spacing_um : mapping
        Voxel edges (Z, Y, X) in micrometres of every volume in `splits`.
    title : str
        What was split, the task's name for instance.
    max_volumes : int
        Only so many volumes are drawn, the first ones.

    Returns
    -------
    figure : Figure
        Boxes that the middle of the axis not drawn goes through, in micrometres from the volume's corner.
    """
    volumes = list(pd.unique(splits["volume"]))[:max_volumes]
    folds = list(pd.unique(splits["fold"]))
    height_in = min(2.1, max(1.5, 9.0 / len(volumes)))
    figure = new_figure(PAGE_WIDTH_IN, 0.9 + height_in * len(volumes))
    grid = figure.subplots(len(volumes), len(folds), squeeze=False)
    for row, volume in enumerate(volumes):
        inside = splits[splits["volume"] == volume]
        across, down = map_plane(inside)
        third = next(axis for axis in AXES if axis not in (across, down))
        middle = (int(inside[f"{third}_from"].min()) + int(inside[f"{third}_to"].max())) // 2
        step = dict(zip(AXES, spacing_um[volume], strict=True))
        for column, fold in enumerate(folds):
            axes = grid[row, column]
            for _, box in inside[inside["fold"] == fold].iterrows():
                if not box[f"{third}_from"] <= middle < box[f"{third}_to"]:
                    continue
                part = str(box["part"])
                axes.add_patch(
                    Rectangle(
                        (box[f"{across}_from"] * step[across], box[f"{down}_from"] * step[down]),
                        (box[f"{across}_to"] - box[f"{across}_from"]) * step[across],
                        (box[f"{down}_to"] - box[f"{down}_from"]) * step[down],
                        facecolor=PART_COLOURS.get(part, "white"),
                        edgecolor="#b0b0b0" if part in HATCHES else "white",
                        hatch=HATCHES.get(part),
                        linewidth=0.0 if part in HATCHES else 0.8,
                    )
                )
            axes.set_xlim(0, int(inside[f"{across}_to"].max()) * step[across])
            axes.set_ylim(int(inside[f"{down}_to"].max()) * step[down], 0)
            axes.set_title(str(volume) + (f", fold {fold}" if len(folds) > 1 else ""))
            axes.set_xlabel(f"{across} [µm]")
            axes.set_ylabel(f"{down} [µm]" if column == 0 else "")
            axes.spines[["left", "bottom"]].set_visible(False)
    present = [part for part in PART_COLOURS if (splits["part"] == part).any()]
    handles = [
        Patch(facecolor=PART_COLOURS[part], hatch=HATCHES.get(part), edgecolor="#b0b0b0", label=part)
        for part in present
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=max(1, len(present)))
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def split_summary(splits: pd.DataFrame) -> pd.DataFrame:
    """Blocks, voxels and foreground of every part of every fold.

    Parameters
    ----------
    splits : DataFrame
        Columns fold, part, voxels, annotated_voxels, foreground_voxels.

    Returns
    -------
    summary : DataFrame
        Columns fold, part, boxes, voxels, annotated_voxels, foreground_voxels, prevalence; parts in the order train,
        validation, test, gap, excluded.
    """
    sums = (
        splits.groupby(["fold", "part"], sort=False)
        .agg(
            boxes=("voxels", "size"),
            voxels=("voxels", "sum"),
            annotated_voxels=("annotated_voxels", "sum"),
            foreground_voxels=("foreground_voxels", "sum"),
        )
        .reset_index()
    )
    annotated = sums["annotated_voxels"].astype(float)
    sums["prevalence"] = sums["foreground_voxels"] / annotated.where(annotated > 0)
    order = {part: place for place, part in enumerate(PART_COLOURS)}
    return sums.sort_values(
        ["fold", "part"], key=lambda column: column.map(order) if column.name == "part" else column, kind="stable"
    ).reset_index(drop=True)


def read_benchmarks(directory: Path) -> pd.DataFrame:
    """Snakemake's benchmark tables, one row a job.

    Parameters
    ----------
    directory : Path
        Folder of TSV files; the first folder below it (or a file's name up to its first dot) is the stage.

    Returns
    -------
    jobs : DataFrame
        Columns stage, job (str), time_s, memory_mib (peak resident set, Snakemake's max_rss), cpu_s; NaN where
        Snakemake could not measure. Sorted by stage and job; repeats of a job are averaged, their memory is the
        largest.

    Raises
    ------
    FormatError
        If a file is not a benchmark table.
    """
    rows = []
    for path in sorted(directory.rglob("*.tsv")):
        inside = path.relative_to(directory)
        table = pd.read_csv(path, sep="\t")
        if not {"s", "max_rss"} <= set(table.columns):
            raise FormatError(
                f"benchmark {inside.as_posix()} needs the columns s and max_rss, as Snakemake writes them; "
                f"it has {', '.join(map(str, table.columns))}"
            )
        numbers = table.reindex(columns=["s", "max_rss", "cpu_time"]).apply(pd.to_numeric, errors="coerce")
        stage = inside.parts[0] if len(inside.parts) > 1 else inside.name.split(".")[0]
        job = "/".join(inside.with_suffix("").parts[1:]) or inside.stem
        rows.append((stage, job, numbers["s"].mean(), numbers["max_rss"].max(), numbers["cpu_time"].mean()))
    return pd.DataFrame(rows, columns=["stage", "job", "time_s", "memory_mib", "cpu_s"])


def without_former_models(jobs: pd.DataFrame, models: Collection[tuple[str, str]]) -> pd.DataFrame:
    """The jobs without those of models that the configuration no longer holds.

    Parameters
    ----------
    jobs : DataFrame
        As `read_benchmarks` returns them.
    models : collection of (str, str)
        Task and model of every run.

    Returns
    -------
    jobs : DataFrame
    """
    tasks = {task for task, _ in models}
    parts = jobs["job"].str.split("/")
    is_former = [
        (stage in MODEL_STAGES and tuple(part[:2]) not in models) or (stage in TASK_STAGES and part[0] not in tasks)
        for stage, part in zip(jobs["stage"], parts, strict=True)
    ]
    return jobs[~np.array(is_former, dtype=bool)].reset_index(drop=True)


def stage_costs(jobs: pd.DataFrame, planned: Sequence[Mapping[str, Any]] = ()) -> pd.DataFrame:
    """Time and memory of every stage, and what was planned for it.

    Parameters
    ----------
    jobs : DataFrame
        As `read_benchmarks` returns them.
    planned : sequence of mapping
        "stage", "seconds" and "memory_mib", see `ReportInputs`.

    Returns
    -------
    stages : DataFrame
        Columns stage, jobs, time_s (sum), planned_time_s, longest_job_s, peak_memory_mib (largest) and
        planned_memory_mib, the most expensive stage first; NaN where nothing was planned.
    """
    stages = (
        jobs.groupby("stage")
        .agg(
            jobs=("job", "size"),
            time_s=("time_s", "sum"),
            longest_job_s=("time_s", "max"),
            peak_memory_mib=("memory_mib", "max"),
        )
        .reset_index()
    )
    plans = {str(row["stage"]): row for row in planned}
    for column, key in (("planned_time_s", "seconds"), ("planned_memory_mib", "memory_mib")):
        values = [plans.get(stage, {}).get(key) for stage in stages["stage"]]
        stages[column] = np.array([np.nan if value is None else value for value in values], dtype=float)
    columns = [
        "stage", "jobs", "time_s", "planned_time_s", "longest_job_s", "peak_memory_mib", "planned_memory_mib",
    ]  # fmt: skip
    stages = stages[columns]
    return stages.sort_values(["time_s", "stage"], ascending=[False, True], kind="stable").reset_index(drop=True)


@styled
def cost_figure(stages: pd.DataFrame) -> Figure:
    """Time and peak memory of every stage as bars, and as ticks what was planned.

    Parameters
    ----------
    stages : DataFrame
        As `stage_costs` returns them.

    Returns
    -------
    figure : Figure
    """
    figure = new_figure(PAGE_WIDTH_IN, 0.9 + 0.3 * len(stages))
    left, right = figure.subplots(1, 2, sharey=True)
    places = range(len(stages) - 1, -1, -1)
    columns: Sequence[tuple[str, str, str, str]] = (
        ("time_s", "planned_time_s", "time, all jobs of a stage [s]", COLOURS[0]),
        ("peak_memory_mib", "planned_memory_mib", "peak memory of a job [MiB]", COLOURS[2]),
    )
    for axes, (column, planned, name, colour) in zip((left, right), columns, strict=True):
        values = stages[column].fillna(0.0)
        axes.barh(list(places), values, height=0.62, color=colour)
        axes.plot(stages[planned], list(places), "|", color=INK, markersize=12, markeredgewidth=1.6)
        for place, value, known in zip(places, values, stages[column].notna(), strict=True):
            axes.annotate(
                f"{value:,.0f}" if value >= 10 else f"{value:.1f}" if known else "not measured",
                (value, place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8.5,
                color=INK if known else MUTED,
            )
        axes.margins(x=0.14)
        axes.set_xlabel(name)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    left.set_yticks(list(places), list(stages["stage"]))
    return figure
