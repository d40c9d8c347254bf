"""Jobs that share a volume: each writes files of its own, and together they are the volume that one job writes."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxloom import blocks, inference, io, networks
from voxloom.blocks import part_of
from voxloom.errors import VolumeError
from voxloom.predictor import Predictor
from voxloom.segment import look_at_part, segment_volume
from voxloom.volume import Geometry

GEOMETRY = Geometry((1.0, 1.0, 1.0))
SHAPE = (200, 24, 300)  # 4 layers of shards
IMAGE = np.random.default_rng(0).integers(0, 250, SHAPE).astype(np.uint8)
IMAGE[:, 4:12, :200] = 200  # an object through all layers
IMAGE[64:128, :, 200:] = 0
CUT = {"stored_threshold": 190, "min_size_voxels": 5, "connectivity": 6, "memory_mib": 40.0}


def volume(path, dtype, kind, **options):
    return io.create_volume(path, shape=SHAPE, dtype=dtype, geometry=GEOMETRY, kind=kind, resume="a" * 64, **options)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@given(depth=st.integers(1, 1000), layer=st.sampled_from([1, 7, 64]), count=st.integers(1, 20))
def test_parts_are_whole_layers_and_cover_every_slice_once(depth, layer, count):
    ranges = [part_of((depth, 9, 9), (layer, 9, 9), f"{k}-of-{count}") for k in range(1, count + 1)]
    assert [first for first, _ in ranges] == [0, *(last for _, last in ranges[:-1])]
    assert ranges[-1][1] == depth
    assert all(first % layer == 0 for first, last in ranges if first < last)


def test_objects_segmented_by_three_jobs_are_those_of_one(tmp_path):
    with volume(tmp_path / "whole.zarr", "uint32", "labels") as labels:
        expected = segment_volume(IMAGE, labels, **CUT)
    parts = ["1-of-3", "2-of-3", "3-of-3"]
    for part in parts:
        with io.kept_results(tmp_path / f"{part}.objects", resume="a" * 64) as keep:
            look_at_part(IMAGE, keep, z_range=part_of(SHAPE, (64, 24, 300), part), **CUT)
    looks = [tmp_path / f"{part}.objects" for part in parts]
    for part in reversed(parts):
        with volume(tmp_path / f"{part}.zarr", "uint32", "labels", multiscale=False) as labels:
            keep = io.keep_results(labels.folder, "objects")
            keep.take_over(looks)
            z_range = part_of(SHAPE, labels.shard_shape, part)
            assert segment_volume(Unread(IMAGE, z_range), labels, keep=keep, z_range=z_range, **CUT) == expected
            labels.metadata["written"] = labels.written()
    with volume(tmp_path / "joined.zarr", "uint32", "labels") as labels:
        keep = io.keep_results(labels.folder, "objects")
        keep.take_over(looks)
        labels.take_over(tmp_path / f"{part}.zarr" for part in parts)
        assert segment_volume(Unread(IMAGE, (0, 0)), labels, keep=keep, **CUT) == expected
    assert same_but_for_the_name(tmp_path / "joined.zarr", tmp_path / "whole.zarr")


class Unread:
    """An image of which only some slices may be read, and one voxel for its type."""

    def __init__(self, image, z_range):
        self.image, self.z_range, self.shape = image, z_range, image.shape

    def __getitem__(self, index):
        z = index[1] if index[0] is Ellipsis else index[0]
        assert z == slice(0, 1) or (self.z_range[0] <= z.start and z.stop <= self.z_range[1]), "another job's slices"
        return self.image[index]


def same_but_for_the_name(one, other):
    found, expected = contents(one), contents(other)
    name = found["zarr.json"].replace(one.stem.encode(), other.stem.encode())
    return {**found, "zarr.json": name} == expected


MODEL = {
    "network": {"name": "unet", "dimensions": 2, "widths": [2, 3], "slices": 3, "slice_step": 1, "norm": "none"},
    "input": {"size": None, "patch_voxels": [1, 16, 16], "normalise": "zscore"},
    "normalisation": {"name": "zscore", "mean": 120.0, "deviation": 40.0, "dtype": "uint8"},
    "precision": "float32",
    "test_time_flips": False,
    "test_time_rotations": False,
    "spacing_um": [1.0, 1.0, 1.0],
}


@pytest.mark.parametrize("tiles", ["exact", "averaged"])
def test_a_prediction_by_three_jobs_is_that_of_one(tmp_path, tiles):
    members = [(networks.build(MODEL["network"], seed=0).eval(), MODEL)]
    options = {"memory_mib": 64.0, "threads": 1, "device": "cpu", "tiles": tiles}
    parts = [tmp_path / f"{k}-of-3.zarr" for k in (1, 2, 3)]
    with volume(tmp_path / "whole.zarr", "uint8", "probability") as out:
        inference.predict_ensemble(members, IMAGE, out, **options)
    for path in parts:
        with volume(path, "uint8", "probability", multiscale=False) as out:
            inference.predict_ensemble(members, IMAGE, out, part=path.stem, **options)
            out.metadata["written"] = out.written()
    with volume(tmp_path / "joined.zarr", "uint8", "probability") as out:
        out.take_over(parts)
        assert len(out.written()) == 4, "nothing is left to predict"
        inference.predict_ensemble(members, IMAGE, out, **options)
    assert same_but_for_the_name(tmp_path / "joined.zarr", tmp_path / "whole.zarr")


@pytest.mark.parametrize(("height", "width"), [(24, 300), (90, 100), (17, 19)])
def test_a_network_of_two_dimensions_is_given_the_same_batches_by_three_jobs_as_by_one(height, width, monkeypatch):
    """Sums round as they did, to the last bit: slices that are predicted at once are the same ones."""
    batches, forward = [], Predictor.forward

    def recorded(self, batch):
        batches.append(hashlib.sha256(batch.contiguous().numpy().tobytes()).hexdigest())
        return forward(self, batch)

    monkeypatch.setattr(Predictor, "forward", recorded)
    image = np.random.default_rng(0).integers(0, 250, (200, height, width)).astype(np.uint8)
    members = [(networks.build(MODEL["network"], seed=0).eval(), MODEL)]

    def predicted(*parts):
        batches.clear()
        for part in parts:
            inference.predict_ensemble(
                members, image, np.empty(image.shape, np.uint8), memory_mib=64.0, threads=1, device="cpu", part=part
            )
        return sorted(batches)

    alone = predicted("1-of-1")
    assert len(alone) < 200, "several slices at once"
    assert predicted("1-of-3", "2-of-3", "3-of-3") == alone


def write_part(path):
    """Twice the image, by blocks of one part."""
    with volume(path, "uint8", "image", multiscale=False) as out:
        slabs = blocks.grid(SHAPE, (64, 24, 300), z_range=part_of(SHAPE, out.shard_shape, path.stem))
        blocks.map_blocks(lambda values: values * np.uint8(2), IMAGE, out=out, blocks=slabs)
        out.metadata["written"] = out.written()


def test_processes_that_write_at_the_same_time_write_one_volume(tmp_path):
    paths = [tmp_path / f"{k}-of-2.zarr" for k in (1, 2)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    code = "import sys; from pathlib import Path; from test_scatter import write_part; write_part(Path(sys.argv[1]))"
    jobs = [subprocess.Popen([sys.executable, "-c", code, str(path)], env=environment) for path in paths]
    assert [job.wait() for job in jobs] == [0, 0]
    files = [{str(file.relative_to(path)) for file in path.rglob("c/**/*") if file.is_file()} for path in paths]
    assert not files[0] & files[1], "no two jobs write one file"
    with volume(tmp_path / "joined.zarr", "uint8", "image") as out:
        out.take_over(paths)
    np.testing.assert_array_equal(io.open_volume(tmp_path / "joined.zarr")[:], IMAGE * np.uint8(2))


def test_a_part_of_another_grid_is_refused(tmp_path):
    with volume(tmp_path / "part.zarr", "uint16", "image", multiscale=False) as out:
        out.metadata["written"] = out.written()
    with pytest.raises(VolumeError, match="of uint16, expected .* of uint8; remove it"):
        with volume(tmp_path / "v.zarr", "uint8", "image") as out:
            out.take_over([tmp_path / "part.zarr"])
