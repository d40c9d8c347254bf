"""The figure by which a person judges augmentation: patches as the network sees them, and what each change does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from torch import Tensor

from voxloom.augment import NAMES, augment, enabled
from voxloom.augment_sections import FAULTS, MISALIGNED
from voxloom.drawing import enlarged, fill, outline, scale_bar
from voxloom.figures import COLOURS, MUTED, PAGE_WIDTH_IN, new_figure, styled
from voxloom.sampling import Examples

DRAWS = 4
COLUMNS = 1 + DRAWS
WINDOW_VOXELS = 256
"""Of larger patches the middle square of this edge is shown."""
PANEL_PIXELS = 512
DPI = 120
"""Pixels per inch of the PNG and of the pictures inside the SVG."""
OUTLINE = COLOURS[4]


@dataclass(frozen=True)
class _Patch:
    """Slices of a patch; there are labels of every slice, or of the middle one only."""

    grey: NDArray[np.float32]  # (Z, Y, X)
    mask: NDArray[np.bool_]
    ignore: NDArray[np.bool_]

    @property
    def middle(self) -> int:
        return len(self.grey) // 2

    def difference(self, other: _Patch) -> NDArray[np.float64]:
        """How much each slice differs."""
        return np.abs(self.grey.astype(np.float64) - other.grey).mean(axis=(1, 2))

    def labels(self, number: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]] | None:
        """What is foreground and what nobody annotated in a slice, where that is known."""
        if len(self.mask) == len(self.grey):
            return self.mask[number], self.ignore[number]
        return (self.mask[0], self.ignore[0]) if number == self.middle else None


@dataclass(frozen=True)
class _View:
    """What of a patch and its changed copies is shown, and in which greys."""

    window: tuple[slice, slice]
    darkest: float
    lightest: float
    scale: int
    extent: tuple[float, float, float, float]  # of the window in um: 0, width, height, 0

    @classmethod
    def of(cls, patch: _Patch, spacing_um: Sequence[float]) -> _View:
        _, *sizes = patch.grey.shape
        edges = [min(size, WINDOW_VOXELS) for size in sizes]
        rows, columns = (slice((n - edge) // 2, (n - edge) // 2 + edge) for n, edge in zip(sizes, edges, strict=True))
        darkest, lightest = (float(value) for value in np.percentile(patch.grey[patch.middle], [0.5, 99.5]))
        scale = max(1, PANEL_PIXELS // max(edges))
        return cls(
            (rows, columns), darkest, lightest, scale, (0, edges[1] * spacing_um[2], edges[0] * spacing_um[1], 0)
        )

    def draw(self, axis: Axes, patch: _Patch, number: int, title: str) -> None:
        grey = (patch.grey[number][self.window] - self.darkest) / max(self.lightest - self.darkest, 1e-12)
        picture = np.repeat(enlarged(np.clip(grey.astype(np.float64), 0, 1), self.scale)[:, :, None], 3, axis=2)
        labels = patch.labels(number)
        if labels is not None:
            mask, ignore = (enlarged(part[self.window], self.scale) for part in labels)
            fill(picture, ignore, MUTED, 0.7)
            fill(picture, outline(mask & ~ignore, self.scale), OUTLINE, 1.0)
        axis.imshow((255 * picture + 0.5).astype(np.uint8), extent=self.extent)
        axis.set_title(title, fontsize=8.5, fontweight="normal")
        axis.set(xticks=[], yticks=[])
        axis.set_frame_on(False)


@styled
def draw(examples: Examples, *, settings: Mapping[str, Any], title: str) -> Figure:
    """Draw patches augmented as in training, and each augmentation alone.

    Parameters
    ----------
    examples : Examples
        From `voxloom.sampling.Sampler.examples`; at least one.
    settings : mapping
        Section ``augment`` of the model; at least one augmentation is on.
    title : str

    Returns
    -------
    figure : Figure
        A row a patch: the original and `DRAWS` draws with the probabilities of `settings`. Below, each augmentation
        that is on, with certainty, on the first patch: of `DRAWS` draws the one that changes it most. The middle slice
        is shown, and of faults of a section the slice that changed most. All panels of a patch have its grey window.
    """
    names, batch = enabled(settings), examples.batch
    originals = _patches(batch.image, batch.mask, batch.ignore)
    _, width_um, height_um, _ = _View.of(originals[0], examples.spacing_um).extent
    panel_in = PAGE_WIDTH_IN / COLUMNS * height_um / width_um + 0.25
    heights = [rows * panel_in + 0.3 for rows in (len(originals), -(-len(names) // COLUMNS))]
    figure = new_figure(PAGE_WIDTH_IN, sum(heights) + 0.8)
    figure.set_dpi(DPI)
    parts: Any = figure.subfigures(2, 1, height_ratios=heights)
    upper, lower = parts
    _draw_as_in_training(upper, originals, examples, settings)
    _draw_each_alone(lower, originals[0], examples, settings)
    figure.legend(handles=_legend(), loc="outside lower center", ncols=2)
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def _draw_as_in_training(
    part: SubFigure, originals: Sequence[_Patch], examples: Examples, settings: Mapping[str, Any]
) -> None:
    part.suptitle("As in training: each change with its own probability", x=0.01, ha="left", fontsize=10)
    grid = part.subplots(len(originals), COLUMNS, squeeze=False)
    for number, (axes, original) in enumerate(zip(grid, originals, strict=True)):
        view = _View.of(original, examples.spacing_um)
        volume, start = examples.batch.places[number]
        view.draw(axes[0], original, original.middle, "original")
        axes[0].set_ylabel(f"{volume}\nat voxel {', '.join(map(str, start))}", fontsize=8)
        scale_bar(axes[0], view.extent)
        for k, patch in enumerate(_draws(examples, number, settings), start=1):
            view.draw(axes[k], patch, original.middle, f"draw {k}")


def _draw_each_alone(part: SubFigure, original: _Patch, examples: Examples, settings: Mapping[str, Any]) -> None:
    words = f"Each change alone, on the first patch; of {DRAWS} draws the one that changes it most"
    part.suptitle(words, x=0.01, ha="left", fontsize=10)
    names, view = enabled(settings), _View.of(original, examples.spacing_um)
    panels = part.subplots(-(-len(names) // COLUMNS), COLUMNS, squeeze=False).ravel()
    for name, axis in zip(names, panels, strict=False):
        draws = _draws(examples, 0, {**settings, **dict.fromkeys(NAMES, 0.0), name: 1.0})
        view.draw(axis, *_strongest(name, draws, original))
    for axis in panels[len(names) :]:
        axis.set_axis_off()


def _legend() -> list[Patch]:
    return [
        Patch(facecolor="none", edgecolor=OUTLINE, linewidth=1.5, label="foreground"),
        Patch(color=MUTED, label="not annotated: doesn't count in the loss"),
    ]


def _draws(examples: Examples, number: int, settings: Mapping[str, Any]) -> list[_Patch]:
    """A patch, augmented again and again."""
    batch = examples.batch
    copies = [
        tensor[number : number + 1].expand(DRAWS, *tensor.shape[1:])
        for tensor in (batch.image, batch.mask, batch.ignore)
    ]
    return _patches(
        *augment(
            *copies,
            settings=settings,
            spacing_um=examples.spacing_um,
            deviation=examples.unit_deviation,
            generator=torch.Generator().manual_seed(number),
        )
    )


def _patches(image: Tensor, mask: Tensor, ignore: Tensor) -> list[_Patch]:
    if image.ndim == 5:  # (N, 1, Z, Y, X); without a Z axis the channels are slices
        image, mask, ignore = image[:, 0], mask[:, 0], ignore[:, 0]
    return [
        _Patch(grey.numpy(), marked.numpy() > 0.5, unknown.numpy())
        for grey, marked, unknown in zip(image, mask, ignore, strict=True)
    ]


def _strongest(name: str, draws: Sequence[_Patch], original: _Patch) -> tuple[_Patch, int, str]:
    """The draw that changed most, its slice that is shown, and the panel's title."""
    differences = np.stack([patch.difference(original) for patch in draws])  # (draws, slices)
    if name not in (*FAULTS, MISALIGNED) or len(original.grey) == 1:
        return draws[int(differences[:, original.middle].argmax())], original.middle, name
    number, faulty = (int(n) for n in np.unravel_index(differences.argmax(), differences.shape))
    return draws[number], faulty, f"{name}, slice {faulty + 1}"
