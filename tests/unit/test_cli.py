"""The command: what it prints, how it ends, and how soon."""

import csv
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from voxloom import io
from voxloom.cli import describe, main, summarise
from voxloom.io.formats import open_source, read_array, write_volume
from voxloom.volume import PROBABILITY, Geometry

RAMP = np.arange(3 * 4 * 5, dtype="uint8").reshape(3, 4, 5)


def store(path: Path, array, *, kind="image", spacing_um=(2.0, 0.5, 0.25), quantisation=None) -> Path:
    with io.create_volume(
        path, shape=array.shape, dtype=array.dtype, geometry=Geometry(spacing_um), kind=kind, quantisation=quantisation
    ) as out:
        out[...] = array
    return path


def nrrd(path: Path, array=RAMP, **how) -> Path:
    write_volume(path, open_source(store(path.parent / "in.zarr", array, **how)))
    return path


def test_info_says_what_a_file_holds(tmp_path, capsys):
    assert main(["info", str(nrrd(tmp_path / "a.nrrd"))]) == 0
    out = capsys.readouterr().out
    assert "shape          3 x 4 x 5 (Z, Y, X)" in out
    assert "voxel size     2 x 0.5 x 0.25 um (Z, Y, X)" in out
    assert "encoding       gzip" in out
    assert out.endswith("convert        yes\n")


