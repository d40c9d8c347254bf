"""NRRD files made by hand: sizes (x, y, z) = (4, 3, 2), values 0 to 23 in file order unless said otherwise."""

import bz2
import gzip
import logging
from pathlib import Path

import numpy as np
import pytest

from voxloom.errors import FormatError
from voxloom.io.nrrd import is_nrrd, open_nrrd, read_header

VALUES = np.arange(24)
VOLUME = VALUES.reshape(2, 3, 4)  # Z, Y, X: x is the fastest of the file and the last of the array


def write(path: Path, data: bytes = b"", *, drop: str = "", end: str = "\n", **fields: str) -> Path:
    """A file of 8-bit values; keywords replace or add fields (``_`` for a space), `drop` leaves one out."""
    header = {"type": "uint8", "dimension": "3", "sizes": "4 3 2", "encoding": "raw"}
    header |= {name.replace("_", " "): value for name, value in fields.items()}
    header.pop(drop, None)
    text = "NRRD0004\n" + "".join(f"{name}: {value}\n" for name, value in header.items())
    path.write_bytes(text.encode() + end.encode() + data)
    return path


def read(path: Path, slices: int = 64) -> np.ndarray:
    source = open_nrrd(path)
    volume = np.full(source.require_shape(), 99, source.dtype)
    seen = np.zeros(volume.shape, int)
    for index, block in source.read_blocks(slices):
        assert block.flags.c_contiguous
        assert block.dtype.isnative
        volume[index] = block
        seen[index] += 1
    assert (seen == 1).all()
    return volume


def hexadecimal(data: bytes) -> bytes:
    digits = data.hex().encode()
    return b"\n".join(digits[start : start + 7] for start in range(0, len(digits), 7))  # pairs torn apart


ENCODINGS = {
    "raw": lambda data: data,
    "gzip": gzip.compress,
    "GZ": gzip.compress,
    "bz2": bz2.compress,
    "bzip2": bz2.compress,
    "hex": hexadecimal,
}


def test_x_is_the_fastest_axis_of_the_file_and_the_last_of_the_array(tmp_path):
    path = write(tmp_path / "a.nrrd", bytes(range(24)))
    volume = read(path)
    assert volume.shape == (2, 3, 4)
    assert volume[1, 0, 2] == 14  # x = 2, y = 0, z = 1
    np.testing.assert_array_equal(np.concatenate(list(open_nrrd(path).read_values())), VALUES)


@pytest.mark.parametrize("slices", [1, 2, 3])
def test_slabs_of_any_thickness_hold_every_voxel_once(tmp_path, slices):
    path = write(tmp_path / "a.nrrd", gzip.compress(bytes(range(24))), encoding="gzip")
    np.testing.assert_array_equal(read(path, slices), VOLUME)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("endian", ["little", "big"])
@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("signed char", "i1"),
        ("uchar", "u1"),
        ("short int", "i2"),
        ("unsigned  short", "u2"),
        ("INT32_T", "i4"),
        ("uint", "u4"),
        ("long long int", "i8"),
        ("ulonglong", "u8"),
        ("float", "f4"),
        ("double", "f8"),
    ],
)
def test_every_type_in_every_encoding_and_byte_order(tmp_path, name, code, endian, encoding):
    stored = (VALUES * 5 - (0 if code[0] == "u" else 60)).astype(np.dtype(code).newbyteorder(endian))
    data = ENCODINGS[encoding](stored.tobytes())
    path = write(tmp_path / "a.nrrd", data, type=name, endian=endian, encoding=encoding)
    volume = read(path)
    assert volume.dtype == np.dtype(code)
    np.testing.assert_array_equal(volume.ravel(), stored)


@pytest.mark.parametrize("encoding", ["ascii", "text", "TXT"])
def test_text_values_need_no_byte_order_and_may_be_separated_by_commas(tmp_path, encoding):
    path = write(tmp_path / "a.nrrd", b"-1.5e3, nan inf\n" + b"0 " * 20 + b"7", type="float", encoding=encoding)
    np.testing.assert_array_equal(read(path).ravel(), np.array([-1500, np.nan, np.inf] + [0] * 20 + [7], "f4"))


