"""What made a result: the code's version as a hash, the commit, the packages.

Imported while the Snakefile is parsed, so it needs nothing but the standard library.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parent
REPORTED_PACKAGES = ("numpy", "scipy", "scikit-image", "numba", "torch", "tensorstore", "pandas", "matplotlib")


def code_version(script: str | Path) -> str:
    """A hash of a script and of every library module that it reaches.

    Comments, formatting, docstrings and file times don't count: only a change of what runs changes it.

    Parameters
    ----------
    script : str or Path
        The script's file.

    Returns
    -------
    version : str
        16 hexadecimal digits.
    """
    digest = hashlib.sha256(_normal_form(Path(script)))
    for module in reached_modules(script):
        digest.update(module.encode() + b"\0" + _normal_form(_file_of(module)))
    return digest.hexdigest()[:16]


def content_version(path: str | Path) -> str:
    """A hash of a file's bytes.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    version : str
        16 hexadecimal digits.
    """
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


def reached_modules(script: str | Path) -> list[str]:
    """Library modules that a script imports, directly or not.

    Parameters
    ----------
    script : str or Path

    Returns
    -------
    modules : list of str
        Dotted names, sorted.
    """
    waiting = list(_imports(Path(script)))
    seen: set[str] = set()
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            waiting += _imports(_file_of(module))
    return sorted(seen)


@cache
def _normal_form(path: Path) -> bytes:
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and body:
            first = body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = body[1:]
    return ast.dump(tree).encode()


@cache
def _imports(path: Path) -> tuple[str, ...]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        names: Iterator[str] = iter(())
        if isinstance(node, ast.Import):
            names = (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            # a name that is imported from a package may be a module of it
            names = iter([node.module, *(f"{node.module}.{alias.name}" for alias in node.names)])
        for name in names:
            while name.startswith(PACKAGE.name + "."):
                if _file_of(name).is_file():
                    found.add(name)
                name = name.rpartition(".")[0]
    return tuple(sorted(found))


def _file_of(module: str) -> Path:
    path = PACKAGE.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def git_commit() -> str:
    """The commit that the library is checked out at, with "-modified" where files differ; "unknown" outside git."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(PACKAGE), *words], capture_output=True, text=True, check=True, timeout=20
        ).stdout.strip()

    try:
        commit = git("rev-parse", "--short=12", "HEAD")
        return commit + ("-modified" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def versions() -> dict[str, str]:
    """Versions of Python, voxloom and the packages that decide numbers.

    Returns
    -------
    versions : dict of str to str
    """
    from voxloom import __version__

    found = {"voxloom": __version__, "python": platform.python_version()}
    for package in REPORTED_PACKAGES:
        found[package] = importlib.metadata.version(package)
    return found


def record(*, seeds: dict[str, int]) -> dict[str, Any]:
    """What made a run's results, for its report.

    Parameters
    ----------
    seeds : dict of str to int
        By task.

    Returns
    -------
    groups : dict
        "code", "versions", "hardware" and "seeds", each a mapping of name to value.
    """
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "code": {"git commit": git_commit()},
        "versions": versions(),
        "hardware": {
            "machine": platform.machine(),
            "system": platform.system(),
            "cores": os.cpu_count(),
            "memory": f"{memory_gib:.0f} GiB",
        },
        "seeds": seeds,
    }
