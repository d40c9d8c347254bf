"""Checks that need more than one file: names that one part of the configuration uses and another defines.

Imported while the Snakefile is parsed, so it needs nothing but the standard library.
"""

from __future__ import annotations

import difflib
import glob
import os
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from voxloom import addresses, network_reach, network_settings
from voxloom.config import GIVEN
from voxloom.errors import ConfigError

WEIGHT_FILES = (".safetensors", ".pt", ".pth")
CLOCK_TOLERANCE_S = 60.0
"""A file this much ahead of the clock is no sign of a wrong one: it is converted once more at most."""

NETWORKS = ("models", "ensembles")
"""Keys of a task file under which networks predict."""

TEST_TIME = {"test_time_flips": "mirrored", "test_time_rotations": "turned"}
"""Settings of a model that an ensemble may replace, and what becomes of tiles."""

Table = dict[str, dict[str, Any]]


def one_of(names: Iterable[str]) -> str:
    """A regular expression that matches these names and nothing else; nothing at all where there are none."""
    return "|".join(re.escape(name) for name in sorted(set(names))) or "(?!)"


def annotators(volumes: Table) -> list[str]:
    """Names of the columns annotation_<name> of the table of volumes, sorted.

    Parameters
    ----------
    volumes : dict
        As `voxloom.config.read_volumes` gives it.

    Returns
    -------
    names : list of str
    """
    columns = {column for row in volumes.values() for column in row}
    return sorted(c.removeprefix("annotation_") for c in columns if c.startswith("annotation_"))


def number_of_folds(task: dict[str, Any]) -> int:
    """How many train/validation/test assignments a task has."""
    return int(task["split"]["folds"])


def refuse_without_validation(split: dict[str, Any], *, task: str) -> None:
    """Refuse to score models for which nothing chooses a threshold, before they are trained.

    Parameters
    ----------
    split : dict
        The task's key ``split``.
    task : str

    Raises
    ------
    ConfigError
        If no box will validate; says how to train all the same.
    """
    if split["by"] == "box":
        has_validation, key = any(box["part"] == "validation" for box in split["boxes"]), "split.boxes"
    else:
        has_validation, key = split["validation_fraction"] > 0, "split.validation_fraction"
    if not has_validation:
        raise ConfigError(
            f"{key} of task {task} leaves nothing for validation, which chooses the threshold of every mask and score; "
            "give it some, or ask for models and predictions alone: "
            f"snakemake results/predictions/{task}/MODEL/0/VOLUME.zarr"
        )


def initial_model(tasks: Table, task: str, model: str, *, fold: int) -> list[str]:
    """Where the weights are that a model's training begins with.

    Parameters
    ----------
    tasks : dict
        Complete task files.
    task, model : str
        The model to train.
    fold : int

    Returns
    -------
    paths : list of str
        Empty, or one: the folder of another model of the workflow, of the same fold, of fold 0 where its task has
        fewer; or a path of the user's.

    Notes
    -----
    Folds of two tasks may test different boxes. What keeps labels of a test box out is not the fold's number but
    `voxloom.pretrained.refuse_leaks`, which compares the boxes.
    """
    settings = tasks[task]["models"][model]["init_from"]
    if settings is None:
        return []
    source_task, _, source_model = settings["model"].partition("/")
    if source_task in tasks and source_model in tasks[source_task]["models"]:
        same = fold if fold < number_of_folds(tasks[source_task]) else 0
        return [f"results/models/{source_task}/{source_model}/{same}"]
    return [settings["model"]]


def members(task: dict[str, Any], model: str) -> list[str]:
    """The models whose mean a name stands for: an ensemble's members, or the model itself; none for a fusion."""
    if model in task["fusions"]:
        return []
    return list(task["ensembles"][model]["models"]) if model in task["ensembles"] else [model]


def test_time(task: dict[str, Any], model: str) -> dict[str, bool]:
    """What an ensemble says of the transforms at test time, instead of its members' own settings.

    Parameters
    ----------
    task : dict
        Complete task file.
    model : str
        A model's name, for which nothing is said, or an ensemble's.

    Returns
    -------
    settings : dict of str to bool
        Some of ``test_time_flips`` and ``test_time_rotations``.
    """
    ensemble = task["ensembles"].get(model, {})
    return {key: ensemble[key] for key in TEST_TIME if ensemble.get(key) is not None}


def descriptions(task: dict[str, Any]) -> dict[str, str]:
    """One line about every model, ensemble and fusion of a task, for the report."""
    said = {name: model["description"] for name, model in task["models"].items()}
    for name, ensemble in task["ensembles"].items():
        said[name] = ensemble["description"] or _described(ensemble["models"], test_time(task, name))
    for name, fusion in task["fusions"].items():
        said[name] = fusion["description"] or f"{fusion['of']} with watershed contours."
    return said


