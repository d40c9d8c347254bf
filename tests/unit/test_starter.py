"""A folder of volumes becomes a configuration that the workflow takes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from voxloom import cli, config, starter
from voxloom.errors import ConfigError, VoxloomError

ROOT = Path(__file__).resolve().parents[2]
HEADER = """NRRD0004
type: uint8
dimension: 3
sizes: {x} {y} {z}
space directions: (1,0,0) (0,1,0) (0,0,2)
space: left-posterior-superior
space units: "um" "um" "um"
encoding: raw
endian: little

"""


def nrrd(path, array):
    z, y, x = array.shape
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(HEADER.format(x=x, y=y, z=z).encode() + array.astype(np.uint8).tobytes())


def volume(value=1, shape=(32, 24, 20)):
    array = np.zeros(shape, np.uint8)
    array[:, 4:8] = value
    return array


@pytest.mark.parametrize(
    ("image", "label", "name"),
    [
        ("brain.nrrd", "brain_labels.nrrd", "brain"),
        ("brain.nrrd", "brain.seg.nrrd", "brain"),
        ("a/brain_raw.nrrd", "a/brain-mask.nrrd", "a-brain"),
        ("images/brain.nrrd", "labels/brain.nrrd", "brain"),
        ("train/image/1.nrrd", "train/gt/1.nrrd", "train-1"),
    ],
)
def test_labels_are_paired_with_their_image(tmp_path, image, label, name):
    nrrd(tmp_path / image, volume(100))
    nrrd(tmp_path / label, volume())
    (found,) = starter.look(tmp_path)
    assert found.name == name
    assert Path(found.image.path) == tmp_path / image
    assert found.label is not None
    assert Path(found.label.path) == tmp_path / label


def test_what_is_written_is_a_configuration_that_snakemake_accepts(tmp_path, capsys):
    for name in ("one", "two"):
        nrrd(tmp_path / "scans" / f"{name}.nrrd", volume(100))
    nrrd(tmp_path / "scans" / "one_labels.nrrd", volume(255))
    assert cli.main(["init", str(tmp_path / "scans"), "--task", "fibres", "--into", str(tmp_path)]) == 0
    assert "snakemake --snakefile" in capsys.readouterr().out
    task = (tmp_path / "config" / "tasks" / "fibres.yaml").read_text()
    assert "values of one_labels.nrrd: 0, 255" in task
    assert "ignore_labels: [] #" in task, "255 is the label, not what is left out"
    command = ["snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(tmp_path), "--cores", "1"]
    done = subprocess.run(
        [sys.executable, "-m", *command, "--dry-run"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rule plan" in done.stdout + done.stderr


def test_a_split_has_blocks_to_choose_from(tmp_path):
    nrrd(tmp_path / "scans" / "one.nrrd", volume(100))
    starter.write_configuration(tmp_path / "scans", task="t", into=tmp_path)
    split = config.read_yaml(tmp_path / "config" / "tasks" / "t.yaml")["split"]
    assert split["block_um"][0] == pytest.approx(2 * 32 / 8, rel=1e-4)
    assert split["gap_um"] == 2


@pytest.mark.parametrize(
    ("slices", "rows", "block_um"),
    [
        ((40, 72), (0, 24), [2 * 4, None, None]),  # 32 of 200 slices have labels: 4 of them a block
        ((40, 45), (0, 24), [None, 8, None]),  # too few slices to cut between them
    ],
)
def test_blocks_are_of_what_is_labelled(tmp_path, slices, rows, block_um):
    labels = np.zeros((200, 24, 20), np.uint8)
    labels[slice(*slices), slice(*rows), 3:9] = 1
    nrrd(tmp_path / "scans" / "one.nrrd", np.full(labels.shape, 100))
    nrrd(tmp_path / "scans" / "one_labels.nrrd", labels)
    starter.write_configuration(tmp_path / "scans", task="t", into=tmp_path)
    split = config.read_yaml(tmp_path / "config" / "tasks" / "t.yaml")["split"]
    for found, expected in zip(split["block_um"], block_um, strict=True):
        assert found == (expected if expected is None else pytest.approx(expected, rel=1e-4))


def block_of_labels(outside, shape=(64, 48, 40)):
    """A block of 20 x 30 rows that somebody annotated."""
    labels = np.full(shape, outside, np.uint8)
    labels[10:30, 9:39] = 0
    labels[12:28, 12:15] = 1
    return labels


def test_what_nobody_annotated_is_no_label_in_any_file(tmp_path):
    for name, labels in {"a": volume(shape=(64, 48, 40)), "b": block_of_labels(255)}.items():
        nrrd(tmp_path / "scans" / f"{name}.nrrd", np.full(labels.shape, 100))
        nrrd(tmp_path / "scans" / f"{name}_labels.nrrd", labels)
    starter.write_configuration(tmp_path / "scans", task="t", into=tmp_path)
    task = config.read_yaml(tmp_path / "config" / "tasks" / "t.yaml")
    assert task["annotate"]["files"]["annotation"]["ignore_labels"] == [255]
    assert task["split"]["block_um"][0] == pytest.approx(2 * (20 // 8), rel=1e-4), "of the 20 slices that are annotated"
    assert "LOOK" not in (tmp_path / "config" / "tasks" / "t.yaml").read_text()


def test_a_file_whose_only_label_is_255_elsewhere_not_annotated_is_refused(tmp_path):
    for name, labels in {"a": volume(255, shape=(64, 48, 40)), "b": block_of_labels(255)}.items():
        nrrd(tmp_path / "scans" / f"{name}.nrrd", np.full(labels.shape, 100))
        nrrd(tmp_path / "scans" / f"{name}_labels.nrrd", labels)
    with pytest.raises(
        ConfigError, match=r"a_labels.nrrd marks foreground by 255, which is 'not annotated' in .*b_labels"
    ):
        starter.write_configuration(tmp_path / "scans", task="t", into=tmp_path)


def test_255_among_larger_numbers_is_an_object():
    found = starter.Found("a", None, None)
    has_unknown = [
        starter._Labels(found, frozenset(values), 1, 1, 1).has_unknown
        for values in ({0, 1, 255}, {0, 255}, {0, 254, 255, 256}, {0})
    ]
    assert has_unknown == [True, False, False, False]


def test_labels_in_a_small_box_are_pointed_out(tmp_path):
    labels = block_of_labels(0)
    nrrd(tmp_path / "scans" / "a.nrrd", np.full(labels.shape, 100))
    nrrd(tmp_path / "scans" / "a_labels.nrrd", labels)
    starter.write_configuration(tmp_path / "scans", task="t", into=tmp_path)
    assert "LOOK: labels of a_labels.nrrd are in 3 of 48 rows" in (tmp_path / "config" / "tasks" / "t.yaml").read_text()


def test_nothing_is_overwritten(tmp_path):
    nrrd(tmp_path / "scans" / "one.nrrd", volume())
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text("mine")
    with pytest.raises(ConfigError, match="config.yaml is there already and is left as it is"):
        starter.write_configuration(tmp_path / "scans", task="t", into=tmp_path)
    assert sorted(path.name for path in (tmp_path / "config").iterdir()) == ["config.yaml"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no image that is read"),
        ({"one_mask.nrrd": volume()}, "holds no image .* 1 files look like labels"),
        ({"one.nrrd": volume(), "two_mask.nrrd": volume()}, "looks like labels, but there is no image two"),
        ({"one.nrrd": volume(), "one_raw.nrrd": volume()}, "would both be volume one"),
        ({"one.nrrd": volume(), "one_mask.nrrd": volume(shape=(32, 24, 22))}, "both must be the same voxels"),
    ],
)
def test_a_folder_that_makes_no_sense_is_refused(tmp_path, files, message):
    (tmp_path / "scans").mkdir()
    for name, array in files.items():
        nrrd(tmp_path / "scans" / name, array)
    with pytest.raises(VoxloomError, match=message):
        starter.write_configuration(tmp_path / "scans", task="t", into=tmp_path)
    assert not (tmp_path / "config").exists()
