"""Looks at a folder of volumes and writes the configuration of a first run, each line with its reason."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from voxloom.errors import ConfigError, VoxloomError
from voxloom.io.formats import open_source
from voxloom.io.source import Source

SUFFIXES = (".nrrd", ".nhdr", ".tif", ".tiff", ".h5", ".hdf5", ".mrc", ".rec", ".nii", ".nii.gz", ".zarr")
SLICES = (".png", ".tif", ".tiff")
LABEL_WORDS = r"seg|segmentation|labels?|masks?|annotations?|annotated|gt|truth|groundtruth"
IMAGE_WORDS = r"images?|img|raw|volumes?|data|0000"
LABEL_NAME = re.compile(rf"^(.*?)[ ._-]*(?:{LABEL_WORDS})$", re.I)
IMAGE_NAME = re.compile(rf"^(.*?)[ ._-]*(?:{IMAGE_WORDS})$", re.I)
LABEL_FOLDER = re.compile(rf"^(?:.*[ ._-])?(?:{LABEL_WORDS})$", re.I)
BLOCKS = 8
"""Blocks that a volume is cut into for the split, where it is deep enough."""

FEWEST_SLICES = 16
"""Slices from which a volume is split along Z; a flatter one is split along Y."""

FIRST_MINUTES = 5
UNKNOWN = 255
"""What nobody annotated, in files that have other labels."""

SMALL = 0.5
"""Share of a slice's rows below which labels may be those of a block."""

SLAB = 16
"""Slices that are read at once."""


@dataclass(frozen=True)
class Found:
    """A volume of the folder.

    Parameters
    ----------
    name : str
        For volumes.tsv.
    image : Source
    label : Source or None
        Its annotation.
    """

    name: str
    image: Source
    label: Source | None


