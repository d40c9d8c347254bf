"""A recipe as a tree of steps, and what a step makes of a box of voxels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from voxloom.annotate import COMBINATIONS, STEPS, every_value, marked
from voxloom.blocks import Readable, Shape, Slices
from voxloom.budget import Layout, blocks_within, shard_shape
from voxloom.instances import Filtered, slab_layout
from voxloom.levels import bins_of
from voxloom.recipe_check import Recipe
from voxloom.volume import Vector


class Volume(Readable, Protocol):
    """A volume that is read by slicing and tells its type before."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values."""


@dataclass(frozen=True)
class Node:
    """One step, and what it works on: the step before it (None: the image), and a second recipe's last step."""

    number: str
    name: str
    settings: Mapping[str, Any]
    before: Node | None
    other: Node | None = None

    @property
    def is_global(self) -> bool:
        """Whether a voxel's result depends on the whole volume."""
        return self.other is None and STEPS[self.name].is_global


@dataclass
class Run:
    """The volumes and settings of a run, as far as they are known."""

    image: Volume
    spacing_um: Vector
    memory_mib: float
    threads: int
    stored: dict[str, Volume] = field(default_factory=dict)  # masks after global steps, by the step's number
    levels: dict[str, dict[str, Any]] = field(default_factory=dict)
    filtered: dict[str, Filtered] = field(default_factory=dict)

    def settings(self, node: Node) -> Mapping[str, Any]:
        """The step's settings, with grey values for levels."""
        return self.levels.get(node.number, node.settings)


def nodes_of(recipe: Recipe, prefix: str = "") -> list[Node]:
    """The steps of a recipe as a chain; boxes to ignore are no part of it."""
    nodes: list[Node] = []
    for position, step in enumerate(recipe, 1):
        ((name, settings),) = step.items()
        before = nodes[-1] if nodes else None
        number = f"{prefix}{position}"
        if name in COMBINATIONS:
            nodes.append(Node(number, name, {}, before, nodes_of(settings, f"{number}.")[-1]))
        elif name != "ignore":
            nodes.append(Node(number, name, settings, before))
    return nodes


def in_order(node: Node | None) -> Iterator[Node]:
    """Every step that a step depends on, and itself last."""
    if node is not None:
        yield from in_order(node.before)
        yield from in_order(node.other)
        yield node


def sources_of(node: Node | None, run: Run) -> dict[str, Volume]:
    """The volumes that a step's mask is computed from, by name."""
    if node is None:
        return {"image": run.image}
    if node.number in run.stored:
        return {node.number: run.stored[node.number]}
    return sources_of(node.before, run) | (sources_of(node.other, run) if node.other else {})


def reach_of(node: Node | None, run: Run) -> Shape:
    """Voxels of context that a step needs of its sources: what its own and the steps before it look around."""
    if node is None or node.number in run.stored:
        return (0, 0, 0)
    before = reach_of(node.before, run)
    if node.other is not None:
        z, y, x = (max(pair) for pair in zip(before, reach_of(node.other, run), strict=True))
        return z, y, x
    own = STEPS[node.name].reach_voxels(spacing_um=run.spacing_um, **run.settings(node))
    return before[0] + own[0], before[1] + own[1], before[2] + own[2]


def bytes_per_voxel(node: Node | None, run: Run) -> float:
    """Bytes a voxel, at most, while a step is worked out, beside its sources."""
    if node is None:
        return 0
    if node.number in run.stored:
        return 1
    before = bytes_per_voxel(node.before, run)
    if node.other is not None:
        return max(before, 1 + bytes_per_voxel(node.other, run), 3)
    if node.name == "smooth":
        return max(before, 9)  # its input (a mask, or smoothed already), the result, a comparison
    return max(before, 4)  # masks in and out, and their bits


def evaluate(node: Node | None, run: Run, arrays: dict[str, NDArray[Any]], first_voxel: Shape) -> NDArray[Any]:
    """What a step makes of a box: right where the box holds the step's context, or ends where the volume does."""
    if node is None:
        return arrays["image"]
    if node.number in run.stored:
        stored: NDArray[np.bool_] = arrays[node.number] != 0
        return stored
    if bins_of(run.image.dtype) is not None and _is_of_greys(node, run):
        return marked(arrays["image"], _apply(node, run, {"image": every_value(run.image.dtype)}, first_voxel))
    return _apply(node, run, arrays, first_voxel)


