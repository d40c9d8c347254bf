"""A conda channel in a folder, made of the running CPython and of the packages installed beside it.

For a machine that reaches no channel. Environments are then solved, linked and activated for real, of the very files
that the tests run on; what conda-forge builds isn't seen.
"""

import asyncio
import hashlib
import importlib.metadata
import shutil
import site
import sys
import sysconfig
from pathlib import Path

from packages import ENVIRONMENTS, LOCK, conda_name, environment_pins, required
from packaging.version import Version
from rattler.index import index_fs
from rattler.platform import Subdir
from rattler_build import FileEntry, assemble_package

MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"
LIBRARY = f"lib/python{MINOR}"
PLATFORM = str(Subdir.current())
LEFT_OUT = {"site-packages", "test", "tests", "__pycache__", "idlelib", "turtledemo", "lib2to3", "tkinter"}


def local_channel() -> str:
    """The address of a channel of what the environment files name for conda, and of all that it requires.

    It is kept beside the running Python's packages until the lock or an environment file changes.
    """
    key = hashlib.sha256(b"".join(path.read_bytes() for path in (LOCK, *ENVIRONMENTS))).hexdigest()[:16]
    folder = Path(sys.prefix) / f"conda-channel-{key}"
    if not folder.exists():
        unfinished = folder.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        _build(unfinished)
        unfinished.rename(folder)
    return folder.as_uri()


def _build(folder: Path) -> None:
    (folder / PLATFORM).mkdir(parents=True)
    (folder / "noarch").mkdir()
    _pack("python", sys.version.split()[0], files=_interpreter(), depends=[], folder=folder)
    names = {"pip", *(name for path in ENVIRONMENTS for name in environment_pins(path)[0])} - {"python"}
    for name in sorted(required(names)):
        package = importlib.metadata.distribution(name)
        depends = [f"python ={MINOR}", *sorted(conda_name(other) for other in required({name}) - {name})]
        version = Version(package.version).public
        _pack(conda_name(name), version, files=_installed(package), depends=depends, folder=folder)
    asyncio.run(index_fs(folder))


def _pack(name: str, version: str, *, files: dict[str, Path], depends: list[str], folder: Path) -> None:
    assemble_package(
        name,
        version,
        PLATFORM,
        "0",
        folder / PLATFORM,
        files=[FileEntry.from_paths(source, place) for place, source in files.items()],
        depends=depends,
        compression_level=1,
        detect_prefix=False,
    )


def _interpreter() -> dict[str, Path]:
    """The interpreter and the standard library, by their place in an environment, without anybody's packages."""
    assert any(LIBRARY in entry for entry in site.getsitepackages([sys.base_prefix])), (
        f"{sys.base_prefix}: this Python looks for packages elsewhere than in {LIBRARY}/site-packages, as a Linux "
        "distribution's does; make the environment with another"
    )
    base, library = Path(sys.base_prefix), Path(sysconfig.get_path("stdlib"))
    files = {
        f"{LIBRARY}/{path.relative_to(library)}": path
        for path in library.rglob("*")
        if path.is_file() and not LEFT_OUT & set(path.relative_to(library).parts)
    }
    files |= {f"lib/{path.name}": path.resolve() for path in (base / "lib").glob("libpython*.so*")}
    executable = (base / "bin" / f"python{MINOR}").resolve()
    return files | dict.fromkeys((f"bin/python{MINOR}", "bin/python3", "bin/python"), executable)


def _installed(package: importlib.metadata.Distribution) -> dict[str, Path]:
    """A package's files, without its commands: those name the interpreter that they were installed for."""
    inside = [file for file in package.files or [] if ".." not in file.parts and "__pycache__" not in file.parts]
    found = {f"{LIBRARY}/site-packages/{file}": Path(str(package.locate_file(file))) for file in inside}
    return {place: path for place, path in found.items() if path.is_file()}
