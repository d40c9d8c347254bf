"""Validation looks at what is annotated, and at less of it where there is much."""

import numpy as np

from voxloom.labelled import PartBox, TrainingVolume
from voxloom.validation import Validation

SHAPE = (40, 8, 8)


def validation(codes, *, validation_voxels):
    volume = TrainingVolume(np.zeros(SHAPE, np.uint8), (codes,), (1.0, 1.0, 1.0))
    settings = {"network": {"dimensions": 2}, "learn_from": ["annotation"], "validation_voxels": validation_voxels}
    box = PartBox("a", "validation", (0, 0, 0), SHAPE)
    return Validation({"a": volume}, boxes=[box], settings=settings)


def slices(validated):
    return [z for piece in validated.pieces for z in range(piece.start[0], piece.stop[0])]


def test_neighbouring_slices_are_predicted_as_slabs():
    validated = validation(np.ones(SHAPE, np.uint8), validation_voxels=2**26)
    assert slices(validated) == list(range(40))
    assert len(validated.pieces) == 3  # of at most 16 slices


def test_much_is_thinned_out_evenly_and_foreground_stays():
    codes = np.zeros(SHAPE, np.uint8)
    codes[37, 2:5, 2:5] = 1
    validated = validation(codes, validation_voxels=10 * 64)
    assert slices(validated) == [*range(0, 37, 4), 37]
    assert validated.annotated_voxels == codes.size
