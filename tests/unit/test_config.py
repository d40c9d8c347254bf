"""A wrong configuration is refused with the file, the key, the value and the mend; a right one is completed."""

from pathlib import Path

import pytest

from voxloom import config, network_settings, references
from voxloom.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


def schema(name):
    return config.read_yaml(ROOT / "workflow" / "schemas" / f"{name}.schema.yaml")


TASK = {"annotate": {"recipe": [{"threshold": {"below": 60}}]}, "models": {"m": {"optimiser": {"learning_rate": 0.1}}}}


def check_task(changes=(), **more):
    return config.check({**TASK, **dict(changes), **more}, schema("task"), name="config/tasks/t.yaml")


def test_defaults_are_filled_in_at_every_depth():
    task = check_task()
    assert task["distance"] == {"clip_um": 10.0}
    assert task["models"]["m"]["network"]["preset"] == "shallow"
    assert task["models"]["m"]["network"]["widths"] is None
    assert task["models"]["m"]["augment"]["flip"] == 0.0


def test_auxiliary_classifiers_decay_as_published_unless_the_file_says_otherwise():
    def loss(given):
        return check_task(models={"m": {"optimiser": {"learning_rate": 0.1}, "loss": given}})["models"]["m"]["loss"]

    assert loss({})["auxiliary"] is None
    assert loss({"auxiliary": {}})["auxiliary"] == {"start": 1.0, "factor": 0.1, "every_steps": 10_000, "floor": 0.01}
    assert loss({"auxiliary": {"floor": 0.5}})["auxiliary"]["floor"] == 0.5


def test_what_the_network_leaves_out_is_the_presets(tmp_path):
    (tmp_path / "t.yaml").write_text(
        "annotate: {recipe: [{threshold: {below: 60}}]}\n"
        "models: {m: {optimiser: {learning_rate: 0.1}, network: {preset: unet3d_8, norm: group}}}\n"
    )
    network = config.read_tasks({"t": ["m"]}, folder=tmp_path, schema=schema("task"))["t"]["models"]["m"]["network"]
    assert (network["widths"], network["dimensions"], network["norm"]) == ([8, 16, 32, 64, 128], 3, "group")
    assert network["strides"] == [[2, 2, 2]] * 4


def test_every_published_network_can_be_configured():
    properties = schema("task")["$defs"]["model"]["properties"]["network"]["properties"]
    assert properties["preset"]["enum"] == list(network_settings.PRESETS)
    assert properties.keys() == set(network_settings.KEYS)
    for key, known in network_settings.CHOICES.items():
        assert properties[key]["enum"] == [*known, None]


def test_a_model_with_an_auto_network_keeps_what_the_file_says_of_it():
    models = {"a": {"network": "auto", "augment": {"flip": 1}}, "b": {"network": "auto"}}
    task = config.check_task({**TASK, "models": models}, schema("task"), name="t")
    assert task["models"]["a"]["given"] == {"augment": {"flip": 1}}
    assert task["models"]["b"]["given"] == {}
    assert task["models"]["b"]["learn_from"] == ["annotation"]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            {"network": "atuo", "optimiser": {"learning_rate": 1}},
            r"models.m.network is 'atuo', which doesn't fit .*or auto",
        ),
        ({"network": "auto", "batchsize": 2}, r"models.m.batchsize is not a key; did you mean 'batch_size'\?"),
        ({"network": "auto", "epochs": 0}, r"models.m.epochs is 0; must be at least 1"),
    ],
)
def test_a_wrong_key_beside_an_auto_network_is_named(model, message):
    with pytest.raises(ConfigError, match=message):
        config.check_task({**TASK, "models": {"m": model}}, schema("task"), name="t")


def test_step_defaults_are_filled_in_inside_recipes():
    steps = [{"threshold": {"above": 3}}, {"subtract": [{"threshold": {"above": 9}}, {"grow": {"grow_um": 4}}]}]
    recipe = check_task(annotate={"recipe": steps})["annotate"]["recipe"]
    assert recipe[1]["subtract"][1]["grow"] == {"grow_um": 4, "mode": "exact"}


