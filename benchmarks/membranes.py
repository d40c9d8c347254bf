"""The real EM membranes of the benchmarks: sections of a fly's nerve cord, their split, and settings of a model."""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from voxloom import config, fingerprint, plan, plan_file, split
from voxloom.labelled import PartBox, TrainingVolume, boxes_of_fold
from voxloom.volume import IGNORE, Geometry

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("VOXLOOM_DATA", ROOT.parent / "shared" / "data"))
FOLDER = DATA / "isbi2012-em" / "train"
GEOMETRY = Geometry(spacing_um=(0.05, 0.004, 0.004))
SECTIONS = 20
PARTS = {"validation": [(6, 9)], "test": [(10, 13), (18, 20)]}
"""Sections that validate and test; the others train, but for one section of gap beside each. From section 15 on the
image is noisier: both qualities are in training and in test."""

SPLIT: dict[str, Any] = {
    "by": "box",
    "gap_um": GEOMETRY.spacing_um[0],
    "boxes": [
        {"fold": 0, "volume": "membranes", "part": part, "z": [first, last]}
        for part, ranges in PARTS.items()
        for first, last in ranges
    ],
}


def volume() -> TrainingVolume:
    """Grey values and annotation; the membranes (0 in the files, 22 % of the pixels) are the foreground."""
    if not FOLDER.is_dir():
        raise SystemExit(f"no membranes at {FOLDER}; set VOXLOOM_DATA to the folder that holds isbi2012-em")
    image, label = (
        np.stack([np.asarray(Image.open(FOLDER / kind / f"{z}.png")) for z in range(SECTIONS)])
        for kind in ("image", "label")
    )
    return TrainingVolume(image, ((label < 128).astype(np.uint8),), GEOMETRY.spacing_um)


def boxes(held: TrainingVolume) -> list[PartBox]:
    """The split, as `voxloom.split` makes it of the sections that `PARTS` names."""
    annotation = held.annotations[0]
    assert annotation is not None
    z, y, x = held.image.shape
    table = split.make_split(
        [split.SplitVolume("membranes", "", (z, y, x), held.spacing_um)],
        lambda _, wanted: split.count_blocks(annotation, wanted),
        settings=split.SplitSettings(block_um=(None, None, None), test_fraction=0, validation_fraction=0, **SPLIT),
        reach_voxels=[(0, None, None)],
        seed=0,
    )
    return boxes_of_fold(table.to_dict("records"), fold=0)


def without_test(held: TrainingVolume, boxes: Sequence[PartBox]) -> TrainingVolume:
    """The volume as if the test sections had not been annotated: a plan looks at all labels that it is given."""
    codes = np.array(held.annotations[0])
    for box in boxes:
        if box.part == "test":
            codes[box.start[0] : box.stop[0]] = IGNORE
    return replace(held, annotations=(codes,))


def task(**model: Any) -> dict[str, Any]:
    """A complete task of one model, which is named model."""
    schema = config.read_yaml(ROOT / "workflow" / "schemas" / "task.schema.yaml")
    document = {"annotate": {"recipe": [{"threshold": {"below": 100}}]}, "split": SPLIT, "models": {"model": model}}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "membranes.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
        return config.read_tasks({"membranes": ["model"]}, folder=folder, schema=schema)["membranes"]


def complete(**model: Any) -> dict[str, Any]:
    """A model's settings with every default filled in, as a task file would have them."""
    return task(**model)["models"]["model"]


def automatic(held: TrainingVolume, *, minutes: float, device: str, threads: int, memory_mib: float) -> dict[str, Any]:
    """What `network: auto` plans for these minutes, and nothing else said."""
    whole = task(network="auto", max_minutes=minutes)
    planned = plan.plan_task(
        {"model": fingerprint.take_fingerprint({"membranes": held})},
        task="membranes",
        models=plan_file.to_plan(whole["models"]),
        split=whole["split"],
        device=device,
        threads=threads,
        memory_mib=memory_mib,
    )
    return plan_file.resolved(whole["models"]["model"], planned["models"]["model"]["choices"])


def published(task: str) -> dict[str, Any]:
    """The settings of a shipped task's model as-published."""
    shipped = config.read_yaml(ROOT / "config" / "tasks" / f"{task}.yaml")
    return complete(**shipped["models"]["as-published"])
