"""A trained model as a folder: weights, what they need to be used, where they come from, and a card for people."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from voxloom import io
from voxloom.errors import ModelError
from voxloom.intensity import Normalisation
from voxloom.model_card import card

if TYPE_CHECKING:
    from torch import nn

    from voxloom.training import Trained

FORMAT = "voxloom model 1"
WEIGHTS, SETTINGS, LOG, SPLIT, CARD = "weights.safetensors", "model.yaml", "training_log.csv", "split.csv", "README.md"
NEEDED = ("network", "input", "normalisation", "spacing_um", "precision", "test_time_flips")


def save_model(
    folder: str | Path,
    trained: Trained,
    *,
    task: str,
    model: str,
    fold: int,
    seed: int,
    split_rows: Sequence[Mapping[str, Any]],
    data: Mapping[str, Mapping[str, Any]],
    versions: Mapping[str, str],
    git_commit: str,
    is_synthetic: bool,
) -> None:
    """Write a model's folder, whole or not at all.

    Parameters
    ----------
    folder : str or Path
        Replaced if it is there.
    trained : Trained
    task, model : str
        Their names.
    fold, seed : int
    split_rows : sequence of mapping
        The fold's rows of splits/{task}.csv; kept as split.csv.
    data : mapping of str to mapping
        For every volume what identifies it: checksum, shape and the like.
    versions : mapping of str to str
        Packages.
    git_commit : str
    is_synthetic : bool
        Whether the volumes are phantoms; the card then says so wherever it gives a score.

    Notes
    -----
    Equal arguments give equal bytes, but for the two columns of times in the training log.
    """
    from safetensors.torch import save_file

    from voxloom import training_figure
    from voxloom.figures import save_figure

    document = {
        "format": FORMAT,
        "task": task,
        "model": model,
        "fold": fold,
        "seed": seed,
        **trained.settings,
        "kept_epoch": trained.kept_epoch,
        "counts": dict(trained.counts),
        "data": {name: dict(facts) for name, facts in sorted(data.items())},
        "is_synthetic": is_synthetic,
        "versions": dict(versions),
        "git_commit": git_commit,
    }
    with io.atomic_directory(folder) as temporary:
        tensors = {name: tensor.contiguous() for name, tensor in trained.network.state_dict().items()}
        save_file(tensors, temporary / WEIGHTS)
        (temporary / SETTINGS).write_text(
            f"# The settings that made {WEIGHTS}, and what using it needs. Voxel sizes in um, axes (Z, Y, X).\n"
            + yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120),
            encoding="utf-8",
        )
        _write_table(temporary / LOG, trained.log)
        _write_table(temporary / SPLIT, split_rows)
        figure = training_figure.draw(
            trained.log, kept_epoch=trained.kept_epoch, title=f"{task} / {model} / fold {fold}"
        )
        save_figure(figure, temporary / "training_log")
        (temporary / CARD).write_text(card(document, trained.log), encoding="utf-8")


def load_model(folder: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """Read a model's folder, without executing anything that is in it.

    Parameters
    ----------
    folder : str or Path

    Returns
    -------
    network : torch.nn.Module
        On the CPU, in evaluation mode.
    settings : dict
        Contents of model.yaml: the model's settings and its ``normalisation`` and ``spacing_um``.

    Raises
    ------
    ModelError
        If a file is missing or damaged, or weights and settings don't fit together.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from voxloom import networks

    folder = Path(folder)
    settings = _read_settings(folder)
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise ModelError(f"{folder} holds no {WEIGHTS}; train the model, or copy its whole folder")
    network = networks.build(settings["network"], seed=0)
    try:
        tensors = load_file(weights)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(
            f"{weights} is no safetensors file, or damaged ({error}); copy it again, or train anew"
        ) from None
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found != expected:
        differing = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        name = differing[0]
        raise ModelError(
            f"{weights} doesn't fit the network in {SETTINGS}: {len(differing)} tensors differ, among them {name}, of "
            f"shape {found.get(name, 'missing')} instead of {expected.get(name, 'none')}; the two files are of "
            "different models"
        )
    network.load_state_dict(tensors)
    return network.eval(), settings


def _read_settings(folder: Path) -> dict[str, Any]:
    path = folder / SETTINGS
    if not path.is_file():
        raise ModelError(f"{folder} is no model: it holds no {SETTINGS}")
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} can't be read as YAML: {error}") from None
    if not isinstance(settings, dict) or settings.get("format") != FORMAT:
        found = settings.get("format") if isinstance(settings, dict) else None
        raise ModelError(f"{path} must have format: {FORMAT}, got {found!r}; it was made by something else")
    missing = [key for key in NEEDED if key not in settings]
    if missing:
        raise ModelError(f"{path} lacks {', '.join(missing)}; copy the model's folder again, or train anew")
    try:
        Normalisation(**settings["normalisation"])
    except TypeError as error:
        raise ModelError(f"{path}: normalisation must have name, mean, deviation and dtype ({error})") from None
    return settings


def _write_table(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """CSV; a number that isn't there is empty."""
    rows = list(rows)
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {key: "" if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}
            )
