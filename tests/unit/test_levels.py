"""Percentiles and Otsu's threshold from counts, against NumPy and scikit-image."""

from fractions import Fraction

import numpy as np
import pytest
from skimage.filters import threshold_otsu

from voxloom.errors import VolumeError
from voxloom.levels import Bins, bins_between, bins_of, count_values, grey_range, otsu, percentile, resolve


def _histogram(values):
    bins = bins_of(values.dtype)
    if bins is None:
        bins = bins_between(*grey_range(values), is_integer=values.dtype.kind in "iu")
    return count_values(values, bins), bins


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "int32"])
@pytest.mark.parametrize("percent", ["0", "2.5", "50", "97.5", "99.9", "100"])
def test_percentile_of_integers_is_exact(dtype, percent):
    values = np.random.default_rng(3).normal(20, 30, 999).clip(-100, 100).astype(dtype)
    expected = np.percentile(values, float(percent), method="inverted_cdf")
    assert resolve(f"p{percent}", *_histogram(values)) == expected


def test_every_integer_is_counted_once_in_its_bin():
    values = np.array([-32768, -32768, 5, 32767, 5, 5, 5], np.int16)
    counts, bins = _histogram(values)
    assert {int(bins.value(k)): int(counts[k]) for k in np.flatnonzero(counts)} == {-32768: 2, 5: 4, 32767: 1}
    far = np.array([10**6, 10**6 + 3, 10**6 + 3], np.int32)
    assert _histogram(far)[0].tolist() == [1, 0, 0, 2]


def test_percentile_is_the_nearest_rank():
    counts, bins = np.array([195, 5]), Bins(0.0, 1.0, 2)  # rank 195 of 200 is the last of the first bin
    assert percentile(counts, bins, Fraction("97.5")) == 0.0
    assert percentile(counts, bins, Fraction("97.6")) == 1.0


def test_percentile_of_floats_is_within_one_bin():
    values = np.random.default_rng(3).normal(0.3, 0.1, 5000).astype(np.float32)
    width = (values.max() - values.min()) / 65536
    expected = np.percentile(values, 97.5, method="inverted_cdf")
    assert 0 <= expected - resolve("p97.5", *_histogram(values)) <= width


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_otsu_separates_as_scikit_image_does(dtype):
    rng = np.random.default_rng(3)
    values = np.concatenate([rng.normal(60, 12, 700), rng.normal(140, 20, 300)]).clip(0, 255).astype(dtype)
    upper = values >= otsu(*_histogram(values))
    reference = threshold_otsu(values, nbins=65536) if dtype == "float32" else threshold_otsu(values)
    np.testing.assert_array_equal(upper, values > reference)


def test_otsu_of_two_values_is_the_larger():
    values = np.array([7, 7, 7, 200], np.uint8)
    assert otsu(*_histogram(values)) == 200.0


def test_otsu_of_one_value_is_refused():
    with pytest.raises(VolumeError, match="needs two different grey values, the image has only 7;"):
        otsu(*_histogram(np.full(9, 7, np.uint8)))


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_values_that_are_no_numbers_have_no_percentile(odd):
    with pytest.raises(VolumeError, match="values that are not finite numbers"):
        grey_range(np.array([1.0, odd]))


def test_counts_of_blocks_add_up():
    values = np.random.default_rng(1).integers(0, 60000, (6, 7, 8)).astype(np.int32)
    bins = bins_between(*grey_range(values), is_integer=True)
    np.testing.assert_array_equal(
        count_values(values[:2], bins) + count_values(values[2:], bins), _histogram(values)[0]
    )
