"""Carries out an annotation recipe on a stored volume of any size, in bounded memory.

Steps that look only a few voxels around them are fused: each block of the image is read once, with the context that
they need together, and goes through all of them. A step that depends on the whole volume ends such a pass: a level
that is a percentile or Otsu's takes a histogram first, and removing small objects or filling holes works on a scratch
copy of the mask, slab by slab. The result is the same for every block and slab size, and equals that of `annotate`.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxloom import instances, io, levels
from voxloom.annotate import COMBINATIONS, STEPS, box_voxels, size_voxels
from voxloom.blocks import Block, Slices, Writable, grid, map_blocks, reduce_blocks
from voxloom.budget import Layout, blocks_within, shard_shape
from voxloom.errors import ConfigError, VolumeError
from voxloom.kernels import compiled
from voxloom.recipe_check import Recipe, check_recipe
from voxloom.recipe_plan import (
    Node,
    Run,
    Volume,
    evaluate,
    first_of,
    has_unknown_levels,
    in_order,
    in_words,
    layout,
    nodes_of,
    reach_of,
    sources_of,
)
from voxloom.volume import IGNORE, Vector, join_annotation

LOGGER = logging.getLogger("voxloom")


@dataclass(frozen=True)
class StepMask:
    """What a step left of one slice.

    Parameters
    ----------
    step : str
        The step and its settings in words, such as "grow 4 um".
    mask : ndarray of bool, shape (Y, X)
    """

    step: str
    mask: NDArray[np.bool_]


@dataclass(frozen=True)
class TracedSlice:
    """One slice on its way through the recipe.

    Parameters
    ----------
    z : int
        Number of the slice.
    image : ndarray, shape (Y, X)
        Its grey values.
    steps : tuple of StepMask
        The mask after each step, in order.
    codes : ndarray of uint8, shape (Y, X)
        What was stored: 0 background, 1 foreground, 255 ignore.
    """

    z: int
    image: NDArray[Any]
    steps: tuple[StepMask, ...]
    codes: NDArray[np.uint8]


@dataclass(frozen=True)
class Annotated:
    """What a recipe did to a volume.

    Parameters
    ----------
    levels : dict of str to dict
        For each threshold, by the number of its step, the grey values that its levels stand for.
    filtered : dict of str to Filtered
        For each step that works on whole objects, by its number, what it changed.
    foreground_voxels : ndarray of int64, shape (Z,)
        Of each slice.
    depth_voxels : ndarray of int32, shape (Y, X)
        Number of the first slice with foreground, -1 where there is none: the mask as seen along Z.
    slices : tuple of TracedSlice
        The slice with the most foreground and that with the median amount; fewer if they are the same or all is empty.
        The middle one where the recipe ignores the whole volume.
    """

    levels: dict[str, dict[str, Any]]
    filtered: dict[str, instances.Filtered]
    foreground_voxels: NDArray[np.int64]
    depth_voxels: NDArray[np.int32]
    slices: tuple[TracedSlice, ...]


def annotate(image: NDArray[Any], recipe: Recipe, *, spacing_um: Vector) -> NDArray[np.uint8]:
    """Apply a recipe to an image in memory, one step after the other.

    Parameters
    ----------
    image : ndarray, shape (Z, Y, X)
        Grey values. Not modified.
    recipe : sequence of mapping
        Steps in order, each a mapping of one key.
    spacing_um : tuple of float
        Voxel edge lengths along (Z, Y, X), in micrometres.

    Returns
    -------
    codes : ndarray of uint8, shape (Z, Y, X)
        0 background, 1 foreground, 255 in the boxes of the recipe's ignore steps, wherever in the recipe they stand.

    Raises
    ------
    ConfigError
        If a step can't be done; names the step, the key and the value.

    Examples
    --------
    >>> image = np.array([[[10, 90, 20, 10, 30]]], np.uint8)
    >>> recipe = [{"threshold": {"below": 25}}, {"remove_small_objects": {"min_size_voxels": 2}}]
    >>> annotate(image, recipe, spacing_um=(1.0, 1.0, 1.0))
    array([[[0, 0, 1, 1, 0]]], dtype=uint8)
    """
    check_recipe(recipe, shape=image.shape, spacing_um=spacing_um)
    ignored = np.zeros(image.shape, np.bool_)
    for step in recipe:
        if "ignore" in step:
            ignored[box_voxels(image.shape, spacing_um=spacing_um, **step["ignore"])] = True
    return join_annotation(_mask_by(image, recipe, spacing_um), ignored)


def _mask_by(image: NDArray[Any], recipe: Recipe, spacing_um: Vector) -> NDArray[np.bool_]:
    array: NDArray[Any] = image
    for step in recipe:
        ((name, settings),) = step.items()
        if name in COMBINATIONS:
            array = COMBINATIONS[name](array, _mask_by(image, settings, spacing_um))
        elif name != "ignore":
            array = STEPS[name].apply(array, spacing_um=spacing_um, **settings)
    return array


def annotate_volume(
    image: Volume,
    out: Writable,
    recipe: Recipe,
    *,
    spacing_um: Vector,
    memory_mib: float,
    threads: int = 1,
    scratch_directory: str | Path,
) -> Annotated:
    """Apply a recipe to a stored image.

    Parameters
    ----------
    image : volume, shape (Z, Y, X)
        Grey values, read by slicing.
    out : volume of uint8, shape (Z, Y, X)
        Written and read back by slicing: 0 background, 1 foreground, 255 in the boxes of the recipe's ignore steps,
        wherever in the recipe they stand.
    recipe : sequence of mapping
        Steps in order, each a mapping of one key.
    spacing_um : tuple of float
        Voxel edge lengths along (Z, Y, X), in micrometres.
    memory_mib : float
        Budget for the blocks in work, in MiB.
    threads : int
        Blocks in work at a time, fewer where the budget holds fewer.
    scratch_directory : str or Path
        Where masks between two passes are kept, each about as large as `out`; removed at the end. In the folder of a
        volume that resumes (`io.VolumeWriter.folder`) they stay until it is complete, and an interrupted run goes on
        at the block in every pass.

    Returns
    -------
    annotated : Annotated
        Levels, counts and typical slices, for the log and the figure.

    Raises
    ------
    ConfigError
        If a step can't be done; names the step, the key and the value.
    VolumeError
        If the image has channels, or the budget doesn't hold one block.

    Notes
    -----
    Objects that the volume's border cuts are treated like others, nothing lies beyond the border, and smoothing
    mirrors there.
    """
    if len(image.shape) != 3:
        raise VolumeError(f"a recipe takes an image of shape (Z, Y, X), got {image.shape}; convert one channel of it")
    check_recipe(recipe, shape=image.shape, spacing_um=spacing_um)
    nodes = nodes_of(recipe)
    ignored = [box_voxels(image.shape, spacing_um=spacing_um, **s["ignore"]) for s in recipe if "ignore" in s]
    with contextlib.ExitStack() as scratch:
        run = Run(image, spacing_um, memory_mib, threads)
        for node in in_order(nodes[-1]):
            _prepare(node, run, scratch, scratch_directory)

        def codes(mask: NDArray[np.bool_], read: Slices) -> NDArray[np.uint8]:
            values = mask.view(np.uint8)
            for box in ignored:
                values[_inside(box, read)] = IGNORE
            return values

        _write(nodes[-1], run, out, codes, "annotate, block")
        foreground, depth = _look_through(out, image.shape, memory_mib)
        shown = _typical_slices(foreground)
        if not shown and any(_is_whole(box, image.shape) for box in ignored):
            shown = [image.shape[0] // 2]  # nothing was to be annotated
        slices = tuple(_trace(z, nodes, run, out) for z in shown)
    return Annotated(run.levels, run.filtered, foreground, depth, slices)


def summarise(image: Volume, codes: Volume, *, memory_mib: float) -> Annotated:
    """Counts and typical slices of an annotation that no recipe made.

    Parameters
    ----------
    image : volume, shape (Z, Y, X)
        Grey values.
    codes : volume of uint8, shape (Z, Y, X)
        0 background, 1 foreground, 255 not annotated.
    memory_mib : float
        Budget for the blocks in work, in MiB.

    Returns
    -------
    annotated : Annotated
        Without levels and steps.
    """
    foreground, depth = _look_through(codes, image.shape, memory_mib)
    slices = (TracedSlice(z, image[z : z + 1][0], (), codes[z : z + 1][0]) for z in _typical_slices(foreground))
    return Annotated({}, {}, foreground, depth, tuple(slices))


def _prepare(node: Node, run: Run, scratch: contextlib.ExitStack, directory: str | Path) -> None:
    """Find out what a step needs to know of the whole volume."""
    if node.name == "threshold":
        _find_levels(node, run, directory)
    if not node.is_global:
        return
    volume: dict[str, Any] = {"shape": run.image.shape, "dtype": np.uint8}
    store = scratch.enter_context(io.scratch_volume(directory, name=node.number, **volume))
    options = {
        "connectivity": node.settings.get("connectivity", 6),
        "memory_mib": run.memory_mib,
        "threads": run.threads,
        "keep": io.keep_results(directory, f"objects-{node.number}"),
    }
    with io.scratch_volume(directory, name=f"{node.number}-before", **volume) as mask:
        _write(node.before, run, mask, lambda mask, read: mask.view(np.uint8), f"mask before {node.name}, block")
        if node.name == "fill_holes":
            filtered = instances.fill_holes_volume(mask, store, **options)
        else:
            sizes = {key: value for key, value in node.settings.items() if key != "connectivity"}
            least = size_voxels(spacing_um=run.spacing_um, **sizes)
            filtered = instances.remove_small_objects_volume(mask, store, min_size_voxels=least, **options)
    LOGGER.info(
        "step %s, %s: %d of %d objects, %d voxels",
        node.number,
        node.name,
        filtered.changed_objects,
        filtered.objects,
        filtered.changed_voxels,
    )
    run.filtered[node.number] = filtered
    run.stored[node.number] = store


def _find_levels(node: Node, run: Run, directory: str | Path) -> None:
    """Turn percentiles and Otsu's threshold into grey values, by one or two passes over what the threshold sees."""
    ((key, given),) = node.settings.items()
    wanted = list(given) if key == "between" else [given]
    if has_unknown_levels(node):
        dtype = np.dtype(np.float32) if node.before is not None else run.image.dtype
        try:
            bins = levels.bins_of(dtype)
            if bins is None:
                keep = io.keep_results(directory, f"range-{node.number}")
                ranges = [r for _, r in _reduce(node.before, run, levels.grey_range, "grey range, block", keep)]
                smallest, largest = float(min(r[0] for r in ranges)), float(max(r[1] for r in ranges))
                bins = levels.bins_between(smallest, largest, is_integer=dtype.kind in "iu")
            counts = np.zeros(bins.count, np.int64)
            keep = io.keep_results(directory, f"histogram-{node.number}")
            parts = _reduce(node.before, run, lambda v: (levels.count_values(v, bins),), "histogram, block", keep)
            for _, (part,) in parts:
                counts += part
            wanted = [levels.resolve(level, counts, bins) for level in wanted]
        except VolumeError as error:
            error.add_note(f"in step {node.number} of the recipe, threshold: {key} is {given}")
            raise
        LOGGER.info("step %s, threshold: %s %s is %s", node.number, key, given, wanted)
    if key == "between" and not wanted[0] < wanted[1]:
        raise ConfigError(
            f"step {node.number} of the recipe, threshold: between is {given}, on this image [{wanted[0]:g}, "
            f"{wanted[1]:g}], but the first level must be smaller than the second; swap them or move them apart"
        )
    run.levels[node.number] = {key: wanted if key == "between" else wanted[0]}


