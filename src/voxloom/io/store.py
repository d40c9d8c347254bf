"""Volumes at rest: OME-Zarr 0.5 (Zarr v3, sharded), read and written by blocks.

A store is a folder ``x.zarr`` that holds a pyramid of arrays "0" (full size), "1", ... Voxel size and origin stand in
the OME multiscales metadata, in micrometres; what OME-Zarr has no word for (kind, quantisation, directions, the
source's header) stands beside it under "voxloom".
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts
from numpy.typing import DTypeLike, NDArray

from voxloom import heap
from voxloom.errors import FormatError, VolumeError
from voxloom.io.files import SCRATCH, WORK, SafeFile, atomic_directory
from voxloom.io.pyramid import Level, Pyramid, levels_of
from voxloom.io.resume import Journal, Kept, is_resumable
from voxloom.volume import Geometry, Quantisation, Vector

METADATA = "zarr.json"
CHUNK = 64
SHARD = (64, 512, 512)  # 64 slices deep, so that a slab of slices fills whole shards; 16 MiB of uint8
KINDS = {
    "image": "mean",
    "probability": "mean",
    "distance": "mean",
    "annotation": "annotation",
    "mask": "max",
    "labels": "nearest",
}
"""What a volume can be, and how its coarser levels are made."""

COMPRESSIONS = ("zstd", "none")
LEVEL = 2
"""Of zstd; from 3 on it looks for repetitions that noise doesn't have, which takes several times as long."""

NOISY = ("image", "probability")
"""Kinds whose low bits are noise and best kept apart, bit by bit; of all others whole bytes repeat."""


@functools.cache
def _share_freed_memory() -> None:
    """Let what one thread freed be used by the others, from here on in this process.

    The C library of Linux keeps a heap for every thread. Shards are coded on several, whose heaps grow by turns: a
    stored volume of labels then takes several times the memory that is in use. Elsewhere nothing changes.
    """
    heap.set_option(heap.M_ARENA_MAX, 1)


def shared_context() -> ts.Context:
    """What all arrays of a process share: their codecs compute on as many threads as the job has.

    Snakemake says how many those are as it does to OpenMP.

    Returns
    -------
    context : tensorstore.Context
    """
    _share_freed_memory()
    given = os.environ.get("OMP_NUM_THREADS", "")
    return _kept_context(int(given) if given.isdigit() and int(given) > 0 else 2, os.getpid())


@functools.cache
def _kept_context(threads: int, process: int) -> ts.Context:
    """A context that is never freed, for a process: a fork's own, because the threads of its parent's aren't there.

    tensorstore 0.1.86 may look for work at a context's limits after they were freed, when the machine is busy. With a
    context for each array that was opened, reports of busy machines crashed now and then, in whatever came next.
    """
    return ts.Context({"file_io_concurrency": {"limit": 4}, "data_copy_concurrency": {"limit": threads}})


