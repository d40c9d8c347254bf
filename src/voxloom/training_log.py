"""What a training says while it runs: a row an epoch, lines now and then, TensorBoard where it is asked for."""

from __future__ import annotations

import contextlib
import logging
import math
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch

from voxloom.errors import ModelError
from voxloom.logs import PROGRESS_SECONDS
from voxloom.validation import Scores

LOGGER = logging.getLogger("voxloom")
MEASURED_COLUMNS = (
    "samples_per_s",
    "waiting_share",
    "planned_memory_mib",
    "peak_memory_mib",
    "peak_gpu_mib",
    "seconds",
)
_UNITS_PER_MIB = 2**20 if sys.platform == "darwin" else 2**10  # of getrusage
LOG_COLUMNS = (
    "epoch",
    "step",
    "learning_rate",
    "training_loss",
    "gradient_norm",
    "validation_loss",
    "validation_average_precision",
    "validation_f1",
    "validation_iou",
    *MEASURED_COLUMNS,
)
"""Columns of a training log; those in `MEASURED_COLUMNS` are of the machine and differ between equal trainings."""

Row = dict[str, float | int]


class Meter:
    """Times an epoch.

    Parameters
    ----------
    epoch, epochs : int
        Its number from 0, and how many there are at most.
    samples, steps : int
        Of a whole epoch.
    before : int
        Steps of this epoch that were done before a restart.
    planned_mib : float
        Memory that this process was planned to hold at its peak.
    """

    def __init__(self, epoch: int, epochs: int, *, samples: int, steps: int, before: int, planned_mib: float) -> None:
        self.epoch, self.epochs, self.samples, self.steps, self.before = epoch, epochs, samples, steps, before
        self.planned_mib = planned_mib
        self.begin = self.said = time.monotonic()
        self.learnt_s = 0.0

    def say_step(self, losses: Sequence[float]) -> None:
        """Log a line if the last one was some time ago.

        Parameters
        ----------
        losses : sequence of float
            Of all steps of this epoch.
        """
        now, done = time.monotonic(), len(losses)
        if now - self.said < PROGRESS_SECONDS or done == self.steps:
            return
        self.said = now
        seconds = (now - self.begin) / (done - self.before)
        LOGGER.info(
            "epoch %d: step %d/%d, loss %.4f, %.3g samples/s, %.0f s left in this epoch",
            self.epoch + 1,
            done,
            self.steps,
            losses[-1],
            self.samples / self.steps / seconds,
            (self.steps - done) * seconds,
        )

    def row(
        self,
        step: int,
        learning_rate: float,
        losses: Sequence[float],
        norms: Sequence[float],
        scores: Scores,
        waited_s: float,
    ) -> Row:
        """The row of this epoch, after its validation.

        Parameters
        ----------
        step : int
            Steps since training began.
        learning_rate : float
            Of the last step.
        losses, norms : sequence of float
            Loss and length of the gradient of every step.
        scores : Scores
        waited_s : float
            Seconds in which there was no batch to learn from.

        Returns
        -------
        row : dict
        """
        done = len(losses) - self.before
        values = (
            self.epoch + 1,
            step,
            learning_rate,
            math.fsum(losses) / len(losses),
            math.fsum(norms) / len(norms),
            scores.loss,
            scores.average_precision,
            scores.f1,
            scores.iou,
            done / self.steps * self.samples / max(self.learnt_s, 1e-9),
            waited_s / max(self.learnt_s, 1e-9),
            self.planned_mib,
            peak_memory_mib(),
            torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_initialized() else math.nan,
            time.monotonic() - self.begin,
        )
        return dict(zip(LOG_COLUMNS, values, strict=True))

    def learnt(self) -> None:
        """Say that learning is over, and validation begins."""
        self.learnt_s = time.monotonic() - self.begin


def say_epoch(row: Mapping[str, float], *, epochs: int, seconds_left: float) -> None:
    """Log an epoch.

    Parameters
    ----------
    row : mapping
    epochs : int
        How many there are at most.
    seconds_left : float
        Of the wall-clock budget; infinite without one.
    """
    left = row["seconds"] * (epochs - row["epoch"])
    gpu = "" if math.isnan(row["peak_gpu_mib"]) else f", {row['peak_gpu_mib']:.0f} MiB of the GPU"
    LOGGER.info(
        "epoch %d/%d: loss %.4f, validation loss %.4f, AP %.4f, F1 %.4f; %.3g samples/s, %.0f %% of the time waiting "
        "for data, peak memory %.0f MiB%s, %.0f s left",
        row["epoch"],
        epochs,
        row["training_loss"],
        row["validation_loss"],
        row["validation_average_precision"],
        row["validation_f1"],
        row["samples_per_s"],
        100 * row["waiting_share"],
        row["peak_memory_mib"],
        gpu,
        max(0.0, min(left, seconds_left)),
    )


def peak_memory_mib() -> float:
    """The most memory that this process has held so far, libraries and all, in MiB.

    Returns
    -------
    memory_mib : float
    """
    # getrusage would know what the process held that started this one, too
    return _status_mib("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _UNITS_PER_MIB


def memory_mib() -> float:
    """The memory that this process holds, libraries and all, in MiB; on other systems than Linux the most so far.

    Returns
    -------
    memory_mib : float
    """
    return _status_mib("VmRSS") or peak_memory_mib()


def _status_mib(key: str) -> float | None:
    """What Linux says about this process."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((int(line.split()[1]) / 2**10 for line in lines if line.startswith(f"{key}:")), None)


@contextlib.contextmanager
def tensorboard(folder: str | Path, *, is_wanted: bool) -> Iterator[Callable[[Mapping[str, float]], None] | None]:
    """What writes rows of a training log for TensorBoard.

    Parameters
    ----------
    folder : str or Path
        Emptied first: a training that goes on writes its former rows again.
    is_wanted : bool
        Whether to write at all.

    Yields
    ------
    write : callable or None
        Takes a row.

    Raises
    ------
    ModelError
        If the package is missing.
    """
    if not is_wanted:
        yield None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ModelError(
            f"resources.tensorboard is true, but the package is missing ({error}); install voxloom[tensorboard], or "
            "set it to false: training_log.csv has the same numbers"
        ) from None
    shutil.rmtree(folder, ignore_errors=True)
    writer = SummaryWriter(str(folder))  # type: ignore[no-untyped-call]

    def write(row: Mapping[str, float]) -> None:
        for name in LOG_COLUMNS[2:]:
            if not math.isnan(row[name]):
                writer.add_scalar(name, row[name], int(row["epoch"]))  # type: ignore[no-untyped-call]
        writer.flush()  # type: ignore[no-untyped-call]

    try:
        yield write
    finally:
        writer.close()  # type: ignore[no-untyped-call]
