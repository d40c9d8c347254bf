"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest
from checkout import Checkout
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[1]
LONGEST = (
    "test_demo",
    "test_interruption",
    "test_house",
    "test_submitted",
    "test_sharing",
    "test_training",
    "test_dag",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take minutes: of two workers neither then waits for the other's last one.

    `test_dag` edits copies of the demo, which the other worker has made by then.
    """
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data sets; the tests that read it are skipped, visibly, where it is absent."""
    folder = Path(os.environ.get("VOXLOOM_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set VOXLOOM_DATA to a folder that holds it")
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of reference values."""
    return ROOT / "tests" / "golden" / "data"


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """The embedded demo, run from beginning to end in a copy of the repository. Don't edit it; copy it.

    Where several processes test, the first that asks runs it and the others take what it made.
    """
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, done = base / "demo" / "checkout", base / "demo.done"
    with FileLock(base / "demo.lock"):
        if not done.exists():
            Checkout.demo(folder).run()
            done.touch()
    return Checkout(folder)
