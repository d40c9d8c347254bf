"""MRC: axis order, Angstrom, IMOD's unsigned bytes."""

import mrcfile
import numpy as np
import pytest

from voxloom.errors import FormatError
from voxloom.io.formats import open_source, read_array, write_volume

RAMP = np.arange(3 * 4 * 5, dtype="int16").reshape(3, 4, 5)


def write(path, array=RAMP, *, voxel_size=(10.0, 20.0, 30.0), mapped=(1, 2, 3)):
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(array)
        file.set_volume()
        file.voxel_size = voxel_size
        file.header.mapc, file.header.mapr, file.header.maps = mapped
    return path


def test_sizes_are_in_angstrom_x_first(tmp_path):
    source = open_source(write(tmp_path / "a.mrc"))
    assert source.shape == (3, 4, 5)
    np.testing.assert_allclose(source.geometry.spacing_um, (0.003, 0.002, 0.001), rtol=1e-6)
    np.testing.assert_array_equal(read_array(source), RAMP)


def test_a_file_without_voxel_size_has_none(tmp_path):
    assert open_source(write(tmp_path / "a.mrc", voxel_size=(0.0, 0.0, 0.0))).geometry is None


def test_columns_may_run_along_z(tmp_path):
    source = open_source(write(tmp_path / "a.rec", mapped=(3, 2, 1)))  # fastest axis Z, slowest X
    assert source.shape == (5, 4, 3)
    np.testing.assert_array_equal(read_array(source), RAMP.transpose(2, 1, 0))


def test_unsigned_bytes_of_imod(tmp_path):
    path = write(tmp_path / "a.mrc", (RAMP * 4).astype("uint8").view("int8"))
    raw = bytearray(path.read_bytes())
    raw[152:160] = np.array([1146047817, 0], "<i4").tobytes()
    path.write_bytes(raw)
    source = open_source(path)
    assert source.dtype == np.uint8
    np.testing.assert_array_equal(read_array(source), RAMP * 4)
    raw[156:160] = np.array([1], "<i4").tobytes()  # IMOD's flag of signed bytes
    path.write_bytes(raw)
    assert open_source(path).dtype == np.int8


def test_a_file_that_is_cut_short_is_refused(tmp_path):
    path = write(tmp_path / "a.mrc")
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(FormatError, match=r"a\.mrc is not a whole MRC file.*copy it again"):
        open_source(path)


def test_an_extended_header_longer_than_the_file_is_refused(tmp_path):
    path = write(tmp_path / "a.mrc")
    raw = bytearray(path.read_bytes())
    raw[92:96] = np.array([2**31 - 1], "<i4").tobytes()
    path.write_bytes(raw)
    with pytest.raises(FormatError, match=r"a\.mrc is not a whole MRC file \(its extended header has 2147483647 bytes"):
        open_source(path)


def test_what_we_write_passes_mrcfiles_own_validation(tmp_path, capsys):
    write_volume(tmp_path / "out.mrc", open_source(write(tmp_path / "a.mrc")), slices=2)
    assert mrcfile.validate(tmp_path / "out.mrc"), capsys.readouterr().out
    with mrcfile.open(tmp_path / "out.mrc") as file:
        assert (file.header.dmin, file.header.dmax) == (0, 59)
        np.testing.assert_allclose([file.header.dmean, file.header.rms], [RAMP.mean(), RAMP.std()], rtol=1e-6)
