"""A cluster for the tests beside this file, skipped with the reason where it can't be."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest
from slurm import cluster as slurm

PLUGINS = Path(os.environ.get("VOXLOOM_EXECUTORS", Path(sys.prefix) / "executors"))
"""Snakemake's plugins for clusters, where `make` puts them; beside the environment, because they slow every start."""


@pytest.fixture(scope="session")
def cluster():
    """Two nodes that take jobs."""
    if lacking := slurm.missing():
        pytest.skip(f"Slurm isn't installed: no {', '.join(lacking)}; make test-slurm, or {slurm.PACKAGES}")
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None and not PLUGINS.is_dir():
        pytest.skip(f"snakemake-executor-plugin-slurm isn't in {PLUGINS}; make test-slurm installs it")
    with slurm.running() as cluster:
        cluster.environment["PYTHONPATH"] = str(PLUGINS)
        yield cluster


@pytest.fixture(scope="session")
def long():
    """What takes minutes runs under `make test-slurm` only; asked for before any run that a test begins with."""
    if not os.environ.get("VOXLOOM_TEST_SLURM"):
        pytest.skip("takes minutes: make test-slurm, or set VOXLOOM_TEST_SLURM=1")
