"""Whatever a file says, it is read in bounded memory or refused in words: no other error, no lost voxel."""

import bz2
import gzip
import math
import os
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from voxloom.errors import FormatError
from voxloom.io.nrrd import open_nrrd, write_nrrd
from voxloom.io.source import slabs
from voxloom.volume import Geometry

VALUES = bytes(range(120))
BODIES = {
    "raw": VALUES,
    "gzip": gzip.compress(VALUES, mtime=0),
    "bzip2": bz2.compress(VALUES),
    "hex": VALUES.hex().encode(),
    "ascii": b" ".join(str(value).encode() for value in VALUES),
}
HEADER = """NRRD0005
# a comment
type: {type}
dimension: 4
space: left-posterior-superior
sizes: 2 5 4 3
space directions: none (1,0,0) (0,2,0) (0,0,3)
kinds: list domain domain domain
endian: little
encoding: {encoding}
space units: "mm" "um" "nm"
space origin: (1,2,3)
Segment0_Name:=axon
Segment0_LabelValue:=1

"""
VALUE = st.one_of(
    st.integers(-3, 10**19).map(str),
    st.floats(allow_nan=True).map(str),
    st.lists(st.integers(-1, 10**18), max_size=5).map(lambda numbers: " ".join(map(str, numbers))),
    st.lists(st.floats(), min_size=1, max_size=4).map(
        lambda numbers: " ".join(f"({each},0,{each})" for each in numbers)
    ),
    st.text(max_size=20),
    st.sampled_from(
        ["none none none none", "LIST", "LIST 3", "%d 1 2 1", "%s", "../a", "LPST", "vector list time ???"]
    ),
)
FIELD = st.sampled_from(
    ["type", "dimension", "space", "space dimension", "sizes", "space directions", "kinds", "endian", "encoding",
     "space units", "space origin", "spacings", "axis mins", "axis maxs", "units", "labels", "centers", "line skip",
     "byte skip", "data file", "measurement frame"]
)  # fmt: skip
PAIR = st.sampled_from(["Segment0_LabelValue", "Segment0_Layer", "Segment99_Color", "Segmentation_Extent"])
EXAMPLES = int(os.environ.get("VOXLOOM_FUZZ_EXAMPLES", "150"))
UNHURRIED = settings(deadline=None, max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])


def check(data: bytes) -> None:
    """Read all of a file, in both ways; what is refused must be refused in words."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.nrrd"
        path.write_bytes(data)
        try:
            source = open_nrrd(path)
            count = sum(len(values) for values in source.read_values())
            assert count == math.prod(source.facts["sizes"])
            if source.shape is not None:
                assert sum(block.size for _, block in source.read_blocks(2)) == count
            else:
                assert source.refusal
        except FormatError as error:
            said = str(error)
        else:
            return
    assert "a.nrrd" in said
    assert ";" in said  # what is wrong; what to do


@UNHURRIED
@given(encoding=st.sampled_from(list(BODIES)), kind=st.sampled_from(["uint8", "int16", "float"]), data=st.data())
def test_damaged_files_are_read_or_refused(encoding, kind, data):
    file = bytearray(HEADER.format(type=kind, encoding=encoding).encode() + BODIES[encoding])
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(file) - 1))
        file[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    check(bytes(file[: data.draw(st.integers(0, len(file)))]) if data.draw(st.booleans()) else bytes(file))


@UNHURRIED
@given(encoding=st.sampled_from(list(BODIES)), fields=st.dictionaries(FIELD, VALUE, max_size=4), pair=PAIR, value=VALUE)
@example("raw", {"sizes": "2 5 4 3", "spacings": "nan 1e308 -1e308 5e-324"}, "Segment0_Layer", "1")
@example("raw", {"space directions": "none (1e308,0,1e308) (0,1,0) (0,0,1)"}, "Segment0_Layer", "-1")
def test_headers_that_say_anything_are_read_or_refused(encoding, fields, pair, value):
    lines = HEADER.format(type="uint8", encoding=encoding).rstrip("\n").split("\n")
    kept = [line for line in lines if line.split(": ")[0] not in fields]
    text = "\n".join([*kept, *(f"{name}: {text}" for name, text in fields.items()), f"{pair}:={value}", "", ""])
    check(text.encode("utf-8", "surrogatepass") + BODIES[encoding])


@UNHURRIED
@given(
    encoding=st.sampled_from(list(BODIES)),
    sizes=st.lists(st.integers(1, 10**18), min_size=3, max_size=3),
    kind=st.sampled_from(["uint8", "uint64"]),
)
def test_no_header_takes_more_memory_than_its_file_can_fill(encoding, sizes, kind):
    text = f"NRRD0004\ntype: {kind}\ndimension: 3\nsizes: {' '.join(map(str, sizes))}\n"
    text += f"endian: big\nencoding: {encoding}\n\n"
    tracemalloc.start()
    check(text.encode() + BODIES[encoding])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 << 20


@UNHURRIED
@given(
    shape=st.lists(st.integers(1, 6), min_size=3, max_size=4).map(tuple),
    dtype=st.sampled_from(["u1", "i2", "u4", "i8", "f4", "f8"]),
    slices=st.integers(1, 7),
    encoding=st.sampled_from(["gzip", "raw"]),
    spacing_um=st.tuples(*[st.floats(1e-4, 1e4)] * 3),
    origin_um=st.tuples(*[st.floats(-1e6, 1e6)] * 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_what_is_written_is_read_back(shape, dtype, slices, encoding, spacing_um, origin_um, seed):
    volume = np.frombuffer(np.random.default_rng(seed).bytes(math.prod(shape) * np.dtype(dtype).itemsize), dtype)
    volume = volume.reshape(shape)
    geometry = Geometry(spacing_um, origin_um)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.nrrd"
        blocks = ((index, volume[index]) for index in slabs(shape, slices, one_channel=False))
        write_nrrd(path, blocks, shape=shape, dtype=dtype, geometry=geometry, encoding=encoding)
        source = open_nrrd(path)
        again = np.zeros(source.shape, source.dtype)
        for index, block in source.read_blocks(2):
            again[index] = block
    assert again.tobytes() == volume.tobytes()  # NaN and all
    np.testing.assert_allclose(source.geometry.spacing_um, spacing_um, rtol=1e-12)
    np.testing.assert_allclose(source.geometry.origin_um, origin_um, rtol=1e-12, atol=1e-12)
