"""Distances, growth and small-object removal equal those of SciPy, SimpleITK, VTK, cc3d and scikit-image."""

import numpy as np
import pytest

from voxloom.distance import clipped_distance, grow, grow_reach_voxels
from voxloom.instances import label_objects, remove_small_objects

CASES = range(5)


@pytest.fixture(scope="module")
def reference(golden):
    with np.load(golden / "edt_grow_cc.npz", allow_pickle=False) as file:
        return dict(file)


def _case(reference, case):
    return reference[f"m{case}"], tuple(reference[f"m{case}_spacing_zyx"].tolist())


@pytest.mark.parametrize("case", CASES)
def test_distance_to_the_foreground(reference, case):
    mask, spacing_um = _case(reference, case)
    distance = clipped_distance(mask, spacing_um=spacing_um, clip_um=1000.0)
    np.testing.assert_array_equal(distance, reference[f"m{case}_edt_bg"])


@pytest.mark.parametrize("case", CASES)
def test_distance_to_the_background(reference, case):
    mask, spacing_um = _case(reference, case)
    distance = clipped_distance(~mask, spacing_um=spacing_um, clip_um=1000.0)
    np.testing.assert_array_equal(distance, reference[f"m{case}_edt_fg"])


@pytest.mark.parametrize("case", CASES)
def test_distance_clipped_at_ten_micrometres(reference, case):
    mask, spacing_um = _case(reference, case)
    distance = clipped_distance(mask, spacing_um=spacing_um, clip_um=10.0)
    np.testing.assert_array_equal(distance, reference[f"m{case}_edt_bg_clip10"])


@pytest.mark.parametrize("case", CASES)
def test_growth_by_four_micrometres_takes_ties_in(reference, case):
    mask, spacing_um = _case(reference, case)
    np.testing.assert_array_equal(grow(mask, spacing_um=spacing_um, grow_um=4.0), reference[f"m{case}_grow4um"])


def test_growth_equals_that_of_3d_slicer_where_there_are_no_ties(reference):
    for case in range(4):
        mask, spacing_um = _case(reference, case)
        grown = grow(mask, spacing_um=spacing_um, grow_um=4.0)
        np.testing.assert_array_equal(grown, reference[f"m{case}_grow4um_itk"])


@pytest.mark.parametrize("case", CASES)
def test_legacy_growth_equals_that_of_old_3d_slicer(reference, case):
    mask, spacing_um = _case(reference, case)
    grown = grow(mask, spacing_um=spacing_um, grow_um=4.0, mode="slicer_legacy")
    np.testing.assert_array_equal(grown, reference[f"m{case}_grow4_legacy_slicer"])
    reach = grow_reach_voxels(spacing_um=spacing_um, grow_um=4.0, mode="slicer_legacy")
    assert [2 * voxels + 1 for voxels in reach] == reference[f"m{case}_legacy_kernel_zyx"].tolist()


@pytest.mark.parametrize("connectivity", [6, 18, 26])
def test_small_objects_are_those_of_cc3d_and_scikit_image(reference, connectivity):
    shape = tuple(reference["rso_shape"])

    def unpacked(name):
        return np.unpackbits(reference[name])[: np.prod(shape)].reshape(shape).astype(bool)

    mask = unpacked("rso_mask")
    kept = remove_small_objects(mask, min_size_voxels=int(reference["rso_min_size"]), connectivity=connectivity)
    np.testing.assert_array_equal(kept, unpacked(f"rso_keep_c{connectivity}"))
    assert label_objects(mask, connectivity=connectivity)[1] == reference[f"rso_n_c{connectivity}"]
