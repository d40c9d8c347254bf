"""Says whether this Python's packages are those that constraints.txt pins; exit status 1 and a list where they aren't.

    python containers/check_lock.py

With a CUDA build of PyTorch its own libraries come along, in the versions that it names itself.
"""

import importlib.metadata
import re
import sys
from pathlib import Path

LOCK = Path(__file__).resolve().parents[1] / "constraints.txt"
INSTALLERS = ("pip", "wheel")
OF_PYTORCH = ("nvidia-", "cuda-", "triton")


def differences(lock: dict[str, str], installed: dict[str, str]) -> list[str]:
    """A line for every installed package whose version the lock doesn't name."""
    return [
        f"{name}: {version} is installed, constraints.txt names {lock.get(name, 'none')}"
        for name, version in sorted(installed.items())
        if lock.get(name) != version and name not in INSTALLERS and not name.startswith(OF_PYTORCH)
    ]


def main() -> int:
    """Compare, print, and return the exit status."""
    lock = dict(line.split("==") for line in LOCK.read_text().split())
    installed = {
        re.sub(r"[-_.]+", "-", package.name).lower(): package.version.partition("+")[0]
        for package in importlib.metadata.distributions()
    }
    found = differences(lock, installed)
    print("\n".join(found) or f"{len(installed)} packages, all in the versions of constraints.txt")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
