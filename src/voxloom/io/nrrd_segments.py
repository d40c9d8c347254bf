"""Segments of 3D Slicer's segmentation files (.seg.nrrd): which voxels belong to which named structure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from voxloom.errors import FormatError
from voxloom.io.nrrd_header import NrrdHeader
from voxloom.io.source import Segment, Source

_KNOWN = {"ID", "Name", "Color", "LabelValue", "Layer"}


def read_segments(header: NrrdHeader, *, channels: int) -> tuple[Segment, ...]:
    """Segments that a header lists in its key/value pairs.

    Parameters
    ----------
    header : NrrdHeader
    channels : int
        Number of layers in the file.

    Returns
    -------
    segments : tuple of Segment
        In the order of their numbers; empty for a file that is not a segmentation.

    Raises
    ------
    FormatError
        If a label value or layer is not a whole number, or the file has no such layer.

    Notes
    -----
    Files written before 3D Slicer 4.11 have one layer per segment and say neither label nor layer: the label is 1
    then, and the layer the segment's number.
    """
    found: dict[int, dict[str, str]] = {}
    for key, value in header.key_values.items():
        if match := re.fullmatch(r"Segment(\d{1,6})_(\w+)", key):
            found.setdefault(int(match.group(1)), {})[match.group(2)] = value
    return tuple(_segment(header, number, found[number], channels) for number in sorted(found))


def _segment(header: NrrdHeader, number: int, values: dict[str, str], channels: int) -> Segment:
    identifier = values.get("ID", f"Segment_{number}")
    layer = _whole(header, f"Segment{number}_Layer", values.get("Layer"), min(number, channels - 1))
    if not 0 <= layer < channels:
        raise FormatError(
            f"{header.path}: key 'Segment{number}_Layer' is {layer}, expected 0 to {channels - 1} as the file has "
            f"{channels} layers; correct it"
        )
    return Segment(
        id=identifier,
        name=values.get("Name", identifier),
        color=_color(values.get("Color", values.get("DefaultColor", ""))),
        layer=layer,
        label_value=_whole(header, f"Segment{number}_LabelValue", values.get("LabelValue"), 1),
        extra={name: value for name, value in values.items() if name not in _KNOWN},
    )


def _whole(header: NrrdHeader, key: str, value: str | None, default: int) -> int:
    if value is None:
        return default
    if not re.fullmatch(r"\s*-?\d{1,18}\s*", value):
        raise FormatError(f"{header.path}: key {key!r} must be a whole number, got {value[:40]!r}; correct it")
    return int(value)


def _color(value: str) -> tuple[float, float, float]:
    """Red, green and blue; white where the file has no such three numbers, for a colour changes no voxel."""
    numbers = re.findall(r"\d+(?:\.\d*)?(?:e-?\d+)?|\.\d+", value)
    if len(numbers) != 3:
        return (1.0, 1.0, 1.0)
    red, green, blue = (min(float(number), 1.0) for number in numbers)
    return red, green, blue


def segment_selector(
    source: Source, labels: Literal["any"] | Sequence[int] | Sequence[str]
) -> Callable[[NDArray[Any]], NDArray[np.bool_]]:
    """A function that turns a block of a segmentation into the mask of chosen structures.

    Parameters
    ----------
    source : Source
        The segmentation, or a plain file of labels.
    labels : "any", or sequence of int or str
        Every voxel that is not 0; or label values, in whichever layer (0 too where there is one layer only); or names
        (or identifiers) of segments.

    Returns
    -------
    select : callable
        Takes an array of shape (Z, Y, X) or, with all layers, (C, Z, Y, X); returns bool, shape (Z, Y, X).

    Raises
    ------
    FormatError
        If the file has no such segment (the message lists those it has), or 0 is chosen of several layers.
    """
    wanted = _wanted(source, labels)
    layers = 1 if source.shape is None or len(source.shape) == 3 else source.shape[0]

    def select(block: NDArray[Any]) -> NDArray[np.bool_]:
        channels = block[None] if block.ndim == 3 else block
        if len(channels) != layers:
            raise FormatError(
                f"{source.path} has {layers} layers, got a block of shape {block.shape}; read all layers at once"
            )
        mask = np.zeros(channels.shape[1:], dtype=bool)
        for layer, channel in enumerate(channels):
            values = wanted.get(layer, [])
            if values is None:
                mask |= channel != 0
            elif len(values) == 1:
                mask |= channel == values[0]
            elif values:
                mask |= np.isin(channel, values)
        return mask

    return select


def _wanted(source: Source, labels: Literal["any"] | Sequence[int] | Sequence[str]) -> dict[int, list[int] | None]:
    """Label values to take per layer, None for all but 0."""
    layers = range(1 if source.shape is None or len(source.shape) == 3 else source.shape[0])
    if isinstance(labels, str):
        if labels != "any":
            raise FormatError(f"{source.path}: labels must be 'any' or a list of numbers or names, got {labels!r}")
        return dict.fromkeys(layers)
    if not labels:
        raise FormatError(f"{source.path}: labels is an empty list; name segments{_known(source)}, or say 'any'")
    if 0 in labels and len(layers) > 1:
        raise FormatError(
            f"{source.path} has {len(layers)} layers, in each of which 0 is whatever another layer may hold; "
            "take 0 out of labels"
        )
    wanted: dict[int, list[int] | None] = {layer: [] for layer in layers}
    for label in labels:
        if isinstance(label, str):
            found = [(each.layer, each.label_value) for each in source.segments if label in (each.name, each.id)]
        elif source.segments:
            found = [(each.layer, each.label_value) for each in source.segments if label == each.label_value]
        else:
            found = [(layer, int(label)) for layer in layers]
        if not found:
            raise FormatError(f"{source.path} has no segment {label!r}{_known(source)}; correct labels")
        for layer, value in found:
            values = wanted[layer]
            if values is not None and value not in values:
                values.append(value)
    return wanted


def _known(source: Source) -> str:
    if not source.segments:
        return " (it names none; use label values)"
    return " (it has " + ", ".join(f"{each.name!r} = {each.label_value}" for each in source.segments) + ")"


def segment_keys(segments: Sequence[Segment], shape: tuple[int, ...]) -> dict[str, str]:
    """Key/value pairs by which 3D Slicer knows the segments of a file.

    Parameters
    ----------
    segments : sequence of Segment
    shape : tuple of int
        (Z, Y, X) or (C, Z, Y, X), with a channel per layer.

    Returns
    -------
    key_values : dict of str
    """
    depth, height, width = shape[-3:]
    extent = f"0 {width - 1} 0 {height - 1} 0 {depth - 1}"
    keys = {
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    for number, segment in enumerate(segments):
        values = {
            **segment.extra,
            "Color": " ".join(f"{part:.6g}" for part in segment.color),
            "Extent": extent,
            "ID": segment.id,
            "LabelValue": str(segment.label_value),
            "Layer": str(segment.layer),
            "Name": segment.name,
        }
        keys |= {f"Segment{number}_{name}": value for name, value in sorted(values.items())}
    return keys
