"""What a plan must know of a task's annotated volumes: sizes, voxels, foreground and objects; never grey values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxloom.blocks import grid
from voxloom.distance import clipped_distance
from voxloom.errors import ModelError
from voxloom.instances import label_objects
from voxloom.labelled import LabelledVolume, PartBox, TrainingVolume, labelled_volumes
from voxloom.objects import object_sizes
from voxloom.volume import IGNORE

BLOCK = (32, 128, 128)
"""Voxels (Z, Y, X) that are looked at at once."""

MEASURED_BLOCKS = 24
"""Most blocks in which objects are measured, evenly chosen among those that hold foreground."""

FARTHEST_VOXELS = 64
"""Objects are measured up to this half thickness, in voxels of the finest axis."""

THICK_QUANTILE = 0.9


@dataclass(frozen=True)
class VolumeFacts:
    """One volume's part of a fingerprint.

    Parameters
    ----------
    shape : tuple of int
        Voxels along (Z, Y, X).
    spacing_um : tuple of float
        Voxel edges (Z, Y, X).
    dtype : str
        Of the stored grey values.
    annotated_voxels, foreground_voxels : int
    annotated_extent : tuple of int
        Edges (Z, Y, X) of the smallest box that holds everything that is annotated.
    """

    shape: tuple[int, int, int]
    spacing_um: tuple[float, float, float]
    dtype: str
    annotated_voxels: int
    foreground_voxels: int
    annotated_extent: tuple[int, int, int]


@dataclass(frozen=True)
class Fingerprint:
    """What a plan is made from.

    Parameters
    ----------
    volumes : dict of str to VolumeFacts
        Every volume, annotated or not.
    annotated_blocks : int
        Blocks of `BLOCK` voxels with any annotation.
    slice_continuity : float
        Share of the foreground voxels whose neighbour in the next slice is foreground, too; 0 where no two
        neighbouring slices are annotated.
    thickness_um, thickness_voxels : float
        Of the objects: twice the 90th percentile of the foreground's distance to the background, in voxels of the
        finest axis. 0.9 of a sheet's thickness, 0.7 of a tube's diameter.
    object_voxels : int
        Median size of the objects, cut at the blocks' borders.
    objects : int
        How many of them were measured.
    """

    volumes: dict[str, VolumeFacts]
    annotated_blocks: int
    slice_continuity: float
    thickness_um: float
    thickness_voxels: float
    object_voxels: int
    objects: int

    @property
    def annotated(self) -> list[VolumeFacts]:
        """Facts of the volumes with any annotation."""
        return [facts for facts in self.volumes.values() if facts.annotated_voxels]

    @property
    def spacing_um(self) -> tuple[float, float, float]:
        """Median voxel edges (Z, Y, X) of the annotated volumes."""
        z, y, x = np.median([facts.spacing_um for facts in self.annotated], axis=0)
        return float(z), float(y), float(x)

    @property
    def anisotropy(self) -> float:
        """The coarsest voxel edge over the finest."""
        return max(self.spacing_um) / min(self.spacing_um)

    @property
    def annotated_voxels(self) -> int:
        """Of all volumes."""
        return sum(facts.annotated_voxels for facts in self.annotated)

    @property
    def foreground_share(self) -> float:
        """Of the annotated voxels."""
        return sum(facts.foreground_voxels for facts in self.annotated) / self.annotated_voxels

    @property
    def shape(self) -> tuple[int, int, int]:
        """Smallest annotated volume's size along each of (Z, Y, X): what a patch can be cut from everywhere."""
        z, y, x = np.min([facts.shape for facts in self.annotated], axis=0)
        return int(z), int(y), int(x)

    @property
    def depth(self) -> int:
        """Slices that the deepest annotation spans."""
        return max(facts.annotated_extent[0] for facts in self.annotated)

    def as_dict(self) -> dict[str, Any]:
        """For YAML: the facts, rounded to what anyone reads."""
        return {
            "spacing_um": [_short(edge) for edge in self.spacing_um],
            "anisotropy": _short(self.anisotropy),
            "annotated_voxels": self.annotated_voxels,
            "foreground_share": _short(self.foreground_share),
            "annotated_blocks": self.annotated_blocks,
            "slice_continuity": _short(self.slice_continuity),
            "thickness_um": _short(self.thickness_um),
            "thickness_voxels": _short(self.thickness_voxels),
            "object_voxels": self.object_voxels,
            "objects": self.objects,
            "volumes": {
                name: {
                    "shape": list(facts.shape),
                    "spacing_um": [_short(edge) for edge in facts.spacing_um],
                    "dtype": facts.dtype,
                    "annotated_voxels": facts.annotated_voxels,
                    "foreground_voxels": facts.foreground_voxels,
                    "annotated_extent": list(facts.annotated_extent),
                }
                for name, facts in self.volumes.items()
            },
        }