def test_large_integers_in_text_are_exact(tmp_path):
    path = write(tmp_path / "a.nrrd", b"18446744073709551615 " * 24, type="uint64", encoding="ascii")
    assert (read(path) == 2**64 - 1).all()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"256 " * 24, "not of type 'uint8' .*256"),
        (b"1.5 " * 24, "not of type 'uint8' .*1.5"),
        (b"1 " * 23 + b"x", "not of type 'uint8' .*x"),
        (b"1" * 600_000, "'11111111111111111111'... is not a number"),
        (b"1 " * 23 + b" " * 40, "it ends before its last value"),
    ],
)
def test_text_that_is_not_of_the_type_is_refused(tmp_path, text, said):
    with pytest.raises(FormatError, match=rf"a\.nrrd: the ascii values can't be read to their end: .*{said}"):
        read(write(tmp_path / "a.nrrd", text, encoding="ascii"))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_fields_may_be_upper_case_lack_spaces_and_stand_between_comments(tmp_path, end):
    lines = [
        "NRRD0005",
        "#a: b",
        "TYPE: uint8",
        "Dimension:3",
        "# k:=v",
        "sizes: 4,3, 2",
        "encoding : RAW",
        "a b:=c\\nd",
        "",
    ]
    path = tmp_path / "a.nrrd"
    path.write_bytes("".join(line + end for line in lines).encode() + bytes(range(24)))
    source = open_nrrd(path)
    assert source.header["comments"] == ["a: b", "k:=v"]
    assert source.header["key_values"] == {"a b": "c\nd"}
    assert "'dimension' lacks the space after its colon" in source.warnings[0]
    np.testing.assert_array_equal(read(path), VOLUME)


def test_unknown_fields_are_kept_and_said(tmp_path):
    source = open_nrrd(write(tmp_path / "a.nrrd", bytes(24), microscope="no. 4"))
    assert source.header["microscope"] == "no. 4"
    assert "unknown field 'microscope' is kept but not used" in source.warnings


def test_older_writers_spell_micrometres_in_one_byte(tmp_path):
    path = write(tmp_path / "a.nrrd", spacings="1 1 1", units="%s %s %s" % (('"?m"',) * 3))
    path.write_bytes(path.read_bytes().replace(b"?m", b"\xb5m") + bytes(24))
    assert open_nrrd(path).geometry.spacing_um == (1.0, 1.0, 1.0)


def test_bytes_after_the_values_are_ignored(tmp_path):
    np.testing.assert_array_equal(read(write(tmp_path / "a.nrrd", bytes(range(24)) + b"more")), VOLUME)


@pytest.mark.parametrize("rubbish", [b"\n", b"more", bytes(600), b"\x1f"])
def test_bytes_after_gzip_data_are_ignored(tmp_path, rubbish):
    data = gzip.compress(bytes(range(24))) + rubbish
    np.testing.assert_array_equal(read(write(tmp_path / "a.nrrd", data, encoding="gzip")), VOLUME)


def test_gzip_data_may_come_in_members(tmp_path):
    data = gzip.compress(bytes(range(7))) + gzip.compress(b"") + gzip.compress(bytes(range(7, 24)))
    np.testing.assert_array_equal(read(write(tmp_path / "a.nrrd", data, encoding="gzip")), VOLUME)
    np.testing.assert_array_equal(read(write(tmp_path / "b.nrrd", data + b"rubbish", encoding="gzip")), VOLUME)


