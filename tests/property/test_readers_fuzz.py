"""Whatever bytes a file holds, its reader hands out what its header says or refuses it in words, in bounded memory.

VOXLOOM_FUZZ_EXAMPLES=2000 looks longer than the few seconds of a test run.
"""

import contextlib
import gzip
import json
import math
import os
import shutil
import tempfile
import warnings
from pathlib import Path

import h5py
import mrcfile
import nibabel
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from voxloom import io, job_memory
from voxloom.convert import slab_slices
from voxloom.errors import ConfigError, FormatError, ModelError, VolumeError, VoxloomError
from voxloom.io.formats import open_source
from voxloom.model import read_settings, read_tensors
from voxloom.volume import Geometry
from voxloom.yaml_file import read_yaml

EXAMPLES = int(os.environ.get("VOXLOOM_FUZZ_EXAMPLES", "6"))
UNHURRIED = settings(deadline=None, max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
RAMP = np.arange(3 * 5 * 7, dtype="uint16").reshape(3, 5, 7)
MANY = 1 << 16
"""Voxels after which reading stops: a header may promise a volume of zeros that nobody can count."""


def tiff(path, **how):
    tifffile.imwrite(path, RAMP, photometric="minisblack", **how)


def hdf5(path):
    with h5py.File(path, "w") as file:
        made = file.create_dataset("raw", data=RAMP, chunks=(2, 4, 4), compression="gzip")
        made.attrs["element_size_um"] = (1.0, 2.0, 3.0)


def mrc(path):
    with mrcfile.new(path) as file:
        file.set_data(RAMP.astype("int16"))
        file.voxel_size = 2.0


def nifti(path):
    nibabel.save(nibabel.Nifti1Image(RAMP.astype("int16"), np.diag([1.0, 2.0, 3.0, 1.0])), path)


def png(path):
    Image.fromarray(RAMP[0]).save(path)


FILES = {
    "plain.tif": tiff,
    "zlib.tif": lambda path: tiff(path, compression="zlib"),
    "tiled.tif": lambda path: tiff(path, tile=(16, 16), compression="zlib"),
    "big.ome.tif": lambda path: tiff(path, bigtiff=True, metadata={"axes": "ZYX", "PhysicalSizeX": 1.0}),
    "imagej.tif": lambda path: tifffile.imwrite(path, RAMP, imagej=True, metadata={"axes": "ZYX", "spacing": 2.0}),
    "a.h5": hdf5,
    "a.mrc": mrc,
    "a.nii": nifti,
    "a.nii.gz": nifti,
    "a.png": png,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A whole file of every format, by name."""
    folder = tmp_path_factory.mktemp("whole")
    for name, write in FILES.items():
        write(folder / name)
    return {name: (folder / name).read_bytes() for name in FILES}


def read(path):
    """Read what a file hands out, up to a limit; return what refused it."""
    try:
        with job_memory.bounded(512, source=path):
            source = open_source(path)
            shape = source.require_shape()
            slab_slices(source, memory_mib=256)  # refuses, as every conversion does, what doesn't fit in that memory
            count = 0
            for index, values in source.read_blocks(2) if math.prod(shape[-2:]) <= MANY else ():
                assert values.shape == tuple(part.stop - part.start for part in index)
                count += values.size
                if count > MANY:
                    return None
            assert count in (0, math.prod(shape))
    except VoxloomError as error:
        return error
    return None


def read_bounded(path):
    """What is refused must be refused in words."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries, about oddities
        refused = read(path)
    assert refused is None or isinstance(refused, FormatError | VolumeError), repr(refused)
    assert refused is None or path.name in str(refused)


def damaged(data, draw):
    """The bytes with some of them replaced, or cut."""
    data = bytearray(data)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data) - 1) | st.integers(0, min(len(data), 1100) - 1))
        new = draw(st.binary(max_size=4) | st.sampled_from([b"\xff" * 4, b"\0" * 8, b"\x7f\xff\xff\xff"]))
        data[at : at + draw(st.sampled_from([len(new), 1, 0]))] = new
    return bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.integers(0, 4)) == 0 else bytes(data)


@pytest.mark.parametrize("name", FILES)
def test_damaged_files_are_read_or_refused(whole, name):
    @UNHURRIED
    @given(st.data())
    def fuzzed(data):
        packed = name.endswith(".gz") and data.draw(st.booleans())
        inner = gzip.decompress(whole[name]) if packed else whole[name]
        found = damaged(inner, data.draw)
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / name).write_bytes(gzip.compress(found, 1) if packed else found)
            read_bounded(Path(folder) / name)

    fuzzed()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2**40) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def changed(document, draw):
    """The document with one value, anywhere in it, removed or replaced by anything."""
    document = json.loads(json.dumps(document))
    for _ in range(draw(st.integers(1, 3))):
        node = document
        while True:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(node[key], dict | list) and node[key] and draw(st.booleans()):
                node = node[key]
                continue
            node[key] = draw(JSON | st.sampled_from([[1 << 20] * 3, "../x", "/", {"name": "gzip"}, "float64"]))
            break
    return document


@pytest.mark.parametrize("kind", ["own", "ome", "v2", "v3"])
def test_metadata_of_stores_that_say_anything_are_read_or_refused(tmp_path, kind):
    store = tmp_path / "a.zarr"
    if kind in ("own", "ome"):
        with io.create_volume(store, shape=RAMP.shape, dtype="u2", geometry=Geometry((1, 2, 3)), kind="image") as out:
            out[:] = RAMP
        if kind == "ome":
            document = json.loads((store / "zarr.json").read_text())
            del document["attributes"]["voxloom"]
            (store / "zarr.json").write_text(json.dumps(document))
    else:
        zarr.create_array(store, shape=RAMP.shape, chunks=(2, 2, 2), dtype="u2", zarr_format=int(kind[1]))[...] = RAMP
    files = [path for path in store.rglob("*") if path.name in ("zarr.json", ".zarray", ".zattrs")]

    @UNHURRIED
    @given(st.data())
    def fuzzed(data):
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "a.zarr"
            shutil.copytree(store, copy)
            file = copy / data.draw(st.sampled_from(sorted(files))).relative_to(store)
            file.write_text(json.dumps(changed(json.loads(file.read_text()), data.draw)))
            read_bounded(copy)

    fuzzed()


@UNHURRIED
@given(st.text(alphabet="ab:-[]{}&*!|>'\"#?,% \n\t01.e\\<=", max_size=120))
def test_yaml_of_any_text_is_plain_data_or_refused(text):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.yaml"
        path.write_text(text)
        try:
            json.dumps(read_yaml(path), default=str, skipkeys=True)
        except ConfigError:
            return


@UNHURRIED
@given(st.data())
def test_damaged_models_are_refused(data):
    from safetensors.numpy import save

    with tempfile.TemporaryDirectory() as folder:
        weights, settings_file = Path(folder) / "w.safetensors", Path(folder) / "model.yaml"
        weights.write_bytes(damaged(save({"a": RAMP, "b": RAMP[0]}), data.draw))
        settings_file.write_bytes(damaged(b"format: voxloom model 1\nnetwork: {name: unet}\n", data.draw))
        for act in (lambda: read_tensors(weights), lambda: read_settings(folder)):
            with contextlib.suppress(ModelError):
                act()
