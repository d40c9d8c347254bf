"""A forecast asks the stages themselves what they will take, and says what can't fit before anything runs."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from voxloom import (
    budget,
    cli,
    configuration,
    contour_fusion,
    forecast,
    forecast_page,
    instances,
    io,
    membranes,
    network_reach,
    recipe,
    recipe_plan,
)
from voxloom.errors import ConfigError, VolumeError
from voxloom.forecast_check import JobCheck
from voxloom.forecast_rates import RATES
from voxloom.forecast_stages import annotate_need, distance_need, segment_need
from voxloom.forecast_volumes import header_of
from voxloom.io.nrrd import write_nrrd
from voxloom.tiles import spread
from voxloom.volume import Geometry

ROOT = Path(__file__).resolve().parents[2]
GEOMETRY = Geometry((2.0, 1.0, 1.0))
PARTS = {"predict_part", "segment_look", "segment_part"}
UNASKED = {"plan", "evaluate_membranes", "predict_fusion_weight", "predict_fused", *PARTS}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The demo's configuration with one task and one model, in a folder of its own."""
    shutil.copytree(ROOT / "config", tmp_path / "config", ignore=shutil.ignore_patterns("examples"))
    edit(tmp_path, "  axons: [as-published, best]\n", "")
    edit(tmp_path, "vessels: [as-published, best]", "vessels: [best]")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def edit(folder, old, new, name="config/config.yaml"):
    path = folder / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def enlarge(folder, shape):
    """Make both specimens that large; nothing is made before their job runs."""
    edit(folder, "shape: [80, 144, 144]", f"shape: {shape}")


def read(**resources):
    return configuration.read("config/config.yaml", resources=resources)


def test_a_forecast_knows_the_passes_that_a_recipe_will_make(project, monkeypatch, tmp_path):
    made = []

    def kept(choose):
        def chosen(*arguments, **keywords):
            made.append(choose(*arguments, **keywords))
            return made[-1]

        return chosen

    steps = [
        {"smooth": {"sigma_um": 1.0}},
        {"threshold": {"above": "otsu"}},
        {"remove_small_objects": {"min_size_voxels": 3}},
        {"grow": {"grow_um": 2.0}},
    ]
    image = np.random.default_rng(0).integers(0, 200, (20, 30, 40)).astype(np.uint8)
    run = recipe_plan.Run(image, GEOMETRY.spacing_um, 0.5, 2)
    planned = list(recipe_plan.layouts(recipe_plan.nodes_of(steps), run, np.zeros(image.shape, np.uint8)))
    for module in (recipe_plan, recipe):
        monkeypatch.setattr(module, "blocks_within", kept(budget.blocks_within))
    monkeypatch.setattr(instances, "slab_layout", kept(instances.slab_layout))
    out = np.zeros(image.shape, np.uint8)
    recipe.annotate_volume(
        image, out, steps, spacing_um=GEOMETRY.spacing_um, memory_mib=0.5, threads=2, scratch_directory=tmp_path
    )
    passes = [layout for layout in made if layout in planned]
    assert {(p.block_shape, p.halo_voxels, p.threads) for p in passes} >= {
        (p.block_shape, p.halo_voxels, p.threads) for p in planned
    }
    look = recipe.look_layout(out, out.shape, 0.5)
    assert max(layout.mib for layout in made) == max(layout.mib for layout in [*planned, look])


@pytest.mark.parametrize("need", [annotate_need, distance_need, segment_need])
def test_the_smallest_memory_is_refused_with_one_mib_less(project, need):
    enlarge(project, [700, 3000, 3000])
    given = read()
    header = header_of(given, "phantom-a")
    smallest = budget.smallest_memory(lambda mib: need(given, "vessels", header, mib), at_least=1)
    assert need(given, "vessels", header, smallest).mib <= smallest
    with pytest.raises(VolumeError):
        need(given, "vessels", header, smallest - 1)


