"""What is written as NRRD is found again by voxloom, pynrrd and SimpleITK, in its place and with its names."""

import numpy as np
import pytest

from voxloom.errors import VolumeError
from voxloom.io.nrrd import open_nrrd, write_nrrd
from voxloom.io.source import Segment, slabs
from voxloom.volume import Geometry

GEOMETRY = Geometry(
    spacing_um=(3.0, 1.17, 0.5),
    origin_um=(1500.0, -20.0, 0.125),
    directions=((1.0, 0.0, 0.0), (0.0, 0.8, -0.6), (0.0, 0.6, 0.8)),
)
TYPES = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"]


def volume_of(code, shape=(4, 3, 5)):
    return (np.arange(np.prod(shape)) % 100).reshape(shape).astype(code)


def write(path, volume, *, slices=2, geometry=GEOMETRY, **options):
    blocks = ((index, volume[index]) for index in slabs(volume.shape, slices, one_channel=False))
    write_nrrd(path, blocks, shape=volume.shape, dtype=volume.dtype, geometry=geometry, **options)
    return path


def read(path):
    source = open_nrrd(path)
    volume = np.zeros(source.require_shape(), source.dtype)
    for index, block in source.read_blocks(3):
        volume[index] = block
    return source, volume


@pytest.mark.parametrize("encoding", ["gzip", "raw"])
@pytest.mark.parametrize("code", TYPES)
def test_values_and_place_survive(tmp_path, code, encoding):
    expected = volume_of(code)
    source, volume = read(write(tmp_path / "a.nrrd", expected, encoding=encoding))
    assert volume.dtype == expected.dtype
    np.testing.assert_array_equal(volume, expected)
    np.testing.assert_allclose(source.geometry.spacing_um, GEOMETRY.spacing_um)
    np.testing.assert_allclose(source.geometry.origin_um, GEOMETRY.origin_um)
    np.testing.assert_allclose(source.geometry.directions, GEOMETRY.directions, atol=1e-12)
    assert source.geometry.space == "left-posterior-superior"
    assert source.unit_stated
    assert source.warnings == ()


@pytest.mark.parametrize("encoding", ["gzip", "raw"])
@pytest.mark.parametrize("code", TYPES)
def test_pynrrd_reads_it(tmp_path, code, encoding):
    nrrd = pytest.importorskip("nrrd")
    values, header = nrrd.read(str(write(tmp_path / "a.nrrd", volume_of(code), encoding=encoding)), index_order="C")
    np.testing.assert_array_equal(values, volume_of(code))
    assert list(header["space units"]) == ["mm", "mm", "mm"]
    np.testing.assert_allclose(np.linalg.norm(header["space directions"], axis=1), [0.0005, 0.00117, 0.003])


@pytest.mark.parametrize("code", TYPES)
def test_simpleitk_finds_it_in_its_place_in_millimetres(tmp_path, code):
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.ReadImage(str(write(tmp_path / "a.nrrd", volume_of(code))))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), volume_of(code))
    np.testing.assert_allclose(image.GetSpacing(), (0.0005, 0.00117, 0.003))
    np.testing.assert_allclose(image.GetOrigin(), (0.000125, -0.02, 1.5))
    point_mm = image.TransformIndexToPhysicalPoint((2, 1, 3))  # x, y, z
    z, y, x = np.array(GEOMETRY.origin_um) + np.array((3 * 3.0, 1 * 1.17, 2 * 0.5)) @ np.array(GEOMETRY.directions)
    np.testing.assert_allclose(point_mm, np.array((x, y, z)) / 1000)


def test_the_same_voxels_give_the_same_bytes_in_any_slabs(tmp_path):
    paths = [write(tmp_path / f"{slices}.nrrd", volume_of("u2"), slices=slices) for slices in (1, 2, 4)]
    assert len({path.read_bytes() for path in paths}) == 1


def test_values_of_either_byte_order_are_written_alike(tmp_path):
    little, big = (write(tmp_path / f"{code[0]}.nrrd", volume_of(code)) for code in ("<u2", ">u2"))
    assert little.read_bytes() == big.read_bytes()


def test_a_mask_is_written_as_bytes(tmp_path):
    mask = volume_of("u1") > 50
    source, volume = read(write(tmp_path / "a.nrrd", mask))
    assert source.dtype == np.uint8
    np.testing.assert_array_equal(volume, mask)


def test_a_named_space_keeps_its_name(tmp_path):
    for name in ("right-anterior-superior", "scanner-xyz"):
        geometry = Geometry((1.0, 1.0, 1.0), space=name)
        assert open_nrrd(write(tmp_path / "a.nrrd", volume_of("u1"), geometry=geometry)).geometry.space == name
    with pytest.raises(VolumeError, match=r"space must be one that NRRD names \(right-.*\) or None, got 'stage'"):
        write(tmp_path / "a.nrrd", volume_of("u1"), geometry=Geometry((1.0, 1.0, 1.0), space="stage"))


