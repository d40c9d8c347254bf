"""A job as a process: whose packages it uses, and that it doesn't outlive what started it."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from pathlib import Path
from types import ModuleType

from voxloom.errors import ConfigError

LIBRARY = Path(__file__).resolve().parents[1]
LOGGER = logging.getLogger("voxloom")
WORKFLOW = "VOXLOOM_WORKFLOW_PROCESS"
WORKFLOW_LIBRARY = "VOXLOOM_WORKFLOW_LIBRARY"


def keep_to_own_environment() -> None:
    """In a rule's script under a conda environment, forget the launching interpreter's packages.

    Snakemake appends its own whole ``sys.path`` to a script's, because the script unpickles what only Snakemake can
    read, and a user's own packages (``~/.local``, ``PYTHONPATH``) come before an environment's. A package that the
    environment file forgot would be taken from there, silently and in another version. So their folders leave
    ``sys.path``, and what is imported from them already, Snakemake apart, will not be found by the next import.

    Notes
    -----
    Runs when `voxloom` is imported, before any other package that the script asks for. Nothing happens outside a rule's
    script, and in a script whose interpreter isn't the conda environment's.
    """
    prefix = os.environ.get("CONDA_PREFIX")
    if not prefix or not _is_script_of_a_rule() or Path(sys.prefix).resolve() != Path(prefix).resolve():
        return
    own = [Path(folder or ".").resolve() for folder in (sys.prefix, sys.base_prefix, LIBRARY, sys.path[0])]

    def is_own(entry: str) -> bool:
        return any(Path(entry or ".").resolve().is_relative_to(folder) for folder in own)

    sys.path[:] = [entry for entry in sys.path if is_own(entry)]
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and not is_own(file) and name != "__main__" and not name.startswith("snakemake"):
            del sys.modules[name]


def _is_script_of_a_rule() -> bool:
    """Whether Snakemake put the object named after it into this process's script."""
    job = getattr(sys.modules.get("__main__"), "snakemake", None)
    return job is not None and not isinstance(job, ModuleType)


def announce_workflow() -> None:
    """Tell the jobs that this process will start which library it uses and which process they must not outlive.

    Called by the workflow: in the process that runs it or, on a node of a cluster, that runs its jobs there.
    """
    os.environ[WORKFLOW_LIBRARY] = str(LIBRARY)
    if space := _process_space():
        os.environ[WORKFLOW] = f"{os.getpid()} {_began(os.getpid())} {space}"


def refuse_another_library() -> None:
    """Stop a job whose library isn't that of the workflow.

    The code's version, by which the workflow decides what runs again, would be that of other code than what ran.

    Raises
    ------
    ConfigError
        With both folders.
    """
    announced = os.environ.get(WORKFLOW_LIBRARY, str(LIBRARY))
    if Path(announced) != LIBRARY:
        raise ConfigError(
            f"the workflow uses voxloom in {announced}, but this job's Python imports the one in {LIBRARY}; uninstall "
            "that (pip uninstall voxloom), install the workflow's in its place (pip install -e), or set PYTHONPATH to "
            f"{announced}"
        )


def machine() -> str:
    """Where this process runs, in words.

    Returns
    -------
    machine : str
        Name, cores that it may use and that there are, memory, system.
    """
    system = os.uname()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{system.nodename}: {cores} of {os.cpu_count()} cores, {memory_gib:.0f} GiB, {system.sysname} {system.machine}"
    )


def stop_with_workflow(*, every_s: float = 1.0) -> None:
    """Stop this process, at once, when the workflow that started it is gone, be it before this call.

    After ``kill -9`` of Snakemake its jobs would live on and race the jobs of the next run for the same files. Where
    the workflow is gone already this doesn't return. Linux only; elsewhere, in a container that can't see the
    workflow's process, and where no workflow has announced itself, nothing is watched.

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

    if _began(int(pid)) != began:
        watch()
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