def steps(task: dict[str, Any]) -> list[dict[str, str]]:
    """Pairs of a task's models that differ in one step after training, for the report to say what the step is worth.

    Parameters
    ----------
    task : dict
        Complete task file.

    Returns
    -------
    steps : list of dict
        "what" was done, the "model" with it, and the one "without" it: a fused model and what it is made of, and an
        ensemble that transforms tiles at test time and what has the same members and doesn't.
    """
    names = [*task["models"], *task["ensembles"]]
    plain = [name for name in names if not any(map(any, _transforms(task, name).values()))]
    found = [
        {"what": "Averaging over test-time transforms", "model": name, "without": without}
        for name in task["ensembles"]
        for without in plain
        if name not in plain and set(members(task, name)) == set(members(task, without))
    ]
    fused = task["fusions"]
    return found + [{"what": "Watershed fusion", "model": name, "without": fused[name]["of"]} for name in fused]


def _transforms(task: dict[str, Any], name: str) -> dict[str, list[bool]]:
    """Each member's transforms at test time, in the order of `TEST_TIME`."""
    instead = test_time(task, name)
    return {
        member: [instead.get(key, task["models"][member][key]) for key in TEST_TIME] for member in members(task, name)
    }


def _described(models: list[str], transforms: dict[str, bool]) -> str:
    """What an ensemble is, where nobody said it in words."""
    tiles = [f"{'' if transforms[key] else 'not '}{word}" for key, word in TEST_TIME.items() if key in transforms]
    over = f", tiles {' and '.join(tiles)}" if tiles else ""
    return f"{'Mean' if len(models) > 1 else 'Prediction'} of {', '.join(models)}{over}."


def raw_files(path: str) -> list[str]:
    """Files that a volume's path stands for.

    Parameters
    ----------
    path : str
        A file, a folder, a pattern such as ``dir/*.tif``, ``file.h5::/dataset``, or an address.

    Returns
    -------
    files : list of str
        What must be there, or was found; of a folder of slices its files. A detached NRRD header brings no data
        files of its own.
    """
    path = path.split("::")[0]
    if addresses.scheme(path):
        return [path]
    if any(sign in path for sign in "*?["):
        return sorted(glob.glob(path))
    if Path(path).is_dir() and not any((Path(path) / name).exists() for name in ("zarr.json", ".zarray", ".zgroup")):
        return sorted(str(file) for file in Path(path).iterdir() if file.is_file() and not file.name.startswith("."))
    return [path]


def check_references(config: dict[str, Any], volumes: Table, tasks: Table) -> None:
    """Check what refers to what.

    Parameters
    ----------
    config : dict
        Complete config.yaml.
    volumes : dict
        Complete table of volumes.
    tasks : dict
        Complete task files.

    Raises
    ------
    ConfigError
        Naming every reference that leads nowhere.
    """
    problems = [*_volume_problems(config, volumes)]
    for name, task in tasks.items():
        file = f"{config['task_folder']}/{name}.yaml"
        problems += [f"{file}: {text}" for text in _task_problems(task, volumes)]
    problems += _init_problems(config, tasks)
    problems += _fusion_problems(config, tasks)
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise ConfigError(f"{count} in the configuration:\n" + "\n".join(f"  - {p}" for p in problems))


def check_cache(volumes: Table, *, table: str) -> None:
    """Check that conversions can be shared with other projects through Snakemake's cache.

    Parameters
    ----------
    volumes : dict
        Complete table of volumes.
    table : str
        Its file, for the message.

    Raises
    ------
    ConfigError
        If a volume's raw data are a folder of which Snakemake can't take the checksum.
    """
    for name, row in volumes.items():
        folders = [file for file in raw_files(row["path"]) if Path(file).is_dir()]
        if folders:
            raise ConfigError(
                f"{table}: path of {name} is {folders[0]}, a store of many files: Snakemake's cache can't take "
                "its checksum; run without --cache"
            )


