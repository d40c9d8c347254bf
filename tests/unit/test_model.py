"""A model's folder gives back the network it was made from, says where it comes from, and never executes anything."""

import csv
import math
import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from voxloom import networks, plan_file, report_plan
from voxloom.augment import NAMES
from voxloom.errors import ModelError
from voxloom.initialisation import Initial, SeenBox
from voxloom.model import load_model, save_model
from voxloom.pretrained import read_initial
from voxloom.sampling import Batch, Examples
from voxloom.training import Trained
from voxloom.training_log import LOG_COLUMNS

NETWORK = {"name": "unet", "dimensions": 2, "widths": [4, 8], "slices": 3, "slice_step": 1, "norm": "batch"}
SETTINGS = {
    "description": "Axons, native resolution.",
    "learn_from": ["person_a", "annotation"],
    "network": NETWORK,
    "input": {"size": None, "patch_voxels": [1, 16, 16], "normalise": "zscore"},
    "epochs": 2,
    "early_stopping_epochs": None,
    "precision": "auto",
    "test_time_flips": False,
    "normalisation": {"name": "zscore", "mean": 101.25, "deviation": 33.5, "dtype": "uint8"},
    "spacing_um": [1.17, 1.17, 1.17],
    "positive_weight": 2.5,
}
COUNTS = {
    "parameters": 1234,
    "training_annotated_voxels": 1000,
    "training_foreground_voxels": 120,
    "planned_memory_mib": 1234,
}
ROWS = [{"fold": 0, "volume": "cube", "part": "train", "z_from": 0, "z_to": 10}]


def trained():
    network = networks.build(NETWORK, seed=5).to(memory_format=torch.channels_last)
    log = [
        dict(
            zip(
                LOG_COLUMNS,
                (
                    k,
                    10 * k,
                    0.1 / k,
                    1 / k,
                    3.0,
                    1.2 / k,
                    0.4 * k,
                    math.nan,
                    0.3,
                    5.0,
                    0.01,
                    590.0,
                    600.0,
                    math.nan,
                    2.0,
                ),
                strict=True,
            )
        )
        for k in (1, 2)
    ]
    return Trained(network, SETTINGS, log, 2, COUNTS)


def save(folder, *, is_synthetic=False, initial=None, rows=ROWS, examples=None, augment=None, plan=None):
    made = replace(trained(), examples=examples)
    made = replace(made, settings={**made.settings, "augment": augment}) if augment else made
    save_model(
        folder,
        replace(made, settings={**made.settings, "freeze": list(initial.freeze)}) if initial else made,
        task="axons",
        model="best",
        fold=0,
        seed=17,
        split_rows=rows,
        data={"cube": {"sha256": "ab12", "shape": [10, 20, 30]}},
        versions={"voxloom": "0.1.0", "torch": "2.13.0"},
        git_commit="abc123",
        is_synthetic=is_synthetic,
        initial=initial,
        plan=plan,
    )
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A saved model, to be read."""
    return save(tmp_path_factory.mktemp("saved") / "m")


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of it, to be damaged."""
    return shutil.copytree(saved, tmp_path / "m")


def test_the_network_comes_back_bit_by_bit(saved):
    network, settings = load_model(saved)
    expected = trained().network.state_dict()
    assert network.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in network.state_dict().items())
    assert not network.training
    assert {key: settings[key] for key in SETTINGS} == SETTINGS
    assert settings["git_commit"] == "abc123"
    assert settings["data"]["cube"]["sha256"] == "ab12"


def test_equal_models_are_equal_files(saved, tmp_path):
    again = save(tmp_path / "again")
    names = sorted(path.name for path in saved.iterdir())
    assert names == [
        "README.md",
        "model.yaml",
        "split.csv",
        "training_log.csv",
        "training_log.png",
        "training_log.svg",
        "weights.safetensors",
    ]
    for name in names:
        assert (saved / name).read_bytes() == (again / name).read_bytes(), name


