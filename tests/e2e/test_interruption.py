"""kill -9 at stage after stage, a full disk: the same command again ends with the results of an uninterrupted run.

Prediction and segmentation are shared by two jobs in the run that is killed there, and made by one in the other.
"""

import os
import re
import signal
import time
from pathlib import Path

import pytest
from checkout import Checkout, digests
from small_disk import remount, small_disk

STAGES = {  # in their order: what appears in the folder of logs when the stage begins, and the seconds until the kill
    "annotate": 0.5,
    "train": 4.0,
    "predict_part": 0.5,
    "report.log": 0.5,
}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    checkout = Checkout.small(tmp_path_factory.mktemp("uninterrupted") / "checkout")
    checkout.run()
    return checkout


def test_killed_at_stage_after_stage_it_finishes_with_the_same_bytes(uninterrupted, tmp_path):
    checkout = uninterrupted.copy(tmp_path / "killed")
    checkout.remove("annotations")
    checkout.edit("config/config.yaml", "threads: 1", "threads: 1, scatter: 2")
    for stage, seconds in STAGES.items():
        process = checkout.start()
        deadline = time.monotonic() + 240
        while not (checkout.results() / "logs" / stage).exists():
            assert process.poll() is None, f"finished before {stage} could be killed"
            assert time.monotonic() < deadline, f"{stage} didn't begin"
            time.sleep(0.02)
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        checkout.run("--unlock")
    checkout.run()
    assert digests(checkout.results()) == digests(uninterrupted.results())
    assert not [p for p in checkout.results().rglob("*") if ".tmp-" in p.name or ".scratch-" in p.name]
    assert checkout.planned() == {}


def test_jobs_stop_when_only_snakemake_is_killed(uninterrupted, tmp_path):
    checkout = uninterrupted.copy(tmp_path / "orphaned")
    checkout.remove("models")
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


def test_what_a_node_finished_for_a_killed_run_is_known_by_the_settings_it_was_made_with(uninterrupted, tmp_path):
    """The node's own process writes it down; whoever submitted it may be gone."""
    checkout = uninterrupted.copy(tmp_path / "submitted")
    former, changed = "min_size_voxels: 200", "min_size_voxels: 300"
    checkout.edit("config/tasks/vessels.yaml", former, changed)
    as_on_a_node = ("--mode", "remote", "--allowed-rules", "annotate", "--nolock", "--force")
    checkout.run(*as_on_a_node, "--target-jobs", "annotate:task=vessels,volume=phantom-a")
    assert "annotate" not in checkout.planned()
    checkout.edit("config/tasks/vessels.yaml", changed, former)
    assert "annotate" in checkout.planned()


def test_parts_that_a_killed_run_left_are_removed(uninterrupted, tmp_path):
    checkout = uninterrupted.copy(tmp_path / "left")
    folders = [checkout.results() / stage / "vessels" / "small" / "0" for stage in ("predictions", "segmentations")]
    left = [folders[0] / "phantom-a.1-of-2.zarr", folders[1] / "phantom-a.2-of-2.objects"]
    needed = folders[0] / "phantom-b.1-of-2.zarr"  # nothing has joined it
    for part in (*left, needed):
        part.mkdir()
        (part / "shard").touch()
    checkout.remove("report")
    checkout.run()
    assert not any(part.exists() for part in left)
    assert needed.exists()


def test_a_full_and_a_read_only_disk_are_told_and_the_same_command_goes_on(uninterrupted, tmp_path):
    checkout = uninterrupted.copy(tmp_path / "full")
    checkout.remove("annotations")
    annotated = "results/annotations/vessels/phantom-a.zarr"
    with small_disk(checkout.results() / "annotations", size="64k") as disk:
        assert re.search(
            r"\[annotate\] error: results/anno.* no space is left.* make room", checkout.run(annotated, fails=True)
        )
        remount(disk, "ro")
        assert f"Read-only file system: '{annotated}'" in checkout.run(annotated, fails=True)  # Snakemake's own words
        remount(disk, "rw", "size=40m")
        checkout.run(annotated)
        assert digests(checkout.results()) == digests(uninterrupted.results())


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
