"""How a job's memory is shared between its blocks and everything else.

Imported while the Snakefile is parsed, so it needs nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator
from pathlib import Path

from voxloom.errors import VolumeError

EVERYTHING_ELSE = 4
"""One part in so many of a job's memory is the interpreter's and its libraries'."""


def of_attempt(memory_mib: int, *, memory_limit_mib: int, attempt: int) -> int:
    """What a job asks for: each time that it is tried again, because it was killed perhaps for its memory, more.

    Parameters
    ----------
    memory_mib : int
        Of the first attempt: ``resources.memory_mib``.
    memory_limit_mib : int
        The most of any other: ``resources.memory_limit_mib``; 0 where there is no limit.
    attempt : int
        From 1.

    Returns
    -------
    memory_mib : int

    Examples
    --------
    >>> [of_attempt(4000, memory_limit_mib=10000, attempt=attempt) for attempt in (1, 2, 3)]
    [4000, 8000, 10000]
    """
    most = max(memory_mib, memory_limit_mib or memory_mib * attempt)
    return min(memory_mib * attempt, most)


def block_mib(memory_mib: int) -> int:
    """What of a job's memory its blocks may take.

    Parameters
    ----------
    memory_mib : int
        Of the job: ``resources.memory_mib``.

    Returns
    -------
    block_mib : int
    """
    return memory_mib * (EVERYTHING_ELSE - 1) // EVERYTHING_ELSE


def memory_for(block_mib: float) -> int:
    """The smallest memory of a job whose blocks may take so much; the inverse of `block_mib`.

    Parameters
    ----------
    block_mib : float

    Returns
    -------
    memory_mib : int

    Examples
    --------
    >>> memory_for(300.5), block_mib(402)
    (402, 301)
    """
    return math.ceil(math.ceil(block_mib) * EVERYTHING_ELSE / (EVERYTHING_ELSE - 1))


STACKS_MIB = 128
"""Room for the stacks of threads, which count though hardly any of it is touched."""


@contextlib.contextmanager
def bounded(memory_mib: float, *, source: str | Path) -> Iterator[None]:
    """Have the system refuse this process more memory, whatever a file makes its reader ask for. Linux only.

    Parameters
    ----------
    memory_mib : float
        What may be taken from here on, in MiB.
    source : str or Path
        The file, for the message.

    Raises
    ------
    VolumeError
        If more is asked for. A library that can't pass that on ends the process instead.
    """
    if sys.platform != "linux":
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    bound = _data_bytes() + int((memory_mib + STACKS_MIB) * 2**20)
    given = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min([bound, *given]), hard))
    try:
        yield
    except MemoryError:
        raise VolumeError(
            f"{source} takes more than {memory_mib:.0f} MiB to read; if its size is what you expect, raise memory_mib, "
            "otherwise it is damaged or made to exhaust memory"
        ) from None
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data_bytes() -> int:
    """Memory that counts against the limit."""
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmData:")) << 10
