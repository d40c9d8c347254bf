"""Weights of another model from disk, without executing what a file holds, and what may not begin with them."""

from __future__ import annotations

import csv
import logging
import pickle
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from voxloom import boxes, model, networks
from voxloom.boxes import Box
from voxloom.errors import ModelError, SplitError
from voxloom.initialisation import Initial, SeenBox
from voxloom.io import sha256
from voxloom.labelled import PartBox, TrainingVolume
from voxloom.references import WEIGHT_FILES

LOGGER = logging.getLogger("voxloom")


def read_initial(path: str | Path | None, *, freeze: Sequence[str]) -> Initial | None:
    """Read the weights that a training begins with.

    Parameters
    ----------
    path : str or Path or None
        A model's folder, a .safetensors file, or a state dict in a .pt or .pth file.
    freeze : sequence of str
        See `initialisation.Initial`.

    Returns
    -------
    initial : Initial or None

    Raises
    ------
    ModelError
        If there is no such model, or its file is damaged, of another kind, or would execute code.
    """
    if path is None:
        return None
    file = Path(path)
    if file.is_dir():
        weights = file / model.WEIGHTS
        network, settings = model.load_model(file)
        name = f"{settings['task']}/{settings['model']}, fold {settings['fold']}"
        return Initial(name, sha256(weights), network.state_dict(), tuple(freeze), _seen(file, settings))
    if not file.is_file() or file.suffix not in WEIGHT_FILES:
        raise ModelError(
            f"init_from: {file} is no model's folder and no {', '.join(WEIGHT_FILES)} file; give one of them, or "
            "<task>/<model> of this workflow"
        )
    tensors = model.read_tensors(file) if file.suffix == ".safetensors" else _state_dict(file)
    return Initial(file.name, sha256(file), tensors, tuple(freeze), None)


def refuse_leaks(
    initial: Initial | None,
    *,
    part_boxes: Iterable[PartBox],
    volumes: Mapping[str, TrainingVolume],
    data: Mapping[str, Mapping[str, Any]],
    settings: Mapping[str, Any],
) -> None:
    """Refuse weights that know the labels of boxes which test the new model.

    Parameters
    ----------
    initial : Initial or None
    part_boxes : iterable of PartBox
        Of the new model's fold.
    volumes : mapping of str to TrainingVolume
    data : mapping of str to mapping
        For every volume its ``sha256``, by which volumes are recognised whatever they are called.
    settings : mapping
        The new model's; what its network sees around a test box counts as the box.

    Raises
    ------
    SplitError
        If a box that trained or validated the source overlaps one that tests.
    """
    if initial is None:
        return
    if initial.seen is None:
        LOGGER.warning(
            "init_from: nobody knows which labels went into %s; if test boxes were among them, the scores mean nothing",
            initial.source,
        )
        return
    for box in part_boxes:
        if box.part not in ("test", "validation"):
            continue
        digest = data[box.volume].get("sha256")
        inside = [seen for seen in initial.seen if seen.sha256 == digest]
        reach = networks.native_reach(settings, volumes[box.volume].image.shape[1:])
        met = boxes.near(_box(box), boxes.as_array([seen.box for seen in inside]), gap=reach)
        if met.any():
            seen = inside[int(met.argmax())]
            _refuse_or_warn(initial, box, seen)


def _refuse_or_warn(initial: Initial, box: PartBox, seen: SeenBox) -> None:
    overlap = f"{initial.source} learnt from labels in or next to a {box.part} box of {box.volume}, {box.start} to "
    overlap += f"{box.stop}: its {seen.part} box is {seen.box} (Z, Y, X)"
    if box.part == "validation":
        LOGGER.warning("init_from: %s: scores on validation boxes will flatter, those on test boxes won't", overlap)
        return
    raise SplitError(
        f"init_from: {overlap}; the test would flatter. Give both tasks the same split (split.by: box with the same "
        "boxes), or begin with a model of this task or of other volumes"
    )


def _seen(folder: Path, settings: Mapping[str, Any]) -> tuple[SeenBox, ...] | None:
    """Boxes whose labels a model and its own beginnings know."""
    before = settings.get("initialised")
    if before is not None and not before["labels_are_known"]:
        return None
    rows = [row for row in _rows(folder / model.SPLIT) if row["part"] in ("train", "validation")]
    known = {name: facts["sha256"] for name, facts in settings["data"].items()}
    seen = [_seen_box({**row, "sha256": known[row["volume"]]}) for row in rows]
    return (*seen, *(map(_seen_box, _rows(folder / model.SEEN_BEFORE)) if before is not None else ()))


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise ModelError(f"{path.parent} lacks {path.name}; copy the model's whole folder, or train it anew")
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _seen_box(row: Mapping[str, str]) -> SeenBox:
    z, y, x = ((int(row[f"{axis}_from"]), int(row[f"{axis}_to"])) for axis in "zyx")
    return SeenBox(row["sha256"], row["part"], (z, y, x))


def _box(box: PartBox) -> Box:
    z, y, x = zip(box.start, box.stop, strict=True)
    return z, y, x


def _refuse_bomb(file: Path) -> None:
    """PyTorch doesn't compress; an archive that is compressed could expand to any size."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
                raise ModelError(f"init_from: {file} is a compressed archive, as PyTorch writes none; save it anew")


def _state_dict(file: Path) -> dict[str, Tensor]:
    """Tensors of a state dict; also where it lies under the key state_dict, or comes from several GPUs."""
    _refuse_bomb(file)
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"init_from: {file} is damaged, or holds more than tensors, which would have to be executed ({reason}); "
            "save its state_dict() alone, or as .safetensors"
        ) from None
    found = found.get("state_dict", found) if isinstance(found, dict) else found
    if not isinstance(found, dict) or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise ModelError(f"init_from: {file} is no state dict, a mapping of names to tensors; save state_dict() alone")
    return {name.removeprefix("module."): tensor for name, tensor in found.items()}
