"""What the benchmarks share: interleaved rounds, the machine's ceilings, peak memory, a record's form.

PyTorch is imported where it is needed only: it takes a second and a few hundred MiB.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

GEMM_EDGE = 3072
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)


def hardware(device: str = "cpu") -> str:
    """The machine's name, as the records give it."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    model = platform.machine()
    cpu = Path("/proc/cpuinfo")
    if cpu.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in cpu.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores of {model}, {memory_gib:.0f} GiB"


def pin(threads: int) -> None:
    """Keep this process on as many cores as it has threads: without it, times on a shared machine are bimodal."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[-threads:])
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def environment(threads: int) -> dict[str, str]:
    """This process's environment, with libraries told how many threads to start; they read it when they are loaded."""
    return {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))}


def said_by(words: Sequence[str], *, threads: int = 1, core: int | None = None) -> list[dict[str, Any]]:
    """Run Python in a process of its own, on as many cores as it has threads; the lines of JSON that it printed.

    `core` is the place of the first among those that this process may use; by default the last ones are taken.
    """
    cores = sorted(os.sched_getaffinity(0))
    first = max(len(cores) - threads, 0) if core is None else core
    chosen = cores[first : first + threads]
    done = subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        env=environment(threads),
        preexec_fn=lambda: os.sched_setaffinity(0, chosen),
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} ended with status {done.returncode}:\n{done.stdout}{done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def interleaved(cases: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, list[float]]:
    """Seconds of every case in every round: A B C, then C B A, and so on, after one unmeasured call of each."""
    for call in cases.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds):
        for name in list(cases) if number % 2 == 0 else reversed(list(cases)):
            gc.collect()
            begin = time.perf_counter()
            cases[name]()
            seconds[name].append(time.perf_counter() - begin)
    return seconds


def ratio(slow: list[float], fast: list[float]) -> float:
    """Median over the rounds of how many times longer the first takes."""
    return float(np.median(np.array(slow) / np.array(fast)))


def sized(description: str | None, *, size: int, rounds: int) -> argparse.Namespace:
    """The options --size and --rounds of a script that measures one thing on one core, to which it is pinned."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=size, help="edge of the cube, in voxels")
    parser.add_argument("--rounds", type=int, default=rounds)
    options = parser.parse_args()
    pin(1)
    return options


def matrix_flops(dtype: torch.dtype, device: torch.device, *, edge: int = GEMM_EDGE, rounds: int = 5) -> float:
    """Floating point operations a second of a matrix product of random numbers: what convolutions can reach at most."""
    import torch

    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(edge, edge, generator=generator).to(device, dtype) for _ in range(2))

    def product() -> None:
        torch.mm(a, b)
        synchronise(device)

    return 2 * edge**3 / float(np.median(interleaved({"product": product}, rounds=rounds)["product"]))


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)


def resident_mib(key: str = "VmRSS") -> float:
    """Memory of this process; "VmHWM" is its peak since `forget_peak`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    raise SystemExit("this system has no /proc/self/status: peak memory can't be read; run it on Linux")


def forget_peak() -> float:
    """Give freed memory back, begin the peak anew, and return what is resident."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return resident_mib()


def peak_mib(call: Callable[[], object]) -> float:
    """How far memory rises, at its highest, above what was resident before a call, its result included."""
    before = forget_peak()
    kept = call()
    highest = resident_mib("VmHWM")
    del kept
    return highest - before


def have_at_hand(mib: float) -> None:
    """Take memory from the system and give it back.

    The host of a virtual machine takes back what is free there for some seconds; fetching it anew takes much longer
    than clearing it, and would be measured instead of what is done with it.
    """
    np.ones(int(mib * 2**20), np.uint8)


def record(
    name: str,
    *,
    target: str,
    ours: float | str | None,
    peer: float | str | None,
    ratio: float | None,
    limit: str,
    holds: bool | None,
    peak_mib: float | None = None,
    identical: bool | str | None = None,
    device: str = "cpu",
    **more: object,
) -> None:
    """Print one record, a line of JSON that run.py collects. `holds` is None where nothing could be measured.

    Of `more`, the page about the stages shows ``rate`` (in GB/s, or in FLOP/s) as a share of ``roof``, the name of a
    record of machine.py, and draws ``points`` in the figure that ``chart`` names.
    """
    said = {
        "name": name,
        "target": target,
        "ours": ours,
        "peer": peer,
        "ratio": ratio,
        "limit": limit,
        "peak_mib": peak_mib,
        "identical": identical,
        "holds": holds,
        "hardware": hardware(device),
        **more,
    }
    print(json.dumps(said), flush=True)


def skip(name: str, *, target: str, why: str) -> None:
    """Say that a benchmark could not run here: a record without numbers, so that the page shows the gap."""
    record(name, target=target, ours=None, peer=None, ratio=None, limit="", holds=None, skipped=why)
