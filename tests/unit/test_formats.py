"""Every format through one door: by suffix in, by suffix out, voxels and voxel size unchanged."""

from pathlib import Path

import numpy as np
import pytest

from voxloom import io
from voxloom.errors import FormatError
from voxloom.io import tiff
from voxloom.io.formats import READERS, WRITERS, open_source, read_array, write_volume
from voxloom.volume import PROBABILITY, Geometry, Quantisation

GEOMETRY = Geometry(spacing_um=(2.0, 0.5, 0.25), origin_um=(10.0, -20.0, 30.0))


def ramp(dtype="uint16", shape=(3, 4, 5)):
    """Every voxel its own number, three different sizes: no transposition goes unseen."""
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def stored(path: Path, array, *, kind="image", quantisation=None, geometry=GEOMETRY) -> Path:
    with io.create_volume(
        path, shape=array.shape, dtype=array.dtype, geometry=geometry, kind=kind, quantisation=quantisation
    ) as out:
        out[...] = array
    return path


ORIGINS = {".nrrd", ".seg.nrrd", ".h5", ".hdf5", ".zarr", ".mrc", ".nii", ".nii.gz"}


@pytest.mark.parametrize("suffix", WRITERS)
def test_what_is_written_comes_back(tmp_path, suffix):
    array = ramp("uint8" if suffix == ".seg.nrrd" else "uint16") % 7
    source = open_source(stored(tmp_path / "in.zarr", array))
    write_volume(tmp_path / f"out{suffix}", source, slices=2)
    back = open_source(tmp_path / f"out{suffix}")
    np.testing.assert_array_equal(read_array(back), array)
    assert back.unit_stated
    np.testing.assert_allclose(back.geometry.spacing_um, GEOMETRY.spacing_um, rtol=1e-6)
    if suffix in ORIGINS:
        np.testing.assert_allclose(back.geometry.origin_um, GEOMETRY.origin_um, rtol=1e-6)
    assert not list(tmp_path.glob(".*"))  # nothing temporary is left


@pytest.mark.parametrize("suffix", [".nrrd", ".tif", ".h5", ".nii", ".nii.gz", ".zarr"])
def test_channels_come_back(tmp_path, suffix):
    array = ramp(shape=(2, 3, 4, 5))
    source = open_source(stored(tmp_path / "in.zarr", array))
    write_volume(tmp_path / f"out{suffix}", source, slices=2)
    np.testing.assert_array_equal(read_array(open_source(tmp_path / f"out{suffix}")), array)


@pytest.mark.parametrize("suffix", [".nrrd", ".h5", ".zarr", ".nii.gz"])
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "uint64", "float32", "float64"])
def test_types_come_back(tmp_path, suffix, dtype):
    array = ramp(dtype)
    write_volume(tmp_path / f"out{suffix}", open_source(stored(tmp_path / "in.zarr", array)))
    back = read_array(open_source(tmp_path / f"out{suffix}"))
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize("axes", ["XYZ", "YZX", "ZXY", "XZY", "YXZ", "ZYX"])
@pytest.mark.parametrize("suffix", [".nrrd", ".tif", ".h5", ".zarr", ".mrc", ".nii.gz"])
def test_axes_rename_what_the_file_holds(tmp_path, suffix, axes):
    array = ramp()  # its axes are not Z, Y, X but `axes`
    write_volume(tmp_path / f"out{suffix}", open_source(stored(tmp_path / "in.zarr", array)))
    source = open_source(tmp_path / f"out{suffix}", axes=axes)
    order = [axes.index(axis) for axis in "ZYX"]
    expected = array.transpose(order)
    assert source.shape == expected.shape
    for slices in (1, 2, 64):
        back = np.zeros(source.shape, source.dtype)
        for index, block in source.read_blocks(slices):
            assert block.flags.c_contiguous
            assert block.shape[0] <= slices
            back[index] += block
        np.testing.assert_array_equal(back, expected)
    np.testing.assert_allclose(source.geometry.spacing_um, [GEOMETRY.spacing_um[n] for n in order], rtol=1e-6)


def test_axes_that_are_no_order_of_zyx_are_refused(tmp_path):
    write_volume(tmp_path / "a.nrrd", open_source(stored(tmp_path / "in.zarr", ramp())))
    with pytest.raises(FormatError, match="order of the letters Z, Y and X.*'XYT'"):
        open_source(tmp_path / "a.nrrd", axes="XYT")


def test_a_segmentation_names_its_values(tmp_path):
    array = np.array([0, 1, 255, 0, 1, 255], "uint8").reshape(1, 2, 3)
    write_volume(tmp_path / "a.seg.nrrd", open_source(stored(tmp_path / "in.zarr", array, kind="annotation")))
    segments = open_source(tmp_path / "a.seg.nrrd").segments
    assert {segment.label_value: segment.name for segment in segments} == {1: "foreground", 255: "not annotated"}


def test_too_many_values_are_no_segments(tmp_path):
    array = ramp(shape=(4, 8, 9))
    with pytest.raises(FormatError, match="more than 255 values"):
        write_volume(tmp_path / "a.seg.nrrd", open_source(stored(tmp_path / "in.zarr", array)))
    assert not (tmp_path / "a.seg.nrrd").exists()


