"""How stores are compressed: zstd's level 2 as `voxloom.io.store` has it, against level 3 with all bits shuffled.

    python benchmarks/compression.py [--slices 128] [--edge 512] [--rounds 5]

Both write the same chunks and shards with tensorstore, on one core, to the page cache; times and bytes have rows of
their own.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts
import timing
import tissue
from numpy.typing import NDArray

from voxloom import io
from voxloom.distance import clipped_distance, distance_quantisation
from voxloom.instances import label_objects
from voxloom.io.pyramid import reduced
from voxloom.io.store import CHUNK, shards_of

CLIP_UM = 10.0
MOST_SECONDS, MOST_BYTES, MOST_MORE = 1.05, 1.10, 0.01
GAINS = {"distance": (0.6, 0.5)}
"""Where stores are meant to be faster and smaller than that."""


def volumes(shape: tissue.Shape) -> Iterator[tuple[str, str, NDArray[Any]]]:
    """What stages store, by name and kind."""
    mask = tissue.whole(shape, tissue.masks(shape)).astype(bool)
    grey = tissue.whole(shape, tissue.greys(shape))
    distance = clipped_distance(mask, spacing_um=tissue.GEOMETRY.spacing_um, clip_um=CLIP_UM)
    stored = np.rint(distance / distance_quantisation(CLIP_UM).scale).astype(np.uint16)
    yield "image of 8 bits", "image", grey
    yield "its first coarser level", "image", reduced(grey, (2, 2, 2), "mean")
    yield "image of 16 bits", "image", tissue.whole(shape, tissue.greys(shape, "uint16"))
    yield "annotation", "annotation", mask.astype(np.uint8)
    yield "distances of 16 bits", "distance", stored
    yield "objects of 32 bits", "labels", label_objects(mask, connectivity=26)[0].astype(np.uint32)


def write_ours(path: Path, kind: str, values: NDArray[Any]) -> None:
    options = {"shape": values.shape, "dtype": values.dtype, "geometry": tissue.GEOMETRY, "multiscale": False}
    with io.create_volume(path, kind=kind, **options) as out:
        out[:, :, :] = values


def write_peer(path: Path, kind: str, values: NDArray[Any]) -> None:
    size = values.dtype.itemsize
    blosc = {"cname": "zstd", "clevel": 3, "shuffle": "bitshuffle" if size > 1 else "noshuffle", "typesize": size}
    endian = {"configuration": {"endian": "little"}} if size > 1 else {}
    sharding = {
        "chunk_shape": [min(CHUNK, edge) for edge in values.shape],
        "codecs": [{"name": "bytes", **endian}, {"name": "blosc", "configuration": {**blosc, "blocksize": 0}}],
        "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
        "index_location": "end",
    }
    array = ts.open(
        {
            "driver": "zarr3",
            "kvstore": {"driver": "file", "path": str(path), "file_io_sync": False},
            "metadata": {
                "shape": list(values.shape),
                "data_type": values.dtype.name,
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(shards_of(values.shape))}},
                "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
                "fill_value": 0,
            },
        },
        create=True,
        delete_existing=True,
        context=ts.Context({"data_copy_concurrency": {"limit": 1}}),
    ).result()
    array[...].write(values).result()


def measure(folder: Path, name: str, kind: str, values: NDArray[Any], rounds: int) -> None:
    writers = {"ours": write_ours, "peer": write_peer}
    cases = {who: (lambda who=who, write=write: write(folder / who, kind, values)) for who, write in writers.items()}
    seconds = timing.interleaved(cases, rounds=rounds)
    is_same = np.array_equal(io.open_volume(folder / "ours")[:, :, :], values)
    mib = {who: sum(f.stat().st_size for f in (folder / who).rglob("c/**/*") if f.is_file()) / 2**20 for who in cases}
    most_seconds, most_bytes = GAINS.get(kind, (MOST_SECONDS, MOST_BYTES))
    more = 0.0 if kind in GAINS else MOST_MORE
    relative, words = timing.ratio(seconds["ours"], seconds["peer"]), f"{name}, {' × '.join(map(str, values.shape))}"
    timing.record(
        f"{words}, written [s]",
        target="compression",
        ours=round(float(np.median(seconds["ours"])), 3),
        peer=round(float(np.median(seconds["peer"])), 3),
        ratio=round(relative, 2),
        limit=f"at most {most_seconds:g} of level 3's",
        identical=is_same,
        holds=is_same and relative <= most_seconds,
    )
    is_small = mib["ours"] <= most_bytes * mib["peer"] or mib["ours"] - mib["peer"] <= more * values.nbytes / 2**20
    timing.record(
        f"{words}, on disk [MiB]",
        target="compression",
        ours=round(mib["ours"], 2),
        peer=round(mib["peer"], 2),
        ratio=round(mib["ours"] / mib["peer"], 2),
        limit=f"at most {most_bytes:g} of level 3's"
        + (f", or {more:.0%} of what it is uncompressed more" * bool(more)),
        identical=is_same,
        holds=is_same and is_small,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=128)
    parser.add_argument("--edge", type=int, default=512, help="height and width")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    timing.pin(1)
    for name, kind, values in volumes((options.slices, options.edge, options.edge)):
        with tempfile.TemporaryDirectory() as folder:
            measure(Path(folder), name, kind, values, options.rounds)


if __name__ == "__main__":
    main()