def _volume_problems(config: dict[str, Any], volumes: Table) -> Iterator[str]:
    table = config["volumes"]
    made = {f"results/raw/{p}{end}" for p in config["phantom"] for end in (".nrrd", ".truth.seg.nrrd")}
    made |= {f"results/downloads/{file}" for file in config["downloads"]}
    for name in config["phantom"].keys() - volumes.keys():
        yield (
            f"config/config.yaml: phantom.{name} is not in {table}; add the row "
            f"{name}<tab>results/raw/{name}.nrrd, or remove the phantom{_near(name, volumes)}"
        )
    for name, row in volumes.items():
        for column, path in row.items():
            if column != "path" and not column.startswith("annotation"):
                continue
            if path.startswith("results/"):
                if path not in made:
                    near = _near(path, made)
                    yield f"{table}: {column} of {name} is {path}, which no phantom or download makes{near}"
                continue
            if addresses.scheme(path):
                unreadable = addresses.problem(path)
                if unreadable:
                    yield f"{table}: {column} of {name}, {path}, {unreadable}"
                continue
            files = raw_files(path)
            yield from (f"{table}: {column} of {name}: {text}" for text in _unfit_files(files))
            if not files:
                yield f"{table}: {column} of {name}: no file matches {path}; paths are taken from {Path.cwd().name}/"
            for file in files[:1]:
                if not Path(file).exists():
                    parent = Path(file).parent
                    near = _near(Path(file).name, [p.name for p in parent.iterdir()]) if parent.is_dir() else ""
                    place = "" if parent.is_dir() else f"; the folder {parent} isn't there either"
                    yield (
                        f"{table}: {column} of {name}: no such file {file}{near}{place} "
                        f"(paths are taken from {Path.cwd().name}/)"
                    )


def _unfit_files(files: Iterable[str]) -> Iterator[str]:
    """The first file that may not be read, or whose time would have it read again in every run."""
    for file in files:
        if not Path(file).exists():
            continue
        ahead_s = Path(file).stat().st_mtime - time.time()
        if not os.access(file, os.R_OK):
            yield f"{file} may not be read by this user; give it the right (chmod), or run as the file's owner"
            return
        if ahead_s > CLOCK_TOLERANCE_S:
            yield (
                f"{file} was written {ahead_s / 60:.0f} minutes in the future, so that it would be converted again in "
                "every run; set this machine's clock or the other one's right, then: touch the file"
            )
            return


def _recipe_problems(recipe: list[dict[str, Any]], key: str) -> Iterator[str]:
    """Recipes that mark nothing, here or under a step that begins from the image again."""
    if not any("threshold" in step for step in recipe):
        yield f"{key} has no threshold, so it makes no mask; add a step such as threshold: {{above: 120}}"
    for number, step in enumerate(recipe):
        for name, inner in step.items():
            if isinstance(inner, list):
                yield from _recipe_problems(inner, f"{key}[{number}].{name}")


def _task_problems(task: dict[str, Any], volumes: Table) -> Iterator[str]:
    known = ["annotation", *annotators(volumes)]
    if any("annotation" not in row for row in volumes.values()):
        yield from _recipe_problems(task["annotate"]["recipe"], "annotate.recipe")
    for name in task["annotate"]["files"]:
        if name not in known:
            yield f"annotate.files.{name}: volumes.tsv has no column annotation_{name}{_near(name, known)}"
    for name in task["evaluate"]["against"]:
        if name not in known:
            yield f"evaluate.against names {name!r}; volumes.tsv has no column annotation_{name}{_near(name, known)}"
    for box in task["split"]["boxes"]:
        if box["volume"] not in volumes:
            near = _near(box["volume"], volumes)
            yield f"split.boxes names the volume {box['volume']!r}, which volumes.tsv lacks{near}"
    if task["split"]["by"] == "box" and not task["split"]["boxes"]:
        yield "split.by is box, but split.boxes is empty; list a test box at least"
    folds = 1 + max((box["fold"] for box in task["split"]["boxes"]), default=0)
    if task["split"]["by"] == "box" and task["split"]["folds"] != folds:
        yield f"split.folds is {task['split']['folds']}, but split.boxes names {folds}; write folds: {folds}"
    if task["split"]["by"] != "box" and task["split"]["boxes"]:
        yield f"split.boxes is only read where split.by is box, it is {task['split']['by']}; change one of them"
    if task["predict"]["tiles"] == "averaged" and task["predict"]["halo_voxels"] != "exact":
        yield (
            f"predict.halo_voxels is {task['predict']['halo_voxels']}, but predict.tiles is averaged, which has no "
            "halo; leave one of them out"
        )
    for name, ensemble in task["ensembles"].items():
        if name in task["models"]:
            yield f"ensembles.{name} has the name of a model; give it another"
        for member in ensemble["models"]:
            if member not in task["models"]:
                yield (
                    f"ensembles.{name}.models names {member!r}, which is no model that runs; list it under tasks in "
                    f"config.yaml{_near(member, task['models'])}"
                )
            elif ensemble["test_time_rotations"] and task["models"][member]["input"]["size"]:
                yield (
                    f"ensembles.{name}.test_time_rotations is for slices at native resolution, and {member} has an "
                    "input.size; set it to false"
                )
    for name, model in task["models"].items():
        yield from (f"models.{name}.{text}" for text in _model_problems(model, known))