def test_the_order_of_keys_changes_nothing():
    reordered = {"models": TASK["models"], "annotate": TASK["annotate"]}
    assert str(check_task()) == str(config.check(reordered, schema("task"), name="t"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"distance": {"clip_mu": 5}}, r"config/tasks/t.yaml: distance.clip_mu is not a key; did you mean 'clip_um'\?"),
        ({"distance": {"clip_um": -1}}, r"distance.clip_um is -1; must be above 0 \(Beyond this every voxel"),
        ({"distance": {"clip_um": "10,5"}}, r"distance.clip_um is '10,5'; expected a number; write a decimal point"),
        ({"split": {"test_fraction": "30%"}}, r"test_fraction is '30%'; expected a number; write a fraction, 0.3"),
        ({"split": {"by": "slice"}}, r"split.by is 'slice'; known: block, volume, region, box"),
        ({"split": {"block_um": [1.0, 2.0]}}, r"split.block_um has 2 values; expected 3"),
        ({"annotate": {}}, r"annotate.recipe is missing: Steps in order"),
        ({"annotate": {"recipe": [{"treshold": {"above": 1}}]}}, r"recipe\[0\].treshold is not a key; did you mean"),
        ({"annotate": {"recipe": [{"remove_small_objects": {}}]}}, r"give one of min_size_voxels, min_size_um3"),
        ({"distance": {"clip_um": float("inf")}}, r"distance.clip_um is inf; expected a finite number"),
        (
            {"models": {"m": {"optimiser": {"learning_rate": 1}, "loss": {"terms": {"mse": 1}}}}},
            r"models.m.loss.terms.mse is not a key; known: bce, cldice, dice",
        ),
        ({"ensembles": {"e": {"models": []}}}, r"ensembles.e.models has 0 values; expected at least 1"),
        ({False: 1}, r"False is not text; put the key in quotes"),
        ({"models": {"m": {"optimiser": {}}}}, r"models.m.optimiser.learning_rate is missing"),
    ],
)
def test_messages_name_file_key_value_and_mend(changes, message):
    with pytest.raises(ConfigError, match=message):
        check_task(changes)


def test_all_problems_are_told_at_once():
    with pytest.raises(ConfigError, match="2 problems") as caught:
        check_task(distance={"clip_um": 0}, split={"folds": 0})
    assert "distance.clip_um" in str(caught.value)
    assert "split.folds" in str(caught.value)


def test_yaml_numbers_without_a_dot_are_numbers(tmp_path):
    (tmp_path / "a.yaml").write_text("rate: 1e-3\nname: 1e3x\n")
    assert config.read_yaml(tmp_path / "a.yaml") == {"rate": 0.001, "name": "1e3x"}


def test_a_mapping_may_be_merged_into_another_and_overridden(tmp_path):
    (tmp_path / "a.yaml").write_text("best: &best {rate: 1, size: 2}\nother:\n  <<: *best\n  size: 3\n")
    assert config.read_yaml(tmp_path / "a.yaml")["other"] == {"rate": 1, "size": 3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", r"line 3: the key 'a' stands twice"),
        ("a: [1, 2\nb: 3\n", r"a.yaml line \d: .*check the indentation"),
    ],
)
def test_yaml_mistakes_name_the_line(tmp_path, text, message):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        config.read_yaml(tmp_path / "a.yaml")


