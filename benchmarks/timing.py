"""What the benchmarks of training share: interleaved rounds, the machine's ceilings, peak memory, a record's form."""

import ctypes
import gc
import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

GEMM_EDGE = 3072


def hardware(device: str = "cpu") -> str:
    """The machine's name, as the records give it."""
    if device.startswith("cuda"):
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
    torch.set_num_threads(threads)


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


def matrix_flops(dtype: torch.dtype, device: torch.device, *, edge: int = GEMM_EDGE, rounds: int = 5) -> float:
    """Floating point operations a second of a matrix product of random numbers: what convolutions can reach at most."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(edge, edge, generator=generator).to(device, dtype) for _ in range(2))

    def product() -> None:
        torch.mm(a, b)
        synchronise(device)

    return 2 * edge**3 / float(np.median(interleaved({"product": product}, rounds=rounds)["product"]))


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
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
    """Print one record, a line of JSON that run.py collects. `holds` is None where nothing could be measured."""
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