def test_what_a_source_says_of_itself_survives(tmp_path):
    pairs = {"a b": "line\nother \\ line", "empty": "", "note": "a := b: c"}
    header = {
        "content": "crop of\na stack",
        "labels": '"x" "y" "z"',
        "key_values": pairs,
        "comments": ["by hand", "a\nb"],
    }
    source, _ = read(write(tmp_path / "a.nrrd", volume_of("u1"), header=header))
    assert source.header["key_values"] == pairs
    assert source.header["content"] == "crop of a stack"
    assert source.facts["labels"] == ["x", "y", "z"]
    assert source.header["comments"][2:] == ["by hand"]
    again, _ = read(write(tmp_path / "b.nrrd", volume_of("u1"), header=source.header))
    assert again.header == {**source.header, "encoding": "gzip"}


@pytest.mark.parametrize("key", ["a:=b", "a: b", "#a", ""])
def test_keys_that_nrrd_cannot_hold_are_refused(tmp_path, key):
    with pytest.raises(VolumeError, match="a key of a NRRD file can't hold"):
        write(tmp_path / "a.nrrd", volume_of("u1"), header={"key_values": {key: "1"}})


def test_channels_are_written_fastest_and_read_back_first(tmp_path):
    expected = volume_of("u2", (3, 4, 5, 6))
    path = write(tmp_path / "a.nrrd", expected, header={"kinds": "RGB-color domain domain domain"})
    source, volume = read(path)
    assert (source.facts["sizes"], source.facts["kinds"][0]) == ([3, 6, 5, 4], "rgb-color")
    np.testing.assert_array_equal(volume, expected)
    sitk = pytest.importorskip("SimpleITK")
    np.testing.assert_array_equal(np.moveaxis(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), -1, 0), expected)


def test_a_segmentation_keeps_names_colours_and_layers(tmp_path):
    segments = (
        Segment("S1", "soma", (1.0, 0.5, 0.25), 0, 1, {"Tags": "a|b"}),
        Segment("S2", "axon µ", (0.0, 1.0, 0.0), 1, 7),
    )
    header = {"key_values": {"Segment5_Name": "gone", "Segmentation_ReferenceImageExtentOffset": "1 2 3"}}
    path = write(tmp_path / "a.seg.nrrd", volume_of("u1", (2, 4, 3, 5)), segments=segments, header=header)
    source, volume = read(path)
    np.testing.assert_array_equal(volume, volume_of("u1", (2, 4, 3, 5)))
    assert [(each.id, each.name, each.color, each.layer, each.label_value) for each in source.segments] == [
        ("S1", "soma", (1.0, 0.5, 0.25), 0, 1),
        ("S2", "axon µ", (0.0, 1.0, 0.0), 1, 7),
    ]
    assert source.segments[0].extra == {"Tags": "a|b", "Extent": "0 4 0 2 0 3"}
    pairs = source.header["key_values"]
    assert pairs["Segmentation_ReferenceImageExtentOffset"] == "1 2 3"
    assert "Segment5_Name" not in pairs
    nrrd = pytest.importorskip("nrrd")
    assert nrrd.read_header(str(path))["Segment0_Name"] == "soma"


@pytest.mark.parametrize(
    ("blocks", "said"),
    [
        ([(0, 2)], "blocks end after 2 of 4 slices; give the whole volume"),
        ([(0, 2), (3, 4)], "the next from slice 2 on"),
        ([(2, 4), (0, 2)], "the next from slice 0 on"),
        ([(0, 4), (4, 5)], "got uint8 of shape"),
    ],
)
def test_slabs_that_are_not_the_volume_are_refused_and_leave_nothing(tmp_path, blocks, said):
    volume = volume_of("u1")
    pairs = [((slice(start, stop), slice(0, 3), slice(0, 5)), volume[start:stop]) for start, stop in blocks]
    with pytest.raises(VolumeError, match=said):
        write_nrrd(tmp_path / "a.nrrd", pairs, shape=volume.shape, dtype="u1", geometry=GEOMETRY)
    assert list(tmp_path.iterdir()) == []


def test_values_are_never_converted_in_silence(tmp_path):
    volume = volume_of("i4")
    blocks = [(index, volume[index]) for index in slabs(volume.shape, 4)]
    with pytest.raises(VolumeError, match="blocks must be slabs of uint8 .* got int32"):
        write_nrrd(tmp_path / "a.nrrd", blocks, shape=volume.shape, dtype="u1", geometry=GEOMETRY)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dtype": "f2"}, "NRRD has no type for float16"),
        ({"encoding": "bzip2"}, "encoding must be 'gzip' or 'raw', got 'bzip2'"),
        ({"shape": (3, 5)}, r"shape must be \(Z, Y, X\) or \(C, Z, Y, X\), got \(3, 5\)"),
        ({"geometry": Geometry((1.0, 1.0, 1.0), origin_um=(0.0, 0.0, np.inf))}, "geometry must be of finite numbers"),
    ],
)
def test_what_nrrd_cannot_hold_is_refused(tmp_path, change, said):
    options = {"shape": (4, 3, 5), "dtype": "u1", "geometry": GEOMETRY} | change
    with pytest.raises(VolumeError, match=said):
        write_nrrd(tmp_path / "a.nrrd", [], **options)
