"""Every file of the NRRD collection reads as the reference implementation read it, or is refused with its reason."""

import csv
import hashlib
from pathlib import Path

import numpy as np
import pytest

from voxloom.errors import FormatError
from voxloom.io.nrrd import open_nrrd, read_header

CATALOG = Path(__file__).parent / "data" / "nrrd_catalog.tsv"  # a copy of the collection's CATALOG.tsv
ROWS = {row["path"]: row for row in csv.DictReader(CATALOG.read_text(encoding="utf-8").splitlines(), delimiter="\t")}
READABLE = [path for path, row in ROWS.items() if row["expect"].startswith("ok")]
REFUSED = {
    "malformed/corrupt_gzip_crc.nrrd": "can't be read to their end: CRC check failed",
    "malformed/dimension_mismatch.nrrd": "field 'sizes' must be 4 whole numbers above 0",
    "malformed/duplicate_sizes.nrrd": "line 15 of the header gives 'sizes' a second time",
    "malformed/empty.nrrd": "the file is empty",
    "malformed/header_only.nrrd": "need 7680 bytes (raw), the file has 0 bytes for them",
    "malformed/magic_future.nrrd": "reads NRRD versions 1 to 5, the first line says 'NRRD0009'",
    "malformed/magic_wrong.nrrd": "begins with 'NRRD0001' to 'NRRD0005', this one with b'NRRB0004'",
    "malformed/missing_data.nhdr": "does_not_exist.raw doesn't exist",
    "malformed/missing_encoding.nrrd": "lacks the field 'encoding'",
    "malformed/missing_endian_u16.nrrd": "lacks the field 'endian'",
    "malformed/missing_sizes.nrrd": "lacks the field 'sizes'",
    "malformed/missing_type.nrrd": "lacks the field 'type'",
    "malformed/negative_size.nrrd": "field 'sizes' must be 3 whole numbers above 0, one per axis as 'dimension' says, "
    "got '24 -20 16'",
    "malformed/no_blank_line.nrrd": "an empty line must stand between header and values",
    "malformed/not_nrrd_png.nrrd": "this one with b'\\x89PNG",
    "malformed/sizes_too_big.nrrd": "sizes 24 20 17 of type 'unsigned char' need 8160 bytes (raw), the file has 7680",
    "malformed/trunc_gzip.nrrd": "the compressed data end before their checksum; the file is damaged or cut short",
    "malformed/trunc_raw.nrrd": "need 7680 bytes (raw), the file has 4608",
    "malformed/unknown_encoding.nrrd": "field 'encoding' must be one of ascii, bz2, bzip2, gz, gzip, hex, raw, text, "
    "txt, got 'zstd'",
    "malformed/unknown_type.nrrd": "field 'type' must be int8 to int64, uint8 to uint64, float or double",
    "matnrrd/test3d_bigendian_raw_noendianfield.nrrd": "lacks the field 'endian'",
    "natverse-nat/badenc.nhdr": "'encoding' says bzip2, but the data looks like gzip",
    "natverse-nat/badtype.nhdr": "got 'int128'",
    "nrrdchecker/mask.nrrd": "gives 'space directions' a second time",
    "pynrrd/BallBinary30x30x30_byteskip_minus_five.nhdr": "field 'byte skip' must be a whole number, -1 or more, "
    "got '-5'",
}
UNITS_UM = {"mm": 1e3, "microns": 1.0, "um": 1.0, "m": 1e6, "": 1e3}
FLIPS = {"right-anterior-superior": (1, -1, -1)}  # ITK turns every world to left-posterior-superior


@pytest.fixture(scope="module")
def zoo(shared_data: Path) -> Path:
    folder = shared_data / "nrrd-zoo"
    if not folder.is_dir():
        pytest.skip(f"no NRRD collection at {folder}")
    return folder


def test_the_catalogue_is_the_collections_own(zoo: Path):
    assert (zoo / "CATALOG.tsv").read_bytes() == CATALOG.read_bytes(), f"copy {zoo / 'CATALOG.tsv'} to {CATALOG}"


def test_every_file_that_must_be_refused_has_a_reason():
    assert set(REFUSED) == {path for path, row in ROWS.items() if row["expect"] == "error"}


