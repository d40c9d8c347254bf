"""Centre lines of shapes whose centre lines are known."""

import numpy as np
import pytest

from voxloom import skeleton
from voxloom.errors import VolumeError

ISOTROPIC = (1.0, 1.0, 1.0)


def lines(*voxels, shape=(5, 5, 5)):
    mask = np.zeros(shape, bool)
    for voxel in voxels:
        mask[voxel] = True
    return mask


def test_a_rod_thins_to_its_axis():
    rod = np.zeros((5, 5, 20), bool)
    rod[1:4, 1:4] = True
    thin = skeleton.skeletonise(rod)
    assert set(map(tuple, np.argwhere(thin)[:, :2])) == {(2, 2)}
    assert thin.sum() >= 16


def test_length_is_in_micrometres_along_the_steps():
    spacing = (3.0, 2.0, 1.0)
    assert skeleton.skeleton_length_um(lines((0, 0, 0), (1, 0, 0)), spacing_um=spacing) == 3.0
    assert skeleton.skeleton_length_um(lines((0, 0, 0), (0, 1, 0)), spacing_um=spacing) == 2.0
    diagonal = skeleton.skeleton_length_um(lines((0, 0, 0), (1, 1, 1)), spacing_um=spacing)
    assert diagonal == pytest.approx(np.sqrt(14))
    falling = skeleton.skeleton_length_um(lines((0, 1, 1), (1, 0, 0)), spacing_um=spacing)
    assert falling == pytest.approx(np.sqrt(14))


def test_a_corner_is_not_counted_twice():
    corner = lines((0, 0, 0), (0, 0, 1), (0, 1, 1))
    assert skeleton.skeleton_length_um(corner, spacing_um=ISOTROPIC) == 2.0


def test_a_single_voxel_and_nothing_have_no_length():
    assert skeleton.skeleton_length_um(lines((1, 1, 1)), spacing_um=ISOTROPIC) == 0.0
    assert skeleton.skeleton_length_um(lines(), spacing_um=ISOTROPIC) == 0.0


def test_doubling_the_spacing_doubles_the_length():
    mask = np.random.default_rng(0).random((5, 5, 5)) < 0.2
    single = skeleton.skeleton_length_um(mask, spacing_um=(1.0, 1.5, 2.0))
    assert skeleton.skeleton_length_um(mask, spacing_um=(2.0, 3.0, 4.0)) == pytest.approx(2 * single)


def test_a_broken_line_keeps_its_precision_and_loses_sensitivity():
    whole = lines(*[(2, 2, x) for x in range(5)])
    broken = whole.copy()
    broken[2, 2, 2:] = False
    counts = skeleton.centre_line_counts(broken, whole)
    assert counts.predicted_inside == counts.predicted == 2
    assert (counts.true_inside, counts.true) == (2, 5)
    assert counts.cldice == pytest.approx(2 * 0.4 / 1.4)


def test_empty_masks_agree_with_each_other_only():
    assert skeleton.cldice(lines(), lines()) == 1.0
    assert skeleton.cldice(lines(), lines((1, 1, 1))) == 0.0
    assert skeleton.cldice(lines((1, 1, 1)), lines((3, 3, 3))) == 0.0


@pytest.mark.parametrize("mask", [np.zeros((3, 3), np.uint8), np.zeros((2, 2, 2, 2), bool)])
def test_only_masks_have_centre_lines(mask):
    with pytest.raises(VolumeError, match="2D or 3D boolean"):
        skeleton.skeletonise(mask)


def test_masks_of_other_voxels_are_refused():
    with pytest.raises(VolumeError, match="same voxels"):
        skeleton.cldice(lines(), lines(shape=(5, 5, 6)))