Finish = Callable[[NDArray[np.bool_], Slices], NDArray[np.uint8]]
"""From a mask and the box that it covers to what is stored."""


def _write(node: Node | None, run: Run, out: Writable, finish: Finish, description: str) -> None:
    """One pass: a step's mask by blocks, each handed to `finish` before it is written."""
    volumes = sources_of(node, run)

    def work(*arrays: NDArray[Any], block: Block) -> NDArray[np.uint8]:
        mask = evaluate(node, run, dict(zip(volumes, arrays, strict=True)), first_of(block.read))
        return finish(mask, block.read)

    map_blocks(work, *volumes.values(), out=out, description=description, **layout(node, run, out).grid)


def _reduce(
    node: Node | None, run: Run, function: Callable[[NDArray[Any]], tuple[Any, ...]], description: str, keep: io.Kept
) -> Iterator[tuple[Block, tuple[NDArray[Any], ...]]]:
    """One pass: numbers or arrays of what a step leaves in each block's core."""
    volumes = sources_of(node, run)

    def work(*arrays: NDArray[Any], block: Block) -> Any:
        values = evaluate(node, run, dict(zip(volumes, arrays, strict=True)), first_of(block.read))
        return function(values[block.inner])

    blocks = layout(node, run, run.image).grid
    return reduce_blocks(work, *volumes.values(), description=description, keep=keep, **blocks)


