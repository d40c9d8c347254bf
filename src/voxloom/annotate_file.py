"""Annotations that exist as files: drawn in 3D Slicer or any other program, brought in as what the rest reads."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from voxloom.blocks import Readable, Writable, map_blocks
from voxloom.budget import Layout, blocks_within, shard_shape
from voxloom.errors import ConfigError, FormatError, VolumeError
from voxloom.io.nrrd_segments import segment_selector
from voxloom.io.source import Source
from voxloom.volume import IGNORE, Geometry

LOGGER = logging.getLogger("voxloom")

SPACING_TOLERANCE = 0.01
"""Relative difference of voxel sizes up to which two files are taken to be of the same grid."""


@dataclass(frozen=True)
class ImportedAnnotation:
    """What an annotation file holds.

    Parameters
    ----------
    foreground_voxels, background_voxels, ignored_voxels : int
        Of the stored annotation.
    drawn_slices : int
        Slices (along Z) on which somebody drew.
    """

    foreground_voxels: int
    background_voxels: int
    ignored_voxels: int
    drawn_slices: int


class Codes(Readable, Writable, Protocol):
    """A volume of annotation codes that is written and read back."""


def import_annotation(
    source: Source,
    out: Codes,
    *,
    geometry: Geometry,
    labels: Literal["any"] | Sequence[int] | Sequence[str] = "any",
    ignore_labels: Sequence[int] = (IGNORE,),
    empty_slices: str = "ignore",
    memory_mib: float = 1024,
) -> ImportedAnnotation:
    """Bring an annotation file into a volume's grid.

    Parameters
    ----------
    source : Source
        The file; a layer of a .seg.nrrd is a channel.
    out : volume of uint8, shape (Z, Y, X)
        New, all 0; written and read back by slicing: 0 background, 1 foreground, 255 not annotated.
    geometry : Geometry
        Of the volume that is annotated.
    labels : "any", or sequence of int or str
        What is foreground: every value but 0; these values; or the segments of these names.
    ignore_labels : sequence of int
        Values that mean "not annotated"; they win over `labels`.
    empty_slices : {"ignore", "background"}
        What a slice along Z is on which nobody drew: not annotated, right for a sparse annotation, or background,
        right for a dense one.
    memory_mib : float
        Budget for the slices in work, in MiB.

    Returns
    -------
    imported : ImportedAnnotation

    Raises
    ------
    VolumeError
        If the file's shape, voxel size or orientation is not the volume's.
    FormatError
        If the file has no such segment, or `labels` is "any" and it holds no values but 0 and `ignore_labels`.
    ConfigError
        If `empty_slices` is another word.

    Notes
    -----
    On a slice somebody drew if it has a voxel of the foreground or one of `ignore_labels`. A file that holds 255 all
    over, but for a rectangle, is annotated in that rectangle only; a slice whose part of the rectangle is all 0 was
    looked at, and stays background there.
    """
    if empty_slices not in ("ignore", "background"):
        raise ConfigError(f"empty_slices is {empty_slices!r}, but must be ignore or background")
    _check_grid(source, out.shape, geometry)
    is_drawn, has_other = _copy(source, out, labels, ignore_labels, memory_mib)
    counts = _settle(out, is_drawn, empty_slices == "ignore", memory_mib)
    background, foreground, ignored = (int(n) for n in counts)
    if not foreground and has_other and labels == "any":
        raise FormatError(
            f"{source.path} has no foreground: it holds no values but 0 and those of ignore_labels, "
            f"{list(ignore_labels)}; if one of them marks the structure (a mask of 0 and 255), take it out of "
            "ignore_labels; if nothing is foreground, name the value that would be under labels"
        )
    if not foreground:
        LOGGER.warning("%s has no voxel of the foreground (labels: %s)", source.path, labels)
    LOGGER.info("%s: drawn on %d of %d slices", source.path, is_drawn.sum(), is_drawn.size)
    return ImportedAnnotation(foreground, background, ignored, int(is_drawn.sum()))


def _check_grid(source: Source, shape: tuple[int, ...], geometry: Geometry) -> None:
    """Refuse a file of another grid; `geometry` is the volume's."""
    found = source.require_shape()[-3:]
    if found != tuple(shape):
        raise VolumeError(
            f"{source.path} has {found} voxels (Z, Y, X), the volume has {tuple(shape)}; an annotation covers the "
            "whole volume voxel by voxel. 3D Slicer crops a .seg.nrrd to its segments when it is saved: export it as a "
            "labelmap with the volume as reference geometry"
        )
    theirs = source.geometry
    if theirs is None:
        LOGGER.info("%s states no voxel size; it is taken to be the volume's, as the shapes are equal", source.path)
        return
    ratios = np.divide(theirs.spacing_um, geometry.spacing_um)
    # a file without a unit was read as millimetres; the volume's unit may have been said elsewhere
    is_other_unit = not source.unit_stated and any(
        np.allclose(ratios, factor, rtol=SPACING_TOLERANCE) for factor in (1e3, 1e-3)
    )
    if is_other_unit:
        LOGGER.info("%s states no unit; its voxel size is taken to be in the volume's", source.path)
    elif any(abs(a - b) > SPACING_TOLERANCE * b for a, b in zip(theirs.spacing_um, geometry.spacing_um, strict=True)):
        raise VolumeError(
            f"{source.path} has voxels of {_numbers(theirs.spacing_um)} um (Z, Y, X), the volume has voxels of "
            f"{_numbers(geometry.spacing_um)} um; correct the file's voxel size or its unit, or give the volume's in "
            "volumes.tsv"
        )
    is_comparable = theirs.space is not None and theirs.space == geometry.space
    if is_comparable and not np.allclose(theirs.directions, geometry.directions, atol=SPACING_TOLERANCE):
        raise VolumeError(
            f"{source.path} has axes along {theirs.directions}, the volume along {geometry.directions}, both in "
            f"{theirs.space}; one is flipped or turned against the other: resample the annotation to the volume's grid"
        )


