"""Conversion: voxel size made sure, header and checksum kept, memory bounded, refusals that say what to do."""

import hashlib
import logging
from dataclasses import replace

import numpy as np
import pytest
import tifffile

from voxloom import io
from voxloom.convert import BASE_MIB, checksum, convert, convert_file, slab_slices, with_voxel_size
from voxloom.errors import FormatError, VolumeError
from voxloom.io.formats import open_source, read_array
from voxloom.volume import Geometry, Quantisation

RAMP = np.arange(3 * 4 * 5, dtype="uint8").reshape(3, 4, 5)


def nrrd(path, array=RAMP, *, spacing="0.25 0.5 2", unit=None, keys=""):
    lines = [
        "NRRD0004",
        f"type: {array.dtype.name.replace('float32', 'float')}",
        "dimension: 3",
        f"sizes: {' '.join(map(str, array.shape[::-1]))}",
        "encoding: raw",
        *(["endian: little"] if array.dtype.itemsize > 1 else []),
        *([f"spacings: {spacing}"] if spacing else []),
        *([f'units: "{unit}" "{unit}" "{unit}"'] if unit else []),
        *([keys] if keys else []),
    ]
    path.write_bytes("\n".join(lines).encode() + b"\n\n" + array.tobytes())
    return path


def test_a_store_has_the_voxels_the_size_the_header_and_the_checksum(tmp_path):
    path = nrrd(tmp_path / "a.nrrd", unit="um", keys="specimen:=mouse 7")
    convert_file(path, tmp_path / "a.zarr", memory_mib=512)
    volume = io.open_volume(tmp_path / "a.zarr")
    np.testing.assert_array_equal(volume[...], RAMP)
    assert volume.spacing_um == (2.0, 0.5, 0.25)
    assert volume.kind == "image"
    assert volume.metadata["header"]["key_values"] == {"specimen": "mouse 7"}
    assert volume.metadata["source"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert volume.metadata["source"]["bytes"] == path.stat().st_size
    assert volume.metadata["unit_stated"] is True


def test_a_conversion_without_compression_holds_the_values_as_they_are(tmp_path):
    values = np.random.default_rng(0).integers(1, 7, (64, 64, 64)).astype("uint8")  # noise of less than 3 bits
    path = nrrd(tmp_path / "a.nrrd", values, unit="um")
    sizes = {}
    for compression in ("zstd", "none"):
        store = tmp_path / f"{compression}.zarr"
        convert_file(path, store, memory_mib=512, compression=compression)
        np.testing.assert_array_equal(io.open_volume(store)[...], values)
        sizes[compression] = sum(file.stat().st_size for file in (store / "0").rglob("*") if file.is_file())
    assert sizes["zstd"] < 0.5 * values.nbytes < values.nbytes < sizes["none"]


def test_no_voxel_size_is_refused_until_one_is_given(tmp_path):
    path = nrrd(tmp_path / "a.nrrd", spacing=None)
    with pytest.raises(FormatError, match=r"a\.nrrd states no voxel size.*voxel_size_um in volumes\.tsv"):
        convert_file(path, tmp_path / "a.zarr", memory_mib=512)
    assert not (tmp_path / "a.zarr").exists()
    convert_file(path, tmp_path / "a.zarr", memory_mib=512, voxel_size_um=(3.0, 2.0, 1.0))
    assert io.open_volume(tmp_path / "a.zarr").spacing_um == (3.0, 2.0, 1.0)


def test_an_unstated_unit_that_makes_no_sense_is_refused(tmp_path):
    source = open_source(nrrd(tmp_path / "a.nrrd", spacing="1.17 1.17 1.17"))
    with pytest.raises(
        FormatError, match=r"1\.17 x 1\.17 x 1\.17 without a unit; read as mm that would be 1170 x 1170 x 1170 um"
    ):
        with_voxel_size(source)
    assert with_voxel_size(source, unit_when_unstated="um").geometry.spacing_um == pytest.approx((1.17, 1.17, 1.17))
    assert with_voxel_size(source, voxel_um_range=(1.0, 2000.0)).geometry.spacing_um == pytest.approx((1170.0,) * 3)


def test_a_stated_unit_is_believed_whatever_the_size(tmp_path):
    source = open_source(nrrd(tmp_path / "a.nrrd", spacing="5 5 5", unit="mm"))
    believed = with_voxel_size(source, unit_when_unstated="um")
    assert believed.geometry.spacing_um == (5000.0, 5000.0, 5000.0)
    assert "5000 x 5000 x 5000 um is outside 0.0001 to 100 um: is the unit right?" in believed.warnings[-1]


def test_the_place_follows_where_only_the_unit_was_wrong(tmp_path):
    keys = "axis mins: 4.875 9.75 19"  # the first voxel's near face
    source = open_source(nrrd(tmp_path / "a.nrrd", keys=keys))
    assert source.geometry.origin_um == (20000.0, 10000.0, 5000.0)
    moved = with_voxel_size(source, voxel_size_um=(2.0, 0.5, 0.25))
    assert moved.geometry.origin_um == pytest.approx((20.0, 10.0, 5.0))
    assert with_voxel_size(source, unit_when_unstated="um").geometry.origin_um == pytest.approx((20.0, 10.0, 5.0))


def test_a_voxel_size_that_contradicts_the_file_wins_with_a_warning(tmp_path, caplog, monkeypatch):
    path = nrrd(tmp_path / "a.nrrd", unit="um")
    monkeypatch.setattr(logging.getLogger("voxloom"), "propagate", True)
    convert_file(path, tmp_path / "a.zarr", memory_mib=512, voxel_size_um=(2.0, 0.5, 0.3))
    volume = io.open_volume(tmp_path / "a.zarr")
    assert volume.spacing_um == (2.0, 0.5, 0.3)
    assert "file states voxels of 2 x 0.5 x 0.25 um" in volume.metadata["warnings"][0]
    assert "file states voxels of 2 x 0.5 x 0.25 um" in caplog.text


def test_a_difference_of_rounding_is_no_contradiction(tmp_path):
    source = open_source(nrrd(tmp_path / "a.nrrd", unit="um"))
    assert not with_voxel_size(source, voxel_size_um=(2.001, 0.5, 0.25)).warnings


@pytest.mark.parametrize("size", [(0.0, 1.0, 1.0), (1.0, -1.0, 1.0), (1.0, 1.0, float("nan"))])
def test_a_voxel_size_that_is_none_is_refused(tmp_path, size):
    with pytest.raises(VolumeError, match="three positive numbers"):
        with_voxel_size(open_source(nrrd(tmp_path / "a.nrrd")), voxel_size_um=size)


def test_a_file_with_other_than_the_expected_slices_is_refused(tmp_path):
    path = nrrd(tmp_path / "a.nrrd", unit="um")
    with pytest.raises(FormatError, match=r"a\.nrrd has 3 slices, expected 4"):
        convert_file(path, tmp_path / "a.zarr", memory_mib=512, slices=4)
    convert_file(path, tmp_path / "a.zarr", memory_mib=512, slices=3)


def test_a_short_file_leaves_nothing_behind(tmp_path):
    path = nrrd(tmp_path / "a.nrrd", unit="um")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FormatError, match=r"a\.nrrd"):
        convert_file(path, tmp_path / "a.zarr", memory_mib=512)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.nrrd"]


