"""What runs again after which change; asked of Snakemake after a complete run of the demo."""

import re

import pytest
from checkout import Checkout

TASKS, MODELS, VOLUMES = 2, 2, 2
PAGE = {"report": 1, "manifest": 1}
AFTER_TRAIN = {"train": 1, "predict": VOLUMES, "evaluate": 1, "segment": VOLUMES, "measure": VOLUMES, **PAGE}


@pytest.fixture
def finished(demo, tmp_path):
    """A complete run, to be edited."""
    return demo.copy(tmp_path / "finished")


@pytest.fixture
def checkout(tmp_path):
    """A copy of the repository in which nothing ran."""
    return Checkout.new(tmp_path / "checkout")


def test_a_changed_learning_rate_reruns_the_training_of_that_model_and_what_follows(finished):
    finished.edit("config/tasks/vessels.yaml", "learning_rate: 2.0e-3", "learning_rate: 1.0e-3")
    assert finished.planned() == AFTER_TRAIN


def test_a_model_that_begins_with_another_is_trained_after_it_and_again_when_it_changes(finished):
    best, model = "  best:\n", "results/models/vessels/best/0"
    finished.edit("config/tasks/vessels.yaml", best, f"{best}    init_from: {{model: vessels/as-published}}\n")
    finished.edit("config/tasks/vessels.yaml", "samples_per_epoch: 160", "samples_per_epoch: 8")  # to be quick
    finished.edit("config/tasks/vessels.yaml", "epochs: 6", "epochs: 1")
    assert finished.planned() == AFTER_TRAIN
    finished.run(model)
    assert finished.planned(model) == {}
    finished.edit("config/tasks/vessels.yaml", "learning_rate: 1.0e-3", "learning_rate: 3.0e-3")  # the source's
    assert finished.planned(model) == {"train": 2}


def test_a_model_with_an_auto_network_asks_for_a_plan(finished):
    finished.edit("config/tasks/vessels.yaml", "  best:\n", "  auto:\n    network: auto\n  best:\n")
    finished.edit("config/config.yaml", "vessels: [as-published, best]", "vessels: [as-published, best, auto]")
    planned = finished.planned()
    assert planned["plan"] == 1
    assert planned["train"] == 3, "the split must keep the parts as far apart as the planned network sees"
    assert "annotate" not in planned


def with_an_ensemble(checkout):
    """An ensemble of the two models of one task, asked for beside them."""
    ensemble = "ensembles:\n  both: {models: [as-published, best]}\n\nsegment:"
    checkout.edit("config/tasks/vessels.yaml", "segment:", ensemble)
    checkout.edit("config/config.yaml", "vessels: [as-published, best]", "vessels: [as-published, best, both]")


def test_an_ensemble_is_one_more_model_that_trains_nothing(finished):
    with_an_ensemble(finished)
    assert finished.planned() == {name: count for name, count in AFTER_TRAIN.items() if name != "train"}


def test_other_transforms_of_one_model_predict_again_and_train_nothing(finished):
    eight = "ensembles:\n  best-8: {models: [best], test_time_flips: true}\n\nsegment:"
    finished.edit("config/tasks/vessels.yaml", "segment:", eight)
    finished.edit("config/config.yaml", "vessels: [as-published, best]", "vessels: [as-published, best, best-8]")
    assert finished.planned() == {name: count for name, count in AFTER_TRAIN.items() if name != "train"}


def test_a_changed_member_is_trained_and_predicted_again_and_so_is_its_ensemble(finished):
    with_an_ensemble(finished)
    finished.edit("config/tasks/vessels.yaml", "learning_rate: 2.0e-3", "learning_rate: 1.0e-3")
    assert finished.planned() == {
        name: count * (1 if name in ("train", *PAGE) else 2) for name, count in AFTER_TRAIN.items()
    }


def test_membranes_are_scored_where_a_task_asks_for_it_and_nothing_else_runs_again(finished):
    finished.edit("config/tasks/vessels.yaml", "evaluate:\n", "evaluate:\n  membranes: true\n")
    assert finished.planned() == {"evaluate_membranes": MODELS, **PAGE}


