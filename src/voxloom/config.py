"""Reads and checks what the user configured; every problem is told at once, with file, key, value and mend.

Imported while the Snakefile is parsed, so it needs nothing but the standard library, PyYAML and jsonschema.
"""

from __future__ import annotations

import copy
import csv
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxloom import network_settings
from voxloom.deferred import Deferred
from voxloom.errors import ConfigError
from voxloom.text_file import nearest, read_text
from voxloom.yaml_file import read_yaml

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import ValidationError
else:
    Draft202012Validator = Deferred("jsonschema", "Draft202012Validator")

VOLUME_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
INTEGER_COLUMNS = ("slices",)
SIZE_COLUMN = "voxel_size_um"
AUTO = "auto"
KINDS = ("models", "ensembles", "fusions")
"""Keys of a task file under which something is that predicts, and is listed under tasks in config.yaml."""

GIVEN = "given"
"""Key of a model's settings that only a model with ``network: auto`` has: what the task file itself says of it."""


def check(document: Any, schema: dict[str, Any], *, name: str | Path) -> Any:
    """Check a document against its schema and fill in the defaults.

    Parameters
    ----------
    document : object
        As read from YAML. Not modified.
    schema : dict
        JSON Schema; its ``default`` values are filled in, its ``description`` texts are quoted in messages.
    name : str or Path
        The document's file, for the messages.

    Returns
    -------
    complete : object
        The document with every default, its keys sorted, so that the order in the file never matters.

    Raises
    ------
    ConfigError
        Naming every problem: file, key, value, what was expected, and the mend.
    """
    complete = _with_defaults(copy.deepcopy(document if document is not None else {}), schema, schema)
    problems = [f"{name}: {text}" for text in _unusable(complete)]
    problems = problems or [f"{name}: {text}" for text in _problems(complete, schema)]
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise ConfigError(f"{count} in the configuration:\n" + "\n".join(f"  - {p}" for p in problems))
    return json.loads(json.dumps(complete, sort_keys=True))