def take_fingerprint(volumes: Mapping[str, TrainingVolume]) -> Fingerprint:
    """Look at the annotations of a task, one block after the other.

    Parameters
    ----------
    volumes : mapping of str to TrainingVolume
        Grey values aren't read: the numbers that normalise them come from training boxes alone, so that nothing of
        a test box can reach a model. Sizes, voxel sizes and labels are seen of all boxes, since how far a network
        sees decides how far apart the boxes must be.

    Returns
    -------
    fingerprint : Fingerprint

    Raises
    ------
    VolumeError
        If an annotation has another shape than its image.
    ModelError
        If nothing is annotated, or one of foreground and background is missing.
    """
    everything = [
        PartBox(name, "train", (0, 0, 0), tuple(volume.image.shape))  # type: ignore[arg-type]
        for name, volume in volumes.items()
    ]
    parts = labelled_volumes(volumes, everything, part="train")
    surveys = {part.name: _survey(part) for part in parts}
    _refuse_unlearnable(surveys)
    facts = {part.name: _facts(part, volumes[part.name], surveys[part.name]) for part in parts}
    places = [(part, start, shape) for part in parts for start, shape in surveys[part.name].foreground_blocks]
    thickness_um, thickness_voxels, sizes = _objects(
        places[:: max(1, math.ceil(len(places) / MEASURED_BLOCKS))], volumes
    )
    followed = sum(survey.followed for survey in surveys.values())
    return Fingerprint(
        volumes=facts,
        annotated_blocks=sum(survey.annotated_blocks for survey in surveys.values()),
        slice_continuity=sum(survey.continued for survey in surveys.values()) / followed if followed else 0.0,
        thickness_um=thickness_um,
        thickness_voxels=thickness_voxels,
        object_voxels=int(np.median(sizes)),
        objects=len(sizes),
    )


@dataclass
class _Survey:
    """Counts of one volume's annotation."""

    annotated: int = 0
    foreground: int = 0
    annotated_blocks: int = 0
    followed: int = 0  # foreground voxels whose neighbour in the next slice is annotated
    continued: int = 0  # and is foreground
    low: NDArray[np.int64] | None = None
    high: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        self.foreground_blocks: list[tuple[tuple[int, ...], tuple[int, ...]]] = []


def _survey(part: LabelledVolume) -> _Survey:
    survey = _Survey()
    for block in grid(part.shape, BLOCK):
        start = tuple(axis.start for axis in block.core)
        shape = tuple(axis.stop - axis.start for axis in block.core)
        codes = part.codes(start, shape)
        known, mask = codes != IGNORE, codes == 1
        if not known.any():
            continue
        survey.annotated += int(np.count_nonzero(known))
        survey.foreground += int(np.count_nonzero(mask))
        survey.annotated_blocks += 1
        survey.followed += int(np.count_nonzero(mask[:-1] & known[1:]))
        survey.continued += int(np.count_nonzero(mask[:-1] & mask[1:]))
        low, high = _extent(known, start)
        survey.low = low if survey.low is None else np.minimum(survey.low, low)
        survey.high = high if survey.high is None else np.maximum(survey.high, high)
        if mask.any():
            survey.foreground_blocks.append((start, shape))
    return survey


def _extent(known: NDArray[np.bool_], start: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First voxel and the one after the last that are known, in the volume's coordinates."""
    found = [np.flatnonzero(known.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return (
        np.array([first + places[0] for first, places in zip(start, found, strict=True)], dtype=np.int64),
        np.array([first + places[-1] + 1 for first, places in zip(start, found, strict=True)], dtype=np.int64),
    )


def _refuse_unlearnable(surveys: Mapping[str, _Survey]) -> None:
    annotated = sum(survey.annotated for survey in surveys.values())
    foreground = sum(survey.foreground for survey in surveys.values())
    names = ", ".join(surveys)
    if annotated == 0:
        raise ModelError(
            f"nothing is annotated in {names}: no plan can be made; look at annotate.recipe, or at annotate.files "
            "(labels, ignore_labels, empty_slices) where a file is read"
        )
    if foreground in (0, annotated):
        kind, missing = ("background", "foreground") if foreground == 0 else ("foreground", "background")
        raise ModelError(
            f"all {annotated} annotated voxels of {names} are {kind}: {missing} is needed, too; look at "
            "annotate.recipe, or at annotate.files (labels, empty_slices: background) where a file is read"
        )


def _facts(part: LabelledVolume, volume: TrainingVolume, survey: _Survey) -> VolumeFacts:
    extent = (0, 0, 0) if survey.low is None or survey.high is None else tuple(map(int, survey.high - survey.low))
    z, y, x = volume.spacing_um
    return VolumeFacts(
        shape=part.shape,
        spacing_um=(float(z), float(y), float(x)),
        dtype=str(part.dtype),
        annotated_voxels=survey.annotated,
        foreground_voxels=survey.foreground,
        annotated_extent=extent,  # type: ignore[arg-type]
    )


def _objects(
    places: Sequence[tuple[LabelledVolume, tuple[int, ...], tuple[int, ...]]], volumes: Mapping[str, TrainingVolume]
) -> tuple[float, float, NDArray[np.int64]]:
    """Thickness in um and voxels, and sizes of the objects, of some blocks."""
    depths_um, depths_voxels, sizes = [], [], []
    for part, start, shape in places:
        mask = part.codes(start, shape) == 1
        spacing_um = volumes[part.name].spacing_um
        finest = min(spacing_um)
        if not mask.all():
            depth = clipped_distance(~mask, spacing_um=spacing_um, clip_um=FARTHEST_VOXELS * finest)[mask]
            # half a voxel: the border lies between the centres of the two voxels whose distance was taken
            depths_um.append(depth - 0.5 * finest)
            depths_voxels.append(depth / finest - 0.5)
        labels, count = label_objects(mask, connectivity=26)
        sizes.append(object_sizes(labels, count)[1:])
    if not depths_um:  # every block is full: thicker than what is measured
        finest = min(min(volumes[part.name].spacing_um) for part, _, _ in places)
        return 2.0 * FARTHEST_VOXELS * finest, 2.0 * FARTHEST_VOXELS, np.concatenate(sizes)
    thickness = [
        2 * float(np.quantile(np.concatenate(depths), THICK_QUANTILE)) for depths in (depths_um, depths_voxels)
    ]
    return thickness[0], thickness[1], np.concatenate(sizes)


def _short(value: float) -> float:
    return float(f"{value:.4g}")
