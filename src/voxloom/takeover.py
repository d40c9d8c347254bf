"""Jobs whose work another job does anew: in the next run, or on another node.

A scheduler's job outlives the snakemake process that submitted it, and a node that its scheduler lost may go on
computing. Both would race the job that does their work again, so they watch for it and stop.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import NoReturn

LOCKS = Path(".snakemake/locks")
RUN = "VOXLOOM_RUN_LOCKED_NS"
REPLACED = "another run has taken over this folder"


def announce_run() -> None:
    """Tell the jobs that will be submitted which lock of the folder is their run's.

    Called by the workflow when it begins to run, in its folder, which is locked by then.
    """
    os.environ[RUN] = str(max(_locked_ns(), default=0))


def is_replaced() -> bool:
    """Whether another run has locked the folder since the lock of this job's run is gone.

    Returns
    -------
    is_replaced : bool
        False where no run announced itself, as without locks or without a shared disk.
    """
    ours, locked = int(os.environ.get(RUN) or 0), _locked_ns()
    # an older lock is what a network disk's cache still shows of a run that ended
    return ours > 0 and ours not in locked and max(locked, default=0) > ours


@contextlib.contextmanager
def stopping_when_taken_over(log: str | Path, *, every_s: float = 5.0) -> Iterator[None]:
    """Claim a log; stop this process, at once, when another one claims it or another run replaces this job's.

    Where another run has replaced it already the log isn't claimed: that run's job would stop.

    Parameters
    ----------
    log : str or Path
        Begins anew, with a line that says which process claimed it. Every attempt at a job has the same log.
    every_s : float
        Seconds between two looks.
    """
    log = Path(log)
    if is_replaced():
        _stop(REPLACED)
    claim = f"process {os.getpid()} on {os.uname().nodename}, {datetime.now():%Y-%m-%d %H:%M:%S.%f}"
    with contextlib.suppress(OSError):  # a full disk is told by who writes results to it
        log.write_text(f"{claim}\n", encoding="utf-8")
    written = _first_line(log)
    if not claim.startswith(written):  # another one's, which came between; cut short where the disk is full
        _stop(f"{written} has taken over this job")
    claim = written
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(every_s):
            if reason := _loss(log, claim):
                _stop(reason)

    threading.Thread(target=watch, daemon=True, name="stopping-when-taken-over").start()
    try:
        yield
    finally:
        is_over.set()


def _loss(log: Path, claim: str) -> str | None:
    if is_replaced():
        return REPLACED
    first = _first_line(log)
    return f"{first} has taken over this job" if claim and first and first != claim else None


def _stop(reason: str) -> NoReturn:
    print(f"{reason}: stopping", file=sys.stderr, flush=True)
    os._exit(70)


def _first_line(log: Path) -> str:
    try:
        with open(log, encoding="utf-8", errors="replace") as file:
            return file.readline().rstrip("\n")
    except OSError:  # removed, or out of reach for a moment
        return ""


def _locked_ns() -> set[int]:
    """When each of the folder's locks was made."""
    found = set()
    for lock in LOCKS.glob("*.output.lock"):
        with contextlib.suppress(OSError):  # unlocked meanwhile
            found.add(lock.stat().st_mtime_ns)
    return found
