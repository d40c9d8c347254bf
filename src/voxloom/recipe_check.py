"""What is wrong with a recipe before it runs on a volume: its steps' order, and settings that no schema can judge."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from voxloom.annotate import COMBINATIONS, STEPS, size_voxels
from voxloom.distance import GROW_MODES
from voxloom.errors import ConfigError
from voxloom.instances import CONNECTIVITIES
from voxloom.volume import Vector

Recipe = Sequence[Mapping[str, Any]]
"""Steps in order, each a mapping of one key, as a task file holds them (workflow/schemas/task.schema.yaml)."""

_BOX = STEPS["keep"].keys


def check_recipe(recipe: Recipe, *, shape: Sequence[int], spacing_um: Vector) -> None:
    """Refuse a recipe that can't be done on a volume.

    Parameters
    ----------
    recipe : sequence of mapping
        Steps in order, each a mapping of one key.
    shape : sequence of int
        The volume's (Z, Y, X).
    spacing_um : tuple of float
        Voxel edge lengths along (Z, Y, X), in micrometres.

    Raises
    ------
    ConfigError
        Names the step's number (2.1 is the first step of the recipe in step 2), the key and the value.
    """
    _check_steps(recipe, "", tuple(shape), spacing_um)


def _check_steps(recipe: Recipe, prefix: str, shape: tuple[int, ...], spacing_um: Vector) -> None:
    has_mask = False
    for position, step in enumerate(recipe, 1):
        number = f"{prefix}{position}"
        if not isinstance(step, Mapping) or len(step) != 1:
            raise ConfigError(
                f"step {number} of the recipe must be one key with its settings, such as 'threshold: {{above: 120}}', "
                f"got {step!r}"
            )
        ((name, settings),) = step.items()
        at = f"step {number} of the recipe, {name}"
        known = [*STEPS, *COMBINATIONS, "ignore"]
        if name not in known:
            raise ConfigError(f"step {number} of the recipe is {name!r}, which is unknown; known: {', '.join(known)}")
        _check_order(name, at, has_mask, is_inner=bool(prefix))
        if name in COMBINATIONS:
            _check_steps(settings, f"{number}.", shape, spacing_um)
            continue
        keys = _BOX if name == "ignore" else STEPS[name].keys
        for key in settings:
            if key not in keys:
                raise ConfigError(f"{at}: unknown key {key!r}; known: {', '.join(keys)}")
        _check_settings(name, settings, at, shape, spacing_um)
        has_mask = has_mask or name == "threshold"
    if not has_mask:
        where = f"the recipe in step {prefix[:-1]}" if prefix else "the recipe"
        raise ConfigError(
            f"{where} has no threshold, so it makes no mask; add one, such as 'threshold: {{above: 120}}'"
        )


def _check_order(name: str, at: str, has_mask: bool, *, is_inner: bool) -> None:
    takes = "mask" if name in COMBINATIONS else "either" if name == "ignore" else STEPS[name].takes
    if takes == "mask" and not has_mask:
        raise ConfigError(f"{at}: works on a mask, but no threshold comes before it; move it behind a threshold")
    if takes == "image" and has_mask:
        raise ConfigError(
            f"{at}: there is a mask already; put this threshold under intersect, union or subtract, each of which "
            "begins from the image again"
        )
    if name == "ignore" and is_inner:
        raise ConfigError(f"{at}: means nothing inside another step; move it to the outer recipe")


def _check_settings(
    name: str, settings: Mapping[str, Any], at: str, shape: tuple[int, ...], spacing_um: Vector
) -> None:
    edges_um = [size * spacing for size, spacing in zip(shape, spacing_um, strict=True)]
    if name in ("keep", "ignore"):
        _check_box(settings, at, edges_um)
        return
    for key in STEPS[name].lengths:
        length = settings.get(key)
        if length is None:
            raise ConfigError(f"{at}: {key} is missing; give it in micrometres")
        if not 0 < length <= max(edges_um):
            raise ConfigError(
                f"{at}: {key} is {length}, but must be above 0 and at most the volume's longest edge, "
                f"{max(edges_um):g} um; lengths are micrometres, not voxels or nanometres"
            )
    if settings.get("connectivity", 6) not in CONNECTIVITIES:
        raise ConfigError(f"{at}: connectivity is {settings['connectivity']}, but must be 6, 18 or 26")
    if settings.get("mode", "exact") not in GROW_MODES:
        raise ConfigError(f"{at}: mode is {settings['mode']!r}, but must be {' or '.join(GROW_MODES)}")
    if name == "threshold":
        _check_threshold(settings, at)
    if name == "remove_small_objects":
        _check_size(settings, at, shape, spacing_um)


def _check_threshold(settings: Mapping[str, Any], at: str) -> None:
    if len(settings) != 1:
        raise ConfigError(f"{at}: takes exactly one of above, below and between, got {', '.join(settings) or 'none'}")
    ((key, value),) = settings.items()
    if key == "between" and (isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2):
        raise ConfigError(f"{at}: between takes two levels, [from, to], got {value!r}")
    levels = list(value) if key == "between" else [value]
    percents = [_percent(level, key, at) for level in levels]
    low, high = levels[0], levels[-1]
    if None not in percents:
        low, high = percents[0], percents[-1]
    if key == "between" and not isinstance(low, str) and not isinstance(high, str) and not low < high:
        raise ConfigError(
            f"{at}: between is [{levels[0]}, {levels[1]}], but the first level must be smaller than the second; "
            "swap them"
        )


def _percent(level: float | str, key: str, at: str) -> float | None:
    """The number of a percentile, None for any other level."""
    if not isinstance(level, str) or level == "otsu":
        return None
    if not re.fullmatch(r"p[0-9]+(\.[0-9]+)?", level) or float(level[1:]) > 100:
        raise ConfigError(
            f"{at}: {key} is {level!r}, but a level is a grey value, otsu, or a percentile from p0 to p100, "
            "such as p97.5"
        )
    return float(level[1:])


def _check_size(settings: Mapping[str, Any], at: str, shape: tuple[int, ...], spacing_um: Vector) -> None:
    given = [key for key in ("min_size_voxels", "min_size_um3") if key in settings]
    if len(given) != 1:
        raise ConfigError(f"{at}: takes exactly one of min_size_voxels and min_size_um3, got {len(given)} of them")
    voxels = size_voxels(spacing_um=spacing_um, **{given[0]: settings[given[0]]})
    total = int(shape[0] * shape[1] * shape[2])
    if not settings[given[0]] > 0 or voxels > total:
        raise ConfigError(
            f"{at}: {given[0]} is {settings[given[0]]}, but must be above 0 and at most the volume's {total} voxels"
        )


def _check_box(settings: Mapping[str, Any], at: str, edges_um: Sequence[float]) -> None:
    if not settings:
        raise ConfigError(f"{at}: names no range; give at least one of {', '.join(_BOX)}")
    for key, (first, last) in settings.items():
        edge = edges_um[_BOX.index(key)]
        if not 0 <= first < last or first >= edge:
            raise ConfigError(
                f"{at}: {key} is [{first}, {last}], but must go from a smaller to a larger number and begin inside the "
                f"volume, whose edge is {edge:g} um"
            )
