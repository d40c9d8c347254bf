"""The figure by which a person judges an annotation: what each step of the recipe did, on the image, and the whole."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from voxloom.deferred import Deferred
from voxloom.drawing import enlarged, fill, outline, scale_bar
from voxloom.errors import VolumeError
from voxloom.figures import COLOURS, MUTED, PAGE_WIDTH_IN, new_figure, styled
from voxloom.recipe import Annotated, TracedSlice
from voxloom.volume import IGNORE, Vector

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch
else:
    Patch = Deferred("matplotlib.patches", "Patch")

OUTLINE, REMOVED, ADDED = COLOURS[5], COLOURS[1], COLOURS[2]
WINDOW_VOXELS = 400
"""Larger slices are shown in part: the square of this edge with the most foreground."""
PANEL_PIXELS = 600
PROJECTION_PIXELS = 900


@styled
def annotation_figure(annotated: Annotated, *, spacing_um: Vector, title: str = "") -> Figure:
    """Draw typical slices after every step of a recipe, the mask in depth, and the foreground slice by slice.

    Parameters
    ----------
    annotated : Annotated
        From `voxloom.recipe.annotate_volume`.
    spacing_um : tuple of float
        Voxel edge lengths along (Z, Y, X), in micrometres.
    title : str
        Headline, such as "vessels on cube1".

    Returns
    -------
    figure : Figure
        One row of panels a slice: the image with a scale bar, the mask after each step (outlined; what the step took
        away and added is filled), and what is stored. Below, the foreground seen along Z, nearer is lighter, and the
        foreground of every slice.

    Raises
    ------
    VolumeError
        If there is no foreground to show.
    """
    if not annotated.slices:
        raise VolumeError("the recipe marked no voxel, so there is nothing to show; move its thresholds apart")
    panels = 2 + len(annotated.slices[0].steps)
    columns = -(-panels // -(-panels // 5))
    rows = -(-panels // columns)
    window = [_window(traced) for traced in annotated.slices]
    edge_um = [(w[0].stop - w[0].start) * spacing_um[1] / ((w[1].stop - w[1].start) * spacing_um[2]) for w in window]
    panel_in = PAGE_WIDTH_IN / columns
    heights = [rows * (panel_in * ratio + 0.45) for ratio in edge_um]
    figure = new_figure(PAGE_WIDTH_IN, sum(heights) + 4.2)
    parts: Any = figure.subfigures(len(heights) + 1, 1, height_ratios=[*heights, 3.9])
    for part, traced, at in zip(parts[:-1], annotated.slices, window, strict=True):
        axes = part.subplots(rows, columns, squeeze=False).ravel()
        _draw_slice(axes, traced, at, spacing_um)
    view, profile = parts[-1].subplots(1, 2)
    _draw_projection(view, annotated.depth_voxels, spacing_um)
    _draw_profile(profile, annotated, spacing_um)
    handles = [
        Patch(facecolor="none", edgecolor=OUTLINE, linewidth=1.5, label="mask after the step"),
        Patch(color=REMOVED, label="taken away by the step"),
        Patch(color=ADDED, label="added by the step"),
    ]
    if any((traced.codes == IGNORE).any() for traced in annotated.slices):
        handles.append(Patch(color=MUTED, label="ignore"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    if title:
        figure.suptitle(title)
    return figure


def _window(traced: TracedSlice) -> tuple[slice, slice]:
    """The part of a slice that is shown."""
    height, width = traced.codes.shape
    edge_y, edge_x = min(height, WINDOW_VOXELS), min(width, WINDOW_VOXELS)
    foreground = np.zeros((height + 1, width + 1), np.int64)
    foreground[1:, 1:] = (traced.codes == 1).cumsum(axis=0).cumsum(axis=1)
    inside = foreground[edge_y:, edge_x:] - foreground[:-edge_y, edge_x:] - foreground[edge_y:, :-edge_x]
    inside = inside + foreground[:-edge_y, :-edge_x]
    y, x = (int(n) for n in np.unravel_index(inside.argmax(), inside.shape))
    return slice(y, y + edge_y), slice(x, x + edge_x)


def _draw_slice(axes: NDArray[Any], traced: TracedSlice, window: tuple[slice, slice], spacing_um: Vector) -> None:
    grey = traced.image[window].astype(np.float64)
    darkest, lightest = np.percentile(grey, [0.5, 99.5])
    scale = max(1, PANEL_PIXELS // max(grey.shape))
    grey = enlarged(np.clip((grey - darkest) / max(lightest - darkest, 1e-12), 0, 1), scale)
    picture = np.repeat(grey[:, :, None], 3, axis=2)
    extent = (0, grey.shape[1] / scale * spacing_um[2], grey.shape[0] / scale * spacing_um[1], 0)
    for axis in axes:
        axis.set_axis_off()
    _show(axes[0], picture, extent, f"slice {traced.z}")
    scale_bar(axes[0], extent)
    before: NDArray[np.bool_] | None = None
    for axis, step in zip(axes[1:], traced.steps, strict=False):
        mask = enlarged(step.mask[window], scale)
        panel = picture.copy()
        before = mask if before is None else before
        fill(panel, before & mask, OUTLINE, 0.3)
        fill(panel, before & ~mask, REMOVED, 0.75)
        fill(panel, mask & ~before, ADDED, 0.5)
        fill(panel, outline(mask, scale), OUTLINE, 1.0)
        _show(axis, panel, extent, step.step)
        before = mask
    codes = enlarged(traced.codes[window], scale)
    panel = picture.copy()
    fill(panel, codes == 1, OUTLINE, 0.55)
    fill(panel, codes == IGNORE, MUTED, 0.7)
    _show(axes[1 + len(traced.steps)], panel, extent, "stored annotation")


def _show(axis: Axes, picture: NDArray[np.float64], extent: tuple[float, float, float, float], title: str) -> None:
    axis.imshow(picture, extent=extent, interpolation="nearest")
    axis.set_anchor("S")  # what is left of its place is above, where titles of two lines need it
    axis.set_title(textwrap.fill(title, 24), fontsize=8.5)  # 24 letters are as wide as a fifth of the page


def _draw_projection(axis: Axes, depth_voxels: NDArray[np.int32], spacing_um: Vector) -> None:
    """The mask seen along Z: lit from the upper left, lighter where it is nearer."""
    from scipy import ndimage

    step = max(1, -(-max(depth_voxels.shape) // PROJECTION_PIXELS))
    depth = depth_voxels[::step, ::step]
    is_hit = depth >= 0
    depth_um = np.where(is_hit, depth, depth.max()) * spacing_um[0]  # the farthest; there may be none
    smooth = ndimage.gaussian_filter(depth_um, 1.0)  # the steps between voxels would be all there is to see
    slope_y, slope_x = np.zeros_like(smooth), np.zeros_like(smooth)
    if smooth.shape[0] > 1:
        slope_y = np.gradient(smooth, step * spacing_um[1], axis=0)
    if smooth.shape[1] > 1:
        slope_x = np.gradient(smooth, step * spacing_um[2], axis=1)
    light = (1 + 0.6 * slope_y + 0.6 * slope_x) / np.sqrt(1 + slope_y**2 + slope_x**2) / np.sqrt(1 + 2 * 0.6**2)
    first, last = depth_um.min(), depth_um.max()
    near = 1 - 0.65 * (depth_um - first) / max(last - first, 1e-12)
    tone = (0.25 + 0.75 * np.clip(light, 0, 1)) * near
    picture = np.where(is_hit[:, :, None], tone[:, :, None] * np.array([1.0, 0.93, 0.82]), 0.06)
    extent = (0, depth_voxels.shape[1] * spacing_um[2], depth_voxels.shape[0] * spacing_um[1], 0)
    _show(axis, picture, extent, "foreground seen along z")
    scale_bar(axis, extent)
    axis.set_axis_off()


def _draw_profile(axis: Axes, annotated: Annotated, spacing_um: Vector) -> None:
    share = 100 * annotated.foreground_voxels / annotated.depth_voxels.size
    axis.fill_between(np.arange(share.size), share, step="mid", color=OUTLINE, alpha=0.35, linewidth=0)
    axis.step(np.arange(share.size), share, where="mid", color=COLOURS[0], linewidth=1.2)
    for traced in annotated.slices:
        axis.plot([traced.z], [share[traced.z]], "o", color=COLOURS[1])
        axis.annotate(
            f"slice {traced.z}", (traced.z, share[traced.z]), xytext=(0, 6), textcoords="offset points", ha="center"
        )
    axis.set(
        xlabel=f"slice ({spacing_um[0]:g} µm each)",
        ylabel="foreground (% of the slice)",
        ylim=(0, 1.15 * share.max() or 1.0),
        xlim=(-0.5, share.size - 0.5),
    )
    axis.set_title("foreground of every slice", fontsize=8.5)
