"""A copy of the repository in which tests run the workflow, edit files and kill processes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("Snakefile", "workflow", "scripts", "src", "config", "envs", "profiles")
ENVIRONMENT = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "VOXLOOM_PROGRESS_SECONDS": "2"}


class Checkout:
    """The workflow in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def new(cls, folder: Path) -> Checkout:
        folder.mkdir(parents=True)
        for part in PARTS:
            source = ROOT / part
            if source.is_dir():
                hidden = shutil.ignore_patterns("*.egg-info", "results", ".snakemake", "data")
                shutil.copytree(source, folder / part, ignore=hidden)
            else:
                shutil.copy2(source, folder / part)
        return cls(folder)

    def copy(self, folder: Path) -> Checkout:
        subprocess.run(["cp", "-a", str(self.folder), str(folder)], check=True)
        return Checkout(folder)

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "snakemake", "--cores", "2", *words]

    def run(self, *words: str, fails: bool = False) -> str:
        """Run snakemake; return all that it said."""
        done = subprocess.run(
            self.command(*words), cwd=self.folder, env=ENVIRONMENT, capture_output=True, text=True, check=False
        )
        said = done.stdout + done.stderr
        assert (done.returncode != 0) == fails, said
        return said

    def planned(self, *targets: str) -> dict[str, int]:
        """Rules that a run would execute, and how often; empty where there is nothing to do."""
        said = self.run("--dry-run", *targets)
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
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.folder / name
        text = path.read_text()
        assert text.count(old) >= 1, f"{name} has no {old!r}"
        path.write_text(text.replace(old, new, 1))

    def results(self) -> Path:
        return self.folder / "results"