def test_info_json_holds_the_same(tmp_path, capsys):
    assert main(["info", str(nrrd(tmp_path / "a.nrrd")), "--json", "--values"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["shape"] == [3, 4, 5]
    assert said["spacing_um"] == [2.0, 0.5, 0.25]
    assert said["values"] == {
        "count": 60, "min": 0, "max": 59, "sum": 1770, "sha256": hashlib.sha256(RAMP.tobytes()).hexdigest(),
    }  # fmt: skip


def test_two_encodings_of_one_volume_have_one_checksum(tmp_path):
    source = open_source(store(tmp_path / "in.zarr", RAMP.astype("uint16")))
    digests = set()
    for suffix in (".nrrd", ".nii.gz", ".tif", ".h5", ".mrc"):
        write_volume(tmp_path / f"a{suffix}", source)
        digests.add(summarise(open_source(tmp_path / f"a{suffix}"))["sha256"])
    assert digests == {hashlib.sha256(RAMP.astype("<u2").tobytes()).hexdigest()}


@pytest.mark.parametrize("dtype", ["uint64", "int64"])
def test_sums_of_large_integers_are_exact(tmp_path, dtype):
    array = np.full((2, 3, 4), np.iinfo(dtype).max, dtype)
    array[0] = np.iinfo(dtype).min + 1
    expected = sum(int(value) for value in array.ravel())
    assert summarise(open_source(store(tmp_path / "a.zarr", array)))["sum"] == expected


def test_values_of_every_file_in_the_zoo_are_those_of_its_catalogue(shared_data):
    zoo = shared_data / "nrrd-zoo"
    with open(zoo / "CATALOG.tsv", newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["expect"] == "ok" and row["values_sha256"]]
    assert len(rows) > 100
    for row in rows:
        said = summarise(open_source(zoo / row["path"]))
        assert said["sha256"] == row["values_sha256"], row["path"]
        np.testing.assert_allclose(float(said["min"]), float(row["min"]), rtol=1e-12, err_msg=row["path"])
        np.testing.assert_allclose(float(said["max"]), float(row["max"]), rtol=1e-12, err_msg=row["path"])
        np.testing.assert_allclose(float(said["sum"]), float(row["sum"]), rtol=1e-9, atol=1e-6, err_msg=row["path"])


def test_values_that_are_no_numbers_are_counted_and_left_out(tmp_path):
    array = RAMP.astype("float32")
    array[0, 0, :3] = np.nan, np.inf, -np.inf
    said = summarise(open_source(store(tmp_path / "a.zarr", array)))
    assert (said["nonfinite"], said["min"], said["max"], said["sum"]) == (3, 3.0, 59.0, 1767.0)


def test_info_says_what_would_be_refused_and_why(tmp_path, capsys):
    header = b"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 5 4 3\nencoding: raw\n\n"
    (tmp_path / "a.nrrd").write_bytes(header + RAMP.tobytes())
    assert main(["info", str(tmp_path / "a.nrrd")]) == 0
    out = capsys.readouterr().out
    assert "voxel size     not stated" in out
    assert "would be refused" in out
    assert "--voxel-size-um" in out


def test_info_describes_every_file_of_the_zoo_that_is_not_broken(shared_data):
    zoo = shared_data / "nrrd-zoo"
    with open(zoo / "CATALOG.tsv", newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["expect"] == "ok"]
    for row in rows:
        json.dumps(describe(open_source(zoo / row["path"])), allow_nan=True)


@pytest.mark.parametrize("suffix", [".nrrd", ".tif", ".h5", ".zarr", ".nii.gz"])
def test_convert_goes_by_the_suffix(tmp_path, suffix):
    assert main(["convert", str(nrrd(tmp_path / "a.nrrd")), str(tmp_path / f"b{suffix}")]) == 0
    back = open_source(tmp_path / f"b{suffix}")
    np.testing.assert_array_equal(read_array(back), RAMP)
    np.testing.assert_allclose(back.geometry.spacing_um, (2.0, 0.5, 0.25), rtol=1e-6)


@pytest.mark.parametrize(("given", "expected"), [(["3"], (3.0, 3.0, 3.0)), (["3", "2", "1"], (3.0, 2.0, 1.0))])
def test_convert_takes_one_voxel_size_or_three(tmp_path, given, expected):
    path = nrrd(tmp_path / "a.nrrd")
    assert main(["convert", str(path), str(tmp_path / "b.zarr"), "--voxel-size-um", *given]) == 0
    assert io.open_volume(tmp_path / "b.zarr").spacing_um == expected


@pytest.mark.parametrize("given", [["1", "2"], ["0"], ["nan"], ["big"]])
def test_a_wrong_voxel_size_is_wrong_usage(tmp_path, given, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["convert", "a.nrrd", "b.zarr", "--voxel-size-um", *given])
    assert ended.value.code == 2
    assert "--voxel-size-um" in capsys.readouterr().err


def test_convert_names_the_axes_and_decodes(tmp_path):
    path = store(tmp_path / "p.zarr", RAMP, kind="probability", quantisation=PROBABILITY)
    assert main(["convert", str(path), str(tmp_path / "b.nrrd"), "--decode", "--axes", "XYZ"]) == 0
    np.testing.assert_allclose(
        read_array(open_source(tmp_path / "b.nrrd")), RAMP.transpose(2, 1, 0).astype("float32") / 255, rtol=1e-6
    )


@pytest.mark.parametrize("words", [["info", "no-such.nrrd"], ["convert", "no-such.nrrd", "b.zarr"]])
def test_a_refused_file_is_one_line_and_status_1(words, capsys):
    assert main(words) == 1
    said = capsys.readouterr().err
    assert said.startswith("voxloom: error: no-such.nrrd does not exist")
    assert said.count("\n") == 1


@pytest.mark.parametrize("words", [[], ["frobnicate"], ["info"], ["convert", "a.nrrd"], ["score", "a.nrrd"]])
def test_wrong_usage_is_status_2(words):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2


@pytest.mark.parametrize("command", ["info", "convert", "score"])
def test_help_has_examples(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert "examples:\n  voxloom" in capsys.readouterr().out


MASK = np.zeros((4, 6, 8), np.uint8)
MASK[1:3, 2:4, 2:6] = 1


def test_a_perfect_mask_scores_1(tmp_path, capsys):
    a, b = nrrd(tmp_path / "a.nrrd", MASK), nrrd(tmp_path / "b.nrrd", MASK * 7)
    assert main(["score", str(a), str(b), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["kind"] == "mask"
    assert {said[name] for name in ("precision", "recall", "f1", "iou", "dice", "accuracy", "cldice")} == {1.0}
    assert said["prevalence"] == pytest.approx(16 / 192)
    assert said["all_background_accuracy"] == pytest.approx(176 / 192)


def test_scores_are_worked_out_by_hand(tmp_path, capsys):
    half = MASK.copy()
    half[1] = 0  # misses 8 of 16
    half[0, 0, :4] = 1  # and invents 4
    assert main(["score", str(nrrd(tmp_path / "a.nrrd", half)), str(nrrd(tmp_path / "b.nrrd", MASK))]) == 0
    rows = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert rows["precision"] == "0.6667"
    assert rows["recall"] == "0.5000"
    assert rows["iou"] == "0.4000"


def test_probabilities_get_a_curve_and_the_chosen_threshold(tmp_path, capsys):
    scores = np.where(MASK == 1, 200, 50).astype("uint8")
    scores[0, 0, 0] = 210
    a, b = nrrd(tmp_path / "a.nrrd", scores), nrrd(tmp_path / "b.nrrd", MASK)
    assert main(["score", str(a), str(b), "--json", "--threshold", "205"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["kind"] == "scores"
    assert said["best_f1_threshold"] == 200
    assert said["best_f1"] == pytest.approx(32 / 33)
    assert said["recall"] == 0.0


def test_labels_of_other_numbers_are_the_same_objects(tmp_path, capsys):
    labels = np.repeat(np.arange(1, 5, dtype="uint16"), 48).reshape(4, 6, 8)
    a, b = nrrd(tmp_path / "a.nrrd", labels), nrrd(tmp_path / "b.nrrd", (10 - labels).astype("uint16"))
    assert main(["score", str(a), str(b), "--labels", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["kind"] == "labels"
    assert said["voi_split_bits"] == pytest.approx(0, abs=1e-12)
    assert said["voi_merge_bits"] == pytest.approx(0, abs=1e-12)


def test_different_shapes_are_named_with_their_files(tmp_path, capsys):
    a, b = nrrd(tmp_path / "a.nrrd", MASK), nrrd(tmp_path / "b.nrrd", MASK[1:])
    assert main(["score", str(a), str(b)]) == 1
    said = capsys.readouterr().err
    assert f"{a} has shape (4, 6, 8), {b} (3, 6, 8)" in said


def test_different_voxel_sizes_are_said(tmp_path, capsys):
    a, b = nrrd(tmp_path / "a.nrrd", MASK), nrrd(tmp_path / "b.nrrd", MASK, spacing_um=(1.0, 1.0, 1.0))
    assert main(["score", str(a), str(b)]) == 0
    assert "voxel sizes differ: 2 x 0.5 x 0.25 um" in capsys.readouterr().err


def command(*words):
    environment = os.environ | {"PYTHONPATH": str(Path(io.__file__).parents[2])}
    return subprocess.run(
        [sys.executable, "-m", "voxloom.cli", *words], capture_output=True, text=True, env=environment, check=False
    )


def test_the_process_ends_with_the_status_and_no_traceback(tmp_path):
    (tmp_path / "a.tif").write_text("this is no TIFF file, whatever its name says")
    done = command("info", str(tmp_path / "a.tif"))
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_info_leaves_what_it_does_not_need_unloaded(tmp_path):
    path = nrrd(tmp_path / "a.nrrd")
    code = f"import sys\nfrom voxloom.cli import main\nmain(['info', {str(path)!r}])\n"
    code += "sys.stderr.write(' '.join(sys.modules))"
    environment = os.environ | {"PYTHONPATH": str(Path(io.__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    loaded = {name.split(".")[0] for name in done.stderr.split()}
    others = {"nibabel", "h5py", "mrcfile", "tifffile"}
    assert not loaded & {"torch", "pandas", "matplotlib", "scipy", "numba", "skimage", *others}
