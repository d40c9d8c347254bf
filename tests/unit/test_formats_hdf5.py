"""HDF5: which dataset, which axes, which voxel size."""

import json

import h5py
import numpy as np
import pytest

from voxloom.errors import FormatError
from voxloom.io.formats import open_source, read_array

RAMP = np.arange(3 * 4 * 5, dtype="uint16").reshape(3, 4, 5)


def write(path, **datasets):
    with h5py.File(path, "w") as file:
        for name, array in datasets.items():
            file[name.replace("__", "/")] = array
    return path


def test_the_only_array_is_taken_by_itself(tmp_path):
    path = write(tmp_path / "a.h5", group__raw=RAMP, table=np.arange(3))
    np.testing.assert_array_equal(read_array(open_source(path)), RAMP)


def test_several_arrays_are_listed(tmp_path):
    path = write(tmp_path / "a.h5", raw=RAMP, label=RAMP)
    with pytest.raises(FormatError, match=r"holds 2 arrays.*a\.h5::/label.*/label \(3, 4, 5\) uint16, /raw"):
        open_source(path)
    np.testing.assert_array_equal(read_array(open_source(f"{path}::/raw")), RAMP)
    np.testing.assert_array_equal(read_array(open_source(f"{path}::label")), RAMP)


def test_a_dataset_that_is_not_there_is_answered_with_those_that_are(tmp_path):
    path = write(tmp_path / "a.h5", raw=RAMP)
    with pytest.raises(FormatError, match=r"no dataset '/Raw'; its arrays are: /raw"):
        open_source(f"{path}::/Raw")


def test_voxel_size_of_ilastik_and_plantseg(tmp_path):
    path = write(tmp_path / "a.h5", raw=RAMP)
    with h5py.File(path, "a") as file:
        file["raw"].attrs["element_size_um"] = (2.0, 0.5, 0.25)
    source = open_source(path)
    assert source.geometry.spacing_um == (2.0, 0.5, 0.25)
    assert source.unit_stated
    turned = open_source(path, axes="XYZ")
    assert turned.geometry.spacing_um == (0.25, 0.5, 2.0)
    np.testing.assert_array_equal(read_array(turned), RAMP.transpose(2, 1, 0))


def test_axistags_say_where_the_channels_are(tmp_path):
    array = np.arange(3 * 4 * 5 * 2, dtype="uint8").reshape(3, 4, 5, 2)
    path = write(tmp_path / "a.h5", raw=array)
    with h5py.File(path, "a") as file:
        file["raw"].attrs["axistags"] = json.dumps({"axes": [{"key": key} for key in "zyxc"]})
    np.testing.assert_array_equal(read_array(open_source(path)), np.moveaxis(array, -1, 0))


def test_cremi_resolution_is_in_nanometres(tmp_path):
    path = write(tmp_path / "a.h5", volumes__raw=RAMP)
    with h5py.File(path, "a") as file:
        file.attrs["file_format"] = "0.2"
        file["volumes/raw"].attrs["resolution"] = (40.0, 4.0, 4.0)
    source = open_source(path)
    np.testing.assert_allclose(source.geometry.spacing_um, (0.04, 0.004, 0.004))
    assert "nanometres" in source.warnings[0]


def test_a_voxel_size_that_is_no_size_is_left_out_and_said(tmp_path):
    path = write(tmp_path / "a.h5", raw=RAMP)
    with h5py.File(path, "a") as file:
        file["raw"].attrs["element_size_um"] = (2.0, 0.0, np.nan)
    source = open_source(path)
    assert source.geometry is None
    assert "not three positive numbers" in source.warnings[0]


def test_masks_of_booleans_are_zeros_and_ones(tmp_path):
    source = open_source(write(tmp_path / "a.h5", mask=RAMP > 7))
    assert source.dtype == np.uint8
    np.testing.assert_array_equal(read_array(source), RAMP > 7)


def test_complex_numbers_are_no_volume(tmp_path):
    source = open_source(write(tmp_path / "a.h5", raw=RAMP.astype("complex64")))
    with pytest.raises(FormatError, match="holds complex64 values; expected integers or real"):
        source.require_shape()


def test_an_empty_array_is_no_volume(tmp_path):
    source = open_source(write(tmp_path / "a.h5", raw=RAMP[:0]))
    with pytest.raises(FormatError, match=r"is empty: its array has shape \(0, 4, 5\)"):
        source.require_shape()


def test_real_data_of_two_programs(shared_data):
    confocal = open_source(f"{shared_data}/confocal-cells/sample_ovule.h5::/raw")
    np.testing.assert_allclose(confocal.geometry.spacing_um, (0.235, 0.15, 0.15))
    cremi = open_source(shared_data / "fib25-gala" / "cremi-example.h5")
    np.testing.assert_allclose(cremi.geometry.spacing_um, (0.04, 0.004, 0.004))
    assert open_source(shared_data / "fib25-gala" / "test-image.h5").geometry is None