def test_yaml_that_would_execute_code_is_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("a: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(ConfigError, match="could not determine a constructor"):
        config.read_yaml(tmp_path / "a.yaml")


def test_a_missing_file_names_the_nearest_one(tmp_path):
    (tmp_path / "axons.yaml").write_text("{}")
    with pytest.raises(ConfigError, match="no such file; did you mean 'axons.yaml'"):
        config.read_yaml(tmp_path / "axon.yaml")


def volumes(tmp_path, text):
    (tmp_path / "volumes.tsv").write_text(text)
    return config.read_volumes(tmp_path / "volumes.tsv", schema("volumes"))


def test_one_voxel_size_stands_for_three(tmp_path):
    table = volumes(tmp_path, "volume\tpath\tvoxel_size_um\tregion\na\ta.nrrd\t1.17\t\nb\tb.nrrd\t4, 1, 1\tVP\n")
    assert table["a"]["voxel_size_um"] == [1.17] * 3
    assert table["b"]["voxel_size_um"] == [4.0, 1.0, 1.0]
    assert (table["a"]["region"], table["b"]["region"]) == ("", "VP")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("volume,path\na,b\n", "looks comma-separated, tabs are needed"),
        ("volume\tpath\nmy volume\ta\n", r"volumes.tsv line 2: volume name 'my volume'; use letters"),
        ("volume\tpath\na\tx\na\ty\n", r"line 3: the volume 'a' stands on an earlier line"),
        ("volume\tpath\tvoxel_size_um\na\tx\t1.17um\n", r"voxel_size_um is '1.17um'; expected a number"),
        ("volume\tpath\tvoxel_size_um\na\tx\t1,2\n", r"voxel_size_um has 2 values; expected 3"),
        ("volume\tpath\tvoxel_size_um\na\tx\t0\n", r"voxel_size_um\[0\] is 0.0; must be above 0"),
        ("volume\tpath\tspacing\na\tx\t1\n", r"spacing is not a key"),
        ("volume\tpath\n", "no volume below the header line"),
        ("", "is empty"),
    ],
)
def test_table_messages_name_line_column_and_mend(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        volumes(tmp_path, text)


def references_of(tmp_path, monkeypatch, *, task=None, row=None, phantom=None):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.nrrd").touch()
    settings = {"volumes": "volumes.tsv", "tasks": {"t": ["m"]}, "phantom": phantom or {}}
    complete = config.check(settings, schema("config"), name="config.yaml")
    table = {"a": {"path": "a.nrrd", "region": "", "axes": "", **(row or {})}}
    references.check_references(complete, table, {"t": check_task(**(task or {}))})


def test_a_right_configuration_passes(tmp_path, monkeypatch):
    references_of(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"row": {"path": "b.nrrd"}}, r"path of a: no such file b.nrrd; did you mean 'a.nrrd'"),
        ({"row": {"path": "tifs/*.tif"}}, r"no file matches tifs/\*.tif"),
        (
            {"task": {"evaluate": {"against": ["truth"]}}},
            r"evaluate.against names 'truth'; .* no column annotation_truth",
        ),
        ({"phantom": {"b": {}}}, r"phantom.b is not in volumes.tsv; add the row"),
        (
            {"task": {"models": {"m": {"optimiser": {"learning_rate": 1}, "network": {"slices": 2}}}}},
            r"models.m.network.slices is 2; use an odd number",
        ),
        (
            {"task": {"models": {"m": {"optimiser": {"learning_rate": 1}, "input": {"size": [401, 400]}}}}},
            r"models.m.input.size is \[401, 400\]; use multiples of \[4, 4\], the product of the network's strides",
        ),
        (
            {"task": {"models": {"m": {"optimiser": {"learning_rate": 1}, "input": {"patch_voxels": [1, 4, 4]}}}}},
            r"models.m.input.patch_voxels is \[1, 4, 4\], which leaves the network's coarsest level a single voxel",
        ),
        (
            {
                "task": {
                    "models": {"m": {"optimiser": {"learning_rate": 1}, "loss": {"name": "dice", "terms": {"bce": 1}}}}
                }
            },
            r"loss.name is 'dice' and loss.terms is given too; add it to terms and remove name",
        ),
        (
            {
                "task": {
                    "models": {
                        "m": {
                            "optimiser": {"learning_rate": 1},
                            "input": {"size": [400, 400]},
                            "test_time_rotations": True,
                        }
                    }
                }
            },
            r"models.m.test_time_rotations is for slices at native resolution",
        ),
        (
            {"task": {"ensembles": {"both": {"models": ["m", "n"]}}}},
            r"ensembles.both.models names 'n', which is no model that runs; list it under tasks.*known: m",
        ),
        ({"task": {"ensembles": {"m": {"models": ["m", "n"]}}}}, r"ensembles.m has the name of a model"),
        (
            {
                "task": {
                    "models": {"m": {"optimiser": {"learning_rate": 1}, "input": {"size": [400, 400]}}},
                    "ensembles": {"m-8": {"models": ["m"], "test_time_rotations": True}},
                }
            },
            r"ensembles.m-8.test_time_rotations is for slices at native resolution, and m has an input.size",
        ),
        (
            {"task": {"fusions": {"fused": {"of": "n"}}}},
            r"fusions.fused.of is 'n', which is nothing that runs; list it under tasks in config.yaml",
        ),
        (
            {"task": {"fusions": {"fused": {"of": "again"}, "again": {"of": "fused"}}}},
            r"fusions.fused: no prediction can be first in the ring fused <- again <- fused",
        ),
        ({"task": {"fusions": {"m": {"of": "m"}}}}, r"fusions.m has the name of a model or ensemble of the task t"),
        ({"task": {"split": {"by": "box"}}}, r"split.by is box, but split.boxes is empty"),
        (
            {"task": {"predict": {"tiles": "averaged", "halo_voxels": 16}}},
            r"predict.halo_voxels is 16, but predict.tiles is averaged, which has no halo; leave one of them out",
        ),
    ],
)
def test_references_that_lead_nowhere_are_named(tmp_path, monkeypatch, given, message):
    with pytest.raises(ConfigError, match=message):
        references_of(tmp_path, monkeypatch, **given)