def _inside(box: Slices, read: Slices) -> Slices:
    """A box of the volume in the coordinates of a part that was read."""
    return tuple(
        slice(min(max(b.start, r.start), r.stop) - r.start, min(max(b.stop, r.start), r.stop) - r.start)
        for b, r in zip(box, read, strict=True)
    )


def _is_whole(box: Slices, shape: Sequence[int]) -> bool:
    return all(axis.start <= 0 and axis.stop >= size for axis, size in zip(box, shape, strict=True))


def _look_through(codes: Any, shape: tuple[int, ...], memory_mib: float) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Foreground voxels of each slice, and the first slice with foreground along each line of sight."""
    foreground = np.zeros(shape[0], np.int64)
    depth = np.full(shape[1:], -1, np.int32)

    def look(values: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        counts, first = np.zeros(len(values), np.int64), np.full(values.shape[1:], shape[0], np.int32)
        _look(values, counts, first)
        return counts, first

    for block, (counts, first) in reduce_blocks(look, codes, **look_layout(codes, shape, memory_mib).grid):
        z, y, x = block.core
        foreground[z] += counts
        seen = depth[y, x]  # a view; blocks come in the order of z
        is_new = (seen < 0) & (first < shape[0])
        seen[is_new] = first[is_new] + z.start
    return foreground, depth


@compiled
def _look(codes, counts, first):  # type: ignore[no-untyped-def]
    """Foreground voxels of each slice, and the first slice with foreground along each line of sight."""
    depth, height, width = codes.shape
    for z in range(depth):
        for y in range(height):
            found = 0
            for x in range(width):
                is_foreground = codes[z, y, x] == 1
                found += is_foreground
                first[y, x] = min(first[y, x], z if is_foreground else first[y, x])
            counts[z] += found


def look_layout(codes: Any, shape: tuple[int, ...], memory_mib: float) -> Layout:
    """The blocks by which a finished annotation is looked through.

    Parameters
    ----------
    codes : volume of uint8
        Its ``shard_shape`` counts where it has one.
    shape : tuple of int
        (Z, Y, X).
    memory_mib : float
        Budget, in MiB.

    Returns
    -------
    layout : Layout

    Raises
    ------
    VolumeError
        If the budget doesn't hold one block.
    """
    return blocks_within(shape, bytes_per_voxel=4, memory_mib=memory_mib, align=shard_shape(codes), threads=1)


def _typical_slices(foreground_voxels: NDArray[np.int64]) -> list[int]:
    """The slice with the most foreground, and the one with the median amount among those that have any."""
    if not foreground_voxels.any():
        return []
    order = np.argsort(foreground_voxels, kind="stable")
    order = order[foreground_voxels[order] > 0]
    return list(dict.fromkeys([int(order[-1]), int(order[order.size // 2])]))


def _trace(z: int, nodes: list[Node], run: Run, out: Any) -> TracedSlice:
    """Work out one slice again, step by step, from the same sources."""
    depth, height, width = run.image.shape
    masks = []
    for node in nodes[[n.name for n in nodes].index("threshold") :]:
        halo = reach_of(node, run)
        slab = slice(max(z - halo[0], 0), min(z + halo[0] + 1, depth))
        mask = np.empty((height, width), np.bool_)
        for tile in grid((height, width), (512, 512), halo_voxels=halo[1:]):
            read = (slab, *tile.read)
            arrays = {name: source[read] for name, source in sources_of(node, run).items()}
            mask[tile.core] = evaluate(node, run, arrays, first_of(read))[z - slab.start][tile.inner]
        masks.append(StepMask(in_words(node, run), mask))
    return TracedSlice(z, run.image[z : z + 1][0], tuple(masks), out[z : z + 1][0])
