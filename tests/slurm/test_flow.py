"""The whole workflow as jobs of a real Slurm, with prediction and segmentation shared by several: the same bytes.

The small configuration; the embedded demo instead with VOXLOOM_TEST_SLURM=demo.
"""

import os

import pytest
from checkout import Checkout, digests
from slurm.jobs import Submitting

IS_DEMO = os.environ.get("VOXLOOM_TEST_SLURM") == "demo"
PREDICTION = "results/predictions/vessels/small/0/phantom-a.zarr"

pytestmark = pytest.mark.usefixtures("long")


@pytest.fixture(scope="module")
def local(request, tmp_path_factory):
    """A run on this machine, where one job predicts a volume."""
    if IS_DEMO:
        return request.getfixturevalue("demo")
    checkout = Checkout.small(tmp_path_factory.mktemp("local") / "checkout")
    checkout.run()
    return checkout


def scattered(folder):
    """A new folder, in which two jobs predict a volume."""
    checkout = Checkout.demo(folder) if IS_DEMO else Checkout.small(folder)
    old = "scatter: 1" if IS_DEMO else "threads: 1"
    checkout.edit("config/config.yaml", old, "scatter: 2" if IS_DEMO else "threads: 1, scatter: 2")
    return checkout


def without_predictions(local, folder, cluster, *, scatter=2):
    """The folder as it was after training."""
    checkout = local.copy(folder)
    if scatter > 1:
        checkout.edit("config/config.yaml", "threads: 1", f"threads: 1, scatter: {scatter}")
    checkout.remove("predictions")
    return Submitting(checkout, cluster)


def test_every_stage_runs_on_the_cluster(local, cluster, tmp_path):
    submitting = Submitting(scattered(tmp_path / "submitted"), cluster)
    submitting.run()
    assert digests(submitting.results()) == digests(local.results())
    assert submitting.planned() == {}
    volumes = 1 if not IS_DEMO else 8
    assert len(submitting.submitted("predict_part")) == 2 * volumes
    assert {job["state"] for rule in ("train", "predict_part", "report") for job in submitting.submitted(rule)} == {
        "COMPLETED"
    }


@pytest.mark.skipif(IS_DEMO, reason="with the small configuration")
def test_parts_may_share_a_job(local, cluster, tmp_path):
    submitting = without_predictions(local, tmp_path / "grouped", cluster)
    submitting.run("--groups", "predict_part=parts", "--group-components", "parts=2", "--", PREDICTION)
    assert submitting.submitted("predict_part") == []
    assert [job["state"] for job in submitting.mine()] == ["COMPLETED"] * 2  # the parts, and what joins them
    assert digests(submitting.results() / "predictions") == digests(local.results() / "predictions")


@pytest.mark.skipif(IS_DEMO, reason="with the small configuration")
def test_parts_may_be_an_array(local, cluster, tmp_path):
    submitting = without_predictions(local, tmp_path / "array", cluster)
    submitting.run("--slurm-array-jobs=predict_part", PREDICTION)
    jobs = submitting.submitted("predict_part")
    assert [job["job"].split("_")[1] for job in jobs] == ["1", "2"]
    assert digests(submitting.results() / "predictions") == digests(local.results() / "predictions")


@pytest.mark.skipif(IS_DEMO, reason="with the small configuration")
def test_networks_run_on_the_node_with_a_gpu_where_the_profile_asks_for_one(local, cluster, tmp_path):
    submitting = without_predictions(local, tmp_path / "gpu", cluster, scatter=1)
    submitting.run("--profile", "profiles/gpu.yaml", "--", PREDICTION)
    (job,) = submitting.submitted("predict")
    assert job["node"] == "n2"  # the other has none, and comes first for jobs that ask for none
    assert digests(submitting.results() / "predictions") == digests(local.results() / "predictions")


@pytest.mark.skipif(IS_DEMO, reason="with the small configuration")
def test_any_command_that_submits_a_script_will_do(local, cluster, tmp_path):
    submitting = without_predictions(local, tmp_path / "generic", cluster, scatter=1)
    submitting.where = ("--profile=profiles/generic", "--seconds-between-status-checks=5")
    submitting.run(PREDICTION, more={"VOXLOOM_SCHEDULER": "slurm"})
    assert any(job["name"] == "voxloom-predict" and job["state"] == "COMPLETED" for job in cluster.jobs())
    assert digests(submitting.results() / "predictions") == digests(local.results() / "predictions")
