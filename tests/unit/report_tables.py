"""A small run on disk, in the formats that the stages write, for the tests of the report.

One volume of two straight tubes along z, one thick and one thin:

    y
    |   ##          z: 0 ........ 24 slices
    |   ##     #    train 0-10, gap 10-12, validation 12-16, gap 16-18, test 18-24
    +----------- x

The image is the tubes with noise; each model's probability is a noisier or less noisy copy of the truth.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from voxloom.report import ReportInputs, Run, Task, Volume
from voxloom.volume import PROBABILITY, Quantisation

RULEGRAPH = """digraph snakemake_dag {
    graph[bgcolor=white, margin=0];
    node[shape=box, style=rounded, fontname=sans, fontsize=10, penwidth=2];
    edge[penwidth=2, color=grey];
	0[label = "all", color = "0.00 0.6 0.85", style="rounded"];
	1[label = "report", color = "0.44 0.6 0.85", style="rounded"];
	2[label = "evaluate", color = "0.22 0.6 0.85", style="rounded"];
	3[label = "annotate", color = "0.22 0.6 0.85", style="rounded"];
	4[label = "convert", color = "0.22 0.6 0.85", style="rounded"];
	1 -> 0
	2 -> 1
	3 -> 2
	3 -> 1
	4 -> 3
	4 -> 1
}
"""

PARTS = (("train", 0, 10), ("gap", 10, 12), ("validation", 12, 16), ("gap", 16, 18), ("test", 18, 24))


@dataclass
class Stored:
    """An array that behaves as an opened store."""

    values: np.ndarray
    spacing_um: tuple[float, float, float] = (2.0, 1.0, 1.0)
    quantisation: Quantisation | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def shape(self):
        return self.values.shape

    @property
    def ndim(self):
        return self.values.ndim

    @property
    def dtype(self):
        return self.values.dtype

    def __getitem__(self, index):
        return self.values[index]


def tubes(*, depth: int = 24, size: int = 40) -> np.ndarray:
    """Truth: 0 and 1, uint8."""
    y, x = np.mgrid[:size, :size]
    thick = (y - 0.3 * size) ** 2 + (x - 0.3 * size) ** 2 < (0.15 * size) ** 2
    thin = (y - 0.7 * size) ** 2 + (x - 0.7 * size) ** 2 < (0.06 * size) ** 2
    return np.repeat((thick | thin)[None].astype(np.uint8), depth, axis=0)


def prediction(truth: np.ndarray, *, noise: float, seed: int) -> np.ndarray:
    """Stored probabilities around 0.8 in the foreground and 0.2 elsewhere; the noise grows with z."""
    random = np.random.default_rng(seed)
    growing = noise * (1 + np.arange(len(truth))[:, None, None] / len(truth))
    values = np.where(truth == 1, 0.8, 0.2) + growing * random.standard_normal(truth.shape)
    return np.clip(np.round(255 * values), 0, 255).astype(np.uint8)


def curve(stored: np.ndarray, codes: np.ndarray) -> pd.DataFrame:
    """Counts, precision and recall at every stored level that occurs, by definition."""
    scored, foreground = stored[codes != 255].ravel(), (codes[codes != 255] == 1).ravel()
    rows = []
    for level in np.unique(scored):
        positive = scored >= level
        tp, fp = int((positive & foreground).sum()), int((positive & ~foreground).sum())
        fn, tn = int((~positive & foreground).sum()), int((~positive & ~foreground).sum())
        recall = tp / (tp + fn) if tp + fn else np.nan
        rows.append((level / 255, tp / (tp + fp) if tp + fp else 1.0, recall, tp, fp, fn, tn))
    return pd.DataFrame(rows, columns=["threshold", "precision", "recall", "tp", "fp", "fn", "tn"])


def average_precision(table: pd.DataFrame) -> float:
    """Area under the steps."""
    ordered = table.sort_values("threshold", ascending=False)
    gained = np.diff(np.append(0.0, ordered["recall"]))
    return float((gained * ordered["precision"]).sum())


def scores_row(table: pd.DataFrame, *, threshold: float, **named: Any) -> dict[str, Any]:
    """One row of scores.csv at the largest threshold of the curve that is at most `threshold`."""
    at = table[table["threshold"] <= threshold + 1e-9].iloc[-1]
    tp, fp, fn, tn = (float(at[key]) for key in ("tp", "fp", "fn", "tn"))
    voxels = tp + fp + fn + tn
    foreground = tp + fn
    f1 = 2 * tp / (2 * tp + fp + fn) if foreground else np.nan
    ap = average_precision(table) if foreground else np.nan
    iou = tp / (tp + fp + fn) if foreground else np.nan
    row = {**named, "voxels": int(voxels), "prevalence": foreground / voxels, "threshold": threshold}
    row |= {"average_precision": ap, "average_precision_low": ap - 0.02, "average_precision_high": min(1.0, ap + 0.01)}
    row |= {"accuracy": (tp + tn) / voxels, "all_background_accuracy": 1 - foreground / voxels}
    row |= {"precision": at["precision"], "recall": at["recall"]}
    row |= {"f1": f1, "f1_low": f1 - 0.03, "f1_high": min(1.0, f1 + 0.02)}
    row |= {"iou": iou, "iou_low": iou - 0.03, "iou_high": min(1.0, iou + 0.02)}
    return row | {"dice": f1, "dice_low": f1 - 0.03, "dice_high": min(1.0, f1 + 0.02), "cldice": f1}


def reliability(stored: np.ndarray, codes: np.ndarray) -> pd.DataFrame:
    """Ten equal bins of probability."""
    probability, foreground = stored[codes != 255] / 255, codes[codes != 255] == 1
    place = np.minimum((probability * 10).astype(int), 9)
    rows = []
    for index in range(10):
        inside = place == index
        mean = probability[inside].mean() if inside.any() else np.nan
        share = foreground[inside].mean() if inside.any() else np.nan
        rows.append((index / 10, (index + 1) / 10, mean, share, int(inside.sum())))
    return pd.DataFrame(rows, columns=["bin_from", "bin_to", "mean_probability", "foreground_share", "voxels"])


def split_table(codes: np.ndarray, *, volume: str, folds: int = 1) -> pd.DataFrame:
    """Slabs along z; of several folds each has its own order of parts."""
    _, height, width = codes.shape
    rows = []
    for fold in range(folds):
        for block, (part, z_from, z_to) in enumerate(PARTS if fold % 2 == 0 else _mirrored(len(codes))):
            inside = codes[z_from:z_to]
            rows.append(
                (fold, volume, "cortex", block, part, z_from, z_to, 0, height, 0, width, inside.size,
                 int((inside != 255).sum()), int((inside == 1).sum()))
            )  # fmt: skip
    columns = "fold volume region block part z_from z_to y_from y_to x_from x_to voxels annotated_voxels"
    return pd.DataFrame(rows, columns=[*columns.split(), "foreground_voxels"])


def _mirrored(depth: int) -> list[tuple[str, int, int]]:
    return [(part, depth - z_to, depth - z_from) for part, z_from, z_to in reversed(PARTS)]


def training_log(*, epochs: int = 5, is_validated: bool = True) -> pd.DataFrame:
    """A loss that falls and a score that rises."""
    epoch = np.arange(1, epochs + 1)
    rising = 1 - 0.5 / epoch if is_validated else np.full(epochs, np.nan)
    return pd.DataFrame(
        {
            "epoch": epoch,
            "step": epoch * 10,
            "learning_rate": 1e-2 * 0.5**epoch,
            "training_loss": 0.6 / epoch,
            "validation_loss": 0.7 / epoch if is_validated else np.nan,
            "validation_average_precision": rising,
            "validation_f1": rising - 0.1,
            "samples_per_s": 12.0,
            "planned_memory_mib": 810.0,
            "peak_memory_mib": 790.0 + epoch,
            "seconds": 3.0 * epoch,
        }
    )


def make_run(
    folder: Path,
    *,
    tasks: Sequence[str] = ("axons",),
    models: Sequence[str] = ("as_published", "best"),
    folds: int = 1,
    is_synthetic: bool = True,
    truth: np.ndarray | None = None,
    image: np.ndarray | None = None,
    annotation: np.ndarray | None = None,
    is_validated: bool = True,
):
    """Write a run's tables below `folder`.

    Returns
    -------
    inputs : ReportInputs
    open_volume : function
        Opens the paths that `inputs` names.
    """
    truth = tubes() if truth is None else truth
    random = np.random.default_rng(3)
    if image is None:
        image = np.clip(90 + 80 * (truth == 1) + 12 * random.standard_normal(truth.shape), 0, 255).astype(np.uint8)
    if annotation is None:
        annotation = truth.copy()
        annotation[:, :, truth.shape[2] // 2 :] = 0  # the recipe misses the thin tube
    source = {"path": "/data/ada/scans/phantom_a.nrrd", "format": "nrrd", "sha256": "ab" * 32, "bytes": 61440}
    stores: dict[Path, Stored] = {folder / "volumes/phantom_a.zarr": Stored(image, metadata={"source": source})}
    truths = {"annotation": annotation, "truth": truth}
    task_inputs, runs = [], []
    for task in tasks:
        splits = folder / f"splits/{task}.csv"
        splits.parent.mkdir(parents=True, exist_ok=True)
        table = split_table(truth, volume="phantom_a", folds=folds)
        table.to_csv(splits, index=False)
        audit = pd.DataFrame(
            [
                ("distance train-test", 0, "phantom_a", "phantom_a", 12.0, "um", 4.0, "ok", ""),
                ("near-duplicates", 0, "phantom_a", "phantom_a", 0.71, "correlation", 0.98, "ok", "0 pairs"),
            ],
            columns=["check", "fold", "volume_a", "volume_b", "value", "unit", "limit", "verdict", "detail"],
        )
        audit.to_csv(splits.with_suffix(".audit.csv"), index=False)
        paths = {}
        for against, codes in truths.items():
            path = folder / f"annotations.{against}/{task}/phantom_a.zarr"
            stores[path] = Stored(codes)
            paths[against] = {"phantom_a": path}
        task_inputs.append(
            Task(task, splits, paths, audit=splits.with_suffix(".audit.csv"), description=f"{task} in tissue")
        )
        for number, model in enumerate(models):
            for fold in range(folds):
                noise = 0.25 if model == "as_published" else 0.12
                stored = prediction(truth, noise=noise, seed=100 * number + fold)
                evaluation = folder / f"evaluation/{task}/{model}/{fold}"
                path = folder / f"predictions/{task}/{model}/{fold}/phantom_a.zarr"
                halo = [22, 22, 22] if model == "as_published" else [8, 8, 8]
                facts = {"halo_voxels": halo, "sees_voxels": [22, 22, 22], "largest_difference": 0.0012}
                stores[path] = Stored(stored, quantisation=PROBABILITY, metadata={"prediction": [facts]})
                parts = table[table["fold"] == fold]
                write_evaluation(evaluation, stored=stored, truths=truths, splits=parts, is_validated=is_validated)
                directory = folder / f"models/{task}/{model}/{fold}"
                directory.mkdir(parents=True, exist_ok=True)
                training_log(is_validated=is_validated).to_csv(directory / "training_log.csv", index=False)
                (directory / "model.yaml").write_text(f"task: {task}\nmodel: {model}\nseed: 17\n", encoding="utf-8")
                (directory / "weights.safetensors").write_bytes(bytes(1000))
                runs.append(
                    Run(task, model, str(fold), evaluation, {"phantom_a": path}, directory, f"{model} settings")
                )
    benchmarks = folder / "benchmarks"
    for job, time_s in (("convert/phantom_a", 1.5), ("train/axons/best/0", 62.0)):
        path = benchmarks / f"{job}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"
            f"{time_s}\t0:01:02\t{100 * time_s}\t9\t9\t9\t0\t0\t97.1\t{time_s}\n",
            encoding="utf-8",
        )
    inputs = ReportInputs(
        title="Phantom <demo> & friends",
        volumes=[Volume("phantom_a", folder / "volumes/phantom_a.zarr", "cortex", is_synthetic)],
        tasks=task_inputs,
        runs=runs,
        configuration={"config/config.yaml": {"volumes": ["/data/ada/scans/phantom_a.nrrd"], "seed": 17}},
        provenance={"commit": "0123abc", "versions": {"voxloom": "0.1.0", "numpy": "2.4.6"}, "seeds": {"axons": 17}},
        benchmarks=benchmarks,
        rulegraph=RULEGRAPH,
        introduction="Two tubes, thick and thin.",
    )
    return inputs, stores.__getitem__


def write_evaluation(
    folder: Path, *, stored: np.ndarray, truths: dict[str, np.ndarray], splits: pd.DataFrame, is_validated: bool
) -> None:
    """threshold.json, scores.csv, curve.csv, reliability.csv and recipe.csv of one model and fold."""
    folder.mkdir(parents=True, exist_ok=True)
    level = 128
    chosen = {"threshold": level / 255, "stored": level, "metric": "f1", "value": 0.9, "against": "annotation"}
    if is_validated:
        (folder / "threshold.json").write_text(json.dumps(chosen), encoding="utf-8")
    scores, curves, bins, recipe = [], [], [], []
    for against, codes in truths.items():
        for part in ("validation", "test"):
            box = splits[splits["part"] == part].iloc[0]
            where = slice(box["z_from"], box["z_to"])
            table = curve(stored[where], codes[where])
            named = {"against": against, "part": part}
            for scope, name in (("pooled", "pooled"), ("volume", "phantom_a"), ("region", "cortex")):
                row = scores_row(table, threshold=level / 255, **named, scope=scope, name=name)
                scores.append(row | {"grid": "native"})
                curves.append(table.assign(**named, scope=scope, name=name))
            bins.append(reliability(stored[where], codes[where]).assign(**named))
            if against != "annotation":
                mask = curve(truths["annotation"][where], codes[where])
                row = scores_row(mask, threshold=1 / 255, **named, scope="pooled", volume="pooled")
                columns = "against part scope volume precision recall f1 dice iou accuracy all_background_accuracy"
                recipe.append({column: row[column] for column in columns.split()})
    pd.DataFrame(scores).to_csv(folder / "scores.csv", index=False)
    pd.concat(curves).to_csv(folder / "curve.csv", index=False)
    pd.concat(bins).to_csv(folder / "reliability.csv", index=False)
    pd.DataFrame(
        recipe, columns=None if recipe else ["against", "part", "scope", "volume", "precision", "recall", "f1"]
    ).to_csv(folder / "recipe.csv", index=False)
