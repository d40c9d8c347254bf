"""The report's sections about the run itself: what ran, annotation, split, provenance, the workflow's graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxloom import report_page, report_run, report_scores
from voxloom.deferred import Deferred
from voxloom.report_graph import read_rulegraph, rulegraph_figure
from voxloom.report_inputs import Material
from voxloom.report_page import badge, paragraph, text
from voxloom.yaml_file import read_yaml

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = Deferred("pandas")


def subtitle(material: Material) -> str:
    """What stands under the page's title."""
    volumes = material.inputs.volumes
    phantoms = sum(volume.is_synthetic for volume in volumes)
    introduction = material.inputs.introduction
    parts = [paragraph(text(introduction), kind="lead")] if introduction else []
    if phantoms:
        whose = "All volumes are" if phantoms == len(volumes) else f"{phantoms} of {len(volumes)} volumes are"
        parts.append(
            paragraph(
                f"{badge('synthetic')} {whose} computer-made phantoms whose truth is known. Their scores show that the "
                "workflow works, not how well it does on tissue.",
                kind="note",
            )
        )
    return "\n".join(parts)


def what(material: Material) -> str:
    """Volumes, tasks and models."""
    parts = [_volume_table(material)]
    for task in material.inputs.tasks:
        if task.description:
            parts.append(paragraph(f"<strong>{text(task.name)}</strong>: {text(task.description)}"))
    rows = []
    for task in material.inputs.tasks:
        for model in material.models(task.name):
            same = [run for run in material.runs(task.name) if run.model == model]
            weights = [run.directory / "weights.safetensors" for run in same if run.directory]
            sizes = [path.stat().st_size for path in weights if path.is_file()]
            rows.append(
                {
                    "task": task.name,
                    "model": model,
                    "what it is": same[0].description or "–",
                    "folds": len(same),
                    "weights [MB]": f"{sizes[0] / 1e6:.2f}" if sizes else "–",
                    "scored against": ", ".join(task.truths) or "–",
                    "tested on": ", ".join(material.volumes(task.name, "test")) or "–",
                }
            )
    if not rows:
        return "\n".join([*parts, paragraph("No model was trained.", kind="note")])
    return "\n".join([*parts, report_page.table(pd.DataFrame(rows), wrap=["what it is", "tested on"])])


def _volume_table(material: Material) -> str:
    rows = []
    for volume in material.inputs.volumes:
        store = material.gallery.open_volume(volume.store)
        source = _source(store)
        shape = store.shape[-3:]
        rows.append(
            {
                "volume": volume.name,
                "region": volume.region or "–",
                "voxels (z, y, x)": " × ".join(f"{size}" for size in shape),
                "voxel size [µm]": " × ".join(f"{step:.4g}" for step in store.spacing_um),
                "extent [µm]": " × ".join(_length(n * step) for n, step in zip(shape, store.spacing_um, strict=True)),
                "type": str(store.dtype),
                "source": Path(str(source.get("path", "–"))).name,
                "SHA-256": str(source.get("sha256", "–"))[:12],
            }
        )
    if not rows:
        return paragraph("No volume was given.", kind="note")
    phantoms = material.is_synthetic
    return report_page.table(
        pd.DataFrame(rows),
        cells={
            "volume": lambda row: text(row["volume"]) + badge("synthetic" if phantoms[row["volume"]] else ""),
            "SHA-256": lambda row: f'<span class="sum">{text(row["SHA-256"])}</span>',
        },
    )


def _length(length_um: float) -> str:
    """Three digits that count, without an exponent: a volume may be nanometres or centimetres long."""
    return f"{float(f'{length_um:.3g}'):g}"


def _source(store: Any) -> Mapping[str, Any]:
    return (store.metadata or {}).get("source") or {}