def test_augmented_patches_are_drawn_where_there_are_some(tmp_path):
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    mask = (image[:, 1:2] > 0.5).float()
    examples = Examples(Batch(image, mask, mask > 2, (("cube", (0, 0, 0)),)), (1.0, 1.0, 1.0), 1.0)
    probabilities = {**dict.fromkeys(NAMES, 0.0), "noise": 0.5}
    for name in ("one", "two"):
        save(tmp_path / name, examples=examples, augment=probabilities)
    for suffix in (".png", ".svg"):
        files = [tmp_path / name / f"augmented_patches{suffix}" for name in ("one", "two")]
        assert files[0].read_bytes() == files[1].read_bytes()
    assert ">noise<" in files[0].read_text(encoding="utf-8")


def test_the_log_has_its_columns_and_leaves_missing_numbers_empty(saved):
    with open(saved / "training_log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == LOG_COLUMNS
    assert [float(row["training_loss"]) for row in rows] == [1.0, 0.5]
    assert rows[0]["validation_f1"] == ""


def test_the_card_tells_a_person_what_the_model_is(saved):
    text = " ".join((saved / "README.md").read_text().split())
    for words in (
        "axons / best / fold 0",
        "Axons, native resolution.",
        "2-D U-Net with 2 levels of 4-8 channels, with batch normalisation: 1,234 parameters",
        "parameters. Its output sees 3 x 19 x 19 voxels (Z, Y, X). It sees",
        "3 neighbouring slices and predicts the middle one, at the volume's own resolution",
        "1,000 annotated voxels, 12.00% of them foreground",
        "`cube`: sha256 ab12",
        "those of annotator `person_a`; where nobody annotated, those of the task's annotation",
        "| 0.800 | not measured | 0.600 |",
        "1.17 x 1.17 x 1.17 um",
        "Licence",
        "load_model",
        "commit abc123, seed 17",
    ):
        assert words in text
    assert "synthetic" not in text


def test_scores_on_phantoms_are_called_synthetic(tmp_path):
    text = (save(tmp_path / "m", is_synthetic=True) / "README.md").read_text()
    assert "(synthetic data)" in text
    assert "no real tissue" in text


def test_truncated_weights_are_refused(folder):
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match="weights.safetensors is no safetensors file, or damaged"):
        load_model(folder)


def test_a_pickle_in_the_place_of_the_weights_is_refused_and_not_executed(folder, tmp_path):
    class Attack:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    (folder / "weights.safetensors").write_bytes(pickle.dumps(Attack()))
    with pytest.raises(ModelError, match="no safetensors file"):
        load_model(folder)
    torch.save({"w": torch.ones(1)}, folder / "weights.safetensors")
    with pytest.raises(ModelError, match="no safetensors file"):
        load_model(folder)
    assert not (tmp_path / "executed").exists()


