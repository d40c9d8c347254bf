"""What an interrupted stage left behind, and which of it can be believed: by checksums of the bytes that are there."""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import os
import threading
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxloom import provenance
from voxloom.io.checksums import files_below
from voxloom.io.files import KEY, WORK, atomic_directory, link_or_copy, sha256

ABSENT = "absent"
"""Checksum of a shard of zeros, which has no file."""

Slices = tuple[slice, ...]


def resume_key(inputs: Iterable[str | Path], **settings: Any) -> str:
    """A hash of everything that a result follows from, so that a stage never goes on from another's work.

    Parameters
    ----------
    inputs : iterable of str or Path
        Files and folders that are read. Names, sizes and times of the files count, not their contents: a copy with new
        times begins anew.
    **settings
        JSON-like values: parameters, the code's version. What a job may use of the machine is no part of it.

    Returns
    -------
    key : str
        64 hexadecimal digits. The versions of the packages that decide numbers are in it.
    """
    stamps = {str(path): _stamps(Path(path)) for path in inputs}
    parts = {"inputs": stamps, "settings": settings, "versions": provenance.versions()}
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _stamps(path: Path) -> list[tuple[str, int, int]]:
    names = files_below(path) if path.is_dir() else [""] if path.is_file() else []
    return [(name, (s := (path / name).stat()).st_size, s.st_mtime_ns) for name in names]


def is_resumable(folder: str | Path) -> bool:
    """Whether a folder that is being written is found again after an interruption."""
    return (Path(folder) / WORK / KEY).is_file()


