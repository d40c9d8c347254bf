"""What stands for a package is the package once it is used, and nothing before."""

import subprocess
import sys

import pytest

from voxloom.deferred import Deferred


def test_nothing_is_loaded_before_it_is_used():
    code = "import sys; from voxloom.deferred import Deferred; colour = Deferred('colorsys', 'rgb_to_hsv'); "
    code += "before = 'colorsys' in sys.modules; colour(0, 0, 1); print(before, 'colorsys' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_a_name_of_a_module_has_that_names_attributes():
    assert Deferred("fractions", "Fraction").from_float(0.5) == 0.5
    assert Deferred("fractions").Fraction(1, 2) == 0.5


def test_a_package_that_is_not_there_is_missed_when_it_is_used():
    missing = Deferred("voxloom_has_no_such_package")
    with pytest.raises(ModuleNotFoundError, match="voxloom_has_no_such_package"):
        missing.anything  # noqa: B018