def test_every_job_of_a_large_volume_stays_within_its_memory(project):
    enlarge(project, [1024, 2048, 2048])
    found = forecast.forecasts(read(memory_mib=4096, threads=8))
    assert {each.job.stage for each in found} == {*forecast.STAGES} - UNASKED
    for each in found:
        assert not each.refusal
        assert each.memory_mib - RATES[each.job.stage].base_mib <= 4096 * 3 / 4, each.job
    converted = next(each for each in found if each.job.stage == "convert")
    assert converted.seconds == pytest.approx(1024 * 2048 * 2048 / RATES["convert"].per_second, rel=0.05)
    assert converted.job.written_bytes == 1024 * 2048 * 2048


def test_a_fusion_is_planned_like_its_jobs_work(project):
    enlarge(project, [1024, 2048, 2048])
    edit(project, "segment:", "fusions:\n  closed: {of: best}\n\nsegment:", "config/tasks/vessels.yaml")
    edit(project, "vessels: [best]", "vessels: [best, closed]")
    given = read(memory_mib=2048, threads=4)
    fused = {each.job.stage: each for each in forecast.forecasts(given) if "/closed/" in each.job.name}
    assert {*fused} == {"predict_fusion_weight", "predict_fused", "evaluate", "segment", "measure"}
    assert all(each.memory_mib - RATES[stage].base_mib <= 2048 * 3 / 4 for stage, each in fused.items())
    layout = contour_fusion.fusion_layout(
        (1024, 2048, 2048), header_of(given, "phantom-a").of_type("uint8"), memory_mib=2048 * 3 / 4, threads=4
    )
    assert fused["predict_fused"].memory_mib == pytest.approx(layout.mib + RATES["predict_fused"].base_mib)
    with pytest.raises(ConfigError, match=r"predict_fused of vessels/closed/<fold>/phantom-a can't fit .* at least"):
        JobCheck(read(memory_mib=400)).refuse(
            "predict_fused", {"task": "vessels", "model": "closed", "volume": "phantom-a", "fold": "0"}
        )


def test_membranes_are_planned_by_sections_where_a_task_scores_them(project):
    enlarge(project, [64, 9000, 9000])
    edit(project, "evaluate:", "evaluate:\n  membranes: true", "config/tasks/vessels.yaml")
    section_mib = 9000 * 9000 * membranes.BYTES_PER_PIXEL / 2**20
    found = forecast.forecasts(read(memory_mib=round(2.5 * section_mib * 4 / 3), threads=8))
    (planned,) = (each for each in found if each.job.stage == "evaluate_membranes")
    assert planned.memory_mib == pytest.approx(2 * section_mib + RATES["evaluate_membranes"].base_mib)
    with pytest.raises(ConfigError, match=r"evaluate_membranes of vessels/best/<fold> can't fit .* at least \d+"):
        JobCheck(read(memory_mib=2000)).refuse("evaluate_membranes", {"task": "vessels", "model": "best", "fold": "0"})