def annotation(material: Material) -> str:
    """The figure of how each annotation was made."""
    parts = []
    for task in material.inputs.tasks:
        parts.append(f"<h3>{text(task.name)}</h3>")
        if not task.annotation_figures:
            parts.append(paragraph("No figure of this task's annotation was made.", kind="note"))
        for volume, path in task.annotation_figures.items():
            phantom = badge("synthetic" if material.is_synthetic.get(volume) else "")
            parts.append(
                material.keep(
                    path,
                    f"annotation_{task.name}_{volume}",
                    alt=f"How the annotation of {task.name} was made on {volume}.",
                    caption=f"{text(task.name)} on {text(volume)}{phantom}: the recipe's steps on the image.",
                )
            )
    return "\n".join(parts) or paragraph("No task ran.", kind="note")


def split(material: Material) -> str:
    """Where the parts lie, what they hold, and whether they are far enough apart."""
    parts = [
        paragraph(
            "Neighbouring voxels are alike: a test next to the training set would flatter. The gap keeps them apart, "
            "and the audit checks it."
        )
    ]
    spacing_um = {v.name: material.gallery.open_volume(v.store).spacing_um for v in material.inputs.volumes}
    for task in material.inputs.tasks:
        table = material.splits[task.name]
        parts.append(f"<h3>{text(task.name)}</h3>")
        if table.empty:
            parts.append(paragraph("Nothing was split.", kind="note"))
            continue
        parts.append(
            material.draw(
                report_run.split_figure(table, spacing_um=spacing_um, title=task.name),
                f"split_{task.name}",
                alt=f"Map of training, validation and test boxes of {task.name}.",
                caption="A section through the middle of each volume, along the two axes that are cut most.",
            )
        )
        parts.append(report_page.table(report_run.split_summary(table), caption="What each part holds"))
        if task.audit is None or not task.audit.is_file():
            parts.append(paragraph("The split was not audited.", kind="note"))
            continue
        audit = report_scores.read_table(task.audit, needs=[]).replace({"unit": {"um": "µm"}})
        verdicts = [column for column in audit.columns if column in ("verdict", "status", "result")]
        parts.append(
            report_page.table(
                audit,
                caption="Audit of leaks between the parts",
                wrap=["detail"],
                cells={column: _verdict(column) for column in verdicts},
            )
            if not audit.empty
            else paragraph("The audit found nothing to check.", kind="note")
        )
    return "\n".join(parts)


def _verdict(column: str) -> Callable[[pd.Series], str]:
    return lambda row: badge(str(row[column]))


def provenance(material: Material) -> str:
    """Inputs' checksums, versions, configuration, and what each stage cost."""
    parts = ["<h3>Inputs</h3>", _checksum_table(material)]
    scalars = {}
    for group, value in material.inputs.provenance.items():
        if isinstance(value, Mapping):
            parts.append(f"<h3>{text(str(group).capitalize())}</h3>")
            parts.append(report_page.pairs(value))
        else:
            scalars[group] = value
    if scalars:
        parts += ["<h3>Run</h3>", report_page.pairs(scalars)]
    parts.append("<h3>Configuration</h3>")
    if not material.inputs.configuration:
        parts.append(paragraph("No configuration was given.", kind="note"))
    for name, document in material.inputs.configuration.items():
        parts.append(report_page.collapsible_yaml(str(name), document))
    for run in material.inputs.runs:
        card = run.directory / "model.yaml" if run.directory else None
        if card is not None and card.is_file():
            name = f"model {run.task}, {run.model}, fold {run.fold}: as it was trained"
            parts.append(report_page.collapsible_yaml(name, read_yaml(card)))
    parts += [*_narrowed_halos(material), "<h3>Time and memory</h3>", _costs(material)]
    return "\n".join(parts)