def _is_of_greys(node: Node, run: Run) -> bool:
    """Whether a mask depends on a voxel's grey value alone: any number of thresholds is then looked up as one."""
    if node.other is not None:
        return all(
            n is not None and n.number not in run.stored and _is_of_greys(n, run) for n in (node.before, node.other)
        )
    return node.name == "threshold" and node.before is None


def _apply(node: Node, run: Run, arrays: dict[str, NDArray[Any]], first_voxel: Shape) -> NDArray[Any]:
    """A step on what the steps before it make of a box."""
    array = evaluate(node.before, run, arrays, first_voxel)
    if node.other is not None:
        return COMBINATIONS[node.name](array, evaluate(node.other, run, arrays, first_voxel))
    settings = dict(run.settings(node))
    if node.name == "keep":
        settings["first_voxel"] = first_voxel
    return STEPS[node.name].apply(array, spacing_um=run.spacing_um, **settings)


def first_of(read: Slices) -> Shape:
    """The first voxel of a box."""
    return read[0].start, read[1].start, read[2].start


def layout(node: Node | None, run: Run, out: Any) -> Layout:
    """The blocks of a pass over the sources of a step."""
    item = sum(source.dtype.itemsize for source in sources_of(node, run).values())
    return blocks_within(
        run.image.shape,
        bytes_per_voxel=item
        + bytes_per_voxel(node, run)
        + 4,  # the result, and copies on their way to and from the store
        memory_mib=run.memory_mib,
        halo_voxels=reach_of(node, run),
        align=shard_shape(out),
        threads=run.threads,
    )


def layouts(nodes: list[Node], run: Run, out: Volume) -> Iterator[Layout]:
    """The blocks of every pass that a recipe makes over a volume, known before any is made.

    Parameters
    ----------
    nodes : list of Node
        From `nodes_of`.
    run : Run
        Of the image; masks that are stored between passes are entered.
    out : Volume
        The annotation; masks between passes are stored alike.

    Yields
    ------
    layout : Layout

    Raises
    ------
    VolumeError
        If the budget doesn't hold one block of a pass.
    """
    for node in in_order(nodes[-1]):
        if has_unknown_levels(node):
            yield layout(node.before, run, run.image)
        if node.is_global:
            yield layout(node.before, run, out)
            yield slab_layout(run.image.shape, out, memory_mib=run.memory_mib, threads=run.threads)
            run.stored[node.number] = out
    yield layout(nodes[-1], run, out)


def has_unknown_levels(node: Node) -> bool:
    """Whether a step is a threshold at a percentile or Otsu's, which a pass over the image has to find."""
    if node.name != "threshold":
        return False
    ((_, given),) = node.settings.items()
    return any(isinstance(level, str) for level in (given if isinstance(given, list | tuple) else [given]))


def in_words(node: Node, run: Run) -> str:
    """The step and its settings, as a figure's label."""
    if node.other is not None:
        return f"{node.name} ({', '.join(in_words(inner, run) for inner in in_order(node.other))})"
    settings = dict(node.settings)
    if node.name == "threshold":
        ((key, given),) = settings.items()
        return f"{key} {_levels_in_words(given, run.settings(node)[key])}"
    if node.name == "remove_small_objects":
        in_voxels = "min_size_voxels" in settings
        return (
            f"remove < {settings['min_size_voxels']} voxels"
            if in_voxels
            else f"remove < {settings['min_size_um3']:g} µm³"
        )
    if node.name == "keep":
        return "keep " + ", ".join(f"{key[0]} {first:g}–{last:g} µm" for key, (first, last) in settings.items())
    lengths = [f"{settings[key]:g} µm" for key in STEPS[node.name].lengths]
    return " ".join([node.name.replace("_", " "), *lengths])


def _levels_in_words(given: Any, found: Any) -> str:
    """Levels as the recipe has them, followed by the grey values that were found for them."""
    pairs = zip(given, found, strict=True) if isinstance(found, list) else [(given, found)]
    return " and ".join(f"{level} = {value:.5g}" if isinstance(level, str) else f"{level:g}" for level, value in pairs)
