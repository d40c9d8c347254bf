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


def keep_to_own_environment() -> None:
    """Under a conda environment, drop the launching interpreter's packages from ``sys.path``.

    Snakemake appends its own whole ``sys.path`` to a script's. A package that the environment file forgot would then be
    taken from the launching interpreter, silently and in another version.
    """
    prefix = os.environ.get("CONDA_PREFIX")
    if prefix and Path(sys.prefix).resolve() == Path(prefix).resolve():
        own = [Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve(), LIBRARY, Path(sys.path[0]).resolve()]
        sys.path[:] = [entry for entry in sys.path if any(Path(entry or ".").resolve().is_relative_to(o) for o in own)]


def stop_with_parent(*, every_s: float = 1.0) -> None:
    """Stop this process, at once, when the snakemake process that started it is gone.

    After ``kill -9`` of Snakemake its jobs would live on and race the jobs of the next run for the same files. Linux
    only; elsewhere, and where no ancestor is Snakemake, nothing is watched.

    Parameters
    ----------
    every_s : float
        Seconds between two looks.
    """
    parent = _snakemake_ancestor()
    if parent is None:
        return

    def watch() -> None:
        while True:
            time.sleep(every_s)
            if not Path(f"/proc/{parent}").exists():
                LOGGER.error("Snakemake (process %d) is gone: stopping", parent)
                os._exit(70)

    threading.Thread(target=watch, daemon=True, name="stop-with-parent").start()


def _snakemake_ancestor() -> int | None:
    pid = os.getpid()
    for _ in range(8):
        try:
            status = Path(f"/proc/{pid}/stat").read_text()
            pid = int(status.rsplit(")", 1)[1].split()[1])
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        except (OSError, ValueError, IndexError):
            return None
        # the interpreter that runs snakemake, not a shell whose command line mentions it
        is_shell = Path(words[0]).name in {"bash", "sh", "dash", "zsh"}
        if not is_shell and any(Path(word).name == "snakemake" for word in words[:4]):
            return pid
        if not is_shell and "-m" in words[:4] and "snakemake" in words[:5]:
            return pid
    return None
