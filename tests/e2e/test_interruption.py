"""kill -9 at any stage, then the same command: it finishes, and the results are those of an uninterrupted run.

Prediction and segmentation are shared by two jobs in the run that is killed there, and made by one in the other.
"""

import hashlib
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from checkout import Checkout

from voxloom.training_log import MEASURED_COLUMNS

SMALL = """\
volumes: config/volumes.tsv
tasks: {vessels: [small]}
phantom:
  phantom-a: {seed: 3, shape: [72, 80, 80], region: VP}
resources: {memory_mib: 2000, threads: 1}
"""
MODEL = """\
  small:
    input: {patch_voxels: [1, 64, 64]}
    optimiser: {learning_rate: 1.0e-3}
    batch_size: 4
    epochs: 4
    samples_per_epoch: 24
    augment: {flip: 0.5, noise: 0.5}
"""
STAGES = {  # the file whose appearance says that the stage has begun, and what is removed to begin there again
    "annotate": ("annotate", "annotations"),
    "train": ("train", "models"),
    "predict": ("predict_part", "predictions"),
    "report": ("report.log", "report"),
}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    checkout = Checkout.new(tmp_path_factory.mktemp("uninterrupted") / "checkout")
    (checkout.folder / "config" / "config.yaml").write_text(SMALL)
    (checkout.folder / "config" / "volumes.tsv").write_text(
        "volume\tpath\tannotation_truth\nphantom-a\tresults/raw/phantom-a.nrrd\tresults/raw/phantom-a.truth.seg.nrrd\n"
    )
    checkout.edit("config/tasks/vessels.yaml", "models:\n", "models:\n" + MODEL)
    checkout.edit("config/tasks/vessels.yaml", "min_size_voxels: 2000, connectivity: 6", "min_size_voxels: 200")
    checkout.run()
    return checkout


def digests(results: Path) -> dict[str, str]:
    """Checksums of everything that is not a time or a log."""
    found = {}
    for path in sorted(results.rglob("*")):
        name = path.relative_to(results)
        if path.is_dir() or name.parts[0] in ("logs", "benchmarks", "report") or path.name == ".snakemake_timestamp":
            continue
        data = path.read_bytes()
        if path.name == "training_log.csv":  # its last columns are times and memory
            measured = len(MEASURED_COLUMNS)
            data = b"\n".join(b",".join(line.split(b",")[:-measured]) for line in data.splitlines())
        if path.name.startswith("training_log.") and path.suffix in (".svg", ".png"):
            continue
        found[str(name)] = hashlib.sha256(data).hexdigest()
    return found


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
