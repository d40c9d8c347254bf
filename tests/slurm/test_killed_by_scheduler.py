"""A job that the scheduler ends is tried again with more, goes on at its checkpoint, and makes the same bytes."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from checkout import Checkout, digests
from slurm.jobs import Submitting

MODEL = "results/models/vessels/small/0"

pytestmark = pytest.mark.usefixtures("long")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on this machine that ends with the model."""
    checkout = Checkout.small(tmp_path_factory.mktemp("trained") / "checkout")
    checkout.run(MODEL)
    return checkout


@pytest.fixture
def training(trained, cluster, tmp_path):
    """The folder before its training, which a cluster will run."""
    checkout = trained.copy(tmp_path / "checkout")
    checkout.remove("models")
    return Submitting(checkout, cluster)


def begun(training, *words):
    """Start the training and stop its process (SIGSTOP) at its first checkpoint; the way it ended will be awaited."""
    run = ThreadPoolExecutor(1).submit(training.run, *words, MODEL)
    checkpoint = training.results() / "models" / "vessels" / "small" / ".0.checkpoint.pt"
    training.cluster.wait_until(lambda: checkpoint.exists() or run.done(), "the first checkpoint", seconds=900)
    assert not run.done(), run.result()
    (pid,) = training.scripts("train")
    os.kill(pid, signal.SIGSTOP)
    return run, pid


def ended(training, trained, run):
    """Wait for the end; what the cluster says of the first job and of the last."""
    run.result(timeout=1800)
    assert digests(training.results()) == digests(trained.results())
    assert not (training.results() / "models" / "vessels" / "small" / ".0.checkpoint.pt").exists()
    first, *_, last = training.submitted("train")
    assert last["state"] == "COMPLETED"
    return first, last


def resumed(training):
    """Whether the last attempt didn't begin at the first epoch."""
    said = training.log("train").read_text()
    return "epoch 4/4" in said and "epoch 1/4" not in said


def test_out_of_memory(training, trained):
    training.run("--set-resources", "train:mem_mb=300 * attempt ** 3", "--", MODEL)
    jobs = training.submitted("train")
    assert [job["memory"] for job in jobs][:2] == ["300M", "2400M"]
    assert [job["state"] == "COMPLETED" for job in jobs][-2:] == [False, True]
    assert "exceeded memory limit" in training.cluster.story()
    assert digests(training.results()) == digests(trained.results())


def test_time_limit(training, trained):
    run, _ = begun(training)
    (job,) = training.submitted("train")
    training.cluster.shorten(job["job"])
    first, last = ended(training, trained, run)
    assert (first["state"], job["minutes"], last["minutes"]) == ("TIMEOUT", "4:00:00", "8:00:00")
    assert resumed(training)


def test_node_lost(training, trained):
    run, _ = begun(training)
    (job,) = training.submitted("train")
    training.cluster.kill_node(job["node"])
    try:
        first, last = ended(training, trained, run)
    finally:
        training.cluster.revive(job["node"])
    assert first["state"] == "NODE_FAIL"
    assert first["node"] != last["node"]
    assert resumed(training)


def test_node_lost_that_computes_on(training, trained):
    run, pid = begun(training)
    (job,) = training.submitted("train")
    log = training.log("train")
    claim = log.read_text().splitlines()[0]
    training.cluster.kill_daemon(job["node"])
    try:
        training.cluster.wait_until(
            lambda: (
                log.exists() and log.read_text().splitlines()[:1] not in ([], [claim])
            ),  # Snakemake removes it first
            "the second attempt",
            seconds=900,
        )
        os.kill(pid, signal.SIGCONT)  # as if the lost node had been slow
        training.cluster.wait_until(lambda: pid not in training.scripts("train"), "the first attempt to stop")
        ended(training, trained, run)
    finally:
        training.cluster.revive(job["node"])
