"""What made a result: the code's version as a hash, the commit, the packages.

Imported while the Snakefile is parsed, so it needs nothing but the standard library.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

PACKAGE = Path(__file__).resolve().parent
READ_BEFORE = PACKAGE / "__pycache__" / f"code_version.{sys.implementation.cache_tag}.json"
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
    digest = hashlib.sha256(_read(Path(script)).normal_form.encode())
    for module in reached_modules(script):
        digest.update(f"{module}\0{_read(_file_of(module)).normal_form}".encode())
    _keep_what_was_read()
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


_read_now: list[str] = []


class _Source(NamedTuple):
    """What of a Python file counts."""

    normal_form: str  # a hash of the file without comments, formatting and docstrings
    imports: list[str]  # every dotted name that it imports


@cache
def _read(path: Path) -> _Source:
    source = path.read_bytes()
    known, key = _known(), hashlib.sha256(source).hexdigest()
    if key not in known:
        tree = ast.parse(source)
        known[key] = hashlib.sha256(_normal_form(tree)).hexdigest(), sorted(_imported_names(tree))
        _read_now.append(key)
    return _Source(*known[key])


@cache
def _known() -> dict[str, Any]:
    """What was read of files before, by the hash of their bytes: reading the whole library takes seconds."""
    try:
        found: dict[str, Any] = json.loads(READ_BEFORE.read_bytes())
    except (OSError, ValueError):
        return {}
    return found


def _keep_what_was_read() -> None:
    """Like Python's own compiled files: not where the library's folder can't be written to."""
    if not _read_now:
        return
    text, part = json.dumps(_known()), READ_BEFORE.with_suffix(f".{os.getpid()}")
    with contextlib.suppress(OSError):
        READ_BEFORE.parent.mkdir(exist_ok=True)
        part.write_text(text)
        part.replace(READ_BEFORE)
    _read_now.clear()


def _normal_form(tree: ast.Module) -> bytes:
    for node in _statements(tree):
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


def _imported_names(tree: ast.Module) -> set[str]:
    found: set[str] = set()
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            # a name that is imported from a package may be a module of it
            found.update([node.module, *(f"{node.module}.{alias.name}" for alias in node.names)])
    return found


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    """The module and every statement in it: expressions, which are most of a tree, import and document nothing."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        for name in ("body", "orelse", "finalbody", "handlers", "cases"):
            waiting += getattr(node, name, ())


@cache
def _imports(path: Path) -> tuple[str, ...]:
    found: set[str] = set()
    for name in _read(path).imports:
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
