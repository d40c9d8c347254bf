"""Packages: what environment files and the lock pin, what scripts import, what an installed package requires."""

import ast
import importlib.metadata
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENTS = sorted((ROOT / "envs").glob("*.yaml"))
LOCK = ROOT / "constraints.txt"
CONDA_NAMES = {"torch": "pytorch"}
"""Where conda's name isn't the one on PyPI."""
PACKAGE_OF = {
    "skimage": "scikit-image",
    "PIL": "pillow",
    "yaml": "pyyaml",
    "mpl_toolkits": "matplotlib",
}
"""Where a module isn't named after its package."""


def conda_name(name: str) -> str:
    return CONDA_NAMES.get(name, name)


def environment_pins(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Versions of what conda installs and of what pip adds, by names on PyPI; every line pins one, except pip."""
    of_conda: dict[str, str] = {}
    of_pip: dict[str, str] = {}
    pypi_names = {conda: name for name, conda in CONDA_NAMES.items()}
    lines = yaml.safe_load(path.read_text())["dependencies"]
    lines.remove("pip")
    for line in lines:
        for each in [line] if isinstance(line, str) else line["pip"]:
            form = r"([a-z0-9-]+) =([0-9][\w.]*)" if isinstance(line, str) else r"([a-z0-9-]+) ==([0-9][\w.]*)"
            found = re.fullmatch(form, each)
            assert found, f"{path.name}: {each!r} doesn't pin one version"
            (of_conda if isinstance(line, str) else of_pip)[pypi_names.get(found[1], found[1])] = found[2]
    return of_conda, of_pip


def lock() -> dict[str, str]:
    """Versions in constraints.txt."""
    return dict(line.split("==") for line in LOCK.read_text().split())


def _project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def extras() -> list[str]:
    """Names of the project's extras."""
    return list(_project()["optional-dependencies"])


def project_requirements(*names: str) -> set[str]:
    """Packages that the project asks for, with those of some extras."""
    optional = _project()["optional-dependencies"]
    lines = [*_project()["dependencies"], *(line for name in names for line in optional[name])]
    return {canonicalize_name(Requirement(line).name) for line in lines}


def required(names: set[str]) -> set[str]:
    """The installed packages of these names, and all that they require here."""
    waiting, seen = [*names], set()
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name not in seen:
            seen.add(name)
            lines = map(Requirement, importlib.metadata.distribution(name).requires or [])
            waiting += [line.name for line in lines if line.marker is None or line.marker.evaluate({"extra": ""})]
    return seen


@cache
def imported(path: Path) -> frozenset[str]:
    """Top-level names that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.split(".")[0])
    return frozenset(names)


def module_file(name: str) -> Path:
    path = ROOT / "src" / Path(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
