"""A job stops when another one does its work anew."""

import subprocess
import sys
import time

import pytest

from voxloom import takeover

JOB = """
import sys, time
from voxloom import takeover
with takeover.stopping_when_taken_over(sys.argv[1], every_s=0.05):
    print("claimed", flush=True)
    time.sleep(60)
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
    process = subprocess.Popen(
        [sys.executable, "-c", JOB, log], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "claimed\n"
    yield process, log
    process.kill()
    process.communicate()


def test_a_run_is_replaced_when_its_lock_is_gone_and_another_one_is_there(locks):
    first = lock(locks, 0)
    takeover.announce_run()
    assert not takeover.is_replaced()
    lock(locks, 1)  # a run at the same time, of other files
    assert not takeover.is_replaced()
    first.unlink()
    assert takeover.is_replaced()


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
    process, log = job
    with takeover.stopping_when_taken_over(log):
        assert process.wait(timeout=30) == 70
    assert "has taken over this job" in process.stderr.read()


def test_a_job_outlives_its_log(job):
    process, log = job
    log.unlink()
    time.sleep(0.3)
    assert process.poll() is None


def test_a_job_stops_when_another_run_has_locked_its_folder(locks, monkeypatch):
    first = lock(locks, 0)
    takeover.announce_run()
    process = subprocess.Popen([sys.executable, "-c", JOB, "train.log"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    first.unlink()
    lock(locks, 1)
    assert process.wait(timeout=30) == 70
    assert b"another run has taken over this folder" in process.communicate()[1]
