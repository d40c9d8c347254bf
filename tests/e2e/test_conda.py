"""Under --use-conda every job runs in its own environment, on its packages and nobody else's, with the same results.

Where there is no conda, a channel is made of the running interpreter's own packages and py-rattler answers in conda's
place (see conda_channel and conda_shim). docs/environments.md says what this doesn't prove.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from checkout import Checkout, digests

pytestmark = pytest.mark.skipif(
    "VOXLOOM_TEST_CONDA" not in os.environ, reason="makes conda environments, takes minutes: `make test-conda`"
)

RECORD = """
def _record():
    import json, os, sys
    from pathlib import Path
    files = [getattr(module, "__file__", None) for name, module in sys.modules.items() if name != "__main__"]
    record = {
        "rule": sys.modules["__main__"].snakemake.rule,
        "prefix": sys.prefix,
        "path": sys.path,
        "files": [file for file in files if file and os.path.isabs(file)],
        "user_site": not sys.flags.no_user_site,
    }
    Path(os.environ["RECORDS"], f"{os.getpid()}.json").write_text(json.dumps(record))


import sys as _sys

if hasattr(_sys.modules["__main__"], "snakemake"):
    import atexit as _atexit

    _atexit.register(_record)
"""
"""Added to the library in a checkout: every job leaves a record of what it imported, and from where."""


@pytest.fixture(scope="module")
def launching(tmp_path_factory):
    """An environment to launch Snakemake in: with conda, and with packages of the user's that no job may find."""
    folder = tmp_path_factory.mktemp("launching")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    of_the_user = [folder / "pythonpath", folder / "user" / "lib" / version / "site-packages"]
    for each in of_the_user:
        each.mkdir(parents=True)
        (each / "skimage.py").write_text("raise ImportError('scikit-image of the user, not of the environment')")
    variables = {
        "PYTHONPATH": str(of_the_user[0]),
        "PYTHONUSERBASE": str(folder / "user"),
        "PYTHONNOUSERSITE": "",
        "PATH": os.environ["PATH"],
    }
    if not shutil.which("conda"):
        from conda_channel import local_channel
        from conda_shim import install_shim

        commands = install_shim(folder / "conda", channel=local_channel())
        variables["PATH"] = f"{commands}:{variables['PATH']}"
    return variables


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A run without conda, in the environment of these tests."""
    checkout = recording(Checkout.small(tmp_path_factory.mktemp("plain") / "checkout"))
    checkout.run(more={"RECORDS": str(checkout.folder / "records")})
    return checkout


@pytest.fixture(scope="module")
def with_conda(tmp_path_factory, launching):
    """The same run under --use-conda."""
    checkout = recording(Checkout.small(tmp_path_factory.mktemp("conda") / "checkout"))
    checkout.run("--use-conda", more={**launching, "RECORDS": str(checkout.folder / "records")})
    return checkout


def recording(checkout: Checkout) -> Checkout:
    (checkout.folder / "records").mkdir()
    with (checkout.folder / "src" / "voxloom" / "__init__.py").open("a") as file:
        file.write(RECORD)
    return checkout


def records(checkout: Checkout) -> list[dict]:
    return [json.loads(path.read_text()) for path in (checkout.folder / "records").iterdir()]


def test_the_results_are_those_of_a_run_without_conda(plain, with_conda):
    of_conda = digests(with_conda.results())
    assert of_conda.keys() == digests(plain.results()).keys()
    if not shutil.which("conda"):  # conda-forge's builds may add in another order; the channel here has PyPI's
        assert of_conda == digests(plain.results())


def test_every_job_runs_on_the_interpreter_and_the_packages_of_its_own_environment(plain, with_conda):
    found = records(with_conda)
    assert sorted(each["rule"] for each in found) == sorted(each["rule"] for each in records(plain))
    for job in found:
        prefix = Path(job["prefix"])
        assert prefix.parent == with_conda.folder / ".snakemake" / "conda"
        own = (f"{prefix}/", f"{with_conda.folder}/src", f"{with_conda.folder}/.snakemake/scripts")
        assert [entry for entry in job["path"] if not f"{entry}/".startswith(own)] == [], job["rule"]
        foreign = [file for file in job["files"] if not file.startswith(own)]
        assert [file for file in foreign if "/snakemake" not in file] == [], job["rule"]
        assert not job["user_site"]


def test_a_run_without_conda_takes_nothing_that_was_made_with_it(with_conda, launching):
    assert with_conda.planned("--use-conda", more=launching) == {}
    assert with_conda.planned().keys() >= {"convert", "annotate", "train", "report"}


def test_a_package_that_the_environment_lacks_is_missing_though_the_launching_one_has_it(tmp_path, launching):
    checkout = Checkout.small(tmp_path / "checkout")
    environment = yaml.safe_load((checkout.folder / "envs" / "voxloom.yaml").read_text())
    environment["dependencies"] = [line for line in environment["dependencies"] if str(line).startswith("python ")]
    (checkout.folder / "envs" / "voxloom.yaml").write_text(yaml.safe_dump(environment))
    said = checkout.run("--use-conda", "results/raw/phantom-a.nrrd", fails=True, more=launching)
    assert "No module named 'numpy'" in said