@pytest.mark.parametrize("path", READABLE)
def test_values_are_those_of_the_reference_implementation(zoo: Path, path: str):
    row = ROWS[path]
    source = open_nrrd(zoo / path)
    values = np.concatenate(list(source.read_values()))
    assert hashlib.sha256(values.astype(values.dtype.newbyteorder("<")).tobytes()).hexdigest() == row["values_sha256"]
    assert (np.nanmin(values), np.nanmax(values)) == (float(row["min"]), float(row["max"]))
    assert float(np.nansum(values, dtype=np.float64)) == pytest.approx(float(row["sum"]), rel=1e-6)
    assert " ".join(map(str, source.facts["sizes"])) == row["sizes"]
    if source.shape is None:
        assert len(source.facts["sizes"]) == 1
        return
    volume = np.zeros(source.shape, source.dtype)
    for index, block in source.read_blocks(5):
        volume[index] = block
    if source.shape == tuple(source.facts["sizes"][::-1]):  # no channels, or channels slowest
        np.testing.assert_array_equal(volume.ravel(), values)
    else:
        np.testing.assert_array_equal(np.sort(volume, axis=None), np.sort(values))


@pytest.mark.parametrize("path", [path for path in READABLE if ROWS[path]["itk_5.x"] == "ok"])
def test_voxel_size_and_origin_are_those_of_itk(zoo: Path, path: str):
    sitk = pytest.importorskip("SimpleITK")
    source = open_nrrd(zoo / path)
    if source.geometry is None:
        assert any("no usable voxel size" in warning for warning in source.warnings) or source.refusal is not None
        return
    image = sitk.ReadImage(str(zoo / path))
    units = source.header.get("space units", source.header.get("units", "")).replace('"', "").split()
    factor = UNITS_UM[units[0] if units else ""]
    axes = min(image.GetDimension(), 3)
    spacing_um = np.array(image.GetSpacing()[:axes]) * factor
    np.testing.assert_allclose(source.geometry.spacing_um[::-1][:axes], spacing_um, rtol=1e-6)
    if "axis mins" in source.header:
        return  # ITK takes the face of the first voxel for its centre
    flips = FLIPS.get(source.geometry.space or "", (1, 1, 1))[::-1]
    origin_um = np.array(image.GetOrigin()[:axes]) * factor * flips[:axes]
    np.testing.assert_allclose(source.geometry.origin_um[::-1][:axes], origin_um, rtol=1e-6, atol=1e-6)
    directions = np.array(image.GetDirection()).reshape(image.GetDimension(), -1)[:axes, :axes].T * flips[:axes]
    np.testing.assert_allclose(np.array(source.geometry.directions)[::-1, ::-1][:axes, :axes], directions, atol=1e-6)


@pytest.mark.parametrize("path", REFUSED)
def test_broken_files_are_refused_with_their_reason(zoo: Path, path: str):
    with pytest.raises(FormatError) as refusal:
        for _ in open_nrrd(zoo / path).read_values():
            pass
    message = str(refusal.value)
    assert REFUSED[path] in message
    assert path.rpartition("/")[2] in message or "LHMask.nrrd" in message
    assert "; " in message  # what to do


@pytest.mark.parametrize("path", [path for path, row in ROWS.items() if row["expect"].startswith("header only")])
def test_headers_without_data_are_read_and_their_data_missed(zoo: Path, path: str):
    row = ROWS[path]
    header = read_header(zoo / path)
    assert " ".join(map(str, header.sizes)) == row["sizes"]
    assert header.fields["type"] == row["type"].strip()
    assert len(header.key_values) == int(row["n_keyvalue"])
    with pytest.raises(FormatError, match="doesn't exist|names 5 files|nor names a 'data file'"):
        open_nrrd(zoo / path)


def test_key_value_pairs_lose_their_escapes(zoo: Path):
    assert open_nrrd(zoo / "teem-written/thc1_keyvalue.nrrd").header["key_values"] == {
        "sample": "VS0172 thalamocortical",
        "empty": "",
        "path with spaces": r"C:\data\x.tif",
        "multi": "line one\nline two",
        "unit µ": "1.17 µm",
        "Segment0_Name": "axon",
        "note": "a := b: c",
    }
