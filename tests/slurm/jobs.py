"""A checkout whose jobs are submitted to a cluster."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from checkout import Checkout
from slurm.cluster import Cluster


class Submitting(Checkout):
    """The workflow in a folder of its own, run by a cluster.

    Parameters
    ----------
    checkout : Checkout
        The folder.
    cluster : Cluster
    """

    where = (
        "--profile=profiles/slurm",
        # there is no accounting database, and these jobs take seconds
        "--slurm-status-command=squeue",
        "--slurm-no-account",
        "--slurm-init-seconds-before-status-checks=8",
    )

    def __init__(self, checkout: Checkout, cluster: Cluster) -> None:
        super().__init__(checkout.folder)
        self.cluster = cluster

    def environment(self, more: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
        """Of this folder and the cluster; with the executors, which lie beside Python's environment."""
        ours = super().environment()
        paths = os.pathsep.join([ours["PYTHONPATH"], self.cluster.environment["PYTHONPATH"]])
        return {**ours, **self.cluster.environment, "PYTHONPATH": paths, **more}

    def mine(self) -> list[dict[str, str]]:
        """The cluster's jobs of this folder, in the order of submission."""
        return [job for job in self.cluster.jobs() if job["folder"] == str(self.folder)]

    def submitted(self, rule: str) -> list[dict[str, str]]:
        """Those of a rule."""
        return [job for job in self.mine() if job["rule"].split("_wildcards_")[0] == f"rule_{rule}"]

    def running(self) -> list[dict[str, str]]:
        """Those that haven't ended."""
        return [job for job in self.mine() if job["state"] in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING")]

    def log(self, rule: str) -> Path:
        """Where the only job of a rule logs."""
        return next((self.results() / "logs" / rule).rglob("*.log"))

    def scripts(self, rule: str) -> list[int]:
        """Processes that run the script of a rule in this folder."""
        found = []
        for pid in self.cluster.processes():
            with contextlib.suppress(OSError):  # ended meanwhile
                words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
                is_here = Path(f"/proc/{pid}/cwd").resolve() == self.folder.resolve()
                if is_here and any(word.endswith(f".{rule}.py") for word in words):
                    found.append(pid)
        return found
