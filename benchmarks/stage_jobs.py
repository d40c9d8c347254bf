"""The workflow's stages as jobs on a made volume: the scripts themselves, with what Snakemake would hand them.

    python benchmarks/stage_jobs.py annotate --folder FOLDER [--warm FOLDER] --memory-mib 2048 --threads 1

Runs one stage in this process, first on the warming folder so that libraries and kernels are loaded, and prints its
seconds, those of them that take no longer for a larger volume (`BOUNDED`), the processor's of the whole process and
peak memory as a line of JSON. `prepare` makes a folder; the stages find each other's results there.
"""

import argparse
import json
import pkgutil
import runpy
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any
from unittest import mock

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
    "split": {"block_um": [9.36, None, None], "gap_um": 1.0, "test_fraction": 0.25, "validation_fraction": 0.25},
    "segment": {"min_size_voxels": 2000},
    "models": {"net": {"network": NETWORK, "optimiser": {"learning_rate": 1e-3}}},
}
"""A published recipe, and a network so small that a CPU predicts a large volume in minutes.

Blocks of the split are 8 slices, so that test and validation are the same share of every size.
"""

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


@dataclass(frozen=True)
class Part:
    """One of the parts that jobs of their own make of a stage's result.

    Parameters
    ----------
    number, count : int
        From 1; of one part there is no job but the stage's own.
    """

    number: int = 1
    count: int = 1

    @property
    def item(self) -> str:
        """As Snakemake names it."""
        return f"{self.number}-of-{self.count}"

    def of(self, whole: Path) -> Path:
        """Where this part is written."""
        return whole.with_suffix(f".{self.item}{whole.suffix}")

    def all_of(self, whole: Path) -> list[Path]:
        """Where all parts are; none where there is but one."""
        count = self.count if self.count > 1 else 0
        return [Part(number, count).of(whole) for number in range(1, count + 1)]


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


