"""A Slurm cluster on this machine, thrown away afterwards: munge, a controller, and a daemon for each of its nodes.

It needs no root, no systemd and no file outside its folder. Memory is enforced by looking at processes every two
seconds, and there is no accounting database: `squeue` says how jobs ended.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

NODES = ("n1", "n2")
DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "sinfo")
PACKAGES = "apt-get install --no-install-recommends slurmctld slurmd slurm-client munge"
PATH = f"{os.environ['PATH']}{os.pathsep}/usr/sbin{os.pathsep}/sbin"  # where Debian keeps daemons
CONFIGURATION = """\
ClusterName={name}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=2
JobAcctGatherParams=OverMemoryKill
MpiDefault=none
ReturnToService=2
SwitchType=switch/none
SchedulerType=sched/builtin
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
AccountingStorageType=accounting_storage/none
MinJobAge=86400
SlurmctldTimeout=30
SlurmdTimeout=15
KillWait=3
InactiveLimit=0
GresTypes=gpu
PartitionName=cpu Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes=n2 MaxTime=INFINITE State=UP
"""


def missing() -> list[str]:
    """Programs of Slurm and munge that this machine lacks."""
    return [name for name in DAEMONS if shutil.which(name, path=PATH) is None]


class Cluster:
    """Two nodes of this machine, one of them with a GPU that is only a file."""

    def __init__(self, folder: Path, *, cpus: int = 2, memory_mib: int = 8000) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": f"{folder / 'bin'}{os.pathsep}{PATH}",
        }
        self._cpus, self._memory_mib = cpus, memory_mib

    def start(self) -> None:
        """Start every daemon and wait until both nodes take jobs."""
        self._write_configuration()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        files = [f"--{name}-file={self.folder / f'munge{suffix}'}" for name, suffix in _MUNGE_FILES]
        self._run("munged", "--force", f"--socket={self.folder / 'munge.socket'}", *files)
        self._run("slurmctld")
        for node in NODES:
            self.start_node(node)
        self._wait_for_nodes()

    def start_node(self, node: str) -> None:
        """Start a node's daemon."""
        (self.folder / f"slurmd-{node}.pid").unlink(missing_ok=True)
        self._run("slurmd", "-N", node)

    def kill_daemon(self, node: str) -> None:
        """kill -9 of a node's daemon; its jobs live on, as when the network between node and controller breaks."""
        _kill(int((self.folder / f"slurmd-{node}.pid").read_text()))

    def kill_node(self, node: str) -> None:
        """kill -9 of everything on a node, as when its power fails."""
        self.kill_daemon(node)
        self._kill_jobs(node)

    def revive(self, node: str) -> None:
        """Start a node's daemon again, end what the old one left, and wait until both nodes take jobs."""
        self._kill_jobs(node)
        self.start_node(node)
        self._wait_for_nodes()

    def stop(self) -> None:
        """End every job and daemon of this cluster, and wait until they are gone."""
        with contextlib.suppress(subprocess.CalledProcessError, subprocess.TimeoutExpired):
            self._run("scancel", "--user", str(os.getuid()))
        for pid in (self.folder / "munged.pid", self.folder / "slurmctld.pid"):
            if pid.exists():
                _kill(int(pid.read_text()), signal.SIGTERM)
        deadline = time.monotonic() + 20
        while left := self.processes():
            for pid in left:
                _kill(pid)
            assert time.monotonic() < deadline, f"processes {left} of the cluster don't end"
            time.sleep(0.1)

    def processes(self, variable: str | None = None) -> list[int]:
        """Processes of this cluster, daemons and jobs; with `variable`, those that have it in their environment."""
        marks = {f"SLURM_CONF={self.folder / 'slurm.conf'}", *([variable] if variable else [])}
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):  # ended meanwhile, or another user's
                if entry.name.isdigit() and marks <= set((entry / "environ").read_text(errors="replace").split("\0")):
                    found.append(int(entry.name))
        return found

    def nodes(self) -> dict[str, str]:
        """State of every node."""
        return dict(line.split() for line in self._run("sinfo", "-h", "-N", "-p", "cpu", "-o", "%N %T").splitlines())

    def jobs(self) -> list[dict[str, str]]:
        """Every job that was ever submitted, in the order of submission."""
        names = ("job", "state", "name", "rule", "memory", "minutes", "node", "folder")
        told = self._run("squeue", "-h", "-a", "-t", "all", "-S", "i", "-o", "%i|%T|%j|%k|%m|%l|%N|%Z")
        return [dict(zip(names, line.split("|"), strict=True)) for line in told.splitlines()]

    def shorten(self, job: str) -> None:
        """Make a job's time limit a minute, counted from when it began."""
        self._run("scontrol", "update", f"JobId={job}", "TimeLimit=1")

    def wait_until(self, condition, description: str, *, seconds: float = 120) -> None:
        """Wait until a condition holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited {seconds} s for {description}\n{self.story()}"
            time.sleep(0.2)

    def story(self) -> str:
        """What the daemons said last."""
        logs = sorted(self.folder.glob("*.log"))
        return "\n".join(f"{log.name}: {log.read_text(errors='replace')[-2000:]}" for log in logs)

    def _kill_jobs(self, node: str) -> None:
        """kill -9 of a node's jobs, after the daemons that would tell the controller how they ended."""
        jobs = self.processes(f"SLURMD_NODENAME={node}")
        steps = {parent for pid in jobs if _status(parent := _parent(pid)).startswith("Name:\tslurmstepd")}
        for pid in (*steps, *jobs):
            _kill(pid)

    def _wait_for_nodes(self) -> None:
        self.wait_until(lambda: set(self.nodes().values()) <= {"idle", "mixed", "allocated"}, "the nodes to take jobs")

    def _run(self, *words: str) -> str:
        done = subprocess.run(
            words, env=self.environment, capture_output=True, text=True, check=False, timeout=60, cwd=self.folder
        )
        assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}\n{self.story()}"
        return done.stdout

    def _write_configuration(self) -> None:
        port, *ports = _free_ports(1 + len(NODES))
        host, user = socket.gethostname().split(".")[0], subprocess.check_output(["id", "-un"], text=True).strip()
        lines = [CONFIGURATION.format(name=f"voxloom{port}", host=host, port=port, user=user, folder=self.folder)]
        for node, node_port in zip(NODES, ports, strict=True):
            gpu = " Gres=gpu:1" if node == "n2" else ""
            lines.append(
                f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={node_port} CPUs={self._cpus} "
                f"RealMemory={self._memory_mib}{gpu} State=UNKNOWN\n"
            )
        (self.folder / "slurm.conf").write_text("".join(lines))
        (self.folder / "gpu").touch()
        (self.folder / "gres.conf").write_text(f"NodeName=n2 Name=gpu File={self.folder / 'gpu'}\n")
        for name in ("state", "bin"):
            (self.folder / name).mkdir()
        # the plugin drops every variable of Slurm before srun, also the one that says where the configuration is
        wrapper = self.folder / "bin" / "srun"
        srun = shutil.which("srun", path=PATH)
        wrapper.write_text(f'#!/bin/sh\nSLURM_CONF={self.folder / "slurm.conf"} exec {srun} "$@"\n')
        wrapper.chmod(0o755)


_MUNGE_FILES = (("key", ".key"), ("pid", "d.pid"), ("log", "d.log"), ("seed", ".seed"))


def _free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _status(pid: int) -> str:
    """What the system says of a process; nothing of one that has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/status").read_text()
    return ""


def _parent(pid: int) -> int:
    return int(next((line.split()[1] for line in _status(pid).splitlines() if line.startswith("PPid:")), "0"))


def _kill(pid: int, how: signal.Signals = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, how)


@contextlib.contextmanager
def running(**settings: int) -> Iterator[Cluster]:
    """A cluster that runs as long as the block; what it leaves is removed.

    Its folder has a short name of its own, because a socket's path may have no more than 107 characters.
    """
    with tempfile.TemporaryDirectory(prefix="voxloom-slurm-") as folder:
        cluster = Cluster(Path(folder), **settings)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()