def test_a_source_that_hands_out_too_little_is_refused(tmp_path):
    source = open_source(nrrd(tmp_path / "a.nrrd", unit="um"))
    short = replace(source, read_blocks=lambda slices: iter(list(source.read_blocks(1))[:-1]))
    with pytest.raises(FormatError, match="ends after 40 of 60 voxels"):
        convert(short, tmp_path / "a.zarr", memory_mib=512)
    assert not (tmp_path / "a.zarr").exists()


def test_any_memory_gives_the_same_store(tmp_path):
    array = np.random.default_rng(0).integers(0, 255, (150, 64, 96)).astype("uint8")
    path = nrrd(tmp_path / "a.nrrd", array, unit="um")
    stores = []
    for number, memory_mib in enumerate((BASE_MIB + 0.05, BASE_MIB + 1, 512)):
        convert_file(path, tmp_path / f"{number}" / "a.zarr", memory_mib=memory_mib)
        folder = tmp_path / f"{number}" / "a.zarr"
        files = [file for file in folder.rglob("*") if file.is_file()]
        stores.append({file.relative_to(folder): file.read_bytes() for file in files})
    assert stores[0] == stores[1] == stores[2]


def test_slabs_fit_the_memory_and_too_little_names_what_would_do(tmp_path):
    source = open_source(nrrd(tmp_path / "a.nrrd"))
    big = replace(source, shape=(2000, 8192, 8192))  # slices of 64 MiB, four of which must fit
    assert slab_slices(big, memory_mib=BASE_MIB + 1024) == 4
    assert slab_slices(big, memory_mib=1 << 20) == 64
    with pytest.raises(VolumeError, match=rf"slices of 64 MiB, which need {BASE_MIB + 256} MiB.*memory_mib is 300"):
        slab_slices(big, memory_mib=300)


