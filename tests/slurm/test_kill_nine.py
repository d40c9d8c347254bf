"""kill -9 of a job, of snakemake or of a node's daemon, at random moments: the rerun completes with the same bytes.

As often as VOXLOOM_TEST_KILLS says; VOXLOOM_TEST_SEED repeats what a failure printed.
"""

import contextlib
import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from checkout import Checkout, digests
from slurm.jobs import Submitting

KILLS = int(os.environ.get("VOXLOOM_TEST_KILLS", "10"))
SEED = int(os.environ.get("VOXLOOM_TEST_SEED", random.SystemRandom().randrange(10**6)))
RULES = ("annotate", "train", "predict_part", "predict", "evaluate", "segment_part", "report")
REMOVED = {  # so that the run comes to the rule soon
    "annotate": ["annotations"],
    "train": ["models"],
    "predict_part": ["predictions"],
    "predict": ["predictions"],
    "evaluate": ["evaluation"],
    "segment_part": ["segmentations", "measurements"],  # the report takes only what was measured
    "report": ["report"],
}

pytestmark = pytest.mark.usefixtures("long")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A run on this machine, in parts."""
    checkout = Checkout.small(tmp_path_factory.mktemp("uninterrupted") / "checkout")
    checkout.edit("config/config.yaml", "threads: 1", "threads: 1, scatter: 2")
    checkout.run()
    return checkout


def a_running_job(submitting, process, chance):
    """Any of those that run; where none does, of the next ones."""
    running = []

    def is_running():
        running[:] = [job for job in submitting.mine() if job["state"] == "RUNNING"]
        return running or process.poll() is not None

    submitting.cluster.wait_until(is_running, "a job that runs", seconds=600)
    assert running, "the run ended before anything was killed"
    return chance.choice(running)


def kill_job(submitting, process, chance):
    """Kill a job's processes, some or all of them, as an administrator or the kernel may."""
    job = a_running_job(submitting, process, chance)["job"]
    pids = sorted(submitting.cluster.processes(f"SLURM_JOB_ID={job}"))
    for pid in chance.sample(pids, chance.randint(1, max(1, len(pids)))) if pids else ():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return f"{len(pids)} processes of job {job}", None


def kill_snakemake(submitting, process, chance):
    """Kill the process that submits; its jobs run on. Then do what the documentation says."""
    assert process.poll() is None, "the run ended before it was killed"
    process.kill()
    process.wait()
    submitting.run("--unlock")
    return "snakemake", None


def kill_daemon(submitting, process, chance):
    """Kill the daemon of a job's node; its jobs compute on. It is back a minute later."""
    node = a_running_job(submitting, process, chance)["node"]
    submitting.cluster.kill_daemon(node)
    mending = ThreadPoolExecutor(1).submit(lambda: (time.sleep(60), submitting.cluster.revive(node)))
    return f"the daemon of {node}", mending


VICTIMS = (kill_job, kill_snakemake, kill_daemon)


@pytest.mark.parametrize("number", range(KILLS))
def test_a_rerun_completes_with_the_same_bytes(uninterrupted, cluster, tmp_path, number):
    chance = random.Random(SEED + number)
    kill, rule, seconds = VICTIMS[number % len(VICTIMS)], chance.choice(RULES), chance.uniform(0, 8)
    print(f"VOXLOOM_TEST_SEED={SEED}, {number}: {kill.__name__} {seconds:.1f} s after a job of {rule} began")
    checkout = uninterrupted.copy(tmp_path / "killed")
    for folder in REMOVED[rule]:
        checkout.remove(folder)
    submitting = Submitting(checkout, cluster)
    process = submitting.start()
    cluster.wait_until(
        lambda: process.poll() is not None or any(job["state"] == "RUNNING" for job in submitting.submitted(rule)),
        f"a job of {rule}",
        seconds=1800,
    )
    assert submitting.submitted(rule), f"no job of {rule} was needed"
    time.sleep(seconds)
    killed, mending = kill(submitting, process, chance)
    print(f"killed {killed}; jobs so far: {[(job['rule'], job['state']) for job in submitting.mine()]}")
    try:
        process.wait(timeout=3600)  # it may complete by itself, with the job submitted again
        submitting.run()
    finally:
        if mending is not None:
            mending.result()
    cluster.wait_until(lambda: not submitting.running(), "the jobs of the killed run to end", seconds=600)
    assert digests(submitting.results()) == digests(uninterrupted.results())
    assert not [path for path in submitting.results().rglob("*") if ".tmp-" in path.name or ".scratch-" in path.name]
    assert submitting.planned() == {}