@dataclass(frozen=True)
class StoredVolume:
    """A volume on disk, read by slicing.

    Parameters
    ----------
    path : Path
        The store's folder.
    shape : tuple of int
        (Z, Y, X), or (C, Z, Y, X) with channels.
    dtype : numpy.dtype
        Of the stored values.
    geometry : Geometry
        Voxel size and place, of this level.
    kind : str
        One of `KINDS`.
    quantisation : Quantisation or None
        What the stored integers stand for, None where they stand for themselves.
    metadata : dict
        What else is known: the source file, its header, its segments.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    geometry: Geometry
    kind: str
    quantisation: Quantisation | None
    metadata: dict[str, Any]
    shard_shape: tuple[int, ...]
    levels: int
    array: Any

    @property
    def ndim(self) -> int:
        """Number of axes: 3, or 4 with channels."""
        return len(self.shape)

    @property
    def spacing_um(self) -> Vector:
        """Voxel edge lengths (Z, Y, X), in micrometres."""
        return self.geometry.spacing_um

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """Stored values of a slice, as a new array. Safe to call from several threads."""
        values = np.ascontiguousarray(self.array[_as_numpy(index, self.shape)].read().result())
        (self.path / METADATA).stat()  # what was removed meanwhile reads as zeros
        return values

    def level(self, level: int) -> StoredVolume:
        """The same volume at a coarser level of its pyramid; 0 is full size."""
        return open_volume(self.path, level=level)


def open_volume(path: str | Path, *, level: int = 0) -> StoredVolume:
    """Open a store for reading.

    Parameters
    ----------
    path : str or Path
        A folder written by `create_volume`.
    level : int
        Level of the pyramid.

    Returns
    -------
    volume : StoredVolume

    Raises
    ------
    FormatError
        If there is no such store, or it lacks the metadata that voxloom writes.
    """
    path = Path(path)
    try:
        return _opened(path, json.loads((path / METADATA).read_text())["attributes"], level)
    except FormatError:
        raise
    except FileNotFoundError:
        raise FormatError(
            f"{path} is not a volume: expected a folder with a zarr.json; was it written by voxloom?"
        ) from None
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise FormatError(
            f"{path}/zarr.json lacks voxloom's metadata ({error!r}); bring other Zarr files in through volumes.tsv"
        ) from None


def _opened(path: Path, attributes: dict[str, Any], level: int) -> StoredVolume:
    ours = attributes["voxloom"]
    datasets = attributes["ome"]["multiscales"][0]["datasets"]
    if not 0 <= level < len(datasets):
        raise FormatError(f"{path} has levels 0 to {len(datasets) - 1}, not {level}")
    array = _open_array(array_folder(path, datasets[level]["path"]))
    transforms = datasets[level]["coordinateTransformations"]
    geometry = Geometry(
        spacing_um=_vector(transforms[0]["scale"][-3:]),
        origin_um=_vector(transforms[1]["translation"][-3:]),
        directions=tuple(_vector(row) for row in ours["directions"]),  # type: ignore[arg-type]
        space=ours["space"],
    )
    if ours["kind"] not in KINDS or not isinstance(ours["metadata"], dict):
        raise ValueError(f"kind {ours['kind']!r}, metadata {type(ours['metadata'])}")
    return StoredVolume(
        path=path,
        shape=tuple(array.shape),
        dtype=np.dtype(array.dtype.numpy_dtype),
        geometry=geometry,
        kind=ours["kind"],
        quantisation=Quantisation(**ours["quantisation"]) if ours["quantisation"] else None,
        metadata=ours["metadata"],
        shard_shape=tuple(array.chunk_layout.write_chunk.shape),
        levels=len(datasets),
        array=array,
    )


def _vector(values: Sequence[float]) -> Vector:
    z, y, x = map(float, values)
    return z, y, x


def array_folder(store: Path, name: str) -> Path:
    """Folder of one of a store's arrays.

    Parameters
    ----------
    store : Path
    name : str
        As the store's metadata have it.

    Returns
    -------
    folder : Path

    Raises
    ------
    FormatError
        If it would lie outside the store.
    """
    if not isinstance(name, str) or Path(name).is_absolute() or ".." in Path(name).parts:
        raise FormatError(f"{store}: its array {name!r} lies outside the store, where voxloom doesn't follow it")
    return store / name


class VolumeWriter:
    """A volume that is being written, by slicing.

    Different shards may be written from different threads; a write that covers part of a shard reads and rewrites it.
    `folder` is where the store is written before it is renamed into place, and the place for scratch volumes. What is
    put into `metadata` while voxels are written is stored with them. With a `journal` the volume is written in one pass
    of boxes that share no voxel, and `is_done` tells those that an interrupted run had finished.
    """

    def __init__(
        self, array: Any, folder: Path, metadata: dict[str, Any] | None = None, journal: Journal | None = None
    ) -> None:
        self.array = array
        self.journal = journal
        self.pyramid: Pyramid | None = None
        self.folder = folder
        self.metadata = dict(metadata or {})
        self.shape: tuple[int, ...] = tuple(array.shape)
        self.dtype: np.dtype = np.dtype(array.dtype.numpy_dtype)
        self.shard_shape: tuple[int, ...] = tuple(array.chunk_layout.write_chunk.shape)

    def __setitem__(self, index: Any, values: NDArray[Any]) -> None:
        if values.dtype != self.dtype:
            raise VolumeError(f"the volume holds {self.dtype}, got an array of {values.dtype}; convert it first")
        meant = _as_numpy(index, self.shape)
        self.array[meant].write(values).result()
        if self.pyramid is not None:
            self.pyramid.take(_as_box(meant, self.shape, values.shape), values)
            if self.journal is None:
                self.pyramid.write()

    def is_done(self, core: tuple[slice, ...]) -> bool:
        """Whether a box of voxels (Z, Y, X) was written before, and the bytes are still those."""
        return self.journal is not None and self.journal.is_done(core)

    def mark_done(self, core: tuple[slice, ...]) -> None:
        """Note that a box of voxels is written."""
        if self.journal is not None:
            self.journal.mark_done(core)
            if self.pyramid is not None:  # only now: a run that is killed in here has done the box
                self.pyramid.write()

    def written(self) -> list[tuple[int, ...]]:
        """Places (z, y, x), in shards, of the shards that are done."""
        assert self.journal is not None, "create_volume(resume=...) keeps account of shards"
        return self.journal.done()

    @contextlib.contextmanager
    def scratch_arrays(self, name: str) -> Iterator[ScratchArrays]:
        """A place beside the volume for arrays that don't fit in memory, which is removed at the end."""
        with _scratch_folder(self.folder, name) as folder:
            yield ScratchArrays(folder)

    def take_over(self, parts: Iterable[str | Path]) -> None:
        """Take the shards of stores of the same grid that other jobs wrote, each its own.

        Parameters
        ----------
        parts : iterable of str or Path
            Their ``metadata["written"]`` says which shards each of them holds; see `written`.

        Raises
        ------
        VolumeError
            If a part has another grid.
        """
        assert self.journal is not None, "create_volume(resume=...) lets other jobs' shards count as done"
        for part in map(open_volume, parts):
            if (part.shape, part.dtype) != (self.shape, self.dtype):
                raise VolumeError(
                    f"{part.path} holds {part.shape} voxels of {part.dtype}, expected {self.shape} of {self.dtype}; "
                    "remove it, so that it is made again"
                )
            self.journal.take_over(part.path / "0", [tuple(shard) for shard in part.metadata["written"]])

    def __getitem__(self, index: Any) -> NDArray[Any]:
        return np.ascontiguousarray(self.array[_as_numpy(index, self.shape)].read().result())


