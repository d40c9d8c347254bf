"""Counts for scores at the size that a network of scaled slices works at, beside those of the native grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from voxloom import metrics, model, split
from voxloom.blocks import Readable
from voxloom.boxes import Box
from voxloom.intensity import for_volume
from voxloom.network_settings import common_size
from voxloom.volume import split_annotation

if TYPE_CHECKING:
    import pandas as pd

SLICES_AT_ONCE = 16


def network_histograms(
    models: Sequence[str | Path],
    images: Mapping[str, Readable],
    truths: Mapping[str, Mapping[str, Readable]],
    split_table: pd.DataFrame,
    *,
    fold: int,
    threads: int,
    device: str = "auto",
    test_time_flips: bool | None = None,
) -> dict[tuple[str, str, str], NDArray[np.int64]]:
    """Joint histograms of probabilities and labels of the test slices, both at the network's size.

    Parameters
    ----------
    models : sequence of str or Path
        Folder of the model, or of each of the ensemble's; none for a prediction that no network made.
    images : mapping of str to array-like, shape (Z, Y, X)
    truths : mapping of str to mapping of str to array-like of uint8, shape (Z, Y, X)
        By name of the truth and volume: 0 background, 1 foreground, 255 not annotated.
    split_table : DataFrame
        From `voxloom.split.make_split`.
    fold, threads : int
    device : {"auto", "cpu", "cuda", "mps"}
    test_time_flips : bool, optional
        Of an ensemble that says so; see `voxloom.inference.predict_ensemble`.

    Returns
    -------
    histograms : dict of (truth, "test", volume) to ndarray of int64, shape (2, 256)
        Empty for networks that work at native resolution, or at several sizes. Only whole slices are counted: a box
        that covers part of a slice has no place on the network's grid.
    """
    size = common_size([model.read_settings(folder) for folder in models]) if models else None
    if size is None:
        return {}
    from voxloom import inference, slice_scaling  # PyTorch takes a second; networks at native resolution need none here

    members = [model.load_model(folder) for folder in models]
    found: dict[tuple[str, str, str], NDArray[np.int64]] = {}
    for volume, image in images.items():
        boxes = split.boxes_of(split_table, fold=fold, volume=volume, part="test")
        slices = _whole_slices(boxes, image.shape)
        seen = [(network, for_volume(settings, image)) for network, settings in members] if slices else []
        for first in range(0, len(slices), SLICES_AT_ONCE):
            chosen = slices[first : first + SLICES_AT_ONCE]
            stored = inference.predict_slices_at_network_scale(
                seen, image, chosen, threads=threads, device=device, test_time_flips=test_time_flips
            )
            for truth, annotated in truths.items():
                if volume not in annotated:
                    continue
                codes = np.stack([slice_scaling.scale_codes(annotated[volume][z], size) for z in chosen])
                mask, ignore = split_annotation(codes)
                counts = metrics.joint_histogram(stored, mask, ignore=ignore)
                key = (truth, "test", volume)
                found[key] = found.get(key, np.zeros_like(counts)) + counts
    return found


def _whole_slices(boxes: Sequence[Box], shape: Sequence[int]) -> list[int]:
    plane = ((0, shape[-2]), (0, shape[-1]))
    return sorted(z for box in boxes if box[1:] == plane for z in range(*box[0]))
