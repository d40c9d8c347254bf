"""Several processes that train one network together: started, kept in step, and ended together."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from voxloom import process
from voxloom.errors import ModelError, VoxloomError

LOGGER = logging.getLogger("voxloom")
LOOK_S = 0.1
GRACE_S = 60.0  # for this process to notice by itself that another is gone
STOP_S = 10.0
PATIENCE = timedelta(days=7)  # the others wait while the first validates


@dataclass(frozen=True)
class Group:
    """This process's place among those that train together.

    Parameters
    ----------
    rank : int
        From 0; the first one validates, logs and writes.
    size : int
        Number of processes; each sees its share of every batch.
    nodes : int
        Machines that the processes are spread over, neighbours on the same one.
    """

    rank: int = 0
    size: int = 1
    nodes: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process validates, logs and writes."""
        return self.rank == 0

    @property
    def node(self) -> int:
        """The machine of this process, from 0."""
        return ((self.rank + 1) * self.nodes - 1) // self.size

    @property
    def neighbours(self) -> range:
        """The ranks of this process's machine."""
        return range(self.node * self.size // self.nodes, (self.node + 1) * self.size // self.nodes)

    def share(self, numbers: Sequence[int]) -> Sequence[int]:
        """What of a batch's samples this process sees: neighbours, nearly as many as every other process.

        Parameters
        ----------
        numbers : sequence of int

        Returns
        -------
        share : sequence of int
            Together those of all processes are the numbers in their order.

        Examples
        --------
        >>> [list(Group(rank, 2).share(range(5))) for rank in (0, 1)]
        [[0, 1], [2, 3, 4]]
        """
        return numbers[self.rank * len(numbers) // self.size : (self.rank + 1) * len(numbers) // self.size]

    def device(self, name: str) -> str:
        """The device of this process: a GPU of its own where the name doesn't say which.

        Parameters
        ----------
        name : str
            See `devices.choose_device`.

        Returns
        -------
        name : str

        Raises
        ------
        ModelError
            If there are fewer GPUs than processes.
        """
        is_cuda = name == "cuda" or (name == "auto" and torch.cuda.is_available())
        if self.size == 1 or not is_cuda:
            return name
        if torch.cuda.device_count() < len(self.neighbours):
            where = "this machine has" if self.nodes == 1 else f"{self.nodes} machines compute, and this one has"
            raise ModelError(
                f"resources.processes is {self.size}, but {where} {torch.cuda.device_count()} GPUs that PyTorch can "
                "use; set it to their number"
            )
        return f"cuda:{self.neighbours.index(self.rank)}"

    def with_joint_statistics(self, network: nn.Module, device: torch.device) -> nn.Module:
        """A network whose batch normalisation takes its statistics over all processes.

        Parameters
        ----------
        network : torch.nn.Module
        device : torch.device
            Where it is going to be.

        Returns
        -------
        network : torch.nn.Module
            The same where there is nothing to change.

        Raises
        ------
        ModelError
            If there is batch normalisation, and the device is not a GPU.
        """
        has_statistics = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())
        if self.size == 1 or not has_statistics:
            return network
        if device.type != "cuda":
            raise ModelError(
                f"resources.processes is {self.size} and the network has batch normalisation, whose statistics PyTorch "
                "takes over all processes on GPUs only; set resources.processes to 1, or network.norm to instance"
            )
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)

    def joined(self, network: nn.Module, device: torch.device) -> nn.Module:
        """What to call in training, so that gradients are the mean over all processes.

        Parameters
        ----------
        network : torch.nn.Module
            On its device.
        device : torch.device

        Returns
        -------
        parallel : torch.nn.Module
            With the network's own weights.
        """
        if self.size == 1:
            return network
        device_ids = [device] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(network, device_ids=device_ids)

    def gradients(self, parallel: nn.Module, *, are_joined: bool) -> contextlib.AbstractContextManager[None]:
        """A context for a forward and backward pass.

        Parameters
        ----------
        parallel : torch.nn.Module
            See `joined`.
        are_joined : bool
            Whether the gradients that were added up so far are exchanged now.

        Returns
        -------
        context : context manager
        """
        if isinstance(parallel, nn.parallel.DistributedDataParallel) and not are_joined:
            return parallel.no_sync()
        return contextlib.nullcontext()

    def total(self, sums: Tensor) -> Tensor:
        """Add up over all processes; the gradient of the result is that of this process's own part.

        Parameters
        ----------
        sums : Tensor

        Returns
        -------
        total : Tensor
            Equal in all processes. Their gradients' sum is that of one process with all samples, whatever is made of
            the sums.
        """
        if self.size == 1:
            return sums
        everywhere = sums.detach().clone()
        dist.all_reduce(everywhere)
        return sums + (everywhere - sums.detach())

    def agreed(self, *values: float) -> tuple[float, ...]:
        """The first process's numbers, in all of them.

        Parameters
        ----------
        *values : float

        Returns
        -------
        values : tuple of float
        """
        if self.size == 1:
            return values
        told = torch.tensor(values, dtype=torch.float64)
        dist.broadcast(told, src=0)
        return tuple(told.tolist())


