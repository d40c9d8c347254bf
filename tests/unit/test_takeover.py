"""A job stops when another one does its work anew."""

import subprocess
import sys
import time

import pytest

from voxloom import process, takeover

JOB = """
import sys, time
from voxloom import takeover
with takeover.stopping_when_taken_over(sys.argv[1], every_s=0.05):
    print("claimed", flush=True)
    time.sleep(60)
"""
WORKFLOW = """
import os
from voxloom import process
process.announce_workflow()
print(os.environ[process.WORKFLOW])
"""


@pytest.fixture
def locks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(takeover.RUN, raising=False)
    takeover.LOCKS.mkdir(parents=True)
    return takeover.LOCKS


def lock(folder, number):
    file = folder / f"{number}.output.lock"
    file.touch()
    time.sleep(0.01)
    return file


@pytest.fixture
def job(locks):
    log = locks.parents[1] / "train.log"
    claiming = subprocess.Popen(
        [sys.executable, "-c", JOB, log], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert claiming.stdout.readline() == "claimed\n"
    yield claiming, log
    claiming.kill()
    claiming.communicate()


def test_a_run_is_replaced_when_its_lock_is_gone_and_another_one_is_there(locks):
    first = lock(locks, 0)
    takeover.announce_run()
    assert not takeover.is_replaced()
    lock(locks, 1)  # a run at the same time, of other files
    assert not takeover.is_replaced()
    first.unlink()
    assert takeover.is_replaced()


def test_an_older_lock_is_no_next_run(locks):
    """A network disk may show a killed run's lock for a while, and not yet that of the run that follows it."""
    former = lock(locks, 0)
    ours = lock(locks, 1)
    takeover.announce_run()
    ours.unlink()
    assert former.exists()
    assert not takeover.is_replaced()


def test_a_run_that_ended_without_a_next_one_is_not_replaced(locks):
    first = lock(locks, 0)
    takeover.announce_run()
    first.unlink()
    assert not takeover.is_replaced()


def test_nothing_is_replaced_where_folders_are_not_locked(locks):
    takeover.announce_run()
    lock(locks, 0)
    assert not takeover.is_replaced()


def test_a_job_stops_when_another_process_claims_its_log(job):
    claiming, log = job
    with takeover.stopping_when_taken_over(log):
        assert claiming.wait(timeout=30) == 70
    assert "has taken over this job" in claiming.stderr.read()


def test_a_job_outlives_its_log(job):
    claiming, log = job
    log.unlink()
    time.sleep(0.3)
    assert claiming.poll() is None


def test_a_job_stops_when_another_run_has_locked_its_folder(locks, monkeypatch):
    first = lock(locks, 0)
    takeover.announce_run()
    claiming = subprocess.Popen(
        [sys.executable, "-c", JOB, "train.log"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    claiming.stdout.readline()
    first.unlink()
    lock(locks, 1)
    assert claiming.wait(timeout=30) == 70
    assert b"another run has taken over this folder" in claiming.communicate()[1]


def started_late(log):
    """A job of a killed run that comes to its log after the next run's job, whose claim it must leave alone."""
    log.write_text("process of the next run\n")
    job = [sys.executable, "-c", f"from voxloom import logs\nwith logs.log_to('{log}'): raise AssertionError"]
    done = subprocess.run(job, capture_output=True, text=True, check=False)
    assert done.returncode == 70, done.stderr
    assert log.read_text().startswith("process of the next run\n")
    return done.stderr


def test_a_job_that_was_replaced_before_it_began_takes_nothing_over(locks):
    first = lock(locks, 0)
    takeover.announce_run()
    first.unlink()
    lock(locks, 1)
    assert "another run has taken over this folder" in started_late(locks.parents[1] / "train.log")


@pytest.mark.skipif(sys.platform != "linux", reason="processes are watched on Linux only")
def test_a_job_whose_workflow_was_killed_before_it_began_takes_nothing_over(locks, monkeypatch):
    with subprocess.Popen([sys.executable, "-c", WORKFLOW], stdout=subprocess.PIPE, text=True) as workflow:
        monkeypatch.setenv(process.WORKFLOW, workflow.communicate()[0].strip())
    assert "is gone: stopping" in started_late(locks.parents[1] / "train.log")
