"""Contours and their fusion are those of the definition, worked out by another program."""

import numpy as np
import pytest
from scipy import ndimage

from voxloom.contour_fusion import OPENING, fuse, watershed_contours


def test_markers_are_those_of_the_definition(golden):
    with np.load(golden / "formats_misc.npz") as data:
        opened = ndimage.grey_opening(data["wfuse_prob"], OPENING)
        np.testing.assert_array_equal(ndimage.label(opened < 0.25)[0], data["wfuse_markers"])


def test_contours_are_those_of_the_definition(golden):
    with np.load(golden / "formats_misc.npz") as data:
        contours = watershed_contours(data["wfuse_prob"], marker_below=0.25)
        np.testing.assert_array_equal(contours, data["wfuse_lines"].astype(bool))


@pytest.mark.parametrize(("weight", "name"), [(0.1, "wfuse_w1"), (0.5, "wfuse_w5")])
def test_fused_probabilities_are_those_of_the_definition(golden, weight, name):
    with np.load(golden / "formats_misc.npz") as data:
        contours = watershed_contours(data["wfuse_prob"], marker_below=0.25)
        np.testing.assert_allclose(fuse(data["wfuse_prob"], contours, weight=weight), data[name], rtol=0, atol=1e-12)
