"""Compiled loops over voxels: machine code that runs beside other threads and is kept between runs."""

from __future__ import annotations

import functools
import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

PACKAGE = Path(__file__).resolve().parent
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
                _explain_prefetch()
                try:
                    self._code = numba.njit(cache=_keeps_code(PACKAGE), nogil=True)(self._function)
                except RuntimeError:
                    self._code = numba.njit(nogil=True)(self._function)
        return self._code


@functools.cache
def _keeps_code(package: Path) -> bool:
    """Whether machine code can be kept beside the sources; what was kept of other sources is removed.

    numba keeps a kernel for as long as its own file stays as it is, and doesn't see that a kernel of another file
    which it calls has changed: the old code would be called with what the new one passes.
    """
    version = hashlib.sha256()
    for source in sorted(package.rglob("*.py")):
        text = source.read_bytes()
        if b"@compiled" in text:
            version.update(source.name.encode() + b"\0" + text)
    kept = package / "__pycache__" / "kernels.version"
    part = kept.with_suffix(f".{os.getpid()}")
    try:
        if kept.is_file() and kept.read_text() == version.hexdigest():
            return os.access(kept.parent, os.W_OK)
        for code in package.glob("**/__pycache__/*.nb[ci]"):
            code.unlink(missing_ok=True)
        kept.parent.mkdir(exist_ok=True)
        part.write_text(version.hexdigest())
        part.replace(kept)
    except OSError:
        return False
    return True


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
    code is kept beside the sources until one of them changes. Where the package's folder can't be written, every
    process compiles anew, which takes seconds and changes no result. ``fastmath``
    stays off: a sum must not depend on where in a block a voxel lies.
    """
    return Kernel(function)


def prefetch(values: NDArray[Any], at: int) -> None:
    """Ask for an element before it is needed, so that a loop that jumps about in memory doesn't wait for it.

    Parameters
    ----------
    values : ndarray
        Flat. Not modified.
    at : int
        Of the element; one beyond the ends does no harm.

    Notes
    -----
    In kernels only; it does nothing in Python, and changes no result anywhere.
    """


@functools.cache
def _explain_prefetch() -> None:
    """What `prefetch` is in machine code: LLVM's instruction of that name."""
    from numba import types
    from numba.core.cgutils import ir  # llvmlite's, of the version that numba was built for
    from numba.extending import intrinsic, overload

    number = ir.IntType(32)
    to_read, to_keep, data = number(0), number(3), number(1)

    @intrinsic  # type: ignore[untyped-decorator]
    def fetch(_: Any, values: Any, at: Any) -> Any:
        def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> None:
            array = context.make_array(signature.args[0])(context, builder, arguments[0])
            byte = ir.IntType(8).as_pointer()
            instruction = builder.module.declare_intrinsic(
                "llvm.prefetch", (byte,), ir.FunctionType(ir.VoidType(), [byte, number, number, number])
            )
            place = builder.bitcast(builder.gep(array.data, [arguments[1]]), byte)
            builder.call(instruction, [place, to_read, to_keep, data])

        return types.void(values, types.int64), lower

    @overload(prefetch)  # type: ignore[untyped-decorator]
    def _(values, at):  # type: ignore[no-untyped-def]
        return lambda values, at: fetch(values, at)  # type: ignore[call-arg]