def write_configuration(
    folder: str | Path, *, task: str, into: str | Path = ".", voxel_size_um: Sequence[float] | None = None
) -> list[Path]:
    """Write config/volumes.tsv, config/tasks/<task>.yaml and config/config.yaml for a folder of volumes.

    Parameters
    ----------
    folder : str or Path
        Images and their label files, in any of the formats that are read.
    task : str
        What the labels mark.
    into : str or Path
        Where config/ is written, and from where the workflow is run.
    voxel_size_um : sequence of float, optional
        (Z, Y, X), for files that state none.

    Returns
    -------
    paths : list of Path
        What was written.

    Raises
    ------
    ConfigError
        If the folder holds no volume, a file would be overwritten, or a voxel size is missing.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", task):
        raise ConfigError(f"--task is {task!r}; use letters, digits, '_' and '-', beginning with a letter or digit")
    config = Path(into) / "config"
    paths = [config / "volumes.tsv", config / "tasks" / f"{task}.yaml", config / "config.yaml"]
    for path in paths:
        if path.exists():
            raise ConfigError(f"{path} is there already and is left as it is; give another --into, or remove it first")
    found = look(folder)
    texts = [
        _volumes_table(found, Path(into), voxel_size_um),
        _task_file(found, task, voxel_size_um),
        _config_file(task),
    ]
    paths[1].parent.mkdir(parents=True, exist_ok=True)
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text, encoding="utf-8")
    return paths


def snakefile() -> str:
    """Where the workflow's Snakefile is, as far as an installation knows.

    Returns
    -------
    path : str
        Of the checkout that this module is part of.
    """
    path = Path(__file__).resolve().parents[2] / "Snakefile"
    return str(path) if path.is_file() else "path/to/voxloom/Snakefile"


def look(folder: str | Path) -> list[Found]:
    """Volumes of a folder, with their label files.

    Parameters
    ----------
    folder : str or Path

    Returns
    -------
    found : list of Found
        Sorted by name.

    Raises
    ------
    ConfigError
        If there is none; says what was looked for.

    Notes
    -----
    A label file is named like its image with _labels, _mask, _seg or the like behind it (brain.nrrd and
    brain_labels.nrrd or brain.seg.nrrd), or lies under the image's name in a folder of that name (images/1.tif and
    labels/1.tif; stack/image/*.png and stack/label/*.png).
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder; give the folder that holds the volumes")
    images: dict[str, Path] = {}
    labels: dict[str, Path] = {}
    for path in _candidates(folder):
        key, is_label = _key(path.relative_to(folder))
        held = labels if is_label else images
        if key in held:
            raise ConfigError(f"{held[key]} and {path} would both be volume {key}; rename one of them")
        held[key] = path
    if not images:
        raise ConfigError(
            f"{folder} holds no image that is read ({', '.join(SUFFIXES)}, or a folder of .png or .tif slices)"
            + (f"; {len(labels)} files look like labels" if labels else "")
        )
    stray = sorted(labels.keys() - images.keys())
    if stray:
        raise ConfigError(
            f"{labels[stray[0]]} looks like labels, but there is no image {stray[0]}; known images: "
            f"{', '.join(sorted(images))}"
        )
    return [_opened(key, path, labels.get(key)) for key, path in sorted(images.items())]


def _candidates(folder: Path) -> list[Path]:
    """Files and folders that may be a volume each; a folder of slices is one."""
    found: list[Path] = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir() and path.suffix.lower() != ".zarr":
            found += [path] if _is_stack(path) else _candidates(path)
        elif path.name.lower().endswith(SUFFIXES):
            found.append(path)
    return found


def _is_stack(folder: Path) -> bool:
    files = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    slices = [path for path in files if path.suffix.lower() in SLICES]
    if len(slices) < 2 or len(slices) < len(files):
        return False
    shape = open_source(str(slices[0])).shape if slices[0].suffix.lower() != ".png" else None
    return shape is None or shape[0] == 1


def _stem(name: str) -> str:
    lower = name.lower()
    suffix = next((end for end in sorted(SUFFIXES, key=len, reverse=True) if lower.endswith(end)), "")
    return name[: len(name) - len(suffix)]


def _key(path: Path) -> tuple[str, bool]:
    """The volume's name of a path inside the folder, and whether it is its annotation."""
    folders, stem = list(path.parts[:-1]), _stem(path.name)
    is_label = any(LABEL_FOLDER.match(part) for part in folders)
    kept = [part for part in folders if not LABEL_FOLDER.match(part) and not re.fullmatch(IMAGE_WORDS, part, re.I)]
    named = LABEL_NAME.match(stem)
    if named:
        stem, is_label = named[1], True
    elif IMAGE_NAME.match(stem):
        stem = IMAGE_NAME.match(stem)[1]  # type: ignore[index]
    words = [re.sub(r"[^A-Za-z0-9_-]+", "-", part).strip("-_") for part in (*kept, stem)]
    return "-".join(word for word in words if word) or "volume", is_label


def _opened(name: str, image: Path, label: Path | None) -> Found:
    try:
        found = Found(name, open_source(str(image)), None if label is None else open_source(str(label)))
        for source in (found.image, found.label):
            if source is not None and source.refusal:
                raise ConfigError(f"{source.path}: {source.refusal}")
    except VoxloomError as error:
        error.add_note(f"while looking at volume {name}; move away what isn't a volume")
        raise
    shapes = found.image.shape, None if found.label is None else found.label.shape
    if shapes[0] and shapes[1] and shapes[0][-3:] != shapes[1][-3:]:
        raise ConfigError(
            f"{label} has {shapes[1]} voxels, its image {image} {shapes[0]}; both must be the same voxels (Z, Y, X)"
        )
    return found


def _spacing(found: Found, voxel_size_um: Sequence[float] | None) -> Sequence[float]:
    if voxel_size_um is not None:
        return voxel_size_um
    if found.image.geometry is None:
        raise ConfigError(f"{found.image.path} states no voxel size; give it as --voxel-size-um Z Y X")
    return found.image.geometry.spacing_um


def _from(path: Path, into: Path) -> str:
    """As the workflow finds it, which is run in `into`."""
    path, into = path.resolve(), into.resolve()
    return str(path.relative_to(into)) if path.is_relative_to(into) else str(path)


def _volumes_table(found: Sequence[Found], into: Path, voxel_size_um: Sequence[float] | None) -> str:
    columns = ["volume", "path"]
    columns += ["voxel_size_um"] if voxel_size_um is not None else []
    columns += ["annotation"] if any(volume.label for volume in found) else []
    lines = [
        "# Written by voxloom init: one volume a line, tab-separated; paths from the folder that snakemake runs in."
    ]
    lines.append("\t".join(columns))
    for volume in found:
        _spacing(volume, voxel_size_um)  # refuses what has none
        cells = {"volume": volume.name, "path": _from(Path(volume.image.path), into)}
        cells["voxel_size_um"] = ",".join(f"{edge:g}" for edge in voxel_size_um or ())
        cells["annotation"] = "" if volume.label is None else _from(Path(volume.label.path), into)
        lines.append("\t".join(cells[column] for column in columns))
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class _Labels:
    """What a label file holds; lengths are from the first to the last slice or row with labels."""

    volume: Found
    values: frozenset[int]
    slices: int
    rows: int
    height: int

    @property
    def has_unknown(self) -> bool:
        """Whether 255 stands beside another label, as what nobody annotated; among larger ones it numbers an object."""
        return max(self.values) == UNKNOWN and len(self.values - {0, UNKNOWN}) > 0


def _read_labels(labelled: Sequence[Found]) -> list[_Labels]:
    """Values and extents of label files, all of one custom.

    Raises
    ------
    ConfigError
        If 255 is what nobody annotated in one file and the only label of another.
    """
    found = [_labels(volume, unknown=None) for volume in labelled]
    if not any(labels.has_unknown for labels in found):
        return found
    for labels in found:
        if labels.values - {0} == {UNKNOWN}:
            other = next(each for each in found if each.has_unknown)
            raise ConfigError(
                f"{_path(labels)} marks foreground by 255, which is 'not annotated' in {_path(other)} beside its other "
                "labels; write one label by the same value in all files, 1 say"
            )
    return [_labels(volume, unknown=UNKNOWN) for volume in labelled]


def _labels(volume: Found, *, unknown: int | None) -> _Labels:
    """Look through a label file; what is labelled is all but 0 or, where there is an unknown, all but that."""
    assert volume.label is not None
    values: set[int] = set()
    *_, depth, height, _ = volume.label.require_shape()
    slices, rows = np.zeros(depth, dtype=bool), np.zeros(height, dtype=bool)
    for (*_, z, y, _), part in volume.label.read_blocks(SLAB):
        present = {int(value) for value in np.unique(part)}
        values |= present
        nothing = unknown if unknown in present else 0
        is_labelled: NDArray[np.bool_] = (part != nothing).reshape(-1, *part.shape[-3:]).any(axis=0)
        slices[z] |= is_labelled.any(axis=(1, 2))
        rows[y] |= is_labelled.any(axis=(0, 2))
    return _Labels(volume, frozenset(values), _extent(slices), _extent(rows), height)


def _path(labels: _Labels) -> Path:
    assert labels.volume.label is not None
    return Path(labels.volume.label.path)


def _extent(marked: NDArray[np.bool_]) -> int:
    places = np.flatnonzero(marked)
    return int(places[-1] - places[0]) + 1 if len(places) else len(marked)


def _task_file(found: Sequence[Found], task: str, voxel_size_um: Sequence[float] | None) -> str:
    labelled = _read_labels([volume for volume in found if volume.label is not None])
    return f"""\
# Written by voxloom init for {len(found)} volume(s), {len(labelled)} of them with labels. Every key: config/README.md.
seed: 17

annotate:
{_annotate(labelled)}
split:
{_split(found, labelled, voxel_size_um)}
models:
  auto:
    description: Planned from the annotation and the machine.
    network: auto # results/plans/{task}.yaml then says what was chosen, and why
    max_minutes: {FIRST_MINUTES} # a first result; remove this line for a better one
"""


def _annotate(labelled: Sequence[_Labels]) -> str:
    if not labelled:
        return """\
  recipe: # no label file was found (name_labels.nrrd, name.seg.nrrd, labels/name.tif), so bright voxels are taken
    - threshold: {above: otsu} # below: otsu where dark voxels are meant; look at results/annotations/*/*.png
