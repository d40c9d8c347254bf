"""The page about a model that a person can read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from voxloom.network_reach import in_words
from voxloom.network_settings import resolved
from voxloom.volume import Vector


def card(settings: Mapping[str, Any], log: Sequence[Mapping[str, Any]]) -> str:
    """A page about the model that a person can read.

    Parameters
    ----------
    settings : mapping
        Contents of model.yaml.
    log : sequence of mapping
        The training log.

    Returns
    -------
    text : str
        Markdown.
    """
    network, counts = resolved(settings["network"]), settings["counts"]
    row = log[settings["kept_epoch"] - 1]
    synthetic = " (synthetic data)" if settings["is_synthetic"] else ""
    share = counts["training_foreground_voxels"] / max(1, counts["training_annotated_voxels"])
    volumes = "\n".join(f"- `{name}`: {_facts(facts)}" for name, facts in settings["data"].items())
    phantoms = " It has seen phantoms only, no real tissue." if settings["is_synthetic"] else ""
    chosen = "the threshold" if settings["early_stopping_epochs"] is None else "the epoch and the threshold"
    return f"""# {settings["task"]} / {settings["model"]} / fold {settings["fold"]}

{settings.get("description") or f"Segments {settings['task']}."}

**What it does.** Gives every voxel the probability that it is part of the foreground of task `{settings["task"]}`.
{_architecture(network, counts["parameters"])} {_sees(settings)}

**What it learnt from.** {counts["training_annotated_voxels"]:,} annotated voxels, {share:.2%} of them foreground, of:

{volumes}

The labels are {_sources(settings["learn_from"])}.{_fewer(settings)} `split.csv` has the boxes it was trained,
validated and tested on.{_beginning(settings)}

**How well it does.** On its validation boxes, after epoch {settings["kept_epoch"]} of {settings["epochs"]}{synthetic}:

| average precision | best F1 | loss |
| --- | --- | --- |
| {_score(row["validation_average_precision"])} | {_score(row["validation_f1"])} | {_score(row["validation_loss"])} |

The validation boxes chose {chosen}, so these numbers flatter. What counts is the test set, in the report and in
`results/evaluation`. `training_log.svg` shows how the training went.

**What its training took.** {counts["planned_memory_mib"]:,} MiB of memory were planned beside the interpreter and its
libraries; `training_log.csv` has what was planned with them and what was measured, epoch by epoch, and the time.

**Where it ends.** It knows voxels of {_size(settings["spacing_um"])} um (Z, Y, X),
{_grey_values(settings["normalisation"])}, and the tissue and instrument of the volumes above. On
anything else, score it on labels of your own before you believe it.{phantoms}

**How to use it.** In the workflow, or in Python (nothing in this folder is executed):

```python
from voxloom import io
from voxloom.inference import predict_volume
from voxloom.model import load_model
from voxloom.volume import PROBABILITY

network, settings = load_model("path/to/this/folder")
image = io.open_volume("image.zarr")
with io.create_volume(
    "probability.zarr", shape=image.shape, dtype="uint8", geometry=image.geometry, kind="probability",
    quantisation=PROBABILITY,
) as out:
    predict_volume(network, settings, image, out, memory_mib=2048, threads=2)
```

**Licence.** The weights may be used as voxloom itself (MIT), as far as the terms of the data above allow.

Made by voxloom {settings["versions"].get("voxloom", "?")}, commit {settings["git_commit"]}, seed {settings["seed"]}.
"""


def _architecture(network: Mapping[str, Any], parameters: int) -> str:
    widths = "-".join(map(str, network["widths"]))
    kind = {"contextual": "deep contextual network"}.get(
        network["name"], "residual U-Net" if network["residual"] else "U-Net"
    )
    normalised = "without" if network["norm"] == "none" else f"with {network['norm']}"
    return (
        f"It is a {network['dimensions']}-D {kind} with {len(network['widths'])} levels of {widths} channels, "
        f"{normalised} normalisation: {parameters:,} parameters. {in_words(network)}"
    )


def _sees(settings: Mapping[str, Any]) -> str:
    slices, step, size = settings["network"]["slices"], settings["network"]["slice_step"], settings["input"]["size"]
    if settings["network"]["dimensions"] == 3:
        return "It sees boxes at the volume's own resolution."
    spaced = "neighbouring slices" if step == 1 else f"slices, every {step}th,"
    seen = "single slices" if slices == 1 else f"{slices} {spaced} and predicts the middle one"
    scale = "at the volume's own resolution" if size is None else f"scaled to {size[0]} x {size[1]} pixels"
    return f"It sees {seen}, {scale}."


def _sources(learn_from: Sequence[str]) -> str:
    named = ["the task's annotation" if name == "annotation" else f"annotator `{name}`" for name in learn_from]
    return "those of " + "; where nobody annotated, those of ".join(named)


def _fewer(settings: Mapping[str, Any]) -> str:
    share = settings.get("train_share", 1)
    return "" if share == 1 else f" Of the training boxes it was given {share:.3g} of their voxels (`train_share`)."


def _beginning(settings: Mapping[str, Any]) -> str:
    """The line about other weights that training began with; nothing where there were none."""
    begun = settings.get("initialised")
    if begun is None:
        return ""
    counts = begun["tensors"]
    known = "" if begun["labels_are_known"] else " Which labels went into those weights is not known."
    frozen = f" Frozen: {', '.join(f'`{name}`' for name in settings['freeze'])}." if settings["freeze"] else ""
    return (
        f"\n\nIts training began with weights of `{begun['source']}` (SHA-256 {begun['sha256'][:12]}): "
        f"{counts['loaded']} tensors were taken over, {counts['other shape'] + counts['not in the source']} began at "
        f"random; `init_report.csv` names them.{frozen}{known}"
    )


def _facts(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in facts.items()) or "nothing else is known about it"


def _grey_values(normalisation: Mapping[str, Any]) -> str:
    mean, deviation = normalisation["mean"], normalisation["deviation"]
    own = {
        "volume_zscore": "; each volume is brought to zero mean and unit deviation by itself",
        "histogram": "; each volume's histogram is matched to theirs first",
    }.get(normalisation["name"], "")
    return f"{normalisation['dtype']} grey values with a mean of {mean:.4g} and a deviation of {deviation:.4g}{own}"


def _score(value: float) -> str:
    return "not measured" if math.isnan(value) else f"{value:.3f}"


def _size(spacing_um: Vector) -> str:
    return " x ".join(f"{edge:g}" for edge in spacing_um)
