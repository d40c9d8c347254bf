"""kill -9 at any stage, then the same command: it finishes, and the results are those of an uninterrupted run.

Prediction and segmentation are shared by two jobs in the run that is killed there, and made by one in the other.
"""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from checkout import Checkout, digests

STAGES = {  # the file whose appearance says that the stage has begun, and what is removed to begin there again
    "annotate": ("annotate", "annotations"),
    "train": ("train", "models"),
    "predict": ("predict_part", "predictions"),
    "report": ("report.log", "report"),
}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    checkout = Checkout.small(tmp_path_factory.mktemp("uninterrupted") / "checkout")
    checkout.run()
    return checkout


@pytest.mark.parametrize("stage", STAGES)
def test_killed_anywhere_it_finishes_with_the_same_bytes(uninterrupted, tmp_path, stage):
    checkout = uninterrupted.copy(tmp_path / "killed")
    log, folder = STAGES[stage]
    # Snakemake makes a missing intermediate again only for a target that is missing, too
    for gone in (folder, "report", "logs"):
        shutil.rmtree(checkout.results() / gone, ignore_errors=True)
    if stage == "predict":
        checkout.edit("config/config.yaml", "threads: 1", "threads: 1, scatter: 2")
    process = checkout.start()
    deadline = time.monotonic() + 120
    while not (checkout.results() / "logs" / log).exists():
        assert process.poll() is None, "finished before it could be killed"
        assert time.monotonic() < deadline, "the stage didn't begin"
        time.sleep(0.02)
    time.sleep({"train": 4.0}.get(stage, 0.5))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    checkout.run("--unlock")
    checkout.run()
    assert digests(checkout.results()) == digests(uninterrupted.results())
    assert not [p for p in checkout.results().rglob("*") if ".tmp-" in p.name or ".scratch-" in p.name]
    assert checkout.planned() == {}


def test_jobs_stop_when_only_snakemake_is_killed(uninterrupted, tmp_path):
    checkout = uninterrupted.copy(tmp_path / "orphaned")
    for gone in ("models", "report", "logs"):
        shutil.rmtree(checkout.results() / gone)
    process = checkout.start()
    while not (checkout.results() / "logs" / "train").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 60  # a job that had just been started first loads its libraries
    while running_in(checkout.folder):
        assert time.monotonic() < deadline, "a job outlived the workflow that started it"
        time.sleep(0.2)


def running_in(folder: Path) -> list[int]:
    """Processes whose working directory is the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "cwd").resolve() == folder.resolve():
                    found.append(int(entry.name))
            except OSError:  # ended meanwhile
                continue
    return found
