"""Scores membranes section by section as the ISBI 2012 challenge does, one section in memory at a time and thread."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from voxloom import boxes, section_scores, warping
from voxloom.blocks import Block, reduce_blocks
from voxloom.border_thinning import thin_borders
from voxloom.boxes import Box
from voxloom.budget import Layout, fixed_within
from voxloom.deferred import Deferred
from voxloom.errors import SplitError, VolumeError
from voxloom.partitions import contingency
from voxloom.section_scores import THRESHOLDS, Agreement
from voxloom.split import boxes_of
from voxloom.tally import Volume
from voxloom.volume import IGNORE

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = Deferred("pandas")

PARTS = ("train", "validation", "test")

BYTES_PER_PIXEL = 60
"""Of a section in work: as stored, probabilities, objects, and the places that differ, by how far they do."""

SECTION_COLUMNS = (
    "part", "volume", "z", "threshold", "v_rand", "v_rand_precision", "v_rand_recall", "v_info", "v_info_precision",
    "v_info_recall", "rand_tp", "rand_fp", "rand_fn", "pixel_tp", "pixel_fp", "pixel_fn", "warping_errors", "splits",
    "mergers", "pixels",
)  # fmt: skip
SCORE_COLUMNS = (
    "part", "sections", "v_rand", "v_rand_threshold", "v_rand_at_validation", "v_info", "v_info_threshold",
    "v_info_at_validation", "rand_error", "rand_threshold", "pixel_error", "pixel_threshold", "warping_error",
    "warping_threshold", "splits", "mergers",
)  # fmt: skip


@dataclass(frozen=True)
class Section:
    """What of a section belongs to one part of a split.

    Parameters
    ----------
    volume, part : str
    z : int
    window : Box
        The smallest box that holds all of it.
    boxes : tuple of Box
        What of the window it is.
    """

    volume: str
    part: str
    z: int
    window: Box
    boxes: tuple[Box, ...]

    def block(self, index: int) -> Block:
        """What is read of it."""
        read = boxes.slices(self.window)
        return Block(index, read, read, tuple(slice(0, last - first) for first, last in self.window))

    def without_others(self, codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """An annotation of the window, not annotated where it belongs to other parts; shape (Y, X)."""
        (_, _), (y, _), (x, _) = self.window
        found = np.full(codes.shape[-2:], IGNORE, np.uint8)
        for _, (y0, y1), (x0, x1) in self.boxes:
            at = slice(y0 - y, y1 - y), slice(x0 - x, x1 - x)
            found[at] = codes[0][at]
        return found


def sections_of(split: pd.DataFrame, *, fold: int, volume: str, part: str) -> list[Section]:
    """The sections of a part of a volume.

    Parameters
    ----------
    split : DataFrame
        From `voxloom.split.make_split`.
    fold : int
    volume, part : str

    Returns
    -------
    sections : list of Section
        In the order of z.
    """
    held: dict[int, list[Box]] = {}
    for (first, last), y, x in boxes_of(split, fold=fold, volume=volume, part=part):
        for z in range(first, last):
            held.setdefault(z, []).append(((z, z + 1), y, x))
    found = []
    for z, here in sorted(held.items()):
        edges = boxes.as_array(here)
        low, high = edges[:, :, 0].min(axis=0).tolist(), edges[:, :, 1].max(axis=0).tolist()
        window: Box = ((z, z + 1), (low[1], high[1]), (low[2], high[2]))
        found.append(Section(volume, part, z, window, tuple(here)))
    return found


def section_layout(shape: tuple[int, ...], *, memory_mib: float, threads: int) -> Layout:
    """How many sections are in work at a time.

    Parameters
    ----------
    shape : tuple of int
        (Z, Y, X).
    memory_mib : float
        Budget, in MiB.
    threads : int
        Sections that could be in work at a time.

    Returns
    -------
    layout : Layout

    Raises
    ------
    VolumeError
        If the budget doesn't hold one section.
    """
    return fixed_within(shape, (1, *shape[1:]), bytes_per_voxel=BYTES_PER_PIXEL, memory_mib=memory_mib, threads=threads)


def score_sections(
    predictions: Mapping[str, Volume],
    truths: Mapping[str, Volume],
    split: pd.DataFrame,
    *,
    fold: int,
    threads: int = 1,
    memory_mib: float = math.inf,
) -> pd.DataFrame:
    """Score every section of one model's predictions of membranes at every threshold.

    Parameters
    ----------
    predictions : mapping of str to stored volume of uint8 or uint16
        Predicted probabilities of membrane by volume name, with their quantisation.
    truths : mapping of str to stored volume of uint8
        0 interior, 1 membrane, 255 not annotated; volumes without one aren't scored.
    split : DataFrame
        From `voxloom.split.make_split`.
    fold : int
    threads : int
        Sections in work at a time, fewer where the budget holds fewer.
    memory_mib : float
        Budget for the sections, in MiB.

    Returns
    -------
    table : DataFrame
        Columns `SECTION_COLUMNS`: one row a part, volume, section and threshold of the interior probability.

    Raises
    ------
    SplitError
        If the fold has no test section.
    VolumeError
        If volumes don't fit together, the budget doesn't hold one section, or in no section the truth parts two
        objects.

    Notes
    -----
    What nobody annotated, or belongs to another part, is in no pair and no pixel count; for warping it is membrane in
    both. A section without an annotated interior has pixels but no Rand and information scores. Of a section that is
    cut by a part's boxes, what is inside them is looked at as if there were nothing beyond.
    """
    wanted = {
        (name, part): sections_of(split, fold=fold, volume=name, part=part) for part in PARTS for name in predictions
    }
    if not any(wanted[name, "test"] for name in truths):
        raise SplitError(
            f"fold {fold} has no test section, so its membranes can't be scored; set split.test_fraction above 0 or "
            "name a test box"
        )
    rows: list[dict[str, Any]] = []
    for (name, _), sections in wanted.items():
        if name in truths and sections:
            _check(name, predictions[name], truths[name])
            rows += _volume_rows(predictions[name], truths[name], sections, threads=threads, memory_mib=memory_mib)
    if max(row["objects"] for row in rows) < 2:
        raise VolumeError(
            "the task's foreground parts nothing: no section's annotation has two objects between it; "
            "evaluate.membranes is for tasks whose foreground is the membrane, leave it out for others"
        )
    return pd.DataFrame(rows, columns=list(SECTION_COLUMNS))


def _check(name: str, prediction: Volume, truth: Volume) -> None:
    if prediction.quantisation is None or np.dtype(prediction.dtype) not in (np.uint8, np.uint16):
        raise VolumeError(
            f"volume {name}: a prediction is a volume of uint8 or uint16 that says what its numbers stand for, got "
            f"{prediction.dtype} and quantisation {prediction.quantisation}; predict it anew"
        )
    if tuple(prediction.shape) != tuple(truth.shape) or np.dtype(truth.dtype) != np.uint8:
        raise VolumeError(
            f"volume {name}: the annotation has shape {tuple(truth.shape)} and type {truth.dtype}, the prediction has "
            f"shape {tuple(prediction.shape)}; they must be the same voxels, and an annotation uint8"
        )


def _volume_rows(
    prediction: Volume, truth: Volume, sections: list[Section], *, threads: int, memory_mib: float
) -> Iterator[dict[str, Any]]:
    interior_of = interior_probabilities(prediction)

    def work(stored: NDArray[Any], codes: NDArray[np.uint8], block: Block) -> list[dict[str, Any]]:
        return list(score_section(interior_of[stored[0]], sections[block.index].without_others(codes)))

    layout = section_layout(prediction.shape, memory_mib=memory_mib, threads=threads)
    blocks = [section.block(index) for index, section in enumerate(sections)]
    said = f"membranes of {sections[0].volume}, {sections[0].part}: section"
    for block, found in reduce_blocks(work, prediction, truth, blocks=blocks, **layout.how, description=said):
        section = sections[block.index]
        yield from ({"part": section.part, "volume": section.volume, "z": section.z} | row for row in found)


def interior_probabilities(prediction: Volume) -> NDArray[np.float64]:
    """The interior probability of every number that a prediction of membranes can store.

    Parameters
    ----------
    prediction : stored volume of uint8 or uint16

    Returns
    -------
    probabilities : ndarray of float64, shape (256,) or (65536,)
        Rounded to single precision, in which the challenge takes proposals, and compared in double as it does.
    """
    assert prediction.quantisation is not None
    stored = np.arange(np.iinfo(prediction.dtype).max + 1)
    membrane = stored * prediction.quantisation.scale + prediction.quantisation.offset
    return (1 - membrane).astype(np.float32).astype(np.float64)


def score_section(interior: NDArray[np.float64], codes: NDArray[np.uint8]) -> Iterator[dict[str, Any]]:
    """Score one section at every threshold.

    Parameters
    ----------
    interior : ndarray of float64, shape (Y, X)
        Predicted probability of interior.
    codes : ndarray of uint8, shape (Y, X)
        0 interior, 1 membrane, 255 not annotated.

    Yields
    ------
    row : dict
        `SECTION_COLUMNS` from "threshold" on, and how many true "objects" there are.
    """
    ignore = codes == IGNORE
    truth = codes == 0
    objects = section_scores.objects_of(truth)
    annotated = {"objects": int(objects.max(initial=0)), "pixels": int(np.count_nonzero(~ignore))}
    for threshold in THRESHOLDS:
        proposal = interior > threshold
        pixels = section_scores.pixel_agreement(proposal, truth, ignore=ignore)
        errors = warping.count_errors(left_after_warping(interior, truth, ignore=ignore, threshold=threshold))
        yield {
            "threshold": threshold,
            **_object_scores(proposal, objects),
            **{f"pixel_{name}": count for name, count in vars(pixels).items()},
            "warping_errors": errors.split_pixels + errors.merger_pixels,
            "splits": errors.splits,
            "mergers": errors.mergers,
            **annotated,
        }


def left_after_warping(
    interior: NDArray[np.float64], truth: NDArray[np.bool_], *, ignore: NDArray[np.bool_], threshold: float
) -> NDArray[np.uint8]:
    """Where a section's truth differs from a proposal after warping, and in what way.

    Parameters
    ----------
    interior : ndarray of float64, shape (Y, X)
        Predicted probability of interior.
    truth : ndarray of bool, shape (Y, X)
        True inside an object, False where `ignore`.
    ignore : ndarray of bool, shape (Y, X)
        What nobody annotated: membrane in both.
    threshold : float

    Returns
    -------
    kinds : ndarray of uint8, shape (Y, X)
        As `voxloom.warping.classify` returns them.
    """
    known = np.where(ignore, -1.0, interior) if ignore.any() else interior
    warped = warping.warp(truth, known, threshold=threshold)
    return warping.classify(warped, known > threshold)


def _object_scores(proposal: NDArray[np.bool_], objects: NDArray[np.uint32]) -> dict[str, float]:
    pairs = section_scores.foreground_pairs(contingency(section_scores.objects_of(proposal), objects))
    row: dict[str, float] = {f"rand_{name}": count for name, count in vars(pairs).items()}
    thinned = contingency(thin_borders(proposal), objects)
    if not thinned.counts.size:
        return row
    for name, score in (
        ("v_rand", section_scores.foreground_pairs(thinned)),
        ("v_info", section_scores.information(thinned)),
    ):
        row |= {name: score.f_score, f"{name}_precision": score.precision, f"{name}_recall": score.recall}
    return row


def summarise(sections: pd.DataFrame) -> pd.DataFrame:
    """The challenge's scores of every part.

    Parameters
    ----------
    sections : DataFrame
        From `score_sections`.

    Returns
    -------
    table : DataFrame
        Columns `SCORE_COLUMNS`. V_rand and V_info: mean over the sections, at the threshold where it is largest in
        this part, which is the challenge's own rule, and at the one where it is largest in validation (empty where
        there is none). Rand and pixel error: 1 minus the largest F-score of the counts of all sections. Warping error:
        the smallest share of split and merger pixels, the last threshold left out; splits and mergers are the numbers
        of their clusters there, in all sections. Of equals the smallest threshold.
    """
    curves = {str(part): _curves(rows) for part, rows in sections.groupby("part", sort=False)}
    held = sections.groupby("part")[["volume", "z"]].apply(lambda rows: len(rows.drop_duplicates()))
    rows = []
    for part, curve in curves.items():
        row: dict[str, Any] = {"part": part, "sections": held[part]}
        for name in ("v_rand", "v_info"):
            row[name], row[f"{name}_threshold"] = _best(curve[name])
            _, chosen = _best(curves["validation"][name]) if "validation" in curves else (np.nan, np.nan)
            row[f"{name}_at_validation"] = curve[name].get(chosen, np.nan)
        for name, agreement in (("rand", curve["rand_f_score"]), ("pixel", curve["pixel_f_score"])):
            value, row[f"{name}_threshold"] = _best(agreement)
            row[f"{name}_error"] = 1 - value
        share, at = _best(-curve["warping_errors"].iloc[:-1] / curve["pixels"].iloc[:-1])
        row |= {"warping_error": 0.0 - share, "warping_threshold": at, **curve.loc[at, ["splits", "mergers"]]}
        rows.append(row)
    return pd.DataFrame(rows, columns=list(SCORE_COLUMNS)).astype({"splits": np.int64, "mergers": np.int64})


def best_threshold(scores: pd.DataFrame, *, part: str) -> float:
    """The threshold of the interior probability that a reader of the scores would take: the best V_rand's.

    Parameters
    ----------
    scores : DataFrame
        From `summarise`.
    part : str
        The part that chooses; the test part does where the fold has no such part.

    Returns
    -------
    threshold : float
    """
    chosen = scores.set_index("part")["v_rand_threshold"]
    return float(chosen[part if part in chosen.index else "test"])


def _curves(rows: pd.DataFrame) -> pd.DataFrame:
    """A part's means, counts and F-scores over its sections by threshold, in rising order."""
    by = rows.groupby("threshold")
    curves = by[[name for name in SECTION_COLUMNS if name.startswith(("rand_", "pixel", "warp", "spl", "merg"))]].sum()
    for name in ("rand", "pixel"):
        counts = curves[[f"{name}_tp", f"{name}_fp", f"{name}_fn"]].to_numpy().tolist()
        curves[f"{name}_f_score"] = [Agreement(*counted).f_score for counted in counts]
    return curves.join(by[["v_rand", "v_info"]].mean())


def _best(curve: pd.Series[float]) -> tuple[float, float]:
    """The largest value of a curve and its threshold; nothing where no section has a value."""
    if curve.isna().all():
        return np.nan, np.nan
    at = float(curve.idxmax())
    return float(curve[at]), at
