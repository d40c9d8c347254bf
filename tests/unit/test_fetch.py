"""A download is the file that was meant, or an error that says what came instead."""

import hashlib
import http.server
import threading

import pytest

from voxloom.errors import FormatError
from voxloom.io.fetch import fetch

CONTENT = b"voxels" * 1000


@pytest.fixture
def address(tmp_path):
    """A server on this machine that holds one file."""
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "a.nii").write_bytes(CONTENT)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *words):
            super().__init__(*words, directory=str(tmp_path / "served"))

        def log_message(self, *words):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_the_file_that_was_meant_arrives_whole(tmp_path, address):
    fetch(f"{address}/a.nii", tmp_path / "out" / "a.nii", sha256=hashlib.sha256(CONTENT).hexdigest())
    assert (tmp_path / "out" / "a.nii").read_bytes() == CONTENT


def test_another_file_is_refused_and_not_kept(tmp_path, address):
    with pytest.raises(FormatError, match="has SHA-256 .* expected 0000"):
        fetch(f"{address}/a.nii", tmp_path / "out" / "a.nii", sha256="0" * 64)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_missing_file_names_the_address(tmp_path, address):
    with pytest.raises(FormatError, match="b.nii can't be downloaded: HTTP Error 404"):
        fetch(f"{address}/b.nii", tmp_path / "b.nii", sha256="0" * 64)


def test_a_local_path_is_no_address(tmp_path):
    with pytest.raises(FormatError, match="begins with http"):
        fetch("file:///etc/hostname", tmp_path / "x", sha256="0" * 64)
