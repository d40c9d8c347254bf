"""Compiled loops over voxels: machine code that runs beside other threads and is kept between runs."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

_LOCK = threading.Lock()


class Kernel:
    """A loop over voxels that is compiled when it is first called, by Python or by another kernel.

    Importing numba takes as long as starting Python and all else that a small job needs, so it waits until then.

    Parameters
    ----------
    function : callable
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._code: Any = None

    def __call__(self, *arguments: Any) -> Any:
        """Run the machine code."""
        return (self._code or self._compiled())(*arguments)

    @property
    def _numba_type_(self) -> Any:
        """What numba asks of a global that a kernel uses."""
        return self._compiled()._numba_type_

    def _compiled(self) -> Any:
        import numba

        with _LOCK:
            if self._code is None:
                try:
                    self._code = numba.njit(cache=True, nogil=True)(self._function)
                except RuntimeError:
                    self._code = numba.njit(nogil=True)(self._function)
        return self._code


def compiled(function: Callable[..., Any]) -> Kernel:
    """Compile a loop over voxels at its first call.

    Parameters
    ----------
    function : callable
        Takes and changes NumPy arrays and numbers.

    Returns
    -------
    compiled : Kernel

    Notes
    -----
    A kernel works on one thread and releases Python's lock; blocks of a volume are what runs in parallel. Its machine
    code is kept in a cache folder. Where neither the package's folder nor the user's can be written, numba refuses to
    make a caching function; then every process compiles anew, which takes seconds and changes no result. ``fastmath``
    stays off: a sum must not depend on where in a block a voxel lies.
    """
    return Kernel(function)
