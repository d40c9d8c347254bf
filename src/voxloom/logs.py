"""What a job says: a log file, a line now and then on the terminal, and one line when it fails."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from voxloom import process, takeover
from voxloom.errors import VoxloomError
from voxloom.faults import disk_errors_told

LOGGER = logging.getLogger("voxloom")
PROGRESS_SECONDS = float(os.environ.get("VOXLOOM_PROGRESS_SECONDS", "10"))

MACHINE = "runs on "
"""How a job's log says where the job runs, near its beginning."""

Item = TypeVar("Item")


@contextlib.contextmanager
def log_to(path: str | Path) -> Iterator[None]:
    """Log to a file and, line by line, to standard error; end the process with status 1 when the work fails.

    A job of a workflow runs inside this. It also stops the job when the workflow that started it is killed (see
    `voxloom.process`), and when another process does its work anew (see `voxloom.takeover`).

    Parameters
    ----------
    path : str or Path
        The log file; written anew.

    Notes
    -----
    The traceback goes to the file only. An error that a user can cause prints its message and its notes.
    """
    path = Path(path)
    stage = path.parts[path.parts.index("logs") + 1].removesuffix(".log") if "logs" in path.parts else path.stem
    try:
        with disk_errors_told(), _logging_to(path, stage), disk_errors_told():
            process.stop_with_workflow()  # before the log is claimed: a job that mustn't begin takes nothing over
            with takeover.stopping_when_taken_over(path):
                process.refuse_another_library()
                LOGGER.info("%s%s", MACHINE, process.machine(), extra={"for_file_only": True})
                yield
                LOGGER.info("done")
    except Exception as error:
        said = [str(error), *getattr(error, "__notes__", [])]
        name = "" if isinstance(error, VoxloomError) else f"{type(error).__name__}: "
        story = f"\n[{stage}] the whole story is in {path}" if path.is_file() else ""
        print(f"[{stage}] error: {name}{'; '.join(said)}{story}", file=sys.stderr)
        sys.exit(1)


@contextlib.contextmanager
def _logging_to(path: Path, stage: str) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    to_file = _LogFile(path, mode="a", encoding="utf-8")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    to_terminal = logging.StreamHandler(sys.stderr)
    to_terminal.setFormatter(logging.Formatter(f"[{stage}] %(message)s"))
    to_terminal.addFilter(lambda record: record.exc_info is None and not hasattr(record, "for_file_only"))
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    LOGGER.handlers = [to_file, to_terminal]
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").handlers = [to_file]
    try:
        with _crashes_in(to_file):
            yield
    except Exception:
        LOGGER.exception("failed")
        raise
    finally:
        for handler in LOGGER.handlers:
            handler.close()
        LOGGER.handlers = []


@contextlib.contextmanager
def _crashes_in(log: logging.FileHandler) -> Iterator[None]:
    """Where the process crashes, as when a file is cut short that is mapped into memory, say in which line."""
    if faulthandler.is_enabled():
        yield
        return
    assert log.stream is not None
    faulthandler.enable(log.stream)
    try:
        yield
    finally:
        faulthandler.disable()


class _LogFile(logging.FileHandler):
    """A log that doesn't end the job, nor hide its error, when the disk is full."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Lose the line; the terminal has it."""

    def close(self) -> None:
        """Close; what can't be written any more is lost."""
        with contextlib.suppress(OSError):
            super().close()


def progress(items: Iterable[Item], *, total: int | None = None, description: str = "") -> Iterator[Item]:
    """Hand on items and log now and then how many there were, how fast, and how long the rest will take.

    Parameters
    ----------
    items : iterable
    total : int, optional
        How many there will be; taken from ``len(items)`` where it has one.
    description : str
        What is being counted, for the log line. Nothing is logged when it is empty.

    Yields
    ------
    item
        Each of `items`, unchanged.
    """
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # type: ignore[arg-type]
    start = last = time.monotonic()
    count = 0
    for item in items:
        yield item
        count += 1
        now = time.monotonic()
        if description and now - last >= PROGRESS_SECONDS:
            last = now
            rate = count / max(now - start, 1e-9)
            left = f", {(total - count) / rate:.0f} s left" if total else ""
            LOGGER.info("%s %d/%s, %.3g/s%s", description, count, total or "?", rate, left)
    if description and count:
        LOGGER.info("%s %d/%s in %.1f s", description, count, count, time.monotonic() - start)


class Shares:
    """How long each of several activities took, that run side by side or one after the other.

    Parameters
    ----------
    description : str
        Of them together, for the log line. Nothing is logged when it is empty.
    """

    def __init__(self, description: str) -> None:
        self._description = description
        self._begin = time.monotonic()
        self._seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def of(self, activity: str) -> Iterator[None]:
        """A context whose time counts as this activity's; from one thread at a time.

        Parameters
        ----------
        activity : str
        """
        begin = time.monotonic()
        try:
            yield
        finally:
            self._seconds[activity] = self._seconds.get(activity, 0.0) + time.monotonic() - begin

    def log(self) -> None:
        """Log the share of the time since this was made that each activity took, the longest first."""
        whole = time.monotonic() - self._begin
        longest = sorted(self._seconds.items(), key=lambda item: -item[1])
        if self._description and longest:
            parts = ", ".join(f"{activity} {100 * seconds / whole:.0f} %" for activity, seconds in longest)
            LOGGER.info("%s: %s of %.1f s", self._description, parts, whole)
