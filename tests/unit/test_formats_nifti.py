"""NIfTI: x first, right-anterior-superior, millimetres or what it states."""

import gzip
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import SimpleITK

from voxloom.errors import FormatError
from voxloom.io import nifti
from voxloom.io.formats import open_source, read_array, write_volume

RAMP = np.arange(5 * 4 * 3, dtype="int16").reshape(5, 4, 3)  # X, Y, Z


def write(path, array=RAMP, *, affine=None, unit="mm"):
    image = nibabel.Nifti1Image(array, np.diag([0.25, 0.5, 2.0, 1.0]) if affine is None else affine)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(("unit", "factor"), [("mm", 1e3), ("micron", 1.0), ("meter", 1e6)])
def test_sizes_are_in_the_stated_unit(tmp_path, suffix, unit, factor):
    source = open_source(write(tmp_path / f"a{suffix}", unit=unit))
    assert source.shape == (3, 4, 5)
    assert source.unit_stated
    np.testing.assert_allclose(source.geometry.spacing_um, np.multiply((2.0, 0.5, 0.25), factor))
    np.testing.assert_array_equal(read_array(source), RAMP.T)


def test_no_unit_is_millimetres_and_said(tmp_path):
    source = open_source(write(tmp_path / "a.nii", unit="unknown"))
    assert not source.unit_stated
    assert source.geometry.spacing_um == (2000.0, 500.0, 250.0)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_voxel_size_of_zero_is_none(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    image = nibabel.Nifti1Image(RAMP, None)
    nibabel.save(image, path)
    opened = gzip.open if suffix == ".nii.gz" else open
    with opened(path, "rb") as file:
        raw = bytearray(file.read())
    raw[80:92] = np.zeros(3, "<f4").tobytes()  # pixdim of X, Y, Z
    with opened(path, "wb") as file:
        file.write(raw)
    assert open_source(path).geometry is None


def test_an_oblique_affine_becomes_directions(tmp_path):
    turn = np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([0.25, 0.5, 2.0])
    affine[:3, 3] = (1.0, 2.0, 3.0)
    geometry = open_source(write(tmp_path / "a.nii", affine=affine)).geometry
    np.testing.assert_allclose(geometry.spacing_um, (2000.0, 500.0, 250.0), rtol=1e-6)
    np.testing.assert_allclose(geometry.origin_um, (3000.0, 2000.0, 1000.0))
    # world (Z, Y, X) of the axes Z, Y, X: X runs along x 0.8, y 0.6
    np.testing.assert_allclose(geometry.directions, [[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]], atol=1e-6)
    assert geometry.space == "right-anterior-superior"


def test_scaled_values_are_real_numbers(tmp_path):
    path = write(tmp_path / "a.nii")
    raw = bytearray(path.read_bytes())
    raw[112:120] = np.array([0.5, 1.0], "<f4").tobytes()  # scl_slope and scl_inter
    path.write_bytes(raw)
    source = open_source(path)
    assert source.dtype == np.float32
    np.testing.assert_allclose(read_array(source), RAMP.T * 0.5 + 1)


def test_a_time_series_is_refused_and_one_frame_is_not(tmp_path):
    with pytest.raises(FormatError, match="time series of 2 frames"):
        open_source(write(tmp_path / "a.nii", np.stack([RAMP] * 2, axis=-1))).require_shape()
    np.testing.assert_array_equal(read_array(open_source(write(tmp_path / "b.nii", RAMP[..., None]))), RAMP.T)


def test_a_stream_is_read_once_for_all_slabs(tmp_path, monkeypatch):
    path = write(tmp_path / "a.nii.gz", np.random.default_rng(0).integers(0, 999, (50, 60, 70)).astype("int16"))
    source = open_source(path)
    loads = []
    load = nifti._load
    monkeypatch.setattr(nifti, "_load", lambda *given, **how: loads.append(given) or load(*given, **how))
    assert len(list(source.read_blocks(4))) == 18
    assert len(loads) == 1


@pytest.mark.parametrize("space", [None, "left-posterior-superior", "right-anterior-superior"])
def test_simpleitk_finds_what_we_write_in_the_same_place(tmp_path, space):
    source = open_source(write(tmp_path / "a.nii"))
    turn = ((1.0, 0.0, 0.0), (0.0, 0.8, -0.6), (0.0, 0.6, 0.8))
    geometry = replace(source.geometry, origin_um=(3000.0, 2000.0, 1000.0), directions=turn, space=space)
    placed = replace(source, geometry=geometry)
    write_volume(tmp_path / "b.nii.gz", placed)
    image = SimpleITK.ReadImage(str(tmp_path / "b.nii.gz"))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image), RAMP.T)
    np.testing.assert_allclose(image.GetSpacing(), (0.25, 0.5, 2.0), rtol=1e-6)
    sign = 1 if space == "left-posterior-superior" else -1  # SimpleITK's world is left-posterior-superior
    np.testing.assert_allclose(image.GetOrigin(), (sign * 1.0, sign * 2.0, 3.0), rtol=1e-6)
    along_x = np.array(image.GetDirection()).reshape(3, 3)[:, 0]
    np.testing.assert_allclose(along_x, (sign * 0.8, sign * 0.6, 0.0), atol=1e-6)


def test_real_files_have_their_stated_size(shared_data):
    vessels = open_source(shared_data / "vessels-lsfm" / "example_vessels_mask.nii.gz")
    np.testing.assert_allclose(vessels.geometry.spacing_um, (2.75, 1.625, 1.625), rtol=1e-6)
    cortex = open_source(shared_data / "xray-s1" / "V2_S1_proj4_x1450-1650_y1450-1650_z895-994_r0.nii")
    assert cortex.shape == (100, 200, 200)
    np.testing.assert_allclose(cortex.geometry.spacing_um, (0.65, 0.65, 0.65), rtol=1e-6)
    assert not cortex.unit_stated