def test_what_cannot_fit_is_refused_with_the_memory_that_would_do(project, capsys):
    enlarge(project, [64, 6000, 6000])
    assert cli.main(["plan", "--memory-mib", "700"]) == 1
    printed = capsys.readouterr()
    assert "segment          vessels/best/0/phantom-a" in printed.out
    assert "CAN'T FIT: needs 824 MiB" in printed.out  # 18 bytes a voxel of one slice are three quarters of that
    assert "set resources.memory_mib in config/config.yaml to at least" in printed.err
    assert cli.main(["plan", "--memory-mib", "4000", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["resources"]["memory_mib"] == 4000
    assert {row["stage"] for row in document["stages"]} == {*forecast.STAGES} - UNASKED
    assert document["disk"]["written_mib"] == pytest.approx(
        sum(row["written_mib"] for row in document["stages"]), rel=0.01
    )
    assert document["seconds"] == pytest.approx(sum(row["seconds"] for row in document["stages"]), rel=0.01)


def test_overlapping_tiles_are_planned_for_each_that_a_voxel_is_in(project):
    enlarge(project, [64, 1000, 1000])

    def predict():
        return next(each for each in forecast.forecasts(read(memory_mib=4096)) if each.job.stage == "predict")

    exact = predict()
    edit(project, "segment:", "predict: {tiles: averaged}\n\nsegment:", "config/tasks/vessels.yaml")
    settings = read().tasks["vessels"]["models"]["best"]
    shape = (64, 1000, 1000)[3 - settings["network"]["dimensions"] :]
    patch = settings["input"]["patch_voxels"][-len(shape) :]
    factor = network_reach.size_factor(settings["network"])[-len(shape) :]
    tiles = [spread(n, edge=edge, factor=f) for n, edge, f in zip(shape, patch, factor, strict=True)]
    more = math.prod(edge * len(begins) for edge, begins in tiles) / math.prod(shape)
    assert more > 2
    assert predict().job.work == pytest.approx(more * exact.job.work)


def test_turned_and_mirrored_slices_are_planned_for_each_time_that_they_are_seen(project):
    ensemble = "ensembles:\n  best-8: {models: [best], test_time_flips: true, test_time_rotations: true}\n\nsegment:"
    edit(project, "segment:", ensemble, "config/tasks/vessels.yaml")
    edit(project, "vessels: [best]", "vessels: [best, best-8]")
    work = {each.job.name: each.job.work for each in forecast.forecasts(read()) if each.job.stage == "predict"}
    assert work["vessels/best-8/{fold}/phantom-a"] == pytest.approx(8 * work["vessels/best/{fold}/phantom-a"])


def test_parts_of_a_volume_are_jobs_of_their_own(project, capsys):
    enlarge(project, [512, 512, 512])
    alone, shared = (
        {each.job.stage: each for each in forecast.forecasts(read(scatter=count, device="cpu"))} for count in (1, 4)
    )
    assert alone.keys() == shared.keys() - PARTS
    assert {stage for stage, each in shared.items() if each.job.count == 4} == PARTS
    for stage, parts in {"predict": ["predict_part"], "segment": ["segment_look", "segment_part"]}.items():
        joining_s, making_s = (each[stage].seconds - RATES[stage].startup_s for each in (shared, alone))
        assert joining_s < making_s / 2, "joining is less than making"
        assert sum(shared[part].job.work * 4 for part in parts) >= alone[stage].job.work
        assert sum(shared[part].job.written_bytes * 4 for part in parts) == alone[stage].job.written_bytes
    names = list(shared["segment_look"].job.names())
    assert names == [f"vessels/best/0/phantom-b.{number}-of-4" for number in (1, 2, 3, 4)]
    table = Path("results/benchmarks/segment_look/vessels/best/0/phantom-b.2-of-4.tsv")
    table.parent.mkdir(parents=True)
    table.write_text("s\th:m:s\tmax_rss\n99.0\t0:01:39\t900\n")
    (seen,) = [
        each
        for each in forecast_page.with_own_rates(read(scatter=4, device="cpu"))
        if each.job.stage == "segment_look" and each.job.name.startswith("vessels/best/{fold}/phantom-a")
    ]
    assert seen.seconds == pytest.approx(99.0)
    document = forecast_page.document(read(scatter=4), list(shared.values()))
    assert "vessels/best/0/phantom-b.*" in forecast_page.text(document)
    assert {row["stage"]: row["jobs"] for row in document["stages"]}["predict_part"] == 4


def test_a_gpu_that_a_training_step_does_not_fit_is_no_matter_of_host_memory(project):
    from voxloom.forecast_networks import _on_gpu
    from voxloom.forecast_stages import Need

    assert _on_gpu(Need(10, gpu_mib=900), {"gpu_memory_mib": 0}).gpu_mib == 900
    with pytest.raises(VolumeError, match="raise resources.gpu_memory_mib to at least 901"):
        _on_gpu(Need(10, gpu_mib=900.2), {"gpu_memory_mib": 800})


def test_jobs_that_ran_here_say_how_fast_the_next_will_be(project):
    enlarge(project, [512, 512, 512])
    table = Path("results/benchmarks/distance/vessels/phantom-a.tsv")
    table.parent.mkdir(parents=True)
    table.write_text("s\th:m:s\tmax_rss\n101.5\t0:01:41\t900\n")
    (job,) = [
        each
        for each in forecast_page.with_own_rates(read(threads=2))
        if each.job.stage == "distance" and each.job.name == "vessels/phantom-b"
    ]
    assert job.seconds == pytest.approx(101.5)


def test_a_model_that_waits_for_a_plan_is_not_guessed(project):
    edit(project, "  best:\n", "  best:\n    network: auto\n", "config/tasks/vessels.yaml")
    found = {each.job.stage: each for each in forecast.forecasts(read())}
    assert found["train"].memory_mib is None
    assert found["train"].job.waits_for == found["predict"].job.waits_for == "results/plans/vessels.yaml"
    assert found["plan"].memory_mib is not None
    text = forecast_page.text(forecast_page.document(read(), list(found.values())))
    assert "not known before results/plans/vessels.yaml" in text


def test_a_volume_is_known_by_its_header_alone(project):
    edit(project, "  phantom-b: {seed: 2, shape: [80, 144, 144], region: TRN}\n", "")
    write_nrrd(
        Path("raw.nrrd"),
        [((slice(0, 4), slice(0, 5), slice(0, 6)), np.zeros((4, 5, 6), np.uint16))],
        shape=(4, 5, 6),
        dtype="uint16",
        geometry=GEOMETRY,
    )
    Path("config/volumes.tsv").write_text("volume\tpath\nphantom-a\tresults/raw/phantom-a.nrrd\nreal\traw.nrrd\n")
    task = Path("config/tasks/vessels.yaml")
    lines = task.read_text().replace("against: [annotation, truth]", "against: [annotation]").splitlines()
    task.write_text("\n".join(line for line in lines if not line.startswith(("  files:", "    truth:"))))
    raw = header_of(read(), "real")
    assert (raw.shape, raw.dtype, raw.spacing_um) == ((4, 5, 6), np.uint16, (2.0, 1.0, 1.0))
    with io.create_volume(
        "results/volumes/real.zarr", shape=(4, 5, 6), dtype="uint16", geometry=GEOMETRY, kind="image"
    ) as out:
        out[:] = np.zeros((4, 5, 6), np.uint16)
    stored = header_of(read(), "real")
    assert (stored.shape, stored.shard_shape) == ((4, 5, 6), out.shard_shape)


def test_a_job_is_refused_before_it_runs(project):
    enlarge(project, [64, 6000, 6000])
    check = JobCheck(read(memory_mib=700))
    which = {"task": "vessels", "model": "best", "fold": "0", "volume": "phantom-a"}
    with pytest.raises(ConfigError, match=r"segment of vessels/best/<fold>/phantom-a .* set it to at least 824"):
        check.refuse("segment", which)
    check.refuse("convert", {"volume": "phantom-a"})
    check.refuse("phantom", {"volume": "phantom-a"})
    JobCheck(read(memory_mib=900)).refuse("segment", which)
    parts = JobCheck(read(memory_mib=700, scatter=3))
    with pytest.raises(ConfigError, match=r"segment_part of vessels/best/<fold>/phantom-a.<part> can't fit"):
        parts.refuse("segment_part", {**which, "scatteritem": "2-of-3"})


def test_a_wrong_key_names_the_file(project):
    edit(project, "resources:", "resourses:")
    with pytest.raises(ConfigError, match=r"config/config.yaml: resourses is not a key; did you mean 'resources'"):
        read()


def test_the_report_plans_with_the_resources_of_its_own_job(project):
    given = read(memory_mib=2000)
    config = {key: value for key, value in given.config.items() if key != "resources"}
    resources = {"mem_mb": 2000, "job_threads": 1, "device": "cpu", "gpu_memory_mib": 0, "processes": 1, "scatter": 1}
    resources["_cores"] = 1
    stages = forecast_page.planned_stages(config, volumes=given.volumes, tasks=given.tasks, resources=resources)
    assert [row["stage"] for row in stages] == [stage for stage in forecast.STAGES if stage not in UNASKED]
    assert all(0 < row["memory_mib"] < 2000 and row["seconds"] > 0 for row in stages)