def _numbers(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in values) + ")"


def _copy(
    source: Source,
    out: Codes,
    labels: Literal["any"] | Sequence[int] | Sequence[str],
    ignore_labels: Sequence[int],
    memory_mib: float,
) -> tuple[NDArray[np.bool_], bool]:
    """Write the codes that the file states; return where somebody drew, and whether any value was not 0."""
    shape = source.require_shape()
    layers = 1 if len(shape) == 3 else shape[0]
    select = segment_selector(source, labels)
    plane_mib = layers * shape[-2] * shape[-1] * (source.dtype.itemsize + 6) / 2**20
    slices = max(1, min(getattr(out, "shard_shape", (64,))[0], int(memory_mib / plane_mib)))
    is_drawn = np.zeros(shape[-3], np.bool_)
    has_other = False
    for index, values in source.read_blocks(slices):
        z, y, x = index[-3:]
        # a block may have one layer only; the selector wants all of them, and 0 is no label
        block = np.zeros((layers, *values.shape[-3:]), values.dtype)
        block[index[0] if len(index) == 4 else slice(None)] = values
        is_ignored = np.isin(block, np.asarray(ignore_labels)).any(axis=0)
        mask = select(block if len(shape) == 4 else block[0])
        codes = np.maximum(mask.astype(np.uint8), out[z, y, x])  # an earlier layer's foreground, or 255
        codes[is_ignored] = IGNORE
        out[z, y, x] = codes
        is_drawn[z] |= (codes != 0).any(axis=(1, 2))
        has_other = has_other or bool(values.any())
    return is_drawn, has_other


def _settle(out: Codes, is_drawn: NDArray[np.bool_], is_sparse: bool, memory_mib: float) -> NDArray[np.int64]:
    """Mark slices on which nobody drew as not annotated; count background, foreground and not annotated voxels."""
    layout = settle_layout(out, memory_mib=memory_mib)
    counts = np.zeros(3, np.int64)

    def settle(codes: NDArray[np.uint8], block: Any) -> NDArray[np.uint8]:
        if is_sparse:
            codes[~is_drawn[block.core[0]]] = IGNORE
        counts[:] += np.bincount(codes.ravel(), minlength=256)[[0, 1, IGNORE]]
        return codes

    map_blocks(settle, out, out=out, description="annotation, block", **layout.grid)
    return counts


def settle_layout(out: Readable, *, memory_mib: float) -> Layout:
    """The blocks by which an imported annotation is read back.

    Parameters
    ----------
    out : volume of uint8, shape (Z, Y, X)
        The annotation.
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
    return blocks_within(out.shape, bytes_per_voxel=6, memory_mib=memory_mib, align=shard_shape(out), threads=1)
