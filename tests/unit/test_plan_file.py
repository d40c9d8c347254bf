"""The file of a plan: read as written, completed by it, and checked before anything runs."""

from pathlib import Path

import pytest
import yaml

from voxloom import config, plan_file
from voxloom.errors import ConfigError

SCHEMA = config.read_yaml(Path(__file__).resolve().parents[2] / "workflow" / "schemas" / "task.schema.yaml")
PLAN = {
    "task": "membranes",
    "models": {"auto": {"choices": {"network.widths": {"value": [8, 16], "reason": "few labels"}}}},
}


def task(plan=None, **given):
    document = {
        "plan": plan,
        "annotate": {"recipe": [{"threshold": {"above": 1}}]},
        "models": {"auto": {"network": "auto", **given}, "own": {"optimiser": {"learning_rate": 0.1}}},
    }
    return config.check_task(document, SCHEMA, name="membranes.yaml")


def test_a_plan_is_read_as_it_was_written(tmp_path):
    plan_file.write_plan(tmp_path / "plan.yaml", PLAN)
    assert plan_file.read_plan(tmp_path / "plan.yaml") == PLAN
    assert plan_file.plan_of("auto", tmp_path / "plan.yaml") == PLAN
    assert plan_file.plan_of("own", []) is None


def test_a_model_takes_defaults_then_the_plan_then_its_own_keys(tmp_path):
    plan_file.write_plan(tmp_path / "plan.yaml", PLAN)
    models = plan_file.resolved_models(task(batch_size=5)["models"], tmp_path / "plan.yaml")
    assert models["auto"]["network"]["widths"] == [8, 16]
    assert models["auto"]["network"]["slices"] == 1
    assert models["auto"]["batch_size"] == 5
    assert "given" not in models["auto"]
    assert models["own"] == task()["models"]["own"]


def test_terms_of_a_loss_replace_the_planned_one():
    choices = {"loss.name": {"value": "bce_dice", "reason": "rare"}}
    assert plan_file.resolved(task()["models"]["auto"], choices)["loss"]["name"] == "bce_dice"
    own = task(loss={"terms": {"bce": 1.0, "cldice": 0.5}})["models"]["auto"]
    assert plan_file.resolved(own, choices)["loss"]["name"] == "bce"


def test_a_plan_depends_on_few_keys_of_a_model():
    small = plan_file.to_plan(task()["models"])
    assert list(small) == ["auto"]
    assert plan_file.to_plan(task(augment={"flip": 1.0}, optimiser={"learning_rate": 0.5})["models"]) == small
    assert plan_file.to_plan(task(batch_size=3)["models"]) != small


def test_the_report_shows_what_the_task_file_says():
    assert plan_file.shown(task(batch_size=3)["models"])["auto"] == {
        "description": "",
        "network": "auto",
        "batch_size": 3,
    }


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"epochs": 3}, r"has no key models: it is no plan"),
        ({"models": {"auto": {}}}, r"models\.auto\.choices is missing"),
        ({"models": {"auto": {"choices": {"epochs": 3}}}}, r"choices\.epochs is 3; expected a value"),
        ({"models": {"other": {"choices": {}}}}, r"no plan for the model 'auto', only for: other"),
        (
            {"models": {"auto": {"choices": {"network.widhts": {"value": [8, 16]}}}}},
            r"mine\.yaml: network\.widhts is not a key; did you mean 'widths'",
        ),
        ({"models": {"auto": {"choices": {"batch_size": {"value": 0}}}}}, r"batch_size is 0; must be at least 1"),
    ],
)
def test_an_edited_plan_is_checked_before_anything_runs(tmp_path, document, message):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(ConfigError, match=message) as caught:
        plan_file.check_plans({"membranes": task(plan=str(path))}, SCHEMA)
    assert "mine.yaml" in str(caught.value)


def test_an_edited_plan_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"mine\.yaml: no such file"):
        plan_file.check_plans({"membranes": task(plan=str(tmp_path / "mine.yaml"))}, SCHEMA)
