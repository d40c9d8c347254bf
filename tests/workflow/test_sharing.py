"""What two projects share through Snakemake's cache, and volumes that lie elsewhere; with real runs of Snakemake."""

import functools
import http.server
import threading
from pathlib import Path

import numpy as np
import pytest
from checkout import ENVIRONMENT, Checkout

from voxloom import io
from voxloom.io.checksums import tree_sha256
from voxloom.io.nrrd import write_nrrd
from voxloom.volume import Geometry

STORE = "results/volumes/brain.zarr"


@pytest.fixture
def raw(tmp_path):
    """A raw file outside of every project."""
    path = tmp_path / "raw" / "brain.nrrd"
    path.parent.mkdir()
    values = np.arange(8 * 9 * 10, dtype="uint16").reshape(8, 9, 10)
    whole = (slice(0, 8), slice(0, 9), slice(0, 10))
    write_nrrd(path, [(whole, values)], shape=values.shape, dtype=values.dtype, geometry=Geometry((2.0, 1.0, 1.0)))
    return path


def project(folder: Path, path: str) -> Checkout:
    """A project of one volume, whose file is at this path or address."""
    checkout = Checkout.new(folder)
    (folder / "config" / "config.yaml").write_text("volumes: config/volumes.tsv\ntasks: {vessels: [best]}\n")
    (folder / "config" / "volumes.tsv").write_text(f"volume\tpath\tannotation_truth\nbrain\t{path}\t{path}\n")
    return checkout


def test_two_projects_share_a_converted_volume(raw, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    cache.mkdir()
    monkeypatch.setitem(ENVIRONMENT, "SNAKEMAKE_OUTPUT_CACHE", str(cache))
    first, second, alone = (project(tmp_path / name, str(raw)) for name in ("first", "second", "alone"))
    first.run("--cache", "--", STORE)
    stored = next(cache.glob("*.zarr"))
    times = {path: path.stat().st_mtime_ns for path in stored.rglob("*") if path.is_file()}
    said = second.run("--cache", "--", STORE)
    assert "[convert]" not in said, "the second project converted again"
    assert (second.folder / STORE / "zarr.json").resolve().is_relative_to(cache)
    alone.run(STORE)
    assert tree_sha256(second.folder / STORE) == tree_sha256(alone.folder / STORE) == tree_sha256(first.folder / STORE)
    assert (alone.results() / "benchmarks" / "convert" / "brain.tsv").is_file()
    assert {path: path.stat().st_mtime_ns for path in times if not path.name.startswith(".")}.items() <= times.items()
    for sharing in (first, second):
        assert sharing.planned(STORE, "--cache") == {}, "what another project took from the cache reruns something"


def test_another_raw_file_or_setting_shares_nothing(raw, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    cache.mkdir()
    monkeypatch.setitem(ENVIRONMENT, "SNAKEMAKE_OUTPUT_CACHE", str(cache))
    checkout = project(tmp_path / "first", str(raw))
    checkout.run("--cache", "--", STORE)
    raw.write_bytes(raw.read_bytes() + b"\n")
    assert "[convert]" in checkout.run("--cache", "--", STORE)
    assert len(list(cache.glob("*.zarr"))) == 2


@pytest.fixture
def address(raw):
    """The raw file at a server on this machine."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words):
            pass

    handler = functools.partial(Quiet, directory=str(raw.parent))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/brain.nrrd"
    server.shutdown()
    server.server_close()


def test_a_volume_may_be_an_address(raw, address, tmp_path):
    pytest.importorskip("snakemake_storage_plugin_http", reason="opt-in: make test-sharing")
    checkout = project(tmp_path / "remote", address)
    checkout.run(STORE)
    volume = io.open_volume(checkout.folder / STORE)
    assert volume.shape == (8, 9, 10)
    assert volume.metadata["source"]["path"] == address
    assert volume.metadata["source"]["sha256"] == io.sha256(raw)
    assert checkout.planned(STORE) == {}


def test_a_run_whose_results_go_elsewhere_ends_with_the_report(raw, tmp_path):
    pytest.importorskip("snakemake_storage_plugin_fs", reason="opt-in: make test-sharing")
    checkout = project(tmp_path / "project", str(raw))
    where = ("--default-storage-provider", "fs", "--default-storage-prefix", str(tmp_path / "elsewhere"))
    planned = checkout.planned(*where)
    assert planned["report"] == 1
    assert "manifest" not in planned


@pytest.fixture
def bucket(monkeypatch):
    """A bucket at a server on this machine, and Snakemake's settings for it."""
    server = pytest.importorskip("moto.server", reason="opt-in: make test-sharing")
    pytest.importorskip("snakemake_storage_plugin_s3", reason="opt-in: make test-sharing")
    boto3 = pytest.importorskip("boto3")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    address = "http://{}:{}".format(*running.get_host_and_port())
    for name, value in {"ENDPOINT_URL": address, "ACCESS_KEY": "any", "SECRET_KEY": "any"}.items():
        monkeypatch.setitem(ENVIRONMENT, f"SNAKEMAKE_STORAGE_S3_{name}", value)
    keys = {"aws_access_key_id": "any", "aws_secret_access_key": "any", "region_name": "us-east-1"}
    s3 = boto3.resource("s3", endpoint_url=address, **keys)
    yield s3.create_bucket(Bucket="lab")
    running.stop()


@pytest.mark.filterwarnings("ignore")  # of the server
def test_volumes_come_from_a_bucket_and_results_go_to_one(raw, bucket, tmp_path):
    bucket.upload_file(str(raw), "raw/brain.nrrd")
    from_file = project(tmp_path / "file", "s3://lab/raw/brain.nrrd")
    from_file.run(STORE)
    for path in (from_file.folder / STORE).rglob("*"):
        if path.is_file() and not path.name.startswith("."):
            bucket.upload_file(str(path), f"stores/{path.relative_to(from_file.folder / STORE).as_posix()}")
    store = project(tmp_path / "store", "s3://lab/stores")
    assert store.run(STORE)
    voxels = io.open_volume(from_file.folder / STORE)[...]
    np.testing.assert_array_equal(io.open_volume(store.folder / STORE)[...], voxels)
    elsewhere = project(tmp_path / "elsewhere", str(raw))
    elsewhere.run("--default-storage-provider", "s3", "--default-storage-prefix", "s3://lab/project", "--", STORE)
    assert f"project/{STORE}/zarr.json" in {item.key for item in bucket.objects.all()}
    assert not (elsewhere.folder / STORE).exists()
