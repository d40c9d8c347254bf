"""A disk of the memory that fills up; mounting one takes root, elsewhere the test that asks for it is skipped."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small_disk(folder: Path, *, size: str) -> Iterator[Path]:
    """Mount one of that size ("2m") in a new folder, for as long as the block."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk takes root and the right to mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remount(disk: Path, *options: str) -> None:
    """Change a disk that is mounted: "ro", "rw", "size=40m"."""
    subprocess.run(["mount", "-o", ",".join(["remount", *options]), str(disk)], check=True)
