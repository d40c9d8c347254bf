"""A training that spreads over the nodes of a real Slurm's job is that of as many processes on one machine."""

import pytest
from checkout import Checkout, digests
from slurm.jobs import Submitting

MODEL = "results/models/vessels/small/0"

pytestmark = pytest.mark.usefixtures("long")


def test_two_nodes_train_one_network(cluster, tmp_path):
    local = Checkout.small(tmp_path / "local")
    local.edit("config/config.yaml", "threads: 1", "threads: 1, processes: 2")
    local.edit("config/tasks/vessels.yaml", "  small:\n", "  small:\n    network: {norm: instance}\n")
    local.run(MODEL)
    checkout = local.copy(tmp_path / "submitted")
    checkout.remove("models")
    submitting = Submitting(checkout, cluster)
    submitting.run("--set-resources", "train:nodes=2", "train:tasks=2", "--", MODEL)
    (job,) = submitting.submitted("train")
    assert job["node"] == "n[1-2]"
    assert digests(submitting.results()) == digests(local.results())