def begins(**sources):
    """Two tasks of two models each that begin with the given ones, by task_model."""

    def model(name):
        return {"optimiser": {"learning_rate": 1}, "init_from": {"model": sources[name]} if name in sources else None}

    return {
        task: check_task(models={name: model(f"{task}_{name}") for name in ("one", "two")}) for task in ("axons", "em")
    }


def begin_check(tmp_path, monkeypatch, **sources):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.nrrd").touch()
    (tmp_path / "w.onnx").touch()
    (tmp_path / "w.pt").touch()
    (tmp_path / "folder").mkdir()
    tasks = begins(**sources)
    complete = config.check(
        {"volumes": "volumes.tsv", "tasks": {task: ["one", "two"] for task in tasks}}, schema("config"), name="c"
    )
    references.check_references(complete, {"a": {"path": "a.nrrd", "region": "", "axes": ""}}, tasks)
    return tasks


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (
            {"axons_one": "axons/one"},
            r"config/tasks/axons.yaml: models.one.init_from.model is axons/one, the model itself",
        ),
        (
            {"axons_one": "em/one", "em_one": "axons/two", "axons_two": "axons/one"},
            r"in the ring axons/one <- em/one <- axons/two <- axons/one; remove one",
        ),
        ({"em_two": "axons/tow"}, r"is 'axons/tow', neither a model that runs .* did you mean 'axons/two'"),
        ({"em_two": "folder"}, r"a folder without weights.safetensors"),
        ({"em_two": "w.onnx"}, r"expected a model's folder or a .safetensors, .pt, .pth file"),
    ],
)
def test_weights_that_nothing_can_make_are_refused(tmp_path, monkeypatch, sources, message):
    with pytest.raises(ConfigError, match=message):
        begin_check(tmp_path, monkeypatch, **sources)


def test_a_model_that_begins_with_a_ring_is_not_called_part_of_it(tmp_path, monkeypatch):
    with pytest.raises(ConfigError) as error:
        begin_check(tmp_path, monkeypatch, em_one="axons/one", axons_one="axons/two", axons_two="axons/one")
    assert str(error.value).startswith("2 problems")


def test_weights_come_from_the_same_fold_or_from_a_path(tmp_path, monkeypatch):
    tasks = begin_check(tmp_path, monkeypatch, em_one="axons/two", em_two="w.pt")
    tasks["axons"]["split"]["folds"] = 2
    paths = [references.initial_model(tasks, "em", "one", fold=fold) for fold in (0, 1, 2)]
    assert paths == [[f"results/models/axons/two/{fold}"] for fold in (0, 1, 0)]
    assert references.initial_model(tasks, "em", "two", fold=1) == ["w.pt"]
    assert references.initial_model(tasks, "axons", "one", fold=1) == []


