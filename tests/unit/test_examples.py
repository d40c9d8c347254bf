"""The examples' configurations are valid, and what they say of their data is so."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from voxloom import config as checked
from voxloom import configuration, io, split
from voxloom.annotate_file import import_annotation
from voxloom.convert import convert_file
from voxloom.io.formats import open_source, read_array
from voxloom.volume import Geometry

EXAMPLES = Path(__file__).resolve().parents[2] / "config" / "examples"
SETTINGS = sorted(EXAMPLES.glob("*/config/*.yaml"))


def copied(example, folder):
    """The example without its data, in whose place are empty files: a configuration is checked for where they are."""
    shutil.copytree(example, folder, ignore=shutil.ignore_patterns("data", "results", ".snakemake"))
    for row in checked.read_volumes(folder / "config" / "volumes.tsv", configuration.schema("volumes")).values():
        for path in [row["path"], *(row[column] for column in row if column.startswith("annotation"))]:
            if not path.startswith("results/"):
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).touch()
    return folder


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda path: path.relative_to(EXAMPLES).as_posix())
def test_an_examples_configuration_is_valid(settings, tmp_path, monkeypatch):
    monkeypatch.chdir(copied(settings.parents[1], tmp_path / "example"))
    run = configuration.read(settings.relative_to(settings.parents[1]))
    assert all(run.scored.values())


@pytest.fixture(scope="module")
def isbi2012(tmp_path_factory):
    """The task's and the volume's settings of the example on membranes."""
    folder = copied(EXAMPLES / "isbi2012", tmp_path_factory.mktemp("isbi2012") / "example")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run = configuration.read("config/config.yaml")
    return run.tasks["membranes"], run.volumes["isbi2012"]


def converted(path, row, folder):
    convert_file(path, folder, memory_mib=512, voxel_size_um=row["voxel_size_um"], slices=row["slices"])
    return io.open_volume(folder)


def raw(shared_data, path):
    """Where a file of the example is that its README links as data/."""
    return shared_data / "isbi2012-em" / Path(path).relative_to("data")


def test_sections_of_the_challenge_are_read_in_the_order_of_their_numbers(isbi2012, shared_data, tmp_path):
    _, row = isbi2012
    folder = raw(shared_data, row["path"])
    stored = converted(folder, row, tmp_path / "png.zarr")
    assert (stored.shape, stored.dtype, stored.spacing_um) == ((20, 512, 512), np.uint8, (0.05, 0.004, 0.004))
    for z in (0, 1, 2, 10, 19):
        np.testing.assert_array_equal(stored[z], np.asarray(Image.open(folder / f"{z}.png")))


@pytest.mark.parametrize("column", ["path", "annotation"])
def test_a_multi_page_tiff_of_the_challenge_is_the_same_volume(isbi2012, shared_data, tmp_path, column):
    _, row = isbi2012
    folder = raw(shared_data, row[column])
    pages = np.stack([np.asarray(Image.open(folder / f"{z}.png")) for z in range(20)])
    tifffile.imwrite(tmp_path / "stack.tif", pages, photometric="minisblack")
    png, tiff = (converted(path, row, tmp_path / f"{path.suffix}.zarr") for path in (folder, tmp_path / "stack.tif"))
    assert png[...].tobytes() == tiff[...].tobytes()
    assert (png.geometry, png.dtype) == (tiff.geometry, tiff.dtype)


def test_what_the_challenge_calls_0_is_the_membrane(isbi2012, shared_data):
    task, row = isbi2012
    labels = open_source(raw(shared_data, row["annotation"]))
    image = read_array(open_source(raw(shared_data, row["path"])))
    out = np.zeros(labels.shape, np.uint8)
    geometry = Geometry(spacing_um=tuple(row["voxel_size_um"]))
    imported = import_annotation(labels, out, geometry=geometry, **task["annotate"]["files"]["annotation"])
    assert imported.ignored_voxels == 0
    assert imported.drawn_slices == 20
    assert imported.foreground_voxels / out.size == pytest.approx(0.229, abs=0.001)
    assert image[out == 1].mean() == pytest.approx(83.5, abs=0.1)
    assert image[out == 0].mean() == pytest.approx(136.1, abs=0.1)


def test_every_fold_of_the_challenge_trains_and_tests_on_both_image_qualities_at_a_distance(isbi2012):
    task, row = isbi2012
    given = {key: value for key, value in task["split"].items() if key != "duplicate_correlation"}
    volume = split.SplitVolume("isbi2012", "", (row["slices"], 512, 512), tuple(row["voxel_size_um"]))
    table = split.make_split(
        [volume],
        lambda _, boxes: np.array([[100, 22]] * len(boxes)),
        settings=split.SplitSettings(**given),
        reach_voxels=[(0, 94, 94)],  # a network that looks at single sections
        seed=task["seed"],
    )
    assert set(table.fold) == {0, 1}
    for _, rows in table.groupby("fold"):
        sections = {
            part: {z for _, box in rows[rows.part == part].iterrows() for z in range(box.z_from, box.z_to)}
            for part in ("train", "validation", "test")
        }
        for part in ("train", "test"):
            assert min(sections[part]) < 15 <= max(sections[part])
        for part, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
            assert min(abs(a - b) for a in sections[part] for b in sections[other]) >= 2
