"""Zarr v2 and v3: voxloom's own stores, OME-Zarr of any writer, and plain arrays, named as store.zarr::/array."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxloom.errors import FormatError
from voxloom.io.arrays import Read, array_source, name_axes, with_axes
from voxloom.io.nrrd_geometry import micrometres_per
from voxloom.io.source import Index, Segment, Source
from voxloom.io.store import StoredVolume, VolumeWriter, array_folder, create_volume, open_volume
from voxloom.logs import progress
from voxloom.volume import Geometry, Quantisation

_METADATA = ("zarr.json", ".zgroup", ".zarray")


def is_zarr(path: Path) -> bool:
    """Whether a folder holds a Zarr array or group.

    Parameters
    ----------
    path : Path

    Returns
    -------
    is_zarr : bool
    """
    return any((path / name).is_file() for name in _METADATA)


def open_zarr(path: Path, *, inside: str = "", axes: str | None = None, decode: bool = False) -> Source:
    """Open a Zarr array, the full-size level of an OME-Zarr image, or a store of ours.

    Parameters
    ----------
    path : Path
        The store's folder.
    inside : str
        Path of the array or image within it; may be left out where there is only one.
    axes : str, optional
        Letters of a plain array's axes, slowest first; by default the last of "TCZYX".
    decode : bool
        Hand out what quantised values of our own stores stand for (float32), instead of the stored integers.

    Returns
    -------
    source : Source
        Voxel size and origin as the OME multiscales metadata has them, unit included.

    Raises
    ------
    FormatError
        If there is no such array, or several and none was named.
    """
    try:
        return _opened(path, inside, axes, decode)
    except FormatError:
        raise
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise FormatError(f"the metadata of {path} make no sense ({error!r}); copy the store again") from error


def _opened(path: Path, inside: str, axes: str | None, decode: bool) -> Source:
    if path.is_file():
        raise FormatError(f"{path} is a file; expected a folder that holds a Zarr store (unpack an archive first)")
    node = path / inside.strip("/") if inside else path
    if not is_zarr(node):
        raise FormatError(
            f"{node} is not a Zarr array or group: it has none of {', '.join(_METADATA)}; {_listed(path)}"
        )
    _refuse_links(node)
    attributes = _attributes(node)
    if "voxloom" in attributes:
        own = _own(open_volume(node), decode)
        return with_axes(own, axes) if axes else own
    ome = attributes.get("ome", attributes)
    if ome.get("bioformats2raw.layout") or "series" in ome:
        images = sorted(child.name for child in node.iterdir() if child.is_dir() and "multiscales" in _ome(child))
        if len(images) != 1:
            raise FormatError(f"{node} holds {len(images)} images {images}; name one, such as {path.name}::/0")
        node = node / images[0]
        ome = _ome(node)
    if "multiscales" in ome:
        return _multiscale(path, node, ome, axes)
    if not _is_array(node):
        arrays = _arrays(node)
        if len(arrays) != 1:
            raise FormatError(f"{node} is a group of {len(arrays)} arrays, expected one; {_listed(path)}")
        node = arrays[0]
    return _array(path, node, axes, None, False, (), header=_plain(_attributes(node)))


def _refuse_links(node: Path) -> None:
    """Refuse links in a store, which could make another file's bytes its voxels."""
    for folder, folders, files in os.walk(node):
        for name in (*folders, *files):
            if (link := Path(folder, name)).is_symlink():
                raise FormatError(
                    f"{link} is a link, which voxloom doesn't follow within a store; copy what it leads to into its "
                    "place (cp -rL)"
                )


def _attributes(node: Path) -> dict[str, Any]:
    """A node's attributes, wherever its version of Zarr keeps them."""
    try:
        if (node / "zarr.json").is_file():
            return dict(json.loads((node / "zarr.json").read_text()).get("attributes", {}))
        return dict(json.loads((node / ".zattrs").read_text())) if (node / ".zattrs").is_file() else {}
    except (ValueError, TypeError, AttributeError) as error:
        raise FormatError(f"the metadata of {node} is not JSON ({error}); copy the store again") from None


def _ome(node: Path) -> dict[str, Any]:
    attributes = _attributes(node)
    return dict(attributes.get("ome", attributes))


def _plain(attributes: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in attributes.items() if key not in ("ome", "multiscales")}


def _is_array(node: Path) -> bool:
    if (node / ".zarray").is_file():
        return True
    return (node / "zarr.json").is_file() and json.loads((node / "zarr.json").read_text()).get("node_type") == "array"


