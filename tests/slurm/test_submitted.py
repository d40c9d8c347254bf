"""Two stages as jobs of a real Slurm: the bytes are those of a run on this machine."""

from checkout import Checkout, digests
from slurm.jobs import Submitting

ANNOTATED = "results/annotations/vessels/phantom-a.zarr"


def test_jobs_of_a_cluster_make_the_same_bytes(cluster, tmp_path):
    local = Checkout.small(tmp_path / "local")
    local.run(ANNOTATED)
    submitting = Submitting(local.copy(tmp_path / "submitted"), cluster)
    for folder in ("volumes", "annotations"):
        submitting.remove(folder)
    submitting.run(ANNOTATED)
    assert digests(submitting.results()) == digests(local.results())
    for rule in ("convert", "annotate"):
        (job,) = submitting.submitted(rule)
        assert job["state"] == "COMPLETED"
        assert job["memory"] == "2000M"
        assert job["node"] in ("n1", "n2")
    assert submitting.planned(ANNOTATED) == {}
