"""Gaussian smoothing, against SciPy and its own promises."""

import numpy as np
import pytest
import scipy.ndimage as ndi

from voxloom.errors import VolumeError
from voxloom.smooth import gaussian, smooth_reach_voxels


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32", "bool"])
def test_equals_scipy_on_anisotropic_voxels(dtype):
    values = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 200, (7, 19, 23)).astype(dtype)
    smoothed = gaussian(values, spacing_um=(3.0, 1.0, 0.5), sigma_um=1.3)
    expected = ndi.gaussian_filter(values.astype(np.float64), sigma=(1.3 / 3, 1.3, 2.6))
    np.testing.assert_allclose(smoothed, expected, rtol=1e-6, atol=1e-7)


def test_kernel_wider_than_the_volume_is_mirrored_again_and_again():
    values = np.random.default_rng(0).random((2, 1, 5))
    smoothed = gaussian(values, spacing_um=(1.0, 1.0, 1.0), sigma_um=3.0)
    np.testing.assert_allclose(smoothed, ndi.gaussian_filter(values, 3.0), rtol=1e-6)


def test_a_constant_stays_that_constant():
    smoothed = gaussian(np.full((5, 6, 7), 255, np.uint8), spacing_um=(2.0, 1.0, 1.0), sigma_um=1.7)
    assert (smoothed == 255).all()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_flipped_input_gives_the_flipped_result(axis):
    values = np.random.default_rng(0).random((6, 7, 8)).astype(np.float32)
    smoothed = gaussian(values, spacing_um=(2.0, 1.0, 1.0), sigma_um=1.7)
    np.testing.assert_array_equal(
        gaussian(np.flip(values, axis), spacing_um=(2.0, 1.0, 1.0), sigma_um=1.7), np.flip(smoothed, axis)
    )


def test_reach_is_four_standard_deviations():
    assert smooth_reach_voxels(spacing_um=(2.0, 1.0, 0.5), sigma_um=1.0) == (2, 4, 8)


def test_says_what_is_wrong():
    with pytest.raises(VolumeError, match="sigma_um must be a positive number of micrometres, got 0"):
        gaussian(np.zeros((2, 2, 2)), spacing_um=(1.0, 1.0, 1.0), sigma_um=0)
    with pytest.raises(VolumeError, match=r"three axes \(Z, Y, X\), got 2"):
        gaussian(np.zeros((2, 2)), spacing_um=(1.0, 1.0, 1.0), sigma_um=1)
