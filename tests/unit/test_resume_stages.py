"""Every stage that resumes: stopped at any of its writes and run again, it writes the rest to the same bytes."""

import errno
import shutil

import numpy as np
import pytest

from voxloom import distance, inference, instances, io, networks, runs
from voxloom import segment as segment_module
from voxloom.io.files import SCRATCH
from voxloom.io.store import VolumeWriter
from voxloom.recipe import annotate_volume
from voxloom.segment import segment_volume
from voxloom.volume import PROBABILITY, Geometry

GEOMETRY = Geometry((1.0, 1.0, 1.0))
SHAPE = (200, 12, 280)  # 4 layers of shards, and a coarser level
IMAGE = np.random.default_rng(0).integers(0, 250, SHAPE).astype(np.uint8)
IMAGE[:, 4:12, :200] = 200  # an object through all layers
RECIPE = [
    {"threshold": {"above": "p60"}},
    {"remove_small_objects": {"min_size_voxels": 30}},
    {"grow": {"grow_um": 1.0}},
    {"fill_holes": {}},
]
MODEL = {
    "network": {"name": "unet", "dimensions": 2, "widths": [2, 3], "slices": 1, "slice_step": 1, "norm": "none"},
    "input": {"size": None, "patch_voxels": [1, 16, 16], "normalise": "zscore"},
    "normalisation": {"name": "zscore", "mean": 120.0, "deviation": 40.0, "dtype": "uint8"},
    "precision": "float32",
    "test_time_flips": False,
    "test_time_rotations": False,
    "spacing_um": [1.0, 1.0, 1.0],
}


class PowerCut(Exception):
    """What stands for the end of a process."""


def annotate(out):
    options = {"spacing_um": GEOMETRY.spacing_um, "memory_mib": 6.0, "scratch_directory": out.folder}
    annotate_volume(IMAGE, out, RECIPE, **options)


def measure_distance(out):
    codes = (IMAGE > 245).astype(np.uint8)
    distance.distance_volume(codes, out, spacing_um=GEOMETRY.spacing_um, clip_um=4.0, memory_mib=2.2)


def predict(out):
    network = networks.build(MODEL["network"], seed=0).eval()
    inference.predict_volume(network, MODEL, IMAGE, out, memory_mib=3.2, threads=1, device="cpu")


def segment(out):
    keep = io.keep_results(out.folder, "objects")
    cut = {"stored_threshold": 128, "min_size_voxels": 5, "connectivity": 6}
    out.metadata["objects"] = segment_volume(IMAGE, out, memory_mib=6.0, keep=keep, **cut).objects


STAGES = {
    "annotate": (annotate, "uint8", {"kind": "annotation"}),
    "distance": (measure_distance, "uint16", {"kind": "distance"}),
    "predict": (predict, "uint8", {"kind": "probability", "quantisation": PROBABILITY}),
    "segment": (segment, "uint32", {"kind": "labels"}),
}


SLABS = {"annotate": 2 * 4, "segment": 4}
"""That are cut into runs: of two steps that filter objects, of one segmentation."""


class Counted:
    """Counts writes and labelled slabs, and stops the process, so to speak, at one of the writes."""

    def __init__(self, monkeypatch):
        self.writes = self.looks = 0
        self.stop_at = None
        write, label = VolumeWriter.__setitem__, runs.find_runs

        def counted_write(writer, index, values):
            if self.writes == self.stop_at:
                raise PowerCut
            self.writes += 1
            write(writer, index, values)

        def counted_label(mask, **options):
            self.looks += 1
            return label(mask, **options)

        monkeypatch.setattr(VolumeWriter, "__setitem__", counted_write)
        monkeypatch.setattr(instances, "find_runs", counted_label)
        monkeypatch.setattr(segment_module, "find_runs", counted_label)

    def run(self, stage, path, *, stop_at=None):
        work, dtype, what = STAGES[stage]
        self.writes, self.looks, self.stop_at = 0, 0, stop_at
        options = {"shape": SHAPE, "dtype": dtype, "geometry": GEOMETRY, "resume": "a" * 64, **what}
        with io.create_volume(path, **options) as out:
            work(out)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("stage", STAGES)
def test_stopped_at_any_write_only_the_rest_is_done_and_the_bytes_are_the_same(stage, tmp_path, monkeypatch):
    counted = Counted(monkeypatch)
    counted.run(stage, tmp_path / "whole" / "v.zarr")
    expected, writes, looks = contents(tmp_path / "whole" / "v.zarr"), counted.writes, counted.looks
    assert writes >= 6, "several blocks, or nothing is shown"
    for stop_at in np.random.default_rng(writes).choice(writes, 3, replace=False):
        with pytest.raises(PowerCut):
            counted.run(stage, tmp_path / "v.zarr", stop_at=int(stop_at))
        looked = counted.looks
        counted.run(stage, tmp_path / "v.zarr")
        assert counted.writes == writes - stop_at
        # what was found of a slab is kept, its runs are not: those that were not written are cut into runs again
        assert looks == SLABS.get(stage, 0), "no slab is looked at twice"
        assert max(looked, counted.looks) <= looks
        assert contents(tmp_path / "v.zarr") == expected
        assert sorted(path.name for path in tmp_path.iterdir()) == ["v.zarr", "whole"]


def test_files_of_a_pass_that_was_killed_are_removed_by_the_next(tmp_path):
    def volume():
        return io.create_volume(
            tmp_path / "v.zarr", shape=SHAPE, dtype="uint32", geometry=GEOMETRY, kind="labels", resume="a" * 64
        )

    with pytest.raises(PowerCut), volume() as out:
        out[:64] = IMAGE[:64].astype(np.uint32)
        out.mark_done((slice(0, 64), slice(0, SHAPE[1]), slice(0, SHAPE[2])))
        with out.scratch_arrays("runs") as scratch:
            scratch.save("0", [IMAGE])
            left = scratch.folder.with_name(f"{SCRATCH}runs-left")  # as if no one could have removed it
            shutil.copytree(scratch.folder, left)
        assert not scratch.folder.exists()
        raise PowerCut
    assert left.is_dir()
    with volume() as out:
        assert out.is_done((slice(0, 64), slice(0, SHAPE[1]), slice(0, SHAPE[2])))
        assert not left.exists()


def test_arrays_that_no_longer_fit_on_the_disk_say_so(tmp_path):
    with io.create_volume(tmp_path / "v.zarr", shape=SHAPE, dtype="uint8", geometry=GEOMETRY, kind="mask") as out:
        with out.scratch_arrays("runs") as scratch:
            (scratch.folder / "0.npy").symlink_to("/dev/full")
            with pytest.raises(OSError, match="No space left") as caught:
                scratch.save("0", [IMAGE])
            assert caught.value.errno == errno.ENOSPC
            scratch.save("1", [IMAGE, IMAGE[0]])
            np.testing.assert_equal(scratch.take("1"), [IMAGE, IMAGE[0]])


@pytest.mark.parametrize("stage", ["annotate", "segment"])
def test_stopped_again_and_again_a_stage_ends(stage, tmp_path, monkeypatch):
    counted = Counted(monkeypatch)
    counted.run(stage, tmp_path / "whole" / "v.zarr")
    expected, writes = contents(tmp_path / "whole" / "v.zarr"), counted.writes
    for _ in range(writes - 1):
        with pytest.raises(PowerCut):
            counted.run(stage, tmp_path / "v.zarr", stop_at=1)
    counted.run(stage, tmp_path / "v.zarr")
    assert counted.writes == 1
    assert contents(tmp_path / "v.zarr") == expected
