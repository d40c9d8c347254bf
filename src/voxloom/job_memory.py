"""How a job's memory is shared between its blocks and everything else.

Imported while the Snakefile is parsed, so it needs nothing but the standard library.
"""

from __future__ import annotations

import math

EVERYTHING_ELSE = 4
"""One part in so many of a job's memory is the interpreter's and its libraries'."""


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