def test_quantised_values_are_handed_out_as_stored_and_say_so(tmp_path):
    array = ramp("uint8")
    source = open_source(stored(tmp_path / "p.zarr", array, kind="probability", quantisation=PROBABILITY))
    assert "stored integers" in source.warnings[0]
    np.testing.assert_array_equal(read_array(source), array)


def test_quantised_values_are_decoded_on_request(tmp_path):
    quantisation = Quantisation(scale=0.5, offset=-1.0, unit="micrometer")
    path = stored(tmp_path / "d.zarr", ramp("uint8"), kind="distance", quantisation=quantisation)
    source = open_source(path, decode=True)
    assert source.dtype == np.float32
    assert not source.warnings
    np.testing.assert_array_equal(read_array(source), ramp("float32") * 0.5 - 1)


def test_an_unknown_suffix_lists_the_known_ones(tmp_path):
    (tmp_path / "a.xyz").write_text("x")
    with pytest.raises(FormatError, match=r"a\.xyz has no suffix.*\.nrrd.*\.nii\.gz.*\.zarr"):
        open_source(tmp_path / "a.xyz")
    source = open_source(stored(tmp_path / "in.zarr", ramp()))
    with pytest.raises(FormatError, match=r"known: \.nrrd, \.seg\.nrrd, \.tif"):
        write_volume(tmp_path / "a.xyz", source)


def test_a_missing_file_is_named_with_the_closest_one(tmp_path):
    (tmp_path / "brain-01.nrrd").write_text("")
    with pytest.raises(FormatError, match=r"brain_01\.nrrd does not exist; the closest name.*brain-01\.nrrd"):
        open_source(tmp_path / "brain_01.nrrd")
    with pytest.raises(FormatError, match="there is no folder"):
        open_source(tmp_path / "no" / "such" / "a.nrrd")


@pytest.mark.parametrize("suffix", READERS)
def test_an_empty_file_is_refused_by_its_name(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"")
    with pytest.raises(FormatError, match=f"a{suffix}.*empty"):
        open_source(path)


@pytest.mark.parametrize("suffix", READERS)
def test_a_text_file_with_another_suffix_is_refused(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_text("# not a volume at all\n" * 100)
    with pytest.raises(FormatError, match=f"a{suffix}"):
        open_source(path)


@pytest.mark.parametrize("suffix", [".nrrd", ".tif", ".h5", ".mrc", ".nii", ".nii.gz"])
def test_a_truncated_file_is_refused(tmp_path, suffix):
    array = np.random.default_rng(0).integers(0, 60000, (20, 30, 40)).astype("uint16")
    whole = tmp_path / f"whole{suffix}"
    write_volume(whole, open_source(stored(tmp_path / "in.zarr", array)))
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(whole.read_bytes()[:-2000])
    with pytest.raises(FormatError, match=f"cut{suffix}"):
        read_array(open_source(cut))


@pytest.mark.parametrize("suffix", [".nrrd", ".tif", ".h5", ".mrc", ".nii", ".nii.gz"])
def test_damage_anywhere_is_refused_and_never_another_error(tmp_path, suffix):
    array = np.random.default_rng(0).integers(0, 60000, (6, 20, 30)).astype("uint16")
    write_volume(tmp_path / f"whole{suffix}", open_source(stored(tmp_path / "in.zarr", array)))
    whole = (tmp_path / f"whole{suffix}").read_bytes()
    path = tmp_path / f"a{suffix}"
    rng = np.random.default_rng(1)
    refused = []
    for _ in range(60):
        damaged = bytearray(whole[: rng.integers(1, len(whole))] if rng.random() < 0.5 else whole)
        for at in rng.integers(0, min(len(damaged), 1500), 4):
            damaged[at] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            source = open_source(path)
            if source.shape is not None and np.prod(source.shape) < 1e7:
                read_array(source)
        except FormatError as error:
            refused.append(str(error))
    assert len(refused) > 20
    assert all(f"a{suffix}" in message for message in refused)


def test_above_the_limit_of_classic_tiff_a_bigtiff_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(tiff, "CLASSIC_BYTES", 100)
    write_volume(tmp_path / "a.tif", open_source(stored(tmp_path / "in.zarr", ramp())))
    back = open_source(tmp_path / "a.tif")
    assert (back.facts["bigtiff"], back.facts["written_as"]) == (True, "ome")
    np.testing.assert_array_equal(read_array(back), ramp())
    assert back.geometry.spacing_um == GEOMETRY.spacing_um


def test_formats_that_cannot_hold_the_type_say_what_can(tmp_path):
    source = open_source(stored(tmp_path / "in.zarr", ramp("uint64")))
    for suffix in (".tif", ".mrc"):
        with pytest.raises(FormatError, match=r"uint64.*\.zarr"):
            write_volume(tmp_path / f"a{suffix}", source)


@pytest.mark.parametrize("suffix", [".nrrd", ".tif", ".h5", ".nii.gz", ".mrc", ".zarr"])
def test_values_in_file_order_are_those_of_the_array(tmp_path, suffix):
    array = ramp(shape=(3, 40, 50))
    write_volume(tmp_path / f"a{suffix}", open_source(stored(tmp_path / "in.zarr", array)))
    pieces = list(open_source(tmp_path / f"a{suffix}").read_values())
    np.testing.assert_array_equal(np.concatenate(pieces), array.ravel())
