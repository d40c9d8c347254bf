"""Pictures of slices: grey values, probability, overlay and truth, as small files and as a figure."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from voxloom.deferred import Deferred
from voxloom.drawing import scale_bar_um
from voxloom.figures import PAGE_WIDTH_IN, new_figure, styled
from voxloom.volume import IGNORE

if TYPE_CHECKING:
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch, Rectangle
    from PIL import Image
else:
    matplotlib = Deferred("matplotlib")
    Patch = Deferred("matplotlib.patches", "Patch")
    Rectangle = Deferred("matplotlib.patches", "Rectangle")
    Image = Deferred("PIL.Image")

OVERLAY = {
    "true positive": (86, 180, 233, 165),
    "false positive": (213, 94, 0, 190),
    "false negative": (240, 228, 66, 190),
    "not annotated": (0, 0, 0, 110),
}
"""Red, green, blue and opacity (0..255) of what a prediction got right and wrong."""


def grey_levels(image: NDArray, *, low: float, high: float) -> NDArray[np.uint8]:
    """Grey values as bytes, `low` black and `high` white.

    Parameters
    ----------
    image : ndarray, any numeric dtype
    low, high : float
        Grey values; where they are equal everything is mid-grey.

    Returns
    -------
    levels : ndarray of uint8, same shape
    """
    if not high > low:
        return np.full(image.shape, 128, np.uint8)
    scaled = (image.astype(np.float32) - np.float32(low)) / np.float32(high - low)
    return np.asarray(np.clip(np.nan_to_num(scaled) * 255 + 0.5, 0, 255), dtype=np.uint8)


def overlay_classes(positive: NDArray[np.bool_], codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What a prediction got right and wrong.

    Parameters
    ----------
    positive : ndarray of bool, shape (Y, X)
        Predicted foreground.
    codes : ndarray of uint8, shape (Y, X)
        0 background, 1 foreground, 255 not annotated.

    Returns
    -------
    classes : ndarray of uint8, shape (Y, X)
        0 true negative, then 1.. in the order of `OVERLAY`: true positive, false positive, false negative, not
        annotated.
    """
    classes = np.zeros(codes.shape, np.uint8)
    classes[positive & (codes == 1)] = 1
    classes[positive & (codes == 0)] = 2
    classes[~positive & (codes == 1)] = 3
    classes[codes == IGNORE] = 4
    return classes


def _encode(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **options)
    return buffer.getvalue()


def encode_grey(levels: NDArray[np.uint8]) -> bytes:
    """JPEG of a grey picture.

    Parameters
    ----------
    levels : ndarray of uint8, shape (Y, X)

    Returns
    -------
    jpeg : bytes
    """
    return _encode(Image.fromarray(levels), "JPEG", quality=88, optimize=True)


def _encode_palette(indices: NDArray[np.uint8], palette: Sequence[Sequence[int]], bits: int) -> bytes:
    picture = Image.fromarray(indices, mode="L").convert("L")
    picture = Image.frombytes("P", picture.size, picture.tobytes())
    picture.putpalette([channel for colour in palette for channel in colour[:3]])
    options: dict[str, object] = {"bits": bits, "optimize": True}
    if len(palette[0]) == 4:
        options["transparency"] = bytes(colour[3] for colour in palette)
    return _encode(picture, "PNG", **options)


def encode_overlay(classes: NDArray[np.uint8]) -> bytes:
    """Transparent PNG of `overlay_classes`.

    Parameters
    ----------
    classes : ndarray of uint8, shape (Y, X)

    Returns
    -------
    png : bytes
    """
    return _encode_palette(classes, [(0, 0, 0, 0), *OVERLAY.values()], bits=4)


def encode_truth(codes: NDArray[np.uint8]) -> bytes:
    """PNG of an annotation: background black, foreground white, not annotated grey.

    Parameters
    ----------
    codes : ndarray of uint8, shape (Y, X)
        0 background, 1 foreground, 255 not annotated.

    Returns
    -------
    png : bytes
    """
    indices = np.where(codes == IGNORE, 2, codes == 1).astype(np.uint8)
    return _encode_palette(indices, [(0, 0, 0), (255, 255, 255), (125, 125, 125)], bits=2)