"""
    values, text = sorted(frozenset().union(*(labels.values for labels in labelled))), ""
    text += "  recipe: # of volumes without a label file: nothing of them is annotated\n"
    text += "    - threshold: {above: otsu}\n    - ignore: {z_um: [0, 1.0e+9]}\n  files:\n"
    shown = ", ".join(map(str, values[:8])) + (", ..." if len(values) > 8 else "")
    has_unknown = any(labels.has_unknown for labels in labelled)
    ignored = "[255]" if has_unknown else "[]"
    why = "255 is 'not annotated'" if has_unknown else "every voxel of a slice with labels is annotated"
    names = _path(labelled[0]).name + (f" and {len(labelled) - 1} more" if len(labelled) > 1 else "")
    text += f"    annotation: # values of {names}: {shown}\n"
    text += "      labels: any # all but 0; or a list of the values that are meant\n"
    text += f"      ignore_labels: {ignored} # {why}\n"
    small = [labels for labels in labelled if not has_unknown and labels.rows < SMALL * labels.height]
    if small:
        rows = f"{small[0].rows} of {small[0].height} rows"
        text += (
            f"      # LOOK: labels of {_path(small[0]).name} are in {rows}. If nobody\n"
            "      # annotated the rest, write 255 there: 0 says that nothing is there, and that is learnt\n"
        )
    return text + "      empty_slices: ignore # a slice without any label is taken for one that nobody looked at\n"


def _split(found: Sequence[Found], labelled: Sequence[_Labels], voxel_size_um: Sequence[float] | None) -> str:
    """Blocks of what is labelled: where labels are few, most blocks of the whole volume would have none."""
    if labelled:
        least = min(labelled, key=lambda labels: labels.slices)
        smallest, depth, height = least.volume, least.slices, least.rows
    else:
        smallest = min(found, key=lambda volume: volume.image.require_shape()[-3])
        depth, height, _ = smallest.image.require_shape()[-3:]
    z_um, y_um, _ = _spacing(smallest, voxel_size_um)
    with_labels = " with labels" if labelled else ""
    if depth >= FEWEST_SLICES:
        slices = max(2, depth // BLOCKS)
        block, reason = f"[{_um(slices * z_um)}, null, null]", f"{slices} of {depth} slices{with_labels} stay together"
    else:
        rows = max(8, height // 3)
        block, reason = (
            f"[null, {_um(rows * y_um)}, null]",
            f"few slices{with_labels} ({depth}), so each is cut, {rows} rows together",
        )
    return f"""\
  block_um: {block} # {reason}; (Z, Y, X), null is the whole axis
  gap_um: {_um(z_um if depth >= FEWEST_SLICES else y_um)} # a voxel; raised to what the networks see
  test_fraction: 0.25 # of the blocks; none of them is learnt from
  validation_fraction: 0.25 # of the blocks; they choose epoch and threshold
"""


def _um(length: float) -> str:
    return f"{length * (1 + 1e-6):.6g}" if length != int(length) else f"{length:.1f}"


def _config_file(task: str) -> str:
    return f"""\
# Written by voxloom init. Every key, its default and its range: config/README.md of voxloom.
volumes: config/volumes.tsv

tasks: # task file in config/tasks: models of it to train
  {task}: [auto]

resources:
  memory_mib: 4096 # of one job; blocks and patches are made to fit it
  threads: {max(1, min(8, os.cpu_count() or 1))} # of one job
  device: auto # a GPU if there is one
"""
