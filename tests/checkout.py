"""A copy of the repository in which tests run the workflow, edit files and kill processes."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("Snakefile", "workflow", "scripts", "src", "config", "envs", "profiles")
ENVIRONMENT = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "VOXLOOM_PROGRESS_SECONDS": "2"}

MEASURED = ("logs", "benchmarks", "report", "manifest", "ro-crate-metadata.json")  # times are in them
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


class Checkout:
    """The workflow in a folder of its own."""

    where = ("--cores", "2")

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def new(cls, folder: Path) -> Checkout:
        folder.mkdir(parents=True)
        for part in PARTS:
            source = ROOT / part
            if source.is_dir():
                hidden = shutil.ignore_patterns("*.egg-info", "__pycache__", "results", ".snakemake", "data")
                shutil.copytree(source, folder / part, ignore=hidden)
            else:
                shutil.copy2(source, folder / part)
        share_compiled(folder / "src")
        return cls(folder)

    @classmethod
    def demo(cls, folder: Path) -> Checkout:
        """A checkout of the embedded demo, but for the slices of the published model.

        They are scaled to 200 x 200 and not 400 x 400: quality is asserted of the best models, and this takes a quarter
        of the published ones' time. `make demo` runs it as it is.
        """
        checkout = cls.new(folder)
        for task in ("axons", "vessels"):
            checkout.edit(f"config/tasks/{task}.yaml", "size: [400, 400]", "size: [200, 200]")
        return checkout

    @classmethod
    def small(cls, folder: Path) -> Checkout:
        """A checkout whose configuration runs every stage in a minute on one core."""
        checkout = cls.new(folder)
        (folder / "config" / "config.yaml").write_text(SMALL)
        (folder / "config" / "volumes.tsv").write_text(
            "volume\tpath\tannotation_truth\nphantom-a\tresults/raw/phantom-a.nrrd\tresults/raw/phantom-a.truth.seg.nrrd\n"
        )
        checkout.edit("config/tasks/vessels.yaml", "models:\n", "models:\n" + MODEL)
        checkout.edit("config/tasks/vessels.yaml", "min_size_voxels: 2000, connectivity: 6", "min_size_voxels: 200")
        return checkout

    def copy(self, folder: Path) -> Checkout:
        subprocess.run(["cp", "-a", str(self.folder), str(folder)], check=True)
        return Checkout(folder)

    def environment(self, more: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
        """With the library of this folder, wherever the interpreter has another, and some variables more."""
        return {**ENVIRONMENT, "PYTHONPATH": str(self.folder / "src"), **more}

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "snakemake", *self.where, *words]

    def run(self, *words: str, fails: bool = False, more: Mapping[str, str] = MappingProxyType({})) -> str:
        """Run snakemake, with some environment variables more; return all that it said."""
        environment = self.environment(more)
        done = subprocess.run(
            self.command(*words), cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        said = done.stdout + done.stderr
        assert (done.returncode != 0) == fails, said
        return said

    def planned(self, *words: str, more: Mapping[str, str] = MappingProxyType({})) -> dict[str, int]:
        """Rules that a run would execute, and how often; empty where there is nothing to do."""
        said = self.run("--dry-run", *words, more=more)
        if "Nothing to be done" in said:
            return {}
        table = said.split("Job stats:")[1].split("\n\n")[0]
        jobs = {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", table, re.M)}
        return {name: count for name, count in jobs.items() if name not in ("total", "all", "job")}

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start snakemake in a process group of its own and don't wait for it."""
        return subprocess.Popen(
            self.command(*words),
            cwd=self.folder,
            env=self.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def remove(self, folder: str) -> None:
        """Remove a stage's results, and what has Snakemake make them again: a missing file alone it needn't."""
        for gone in (folder, "report", "logs"):
            shutil.rmtree(self.results() / gone, ignore_errors=True)

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.folder / name
        text = path.read_text()
        assert text.count(old) >= 1, f"{name} has no {old!r}"
        if (shared := path.parent / "__pycache__").is_symlink():
            shared.unlink()  # what an edited kernel is part of is other code, too
        path.write_text(text.replace(old, new, 1))

    def results(self) -> Path:
        return self.folder / "results"


def share_compiled(copy: Path) -> None:
    """Keep what Python and numba compile of a copied library where the original's is, so that it is compiled once."""
    for package in {source.parent for source in copy.rglob("*.py")}:
        original = ROOT / "src" / package.relative_to(copy) / "__pycache__"
        original.mkdir(exist_ok=True)
        (package / "__pycache__").symlink_to(original)


def digests(results: Path) -> dict[str, str]:
    """Checksums of everything that is not a time or a log."""
    from voxloom.training_log import MEASURED_COLUMNS  # imports PyTorch, which not every test waits for

    found = {}
    for path in sorted(results.rglob("*")):
        name = path.relative_to(results)
        if path.is_dir() or name.parts[0] in MEASURED or path.name == ".snakemake_timestamp":
            continue
        data = path.read_bytes()
        if path.name == "training_log.csv":  # its last columns are times and memory
            measured = len(MEASURED_COLUMNS)
            data = b"\n".join(b",".join(line.split(b",")[:-measured]) for line in data.splitlines())
        if path.name.startswith("training_log.") and path.suffix in (".svg", ".png"):
            continue
        found[str(name)] = hashlib.sha256(data).hexdigest()
    return found