def _model_problems(model: dict[str, Any], known: list[str]) -> Iterator[str]:
    network, given = network_settings.resolved(model["network"]), model["input"]
    if model["freeze"] and model["init_from"] is None:
        yield f"freeze is {model['freeze']}, but init_from is null: random weights would stay; set init_from, or use []"
    for name in model["learn_from"]:
        if name not in known:
            yield f"learn_from names {name!r}; volumes.tsv has no column annotation_{name}{_near(name, known)}"
    if model["loss"]["terms"] and model["loss"]["name"] != "bce":
        yield f"loss.name is {model['loss']['name']!r} and loss.terms is given too; add it to terms and remove name"
    if GIVEN in model:
        return  # what the plan chooses fits together
    yield from network_settings.problems(network)
    if network["dimensions"] == 3 and given["size"]:
        yield "input.size scales slices, which a network of 3 dimensions doesn't see; use null and input.patch_voxels"
    if model["test_time_rotations"] and given["size"]:
        yield "test_time_rotations is for slices at native resolution; set it to false, or input.size to null"
    if network["dimensions"] == 2 and given["patch_voxels"][0] != 1:
        yield f"input.patch_voxels is {given['patch_voxels']}; a network of 2 dimensions predicts one slice, so Z is 1"
    key, sizes = ("size", given["size"]) if given["size"] else ("patch_voxels", given["patch_voxels"])
    factor = network_reach.size_factor(network)[-len(sizes) :]
    if any(size % multiple for size, multiple in zip(sizes, factor, strict=True)):
        yield f"input.{key} is {sizes}; use multiples of {list(factor)}, the product of the network's strides"
    elif list(sizes) == list(factor):
        yield (
            f"input.{key} is {sizes}, which leaves the network's coarsest level a single voxel to normalise; "
            f"use larger multiples of {list(factor)}"
        )


def _fusion_problems(config: dict[str, Any], tasks: Table) -> Iterator[str]:
    """Fusions of nothing, of themselves, or with a name that already predicts."""
    predicted = {name: task for task, settings in tasks.items() for kind in NETWORKS for name in settings[kind]}
    for task, settings in tasks.items():
        sources = {name: fusion["of"] for name, fusion in settings["fusions"].items()}
        known = [name for kind in (*NETWORKS, "fusions") for name in settings[kind]]
        for name, source in sources.items():
            where = f"{config['task_folder']}/{task}.yaml: fusions.{name}"
            ring = _ring(name, sources)
            if name in predicted:
                # rules are told apart by the name alone
                yield f"{where} has the name of a model or ensemble of the task {predicted[name]}; give it another"
            elif ring:
                yield f"{where}: no prediction can be first in the ring {' <- '.join(ring)}; change one `of` of it"
            elif source not in known:
                yield (
                    f"{where}.of is {source!r}, which is nothing that runs; list it under tasks in config.yaml"
                    f"{_near(source, known)}"
                )


def _init_problems(config: dict[str, Any], tasks: Table) -> Iterator[str]:
    """Models that begin with weights which nothing makes, or which need them first."""
    sources = {
        f"{task}/{name}": model["init_from"]["model"]
        for task, settings in tasks.items()
        for name, model in settings["models"].items()
        if model["init_from"] is not None
    }
    known = [f"{task}/{name}" for task, settings in tasks.items() for name in settings["models"]]
    for target, source in sources.items():
        task, name = target.split("/")
        where = f"{config['task_folder']}/{task}.yaml: models.{name}.init_from.model"
        ring = _ring(target, sources)
        if source == target:
            yield f"{where} is {source}, the model itself; name another one, or remove init_from"
        elif ring:
            yield f"{where}: no model can be first in the ring {' <- '.join(ring)}; remove one init_from of it"
        elif source not in known:
            yield from (f"{where} is {source!r}{text}" for text in _path_problems(config, source, known))


def _ring(target: str, sources: dict[str, str]) -> list[str]:
    """The models from one back to itself; empty where it isn't in a ring."""
    chain = [target]
    while chain[-1] in sources and chain[-1] not in chain[:-1]:
        chain.append(sources[chain[-1]])
    return chain if len(chain) > 1 and chain[-1] == target else []


def _path_problems(config: dict[str, Any], path: str, known: list[str]) -> Iterator[str]:
    if path in {f"results/downloads/{file}" for file in config["downloads"]}:
        return
    file = Path(path)
    if file.is_dir() and not (file / "weights.safetensors").is_file():
        yield ", a folder without weights.safetensors; name the folder of a trained model"
    elif file.is_file() and file.suffix not in WEIGHT_FILES:
        yield f"; expected a model's folder or a {', '.join(WEIGHT_FILES)} file"
    elif not file.exists():
        yield f", neither a model that runs (see tasks in config/config.yaml) nor a file or folder{_near(path, known)}"


def _near(word: str, options: Iterable[str]) -> str:
    options = sorted(str(option) for option in options)
    match = difflib.get_close_matches(word, options, 1)
    return f"; did you mean {match[0]!r}?" if match else f"; known: {', '.join(options[:8])}" if options else ""
