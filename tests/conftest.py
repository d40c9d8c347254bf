"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest
from checkout import Checkout

ROOT = Path(__file__).resolve().parents[1]


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where several processes test, one of them runs the demo and all that needs it; other files stay whole."""
    for item in items:
        needs_demo = "demo" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("demo" if needs_demo else item.path.name))


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
    """The embedded demo, run from beginning to end in a copy of the repository. Don't edit it; copy it."""
    checkout = Checkout.new(tmp_path_factory.mktemp("demo") / "checkout")
    checkout.run()
    return checkout