def probability_colours(levels: int = 64) -> NDArray[np.uint8]:
    """The colour scale of probabilities, from 0 to 1: viridis, which every eye reads in the same order.

    Parameters
    ----------
    levels : int
        Number of colours.

    Returns
    -------
    colours : ndarray of uint8, shape (levels, 3)
        Red, green, blue.
    """
    scale = matplotlib.colormaps["viridis"](np.linspace(0, 1, levels))[:, :3]
    return np.asarray(scale * 255 + 0.5, dtype=np.uint8)


def encode_probability(probability: NDArray[np.float32]) -> bytes:
    """PNG of probabilities in the colours of `probability_colours`.

    Parameters
    ----------
    probability : ndarray of float, shape (Y, X)
        From 0 to 1.

    Returns
    -------
    png : bytes
    """
    indices = np.clip(np.nan_to_num(probability) * 63 + 0.5, 0, 63).astype(np.uint8)
    return _encode_palette(indices, probability_colours().tolist(), bits=8)


@dataclass(frozen=True)
class Picture:
    """One slice's arrays, as `case_figure` draws them.

    Parameters
    ----------
    heading : str
        Why this slice, which one, its F1.
    grey : ndarray of uint8, shape (Y, X)
    probability : ndarray of float32, shape (Y, X)
        From 0 to 1.
    classes : ndarray of uint8, shape (Y, X)
        As `overlay_classes` returns them.
    codes : ndarray of uint8, shape (Y, X)
        The truth; 0, 1 and 255.
    spacing_um : (float, float)
        Voxel edge along (Y, X) in micrometres.
    """

    heading: str
    grey: NDArray[np.uint8]
    probability: NDArray[np.float32]
    classes: NDArray[np.uint8]
    codes: NDArray[np.uint8]
    spacing_um: tuple[float, float]


@styled
def case_figure(pictures: Sequence[Picture], *, title: str, note: str = "") -> Figure:
    """Image, probability, overlay and truth of some slices, one row a slice.

    Parameters
    ----------
    pictures : sequence of Picture
        At least one.
    title, note : str
        As in `figures.precision_recall_figure`.

    Returns
    -------
    figure : Figure
    """
    figure = new_figure(PAGE_WIDTH_IN, 0.7 + 2.75 * len(pictures))
    grid = figure.subplots(len(pictures), 4, squeeze=False)
    colours = np.array([(0, 0, 0, 0), *OVERLAY.values()], np.uint8)
    for row, picture in enumerate(pictures):
        height, width = picture.grey.shape
        extent = (0.0, width * picture.spacing_um[1], height * picture.spacing_um[0], 0.0)
        options = {"extent": extent, "interpolation": "nearest"}
        image, probability, overlay, truth = grid[row]
        image.imshow(picture.grey, cmap="gray", vmin=0, vmax=255, **options)
        probability.imshow(picture.probability, cmap="viridis", vmin=0, vmax=1, **options)
        overlay.imshow(picture.grey, cmap="gray", vmin=0, vmax=255, **options)
        overlay.imshow(colours[picture.classes], **options)
        codes = np.where(picture.codes == IGNORE, 125, np.where(picture.codes == 1, 255, 0))
        truth.imshow(codes, cmap="gray", vmin=0, vmax=255, **options)
        length = scale_bar_um(extent[1])
        image.add_patch(Rectangle((0.04 * extent[1], 0.93 * extent[2]), length, 0.02 * extent[2], color="white"))
        image.text(
            0.04 * extent[1] + length / 2, 0.91 * extent[2], f"{length:g} µm", color="white", ha="center", fontsize=8
        )
        for axes, name in zip(grid[row], ("image", "probability", "overlay", "truth"), strict=True):
            axes.set(xticks=[], yticks=[])
            axes.set_frame_on(False)
            if row == 0:
                axes.set_title(name)
        image.set_ylabel(picture.heading, fontsize=8.5)
    handles = [
        Patch(facecolor=(colour[0] / 255, colour[1] / 255, colour[2] / 255), label=name)
        for name, colour in OVERLAY.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8.5)
    figure.suptitle(title + (f" ({note})" if note else ""), x=0.01, ha="left")
    return figure
