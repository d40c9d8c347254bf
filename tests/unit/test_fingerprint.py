"""What a plan knows of the annotation, on drawings that can be measured by hand."""

import numpy as np
import pytest

from voxloom.errors import ModelError, VolumeError
from voxloom.fingerprint import take_fingerprint
from voxloom.labelled import TrainingVolume


def volume(codes, *, spacing_um=(1.0, 1.0, 1.0), image=None):
    image = np.zeros(codes.shape, np.uint8) if image is None else image
    return TrainingVolume(image=image, annotations=(codes,), spacing_um=spacing_um)


def sheets(*, thickness, shape=(8, 64, 64), every=32):
    """Sheets across Y, `thickness` voxels thick."""
    codes = np.zeros(shape, np.uint8)
    for first in range(8, shape[1], every):
        codes[:, first : first + thickness] = 1
    return codes


@pytest.mark.parametrize("thickness", [4, 10])
def test_a_sheet_is_as_thick_as_it_was_drawn(thickness):
    found = take_fingerprint({"a": volume(sheets(thickness=thickness), spacing_um=(4.0, 2.0, 2.0))})
    assert found.thickness_voxels == pytest.approx(thickness, rel=0.25)
    assert found.thickness_um == pytest.approx(2 * found.thickness_voxels)
    assert found.objects == 2
    assert found.object_voxels == 8 * 64 * thickness


def test_counts_what_is_annotated_and_not_what_is_unknown():
    codes = sheets(thickness=8)
    codes[:, :, 32:] = 255
    codes[4:] = 255
    found = take_fingerprint({"a": volume(codes), "unseen": volume(np.full((4, 8, 8), 255, np.uint8))})
    assert found.annotated_voxels == 4 * 64 * 32
    assert found.foreground_share == pytest.approx(2 * 8 / 64)
    assert found.volumes["a"].annotated_extent == (4, 64, 32)
    assert found.shape == (8, 64, 64)
    assert found.depth == 4
    assert found.volumes["unseen"].annotated_voxels == 0


def test_slices_that_go_on_are_told_from_slices_that_do_not():
    alternating = sheets(thickness=8)
    alternating[1::2] = np.roll(alternating[1::2], 16, axis=1)
    assert take_fingerprint({"a": volume(sheets(thickness=8))}).slice_continuity == 1.0
    assert take_fingerprint({"a": volume(alternating)}).slice_continuity == 0.0


def test_the_largest_block_grid_gives_the_sums_of_all_blocks():
    codes = np.zeros((40, 150, 140), np.uint8)
    codes[::2, 70:75, :] = 1
    found = take_fingerprint({"a": volume(codes)})
    assert found.volumes["a"].foreground_voxels == 20 * 5 * 140
    assert found.annotated_blocks == 2 * 2 * 2


def test_no_grey_value_moves_a_fingerprint():
    rng = np.random.default_rng(0)
    codes = sheets(thickness=6)
    images = [rng.integers(0, 255, codes.shape).astype(np.uint8) for _ in range(2)]
    assert len({str(take_fingerprint({"a": volume(codes, image=image)})) for image in images}) == 1


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (255, "nothing is annotated in a"),
        (0, "all 4096 annotated voxels of a are background: foreground is needed, too"),
        (1, "all 4096 annotated voxels of a are foreground: background is needed, too"),
    ],
)
def test_what_nothing_can_be_learnt_from_is_refused(value, message):
    with pytest.raises(ModelError, match=message):
        take_fingerprint({"a": volume(np.full((16, 16, 16), value, np.uint8))})


def test_an_annotation_of_another_shape_is_refused_by_name():
    image = np.zeros((8, 64, 60), np.uint8)
    with pytest.raises(VolumeError, match=r"volume a: image and annotations must have one .* \(8, 64, 60\)"):
        take_fingerprint({"a": volume(sheets(thickness=4), image=image)})
