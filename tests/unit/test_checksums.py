"""Lists of checksums: what others read, in which order, and what differs from them."""

import hashlib
import os
import shutil
import subprocess

import pytest

from voxloom.errors import FormatError
from voxloom.io import checksums
from voxloom.io.checksums import Checksum, Difference, Known

NAMES = ["a.b", "a/x", "a0", "b/c.zarr/0/c/0/0/0", "b/c.zarr/zarr.json"]


@pytest.fixture
def folder(tmp_path):
    """Files whose order by whole names is not that of a walk through the folders."""
    for name in [*NAMES, ".snakemake_timestamp", "b/c.zarr/.hidden/x"]:
        (tmp_path / "kept" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "kept" / name).write_text(name)
    return tmp_path / "kept"


def listed(folder, path):
    return list(checksums.write_list(path, checksums.checksums(folder, checksums.files_below(folder), threads=2)))


def test_files_come_in_the_order_of_their_names_and_hidden_ones_do_not(folder):
    assert list(checksums.files_below(folder)) == NAMES
    assert list(checksums.files_below(folder, leave_out=["b/c.zarr", "a0"])) == ["a.b", "a/x"]


def test_what_a_link_leads_to_counts_and_a_pipe_is_not_waited_for(folder):
    (folder / "d").symlink_to(folder / "b")
    (folder / "e").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "f")
    assert list(checksums.files_below(folder)) == [*NAMES, *(f"d/{name[2:]}" for name in NAMES[3:])]


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="there is no sha256sum here")
def test_sha256sum_reads_the_list(folder, tmp_path):
    listed(folder, tmp_path / "list")
    command = ["sha256sum", "--check", "--strict", str(tmp_path / "list")]
    said = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
    assert said.count(": OK") == len(NAMES)
    (folder / "a0").write_text("other")
    assert "a0: FAILED" in subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout


def test_the_checksum_of_a_folder_is_that_of_its_list(folder, tmp_path):
    listed(folder, tmp_path / "list")
    assert checksums.tree_sha256(folder) == hashlib.sha256((tmp_path / "list").read_bytes()).hexdigest()
    assert checksums.tree_of(checksums.read_list(tmp_path / "list")) == checksums.tree_sha256(folder)


@pytest.mark.parametrize("edit", ["name", "byte", "file"])
def test_the_checksum_of_a_folder_sees_names_and_bytes(folder, edit):
    before = checksums.tree_sha256(folder)
    if edit == "name":
        (folder / "a0").rename(folder / "a1")
    elif edit == "byte":
        (folder / "a0").write_text("a1")
    else:
        (folder / "b" / "new").touch()
    assert checksums.tree_sha256(folder) != before


@pytest.mark.parametrize("threads", [1, 3])
def test_every_kind_of_difference_is_found(folder, tmp_path, threads):
    listed(folder, tmp_path / "list")
    (folder / "a.b").unlink()
    (folder / "a" / "x").write_text("y")
    (folder / "z").touch()
    lines = checksums.read_list(tmp_path / "list")
    found = list(checksums.compare(folder, lines, checksums.files_below(folder), threads=threads))
    assert [difference for difference in found if difference] == [
        Difference("missing", "a.b"), Difference("differs", "a/x"), Difference("surplus", "z"),
    ]  # fmt: skip
    assert len(found) == len(NAMES) + 1


@pytest.mark.parametrize("line", ["abc  a", f"{'0' * 64}  ../outside", f"{'0' * 64}  /etc/passwd", f"{'0' * 64} a", ""])
def test_a_damaged_list_is_refused(tmp_path, line):
    (tmp_path / "list").write_text(f"{'0' * 64}  Z\n{line}\n")
    with pytest.raises(FormatError, match="list line 2: expected a checksum"):
        list(checksums.read_list(tmp_path / "list"))


@pytest.mark.parametrize("name", ["a\nb", "a\udcff"])
def test_a_name_that_no_line_can_hold_is_refused(tmp_path, name):
    with pytest.raises(FormatError, match=r"the name 'a\\\w+' has a line break or isn't UTF-8"):
        list(checksums.write_list(tmp_path / "list", [Checksum(name, "0" * 64)]))
    assert not (tmp_path / "list").exists()


def test_only_what_is_new_is_read_again(folder, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(checksums, "sha256", lambda path: read.append(path.name) or hashlib.sha256().hexdigest())

    def run():
        read.clear()
        with Known.kept_in(tmp_path / "known") as known:
            lines = list(checksums.checksums(folder, checksums.files_below(folder), known=known))
        return len(lines)

    assert run() == len(read) == len(NAMES)
    status = (folder / "a0").stat()
    (folder / "a0").write_text("a1")  # as long, but later
    os.utime(folder / "a0", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    (folder / "a.b").unlink()
    (folder / "new").touch()
    assert run() == len(NAMES)
    assert read == ["a0", "new"]
