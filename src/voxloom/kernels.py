"""Compiled loops over voxels: machine code that runs beside other threads and is kept between runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a loop over voxels at its first call.

    Parameters
    ----------
    function : callable
        Takes and changes NumPy arrays and numbers.

    Returns
    -------
    compiled : callable

    Notes
    -----
    A kernel works on one thread and releases Python's lock; blocks of a volume are what runs in parallel. Its machine
    code is kept in a cache folder. Where neither the package's folder nor the user's can be written, numba refuses to
    make a caching function; then every process compiles anew, which takes seconds and changes no result. ``fastmath``
    stays off: a sum must not depend on where in a block a voxel lies.
    """
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:
        return numba.njit(nogil=True)(function)
