"""The workflow's stages as jobs on a made volume: the scripts themselves, with what Snakemake would hand them.

    python benchmarks/stage_jobs.py annotate --folder FOLDER [--warm FOLDER] --memory-mib 2048 --threads 1

Runs one stage in this process, first on the warming folder so that libraries and kernels are loaded, and prints seconds
and the process's peak memory as a line of JSON. `prepare` makes a folder; the stages find each other's results there.
"""

import argparse
import json
import runpy
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import timing
import tissue
import yaml

from voxloom import config, io, job_memory
from voxloom.io.nrrd import write_nrrd
from voxloom.volume import PROBABILITY

ROOT = Path(__file__).resolve().parents[1]
NETWORK = {"widths": [4, 8]}
TASK: dict[str, Any] = {
    "annotate": {
        "recipe": [
            {"threshold": {"below": 92}},
            {"remove_small_objects": {"min_size_voxels": 2000}},
            {"grow": {"grow_um": 4.0}},
        ]
    },
    "distance": {"clip_um": 10.0},
    "split": {"block_um": [10.0, None, None], "gap_um": 1.0, "test_fraction": 0.25, "validation_fraction": 0.25},
    "segment": {"min_size_voxels": 2000},
    "models": {"net": {"network": NETWORK, "optimiser": {"learning_rate": 1e-3}}},
}
"""A published recipe, and a network so small that a CPU predicts a large volume in minutes."""

STORED_THRESHOLD = 128
SEED = 17


class Files(list[str]):
    """Paths in order, and by name, as Snakemake hands them to a script."""

    def __init__(self, **named: Path | list[Path]) -> None:
        super().__init__()
        for name, paths in named.items():
            several = [str(path) for path in paths] if isinstance(paths, list) else str(paths)
            setattr(self, name, several)
            self.extend(several if isinstance(several, list) else [several])


def settings() -> dict[str, Any]:
    """The task with every default filled in."""
    schema = config.read_yaml(ROOT / "workflow" / "schemas" / "task.schema.yaml")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "bench.yaml").write_text(yaml.safe_dump(TASK), encoding="utf-8")
        return config.read_tasks({"bench": ["net"]}, folder=folder, schema=schema)["bench"]


def prepare(folder: Path, shape: tissue.Shape) -> None:
    """Make what no stage makes: the raw file, a model, a prediction that is worth segmenting, and its threshold."""
    results = folder / "results"
    raw = folder / "v.nrrd"
    write_nrrd(raw, tissue.greys(shape), shape=shape, dtype="uint8", geometry=tissue.GEOMETRY)
    _write_model(results / "models" / "bench" / "net" / "0")
    with io.create_volume(
        results / "predictions" / "bench" / "given" / "0" / "v.zarr",
        shape=shape,
        dtype="uint8",
        geometry=tissue.GEOMETRY,
        kind="probability",
        quantisation=PROBABILITY,
    ) as out:
        for index, values in tissue.probabilities(shape):
            out[index] = values
    (results / "threshold.json").write_text(json.dumps({"stored": STORED_THRESHOLD}), encoding="utf-8")


def _write_model(folder: Path) -> None:
    """A model's folder with random weights: what a network learnt costs neither time nor memory."""
    from safetensors.torch import save_file

    from voxloom import model, networks

    chosen = settings()["models"]["net"]
    folder.mkdir(parents=True)
    save_file(networks.build(chosen["network"], seed=0).state_dict(), folder / model.WEIGHTS)
    normalisation = {"name": "zscore", "mean": tissue.BACKGROUND, "deviation": 30.0, "dtype": "uint8"}
    document = {"format": model.FORMAT, **chosen, "normalisation": normalisation}
    document["spacing_um"] = list(tissue.GEOMETRY.spacing_um)
    (folder / model.SETTINGS).write_text(yaml.safe_dump(document), encoding="utf-8")


