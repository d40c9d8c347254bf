"""Plans: the same twice, sized to annotation, machine and time, and whole settings of a model."""

import functools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from voxloom import config, network_reach, network_settings
from voxloom.errors import ModelError
from voxloom.fingerprint import take_fingerprint
from voxloom.labelled import TrainingVolume
from voxloom.plan import CONTEXT, LEAST_STEPS, Room, plan_model
from voxloom.plan_cost import Machine, forward_flops
from voxloom.plan_file import resolved, to_plan
from voxloom.sampling_check import check_input

SCHEMA = config.read_yaml(Path(__file__).resolve().parents[2] / "workflow" / "schemas" / "task.schema.yaml")
CPU = Machine(device="cpu", precision="float32", threads=2, memory_mib=1500.0)
WHOLE = Room((None, None, None))


def task(**given):
    document = {
        "annotate": {"recipe": [{"threshold": {"above": 1}}]},
        "models": {"auto": {"network": "auto", **given}},
    }
    checked = config.check_task(document, SCHEMA, name="membranes.yaml")
    checked["models"]["auto"]["network"] = network_settings.resolved(checked["models"]["auto"]["network"])
    return checked


def fingerprint(*, spacing_um=(1.0, 1.0, 1.0), shape=(64, 256, 256), moves=0):
    """Sheets of 6 voxels that move by `moves` voxels a slice."""
    codes = np.zeros(shape, np.uint8)
    for z, plane in enumerate(codes):
        for first in range(0, shape[1], 32):
            start = (first + moves * z) % shape[1]
            plane[start : start + 6] = 1
    return take_fingerprint({"a": TrainingVolume(np.zeros(shape, np.uint8), (codes,), spacing_um)})


EM = fingerprint(spacing_um=(0.05, 0.004, 0.004), shape=(8, 256, 256), moves=16)


def planned(found=EM, *, machine=CPU, room=WHOLE, **given):
    """Complete settings of a planned model, and the whole plan."""
    models = task(**given)["models"]
    plan = plan_model(found, settings=to_plan(models)["auto"], machine=machine, room=room)
    return resolved(models["auto"], plan["choices"]), plan


@functools.cache
def sections():
    """The plan of `EM`, which several tests look at."""
    return planned()


def test_the_same_fingerprint_and_machine_give_the_same_plan():
    assert sections()[1] == planned()[1]


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
@pytest.mark.parametrize("found", [EM, fingerprint()], ids=["sections", "isotropic"])
def test_a_plan_is_what_the_schema_and_the_network_take(found, device):
    settings, plan = planned(found, machine=replace(CPU, device=device, memory_mib=8000.0))
    of_model = {**SCHEMA["$defs"]["model"], "$defs": SCHEMA["$defs"]}
    assert config.check(settings, of_model, name="plan") == settings, "complete, nothing left to defaults"
    check_input(settings)
    assert all(len(choice["reason"]) > 10 for choice in plan["choices"].values())


def test_thick_unlike_sections_are_seen_one_by_one():
    settings, plan = sections()
    assert settings["network"]["dimensions"] == 2
    assert settings["network"]["slices"] == 1
    assert "12.5 times as long" in plan["choices"]["network.dimensions"]["reason"]


def test_thick_sections_that_go_on_are_seen_with_their_neighbours():
    settings, _ = planned(fingerprint(spacing_um=(5.0, 1.0, 1.0)))
    assert (settings["network"]["dimensions"], settings["network"]["slices"]) == (2, 3)


def test_isotropic_volumes_are_seen_in_three_dimensions_where_the_split_has_room():
    assert planned(fingerprint())[0]["network"]["dimensions"] == 3
    settings, plan = planned(fingerprint(), room=Room((20.0, None, None)))
    assert settings["network"]["dimensions"] == 2
    assert "split.block_um" in plan["choices"]["network.dimensions"]["reason"]


def test_an_axis_of_long_voxels_waits_until_the_others_are_as_coarse():
    network = planned(fingerprint(spacing_um=(3.0, 1.0, 1.0)))[0]["network"]
    assert network["dimensions"] == 3
    assert network["strides"][:2] == [[1, 2, 2], [2, 2, 2]]
    assert network["kernels"][:2] == [[1, 3, 3], [3, 3, 3]]