def _arrays(node: Path) -> list[Path]:
    """Arrays below a group, not looking into the arrays' own folders."""
    if _is_array(node):
        return [node]
    found = []
    for child in sorted(node.iterdir()):
        if child.is_dir() and is_zarr(child):
            found += _arrays(child)
    return found


def _listed(path: Path) -> str:
    if not is_zarr(path):
        return "check the path"
    arrays = [f"{path.name}::/{array.relative_to(path).as_posix()}" for array in _arrays(path)]
    return f"name one of: {', '.join(arrays)}" if arrays else "the store holds no arrays"


def _multiscale(path: Path, node: Path, ome: dict[str, Any], axes: str | None) -> Source:
    """The finest level of an OME-Zarr image."""
    try:
        multiscale = ome["multiscales"][0]
        finest = multiscale["datasets"][0]
        array = array_folder(node, finest["path"])
        described = multiscale.get("axes") or list("tczyx")  # versions before 0.4 had names only, or nothing
        names = [axis["name"] if isinstance(axis, dict) else axis for axis in described]
        units = {axis["name"]: axis.get("unit") for axis in described if isinstance(axis, dict)}
        scale, shift = [1.0] * len(names), [0.0] * len(names)
        has_scale = False
        transforms = [part.get("coordinateTransformations", []) for part in (finest, multiscale)]
        for transform in [*transforms[0], *transforms[1]]:
            if transform["type"] == "scale":
                scale = [s * float(f) for s, f in zip(scale, transform["scale"], strict=True)]
                shift = [s * float(f) for s, f in zip(shift, transform["scale"], strict=True)]
                has_scale = True
            elif transform["type"] == "translation":
                shift = [s + float(t) for s, t in zip(shift, transform["translation"], strict=True)]
    except FormatError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(
            f"the OME metadata of {node} is incomplete ({error!r}); name the array itself instead; {_listed(path)}"
        ) from None
    own = "".join(name[:1].upper() for name in names)
    geometry, stated, warnings = None, False, []
    if has_scale and {"z", "y", "x"} <= set(names):
        where = [names.index(axis) for axis in "zyx"]
        known = [micrometres_per(units.get(axis) or "") for axis in "zyx"]
        stated = all(known)
        if not stated:
            warnings.append(f"units of z, y, x are {[units.get(axis) for axis in 'zyx']}; taken as millimetres")
        factors = [factor if stated and factor else 1000.0 for factor in known]
        geometry = Geometry(
            spacing_um=_vector([scale[at] * factor for at, factor in zip(where, factors, strict=True)]),
            origin_um=_vector([shift[at] * factor for at, factor in zip(where, factors, strict=True)]),
        )
    header = {key: value for key, value in ome.items() if key in ("omero", "name", "version")}
    axes, geometry = name_axes(own, axes, geometry)
    return _array(path, array, axes, geometry, stated, tuple(warnings), header=header)


def _vector(values: list[float]) -> tuple[float, float, float]:
    return values[0], values[1], values[2]


def _array(
    path: Path,
    node: Path,
    axes: str | None,
    geometry: Geometry | None,
    unit_stated: bool,
    warnings: tuple[str, ...],
    *,
    header: dict[str, Any],
) -> Source:
    import tensorstore as ts

    from voxloom.io.store import shared_context

    driver = "zarr" if (node / ".zarray").is_file() else "zarr3"
    try:
        array = ts.open(
            {"driver": driver, "kvstore": {"driver": "file", "path": str(node)}},
            open=True,
            read=True,
            context=shared_context(),
        ).result()
    except ValueError as error:
        raise FormatError(f"{node} can't be opened as a Zarr array: {_first_line(error)}") from None
    shape = tuple(int(n) for n in array.shape)
    axes = axes or "TCZYX"[-len(shape) :]

    @contextlib.contextmanager
    def opened() -> Iterator[Read]:
        def read(index: tuple[slice, ...]) -> NDArray[Any]:
            try:
                values = np.asarray(array[index].read().result())
                (node / (".zarray" if driver == "zarr" else "zarr.json")).stat()  # what was removed reads as zeros
                return values
            except ValueError as error:
                raise FormatError(f"a chunk of {node} can't be read: {_first_line(error)}; copy it again") from None

        yield read

    return array_source(
        path,
        format="zarr",
        shape=shape,
        dtype=np.dtype(array.dtype.numpy_dtype),
        axes=axes,
        opened=opened,
        facts={
            "array": node.relative_to(path).as_posix(),
            "zarr_format": 2 if driver == "zarr" else 3,
            "chunks": list(array.chunk_layout.read_chunk.shape or shape),
        },
        geometry=geometry,
        unit_stated=unit_stated,
        header=header,
        warnings=warnings,
    )


