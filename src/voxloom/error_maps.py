"""Where a proposal of membranes goes wrong: pictures of sections with splits, mergers and missed membrane marked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from voxloom import membranes
from voxloom.blocks import Block, reduce_blocks
from voxloom.deferred import Deferred
from voxloom.errors import VolumeError
from voxloom.membranes import Section
from voxloom.report_pictures import grey_levels
from voxloom.tally import Volume
from voxloom.volume import IGNORE
from voxloom.warping import MERGER, SPLIT

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image, ImageDraw, ImageFont
else:
    Image = Deferred("PIL.Image")
    ImageDraw = Deferred("PIL.ImageDraw")
    ImageFont = Deferred("PIL.ImageFont")

MISSED_MARK, MERGER_MARK, SPLIT_MARK = 1, 2, 3
"""Of a pixel; where it is more than one, the highest."""

MARKS = {
    SPLIT_MARK: ("split", (230, 30, 40)),
    MERGER_MARK: ("merger", (40, 110, 255)),
    MISSED_MARK: ("missed membrane", (240, 228, 66)),
}
"""What a mark means, and its red, green and blue; in the order of the legend."""

GREYS = 253
"""Of a picture's 256 colours; the others are the marks'."""

PERCENTILES = (0.5, 99.5)
"""Of a section's grey values: what is drawn black and white."""

TOLERANCE = 2
"""How far, in pixels along rows and columns, a membrane may lie from the true one without being missed."""

LETTER, LEAST_WIDTH = 12, 200
"""Height of the legend's letters, and least width of a picture with one, in pixels."""


def error_marks(interior: NDArray[np.float64], codes: NDArray[np.uint8], *, threshold: float) -> NDArray[np.uint8]:
    """Mark what a section's proposal gets wrong.

    Parameters
    ----------
    interior : ndarray of float64, shape (Y, X)
        Predicted probability of interior.
    codes : ndarray of uint8, shape (Y, X)
        0 interior, 1 membrane, 255 not annotated.
    threshold : float
        The proposal's objects are where it is above.

    Returns
    -------
    marks : ndarray of uint8, shape (Y, X)
        0, `SPLIT_MARK` and `MERGER_MARK` within a pixel of where the warping error counts such a pixel, `MISSED_MARK`
        on true membrane of which nothing was predicted within `TOLERANCE` pixels.
    """
    from scipy import ndimage  # the job begins its work without waiting for what only the drawing needs

    ignore = codes == IGNORE
    kinds = membranes.left_after_warping(interior, codes == 0, ignore=ignore, threshold=threshold)
    predicted = interior <= threshold
    near = ndimage.maximum_filter(predicted, size=2 * TOLERANCE + 1, mode="constant")
    marks = np.where((codes == 1) & ~near, np.uint8(MISSED_MARK), np.uint8(0))
    for kind, mark in ((MERGER, MERGER_MARK), (SPLIT, SPLIT_MARK)):
        marks[ndimage.maximum_filter(kinds == kind, size=3, mode="constant")] = mark
    return marks


def error_map(image: NDArray[Any], marks: NDArray[np.uint8], *, caption: str) -> Image.Image:
    """Draw a section in grey with its marks, at its own resolution, above a legend.

    Parameters
    ----------
    image : ndarray of real numbers, shape (Y, X)
        Grey values.
    marks : ndarray of uint8, shape (Y, X)
        As `error_marks` returns them.
    caption : str
        In the legend, after the marks.

    Returns
    -------
    picture : PIL image
        Of at most 256 colours; each pixel of the section is one of its upper left part.
    """
    low, high = np.percentile(image, PERCENTILES)
    levels = grey_levels(image, low=float(low), high=float(high))
    height, width = image.shape
    legend = _legend(max(width, LEAST_WIDTH), caption)
    colours = np.full((height + legend.shape[0], legend.shape[1]), GREYS - 1, np.uint8)
    colours[:height, :width] = np.where(marks > 0, GREYS - 1 + marks, _grey_indices(levels))
    colours[height:] = legend
    picture = Image.frombytes("P", (colours.shape[1], colours.shape[0]), colours.tobytes())
    greys = [round(255 * level / (GREYS - 1)) for level in range(GREYS) for _ in range(3)]
    picture.putpalette(greys + [channel for mark in sorted(MARKS) for channel in MARKS[mark][1]])
    return picture