@contextlib.contextmanager
def create_volume(
    path: str | Path,
    *,
    shape: tuple[int, ...],
    dtype: DTypeLike,
    geometry: Geometry,
    kind: str,
    quantisation: Quantisation | None = None,
    metadata: dict[str, Any] | None = None,
    multiscale: bool = True,
    resume: str | None = None,
    compression: str = "zstd",
) -> Iterator[VolumeWriter]:
    """Write a store; it appears under its name only when it is complete.

    Parameters
    ----------
    path : str or Path
        Folder to write, by custom with the suffix .zarr. One that is there is replaced at the end.
    shape : tuple of int
        (Z, Y, X), or (C, Z, Y, X) with channels.
    dtype : dtype
        Of the stored values.
    geometry : Geometry
        Voxel size and place.
    kind : str
        One of `KINDS`; decides how the coarser levels are made.
    quantisation : Quantisation, optional
        What stored integers stand for.
    metadata : dict, optional
        Anything that JSON holds.
    multiscale : bool
        Whether coarser levels are added, each of half the size along the axes that are finest, until the volume fits
        in 256 voxels an axis.
    resume : str, optional
        From `voxloom.io.resume.resume_key`. Blocks that a run of the same key had finished, when it was killed or
        failed, are found again: `voxloom.blocks.map_blocks` leaves them out. For volumes without channels.
    compression : {"zstd", "none"}
        Of the full size; coarser levels are always compressed. Patches of noisy values are read in half the time
        without.

    Yields
    ------
    writer : VolumeWriter
        Takes ``writer[slices] = array``.

    Raises
    ------
    VolumeError
        If the shape or kind is not one that can be stored.
    """
    if len(shape) not in (3, 4) or any(size < 1 for size in shape):
        raise VolumeError(f"a volume has shape (Z, Y, X) or (C, Z, Y, X) without a zero, got {shape}")
    if kind not in KINDS:
        raise VolumeError(f"unknown kind of volume {kind!r}; known: {', '.join(KINDS)}")
    if compression not in COMPRESSIONS:
        raise VolumeError(f"unknown compression {compression!r}; known: {', '.join(COMPRESSIONS)}")
    assert resume is None or len(shape) == 3, "a volume with channels doesn't resume"
    with atomic_directory(path, resume=resume) as folder:
        order = "bitshuffle" if kind in NOISY else "shuffle"
        writer = _begin(folder, "0", shape, np.dtype(dtype), metadata, None if compression == "none" else order)
        levels = levels_of(shape, geometry.spacing_um) if multiscale else []
        writer.pyramid = Pyramid(
            writer,
            levels,
            method=KINDS[kind],
            begin=lambda number: _begin(folder, str(number), levels[number - 1].shape, writer.dtype, order=order),
        )
        yield writer
        writer.pyramid.finish()
        (folder / "0" / METADATA).stat()  # what was removed meanwhile is not written again
        document = _group_document(Path(path).stem, shape, geometry, kind, quantisation, writer.metadata, levels)
        (folder / METADATA).write_text(json.dumps(document, indent=1))


