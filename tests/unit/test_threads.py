"""A job computes on the cores it was given, by the variables that Snakemake sets for it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

import voxloom
from voxloom.io import store
from voxloom.io.formats import open_source, read_array
from voxloom.volume import Geometry

REPORT = """
import json, numpy, scipy.linalg, threadpoolctl, torch
from voxloom.io import store
from voxloom.io.formats import open_source, read_array
from voxloom.volume import Geometry
numpy.ones((9, 9)) @ numpy.ones((9, 9))
pools = {pool["internal_api"]: pool["num_threads"] for pool in threadpoolctl.threadpool_info()}
codecs = store.shared_context()["data_copy_concurrency"].to_json()["limit"]
print(json.dumps({"torch": torch.get_num_threads(), "codecs": codecs, **pools}))
"""
VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
"""What Snakemake sets for the scripts of a rule with threads, among others."""


def test_a_job_of_one_thread_computes_on_one_in_every_library():
    environment = {**os.environ, **dict.fromkeys(VARIABLES, "1")}
    environment["PYTHONPATH"] = str(Path(voxloom.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", REPORT], env=environment, capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    assert {"torch", "codecs"} < set(said)
    assert set(said.values()) == {1}


def test_no_kernel_starts_threads_of_its_own():
    sources = Path(voxloom.__file__).parent.rglob("*.py")
    assert not [path.name for path in sources if "prange" in (text := path.read_text()) or "parallel=True" in text]


def test_arrays_share_limits_that_outlive_them(tmp_path, monkeypatch):
    """Limits that are freed with their array crash tensorstore's threads now and then."""
    monkeypatch.setattr(store.ts, "Context", mock.Mock(side_effect=store.ts.Context))
    store._kept_context.cache_clear()
    for name in ("a.zarr", "b.zarr"):
        geometry = Geometry((1.0, 1.0, 1.0))
        with store.create_volume(tmp_path / name, shape=(4, 5, 6), dtype="u1", geometry=geometry, kind="image"):
            pass
        store.open_volume(tmp_path / name)[:]
        read_array(open_source(tmp_path / name))
    assert store.ts.Context.call_count == 1
    ours = store.shared_context()
    monkeypatch.setattr(os, "getpid", lambda: -1)  # a fork
    assert store.shared_context() is not ours


@pytest.mark.parametrize(("given", "limit"), [("3", 3), ("", 2), ("0", 2), ("4,2", 2)])
def test_codecs_take_two_threads_where_nobody_says(monkeypatch, given, limit):
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert store.shared_context()["data_copy_concurrency"].to_json()["limit"] == limit