def _grey_indices(levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return (levels.astype(np.uint16) * (GREYS - 1) // 255).astype(np.uint8)


def _legend(width: int, caption: str) -> NDArray[np.uint8]:
    """Squares of the marks' colours with what they mean, and the caption; a row more where one is full."""
    font, gap = ImageFont.load_default(LETTER), LETTER // 2
    entries = [(mark, meaning) for mark, (meaning, _) in MARKS.items()] + [(0, caption)]
    places, across, row = [], gap, 0
    for mark, words in entries:
        taken = (LETTER + gap if mark else 0) + math.ceil(font.getlength(words)) + 2 * gap
        if across > gap and across + taken > width:
            across, row = gap, row + 1
        places.append((across, gap + row * 2 * LETTER))
        across += taken
    strip = Image.new("L", (width, gap + (row + 1) * 2 * LETTER), 255)
    for (x, y), (mark, words) in zip(places, entries, strict=True):
        ImageDraw.Draw(strip).text((x + (LETTER + gap if mark else 0), y), words, fill=0, font=font)
    found = _grey_indices(np.asarray(strip))
    for (x, y), (mark, _) in zip(places, entries, strict=True):
        if mark:
            found[y : y + LETTER, x : x + LETTER] = GREYS - 1 + mark
    return found


def write_error_maps(
    folder: str | Path,
    images: Mapping[str, Volume],
    *,
    predictions: Mapping[str, Volume],
    truths: Mapping[str, Volume],
    split: pd.DataFrame,
    fold: int,
    threshold: float,
    threads: int = 1,
    memory_mib: float = math.inf,
) -> None:
    """Draw a fold's test sections, one PNG file each, named by volume and section.

    Parameters
    ----------
    folder : str or Path
        Is made where it isn't there.
    images : mapping of str to stored volume
        Grey values by volume; of several channels the first.
    predictions, truths, split, fold, threads, memory_mib
        As in `voxloom.membranes.score_sections`.
    threshold : float
        Of the interior probability.

    Raises
    ------
    VolumeError
        If an image has another shape, or the budget doesn't hold one section.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, truth in truths.items():
        sections = membranes.sections_of(split, fold=fold, volume=name, part="test")
        if tuple(images[name].shape[-3:]) != tuple(truth.shape):
            raise VolumeError(
                f"volume {name}: the image has shape {tuple(images[name].shape)}, its annotation "
                f"{tuple(truth.shape)}; they must be the same voxels"
            )
        volumes = (images[name], predictions[name], truth)
        for section, picture in _drawn(*volumes, sections, threshold=threshold, threads=threads, memory_mib=memory_mib):
            picture.save(Path(folder) / f"{name}-{section.z:04d}.png", optimize=True)


def _drawn(
    image: Volume,
    prediction: Volume,
    truth: Volume,
    sections: list[Section],
    *,
    threshold: float,
    threads: int,
    memory_mib: float,
) -> Iterator[tuple[Section, Image.Image]]:
    interior_of = membranes.interior_probabilities(prediction)

    def draw(grey: NDArray[Any], stored: NDArray[Any], codes: NDArray[np.uint8], block: Block) -> Image.Image:
        section = sections[block.index]
        marks = error_marks(interior_of[stored[0]], section.without_others(codes), threshold=threshold)
        caption = f"section {section.z}, interior above {threshold:.1f}"
        return error_map(grey.reshape(-1, *grey.shape[-2:])[0], marks, caption=caption)

    layout = membranes.section_layout(truth.shape, memory_mib=memory_mib, threads=threads)
    blocks = [section.block(index) for index, section in enumerate(sections)]
    found = reduce_blocks(
        draw, image, prediction, truth, blocks=blocks, **layout.how, description="drew errors of section"
    )
    yield from ((sections[block.index], picture) for block, picture in found)
