"""Volumes that lie elsewhere: which addresses can be read, and what a message says of the others."""

import importlib.util

import pytest

from voxloom import addresses, references
from voxloom.errors import ConfigError


@pytest.mark.parametrize("path", ["raw/brain.nrrd", "C:/brain.nrrd", "scan/*.tif", "a.h5::/raw", "/data/a.zarr"])
def test_a_path_is_no_address(path):
    assert addresses.scheme(path) is None
    assert addresses.problem(path) is None


def test_without_its_plugin_an_address_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    said = addresses.problem("s3://bucket/brain.zarr")
    assert "pip install snakemake-storage-plugin-s3, or download the file" in said


def test_with_its_plugin_an_address_is_a_file_of_its_own(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    assert addresses.problem("https://host/brain.nrrd?version=2") is None
    assert references.raw_files("https://host/brain.nrrd?version=2") == ["https://host/brain.nrrd?version=2"]
    assert "has a pattern" in addresses.problem("s3://bucket/scan/*.tif")


def test_an_unknown_address_lists_the_known():
    assert "begins with gopher://, but expected a path or one of http://" in addresses.problem("gopher://host/a.nrrd")


def test_the_table_of_volumes_is_refused_with_the_row_and_the_mend(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    config = {"volumes": "volumes.tsv", "phantom": {}, "downloads": {}, "task_folder": "tasks"}
    with pytest.raises(ConfigError, match="path of brain, https://host/a.nrrd, needs Snakemake's plugin for https://"):
        references.check_references(config, {"brain": {"path": "https://host/a.nrrd"}}, {})


@pytest.mark.parametrize(
    ("path", "files", "expected"),
    [
        ("s3://bucket/a.zarr::/0", ["local/s3/bucket/a.zarr"], "local/s3/bucket/a.zarr::/0"),
        ("raw/a.nrrd", ["raw/a.nrrd"], "raw/a.nrrd"),
        ("raw/a.nrrd", [], "raw/a.nrrd"),
        ("scan", ["scan/1.tif", "scan/2.tif"], "scan"),
        ("scan", ["scan/1.tif"], "scan"),
    ],
)
def test_a_job_reads_what_it_was_handed(path, files, expected):
    assert addresses.local_path(path, files) == expected


def test_a_raw_store_is_refused_where_conversions_are_shared(tmp_path):
    (tmp_path / "raw.zarr").mkdir()
    (tmp_path / "raw.zarr" / "zarr.json").touch()
    references.check_cache({"brain": {"path": "raw.nrrd"}}, table="volumes.tsv")
    with pytest.raises(ConfigError, match=r"volumes.tsv: path of brain is .*raw.zarr, a store .* run without --cache"):
        references.check_cache({"brain": {"path": f"{tmp_path}/raw.zarr"}}, table="volumes.tsv")
