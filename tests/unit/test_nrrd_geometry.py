"""Axes, voxel sizes and places of NRRD files: file order (x, y, z) in, (Z, Y, X) out."""

import math
import re

import numpy as np
import pytest

from voxloom.io.nrrd import open_nrrd
from voxloom.io.nrrd_geometry import micrometres_per


def opened(tmp_path, sizes="4 3 2", end="\n", **fields):
    """A file of zeros with the fields given (``_`` for a space)."""
    numbers = [int(size) for size in sizes.split()]
    header = {"type": "uint8", "dimension": str(len(numbers)), "encoding": "raw", "sizes": sizes}
    header |= {name.replace("_", " "): value for name, value in fields.items()}
    text = "NRRD0005\n" + "".join(f"{name}: {value}\n" for name, value in header.items()) + end
    (tmp_path / "a.nrrd").write_bytes(text.encode() + bytes(np.arange(math.prod(numbers), dtype=np.uint8)))
    return open_nrrd(tmp_path / "a.nrrd")


MM = '"mm" "mm" "mm"'


@pytest.mark.parametrize(
    ("unit", "factor"),
    [
        ("m", 1e6), ("cm", 1e4), ("mm", 1e3), ("MM", 1e3), ("millimeter", 1e3), ("Millimetres", 1e3), ("um", 1.0),
        ("\u00b5m", 1.0), ("\u03bcm", 1.0), ("micron", 1.0), ("Microns", 1.0), ("micrometer", 1.0),
        ("micrometres", 1.0),
        ("nm", 1e-3), ("nanometers", 1e-3), ("pm", 1e-6), ("\u212b", 1e-4), ("\u00c5", 1e-4), ("Angstrom", 1e-4),
    ],
)  # fmt: skip
def test_metric_units_in_any_spelling(unit, factor):
    assert micrometres_per(unit) == pytest.approx(factor, rel=1e-12)


@pytest.mark.parametrize("unit", ["pixel", "voxels", "s", "Hz", "mmm", "in", "mmeter"])
def test_what_is_not_a_metric_length_has_no_factor(unit):
    assert micrometres_per(unit) is None


def test_voxel_size_and_origin_are_turned_to_zyx_and_micrometres(tmp_path):
    source = opened(
        tmp_path,
        space="left-posterior-superior",
        space_directions="(0.001,0,0) (0,0.002,0) (0,0,0.003)",
        space_origin="(4,5,6)",
        space_units=MM,
    )
    assert source.geometry.spacing_um == pytest.approx((3.0, 2.0, 1.0))
    assert source.geometry.origin_um == pytest.approx((6000.0, 5000.0, 4000.0))
    assert source.geometry.directions == ((1, 0, 0), (0, 1, 0), (0, 0, 1))
    assert source.geometry.space == "left-posterior-superior"
    assert source.unit_stated
    assert source.warnings == ()


def test_permuted_and_negative_directions_are_kept_not_applied(tmp_path):
    source = opened(tmp_path, space="RAS", space_directions="(0,0,2) (-3,0,0) (0,5,0)", space_units=MM)
    assert source.shape == (2, 3, 4)
    assert source.geometry.space == "right-anterior-superior"
    assert source.geometry.spacing_um == (5000.0, 3000.0, 2000.0)
    # array axis Z runs along world y, Y along -x, X along world z; each direction is given as (z, y, x)
    assert source.geometry.directions == ((0, 1, 0), (0, 0, -1), (1, 0, 0))


def test_oblique_directions_have_the_length_of_their_vectors(tmp_path):
    source = opened(
        tmp_path, space_dimension="3", space_directions="(3,4,0) (-4,3,0) (0,0,1)", space_units='"um" "um" "um"'
    )
    assert source.geometry.spacing_um == pytest.approx((1.0, 5.0, 5.0))
    np.testing.assert_allclose(source.geometry.directions[2], (0.0, 0.8, 0.6))


def test_axes_that_are_not_at_right_angles_are_told(tmp_path):
    source = opened(tmp_path, space="LPS", space_directions="(1,0,0) (1,1,0) (0,0,1)", space_units=MM)
    assert "not at right angles" in source.warnings[0]


def test_each_world_axis_may_have_its_unit(tmp_path):
    source = opened(
        tmp_path,
        space="LPS",
        space_directions="(1,0,0) (0,1,0) (0,0,1)",
        space_origin="(1,1,1)",
        space_units='"um" "nm" "mm"',
    )
    assert source.geometry.spacing_um == pytest.approx((1000.0, 0.001, 1.0))
    assert source.geometry.origin_um == pytest.approx((1000.0, 0.001, 1.0))


