"""Both recipes make the same image, of the lock and of nothing else."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys

import pytest
from checkout import PARTS
from packages import ROOT, lock

FOLDER = ROOT / "containers"
DOCKERFILE = (FOLDER / "Dockerfile").read_text()
DEFINITION = (FOLDER / "voxloom.def").read_text()
INSTALLED = {*PARTS, "constraints.txt", "pyproject.toml", "containers"}
"""What an image holds of the repository."""


def sections(definition: str) -> dict[str, list[str]]:
    """The lines of every section of an Apptainer definition, without comments; the head is the section ""."""
    found: dict[str, list[str]] = {"": []}
    for line in definition.splitlines():
        if line.startswith("%"):
            found[name := line[1:]] = []
        elif line.strip() and not line.strip().startswith("#"):
            found[name if len(found) > 1 else ""].append(line.strip())
    return found


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile, in order."""
    lines = [line for line in dockerfile.splitlines() if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def test_both_recipes_start_from_the_same_image_and_copy_the_same_files():
    parts = sections(DEFINITION)
    steps = instructions(DOCKERFILE)
    assert {word for word, _ in steps} <= {"FROM", "ARG", "WORKDIR", "COPY", "RUN", "ENV", "ENTRYPOINT", "CMD"}
    assert parts[""] == ["Bootstrap: docker", *(f"From: {rest}" for word, rest in steps if word == "FROM")]
    copied = [name for word, rest in steps if word == "COPY" for name in rest.split()[:-1]]
    assert set(copied) == INSTALLED
    assert [line.split() for line in parts["files"]] == [[name, f"/opt/voxloom/{name}"] for name in copied]
    ignored = (ROOT / ".dockerignore").read_text()
    assert set(re.findall(r"^!(.+)$", ignored, re.M)) == INSTALLED


def test_nothing_is_installed_but_by_the_script_that_checks_the_lock():
    commands = [rest for word, rest in instructions(DOCKERFILE) if word == "RUN"]
    assert len(commands) == 2
    assert commands[0] == 'UV_TORCH_BACKEND="$TORCH_BACKEND" sh containers/install.sh'
    post = sections(DEFINITION)["post"]
    assert post == [
        'UV_TORCH_BACKEND="{{ TORCH_BACKEND }}" sh /opt/voxloom/containers/install.sh',
        "cd /opt/voxloom",
        commands[1],
    ]
    assert ("ARG", sections(DEFINITION)["arguments"][0]) in instructions(DOCKERFILE)


def test_the_script_installs_by_the_lock_and_stops_at_the_first_failure():
    script = (FOLDER / "install.sh").read_text()
    subprocess.run(["sh", "-n", FOLDER / "install.sh"], check=True)
    assert "\nset -eu\n" in script
    installs = [line for line in script.replace("\\\n", "").splitlines() if " install " in line]
    assert len(installs) == 2
    assert all("--constraint constraints.txt" in line for line in installs)


def test_a_package_too_many_and_a_version_too_new_are_found():
    spec = importlib.util.spec_from_file_location("check_lock", FOLDER / "check_lock.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    good = {"numpy": lock()["numpy"], "pip": "1", "nvidia-nccl": "2"}
    assert module.differences(lock(), good) == []
    found = module.differences(lock(), {**good, "numpy": "9.9.9", "unheard-of": "1.0"})
    assert found == [
        f"numpy: 9.9.9 is installed, constraints.txt names {lock()['numpy']}",
        "unheard-of: 1.0 is installed, constraints.txt names none",
    ]


OPT_IN = pytest.mark.skipif(
    "VOXLOOM_TEST_CONTAINERS" not in os.environ,
    reason="installs everything anew, takes minutes: `make test-containers`",
)


@OPT_IN
def test_the_script_gives_a_new_python_the_locked_packages_and_the_demo_can_be_planned(tmp_path):
    for name in INSTALLED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, tmp_path / name)
    subprocess.run([sys._base_executable, "-m", "venv", tmp_path / "python"], check=True)
    environment = {**os.environ, "PATH": f"{tmp_path / 'python' / 'bin'}:{os.environ['PATH']}"}
    for command in ("sh containers/install.sh", "snakemake --dry-run", "voxloom --help"):
        subprocess.run(command.split(), cwd=tmp_path, env=environment, check=True)


@OPT_IN
@pytest.mark.parametrize("builder", ["docker", "podman", "buildah"])
def test_the_image_builds_and_plans_the_demo(builder):
    if not shutil.which(builder) or subprocess.run([builder, "info"], capture_output=True, check=False).returncode:
        pytest.skip(f"no {builder} that works on this machine")
    build = [builder, "build", "--file", "containers/Dockerfile", "--tag", "voxloom-test", "."]
    subprocess.run(build, cwd=ROOT, check=True)  # its last step plans the demo
