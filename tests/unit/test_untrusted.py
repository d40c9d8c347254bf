"""Files from strangers: none executes code, leads voxloom to other files, or takes more memory than a job may."""

import json
import os
import pickle
import sys
import zipfile
import zlib

import h5py
import numpy as np
import pytest
import tifffile
import torch
import yaml
import zarr
from safetensors.torch import save_file

from voxloom import checkpoint, configuration, io, job_memory, networks, pretrained
from voxloom.config import check, read_volumes
from voxloom.convert import convert_file
from voxloom.errors import ConfigError, FormatError, ModelError, VolumeError
from voxloom.io.formats import open_source, read_array
from voxloom.model import FORMAT, load_model
from voxloom.volume import Geometry
from voxloom.yaml_file import read_yaml

RAMP = np.arange(24, dtype="uint8").reshape(2, 3, 4)
SECRET = b"what is written in another f"


class Code:
    """Runs when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, 2))])
def test_models_execute_nothing(tmp_path, write):
    file, trap = tmp_path / "m.pt", tmp_path / "trap"
    write({"key": "k", "state_dict": Code(trap)}, file)
    with pytest.raises(ModelError, match=r"m\.pt"):
        pretrained.read_initial(file, freeze=[])
    with pytest.raises(ModelError, match=r"m\.pt"):
        checkpoint.load_checkpoint(file, key="k")
    assert not trap.exists()


def test_an_archive_of_weights_that_would_expand_is_refused(tmp_path):
    torch.save({"a": torch.zeros(1 << 20)}, tmp_path / "m.pt")
    with zipfile.ZipFile(tmp_path / "m.pt") as plain, zipfile.ZipFile(tmp_path / "bomb.pt", "w") as packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name), compress_type=zipfile.ZIP_DEFLATED)
    with pytest.raises(ModelError, match=r"bomb\.pt is a compressed archive"):
        pretrained.read_initial(tmp_path / "bomb.pt", freeze=[])


@pytest.mark.parametrize(
    "network",
    [
        {"name": "unet", "dimensions": 2, "widths": [1 << 22, 1 << 23], "slices": 1, "slice_step": 1, "norm": "none"},
        {"name": "unet", "dimensions": 2, "widths": "ab", "slices": 1, "slice_step": 1, "norm": "none"},
        {"name": ["unet"]},
    ],
)
def test_a_model_whose_settings_promise_a_network_of_any_size_takes_no_memory(tmp_path, network):
    normalisation = {"name": "zscore", "mean": 0.0, "deviation": 1.0, "dtype": "uint8"}
    document = {"format": FORMAT, "network": network, "input": {}, "normalisation": normalisation}
    document |= {"spacing_um": [1, 1, 1], "precision": "float32", "test_time_flips": False}
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(document))
    save_file({"a": torch.zeros(3)}, tmp_path / "weights.safetensors")
    with job_memory.bounded(256, source=tmp_path), pytest.raises(ModelError):
        load_model(tmp_path)


def test_shapes_without_memory_are_those_of_the_network():
    network = {"name": "unet", "dimensions": 2, "widths": [2, 3], "slices": 1, "slice_step": 1, "norm": "batch"}
    built = networks.build(network, seed=0).state_dict()
    assert networks.shapes(network) == {name: tuple(tensor.shape) for name, tensor in built.items()}


LAUGHS = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LAUGHS, r"line 7: its aliases .* stand for more than 1000000 values"),
        ("a: &a [*a]\n", r"line 1: \*a stands inside itself"),
        ("a: " + "[" * 100_000, r"line 1: more than 64 levels"),
        ("a: !!python/object/apply:os.mkdir [trap]\n", r"line 1: could not determine a constructor"),
        ("__use_yte__: true\n?__import__('os').mkdir('trap'):\n  a: 1\n", r"__use_yte__ would execute expressions"),
        ("a: 2001-99-99\n", r"not readable as YAML: month must be in"),
        ("a: 1\na: 2\n", r"the key 'a' stands twice"),
    ],
)
def test_yaml_is_data_of_bounded_size(tmp_path, monkeypatch, text, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError, match=rf"a\.yaml.* {said}|a\.yaml: {said}|a\.yaml {said}"):
        read_yaml("a.yaml")
    assert not (tmp_path / "trap").exists()


def test_a_text_of_any_length_is_not_read(tmp_path):
    with open(tmp_path / "a.yaml", "wb") as file:
        file.truncate(1 << 40)  # takes no place
    with pytest.raises(ConfigError, match=r"a\.yaml has more than 16 MiB"):
        read_yaml(tmp_path / "a.yaml")
    (tmp_path / "v.tsv").write_text("volume\tpath\na\t" + "x" * 200_000 + "\n")
    with pytest.raises(ConfigError, match=r"v\.tsv line 2: field larger than field limit"):
        read_volumes(tmp_path / "v.tsv", {})


@pytest.mark.parametrize("name", ["../x", "a/b", "/x", "..", ".hidden", "", "a b"])
def test_names_lead_nowhere_else(tmp_path, name):
    (tmp_path / "v.tsv").write_text(f"volume\tpath\n{name}\ta.nrrd\n")
    with pytest.raises(ConfigError, match="volume name"):
        read_volumes(tmp_path / "v.tsv", configuration.schema("volumes"))
    model = {"optimiser": {"learning_rate": 0.1}}
    recipe = {"recipe": [{"threshold": {"above": 1}}]}
    for key in ("models", "ensembles", "fusions"):
        task = {
            "annotate": recipe,
            "models": {"m": model},
            key: {name: model if key == "models" else {"models": ["m"]}},
        }
        with pytest.raises(ConfigError, match=key):
            check(task, configuration.schema("task"), name="t.yaml")
    for key in ("tasks", "phantom", "downloads"):
        document = {"volumes": "v.tsv", "tasks": {"t": ["m"]}, key: {name: ["m"] if key == "tasks" else {}}}
        with pytest.raises(ConfigError, match=key):
            check(document, configuration.schema("config"), name="config.yaml")


def test_hdf5_leads_to_no_other_file(tmp_path):
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "got").mkdir()
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = RAMP
    virtual = h5py.VirtualLayout(RAMP.shape, "u1")
    virtual[:] = h5py.VirtualSource(tmp_path / "other.h5", "x", shape=RAMP.shape)
    with h5py.File(tmp_path / "got" / "a.h5", "w") as file:
        file.create_dataset("external", shape=RAMP.shape, dtype="u1", external=[(str(tmp_path / "secret"), 0, 24)])
        file.create_virtual_dataset("virtual", virtual)
        file["link"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/x")
        file["own"] = RAMP
    for name in ("external", "virtual", "link"):
        with pytest.raises(FormatError, match=r"takes its values from .*voxloom follows no links out of a file"):
            open_source(f"{tmp_path}/got/a.h5::/{name}")
    np.testing.assert_array_equal(read_array(open_source(f"{tmp_path}/got/a.h5::/own")), RAMP)


@pytest.mark.parametrize("place", ["../outside.zarr", "{tmp}/outside.zarr"])
@pytest.mark.parametrize("ours", [False, True])
def test_zarr_metadata_lead_to_no_other_folder(tmp_path, place, ours):
    zarr.create_array(tmp_path / "outside.zarr", shape=RAMP.shape, chunks=RAMP.shape, dtype="u1")[...] = RAMP
    with io.create_volume(tmp_path / "a.zarr", shape=(2, 3, 4), dtype="u1", geometry=Geometry((1, 1, 1)), kind="image"):
        pass
    document = json.loads((tmp_path / "a.zarr" / "zarr.json").read_text())
    document["attributes"]["ome"]["multiscales"][0]["datasets"][0]["path"] = place.format(tmp=tmp_path)
    if not ours:
        del document["attributes"]["voxloom"]
    (tmp_path / "a.zarr" / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(FormatError, match=r"a\.zarr: its array .* lies outside the store"):
        open_source(tmp_path / "a.zarr")


@pytest.mark.parametrize("what", ["chunk", "folder"])
def test_links_in_a_store_are_not_followed(tmp_path, what):
    store = tmp_path / "a.zarr"
    zarr.create_array(store, shape=RAMP.shape, chunks=RAMP.shape, dtype="u1", compressors=None)[...] = RAMP
    (tmp_path / "else" / "0" / "0").mkdir(parents=True)
    (tmp_path / "else" / "0" / "0" / "0").write_bytes(SECRET[:24])
    place = store / "c" / "0" / "0" / "0" if what == "chunk" else store / "c"
    place.rename(tmp_path / "moved")
    place.symlink_to(tmp_path / "else" / "0" / "0" / "0" if what == "chunk" else tmp_path / "else")
    with pytest.raises(FormatError, match=r"is a link, which voxloom doesn't follow within a store"):
        open_source(store)


def test_a_store_that_is_a_link_itself_is_read(tmp_path):
    zarr.create_array(tmp_path / "real.zarr", shape=RAMP.shape, chunks=RAMP.shape, dtype="u1")[...] = RAMP
    (tmp_path / "a.zarr").symlink_to(tmp_path / "real.zarr")
    np.testing.assert_array_equal(read_array(open_source(tmp_path / "a.zarr")), RAMP)


def test_an_ome_tiff_has_no_pages_in_other_folders(tmp_path):
    (tmp_path / "got").mkdir()
    tifffile.imwrite(tmp_path / "other.ome.tif", RAMP, photometric="minisblack", metadata={"axes": "ZYX"})
    with tifffile.TiffFile(tmp_path / "other.ome.tif") as file:
        said = file.ome_metadata
    uuid = "urn:uuid:00000000-0000-0000-0000-000000000001"
    block = f'<TiffData FirstZ="0" IFD="0" PlaneCount="2"><UUID FileName="../other.ome.tif">{uuid}</UUID></TiffData>'
    start, end = said.index("<TiffData"), said.index("</Pixels>")
    tags = {"description": said[:start] + block + said[end:], "metadata": None}
    tifffile.imwrite(tmp_path / "got" / "a.tif", RAMP[0], ome=False, **tags)
    with pytest.raises(FormatError, match=r"a\.tif has pages in .*other\.ome\.tif, outside its folder"):
        open_source(tmp_path / "got" / "a.tif")


def test_sizes_that_overflow_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", RAMP, imagej=True, metadata={"axes": "ZYX"})
    data = (tmp_path / "a.tif").read_bytes().replace(b"images=2\n", b"images=9" + b"9" * 3 + b"\n")
    (tmp_path / "a.tif").write_bytes(data)
    source = None
    try:
        source = open_source(tmp_path / "a.tif")
    except FormatError:
        return
    assert source.shape[-2:] == (3, 4)
    assert source.shape[0] <= 2


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded by the system on Linux only")
def test_what_expands_in_a_reader_is_stopped_at_the_memory_of_the_job(tmp_path):
    packer = zlib.compressobj(1)
    zeros = b"".join(packer.compress(bytes(1 << 24)) for _ in range(18)) + packer.flush()  # 288 MiB
    with h5py.File(tmp_path / "a.h5", "w") as file:
        made = file.create_dataset("raw", shape=RAMP.shape, dtype="u1", chunks=RAMP.shape, compression="gzip")
        made.id.write_direct_chunk((0, 0, 0), zeros)
    with pytest.raises(FormatError, match=r"a\.h5::/raw can't be decoded"):
        convert_file(tmp_path / "a.h5", tmp_path / "a.zarr", memory_mib=130, voxel_size_um=(1.0, 1.0, 1.0))
    assert not (tmp_path / "a.zarr").exists()
    with pytest.raises(VolumeError, match="x takes more than 64 MiB to read"), job_memory.bounded(64, source="x"):
        np.zeros(1 << 30, np.uint8)
    assert np.zeros(1 << 30, np.uint8).nbytes == 1 << 30  # what was bounded is bounded no longer


@pytest.mark.parametrize("suffix", [".h5", ".zarr"])
def test_chunks_larger_than_the_memory_of_the_job_are_refused_before_one_is_read(tmp_path, suffix):
    path, shape = tmp_path / f"a{suffix}", (1 << 10, 1 << 10, 1 << 10)
    if suffix == ".h5":
        with h5py.File(path, "w") as file:
            file.create_dataset("raw", shape=shape, dtype="u1", chunks=shape, compression="gzip")
    else:
        zarr.create_array(path, shape=shape, chunks=shape, dtype="u1")
    with pytest.raises(VolumeError, match=r"in chunks of 1024 MiB.*needs 2176 MiB of memory; memory_mib is 1000"):
        convert_file(path, tmp_path / "b.zarr", memory_mib=1000, voxel_size_um=(1.0, 1.0, 1.0))


def test_a_name_of_nrrd_files_is_not_searched_forever(tmp_path):
    (tmp_path / "a.nhdr").write_text(
        f"NRRD0005\ntype: uint8\ndimension: 3\nsizes: 2 3 4\nencoding: raw\ndata file: a%d{' ' * 400_000}x\n"
    )
    with pytest.raises(FormatError, match=r"a\.nhdr: field 'data file' has \d+ characters"):
        open_source(tmp_path / "a.nhdr")
