"""Fewer training boxes than a split has: what a model would have learnt from less annotation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from voxloom.labelled import PartBox

ORDER = 4  # stream of random numbers


def share_of_boxes(part_boxes: Sequence[PartBox], *, settings: Mapping[str, Any], seed: int) -> list[PartBox]:
    """A share of the training boxes, and all others.

    Parameters
    ----------
    part_boxes : sequence of PartBox
        Of one fold.
    settings : mapping
        A model's; ``train_share`` of the training boxes' voxels are kept, the last box cut to fit.
    seed : int
        Of the order in which boxes are taken. Equal seeds keep equal boxes, and a smaller share lies in a larger one.

    Returns
    -------
    kept : list of PartBox
        Boxes that validate and test are all there: nothing is tested on what others train on.

    Notes
    -----
    A box is cut along the axis on which it holds most samples, and never below the length of one.
    """
    share = settings["train_share"]
    training = sorted((box for box in part_boxes if box.part == "train"), key=lambda box: (box.volume, box.start))
    others = [box for box in part_boxes if box.part != "train"]
    if share == 1 or not training:
        return [*training, *others]
    wanted = math.ceil(share * sum(math.prod(box.shape) for box in training))
    kept: list[PartBox] = []
    for number in np.random.default_rng([seed, ORDER]).permutation(len(training)):
        if wanted <= 0:
            break
        kept.append(_cut(training[number], wanted, sample=_sample(settings)))
        wanted -= math.prod(kept[-1].shape)
    return [*sorted(kept, key=lambda box: (box.volume, box.start)), *others]


def _sample(settings: Mapping[str, Any]) -> tuple[float, float, float]:
    """Edge lengths (Z, Y, X) of a sample."""
    if settings["input"]["size"] is not None:
        return 1, math.inf, math.inf
    z, y, x = settings["input"]["patch_voxels"]
    return z, y, x


def _cut(box: PartBox, wanted: int, *, sample: Sequence[float]) -> PartBox:
    """The beginning of a box with about `wanted` voxels; the whole box where it has no more."""
    axis = max(range(3), key=lambda k: box.shape[k] / sample[k])
    planes = math.ceil(wanted / (math.prod(box.shape) // box.shape[axis]))
    stop = [*box.stop]
    stop[axis] = box.start[axis] + int(min(max(planes, sample[axis]), box.shape[axis]))
    return replace(box, stop=(stop[0], stop[1], stop[2]))