@contextlib.contextmanager
def scratch_volume(
    directory: str | Path, *, name: str, shape: tuple[int, ...], dtype: DTypeLike
) -> Iterator[VolumeWriter]:
    """A volume for work in several passes.

    Parameters
    ----------
    directory : str or Path
        Folder in which to make it; on the disk of the results, not in memory. In the `VolumeWriter.folder` of a volume
        that resumes, it resumes as well and goes when that volume is complete; elsewhere it is removed at the end.
    name : str
        Tells it from others of the same folder.
    shape : tuple of int
    dtype : dtype

    Yields
    ------
    writer : VolumeWriter
        Reads and writes by slicing.
    """
    Path(directory).mkdir(parents=True, exist_ok=True)
    if is_resumable(directory):
        yield _begin(Path(directory), f"{WORK}/scratch-{name}", shape, np.dtype(dtype))
        return
    with _scratch_folder(directory, name) as folder:
        yield _begin(folder, "0", shape, np.dtype(dtype))


@contextlib.contextmanager
def _scratch_folder(directory: str | Path, name: str) -> Iterator[Path]:
    """An empty folder, which an interrupted run doesn't use; it goes when the volume is complete at the latest."""
    within = Path(directory) / WORK if is_resumable(directory) else Path(directory)
    within.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=within, prefix=f"{SCRATCH}{name}-") as folder:
        yield Path(folder)


class ScratchArrays:
    """Arrays that wait in files, as they are, until they are taken.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, key: str, arrays: Sequence[NDArray[Any]]) -> None:
        """Write arrays under a key that is not in use. Keys may be written and taken by several threads."""
        with SafeFile(self.folder / f"{key}.npy") as file:  # NumPy doesn't say that a disk is full
            for array in arrays:
                np.save(file, array, allow_pickle=False)

    def take(self, key: str) -> list[NDArray[Any]]:
        """Read what stands under a key, and remove it."""
        path, arrays = self.folder / f"{key}.npy", []
        with open(path, "rb") as file:
            while file.peek(1):
                arrays.append(np.load(file, allow_pickle=False))
        path.unlink()
        return arrays


def keep_results(directory: str | Path, step: str) -> Kept:
    """A place for the results of blocks, by which an interrupted step goes on.

    Parameters
    ----------
    directory : str or Path
        The `VolumeWriter.folder` of a volume; nothing is kept unless that volume resumes.
    step : str
        Tells the step from others that work for the same volume.

    Returns
    -------
    kept : Kept
    """
    return Kept(Path(directory) / WORK / step if is_resumable(directory) else None)


def _begin(
    folder: Path,
    name: str,
    shape: tuple[int, ...],
    dtype: np.dtype,
    metadata: dict[str, Any] | None = None,
    order: str | None = "shuffle",
) -> VolumeWriter:
    """Create an array, or open the one that an interrupted run left in a folder that is found again."""
    writer = VolumeWriter(_create_array(folder / name, shape, dtype, order), folder, metadata)
    if is_resumable(folder):
        lines = folder / WORK / f"done-{name.rpartition('/')[2]}.txt"
        writer.journal = Journal(lines, folder / name, writer.shape, writer.shard_shape)
    return writer


def _as_numpy(index: Any, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """The index with NumPy's meaning: slices are clipped and negative numbers count from the end.

    tensorstore takes -1 for the coordinate -1 and refuses a slice that ends outside.
    """
    index = index if isinstance(index, tuple) else (index,)
    if Ellipsis in index:
        at = index.index(Ellipsis)
        index = index[:at] + (slice(None),) * (len(shape) - len(index) + 1) + index[at + 1 :]
    meant: list[Any] = []
    for item, size in zip(index, shape, strict=False):
        if isinstance(item, slice):
            start, stop, step = item.indices(size)
            if step < 1:
                raise VolumeError("a stored volume is sliced forwards; reverse the array that comes back")
            meant.append(slice(start, max(start, stop), step))
        else:
            if not -size <= int(item) < size:
                raise IndexError(f"index {item} is outside an axis of {size} voxels")
            meant.append(int(item) % size)
    return tuple(meant)


def _as_box(meant: tuple[Any, ...], shape: tuple[int, ...], values_shape: tuple[int, ...]) -> tuple[slice, ...] | None:
    """What an index of `_as_numpy` means, as a box that values fill one by one; None where it is no such box."""
    whole = (*meant, *(slice(0, size, 1) for size in shape[len(meant) :]))
    if not all(isinstance(part, slice) and part.step == 1 for part in whole):
        return None
    return whole if tuple(part.stop - part.start for part in whole) == values_shape else None


def shards_of(shape: Sequence[int]) -> tuple[int, ...]:
    """Shards of a store: a whole number of chunks, and no larger than the volume needs.

    Parameters
    ----------
    shape : sequence of int
        (Z, Y, X), or (C, Z, Y, X) with channels.

    Returns
    -------
    shard_shape : tuple of int
        Of as many axes.
    """
    chunk = [min(CHUNK, size) for size in shape[-3:]]
    shard = [min(limit // c, -(-size // c)) * c for limit, size, c in zip(SHARD, shape[-3:], chunk, strict=True)]
    return (*[1] * (len(shape) - 3), *shard)


def _create_array(path: Path, shape: tuple[int, ...], dtype: np.dtype, order: str | None) -> Any:
    """`order` is blosc's, in which it compresses the bytes of several voxels; None leaves them uncompressed."""
    chunk = [min(CHUNK, size) for size in shape[-3:]]
    lead = [1] * (len(shape) - 3)
    codecs: list[dict[str, Any]] = [{"name": "bytes"}]
    if dtype.itemsize > 1:
        codecs[0]["configuration"] = {"endian": "little"}
    if order is not None:
        how = {"cname": "zstd", "clevel": LEVEL, "shuffle": order if dtype.itemsize > 1 else "noshuffle"}
        codecs.append({"name": "blosc", "configuration": {**how, "typesize": dtype.itemsize, "blocksize": 0}})
    sharding = {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": lead + chunk,
            "codecs": codecs,
            "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
            "index_location": "end",
        },
    }
    names = ["c", "z", "y", "x"][-len(shape) :]
    is_left = (path / METADATA).is_file()  # by a run that was interrupted
    return ts.open(
        {
            "driver": "zarr3",
            "kvstore": {"driver": "file", "path": str(path), "file_io_sync": False},
            "metadata": {
                "shape": list(shape),
                "data_type": dtype.name,
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(shards_of(shape))}},
                "codecs": [sharding],
                "fill_value": 0,
                "dimension_names": names,
            },
        },
        create=True,
        open=is_left,
        context=shared_context(),
    ).result()


