"""A job as a process: whose packages it uses, and that it doesn't outlive what started it."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from pathlib import Path

LIBRARY = Path(__file__).resolve().parents[1]
LOGGER = logging.getLogger("voxloom")
WORKFLOW = "VOXLOOM_WORKFLOW_PROCESS"


def keep_to_own_environment() -> None:
    """Under a conda environment, drop the launching interpreter's packages from ``sys.path``.

    Snakemake appends its own whole ``sys.path`` to a script's. A package that the environment file forgot would then be
    taken from the launching interpreter, silently and in another version.
    """
    prefix = os.environ.get("CONDA_PREFIX")
    if prefix and Path(sys.prefix).resolve() == Path(prefix).resolve():
        own = [Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve(), LIBRARY, Path(sys.path[0]).resolve()]
        sys.path[:] = [entry for entry in sys.path if any(Path(entry or ".").resolve().is_relative_to(o) for o in own)]


def announce_workflow() -> None:
    """Tell the jobs that this process will start, on this machine, which process they must not outlive.

    Called by the workflow: in the process that runs it or, on a node of a cluster, that runs its jobs there.
    """
    if space := _process_space():
        os.environ[WORKFLOW] = f"{os.getpid()} {_began(os.getpid())} {space}"


def stop_with_workflow(*, every_s: float = 1.0) -> None:
    """Stop this process, at once, when the workflow that started it is gone, be it before this call.

    After ``kill -9`` of Snakemake its jobs would live on and race the jobs of the next run for the same files. Linux
    only; elsewhere, in a container that can't see the workflow's process, and where no workflow has announced itself,
    nothing is watched.

    Parameters
    ----------
    every_s : float
        Seconds between two looks.
    """
    if not os.environ.get(WORKFLOW):
        return
    pid, began, space = os.environ[WORKFLOW].split()
    if space != _process_space():
        return

    def watch() -> None:
        while _began(int(pid)) == began:
            time.sleep(every_s)
        LOGGER.error("Snakemake (process %s) is gone: stopping", pid)
        os._exit(70)

    threading.Thread(target=watch, daemon=True, name="stop-with-workflow").start()


def _began(pid: int) -> str:
    """When a process that runs began, in ticks since the machine did: another one of the same number began later."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return "gone"
    return "gone" if state in "ZX" else rest[18]


def _process_space() -> str:
    """The machine, since it was started, and the container in which numbers of processes mean something."""
    try:
        machine = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{machine}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""