@pytest.mark.parametrize("units", [None, '"" "" ""', '"???" "???" "???"'])
def test_without_a_unit_lengths_are_millimetres_and_that_is_said(tmp_path, units):
    source = opened(tmp_path, spacings="1 2 3", **({} if units is None else {"units": units}))
    assert source.geometry.spacing_um == (3000.0, 2000.0, 1000.0)
    assert not source.unit_stated
    assert "no unit of length is stated: millimetres are taken" in source.warnings[0]


def test_a_unit_on_some_axes_is_taken_for_all_and_that_is_said(tmp_path):
    source = opened(tmp_path, spacings="1 2 3", units='"um" "" ""')
    assert source.geometry.spacing_um == (3.0, 2.0, 1.0)
    assert "only some axes state their unit; um is taken for all" in source.warnings


def test_units_beside_directions_serve_where_space_units_are_missing(tmp_path):
    fields = {"space": "LPS", "space_directions": "(1,0,0) (0,1,0) (0,0,1)", "space_origin": "(7,8,9)"}
    source = opened(tmp_path, units='"um" "um" "um"', **fields)
    assert source.geometry.spacing_um == (1.0, 1.0, 1.0)
    assert source.geometry.origin_um == (9.0, 8.0, 7.0)
    assert "'units' differ" in opened(tmp_path, units='"um" "um" "mm"', **fields).warnings[0]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({}, "neither 'space directions' nor 'spacings'"),
        ({"spacings": "1 nan 1", "kinds": "space space space"}, "neither 'space directions' nor 'spacings'"),
        ({"spacings": "1 0 1"}, "must be positive"),
        ({"spacings": "1 inf 1"}, "must be positive"),
        ({"spacings": "1 1e308 1"}, "must be positive"),
        ({"spacings": "1 1 1", "units": '"pixel" "pixel" "pixel"'}, "the unit 'pixel' is not a metric length"),
        ({"spacings": "1 1 1", "units": '"mm" "um" ""'}, "some are missing and the others differ"),
        ({"space": "LPS", "space_directions": "(1,0,0) (2,0,0) (0,0,1)"}, "don't span three dimensions"),
        ({"space": "LPS", "space_directions": "(1,0,0) (0,0,0) (0,0,1)"}, "must be positive"),
        (
            {"space": "LPS", "space_directions": "(1,0,0) (0,1,0) none", "kinds": "space space space"},
            "lacks some of the spatial axes",
        ),
        ({"space_dimension": "2", "space_directions": "(1,0) (0,1) (1,1)"}, "has 2 world axes for 3 of the array"),
        ({"space_dimension": "5", "space_directions": " ".join(["(1,0,0,0,0)"] * 3)}, "spans 5 world axes"),
        (
            {"space": "LPS", "space_directions": "(1,0,0) (0,1,0) (0,0,1)", "spacings": "1 1 2"},
            "'spacings' say .* and 'space directions'",
        ),
    ],
)
def test_without_a_usable_voxel_size_there_is_no_geometry_and_the_reason_is_said(tmp_path, fields, why):
    source = opened(tmp_path, **fields)
    assert source.geometry is None
    assert not source.unit_stated
    (warning,) = [each for each in source.warnings if "no usable voxel size" in each]
    assert re.search(f"{why}.*; give the volume a voxel size in config/volumes.tsv", warning)


def test_spacings_that_agree_with_directions_are_no_contradiction(tmp_path):
    source = opened(tmp_path, space="LPS", space_directions="(1,0,0) (0,1,0) (0,0,2)", spacings="1 1 2", space_units=MM)
    assert source.geometry.spacing_um == (2000.0, 1000.0, 1000.0)


@pytest.mark.parametrize(
    ("centers", "spacing", "first"), [("cell", 2.0, 11.0), ("node", 8 / 3, 10.0), ("???", 2.0, 11.0)]
)
def test_first_and_last_positions_give_the_spacing(tmp_path, centers, spacing, first):
    source = opened(
        tmp_path,
        axis_mins="10 0 0",
        axis_maxs="18 9 4",
        centers=f"{centers} cell cell",
        units='"um" "um" "um"',
    )
    assert source.geometry.spacing_um == pytest.approx((2.0, 3.0, spacing))
    assert source.geometry.origin_um == pytest.approx((1.0, 1.5, first))