def test_a_file_that_is_passed_over_for_every_slab_gets_thick_ones(tmp_path):
    source = open_source(nrrd(tmp_path / "a.nrrd"), axes="XYZ")
    big = replace(source, shape=(2000, 1024, 1024))
    assert slab_slices(big, memory_mib=BASE_MIB + 4096) == 1024


def test_values_that_are_no_numbers_are_counted_and_said(tmp_path, caplog, monkeypatch):
    array = RAMP.astype("float32")
    array[0, 0, :2] = np.nan, np.inf
    monkeypatch.setattr(logging.getLogger("voxloom"), "propagate", True)
    convert_file(nrrd(tmp_path / "a.nrrd", array, unit="um"), tmp_path / "a.zarr", memory_mib=512)
    assert io.open_volume(tmp_path / "a.zarr").metadata["nonfinite_voxels"] == 2
    assert "2 voxels are not finite" in caplog.text


def test_float64_stays_float64(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", RAMP / 3, photometric="minisblack")
    convert_file(tmp_path / "a.tif", tmp_path / "a.zarr", memory_mib=512, voxel_size_um=(1.0, 1.0, 1.0))
    np.testing.assert_array_equal(io.open_volume(tmp_path / "a.zarr")[...], RAMP / 3)


def test_a_quantised_store_keeps_its_quantisation_and_kind(tmp_path):
    quantisation = Quantisation(0.25, 0.0, "micrometer")
    with io.create_volume(
        tmp_path / "d.zarr", shape=RAMP.shape, dtype="uint8", geometry=Geometry((1.0, 1.0, 1.0)), kind="distance",
        quantisation=quantisation,
    ) as out:  # fmt: skip
        out[...] = RAMP
    convert_file(tmp_path / "d.zarr", tmp_path / "e.zarr", memory_mib=512)
    volume = io.open_volume(tmp_path / "e.zarr")
    assert (volume.kind, volume.quantisation) == ("distance", quantisation)


def test_a_checksum_of_several_files_is_that_of_their_list(tmp_path):
    for number in range(2):
        tifffile.imwrite(tmp_path / f"s{number}.tif", RAMP[number])
    lines = "".join(
        f"{hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()}  {name}\n" for name in ("s0.tif", "s1.tif")
    )
    assert checksum(open_source(tmp_path)) == hashlib.sha256(lines.encode()).hexdigest()
    assert checksum(open_source(tmp_path / "*.tif")) == hashlib.sha256(lines.encode()).hexdigest()


def test_a_file_is_not_converted_onto_itself_or_over_a_folder_of_other_things(tmp_path):
    path = nrrd(tmp_path / "a.nrrd", unit="um")
    with pytest.raises(FormatError, match="onto itself"):
        convert_file(path, path, memory_mib=512)
    (tmp_path / "b.zarr").mkdir()
    (tmp_path / "b.zarr" / "thesis.docx").write_text("dear")
    with pytest.raises(FormatError, match=r"b\.zarr is a folder that holds no Zarr store"):
        convert_file(path, tmp_path / "b.zarr", memory_mib=512)
    assert (tmp_path / "b.zarr" / "thesis.docx").exists()


def test_the_real_cube_goes_out_as_nrrd_and_comes_back(shared_data, tmp_path):
    cube = shared_data / "xray-thc" / "test_cube2"
    convert_file(cube, tmp_path / "c.zarr", axes="XYZ", memory_mib=512, voxel_size_um=(1.17,) * 3, slices=200)
    convert_file(tmp_path / "c.zarr", tmp_path / "c.nrrd", memory_mib=512)
    back = open_source(tmp_path / "c.nrrd")
    np.testing.assert_allclose(back.geometry.spacing_um, (1.17,) * 3)
    np.testing.assert_array_equal(read_array(back), io.open_volume(tmp_path / "c.zarr")[...])
    first = tifffile.imread(cube / "test_cube2_0000.tif")  # x = 0: rows Y, columns Z
    np.testing.assert_array_equal(read_array(back)[:, :, 0], first.T)


def test_no_file_of_the_input_is_overwritten(tmp_path):
    header = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 2 2 2\nencoding: raw\nspacings: 1 1 1\ndata file: data.nrrd\n"
    (tmp_path / "a.nhdr").write_text(header)
    (tmp_path / "data.nrrd").write_bytes(bytes(range(8)))
    with pytest.raises(FormatError, match="would overwrite .*data.nrrd, which holds voxels of"):
        convert_file(tmp_path / "a.nhdr", tmp_path / "data.nrrd", memory_mib=512)
    assert (tmp_path / "data.nrrd").read_bytes() == bytes(range(8))