def read_tasks(
    chosen: dict[str, list[str]], *, folder: str | Path, schema: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Read the task files of the tasks that run, and keep the models that run.

    Parameters
    ----------
    chosen : dict of str to list of str
        Tasks and their models, ensembles and fusions, as in config.yaml.
    folder : str or Path
        Where the task files are.
    schema : dict
        The task's schema.

    Returns
    -------
    tasks : dict
        Name to complete settings; ``models``, ``ensembles`` and ``fusions`` hold the chosen ones only.

    Raises
    ------
    ConfigError
        If a file, task or model is missing, or a setting is wrong.
    """
    tasks = {}
    for task, models in chosen.items():
        path = Path(folder) / f"{task}.yaml"
        settings = check_task(read_yaml(path), schema, name=path)
        known = [model for kind in KINDS for model in settings[kind]]
        for model in models:
            if model not in known:
                raise ConfigError(
                    f"tasks.{task} asks for the model {model!r}, which {path} lacks{nearest(model, known)}"
                )
        for kind in KINDS:
            settings[kind] = {model: settings[kind][model] for model in models if model in settings[kind]}
        for chosen_model in settings["models"].values():
            chosen_model["network"] = network_settings.resolved(chosen_model["network"])
        tasks[task] = settings
    return tasks


def check_task(document: Any, schema: dict[str, Any], *, name: str | Path) -> Any:
    """Check a task file; what a model with ``network: auto`` leaves open is a plan's to say.

    Parameters
    ----------
    document : object
        As read from YAML. Not modified.
    schema : dict
        The task's.
    name : str or Path
        The file, for the messages.

    Returns
    -------
    complete : object
        As `check`; a model with ``network: auto`` also has a key "given", what the file itself says of it.

    Raises
    ------
    ConfigError
        As `check`.
    """
    document = copy.deepcopy(document)
    models = document.get("models") if isinstance(document, dict) else None
    models = models if isinstance(models, dict) else {}
    given = {
        model: copy.deepcopy(settings)
        for model, settings in models.items()
        if isinstance(settings, dict) and settings.get("network") == AUTO
    }
    for settings in (models[model] for model in given):
        settings["network"] = {}
        # only so that nothing is missing: the plan's value replaces it, unless the file has one
        optimiser = settings.setdefault("optimiser", {})
        if isinstance(optimiser, dict):
            optimiser.setdefault("learning_rate", 1.0)
    complete = check(document, schema, name=name)
    for model, settings in given.items():
        own = {key: value for key, value in settings.items() if key != "network"}
        complete["models"][model][GIVEN] = json.loads(json.dumps(own, sort_keys=True))
    return complete


def read_volumes(path: str | Path, schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Read the table of volumes.

    Parameters
    ----------
    path : str or Path
        Tab-separated, with a header line; empty cells are as if the column weren't there.
    schema : dict
        Of one row.

    Returns
    -------
    volumes : dict
        Name to row; ``voxel_size_um`` is a list of three numbers.

    Raises
    ------
    ConfigError
        Naming the file, the line, the column and the value.
    """
    path = Path(path)
    lines = read_text(path, encoding="utf-8-sig").splitlines()
    numbered = [(n, line) for n, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")]
    if not numbered:
        raise ConfigError(f"{path} is empty; its first line names the columns: volume, path, ...")
    header = numbered[0][1].split("\t")
    if "volume" not in header or "path" not in header:
        hint = "; it looks comma-separated, tabs are needed" if "," in numbered[0][1] or ";" in numbered[0][1] else ""
        raise ConfigError(f"{path} line {numbered[0][0]}: columns volume and path are needed, found {header}{hint}")
    volumes: dict[str, dict[str, Any]] = {}
    for number, line in numbered[1:]:
        where = f"{path} line {number}"
        try:
            cells = next(csv.reader([line], delimiter="\t"))
        except csv.Error as error:
            raise ConfigError(f"{where}: {error}; is it the table of volumes?") from None
        if len(cells) > len(header):
            raise ConfigError(f"{where}: {len(cells)} cells under {len(header)} columns; remove the surplus tab")
        row: dict[str, Any] = {
            column: cell.strip() for column, cell in zip(header, cells, strict=False) if cell.strip()
        }
        name = row.pop("volume", "")
        if not VOLUME_NAME.fullmatch(name):
            raise ConfigError(
                f"{where}: volume name {name!r}; use letters, digits, '_' and '-', beginning with a letter or digit"
            )
        if name in volumes:
            raise ConfigError(f"{where}: the volume {name!r} stands on an earlier line too; give each its own name")
        for column in INTEGER_COLUMNS:
            if column in row:
                row[column] = _number(row[column], int, where=where, column=column)
        if SIZE_COLUMN in row:
            parts = [_number(p, float, where=where, column=SIZE_COLUMN) for p in re.split(r"[,;\s]+", row[SIZE_COLUMN])]
            row[SIZE_COLUMN] = parts * 3 if len(parts) == 1 else parts
        volumes[name] = check(row, schema, name=where)
    if not volumes:
        raise ConfigError(f"{path}: no volume below the header line")
    return volumes


def _number(text: str, kind: type, *, where: str, column: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise ConfigError(f"{where}: {column} is {text!r}; expected a number in plain digits, such as 1.17") from None


def _with_defaults(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> Any:
    schema = _resolved(schema, root)
    if isinstance(value, dict):
        for key, part in schema.get("properties", {}).items():
            part = _resolved(part, root)
            if key not in value and "default" in part:
                value[key] = copy.deepcopy(part["default"])
            if key in value:
                value[key] = _with_defaults({} if value[key] is None and _is_section(part) else value[key], part, root)
        other = schema.get("additionalProperties")
        if isinstance(other, dict):
            for key in value.keys() - schema.get("properties", {}).keys():
                value[key] = _with_defaults(value[key], other, root)
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        value = [_with_defaults(item, schema["items"], root) for item in value]
    return value


def _is_section(schema: dict[str, Any]) -> bool:
    """Whether a key without anything below it is a section of nothing but defaults."""
    kinds = schema.get("type", [])
    return kinds == "object" or ("object" in kinds and "null" not in kinds)


def _resolved(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        target: Any = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        schema = {**target, **{k: v for k, v in schema.items() if k != "$ref"}}
    return schema


def _unusable(value: Any, key: str = "") -> Iterator[str]:
    """Keys that YAML doesn't read as text, and numbers that aren't any."""
    if isinstance(value, dict):
        for name, part in value.items():
            if not isinstance(name, str):
                where = f"{key}{'.' if key else ''}{name}"
                yield f"{where} is not text; put the key in quotes (YAML takes yes and no for true and false)"
            yield from _unusable(part, f"{key}{'.' if key else ''}{name}")
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from _unusable(part, f"{key}[{number}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{key} is {value}; expected a finite number"


def _problems(document: Any, schema: dict[str, Any]) -> Iterator[str]:
    errors = Draft202012Validator(schema).iter_errors(document)
    for error in sorted(errors, key=lambda e: [str(part) for part in e.absolute_path]):
        yield _explain(error, schema)


def _explain(error: ValidationError, root: dict[str, Any]) -> str:
    key = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error.absolute_path).lstrip(".")
    schema = _resolved(error.schema, root) if isinstance(error.schema, dict) else {}
    value, limit = error.instance, error.validator_value
    meaning = f" ({' '.join(schema['description'].split())})" if "description" in schema else ""
    if error.validator == "additionalProperties":
        known = schema.get("properties", {})
        unknown = sorted(
            k for k in value if k not in known and not any(re.search(p, k) for p in schema.get("patternProperties", {}))
        )
        where = f"{key}." if key else ""
        return "; ".join(f"{where}{k} is not a key{nearest(k, known)}" for k in unknown)
    if error.validator == "required":
        missing = next(k for k in limit if k not in value)
        part = _resolved(schema.get("properties", {}).get(missing, {}), root)
        meaning = " ".join(part.get("description", "it is needed").split())
        return f"{key + '.' if key else ''}{missing} is missing: {meaning}"
    if error.validator == "enum":
        return f"{key} is {value!r}; known: {', '.join(map(str, limit))}{nearest(str(value), [str(x) for x in limit])}"
    if error.validator == "type":
        kinds = [limit] if isinstance(limit, str) else limit
        hint = ""
        if isinstance(value, str) and value.strip().endswith("%"):
            hint = "; write a fraction, 0.3 for 30%"
        elif isinstance(value, str) and "," in value:
            hint = "; write a decimal point, not a comma"
        return f"{key or 'the file'} is {value!r}; expected {' or '.join(_KIND_NAMES[k] for k in kinds)}{hint}{meaning}"
    if error.validator in _LIMITS:
        return f"{key} is {value!r}; must be {_LIMITS[error.validator]} {limit}{meaning}"
    if error.validator in ("minItems", "maxItems"):
        return f"{key} has {len(value)} values; expected {_size(schema)}{meaning}"
    if error.validator in ("minProperties", "maxProperties"):
        found = f"keys {', '.join(map(str, value))}" if value else "no key"
        return (
            f"{key} has {found}; expected exactly one of {', '.join(schema.get('properties', {})) or 'them'}{meaning}"
        )
    if error.validator in ("oneOf", "anyOf") and all(set(option) == {"required"} for option in limit):
        return f"{key}: give one of {', '.join(option['required'][0] for option in limit)}, and not both{meaning}"
    return f"{key} is {value!r}, which doesn't fit{meaning or ': ' + error.message}"


_KIND_NAMES = {
    "object": "keys below it",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
}
_LIMITS = {
    "minimum": "at least",
    "maximum": "at most",
    "exclusiveMinimum": "above",
    "exclusiveMaximum": "below",
}


def _size(schema: dict[str, Any]) -> str:
    low, high = schema.get("minItems"), schema.get("maxItems")
    return str(low) if low == high else f"{low or 0} to {high}" if high else f"at least {low}"
