"""Grey values become the numbers that were promised, or an error."""

import numpy as np
import pytest

from voxloom.errors import ModelError, VolumeError
from voxloom.intensity import Moments, Normalisation


def test_unit_maps_the_types_range_to_0_and_1():
    unit = Normalisation("unit", mean=100.0, deviation=51.0, dtype="uint8")
    np.testing.assert_allclose(unit.apply(np.array([0, 51, 255], dtype=np.uint8)), [0.0, 0.2, 1.0], rtol=1e-6)
    np.testing.assert_allclose(unit.apply(np.array([-32768, 32767], dtype=np.int16)), [0.0, 1.0])
    assert unit.unit_deviation == pytest.approx(0.2)


def test_zscore_gives_zero_mean_and_unit_deviation():
    values = np.random.default_rng(0).integers(0, 60000, 1000).astype(np.uint16)
    moments = Moments().joined(values)
    score = Normalisation("zscore", moments.mean, moments.deviation, "uint16").apply(values)
    assert score.dtype == np.float32
    assert abs(float(score.mean())) < 1e-5
    assert float(score.std()) == pytest.approx(1.0, abs=1e-5)


def test_moments_of_parts_are_those_of_the_whole():
    values = np.random.default_rng(1).normal(1e6, 3.0, 5000)
    moments = Moments()
    for part in np.split(values, [10, 700, 701]):
        moments = moments.joined(part)
    assert moments.mean == pytest.approx(values.mean(), rel=1e-12)
    assert moments.deviation == pytest.approx(values.std(), rel=1e-9)


def test_large_integers_keep_their_differences():
    values = np.array([2**30, 2**30 + 1], dtype=np.int32)
    score = Normalisation("zscore", 2.0**30, 1.0, "int32").apply(values)
    assert score.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(bad):
    values = np.array([0.0, bad], dtype=np.float32)
    with pytest.raises(VolumeError, match="not finite"):
        Normalisation("zscore", 0.0, 1.0, "float32").apply(values)
    with pytest.raises(VolumeError, match="not finite.*training box"):
        Moments().joined(values)


def test_an_image_of_one_value_is_refused():
    with pytest.raises(ModelError, match="deviation of 0.*one value"):
        Normalisation("zscore", 7.0, Moments().joined(np.full(5, 7)).deviation, "uint8")


def test_unit_is_refused_for_floating_point_images():
    with pytest.raises(ModelError, match="image is float32; set it to zscore"):
        Normalisation("unit", 0.0, 1.0, "float32")


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ModelError, match="one of unit, zscore, volume_zscore, histogram, got 'minmax'"):
        Normalisation("minmax", 0.0, 1.0, "uint8")
