"""Measurements of a box and a rod of known size."""

import numpy as np
import pytest

from voxloom.errors import VolumeError
from voxloom.measure import measure_length_um, measure_objects, summarise

SPACING = (2.0, 1.0, 0.5)


def two_objects():
    labels = np.zeros((10, 12, 14), np.uint32)
    labels[2:4, 3:6, 4:8] = 1  # 24 voxels
    labels[:, 9, 10] = 2  # a rod from border to border
    return labels


def test_an_object_is_measured_in_micrometres():
    image = np.arange(10 * 12 * 14, dtype=np.uint16).reshape(10, 12, 14)
    table = measure_objects(two_objects(), objects=2, spacing_um=SPACING, image=image)
    box = table.iloc[0]
    assert (box["label"], box["voxels"], box["volume_um3"]) == (1, 24, 24.0)
    assert (box["centroid_z_um"], box["centroid_y_um"], box["centroid_x_um"]) == (5.0, 4.0, 2.75)
    assert [box[f"{axis}_{end}"] for axis in "zyx" for end in ("from", "to")] == [2, 4, 3, 6, 4, 8]
    assert not box["touches_border"]
    assert table.iloc[1]["touches_border"]
    assert box["mean_grey"] == image[two_objects() == 1].mean()


def test_the_number_of_objects_need_not_be_known():
    known = measure_objects(two_objects(), objects=2, spacing_um=SPACING)
    assert measure_objects(two_objects(), spacing_um=SPACING).equals(known)


def test_an_object_over_several_blocks_is_one_row():
    labels = np.zeros((130, 4, 4), np.uint32)
    labels[10:120, 1, 1] = 1
    table = measure_objects(labels, objects=1, spacing_um=SPACING, threads=2)
    assert len(table) == 1
    assert (table.loc[0, "voxels"], table.loc[0, "z_from"], table.loc[0, "z_to"]) == (110, 10, 120)
    assert np.isnan(table.loc[0, "mean_grey"])


def test_doubling_the_spacing_multiplies_volumes_by_eight():
    single = measure_objects(two_objects(), objects=2, spacing_um=(1.0, 1.0, 1.0))
    double = measure_objects(two_objects(), objects=2, spacing_um=(2.0, 2.0, 2.0))
    np.testing.assert_allclose(double["volume_um3"], 8 * single["volume_um3"])


def test_summary_counts_per_cubic_millimetre():
    table = measure_objects(two_objects(), objects=2, spacing_um=SPACING)
    summary = summarise(table, shape=(10, 12, 14), spacing_um=SPACING, length_um=1680.0).iloc[0]
    assert summary["volume_um3"] == 1680.0
    assert summary["objects_per_mm3"] == pytest.approx(2 / 1680 * 1e9)
    assert summary["volume_fraction"] == pytest.approx(34 / 1680)
    assert summary["length_density_m_per_mm3"] == pytest.approx(1000.0)
    assert summary["mean_diameter_um"] == pytest.approx(2 * np.sqrt(34 / (np.pi * 1680)))


def test_nothing_has_no_mean_but_a_fraction():
    table = measure_objects(np.zeros((2, 2, 2), np.uint32), objects=0, spacing_um=SPACING)
    summary = summarise(table, shape=(2, 2, 2), spacing_um=SPACING, length_um=0.0).iloc[0]
    assert summary["volume_fraction"] == 0.0
    assert np.isnan(summary["median_object_um3"])
    assert np.isnan(summary["mean_diameter_um"])


def test_a_line_over_several_tiles_is_as_long_as_it_is(monkeypatch):
    mask = np.zeros((40, 6, 6), np.uint8)
    mask[2:38, 3, 3] = 1
    monkeypatch.setattr("voxloom.measure.TILE", (7, 7, 7))
    assert measure_length_um(mask, spacing_um=SPACING) == 35 * 2.0


def test_labels_beyond_the_announced_are_refused():
    with pytest.raises(VolumeError, match="labels reach 2, but 1 objects"):
        measure_objects(two_objects(), objects=1, spacing_um=SPACING)
