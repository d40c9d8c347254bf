"""The file that holds a plan: choices beside their reasons, and how they complete a model's settings.

Imported while the Snakefile is parsed, so it needs nothing but the standard library and PyYAML.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from voxloom.config import AUTO, GIVEN, check
from voxloom.errors import ConfigError
from voxloom.yaml_file import read_yaml

PLANNED_FROM = ("batch_size", "epochs", "input", "max_minutes", "samples_per_epoch")
"""What a model says itself and a plan makes room for, beside the optimiser's name; no other key moves the plan."""

HEADER = """\
# Made by rule plan for the task {task}: how its models with `network: auto` are trained, and why.
# To change a choice, copy this file to config/plans/mine.yaml, edit its values there, and write
# `plan: config/plans/mine.yaml` into the task file. What a model in the task file says itself wins over both.
# The plan knows sizes, voxel sizes and labels; grey values' statistics come from training boxes alone, at training.
"""


def is_auto(settings: Mapping[str, Any]) -> bool:
    """Whether a model of a checked task file waits for a plan.

    Parameters
    ----------
    settings : mapping
        A model's settings as `voxloom.config.read_tasks` gives them.

    Returns
    -------
    is_auto : bool
    """
    return GIVEN in settings


def to_plan(models: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The models that wait for a plan, with nothing of their settings but what a plan depends on.

    Parameters
    ----------
    models : mapping of str to mapping
        By name, as `voxloom.config.read_tasks` gives them.

    Returns
    -------
    models : dict of str to dict
    """
    return {
        name: {
            "network": settings["network"],
            "precision": settings["precision"],
            "learn_from": settings["learn_from"],
            GIVEN: _planned_from(settings[GIVEN]),
        }
        for name, settings in models.items()
        if is_auto(settings)
    }


def _planned_from(given: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: given[key] for key in PLANNED_FROM if key in given}
    name = given.get("optimiser", {}).get("name")
    return {**kept, "optimiser": {"name": name}} if name else kept


def write_plan(path: str | Path, plan: Mapping[str, Any]) -> None:
    """Write a plan.

    Parameters
    ----------
    path : str or Path
    plan : mapping
        ``task``, ``machine`` and ``models``, from `voxloom.plan.plan_task`.
    """
    text = yaml.safe_dump(dict(plan), sort_keys=False, allow_unicode=True, width=110)
    Path(path).write_text(HEADER.format(task=plan["task"]) + text, encoding="utf-8")


def read_plan(path: str | Path) -> dict[str, Any]:
    """Read a plan, as written or as edited.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    plan : dict

    Raises
    ------
    ConfigError
        If it isn't a plan; names the file and the key.
    """
    plan = read_yaml(path)
    models = plan.get("models") if isinstance(plan, dict) else None
    if not isinstance(models, dict):
        raise ConfigError(f"{path} has no key models: it is no plan; copy results/plans/<task>.yaml and edit that")
    for model, planned in models.items():
        choices = planned.get("choices") if isinstance(planned, dict) else None
        if not isinstance(choices, dict):
            raise ConfigError(f"{path}: models.{model}.choices is missing; copy results/plans/<task>.yaml again")
        for key, choice in choices.items():
            if not isinstance(choice, dict) or "value" not in choice:
                raise ConfigError(
                    f"{path}: models.{model}.choices.{key} is {choice!r}; expected a value (and a reason) below it"
                )
    return plan


def choices_of(plan: Mapping[str, Any], model: str, *, path: str | Path) -> dict[str, dict[str, Any]]:
    """What a plan chose for a model.

    Parameters
    ----------
    plan : mapping
        From `read_plan`.
    model : str
    path : str or Path
        Of the plan, for the message.

    Returns
    -------
    choices : dict of str to dict
        By dotted key: ``value`` and ``reason``.

    Raises
    ------
    ConfigError
        If the plan has no such model.
    """
    if model not in plan["models"]:
        known = ", ".join(sorted(plan["models"])) or "none"
        raise ConfigError(f"{path} has no plan for the model {model!r}, only for: {known}; add models.{model} to it")
    return dict(plan["models"][model]["choices"])


def resolved(settings: Mapping[str, Any], choices: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Complete settings of a model: the schema's defaults, the plan's choices over them, the user's own keys on top.

    Parameters
    ----------
    settings : mapping
        Of a model that `is_auto`.
    choices : mapping of str to mapping
        By dotted key; their ``value`` is read.

    Returns
    -------
    complete : dict

    Examples
    --------
    >>> model = {"batch_size": 1, "epochs": 10, "given": {"epochs": 3}}
    >>> resolved(model, {"batch_size": {"value": 4}, "epochs": {"value": 20}})
    {'batch_size': 4, 'epochs': 3}
    """
    complete = {key: copy.deepcopy(value) for key, value in settings.items() if key != GIVEN}
    has_terms = bool(settings[GIVEN].get("loss", {}).get("terms"))
    for key, choice in choices.items():
        if key != "loss.name" or not has_terms:  # terms are the whole loss
            _merge(complete, _nested(key, choice["value"]))
    _merge(complete, settings[GIVEN])
    return complete


def _nested(key: str, value: Any) -> dict[str, Any]:
    first, _, rest = key.partition(".")
    return {first: _nested(rest, value) if rest else copy.deepcopy(value)}


def _merge(into: dict[str, Any], other: Mapping[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = copy.deepcopy(value)


def resolved_models(models: Mapping[str, Mapping[str, Any]], path: str | Path | None) -> dict[str, dict[str, Any]]:
    """Complete settings of models, some of which may wait for a plan.

    Parameters
    ----------
    models : mapping of str to mapping
        By name, as `voxloom.config.read_tasks` gives them.
    path : str or Path or None
        The task's plan; nothing (None, or an empty list) where no model waits for one.

    Returns
    -------
    complete : dict of str to dict
    """
    plan = read_plan(path) if path else {}
    return {
        name: resolved(settings, choices_of(plan, name, path=str(path))) if is_auto(settings) else dict(settings)
        for name, settings in models.items()
    }


def plan_of(model: str, path: str | Path | None) -> dict[str, Any] | None:
    """What of a task's plan is a model's.

    Parameters
    ----------
    model : str
    path : str or Path or None
        The task's plan; nothing (None, or an empty list) where the model doesn't wait for one.

    Returns
    -------
    plan : dict or None
        For `write_plan`.
    """
    if not path:
        return None
    plan = read_plan(path)
    return {**plan, "models": {model: plan["models"][model]}}


def check_plans(tasks: Mapping[str, Mapping[str, Any]], schema: Mapping[str, Any]) -> None:
    """Check the edited plans that task files name, before anything runs.

    Parameters
    ----------
    tasks : mapping of str to mapping
        From `voxloom.config.read_tasks`.
    schema : mapping
        The task's schema.

    Raises
    ------
    ConfigError
        If a plan isn't there, lacks a model, or chooses what isn't a setting; names the file, the key and the value.
    """
    of_model = {**schema["$defs"]["model"], "$defs": schema["$defs"]}
    for task in tasks.values():
        if task["plan"] is None:
            continue
        waiting = {name: settings for name, settings in task["models"].items() if is_auto(settings)}
        for settings in resolved_models(waiting, task["plan"]).values():
            check(settings, of_model, name=task["plan"])


def shown(models: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Models as their task file has them, where the defaults that a plan replaces would mislead.

    Parameters
    ----------
    models : mapping of str to mapping
        By name, as `voxloom.config.read_tasks` gives them.

    Returns
    -------
    models : dict of str to dict
    """
    return {
        name: {"description": "", **settings[GIVEN], "network": AUTO} if is_auto(settings) else dict(settings)
        for name, settings in models.items()
    }