def test_padding_between_members_is_skipped_even_before_rubbish(tmp_path):
    data = gzip.compress(bytes(range(7))) + bytes(9) + gzip.compress(bytes(range(7, 24))) + bytes(9) + b"rubbish"
    np.testing.assert_array_equal(read(write(tmp_path / "a.nrrd", data, encoding="gzip")), VOLUME)


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_more_values_than_sizes_say_are_told(tmp_path, caplog, encoding):
    more = bytes(range(30))
    path = write(tmp_path / "a.nrrd", gzip.compress(more) if encoding == "gzip" else more, encoding=encoding)
    with caplog.at_level(logging.WARNING, logger="voxloom"):
        np.testing.assert_array_equal(read(path), VOLUME)
    assert "holds more values than its sizes say" in caplog.text


@pytest.mark.parametrize("encoding", ["gzip", "bzip2"])
@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_compressed_data_that_are_cut_short_are_refused(tmp_path, encoding, keep):
    data = ENCODINGS[encoding](np.random.default_rng(0).bytes(24_000))
    path = write(tmp_path / "a.nrrd", data[: int(len(data) * keep)], sizes="40 30 20", encoding=encoding)
    with pytest.raises(FormatError, match=r"a\.nrrd.*damaged or cut short"):
        read(path)


@pytest.mark.parametrize("at", [-8, -2])
def test_a_wrong_checksum_is_refused_before_the_last_block_is_handed_out(tmp_path, at):
    data = bytearray(gzip.compress(bytes(range(24))))
    data[at] ^= 1
    blocks = open_nrrd(write(tmp_path / "a.nrrd", bytes(data), encoding="gzip")).read_blocks(1)
    with pytest.raises(FormatError, match="CRC check failed|Incorrect length"):
        for index, _ in blocks:
            assert index[0].stop < 2


def test_hexadecimal_digits_are_checked(tmp_path):
    path = write(tmp_path / "a.nrrd", b"0g" * 24, encoding="hex")
    with pytest.raises(FormatError, match="hex values can't be read"):
        read(path)


def test_sizes_beyond_any_file_are_refused_without_reading(tmp_path):
    for encoding, data in {"gzip": gzip.compress(bytes(24)), "bzip2": bz2.compress(bytes(24)), "ascii": b"1 2"}.items():
        with pytest.raises(FormatError, match=r"sizes 99999999 99999999 99999999 of type 'uint8' need 9999"):
            open_nrrd(write(tmp_path / "a.nrrd", data, encoding=encoding, sizes="99999999 99999999 99999999"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"type": "block"}, "field 'type' is 'block': values are lumps of bytes"),
        ({"type": "int128"}, "field 'type' must be int8 to int64, .*got 'int128'; correct the header"),
        ({"dimension": "0"}, "field 'dimension' must be a whole number, 1 or more, got '0'"),
        ({"dimension": "17"}, "field 'dimension' must be a number of axes, 1 to 16"),
        ({"sizes": "4 3 0"}, "field 'sizes' must be 3 whole numbers above 0.*got '4 3 0'"),
        ({"sizes": "4 3 1e3"}, "field 'sizes'"),
        ({"type": "short"}, "lacks the field 'endian'; add it: little or big"),
        ({"type": "short", "endian": "middle"}, "field 'endian' must be little or big .*got 'middle'"),
        ({"encoding": "lzma"}, "field 'encoding' must be one of .*got 'lzma'"),
        ({"line_skip": "-1"}, "field 'line skip' must be a whole number, 0 or more, got '-1'"),
        ({"spacings": "1 1"}, "field 'spacings' must be 3 numbers"),
        ({"spacings": "1 1 one"}, "field 'spacings' must be 3 numbers"),
        ({"kinds": "space space"}, "field 'kinds' must be 3 words"),
        ({"units": '"mm" "mm'}, "field 'units' must be 3 words in double quotes"),
        ({"space": "LPS", "space_dimension": "2"}, "field 'space dimension' must be 3 as 'space' says"),
        ({"space_units": '"mm" "mm" "mm"'}, "field 'space units' must be given together with 'space'"),
        ({"space_directions": "(1,0,0) (0,1,0)"}, "field 'space directions' must be 3 vectors"),
        ({"space_directions": "(1,0,0) (0,1) (0,0,1)"}, "field 'space directions' must be 3 vectors"),
        ({"space_directions": "(1,0,0) (0,1,0) 0,0,1"}, "field 'space directions' must be of vectors"),
        ({"space_directions": "(1,0,0) (0,inf,0) (0,0,1)"}, "field 'space directions' must be of vectors"),
        ({"space": "RAS", "space_directions": "(1,0) (0,1) (1,1)"}, "of vectors with 3 numbers"),
        ({"space_origin": "(1,0,0) (0,1,0)"}, r"field 'space origin' must be one vector '\(x,y,z\)'"),
        ({"encoding": "hex", "byte_skip": "-1"}, "field 'byte skip' can't be -1 for hex"),
    ],
)
def test_fields_that_say_nothing_sensible_are_refused_with_name_and_value(tmp_path, change, said):
    with pytest.raises(FormatError, match=said) as refusal:
        open_nrrd(write(tmp_path / "a.nrrd", bytes(100), **change))
    assert "a.nrrd" in str(refusal.value)