ALONE = Group()


class _Helper:
    """Another process of the group, and what it said when it failed."""

    def __init__(self, folder: Path, group: Group, prefix: Sequence[str]) -> None:
        self.rank, self.size, self.errors = group.rank, group.size, folder / f"{group.rank}.stderr"
        self.ended_at = float("inf")
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
        with open(self.errors, "wb") as file:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-c", "from voxloom.process_group import help_along; help_along()",
                 str(folder), str(group.rank), str(group.size), str(group.nodes)],
                stdin=subprocess.DEVNULL, stderr=file, env=environment, start_new_session=True,
            )  # fmt: skip

    def has_failed(self) -> bool:
        status = self.process.poll()
        if status is not None and self.ended_at == float("inf"):
            self.ended_at = time.monotonic()
        return bool(status)

    def stop(self) -> None:
        """End it; ``srun`` passes on what asks it to end, and not what kills it."""
        self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def story(self) -> str:
        """How it ended, in its own words."""
        status = self.process.returncode
        if status is not None and status < 0:
            said = f"was killed by signal {-status}" + (
                " (memory ran out? lower resources.processes or the batch size)" if status == -9 else ""
            )
        else:
            said = f"failed with status {status}"
        words = self.errors.read_text(encoding="utf-8", errors="replace").strip()
        return f"process {self.rank + 1} of {self.size} {said}" + (f":\n{words}" if words else " without a word")


@contextlib.contextmanager
def started(
    size: int,
    *,
    device: str,
    work: Callable[..., Any],
    arguments: Mapping[str, Any],
    nodes: Sequence[str] = (),
    shared_folder: Path | None = None,
) -> Iterator[Group]:
    """Start the other processes of a group, of which this one is the first.

    Parameters
    ----------
    size : int
        Number of processes; 1 starts none.
    device : str
        See `devices.choose_device`.
    work : callable
        What the others do; a function of a module, called with `arguments` and its ``group``.
    arguments : mapping
        What can be pickled.
    nodes : sequence of str
        From `nodes_of_job`; on those but the first, processes are started by Slurm's ``srun``.
    shared_folder : Path, optional
        Which all nodes see, for a folder in which the processes meet; one of this machine by default.

    Yields
    ------
    group : Group
        Of this process. When the context is left, the others are gone.

    Raises
    ------
    ModelError
        With another process's own words, where one failed or was killed.
    """
    if size == 1:
        yield ALONE
        return
    nodes = nodes[:size]
    groups = [Group(rank, size, max(1, len(nodes))) for rank in range(size)]
    with tempfile.TemporaryDirectory(prefix=".voxloom-", dir=shared_folder if len(nodes) > 1 else None) as name:
        folder = Path(name).resolve()
        (folder / "work").write_bytes(pickle.dumps((work, device, dict(arguments))))
        helpers = [_Helper(folder, group, _launcher(nodes, group)) for group in groups[1:]]
        left = threading.Event()
        watcher = threading.Thread(target=_watch, args=(helpers, left), daemon=True, name="watch-processes")
        try:
            _await_all(helpers, folder)
            watcher.start()
            _join(folder, groups[0], device)
            yield groups[0]
        except VoxloomError:
            raise
        except Exception as error:
            _blame(helpers, error)
            raise
        finally:
            left.set()
            for helper in helpers:
                helper.stop()
            if dist.is_initialized():
                dist.destroy_process_group()