class Journal:
    """Which shards of an array are done: one line each, with the checksum of the shard's file.

    A line is believed if the file has those bytes when the journal is opened; a file that no line speaks for is
    removed, since a damaged one could not be written over. Nothing is flushed to the disk: what a killed process wrote
    is there, and what a power cut took is found to be missing.

    Parameters
    ----------
    file : Path
        Where the lines are.
    array : Path
        Folder of the array.
    shape, shard_shape : sequence of int
        Of the array, (Z, Y, X).
    """

    def __init__(self, file: Path, array: Path, shape: Sequence[int], shard_shape: Sequence[int]) -> None:
        self.file = file
        self.array = array
        self.shape = tuple(shape)
        self.shard_shape = tuple(shard_shape)
        self._lock = threading.Lock()
        self._covered: dict[tuple[int, ...], int] = {}
        self._done = self._take_stock()

    def is_done(self, core: Slices) -> bool:
        """Whether every shard that holds a voxel of a box was done and still is."""
        return all(shard in self._done for shard in self._shards(core))

    def mark_done(self, core: Slices) -> None:
        """Note that a box is written; a shard is done when boxes that share no voxel have covered it."""
        for shard in self._shards(core):
            whole = self._box(shard)
            voxels = [min(c.stop, w.stop) - max(c.start, w.start) for c, w in zip(core, whole, strict=True)]
            with self._lock:
                covered = self._covered.get(shard, 0) + int(np.prod(voxels))
                self._covered[shard] = covered
            if covered == np.prod([w.stop - w.start for w in whole]):
                self._note(shard)

    def done(self) -> list[tuple[int, ...]]:
        """Shards that are done, in C order."""
        return sorted(self._done)

    def take_over(self, array: Path, shards: Iterable[tuple[int, ...]]) -> None:
        """Have shards of another array of the same grid, and note them as done; those that are done already stay."""
        for shard in shards:
            if shard in self._done:
                continue
            name = "/".join(("c", *map(str, shard)))
            if (array / name).is_file():  # a shard of zeros has none
                link_or_copy(array / name, self.array / name)
            self._note(shard)

    def _note(self, shard: tuple[int, ...]) -> None:
        digest = self._digest(shard)
        with self._lock:
            self._done.add(shard)
            with open(self.file, "a", encoding="ascii") as file:
                file.write(f"{'/'.join(map(str, shard))} {digest}\n")

    def _take_stock(self) -> set[tuple[int, ...]]:
        noted = dict(_lines(self.file)) if self.file.is_file() else {}
        done = {shard for shard, digest in noted.items() if self._digest(shard) == digest}
        for path in (self.array / "c").rglob("*"):
            if path.is_file() and tuple(map(int, path.relative_to(self.array / "c").parts)) not in done:
                path.unlink()
        return done

    def _digest(self, shard: tuple[int, ...]) -> str:
        path = self.array.joinpath("c", *map(str, shard))
        return sha256(path) if path.is_file() else ABSENT

    def _shards(self, core: Slices) -> Iterator[tuple[int, ...]]:
        ranges = [range(c.start // s, -(-c.stop // s)) for c, s in zip(core, self.shard_shape, strict=True)]
        return itertools.product(*ranges)

    def _box(self, shard: tuple[int, ...]) -> Slices:
        edges = zip(shard, self.shard_shape, self.shape, strict=True)
        return tuple(slice(k * step, min((k + 1) * step, size)) for k, step, size in edges)


def _lines(file: Path) -> Iterator[tuple[tuple[int, ...], str]]:
    for line in file.read_text(encoding="ascii").splitlines():
        name, _, digest = line.partition(" ")
        if digest == ABSENT or len(digest) == 64:  # not the line during which the process was killed
            yield tuple(int(number) for number in name.split("/")), digest


class Kept:
    """Results of blocks, kept until the whole is complete; a file each, which carries its checksum.

    Parameters
    ----------
    folder : Path or None
        Where the files are; None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def load(self, core: Slices) -> tuple[NDArray[Any], ...] | None:
        """What was kept of a block, or None where nothing was or its file is damaged."""
        path = self._path(core)
        if path is None or not path.is_file():
            return None
        data = path.read_bytes()
        if hashlib.sha256(data[32:]).digest() != data[:32]:
            return None
        with np.load(io.BytesIO(zlib.decompress(data[32:])), allow_pickle=False) as arrays:
            return tuple(arrays[name] for name in arrays.files)

    def save(self, core: Slices, arrays: Sequence[NDArray[Any]]) -> None:
        """Keep the arrays of a block."""
        path = self._path(core)
        if path is None:
            return
        buffer = io.BytesIO()
        np.savez(buffer, *arrays)
        data = zlib.compress(buffer.getvalue(), 1)
        temporary = path.with_suffix(".tmp")  # the file itself may be another job's, too
        temporary.write_bytes(hashlib.sha256(data).digest() + data)
        os.replace(temporary, path)

    def cores(self) -> list[Slices]:
        """Boxes of which something was kept, in C order."""
        names = [path.stem for path in self.folder.glob("*.npz")] if self.folder else []
        boxes = [tuple(tuple(map(int, axis.split("-"))) for axis in name.split("_")) for name in names]
        return [tuple(slice(*axis) for axis in box) for box in sorted(boxes)]

    def take_over(self, folders: Iterable[str | Path]) -> None:
        """Have what other jobs kept, too; it may lie on another disk."""
        for path in itertools.chain.from_iterable(Path(folder).glob("*.npz") for folder in folders):
            assert self.folder is not None
            link_or_copy(path, self.folder / path.name)

    def _path(self, core: Slices) -> Path | None:
        name = "_".join(f"{axis.start}-{axis.stop}" for axis in core)
        return self.folder and self.folder / f"{name}.npz"


@contextlib.contextmanager
def kept_results(path: str | Path, *, resume: str) -> Iterator[Kept]:
    """Results of blocks as a folder of their own, for other jobs; it appears when it is complete.

    Parameters
    ----------
    path : str or Path
    resume : str
        From `resume_key`. What an interrupted run of the same key kept is there already.

    Yields
    ------
    kept : Kept
    """
    with atomic_directory(path, resume=resume) as folder:
        yield Kept(folder)