@pytest.mark.parametrize("field", ["type", "dimension", "sizes", "encoding"])
def test_required_fields_are_missed_by_name(tmp_path, field):
    with pytest.raises(FormatError, match=f"lacks the field '{field}'; add it"):
        open_nrrd(write(tmp_path / "a.nrrd", bytes(24), drop=field))


def test_a_header_without_its_empty_line_is_refused(tmp_path):
    with pytest.raises(FormatError, match="followed neither by an empty line and values nor names a 'data file'"):
        open_nrrd(write(tmp_path / "a.nrrd", end=""))
    with pytest.raises(FormatError, match="an empty line must stand between header and values"):
        open_nrrd(write(tmp_path / "a.nrrd", b"no field here\n", end=""))


def test_a_header_without_end_is_given_up(tmp_path):
    with pytest.raises(FormatError, match="no empty line ends the header within 16 MiB"):
        read_header(write(tmp_path / "a.nrrd", b"a:=" + b"x" * (17 << 20), end=""))


@pytest.mark.parametrize("start", [b"NRRD0004", b"NRRD0004 \n", b"NRRD0004\rtype"])
def test_the_first_line_is_the_version_alone(tmp_path, start):
    (tmp_path / "a.nrrd").write_bytes(start)
    with pytest.raises(FormatError, match="the first line must be 'NRRD0004' alone"):
        read_header(tmp_path / "a.nrrd")


def test_is_known_by_its_first_bytes_not_its_name(tmp_path):
    assert is_nrrd(write(tmp_path / "a.dat"))
    (tmp_path / "b.nrrd").write_bytes(b"\x89PNG")
    assert not is_nrrd(tmp_path / "b.nrrd")


