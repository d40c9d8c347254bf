"""Which of a machine's GPUs a job computes on: each job gets its own, and no two jobs the same.

A job keeps a GPU by locking a file in the machine's folder for temporary files. The lock is the kernel's, so it goes
with its process, whatever ends that. PyTorch is imported where a job has asked for a GPU only.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

from voxloom.errors import ModelError

LOGGER = logging.getLogger("voxloom")
VISIBLE = "CUDA_VISIBLE_DEVICES"
OF_SLURM = ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS")
WAIT_S, LOOK_S = 20.0, 0.2
"""A job that has just ended may take a moment to be gone; one that is still there then is no mistake of time."""


@contextlib.contextmanager
def own_gpus(count: int, *, device: str = "auto") -> Iterator[list[str]]:
    """Keep so many GPUs for this process; libraries see no others, if they look for the first time from here on.

    Parameters
    ----------
    count : int
        The job's resource ``gpu``; without it, 0, nothing is kept and nothing hidden.
    device : {"auto", "cpu", "cuda", "mps"}
        Nothing is kept for "cpu" and "mps".

    Yields
    ------
    ids : list of str
        What ``CUDA_VISIBLE_DEVICES`` is until the context is left; empty where nothing is kept, as on a machine
        without a GPU.

    Raises
    ------
    ModelError
        If the machine has fewer, or others keep them.

    Notes
    -----
    The GPUs are those of ``CUDA_VISIBLE_DEVICES``, which a scheduler sets for its jobs, else those that Slurm names,
    else all of the machine's. Jobs of one user respect each other, in whatever folder they run.
    """
    ids = _ids(os.environ) if count and device in ("auto", "cuda") else []
    if not ids:
        yield []
        return
    if "SLURM_JOB_ID" in os.environ:
        count = min(count, len(ids))  # those of the job's other nodes aren't here
    if len(ids) < count:
        raise ModelError(
            f"the resource gpu of this job is {count}, but there {_are(len(ids))} to be had here ({', '.join(ids)}); "
            "set it to at most that in the profile (set-resources)"
        )
    before = os.environ.get(VISIBLE)
    with _kept(ids, count) as own:
        LOGGER.info("computing on GPU %s of %s", ", ".join(own), ", ".join(ids))
        os.environ[VISIBLE] = ",".join(own)
        try:
            yield own
        finally:
            os.environ.pop(VISIBLE)
            if before is not None:
                os.environ[VISIBLE] = before


def _are(count: int) -> str:
    return "is 1" if count == 1 else f"are {count}"


def _ids(environment: Mapping[str, str]) -> list[str]:
    """The GPUs that this job could have, as CUDA names them."""
    named = next((environment[name] for name in (VISIBLE, *OF_SLURM) if name in environment), None)
    if named is not None:
        return [word.strip() for word in named.split(",") if word.strip() not in ("", "-1", "NoDevFiles")]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


@contextlib.contextmanager
def _kept(ids: list[str], count: int) -> Iterator[list[str]]:
    """Lock so many of the GPUs, the first that are free, all or none of them."""
    folder, deadline = _folder(), time.monotonic() + WAIT_S
    while True:
        with contextlib.ExitStack() as locks:
            own: list[str] = []
            for name in ids:
                if len(own) < count and _is_locked_now(folder / _file(name), locks):
                    own.append(name)
            if len(own) == count:
                yield own
                return
        if time.monotonic() > deadline:
            raise ModelError(
                f"this job asks for {count} of the GPUs {', '.join(ids)}, and other jobs keep them: "
                f"{_keepers(folder, ids)}. Let Snakemake start no more jobs than there are GPUs "
                f"(resources: {{gpu: {len(ids)}}} in the profile), or wait for those of another run"
            )
        time.sleep(LOOK_S)


def _is_locked_now(path: Path, locks: contextlib.ExitStack) -> bool:
    """Lock a GPU's file until the stack is left, if no other process has; the file says who."""
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "r+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return False
    locks.enter_context(file)
    file.truncate()
    file.write(f"process {os.getpid()} in {Path.cwd()}")
    file.flush()
    return True


def _keepers(folder: Path, ids: list[str]) -> str:
    files = {name: folder / _file(name) for name in ids}
    return ", ".join(f"{name} by {file.read_text(errors='replace')}" for name, file in files.items() if file.is_file())


def _file(name: str) -> str:
    """A job step of Slurm may count its GPUs from 0 whichever they are, so that only those of one step can collide."""
    step = ".".join(os.environ[key] for key in ("SLURM_JOB_ID", "SLURM_STEP_ID") if key in os.environ)
    return quote(f"slurm-{step}-{name}" if step else name, safe="")


def _folder() -> Path:
    """A folder of this user's own, on this machine."""
    folder = Path(tempfile.gettempdir()) / f"voxloom-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise ModelError(f"{folder} belongs to another user, so GPUs can't be shared out; remove it, or set TMPDIR")
    return folder