def help_along() -> None:
    """Be one of the other processes: ``folder rank size nodes`` are the program's arguments."""
    folder, group = Path(sys.argv[1]), Group(*map(int, sys.argv[2:]))
    parent = os.getppid()
    threading.Thread(target=_stop_without, args=(parent,), daemon=True, name="stop-with-parent").start()
    process.stop_with_workflow()  # also where the parent was gone before it was asked for
    try:
        work, device, arguments = pickle.loads((folder / "work").read_bytes())
        (folder / f"{group.rank}.ready").touch()
        _join(folder, group, device)
        work(**arguments, group=group)
    except VoxloomError as error:
        sys.exit("; ".join([str(error), *getattr(error, "__notes__", [])]))
    except Exception:
        traceback.print_exc()
        sys.exit(1)
    # a process that ends takes the sockets away that the first may still be reading from
    _stop_without(parent)


def nodes_of_job(environment: Mapping[str, str] = os.environ) -> list[str]:
    """The machines that the scheduler gave this job, this one first.

    Parameters
    ----------
    environment : mapping of str to str

    Returns
    -------
    nodes : list of str
        Empty outside Slurm, and where the job has but one.

    Raises
    ------
    ModelError
        If Slurm can't say their names.

    Notes
    -----
    Slurm is asked, since the variables of a job's step tell of the step alone, which is on one node.
    """
    if "SLURM_JOB_ID" not in environment:
        return []
    (nodes,) = _said_by_slurm("squeue", "--noheader", "--jobs", environment["SLURM_JOB_ID"], "--format=%N")
    names = _said_by_slurm("scontrol", "show", "hostnames", nodes)
    own = environment.get("SLURMD_NODENAME", names[0])
    return sorted(names, key=lambda name: name != own) if len(names) > 1 else []


def _said_by_slurm(*words: str) -> list[str]:
    try:
        said = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    except (OSError, subprocess.SubprocessError) as error:
        raise ModelError(
            f"resources.processes is more than 1, and `{' '.join(words)}` doesn't say on which nodes of the job they "
            f"are to be ({error}); make Slurm's commands available to jobs, or set it to 1"
        ) from error
    if not said:
        raise ModelError(f"`{' '.join(words)}` names no node of this job; set resources.processes to 1")
    return said


def _launcher(nodes: Sequence[str], group: Group) -> list[str]:
    """What starts a process on another machine of the job, and ends when it does, with its status and words."""
    if group.node == 0:
        return []
    step = ["--overlap", "--nodes=1", "--ntasks=1", "--kill-on-bad-exit=1", "--mem=0"]
    return ["srun", *step, f"--nodelist={nodes[group.node]}"]


def _join(folder: Path, group: Group, device: str) -> None:
    """Meet the others, through a file; of one machine they don't leave it."""
    if sys.platform == "linux" and group.nodes == 1:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    where = group.device(device)
    if where.startswith("cuda"):
        torch.cuda.set_device(where)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if where.startswith("cuda") else "gloo",
        init_method=f"file://{folder / 'meeting'}",
        rank=group.rank,
        world_size=group.size,
        timeout=PATIENCE,
    )


def _await_all(helpers: Sequence[_Helper], folder: Path) -> None:
    """Wait until all have begun, or raise what the first to fail says."""
    waiting = {helper.rank for helper in helpers}
    while waiting:
        waiting = {rank for rank in waiting if not (folder / f"{rank}.ready").exists()}
        for helper in helpers:
            if helper.has_failed():
                raise ModelError(helper.story())
        time.sleep(LOOK_S)


def _blame(helpers: Sequence[_Helper], error: Exception) -> None:
    """Raise the story of the process that failed first, if one did: this one only noticed that it was gone."""
    deadline = time.monotonic() + 2.0
    while time.monotonic() < deadline and not any(helper.has_failed() for helper in helpers):
        time.sleep(LOOK_S)
    failed = [helper for helper in helpers if helper.has_failed()]
    if failed:
        raise ModelError(min(failed, key=lambda helper: helper.ended_at).story()) from error


def _watch(helpers: Sequence[_Helper], left: threading.Event) -> None:
    """End this process where another is gone and this one waits for it forever, as on a GPU."""
    while not left.wait(LOOK_S):
        failed = [helper for helper in helpers if helper.has_failed()]
        if failed:
            story = min(failed, key=lambda helper: helper.ended_at).story()
            if not left.wait(GRACE_S):
                LOGGER.error("%s", story)
                os._exit(1)
            return


def _stop_without(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_S)
    os._exit(70)
