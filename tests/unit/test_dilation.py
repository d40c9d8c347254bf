"""Dilation on bits: words and rows have borders that must not show."""

import numpy as np
import pytest
import scipy.ndimage as ndi

from voxloom.dilation import ball, dilated


@pytest.mark.parametrize("width", [1, 57, 63, 64, 65, 127, 128, 200])
@pytest.mark.parametrize("reach", [0.5, 1.0, 7.0, 70.0])
def test_is_the_distance_at_most_the_reach_in_rows_of_any_width(width, reach):
    mask = np.random.default_rng(width).random((3, 4, width)) < 0.02
    mask[1, 2, width // 2] = True
    spacing_um = (2.0, 1.5, 1.0)
    np.testing.assert_array_equal(
        dilated(mask, spacing_um, reach), ndi.distance_transform_edt(~mask, sampling=spacing_um) <= reach
    )


def test_the_end_of_a_row_is_not_beside_the_beginning_of_the_next():
    mask = np.zeros((3, 5, 128), bool)
    mask[1, 2, [0, 127]] = True
    grown = dilated(mask, (9.0, 9.0, 1.0), 3.0)
    np.testing.assert_array_equal(np.flatnonzero(grown[1, 2]), [0, 1, 2, 3, 124, 125, 126, 127])
    assert grown.sum() == 8


def test_a_ball_larger_than_the_array_is_cut_off():
    assert ball((2, 1, 3), (1.0, 1.0, 1.0), 100.0).tolist() == [[2], [2]]
    mask = np.zeros((2, 1, 3), bool)
    assert not dilated(mask, (1.0, 1.0, 1.0), 100.0).any()
    mask[1, 0, 2] = True
    assert dilated(mask, (1.0, 1.0, 1.0), 100.0).all()


def test_the_mask_is_not_modified_and_may_be_any_view():
    mask = np.random.default_rng(3).random((6, 70, 9)) < 0.1
    before = mask.copy()
    turned = mask.transpose(2, 0, 1)
    expected = ndi.distance_transform_edt(~turned) <= 2.0
    np.testing.assert_array_equal(dilated(turned, (1.0, 1.0, 1.0), 2.0), expected)
    np.testing.assert_array_equal(mask, before)