def _first_line(error: Exception) -> str:
    return str(error).split(" [", 1)[0].splitlines()[0]


def _own(volume: StoredVolume, decode: bool) -> Source:
    """One of our own stores."""
    quantisation = volume.quantisation
    decoded = decode and quantisation is not None

    @contextlib.contextmanager
    def opened() -> Iterator[Read]:
        def read(index: tuple[slice, ...]) -> NDArray[Any]:
            values = volume[index]
            return quantisation.decode(values) if decoded and quantisation is not None else values

        yield read

    facts: dict[str, Any] = {
        "kind": volume.kind,
        "levels": volume.levels,
        "chunks": list(volume.array.chunk_layout.read_chunk.shape),
    }
    warnings: tuple[str, ...] = ()
    if quantisation is not None and not decoded:
        facts["quantisation"] = vars(quantisation)
        unit = f" {quantisation.unit}" if quantisation.unit else ""
        warnings = (
            f"values are the stored integers; each stands for stored * {quantisation.scale:.6g} + "
            f"{quantisation.offset:g}{unit}",
        )
    segments = tuple(
        Segment(**{**segment, "color": tuple(segment["color"])}) for segment in volume.metadata.get("segments", [])
    )
    source = array_source(
        volume.path,
        format="zarr",
        shape=volume.shape,
        dtype=np.dtype(np.float32) if decoded else volume.dtype,
        axes="CZYX"[-volume.ndim :],
        opened=opened,
        facts=facts,
        geometry=volume.geometry,
        unit_stated=True,
        header=dict(volume.metadata.get("header", {})),
        warnings=warnings,
    )
    return replace(source, segments=segments)


def write_zarr(
    path: Path,
    source: Source,
    *,
    slices: int,
    kind: str,
    quantisation: Quantisation | None = None,
    metadata: dict[str, Any] | None = None,
    multiscale: bool = True,
    compression: str = "zstd",
    description: str = "",
) -> None:
    """Write a volume as one of our own stores: while one slab is compressed and written, the next is decoded.

    Parameters
    ----------
    path : Path
        Folder, replaced where it is there.
    source : Source
        With a geometry.
    slices : int
        Slices read at a time; whole shards (64) are fastest.
    kind : str
        See `voxloom.io.store.KINDS`.
    quantisation : Quantisation, optional
    metadata : dict, optional
        Kept in the store, with "nonfinite_voxels" where there are any.
    multiscale : bool
        Whether coarser levels are added.
    compression : {"zstd", "none"}
        See `voxloom.io.store.create_volume`.
    description : str
        For progress lines; none are logged when it is empty.

    Raises
    ------
    FormatError
        If the file hands out fewer slices than its header promises.
    """
    shape = source.require_shape()
    if source.geometry is None:
        raise FormatError(f"{source.path} has no voxel size; give voxel_size_um")
    voxels = nonfinite = 0
    with (
        create_volume(
            path,
            shape=shape,
            dtype=source.dtype,
            geometry=source.geometry,
            kind=kind,
            quantisation=quantisation,
            metadata=metadata,
            multiscale=multiscale,
            compression=compression,
        ) as writer,
        ThreadPoolExecutor(max_workers=1) as pool,
    ):
        pending: Future[None] | None = None
        blocks = source.read_blocks(slices)
        for index, values in progress(blocks, total=_blocks(source, slices), description=description):
            if pending is not None:
                pending.result()
            pending = pool.submit(_write_shards, writer, index, values)
            voxels += values.size
            if values.dtype.kind == "f":
                nonfinite += int(values.size - np.count_nonzero(np.isfinite(values)))
        if pending is not None:
            pending.result()
        if voxels != np.prod(shape):
            raise FormatError(f"{source.path} ends after {voxels} of {np.prod(shape)} voxels; copy it again")
        if nonfinite:
            writer.metadata["nonfinite_voxels"] = nonfinite
            logging.getLogger("voxloom").warning("%s: %d voxels are not finite numbers", source.path, nonfinite)


def _blocks(source: Source, slices: int) -> int:
    return -(-source.require_shape()[-3] // slices)


def _write_shards(writer: VolumeWriter, index: Index, values: NDArray[Any]) -> None:
    """Write a slab one shard at a time, so that no more than one is held encoded."""
    height, width = writer.shard_shape[-2:]
    for y in range(0, values.shape[-2], height):
        for x in range(0, values.shape[-1], width):
            tile = (slice(y, min(y + height, values.shape[-2])), slice(x, min(x + width, values.shape[-1])))
            writer[(*index[:-2], *tile)] = values[(..., *tile)]