def test_python_in_the_settings_is_refused_and_not_executed(folder, tmp_path):
    (folder / "model.yaml").write_text(f"format: !!python/object/apply:os.mkdir ['{tmp_path}/executed']\n")
    with pytest.raises(ModelError, match="can't be read as YAML"):
        load_model(folder)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["weights.safetensors", "model.yaml"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(ModelError, match=f"holds no {name}"):
        load_model(folder)


def edited(folder, **changes):
    path = folder / "model.yaml"
    settings = yaml.safe_load(path.read_text())
    settings.update(changes)
    path.write_text(yaml.safe_dump({key: value for key, value in settings.items() if value is not None}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": {**NETWORK, "widths": [4, 16]}}, "doesn't fit the network.*tensors differ, among them down.1"),
        ({"network": {**NETWORK, "norm": "none"}}, "doesn't fit the network.*instead of none"),
        ({"normalisation": None}, "lacks normalisation"),
        ({"normalisation": {"name": "zscore"}}, "normalisation must have name, mean, deviation and dtype"),
        ({"format": "nnunet"}, "must have format: voxloom model 1, got 'nnunet'"),
    ],
)
def test_settings_that_don_t_fit_are_refused(folder, changes, message):
    edited(folder, **changes)
    with pytest.raises(ModelError, match=message):
        load_model(folder)


def test_a_model_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    monkeypatch.setattr("voxloom.model.card", lambda settings, log: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save(tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_one_epoch_is_drawn_too(tmp_path):
    from voxloom import training_figure

    figure = training_figure.draw(trained().log[:1], kept_epoch=1, title="one")
    assert len(figure.axes) == 3
    assert np.asarray(figure.axes[0].lines[0].get_xdata()).tolist() == [1]


ENDS = {"y_from": 0, "y_to": 20, "x_from": 0, "x_to": 30}
FULL_ROWS = [
    {"fold": 0, "volume": "cube", "part": part, "z_from": z, "z_to": z_to, **ENDS}
    for part, z, z_to in (("train", 0, 4), ("validation", 5, 7), ("test", 8, 10))
]
PLANE = ((0, 20), (0, 30))
OWN = (SeenBox("ab12", "train", ((0, 4), *PLANE)), SeenBox("ab12", "validation", ((5, 7), *PLANE)))


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A model to begin with."""
    return read_initial(save(tmp_path_factory.mktemp("first") / "m", rows=FULL_ROWS), freeze=[])


def test_a_model_passes_on_what_it_and_its_own_beginning_have_seen(first, tmp_path):
    assert first.source == "axons/best, fold 0"
    assert first.seen == OWN
    earlier = SeenBox("ef56", "train", ((1, 2), (3, 4), (5, 6)))
    second = save(tmp_path / "second", rows=FULL_ROWS, initial=replace(first, seen=(earlier,)))
    assert read_initial(second, freeze=[]).seen == (*OWN, earlier)


def test_what_began_with_unknown_weights_stays_unknown(first, tmp_path):
    second = save(tmp_path / "second", rows=FULL_ROWS, initial=replace(first, seen=None))
    assert read_initial(second, freeze=[]).seen is None
    assert "Which labels went into those weights is not known" in " ".join((second / "README.md").read_text().split())


def test_the_folder_and_the_card_say_what_was_taken_over(tmp_path):
    tensors = {**trained().network.state_dict(), "head.weight": torch.zeros(3, 4, 1, 1)}
    folder = save(tmp_path / "m", initial=Initial("other/best, fold 1", "cd" * 32, tensors, ("down.0",), ()))
    with open(folder / "init_report.csv", newline="") as file:
        rows = {row["tensor"]: row for row in csv.DictReader(file)}
    assert rows["head.weight"] == {
        "tensor": "head.weight", "source_tensor": "head.weight", "status": "other shape", "shape": "1x4x1x1",
        "source_shape": "3x4x1x1", "is_frozen": "False",
    }  # fmt: skip
    assert rows["down.0.0.weight"]["status"] == "loaded"
    assert rows["down.0.0.weight"]["is_frozen"] == "True"
    text = " ".join((folder / "README.md").read_text().split())
    assert f"began with weights of `other/best, fold 1` (SHA-256 cdcdcdcdcdcd): {len(tensors) - 1} tensors" in text
    assert "1 began at random" in text
    assert "Frozen: `down.0`." in text


def test_a_planned_model_keeps_its_plan_and_the_report_says_why_each_setting_is_as_it_is(tmp_path):
    used = trained().settings
    choices = {
        "input.normalise": {"value": used["input"]["normalise"], "reason": "the same range everywhere"},
        "epochs": {"value": used["epochs"] + 1, "reason": "time for one more"},
    }
    plan = {"task": "axons", "models": {"best": {"choices": choices}}}
    folder = save(tmp_path / "m", plan=plan)
    assert plan_file.read_plan(folder / "plan.yaml") == plan
    shown = report_plan.planned_settings(folder, "best").set_index("setting")
    assert shown.loc["input.normalise"].tolist() == ["zscore", "the same range everywhere"]
    value, reason = shown.loc["epochs"]
    assert value == str(used["epochs"])
    assert reason.startswith(f"written in the task file; the plan would have taken {used['epochs'] + 1}")


def test_a_model_without_a_plan_keeps_none(saved):
    assert not (saved / "plan.yaml").exists()