def jobs(folder: Path, part: Part) -> dict[str, dict[str, Any]]:
    """What Snakemake would hand to the script of every stage, and of the jobs that share a stage between them."""
    results, task = folder / "results", settings()
    volume, annotation = results / "volumes" / "v.zarr", results / "annotations" / "bench" / "v.zarr"
    prediction, segmentation = (
        results / kind / "bench" / "given" / "0" / "v.zarr" for kind in ("predictions", "segmentations")
    )
    predicted = results / "predictions" / "bench" / "net" / "0" / "v.zarr"
    models = [results / "models" / "bench" / "net" / "0"]
    threshold = results / "threshold.json"
    tables, splits = results / "tables", results / "splits"
    by_voxel = {key: value for key, value in task["evaluate"].items() if key != "membranes"}
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
            "input": Files(volume=volume, models=models, parts=part.all_of(predicted)),
            "output": Files(prediction=predicted),
            "params": {"predict": task["predict"], "test_time": {}},
        },
        "predict_part": {
            "input": Files(volume=volume, models=models),
            "output": Files(part=part.of(predicted)),
            "params": {"predict": task["predict"], "test_time": {}},
        },
        "segment": {
            "input": Files(
                prediction=prediction,
                threshold=threshold,
                looks=part.all_of(segmentation.with_suffix(".objects")),
                parts=part.all_of(segmentation),
            ),
            "output": Files(segmentation=segmentation),
            "params": {"segment": task["segment"]},
        },
        "segment_look": {
            "input": Files(prediction=prediction, threshold=threshold),
            "output": Files(looks=part.of(segmentation.with_suffix(".objects"))),
            "params": {"segment": task["segment"]},
        },
        "segment_part": {
            "input": Files(
                prediction=prediction, threshold=threshold, looks=part.all_of(segmentation.with_suffix(".objects"))
            ),
            "output": Files(part=part.of(segmentation)),
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
            "params": {"evaluate": by_voxel, "seed": SEED, "test_time": {}},
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
SCATTERED = {"predict": ("predict_part",), "segment": ("segment_look", "segment_part")}
"""What the jobs run that share a stage, one kind after the other; the stage's own job joins what they wrote."""


BOUNDED = {
    "annotate": ("voxloom.annotate_figure.annotation_figure", "voxloom.figures.save_figure"),
    "split": ("voxloom.split_figure.split_figure", "voxloom.figures.save_figure"),
    "evaluate": ("voxloom.metrics.bootstrap_intervals",),
}
"""The functions of a stage that take no longer for a larger volume: some slices are drawn, some blocks resampled."""


def timed(function: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    """The same function; every call adds its seconds to a list."""

    def call(*arguments: Any, **named: Any) -> Any:
        begin = time.perf_counter()
        result = function(*arguments, **named)
        seconds.append(time.perf_counter() - begin)
        return result

    return call


def run(stage: str, folder: Path, *, memory_mib: int, threads: int, part: Part) -> tuple[float, float]:
    """Run a stage's script; its seconds, and those of them that are `BOUNDED`."""
    job = jobs(folder, part)[stage]
    for path in job["output"]:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    handed = SimpleNamespace(
        input=job["input"],
        output=job["output"],
        params=SimpleNamespace(code="benchmark", **job["params"]),
        resources=SimpleNamespace(
            mem_mb=memory_mib, block_mib=job_memory.block_mib(memory_mib), device="cpu", gpu_memory_mib=0
        ),
        wildcards=SimpleNamespace(task="bench", model="net", fold="0", volume="v", scatteritem=part.item),
        threads=threads,
        log=[str(folder / "logs" / f"{stage}.{part.item}.log")],
    )
    bounded: list[float] = []
    with ExitStack() as patches:
        for name in BOUNDED.get(stage, ()):
            patches.enter_context(mock.patch(name, timed(pkgutil.resolve_name(name), bounded)))
        begin = time.perf_counter()
        runpy.run_path(str(ROOT / "scripts" / f"{stage}.py"), {"snakemake": handed})
        return time.perf_counter() - begin, sum(bounded)


def measured(
    stage: str,
    folder: Path,
    warm: Path | None = None,
    *,
    memory_mib: int,
    threads: int,
    part: Part | None = None,
    core: int | None = None,
    at_hand_mib: float = 0.0,
) -> dict[str, float]:
    """Seconds, those that are `BOUNDED` and peak memory of a stage, in a process of its own."""
    timing.have_at_hand(at_hand_mib)
    words = [__file__, stage, "--folder", str(folder), "--memory-mib", str(memory_mib), "--threads", str(threads)]
    words += ["--warm", str(warm)] if warm else []
    words += ["--part", str(part.number), str(part.count)] if part else []
    return timing.said_by(words, threads=threads, core=core)[0]


def scattered(stage: str, folder: Path, *, parts: int, cores: int, memory_mib: int) -> float:
    """Seconds from the first to the last job of a stage that parts of it share, one job a core at a time."""
    free: SimpleQueue[int] = SimpleQueue()
    for core in range(cores):
        free.put(core)

    def work(script: str, number: int) -> None:
        core = free.get()
        measured(script, folder, memory_mib=memory_mib, threads=1, part=Part(number, parts), core=core)
        free.put(core)

    begin = time.perf_counter()
    with ThreadPoolExecutor(cores) as pool:
        for script in SCATTERED[stage] if parts > 1 else ():
            list(pool.map(work, [script] * parts, range(1, parts + 1)))
    work(stage, 1)
    return time.perf_counter() - begin


def chain(
    folder: Path, warm: Path | None, stages: tuple[str, ...], **how: Any
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
    parser.add_argument("stage", choices=[*STAGES, *(script for scripts in SCATTERED.values() for script in scripts)])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--warm", type=Path)
    parser.add_argument("--memory-mib", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--part", type=int, nargs=2, default=[1, 1], metavar=("NUMBER", "COUNT"))
    options = parser.parse_args()
    how = {"memory_mib": options.memory_mib, "threads": options.threads, "part": Part(*options.part)}
    if options.warm:
        run(options.stage, options.warm, **how)
    seconds, bounded_s = run(options.stage, options.folder, **how)
    peak_mib = timing.resident_mib("VmHWM")
    said = {"seconds": seconds, "bounded_s": bounded_s, "cpu_s": time.process_time(), "peak_mib": peak_mib}
    print(json.dumps(said))


if __name__ == "__main__":
    main()