def test_an_ensemble_is_predicted_from_its_members_of_the_same_fold(checkout):
    with_an_ensemble(checkout)
    checkout.edit("config/tasks/vessels.yaml", "  test_fraction", "  folds: 2\n  test_fraction")
    said = checkout.run("--dry-run", "results/predictions/vessels/both/1/phantom-a.zarr")
    job = next(block for block in said.split("rule ") if block.startswith("predict:"))
    inputs = re.search(r"input: (.*)", job)[1].split(", ")
    assert inputs == [
        "results/volumes/phantom-a.zarr",
        "results/models/vessels/as-published/1",
        "results/models/vessels/best/1",
    ]


def with_a_fusion(checkout, of="best"):
    """Contours on the prediction of a model of one task, asked for beside it."""
    checkout.edit("config/tasks/vessels.yaml", "segment:", f"fusions:\n  closed: {{of: {of}}}\n\nsegment:")
    checkout.edit("config/config.yaml", "vessels: [as-published, best]", "vessels: [as-published, best, closed]")


def test_a_fusion_is_one_more_model_that_no_network_predicts(finished):
    with_a_fusion(finished)
    after = {name: count for name, count in AFTER_TRAIN.items() if name not in ("train", "predict")}
    assert finished.planned() == {"predict_fusion_weight": 1, "predict_fused": VOLUMES, **after}
    scores = "results/evaluation/vessels/closed/0/scores.csv"
    finished.run(scores)
    assert finished.planned(scores) == {}
    finished.edit("config/tasks/vessels.yaml", "{of: best}", "{of: best, marker_below: 0.4}")
    assert finished.planned(scores) == {"predict_fusion_weight": 1, "predict_fused": VOLUMES, "evaluate": 1}


def test_a_fusion_is_made_by_one_job_a_volume_where_others_share_theirs(checkout):
    checkout.edit("config/config.yaml", "scatter: 1", "scatter: 3")
    alone = checkout.planned()
    with_a_fusion(checkout)
    together = checkout.planned()
    assert {name: together[name] - alone.get(name, 0) for name in together if together[name] != alone.get(name)} == {
        "predict_fusion_weight": 1,
        "predict_fused": VOLUMES,
        "evaluate": 1,
        "segment": VOLUMES,
        "segment_look": 3 * VOLUMES,
        "segment_part": 3 * VOLUMES,
        "measure": VOLUMES,
    }


def test_a_volume_can_be_predicted_and_segmented_by_several_jobs(checkout):
    alone = checkout.planned()
    checkout.edit("config/config.yaml", "scatter: 1", "scatter: 3")
    together = checkout.planned()
    pairs = TASKS * MODELS * VOLUMES
    assert {name: together[name] - alone.get(name, 0) for name in together if together[name] != alone.get(name)} == {
        "predict_part": 3 * pairs,
        "segment_look": 3 * pairs,
        "segment_part": 3 * pairs,
    }


def test_a_changed_recipe_step_reruns_annotate_and_what_follows_for_that_task(finished):
    finished.edit("config/tasks/vessels.yaml", "grow_um: 4.0", "grow_um: 4.5")
    assert finished.planned() == {
        "annotate": VOLUMES,
        "distance": VOLUMES,
        "split": 1,
        "train": MODELS,
        "predict": MODELS * VOLUMES,
        "evaluate": MODELS,
        "segment": MODELS * VOLUMES,
        "measure": MODELS * VOLUMES,
        **PAGE,
    }


def test_a_changed_distance_clip_reruns_distance_and_the_report_that_prints_it(finished):
    finished.edit("config/tasks/axons.yaml", "clip_um: 10.0", "clip_um: 12.0")
    assert finished.planned() == {"distance": VOLUMES, **PAGE}


def test_an_edited_report_caption_reruns_the_report_only(finished):
    finished.edit("workflow/report/captions.yaml", "Precision against", "Exactness against")
    assert finished.planned() == PAGE