def _open_array(path: Path) -> Any:
    try:
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}
        return ts.open(spec, open=True, read=True, context=shared_context()).result()
    except ValueError as error:
        raise FormatError(f"{path} can't be opened as a Zarr v3 array: {error}") from None


def _group_document(
    name: str,
    shape: tuple[int, ...],
    geometry: Geometry,
    kind: str,
    quantisation: Quantisation | None,
    metadata: dict[str, Any],
    levels: Sequence[Level],
) -> dict[str, Any]:
    axes: list[dict[str, str]] = [{"name": n, "type": "space", "unit": "micrometer"} for n in "zyx"]
    if len(shape) == 4:
        axes.insert(0, {"name": "c", "type": "channel"})
    lead = len(shape) - 3
    datasets = []
    for level, factor in enumerate([(1, 1, 1), *(each.factor for each in levels)]):
        scale = [s * f for s, f in zip(geometry.spacing_um, factor, strict=True)]
        # the centre of a coarse voxel is the middle of the fine ones that it stands for
        shift = np.array([(f - 1) / 2 * s for f, s in zip(factor, geometry.spacing_um, strict=True)])
        if kind == "labels":
            shift[:] = 0.0
        origin = np.asarray(geometry.origin_um) + shift @ np.asarray(geometry.directions)
        datasets.append(
            {
                "path": str(level),
                "coordinateTransformations": [
                    {"type": "scale", "scale": [1.0] * lead + [float(s) for s in scale]},
                    {"type": "translation", "translation": [0.0] * lead + [float(o) for o in origin]},
                ],
            }
        )
    return {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {
            "ome": {"version": "0.5", "multiscales": [{"name": name, "axes": axes, "datasets": datasets}]},
            "voxloom": {
                "kind": kind,
                "quantisation": quantisation and vars(quantisation),
                "directions": [list(row) for row in geometry.directions],
                "space": geometry.space,
                "metadata": metadata,
            },
        },
    }