@pytest.mark.parametrize(("device", "norm"), [("cpu", "instance"), ("cuda", "batch")])
def test_processes_that_cannot_share_statistics_of_a_batch_need_none(device, norm):
    machine = replace(CPU, device=device, memory_mib=8000.0, processes=2)
    settings, plan = planned(machine=machine)
    assert settings["network"]["norm"] == norm
    assert plan["machine"]["processes"] == 2


def test_more_time_gives_a_wider_network():
    slow, fast = (planned(machine=replace(CPU, threads=threads))[0] for threads in (1, 16))
    assert slow["network"]["widths"][0] < fast["network"]["widths"][0]


def test_steps_fill_the_time_that_is_planned_for():
    settings, plan = sections()
    steps = settings["epochs"] * settings["samples_per_epoch"] // settings["batch_size"]
    assert steps == plan["expected"]["steps"] >= LEAST_STEPS
    assert 0.8 * 30 <= plan["expected"]["minutes"] <= 30


def test_a_limit_of_time_is_planned_for_with_steps_to_spare():
    settings, plan = planned(max_minutes=10)
    assert settings["network"]["widths"][0] < sections()[0]["network"]["widths"][0]
    assert 10 <= plan["expected"]["minutes"] <= 13


def test_little_memory_takes_smaller_steps_and_too_little_is_refused():
    roomy = sections()[1]["expected"]["memory_of_a_step_mib"]
    tight = planned(machine=replace(CPU, memory_mib=roomy / 2))[1]["expected"]["memory_of_a_step_mib"]
    assert tight <= roomy / 2
    with pytest.raises(ModelError, match=r"no network fits.*raise resources\.memory_mib"):
        planned(machine=replace(CPU, memory_mib=8.0))


def test_what_the_task_file_says_wins_and_the_rest_makes_room():
    settings, plan = planned(batch_size=8, input={"patch_voxels": [1, 64, 64]}, augment={"flip": 0.0})
    assert settings["batch_size"] == plan["choices"]["batch_size"]["value"] == 8
    assert plan["choices"]["batch_size"]["reason"] == "written in the task file"
    assert settings["input"]["patch_voxels"] == [1, 64, 64]
    assert settings["augment"]["flip"] == 0.0
    assert settings["augment"]["rotate90"] == 0.5, "the rest of the section is the plan's"
    assert settings["samples_per_epoch"] > sections()[0]["samples_per_epoch"], "smaller samples, more of them"


def test_a_box_for_a_plan_of_slices_is_refused():
    with pytest.raises(
        ModelError, match=r"patch_voxels is \[8, 64, 64\], but .* 2 dimensions.*set it to \[1, 64, 64\]"
    ):
        planned(input={"patch_voxels": [8, 64, 64]})


def test_a_patch_is_several_times_what_the_network_sees_and_a_step_has_two_places():
    found = fingerprint(spacing_um=(0.05, 0.004, 0.004), shape=(4, 512, 512), moves=16)
    settings, _ = planned(found)
    reach = network_reach.receptive_field(settings["network"])
    assert reach[1] >= CONTEXT[2]
    assert 512 > settings["input"]["patch_voxels"][1] >= 2 * reach[1]
    assert settings["batch_size"] >= 2


def test_weights_are_averaged():
    settings, plan = sections()
    assert settings["weights_average"] == 0.99
    assert "some 100 steps" in plan["choices"]["weights_average"]["reason"]


def test_operations_are_counted_as_by_hand():
    network = {
        **sections()[0]["network"],
        "widths": [2, 4],
        "strides": [[1, 2, 2]],
        "kernels": [[1, 3, 3]] * 2,
    }
    finest = 9 * (1 * 2 + 2 * 2) + 9 * (4 * 2 + 2 * 2) + 2 * 1  # into the level, out of it, and the head
    coarse = 9 * (2 * 4 + 4 * 4) / 4
    up = 4 * 2 * 4 / 4  # every coarse voxel makes 2 x 2 finer ones
    for norm in ("batch", "instance", "none"):
        assert forward_flops({**network, "norm": norm}) == pytest.approx(2 * (finest + coarse + up))
