"""Zarr of other writers, and other readers of ours."""

import json

import numpy as np
import pytest
import zarr

from voxloom import io
from voxloom.errors import FormatError
from voxloom.io.formats import open_source, read_array
from voxloom.volume import Geometry

RAMP = np.arange(3 * 4 * 5, dtype="uint16").reshape(3, 4, 5)


def plain(path, array, version):
    store = zarr.create_array(path, shape=array.shape, chunks=(2, 2, 2), dtype=array.dtype, zarr_format=version)
    store[...] = array
    return path


@pytest.mark.parametrize("version", [2, 3])
def test_a_plain_array_of_either_version(tmp_path, version):
    source = open_source(plain(tmp_path / "a.zarr", RAMP, version))
    np.testing.assert_array_equal(read_array(source), RAMP)
    assert source.geometry is None
    np.testing.assert_array_equal(read_array(open_source(tmp_path / "a.zarr", axes="XYZ")), RAMP.transpose(2, 1, 0))


def test_big_endian_values_come_out_native(tmp_path):
    source = open_source(plain(tmp_path / "a.zarr", RAMP.astype(">u2"), 2))
    assert source.dtype == np.dtype("uint16")
    np.testing.assert_array_equal(read_array(source), RAMP)


def ome(path, *, version, unit, axes=("z", "y", "x"), array=RAMP):
    group = zarr.create_group(path, zarr_format=version)
    store = group.create_array("0", shape=array.shape, chunks=array.shape, dtype=array.dtype)
    store[...] = array
    lead = [1.0] * (array.ndim - 3)
    multiscale = {
        "axes": [{"name": n, "type": "space", "unit": unit} if n in "zyx" and unit else {"name": n} for n in axes],
        "datasets": [
            {
                "path": "0",
                "coordinateTransformations": [
                    {"type": "scale", "scale": [*lead, 2.0, 0.5, 0.25]},
                    {"type": "translation", "translation": [*lead, 10.0, 20.0, 30.0]},
                ],
            }
        ],
    }
    if version == 2:
        group.attrs["multiscales"] = [multiscale | {"version": "0.4"}]
    else:
        group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale]}
    return path


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(("unit", "factor"), [("micrometer", 1.0), ("nanometer", 1e-3), ("millimeter", 1e3)])
def test_ome_zarr_of_either_version_in_its_unit(tmp_path, version, unit, factor):
    source = open_source(ome(tmp_path / "a.zarr", version=version, unit=unit))
    np.testing.assert_allclose(source.geometry.spacing_um, np.multiply((2.0, 0.5, 0.25), factor))
    np.testing.assert_allclose(source.geometry.origin_um, np.multiply((10.0, 20.0, 30.0), factor))
    assert source.unit_stated
    np.testing.assert_array_equal(read_array(source), RAMP)


def test_ome_zarr_without_unit_says_so(tmp_path):
    source = open_source(ome(tmp_path / "a.zarr", version=3, unit=None))
    assert not source.unit_stated
    assert "taken as millimetres" in source.warnings[0]


def test_time_of_one_frame_is_left_out_and_channels_stay(tmp_path):
    array = np.arange(2 * 60, dtype="uint8").reshape(1, 2, 3, 4, 5)
    path = ome(tmp_path / "a.zarr", version=3, unit="micrometer", axes=("t", "c", "z", "y", "x"), array=array)
    np.testing.assert_array_equal(read_array(open_source(path)), array[0])


def test_arrays_of_a_group_are_listed_and_named(tmp_path):
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=2)
    for name in ("raw", "labels"):
        group.create_array(f"volumes/{name}", shape=RAMP.shape, chunks=RAMP.shape, dtype=RAMP.dtype)[...] = RAMP
    with pytest.raises(FormatError, match=r"group of 2 arrays.*a\.zarr::/volumes/labels, a\.zarr::/volumes/raw"):
        open_source(tmp_path / "a.zarr")
    np.testing.assert_array_equal(read_array(open_source(f"{tmp_path}/a.zarr::/volumes/raw")), RAMP)
    with pytest.raises(FormatError, match=r"nothing is not a Zarr array or group"):
        open_source(f"{tmp_path}/a.zarr::/nothing")


def test_a_folder_that_only_looks_like_zarr_is_refused(tmp_path):
    (tmp_path / "a.zarr").mkdir()
    with pytest.raises(FormatError, match=r"a\.zarr is not a Zarr array or group"):
        open_source(tmp_path / "a.zarr")
    (tmp_path / "a.zarr" / "zarr.json").write_text("{broken")
    with pytest.raises(FormatError, match="is not JSON"):
        open_source(tmp_path / "a.zarr")


def test_a_damaged_chunk_is_refused(tmp_path):
    path = plain(tmp_path / "a.zarr", RAMP, 2)
    (path / "0.0.0").write_bytes(b"broken")
    with pytest.raises(FormatError, match=r"a chunk of .*a\.zarr can't be read"):
        read_array(open_source(path))


def test_zarr_python_opens_our_store_and_finds_the_same(tmp_path):
    array = np.random.default_rng(0).integers(0, 255, (70, 300, 80)).astype("uint8")
    with io.create_volume(
        tmp_path / "a.zarr", shape=array.shape, dtype="uint8", geometry=Geometry((2.0, 1.0, 1.0)), kind="image"
    ) as out:
        out[...] = array
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")
    np.testing.assert_array_equal(group["0"][...], array)
    assert group.attrs["ome"]["multiscales"][0]["axes"][0] == {"name": "z", "type": "space", "unit": "micrometer"}
    assert json.loads((tmp_path / "a.zarr" / "zarr.json").read_text())["attributes"]["voxloom"]["kind"] == "image"
