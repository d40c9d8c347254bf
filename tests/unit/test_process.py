"""A job ends with the workflow that started it, also where that ended before the job looked."""

import os
import re
import subprocess
import sys

import pytest

from voxloom import process
from voxloom.errors import ConfigError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are watched on Linux only")

JOB = """
import time
from voxloom import process
process.stop_with_workflow(every_s=0.02)
print("working", flush=True)
time.sleep(float(__import__("sys").argv[1]))
"""


def job(announced, *, seconds):
    return subprocess.Popen(
        [sys.executable, "-c", JOB, str(seconds)],
        env={**os.environ, "PYTHONPATH": str(process.LIBRARY), process.WORKFLOW: announced},
        stdout=subprocess.PIPE,
        text=True,
    )


def announced_by(workflow, monkeypatch):
    monkeypatch.setattr(process.os, "getpid", lambda: workflow.pid)
    monkeypatch.setenv(process.WORKFLOW, "")
    process.announce_workflow()
    return os.environ[process.WORKFLOW]


@pytest.fixture
def workflow():
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def test_a_job_ends_when_its_workflow_is_killed(workflow, monkeypatch):
    with job(announced_by(workflow, monkeypatch), seconds=60) as started:
        assert started.stdout.readline() == "working\n"
        workflow.kill()  # and isn't waited for: it stays as a zombie
        assert started.wait(timeout=30) == 70


def test_a_job_ends_whose_workflow_was_killed_before_it_looked(workflow, monkeypatch):
    announced = announced_by(workflow, monkeypatch)
    workflow.kill()
    workflow.wait()
    with job(announced, seconds=60) as started:
        assert started.wait(timeout=30) == 70


def test_a_later_process_of_the_same_number_is_not_the_workflow(workflow, monkeypatch):
    number, began, space = announced_by(workflow, monkeypatch).split()
    with job(f"{number} {int(began) - 1} {space}", seconds=60) as started:
        assert started.wait(timeout=30) == 70


@pytest.mark.parametrize("announced", ["", "1 2 another-machine/pid:[1]"])
def test_nothing_is_watched_where_no_workflow_can_be_seen(announced):
    with job(announced, seconds=0.2) as started:
        assert started.wait(timeout=30) == 0


def test_a_job_with_another_library_than_the_workflow_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv(process.WORKFLOW, "")
    monkeypatch.setenv(process.WORKFLOW_LIBRARY, str(tmp_path))
    with pytest.raises(ConfigError, match=re.escape(f"uses voxloom in {tmp_path}, but this job's Python imports")):
        process.refuse_another_library()
    process.announce_workflow()
    process.refuse_another_library()
