"""Each job computes on GPUs of its own: never two jobs on one, none lost when a job is killed. The GPUs are names."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxloom import gpu_pool
from voxloom.errors import ModelError
from voxloom.gpu_pool import own_gpus

SOURCE = Path(gpu_pool.__file__).resolve().parents[1]
JOB = "import sys, time\nfrom voxloom.gpu_pool import own_gpus\nwith own_gpus(1) as own:\n"
JOB += "    print(*own, flush=True)\n    time.sleep(60)\n"


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """A machine with two GPUs, and nobody on it."""
    monkeypatch.setattr(gpu_pool.tempfile, "gettempdir", lambda: str(tmp_path))
    for name in [*gpu_pool.OF_SLURM, "SLURM_JOB_ID", "SLURM_STEP_ID"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(gpu_pool.VISIBLE, "0,1")
    monkeypatch.setattr(gpu_pool, "WAIT_S", 0.0)
    return tmp_path


@contextlib.contextmanager
def a_job(count=1, ids="0,1"):
    """What `own_gpus` gives a process that was started with these."""
    os.environ[gpu_pool.VISIBLE] = ids
    with own_gpus(count) as own:
        yield own


def process_with_a_gpu(tmp_path):
    """Another process that keeps a GPU; it and which."""
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(SOURCE)}
    process = subprocess.Popen([sys.executable, "-c", JOB], stdout=subprocess.PIPE, env=environment, text=True)
    return process, process.stdout.readline().strip()


def test_two_jobs_get_a_gpu_each_and_a_third_is_told_who_keeps_them():
    with a_job() as first, a_job() as second:
        assert (first, second) == (["0"], ["1"])
        assert os.environ[gpu_pool.VISIBLE] == "1"
        with pytest.raises(ModelError, match=f"0 by process {os.getpid()} in .*resources: {{gpu: 2}}"):
            with a_job():
                pass
    assert os.environ[gpu_pool.VISIBLE] == "0,1"
    with a_job(2) as both:
        assert both == ["0", "1"]


def test_a_killed_job_frees_its_gpu(machine):
    process, own = process_with_a_gpu(machine)
    try:
        assert own == "0"
        with a_job() as other:
            assert other == ["1"]
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    with a_job(2) as both:
        assert both == ["0", "1"]


@settings(max_examples=25, deadline=None)
@given(wanted=st.lists(st.integers(1, 3), min_size=2, max_size=5), gpus=st.integers(3, 4))
def test_no_gpu_has_two_jobs_at_a_time(wanted, gpus):
    ids, kept, lock = [str(number) for number in range(gpus)], [], threading.Lock()

    def work(count):
        with gpu_pool._kept(ids, count) as own:  # threads share an environment, but not a lock
            with lock:
                assert not set(own) & set(kept)
                kept.extend(own)
            time.sleep(0.001)
            with lock:
                for name in own:
                    kept.remove(name)
        done.append(count)

    done = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu_pool, "WAIT_S", 30.0)
        patch.setattr(gpu_pool, "LOOK_S", 0.001)
        threads = [threading.Thread(target=work, args=(count,)) for count in wanted]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(done) == sorted(wanted)


def test_what_slurm_gave_is_shared_out_within_the_step_only(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with a_job(ids="0") as one:
        monkeypatch.setenv("SLURM_JOB_ID", "8")
        with a_job(2, ids="0") as other:  # the second of this job is on another node
            assert (one, other) == (["0"], ["0"])
    monkeypatch.delenv(gpu_pool.VISIBLE)
    monkeypatch.setenv("SLURM_JOB_GPUS", "2,5")
    with own_gpus(2) as named:
        assert named == ["2", "5"]
    assert gpu_pool.VISIBLE not in os.environ


def test_more_than_there_are_is_refused_and_none_where_none_is_wanted(monkeypatch):
    with pytest.raises(ModelError, match="gpu of this job is 3, but there are 2 to be had here .0, 1.; set it"):
        with own_gpus(3):
            pass
    for count, device in ((0, "auto"), (1, "cpu"), (1, "mps")):
        with own_gpus(count, device=device) as none:
            assert none == []
            assert os.environ[gpu_pool.VISIBLE] == "0,1"
    monkeypatch.setenv(gpu_pool.VISIBLE, "")
    with own_gpus(1) as none:
        assert none == []


def test_a_folder_of_another_user_is_not_trusted(machine, monkeypatch):
    (machine / f"voxloom-gpus-{os.getuid()}").symlink_to(machine)
    with pytest.raises(ModelError, match="belongs to another user"):
        with own_gpus(1):
            pass