def jobs(folder: Path) -> dict[str, dict[str, Any]]:
    """What Snakemake would hand to the script of every stage, in their order."""
    results, task = folder / "results", settings()
    volume, annotation = results / "volumes" / "v.zarr", results / "annotations" / "bench" / "v.zarr"
    prediction, segmentation = (
        results / kind / "bench" / "given" / "0" / "v.zarr" for kind in ("predictions", "segmentations")
    )
    models = [results / "models" / "bench" / "net" / "0"]
    tables, splits = results / "tables", results / "splits"
    scaled = {"network": task["models"]["net"]["network"], "input": {"size": task["models"]["net"]["input"]["size"]}}
    return {
        "convert": {
            "input": Files(raw=folder / "v.nrrd"),
            "output": Files(volume=volume),
            "params": {"volume": {"path": str(folder / "v.nrrd"), "axes": None}, "convert": {}},
        },
        "annotate": {
            "input": Files(volume=volume),
            "output": Files(annotation=annotation, figure_svg=annotation.with_suffix(".svg")),
            "params": {"recipe": task["annotate"]["recipe"]},
        },
        "distance": {
            "input": Files(annotation=annotation),
            "output": Files(distance=results / "distances" / "bench" / "v.zarr"),
            "params": {"distance": task["distance"]},
        },
        "split": {
            "input": Files(volumes=[volume], annotations=[annotation], plan=[]),
            "output": Files(split=splits / "s.csv", audit=splits / "a.csv", figure_svg=splits / "s.svg"),
            "params": {
                "split": task["split"],
                "seed": SEED,
                "regions": ["r"],
                "networks": [scaled],
                "planned": {},
            },
        },
        "predict": {
            "input": Files(volume=volume, models=models, parts=[]),
            "output": Files(prediction=results / "predictions" / "bench" / "net" / "0" / "v.zarr"),
            "params": {},
        },
        "segment": {
            "input": Files(prediction=prediction, threshold=results / "threshold.json", looks=[], parts=[]),
            "output": Files(segmentation=segmentation),
            "params": {"segment": task["segment"]},
        },
        "evaluate": {
            "input": Files(
                predictions=[prediction],
                volumes=[volume],
                annotations=[annotation],
                recipe=[annotation],
                split=splits / "s.csv",
                models=models,
            ),
            "output": Files(
                **{name: tables / f"{name}.csv" for name in ("threshold", "scores", "curve", "reliability", "recipe")}
            ),
            "params": {"evaluate": task["evaluate"], "seed": SEED},
        },
        "measure": {
            "input": Files(segmentation=segmentation, volume=volume),
            "output": Files(objects=tables / "objects.csv", summary=tables / "summary.csv"),
            "params": {},
        },
    }


READS: dict[str, tuple[str, ...]] = {
    "convert": (),
    "annotate": ("convert",),
    "distance": ("convert", "annotate"),
    "split": ("convert", "annotate"),
    "predict": ("convert",),
    "segment": (),
    "evaluate": ("convert", "annotate", "split"),
    "measure": ("convert", "segment"),
}
"""The stages in their order, with those before them that they can't do without; the prediction is made by `prepare`."""

STAGES = tuple(READS)


def run(stage: str, folder: Path, *, memory_mib: int, threads: int) -> float:
    """Run a stage's script; seconds."""
    job = jobs(folder)[stage]
    for path in job["output"]:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    handed = SimpleNamespace(
        input=job["input"],
        output=job["output"],
        params=SimpleNamespace(code="benchmark", **job["params"]),
        resources=SimpleNamespace(mem_mb=memory_mib, block_mib=job_memory.block_mib(memory_mib), device="cpu"),
        wildcards=SimpleNamespace(task="bench", model="net", fold="0", volume="v"),
        threads=threads,
        log=[str(folder / "logs" / f"{stage}.log")],
    )
    begin = time.perf_counter()
    runpy.run_path(str(ROOT / "scripts" / f"{stage}.py"), {"snakemake": handed})
    return time.perf_counter() - begin


def measured(stage: str, folder: Path, warm: Path | None, *, memory_mib: int, threads: int) -> dict[str, float]:
    """Seconds and peak memory of a stage, in a process of its own."""
    words = [__file__, stage, "--folder", str(folder), "--memory-mib", str(memory_mib), "--threads", str(threads)]
    words += ["--warm", str(warm)] if warm else []
    return timing.said_by(words, threads=threads)[0]


def chain(
    folder: Path, warm: Path | None, stages: tuple[str, ...], **how: int
) -> Iterator[tuple[str, dict[str, float]]]:
    """Run stages in their order, those that are not wanted only where a wanted one reads their result."""
    read = {needed for stage in stages for needed in READS[stage]}
    for stage in STAGES:
        if stage in stages or stage in read:
            said = measured(stage, folder, warm, **how)
            if stage in stages:
                yield stage, said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--warm", type=Path)
    parser.add_argument("--memory-mib", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    how = {"memory_mib": options.memory_mib, "threads": options.threads}
    if options.warm:
        run(options.stage, options.warm, **how)
    seconds = run(options.stage, options.folder, **how)
    print(json.dumps({"seconds": seconds, "peak_mib": timing.resident_mib("VmHWM")}))


if __name__ == "__main__":
    main()