def test_a_changed_report_title_reruns_the_report_only(finished):
    finished.edit("config/config.yaml", "title: voxloom demo", "title: my demo")
    assert finished.planned() == PAGE


def test_an_edited_library_function_reruns_what_reaches_it_and_no_more(finished):
    finished.edit("src/voxloom/measure.py", "\n\ndef ", "\n\nADDED = 1\n\n\ndef ")
    assert finished.planned() == {"measure": TASKS * MODELS * VOLUMES, **PAGE}


def test_an_edited_algorithm_reruns_its_stage(finished):
    finished.edit("src/voxloom/predictor.py", "\n\ndef ", "\n\nADDED = 1\n\n\ndef ")
    planned = finished.planned()
    assert planned["predict"] == TASKS * MODELS * VOLUMES
    assert planned["train"] == TASKS * MODELS  # validation during training predicts too
    assert "annotate" not in planned
    assert "convert" not in planned


def test_a_second_run_has_nothing_to_do_after_changes_that_change_no_result(finished):
    library = finished.folder / "src" / "voxloom" / "annotate.py"
    library.write_text(library.read_text() + "\n# a remark\n")
    finished.edit("config/tasks/axons.yaml", "# beyond this every voxel is just", "# further away is")
    finished.edit("config/config.yaml", "threads: 1", "threads: 2")
    block, gap = "  block_um: [20.0, null, null]\n", "  gap_um: 5.0\n"
    finished.edit("config/tasks/vessels.yaml", block + gap, gap + block)
    for path in [*(finished.folder / "scripts").iterdir(), *(finished.folder / "src").rglob("*.py")]:
        path.touch()
    assert finished.planned() == {}


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("config/config.yaml", "  threads: 1", "  threads: 1\n  threads: 2", "the key 'threads' stands twice"),
        ("config/config.yaml", "tasks:", "taks:", "taks is not a key; did you mean 'tasks'?"),
        ("config/config.yaml", "axons: [as-published", "axons: [as-publishd", "did you mean 'as-published'?"),
        (
            "config/config.yaml",
            "phantom-a: {seed: 1",
            "phantom-x: {seed: 1",
            "phantom.phantom-x is not in config/volumes.tsv",
        ),
        (
            "config/tasks/axons.yaml",
            "clip_um: 10.0",
            "clip: 10.0",
            "config/tasks/axons.yaml: distance.clip is not a key",
        ),
        (
            "config/tasks/axons.yaml",
            "  best:\n",
            "  best:\n    init_from: {model: axons/best}\n",
            "models.best.init_from.model is axons/best, the model itself",
        ),
        ("config/volumes.tsv", "results/raw/phantom-a.nrrd", "raw/a.nrrd", "no such file raw/a.nrrd"),
    ],
)
def test_a_wrong_configuration_stops_before_anything_runs(checkout, name, old, new, message):
    checkout.edit(name, old, new)
    said = checkout.run("--dry-run", fails=True)
    assert message in said
    assert "Traceback" not in said


def test_a_task_without_validation_is_refused_before_it_is_trained_unless_it_is_only_trained(checkout):
    checkout.edit("config/tasks/vessels.yaml", "validation_fraction: 0.2", "validation_fraction: 0")
    assert "split.validation_fraction of task vessels leaves nothing for validation" in checkout.run(
        "--dry-run", fails=True
    )
    assert checkout.planned("results/predictions/vessels/best/0/phantom-a.zarr")["train"] == 1


def test_a_job_that_cannot_fit_is_refused_before_anything_runs(checkout):
    checkout.edit("config/config.yaml", "shape: [80, 144, 144], region: VP", "shape: [64, 14000, 14000], region: VP")
    said = checkout.run("--dry-run", fails=True)
    # 16 or 18 bytes for each voxel of a slice, and those are three quarters of a job's memory
    assert re.search(r"resources.memory_mib in config/config.yaml, which is 3000; set it to at least (3988|4487)", said)
    checkout.edit("config/config.yaml", "memory_mib: 3000", "memory_mib: 4487")
    assert "This was a dry-run" in checkout.run("--dry-run")
