"""A trained model as a folder: weights, what they need to be used, where they come from, and a card for people."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from voxloom import io, plan_file
from voxloom.errors import ConfigError, ModelError
from voxloom.intensity import Normalisation
from voxloom.model_card import card
from voxloom.yaml_file import read_yaml

if TYPE_CHECKING:
    from torch import Tensor, nn

    from voxloom.initialisation import Initial
    from voxloom.training import Trained

FORMAT = "voxloom model 1"
WEIGHTS, SETTINGS, LOG, SPLIT, CARD = "weights.safetensors", "model.yaml", "training_log.csv", "split.csv", "README.md"
INIT_REPORT, SEEN_BEFORE = "init_report.csv", "seen_before.csv"
PLAN = "plan.yaml"
AUGMENTED = "augmented_patches"
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
    initial: Initial | None = None,
    plan: Mapping[str, Any] | None = None,
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
    initial : Initial, optional
        What training began with; init_report.csv then says what became of each tensor, and seen_before.csv which labels
        are in the weights already.
    plan : mapping, optional
        What chose the settings of a model whose network is auto, and why; kept as plan.yaml.

    Notes
    -----
    Equal arguments give equal bytes, but for the training log's columns of times and memory. Weights of the best or the
    last epoch, where another one was kept, are beside the kept ones as best.safetensors or last.safetensors.
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
    if initial is not None:
        document["initialised"] = _initialised(trained, initial)
    with io.atomic_directory(folder) as temporary:
        for name, tensors in {Path(WEIGHTS).stem: trained.network.state_dict(), **trained.others}.items():
            save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, temporary / f"{name}.safetensors")
        (temporary / SETTINGS).write_text(
            f"# The settings that made {WEIGHTS}, and what using it needs. Voxel sizes in um, axes (Z, Y, X).\n"
            + yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120),
            encoding="utf-8",
        )
        write_table(temporary / LOG, trained.log)
        write_table(temporary / SPLIT, split_rows)
        if initial is not None:
            _write_beginning(temporary, trained, initial)
        if plan is not None:
            plan_file.write_plan(temporary / PLAN, plan)
        figure = training_figure.draw(
            trained.log, kept_epoch=trained.kept_epoch, title=f"{task} / {model} / fold {fold}"
        )
        save_figure(figure, temporary / "training_log")
        if trained.examples is not None:
            _draw_augmented(temporary, trained, title=f"{task} / {model} / fold {fold}")
        (temporary / CARD).write_text(card(document, trained.log), encoding="utf-8")


def _draw_augmented(folder: Path, trained: Trained, *, title: str) -> None:
    from voxloom import augment_figure
    from voxloom.figures import save_figure

    assert trained.examples is not None
    figure = augment_figure.draw(trained.examples, settings=trained.settings["augment"], title=title)
    save_figure(figure, folder / AUGMENTED, png_dpi=augment_figure.DPI)


def _initialised(trained: Trained, initial: Initial) -> dict[str, Any]:
    """What model.yaml keeps of the weights that training began with."""
    from voxloom import initialisation

    return {
        "source": initial.source,
        "sha256": initial.sha256,
        "labels_are_known": initial.seen is not None,
        "tensors": initialisation.summary(initialisation.compare(trained.network, initial)),
    }


def _write_beginning(folder: Path, trained: Trained, initial: Initial) -> None:
    from voxloom import initialisation

    write_table(folder / INIT_REPORT, map(asdict, initialisation.compare(trained.network, initial)))
    if initial.seen is not None:
        write_table(folder / SEEN_BEFORE, [seen.row() for seen in initial.seen])


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
    from voxloom import networks

    folder = Path(folder)
    settings = read_settings(folder)
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise ModelError(f"{folder} holds no {WEIGHTS}; train the model, or copy its whole folder")
    tensors = read_tensors(weights)
    expected = _shapes(path=folder / SETTINGS, network=settings["network"])
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found != expected:
        differing = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        name = differing[0]
        raise ModelError(
            f"{weights} doesn't fit the network in {SETTINGS}: {len(differing)} tensors differ, among them {name}, of "
            f"shape {found.get(name, 'missing')} instead of {expected.get(name, 'none')}; the two files are of "
            "different models"
        )
    network = networks.build(settings["network"], seed=0)
    network.load_state_dict(tensors)
    return network.eval(), settings


def _shapes(*, path: Path, network: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of a network's tensors, without their memory: the file may say anything."""
    from voxloom import networks

    try:
        return networks.shapes(network)
    except ModelError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError, IndexError, RuntimeError, ArithmeticError) as error:
        raise ModelError(f"{path}: network can't be built ({error!r}); copy the model's folder again") from None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file.

    Parameters
    ----------
    path : Path

    Returns
    -------
    tensors : dict of str to Tensor
        On the CPU.

    Raises
    ------
    ModelError
        If it is another kind of file, or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} is no safetensors file, or damaged ({error}); copy it again, or train anew") from None


def read_settings(folder: str | Path) -> dict[str, Any]:
    """Read a model's settings, not its weights.

    Parameters
    ----------
    folder : str or Path

    Returns
    -------
    settings : dict
        See `load_model`.

    Raises
    ------
    ModelError
        If model.yaml is missing, damaged, or incomplete.
    """
    folder = Path(folder)
    path = folder / SETTINGS
    if not path.is_file():
        raise ModelError(f"{folder} is no model: it holds no {SETTINGS}")
    try:
        settings = read_yaml(path)
    except ConfigError as error:
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


def write_table(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a CSV table; a number that isn't there is empty.

    Parameters
    ----------
    path : Path
    rows : iterable of mapping
        All with the first one's keys.
    """
    rows = list(rows)
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {key: "" if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}
            )
