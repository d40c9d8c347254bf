"""A disk that is full, read-only or closed, and files that go while they are read: told, and mended by a rerun."""

import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
import zarr
from small_disk import remount, small_disk

from voxloom import checkpoint, io
from voxloom.errors import ConfigError, DiskError, FormatError
from voxloom.figures import new_figure, save_figure
from voxloom.io.formats import open_source, read_array, write_volume
from voxloom.logs import log_to
from voxloom.references import check_references
from voxloom.volume import Geometry

NOISE = np.random.default_rng(0).integers(0, 60000, (64, 160, 160)).astype("uint16")  # 3.1 MiB that don't compress
GEOMETRY = Geometry((1.0, 1.0, 1.0))
NOBODY = 65534


@pytest.fixture
def disk(tmp_path):
    """A disk of 2 MiB."""
    with small_disk(tmp_path / "disk", size="2m") as folder:
        yield folder


@contextlib.contextmanager
def as_nobody():
    """Lose root's right to read and write everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def shared_folder():
    """A folder that every user may look into; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.fixture
def noise(tmp_path):
    """A source of more voxels than the small disk holds."""
    tifffile.imwrite(tmp_path / "noise.tif", NOISE, photometric="minisblack")
    path = tmp_path / "noise.h5"
    plain = open_source(tmp_path / "noise.tif")
    write_volume(path, type(plain)(**{**vars(plain), "geometry": GEOMETRY}))
    return open_source(path)


@pytest.mark.parametrize("suffix", [".zarr", ".nrrd", ".tif", ".h5", ".mrc", ".nii.gz"])
def test_a_full_disk_is_told_leaves_nothing_and_writing_again_recovers(disk, noise, suffix):
    target = disk / f"a{suffix}"
    with pytest.raises(DiskError, match=r"disk/.*a.* can't be written: no space is left.*make room") as caught:
        write_volume(target, noise, slices=16)
    assert isinstance(caught.value, OSError)
    assert os.listdir(disk) == []
    remount(disk, "size=40m")
    write_volume(target, noise, slices=16)
    np.testing.assert_array_equal(read_array(open_source(target)), NOISE)


def test_what_fitted_on_a_full_disk_is_not_written_again(disk):
    done = []

    def write():
        with io.create_volume(
            disk / "a.zarr", shape=(256, 80, 80), dtype="uint16", geometry=GEOMETRY, kind="image", resume="k"
        ) as out:
            for z in range(0, 256, 64):
                box = (slice(z, z + 64), slice(0, 80), slice(0, 80))
                if not out.is_done(box):
                    done.append(z)
                    out[box] = NOISE[:, :80, :80] + np.uint16(z)
                    out.mark_done(box)

    with pytest.raises(DiskError, match="no space is left"):
        write()
    assert not (disk / "a.zarr").exists()
    failed_at = done.pop()
    remount(disk, "size=40m")
    write()
    assert done == [0, 64, 128, 192]
    assert failed_at in (64, 128)
    volume = io.open_volume(disk / "a.zarr")
    for z in range(0, 256, 64):
        np.testing.assert_array_equal(volume[z : z + 64], NOISE[:, :80, :80] + np.uint16(z))


def test_a_checkpoint_that_does_not_fit_leaves_the_former_one(disk):
    path = disk / "c.pt"

    def state(size):
        return checkpoint.TrainState(1, {"weight": torch.ones(size)}, {}, None, 0, 0.0, [])

    checkpoint.save_checkpoint(path, state(10), key="k")
    with pytest.raises(DiskError, match=r"c\.pt can't be written: no space is left"):
        checkpoint.save_checkpoint(path, state(1 << 20), key="k")
    assert len(checkpoint.load_checkpoint(path, key="k").network["weight"]) == 10


def test_a_table_or_figure_that_does_not_fit_is_named_and_leaves_nothing(disk):
    (disk / "filler").write_bytes(bytes((2 << 20) - (8 << 10)))
    with pytest.raises(DiskError, match=r"disk/a\.csv can't be written: no space is left"):
        io.save_table(pd.DataFrame({"number": range(10_000)}), disk / "a.csv")
    figure = new_figure(4, 3)
    figure.subplots().plot(NOISE[0, 0])
    with pytest.raises(DiskError, match=r"disk/a\.svg can't be written: no space is left"):
        save_figure(figure, disk / "a")
    assert os.listdir(disk) == ["filler"]