def test_a_negative_spacing_turns_the_axis(tmp_path):
    source = opened(tmp_path, spacings="1 -2 3", units='"um" "um" "um"')
    assert source.geometry.spacing_um == (3.0, 2.0, 1.0)
    assert source.geometry.directions == ((1, 0, 0), (0, -1, 0), (0, 0, 1))


def test_time_is_taken_off_the_space(tmp_path):
    source = opened(
        tmp_path,
        "4 3 2 5",
        space="left-posterior-superior-time",
        space_directions="(1,0,0,0) (0,2,0,0) (0,0,3,0) (0,0,0,1)",
        kinds="space space space time",
        space_units='"um" "um" "um" "s"',
    )
    assert source.shape == (5, 2, 3, 4)
    assert source.geometry.spacing_um == (3.0, 2.0, 1.0)
    assert source.geometry.space == "left-posterior-superior"
    assert source.warnings == ("axis 4 is time; its steps are read as channels",)


class TestChannels:
    """The axis that is not space."""

    @pytest.mark.parametrize(
        ("sizes", "fields", "channel"),
        [
            ("5 4 3 2", {"kinds": "vector space space space"}, 0),
            ("4 5 3 2", {"kinds": "domain list domain domain"}, 1),
            ("4 3 5 2", {"space": "LPS", "space_directions": "(1,0,0) (0,1,0) none (0,0,1)"}, 2),
            ("4 3 2 5", {"spacings": "1 1 1 nan"}, 3),
            ("4 3 2 5", {"kinds": "space space space time"}, 3),
        ],
    )
    def test_are_the_first_axis_of_the_array_wherever_they_are_in_the_file(self, tmp_path, sizes, fields, channel):
        source = opened(tmp_path, sizes, **fields)
        assert source.shape == (5, 2, 3, 4)
        stored = np.arange(120).reshape(source.facts["sizes"][::-1])  # slowest first
        expected = np.moveaxis(stored, 3 - channel, 0)
        volume = np.zeros(source.shape, np.uint8)
        for index, block in source.read_blocks(1):
            assert block.shape == ((1, 1, 3, 4) if channel == 3 else (5, 1, 3, 4))
            volume[index] = block
        np.testing.assert_array_equal(volume, expected)

    def test_two_axes_cannot_be_channels(self, tmp_path):
        source = opened(tmp_path, "5 4 3 2", kinds="vector space space list")
        assert source.shape is None
        assert "2 axes are not spatial, voxloom takes one" in source.refusal

    def test_must_be_told(self, tmp_path):
        source = opened(tmp_path, "5 4 3 2", spacings="1 1 1 1")
        assert source.geometry is None
        assert "which of 4 axes holds channels is not told; name it" in source.refusal
        assert len(np.concatenate(list(source.read_values()))) == 120
        with pytest.raises(ValueError, match="which of 4 axes holds channels"):
            next(source.read_blocks(1))
        with pytest.raises(ValueError, match="which of 4 axes holds channels"):
            source.require_shape()

    def test_a_line_or_five_dimensions_are_no_volume(self, tmp_path):
        assert "1 spatial axis is not a volume" in opened(tmp_path, "7").refusal
        assert "5 spatial axes; save a part of it" in opened(tmp_path, "2 2 2 2 2").refusal


class TestSlices:
    """Two-dimensional files."""

    def test_are_as_thick_as_their_voxels_are_along_y_and_say_so(self, tmp_path):
        source = opened(tmp_path, "4 3", spacings="1 2", units='"um" "um"')
        assert source.shape == (1, 3, 4)
        assert source.geometry.spacing_um == (2.0, 2.0, 1.0)
        assert "a single slice: its thickness is taken from Y, 2 micrometres" in source.warnings

    def test_lie_where_the_world_has_them(self, tmp_path):
        source = opened(
            tmp_path, "4 3", space="LPS", space_directions="(0,1,0) (0,0,2)", space_origin="(7,8,9)", space_units=MM
        )
        assert source.geometry.origin_um == (9000.0, 8000.0, 7000.0)
        assert source.geometry.directions == ((0, 0, 1), (1, 0, 0), (0, 1, 0))  # across the slice: world x

    def test_with_colours(self, tmp_path):
        source = opened(tmp_path, "3 4 5", kinds="RGB-color domain domain")
        assert source.shape == (3, 1, 5, 4)
        ((index, block),) = source.read_blocks(9)
        np.testing.assert_array_equal(block[:, 0], np.arange(60).reshape(5, 4, 3).transpose(2, 0, 1))
        assert index[1] == slice(0, 1)