class TestDetached:
    """Headers whose values lie beside them."""

    def test_one_file_relative_to_the_header(self, tmp_path, monkeypatch):
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "a b.raw").write_bytes(bytes(range(24)))
        path = write(tmp_path / "a.nhdr", end="", data_file="./data/a b.raw")
        monkeypatch.chdir("/")
        np.testing.assert_array_equal(read(path), VOLUME)
        assert open_nrrd(path).facts["data files"] == ["data/a b.raw"]

    @pytest.mark.parametrize("pattern", ["z%02d.raw 3 4 1", "z%02d.raw 3 5 2 2", "z%02d.raw 4 3 -1"])
    def test_a_numbered_file_per_slice(self, tmp_path, pattern):
        first, last = pattern.split()[1:3]
        (tmp_path / f"z0{first}.raw").write_bytes(bytes(range(12)))
        (tmp_path / f"z0{last}.raw").write_bytes(bytes(range(12, 24)))
        np.testing.assert_array_equal(read(write(tmp_path / "a.nhdr", datafile=pattern)), VOLUME)

    def test_a_numbered_file_per_slab(self, tmp_path):
        (tmp_path / "1.raw").write_bytes(bytes(range(48)))
        (tmp_path / "2.raw").write_bytes(bytes(range(48, 96)))
        path = write(tmp_path / "a.nhdr", sizes="4 3 8", data_file="%d.raw 1 2 1 3")
        np.testing.assert_array_equal(read(path, 3), np.arange(96).reshape(8, 3, 4))

    def test_a_list_of_compressed_files_each_with_lines_and_bytes_to_skip(self, tmp_path):
        for number in range(2):
            data = gzip.compress(b"...." + bytes(range(12 * number, 12 * number + 12)))
            (tmp_path / f"{number}.gz").write_bytes(b"one line\nanother\n" + data)
        path = write(
            tmp_path / "a.nhdr", b"0.gz\n1.gz\n", end="", encoding="gz", line_skip="2", byte_skip="4", data_file="LIST"
        )
        np.testing.assert_array_equal(read(path), VOLUME)

    @pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2"])
    def test_values_at_the_end_of_a_file_of_another_format(self, tmp_path, encoding):
        (tmp_path / "a.dat").write_bytes(ENCODINGS[encoding](b"unknown header" + bytes(range(24))))
        path = write(tmp_path / "a.nhdr", byte_skip="-1", encoding=encoding, data_file="a.dat")
        np.testing.assert_array_equal(read(path), VOLUME)

    def test_lines_that_the_file_lacks_are_missed(self, tmp_path):
        (tmp_path / "a.raw").write_bytes(b"one\n" + bytes(24))
        with pytest.raises(FormatError, match="'line skip' is 3, the file has 1 lines"):
            open_nrrd(write(tmp_path / "a.nhdr", line_skip="3", data_file="a.raw"))

    def test_bytes_that_the_file_lacks_are_missed(self, tmp_path):
        (tmp_path / "a.gz").write_bytes(gzip.compress(bytes(24)))
        path = write(tmp_path / "a.nhdr", byte_skip="99", encoding="gzip", data_file="a.gz")
        with pytest.raises(FormatError, match="it ends before the 99 bytes that 'byte skip' says"):
            read(path)
        path = write(tmp_path / "a.nhdr", byte_skip="-1", sizes="4 3 9", encoding="gzip", data_file="a.gz")
        with pytest.raises(FormatError, match="it holds 24 bytes, 84 too few"):
            read(path)

    @pytest.mark.parametrize("name", ["/etc/passwd", "../a.raw", "x/../../a.raw"])
    def test_files_outside_the_headers_folder_are_not_followed(self, tmp_path, name):
        with pytest.raises(FormatError, match=r"lies outside the header's folder.*move or link it into"):
            open_nrrd(write(tmp_path / "a.nhdr", data_file=name))

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(FormatError, match=r"data file .*b\.raw doesn't exist; put it there"):
            open_nrrd(write(tmp_path / "a.nhdr", data_file="b.raw"))

    @pytest.mark.parametrize(
        ("pattern", "said"),
        [
            ("%d.raw 1 3 1", "names 3 files, expected 2 for sizes 4 3 2"),
            ("%d.raw 1 3 1 3", "names 3 files, expected a number that divides 2"),
            ("%d.raw 1 2 0", "counts from 1 to 2 in steps of 0"),
            ("%d.raw 2 1 1", "counts from 2 to 1 in steps of 1"),
            ("%d.raw 1 2 1 4", "each file has 4 axes; expected 1 to 3"),
            ("LIST x", "must be 'LIST' or 'LIST n'"),
            ("LIST", "names 0 files, expected 2"),
        ],
    )
    def test_numbers_of_files_that_cannot_be_are_refused(self, tmp_path, pattern, said):
        with pytest.raises(FormatError, match=said):
            open_nrrd(write(tmp_path / "a.nhdr", data_file=pattern))

    def test_no_header_makes_a_million_paths(self, tmp_path):
        path = write(tmp_path / "a.nhdr", sizes="1 1 99999999", data_file="%d.raw 1 99999999 1")
        with pytest.raises(FormatError, match="names 99999999 files, voxloom opens up to 1000000"):
            open_nrrd(path)
