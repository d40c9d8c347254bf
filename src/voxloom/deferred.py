"""Packages that take long to import, loaded when a job first uses them.

pandas and matplotlib take longer to import than Python and all else that a small job needs. A job whose work comes
before its table or figure begins that work without them, and one that is refused says so at once.
"""

from __future__ import annotations

import importlib
from typing import Any


class Deferred:
    """Stands for a module, or for a name in one, until it is used: by one of its attributes or by being called.

    Parameters
    ----------
    module : str
    name : str, optional
        In the module; without it, the module itself is meant.
    """

    def __init__(self, module: str, name: str | None = None) -> None:
        self._module = module
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._loaded(), attribute)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Call what it stands for."""
        return self._loaded()(*arguments, **keywords)

    def _loaded(self) -> Any:
        module = importlib.import_module(self._module)
        return module if self._name is None else getattr(module, self._name)