def _narrowed_halos(material: Material) -> list[str]:
    """Predictions whose tiles were shown less than the network sees, and what that changed."""
    rows, averaged = [], []
    for run in material.inputs.runs:
        for volume, store in run.predictions.items():
            for facts in (material.gallery.open_volume(store).metadata or {}).get("prediction", []):
                if facts["halo_voxels"] is None:
                    edges = " × ".join(map(str, facts["averaged_tile_voxels"]))
                    averaged.append(f"{run.task}, {run.model}, fold {run.fold}, {volume}: {edges}")
                elif facts["halo_voxels"] != facts["sees_voxels"]:
                    difference = facts["largest_difference"]
                    rows.append(
                        {
                            "task": run.task,
                            "model": run.model,
                            "fold": run.fold,
                            "volume": volume,
                            "halo (z, y, x)": " × ".join(map(str, facts["halo_voxels"])),
                            "sees (z, y, x)": " × ".join(map(str, facts["sees_voxels"])),
                            "largest difference": "not measured" if difference is None else f"{difference:.2g}",
                        }
                    )
    parts = []
    if averaged:
        words = "Means over overlapping tiles without a halo, of (z, y, x) voxels: "
        parts.append(paragraph(f"{words}{text('; '.join(averaged))}."))
    words = (
        "Tiles were predicted with a narrower halo than the network sees. The largest difference is that of "
        "probabilities on samples of the volume from those with a halo twice as wide."
    )
    if rows:
        parts += [paragraph(words), report_page.table(pd.DataFrame(rows))]
    return ["<h3>Prediction by tiles</h3>", *parts] if parts else []


def _checksum_table(material: Material) -> str:
    stores = [("volume", volume.name, volume.store) for volume in material.inputs.volumes]
    for task in material.inputs.tasks:
        for against, truths in task.truths.items():
            stores += [(f"{task.name}, {against}", volume, path) for volume, path in truths.items()]
    rows = []
    for role, volume, path in stores:
        source = _source(material.gallery.open_volume(path))
        if source.get("sha256"):
            rows.append(
                {
                    "for": role,
                    "volume": volume,
                    "file": Path(str(source.get("path", "–"))).name,
                    "format": str(source.get("format", "–")),
                    "size_bytes": source.get("bytes"),
                    "SHA-256": str(source["sha256"]),
                }
            )
    if not rows:
        return paragraph("No checksum of an input is known.", kind="note")
    cells = {"SHA-256": lambda row: f'<span class="sum">{text(row["SHA-256"])}</span>'}
    return report_page.table(pd.DataFrame(rows).drop_duplicates(), cells=cells)


def _costs(material: Material) -> str:
    folder = material.inputs.benchmarks
    jobs = report_run.read_benchmarks(folder) if folder is not None and folder.is_dir() else None
    if jobs is None or jobs.empty:
        return paragraph("Snakemake's benchmarks of this run are not there.", kind="note")
    jobs = report_run.without_former_models(jobs, {(run.task, run.model) for run in material.inputs.runs})
    stages = report_run.stage_costs(jobs, material.inputs.planned)
    shown = material.draw(
        report_run.cost_figure(stages),
        "costs",
        alt="Time and peak memory of every stage; the numbers are in the table below.",
        caption="As Snakemake measured them; the ticks are what was planned before, roughly. Jobs of a stage may have "
        "run side by side: the sum of their times can be longer than the wait.",
    )
    table = report_page.table(stages, is_sortable=True)
    every = report_page.table(jobs, is_sortable=True, kind="long")
    return f"{shown}{table}<details><summary>All {len(jobs)} jobs</summary>{every}</details>"


def graph(material: Material) -> str:
    """The rules and what flows between them."""
    drawn = material.inputs.rulegraph
    if not drawn.strip():
        return paragraph("The workflow's graph was not drawn.", kind="note")
    rules, edges = read_rulegraph(drawn)
    if not rules:
        return paragraph("The workflow's graph has no rule.", kind="note")
    return material.draw(
        rulegraph_figure(rules, edges),
        "workflow",
        alt="Rules of the workflow and what they take: " + ", ".join(f"{a} to {b}" for a, b in edges) + ".",
        caption="Each box is a rule. Black arrows lead from what makes a file to what takes it; grey ones are needed, "
        "too, but another way leads to the same rule.",
    )