def test_freezing_random_weights_is_refused(tmp_path, monkeypatch):
    model = {"optimiser": {"learning_rate": 1}, "freeze": ["down"]}
    with pytest.raises(ConfigError, match=r"models.m.freeze is \['down'\], but init_from is null"):
        references_of(tmp_path, monkeypatch, task={"models": {"m": model}})


def test_an_ensemble_of_one_model_says_which_transforms_replace_the_models(tmp_path):
    text = """
annotate: {recipe: [{threshold: {below: 60}}]}
models:
  m: {optimiser: {learning_rate: 0.1}, test_time_flips: true}
ensembles:
  m-8: {models: [m], test_time_flips: true, test_time_rotations: true}
  m-1: {models: [m], test_time_flips: false}
"""
    (tmp_path / "t.yaml").write_text(text)
    task = config.read_tasks({"t": ["m", "m-8", "m-1"]}, folder=tmp_path, schema=schema("task"))["t"]
    said = {name: references.test_time(task, name) for name in ("m", "m-8", "m-1")}
    assert said == {
        "m": {},
        "m-8": {"test_time_flips": True, "test_time_rotations": True},
        "m-1": {"test_time_flips": False},
    }
    assert references.members(task, "m-8") == ["m"]
    assert references.descriptions(task) == {
        "m": "",
        "m-8": "Prediction of m, tiles mirrored and turned.",
        "m-1": "Prediction of m, tiles not mirrored.",
    }


def test_a_fusion_is_chosen_like_a_model_and_no_network_stands_behind_it(tmp_path):
    text = """
annotate: {recipe: [{threshold: {below: 60}}]}
models:
  m: {optimiser: {learning_rate: 0.1}}
ensembles:
  m-8: {models: [m], test_time_flips: true}
fusions:
  m-watershed: {of: m-8}
  left-out: {of: m}
"""
    (tmp_path / "t.yaml").write_text(text)
    task = config.read_tasks({"t": ["m", "m-8", "m-watershed"]}, folder=tmp_path, schema=schema("task"))["t"]
    assert task["fusions"] == {"m-watershed": {"of": "m-8", "marker_below": 0.25, "description": ""}}
    assert references.members(task, "m-watershed") == []
    assert references.descriptions(task)["m-watershed"] == "m-8 with watershed contours."
    with pytest.raises(ConfigError, match="asks for the model 'm-watershd', .* did you mean 'm-watershed'"):
        config.read_tasks({"t": ["m", "m-watershd"]}, folder=tmp_path, schema=schema("task"))


def test_an_ensemble_is_chosen_like_a_model_and_says_what_it_is_made_of(tmp_path):
    text = """
annotate: {recipe: [{threshold: {below: 60}}]}
models:
  m: &m {description: first, optimiser: {learning_rate: 0.1}}
  m-again: {<<: *m, repeat: 1}
  other: {optimiser: {learning_rate: 0.1}}
ensembles:
  both: {models: [m, m-again]}
  named: {models: [m, other], description: two}
"""
    (tmp_path / "t.yaml").write_text(text)
    chosen = {"t": ["m", "both", "m-again"]}
    task = config.read_tasks(chosen, folder=tmp_path, schema=schema("task"))["t"]
    assert list(task["models"]) == ["m", "m-again"]
    assert [task["models"][name]["repeat"] for name in task["models"]] == [0, 1]
    assert references.members(task, "both") == ["m", "m-again"]
    assert references.members(task, "m") == ["m"]
    assert references.descriptions(task) == {"m": "first", "m-again": "first", "both": "Mean of m, m-again."}
    with pytest.raises(ConfigError, match="asks for the model 'bth', which .*t.yaml lacks; did you mean 'both'"):
        config.read_tasks({"t": ["m", "bth"]}, folder=tmp_path, schema=schema("task"))
