"""What jobs run in is pinned, pinned to the lock, and holds what their scripts import."""

import re
import sys

import pytest
import yaml
from packages import (
    ENVIRONMENTS,
    PACKAGE_OF,
    ROOT,
    environment_pins,
    extras,
    imported,
    lock,
    module_file,
    project_requirements,
    required,
)

from voxloom.provenance import reached_modules

RULES = {
    name: text
    for path in sorted((ROOT / "workflow" / "rules").glob("*.smk"))
    for name, text in re.findall(r"^rule (\w+):\n(.*?)(?=^\w|\Z)", path.read_text(), re.M | re.S)
}


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.name)
def test_an_environment_pins_what_the_lock_pins(path):
    of_conda, of_pip = environment_pins(path)
    minor = of_conda.pop("python")
    assert f'requires-python = ">={minor}"' in (ROOT / "pyproject.toml").read_text()
    pins = {**of_conda, **of_pip}
    assert len(pins) == len(of_conda) + len(of_pip), "named twice"
    assert pins == {name: lock()[name] for name in pins}


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.name)
def test_an_environment_is_made_of_one_channel_and_without_the_users_own_packages(path):
    environment = yaml.safe_load(path.read_text())
    assert environment["channels"] == ["conda-forge", "nodefaults"]
    assert environment["variables"] == {"PYTHONNOUSERSITE": "1"}
    assert environment.keys() == {"channels", "variables", "dependencies"}


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.name)
def test_what_pip_adds_brings_nothing_that_nobody_pinned(path):
    of_conda, of_pip = environment_pins(path)
    assert required(set(of_pip)) <= of_conda.keys() | of_pip.keys()


@pytest.mark.parametrize("rule", [name for name, text in RULES.items() if "script:" in text])
def test_a_rule_names_an_environment_that_holds_what_its_script_imports(rule):
    named = re.search(r'^    conda:\n        "\.\./\.\./(envs/\w+\.yaml)"$', RULES[rule], re.M)
    assert named, f"rule {rule} has no environment"
    of_conda, of_pip = environment_pins(ROOT / named[1])
    script = ROOT / "scripts" / f"{rule}.py"
    names = {top for file in [script, *map(module_file, reached_modules(script))] for top in imported(file)}
    packages = {PACKAGE_OF.get(name, name) for name in names - sys.stdlib_module_names - {"voxloom", "snakemake"}}
    assert packages <= of_conda.keys() | of_pip.keys()


def test_the_lock_pins_all_that_the_project_requires():
    assert required(project_requirements()) <= lock().keys()
    unlocked = {"storage"}  # S3's plugin needs an older python-dateutil, HTTP's an older requests-oauthlib
    assert project_requirements(*set(extras()) - unlocked) <= lock().keys()