def test_a_job_on_a_full_disk_says_so_once_without_a_traceback(disk, capsys):
    log = disk / "logs" / "train.log"
    with pytest.raises(SystemExit) as ended, log_to(log):
        with open(disk / "filler", "wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 16))
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert said.count("error") == 1
    assert "Traceback" not in said
    assert "no space is left on the disk" in said


def test_a_read_only_disk_is_told_with_the_mend(disk, capsys):
    (disk / "results").mkdir()
    remount(disk, "ro")
    with pytest.raises(DiskError, match=r"a\.bin.* can't be written: its disk is mounted read-only"):
        with io.atomic_file(disk / "results" / "a.bin") as temporary:
            temporary.write_bytes(b"1")
    with pytest.raises(SystemExit), log_to(disk / "results" / "logs" / "train.log"):
        raise AssertionError("must not begin without its log")
    said = capsys.readouterr().err
    assert "mounted read-only" in said
    assert "whole story" not in said  # there is no log


def test_results_of_another_user_are_told_with_their_owner(shared_folder, capsys):
    folder = shared_folder / "results"
    folder.mkdir(mode=0o555)
    with as_nobody():
        with pytest.raises(DiskError, match=rf"is closed to user .*{folder} belongs to user \d+, mode 555"):
            with io.atomic_directory(folder / "a.zarr"):
                raise AssertionError("must not begin")
        with pytest.raises(SystemExit), log_to(folder / "logs" / "convert.log"):
            raise AssertionError("must not begin")
    assert f"[convert] error: {folder / 'logs'} is closed to user" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a.tif", "a.h5", "a.mrc", "a.nii.gz", "a.nrrd"])
def test_a_file_that_may_not_be_read_is_not_called_damaged(shared_folder, noise, name):
    write_volume(shared_folder / name, noise)
    (shared_folder / name).chmod(0)
    with as_nobody(), pytest.raises(DiskError, match=rf"{name} is closed to user .*mode 0"):
        open_source(shared_folder / name)


@pytest.mark.parametrize("gone", ["", "zarr.json"])
def test_a_store_that_goes_while_it_is_read_is_not_zeros(tmp_path, gone):
    with io.create_volume(tmp_path / "a.zarr", shape=(4, 5, 6), dtype="u1", geometry=GEOMETRY, kind="image") as out:
        out[:] = np.full((4, 5, 6), 7, np.uint8)
    own, raw = io.open_volume(tmp_path / "a.zarr"), open_source(tmp_path / "a.zarr")
    plain = tmp_path / "b.zarr"
    zarr.create_array(plain, shape=(4, 5, 6), chunks=(2, 2, 2), dtype="u1")[...] = 7
    foreign = open_source(plain)
    for store in (tmp_path / "a.zarr", plain):
        (store / gone).unlink() if gone else shutil.rmtree(store)
    with pytest.raises(FileNotFoundError, match="zarr"):
        own[:]
    for source in (raw, foreign):
        with pytest.raises(DiskError, match=r"zarr\.json isn't there, or was moved or removed while it was read"):
            read_array(source)


@pytest.mark.parametrize("name", ["a.tif", "a.mrc", "a.nrrd", "slices"])
def test_a_file_that_goes_while_it_is_read_is_named(tmp_path, noise, name):
    if name == "slices":
        (tmp_path / name).mkdir()
        for z in range(3):
            tifffile.imwrite(tmp_path / name / f"{z}.tif", NOISE[z])
    else:
        write_volume(tmp_path / name, noise)
    source = open_source(tmp_path / name)
    blocks = source.read_blocks(1)
    next(blocks)
    blocks.close()
    (shutil.rmtree if name == "slices" else Path.unlink)(tmp_path / name)
    with pytest.raises((DiskError, FileNotFoundError), match=name):
        read_array(source)


def test_a_stack_that_is_cut_short_while_it_is_read_is_refused(tmp_path, noise):
    write_volume(tmp_path / "a.tif", noise)
    source = open_source(tmp_path / "a.tif")
    os.truncate(tmp_path / "a.tif", 4096)
    with pytest.raises(FormatError, match=r"a\.tif .*copy it again"):
        read_array(source)


def checked(tmp_path, monkeypatch, recipe=({"threshold": {"above": 1}},), **row):
    monkeypatch.chdir(tmp_path)
    config = {"volumes": "v.tsv", "task_folder": "tasks", "phantom": {}, "downloads": {}, "tasks": {}}
    task = {
        "annotate": {"recipe": list(recipe), "files": {}},
        "split": {"by": "block", "boxes": [], "folds": 1},
        "evaluate": {"against": []},
        "models": {},
        "ensembles": {},
        "fusions": {},
        "predict": {"tiles": "exact"},
    }
    check_references(config, {"a": {"path": "a.nrrd", **row}}, {"t": task})


def test_a_file_from_the_future_is_refused_before_anything_runs(tmp_path, monkeypatch):
    (tmp_path / "a.nrrd").touch()
    checked(tmp_path, monkeypatch)
    os.utime(tmp_path / "a.nrrd", (time.time() + 7200,) * 2)
    with pytest.raises(ConfigError, match=r"a\.nrrd was written 120 minutes in the future.*touch the file"):
        checked(tmp_path, monkeypatch)


def test_a_file_that_may_not_be_read_is_refused_before_anything_runs(tmp_path, monkeypatch):
    (tmp_path / "a.nrrd").touch()
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may read everything
    with pytest.raises(ConfigError, match=r"path of a: a\.nrrd may not be read by this user"):
        checked(tmp_path, monkeypatch)


def test_a_recipe_without_threshold_is_refused_before_anything_runs(tmp_path, monkeypatch):
    (tmp_path / "a.nrrd").touch()
    grow = {"grow": {"grow_um": 1.0}}
    with pytest.raises(ConfigError, match=r"tasks/t\.yaml: annotate\.recipe has no threshold"):
        checked(tmp_path, monkeypatch, [grow])
    with pytest.raises(ConfigError, match=r"annotate\.recipe\[1\]\.subtract has no threshold"):
        checked(tmp_path, monkeypatch, [{"threshold": {"above": 1}}, {"subtract": [grow]}])
    (tmp_path / "b.nrrd").touch()
    checked(tmp_path, monkeypatch, [grow], annotation="b.nrrd")  # nothing asks for the recipe
