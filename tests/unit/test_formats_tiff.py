"""TIFF stacks and folders of slices: axes, voxel size, and what is refused."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from voxloom.errors import FormatError
from voxloom.io.formats import open_source, read_array, source_files


def ramp(*shape, dtype="uint16"):
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def test_a_plain_stack_has_no_voxel_size(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", ramp(4, 6, 8), photometric="minisblack", metadata=None)
    source = open_source(tmp_path / "a.tif")
    assert source.shape == (4, 6, 8)
    assert source.geometry is None
    np.testing.assert_array_equal(read_array(source), ramp(4, 6, 8))


@pytest.mark.parametrize(
    ("unit", "factor"), [("um", 1.0), ("micron", 1.0), ("\\u00B5m", 1.0), ("nm", 1e-3), ("mm", 1e3)]
)
def test_imagej_units_as_imagej_writes_them(tmp_path, unit, factor):
    description = f"ImageJ=1.53\nimages=4\nslices=4\nunit={unit}\nspacing=3.0\n"
    tags = {"description": description, "metadata": None, "resolution": (4.0, 2.0), "photometric": "minisblack"}
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for plane in ramp(4, 6, 8):
            writer.write(plane, contiguous=False, **tags)
            tags["description"] = None
    np.testing.assert_allclose(
        open_source(tmp_path / "a.tif").geometry.spacing_um, [3.0 * factor, 0.5 * factor, 0.25 * factor]
    )


def test_pixels_are_no_unit(tmp_path):
    how = {"imagej": True, "resolution": (1.0, 1.0), "metadata": {"axes": "ZYX", "spacing": 1.0, "unit": "pixel"}}
    tifffile.imwrite(tmp_path / "a.tif", ramp(4, 6, 8), **how)
    assert open_source(tmp_path / "a.tif").geometry is None


def test_a_size_in_two_directions_only_is_said_and_not_completed(tmp_path):
    how = {"imagej": True, "resolution": (4.0, 2.0), "metadata": {"axes": "ZYX", "unit": "um"}}
    tifffile.imwrite(tmp_path / "a.tif", ramp(4, 6, 8), **how)
    source = open_source(tmp_path / "a.tif")
    assert source.geometry is None
    assert "Y 0.5 um, X 0.25 um, but not all of Z, Y and X" in source.warnings[0]


def test_ome_physical_sizes_have_units_of_their_own(tmp_path):
    said = {
        "axes": "ZYX", "PhysicalSizeX": 0.25, "PhysicalSizeXUnit": "\u00b5m",
        "PhysicalSizeY": 500, "PhysicalSizeYUnit": "nm", "PhysicalSizeZ": 3,
    }  # fmt: skip
    tifffile.imwrite(tmp_path / "a.ome.tif", ramp(4, 6, 8), metadata=said)
    assert open_source(tmp_path / "a.ome.tif").geometry.spacing_um == (3.0, 0.5, 0.25)


@pytest.mark.parametrize(
    "how", [{}, {"bigtiff": True}, {"compression": "zlib"}, {"byteorder": ">"}, {"tile": (16, 16)}]
)
def test_any_layout_gives_the_same_voxels(tmp_path, how):
    array = ramp(5, 20, 30)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack", **how)
    source = open_source(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_array(source), array)
    np.testing.assert_array_equal(np.concatenate(list(source.read_values())), array.ravel())
    assert source.dtype.isnative


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("axes", ["CZYX", "ZCYX"])
def test_channels_come_first_wherever_the_file_has_them(tmp_path, axes, compression):
    array = ramp(2, 3, 16, 18)  # C, Z, Y, X
    written = array if axes == "CZYX" else array.swapaxes(0, 1)
    tifffile.imwrite(tmp_path / "a.ome.tif", written, metadata={"axes": axes}, compression=compression)
    source = open_source(tmp_path / "a.ome.tif")
    assert source.shape == (2, 3, 16, 18)
    np.testing.assert_array_equal(read_array(source), array)
    written = np.concatenate(list(source.read_values())).reshape(written.shape)
    np.testing.assert_array_equal(written, array if axes == "CZYX" else array.swapaxes(0, 1))


def test_colours_are_channels(tmp_path):
    array = ramp(4, 6, 8, 3, dtype="uint8")
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb")
    np.testing.assert_array_equal(read_array(open_source(tmp_path / "a.tif")), np.moveaxis(array, -1, 0))


def test_bits_are_zeros_and_ones(tmp_path):
    array = (ramp(4, 16, 16) % 3 == 0).astype("uint8")
    tifffile.imwrite(tmp_path / "a.tif", array.astype(bool), photometric="minisblack")
    source = open_source(tmp_path / "a.tif")
    assert source.dtype == np.uint8
    np.testing.assert_array_equal(read_array(source), array)


def test_a_time_series_is_refused_until_its_axis_is_called_depth(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", ramp(4, 6, 8), imagej=True, metadata={"axes": "TYX"})
    source = open_source(tmp_path / "a.tif")
    assert source.shape is None
    with pytest.raises(FormatError, match=r"a\.tif is a time series of 4 frames.*axes: 'ZYX'"):
        source.require_shape()
    np.testing.assert_array_equal(read_array(open_source(tmp_path / "a.tif", axes="ZYX")), ramp(4, 6, 8))


def test_pages_of_different_sizes_are_no_stack(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(ramp(6, 8))
        writer.write(ramp(6, 9))
    with pytest.raises(FormatError, match=r"a\.tif holds 2 images that don't form one stack"):
        open_source(tmp_path / "a.tif")


def test_a_compression_that_needs_another_package_is_named(tmp_path):
    pages = [Image.fromarray(plane) for plane in ramp(3, 6, 8, dtype="uint8")]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:], compression="tiff_lzw")
    source = open_source(tmp_path / "a.tif")
    try:
        import imagecodecs  # noqa: F401
    except ImportError:
        with pytest.raises(FormatError, match="LZW.*pip install imagecodecs"):
            read_array(source)
    else:
        np.testing.assert_array_equal(read_array(source), ramp(3, 6, 8, dtype="uint8"))


def test_a_chain_of_pages_that_breaks_off_is_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for plane in ramp(6, 20, 30):
            writer.write(plane, contiguous=False, metadata=None)
    whole = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FormatError, match=r"cut\.tif is not a whole TIFF file.*copy it again"):
        open_source(tmp_path / "cut.tif")


def slices(folder, array, *, suffix=".tif", name="s{:d}"):
    folder.mkdir()
    for number, plane in enumerate(array):
        path = folder / (name.format(number) + suffix)
        if suffix == ".png":
            Image.fromarray(plane).save(path)
        else:
            tifffile.imwrite(path, plane)
    return folder


@pytest.mark.parametrize("suffix", [".tif", ".png"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_slices_of_a_folder_are_in_natural_order(tmp_path, suffix, dtype):
    array = ramp(12, 6, 8, dtype=dtype)
    folder = slices(tmp_path / "scan", array, suffix=suffix)
    (folder / "Thumbs.db").write_text("not a slice")
    for path in (folder, folder / f"*{suffix}", f"{folder}/"):
        np.testing.assert_array_equal(read_array(open_source(path)), array)
    assert [path.name for path in source_files(open_source(folder))][9:11] == [f"s9{suffix}", f"s10{suffix}"]


def test_slices_may_lie_along_x(tmp_path):
    array = ramp(5, 6, 8)  # X, Y, Z
    source = open_source(slices(tmp_path / "scan", array), axes="XYZ")
    assert source.shape == (8, 6, 5)
    np.testing.assert_array_equal(read_array(source), array.transpose(2, 1, 0))


def test_the_odd_slice_is_named(tmp_path):
    folder = slices(tmp_path / "scan", ramp(4, 6, 8))
    tifffile.imwrite(folder / "s2.tif", ramp(6, 7))
    with pytest.raises(FormatError, match=r"s2\.tif is 6 x 7 uint16, the other slices are 6 x 8 uint16"):
        open_source(folder)


def test_a_missing_slice_is_noticed(tmp_path):
    folder = slices(tmp_path / "scan", ramp(6, 6, 8), name="s{:03d}")
    (folder / "s003.tif").unlink()
    assert open_source(folder).warnings == (
        "slice numbers jump in one place, from s002.tif to s004.tif: is a slice missing?",
    )


def test_a_folder_without_slices_is_refused(tmp_path):
    with pytest.raises(FormatError, match="holds none of"):
        open_source(tmp_path)
    with pytest.raises(FormatError, match=r"no file matches .*z\*\.tif"):
        open_source(tmp_path / "z*.tif")


def test_mixed_kinds_and_stacks_among_slices_are_refused(tmp_path):
    folder = slices(tmp_path / "scan", ramp(3, 6, 8))
    tifffile.imwrite(folder / "s1.tif", ramp(2, 6, 8), photometric="minisblack")
    with pytest.raises(FormatError, match=r"s1\.tif holds"):
        open_source(folder)
    Image.fromarray(ramp(6, 8, dtype="uint8")).save(folder / "s4.png")
    with pytest.raises(FormatError, match=r"mixes \.png, \.tif"):
        open_source(folder)


def test_the_real_cube_of_slices_along_x_fits_the_real_plane(shared_data):
    cube = read_array(open_source(shared_data / "xray-thc" / "test_cube1", axes="XYZ"))
    plane = np.asarray(Image.open(shared_data / "xray-thc" / "slice_z159.png"))
    np.testing.assert_array_equal(cube[29], plane[376:576, 1499:1699])
