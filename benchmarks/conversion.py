"""Converting a gzip NRRD file to a store (T3), against pynrrd and zarr-python, and against decoding alone.

    python benchmarks/conversion.py [--slices 1024 4096] [--edge 512] [--rounds 3] [--folder FOLDER]

Every conversion runs in a process of its own, after its imports, on one core; memory is the whole process's peak. Ours
is compared without coarser levels and checksum, which the peer doesn't make; the whole stage stands in its own row.
Memory for what is written is at hand (`timing.have_at_hand`), for all alike.
"""

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import timing
import tissue

from voxloom.io.nrrd import open_nrrd, write_nrrd

OF_PEER, OF_DECODING, MOST_MIB, MOST_GROWTH = 0.70, 2.5, 350, 1.10
MEMORY_MIB = 1024
CODE = {
    "ours": """
from voxloom.io.nrrd import open_nrrd
from voxloom.io.zarr import write_zarr
def work():
    write_zarr(target, open_nrrd(source), slices=64, kind="image", multiscale=False)
""",
    "stage": f"""
from voxloom.convert import convert_file
from voxloom.io import formats, nrrd
def work():
    convert_file(source, target, memory_mib={MEMORY_MIB})
""",
    "peer": """
import nrrd, zarr
from zarr.codecs import BloscCodec
def work():
    values, _ = nrrd.read(str(source), index_order="C")
    compressor = BloscCodec(cname="zstd", clevel=2, shuffle="bitshuffle")
    zarr.create_array(str(target), data=values, chunks=(64,) * 3, compressors=[compressor])
""",
    "decode": """
from isal import igzip
def work():
    buffer = bytearray(4 << 20)
    with open(source, "rb") as file:
        while file.readline() != b"\\n":
            pass
        packed = igzip.IGzipFile(fileobj=file)
        while packed.readinto(buffer):
            pass
""",
}
"""What each contender does, as a process: imports, then `work` from `source` to `target`."""

AROUND = """
import json, sys, time
from pathlib import Path
source, target = map(Path, sys.argv[1:])
{code}
start = time.perf_counter()
work()
seconds = time.perf_counter() - start
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({{"seconds": seconds, "peak_mib": int(status["VmHWM"].split()[0]) / 1024}}))
"""


def make(path: Path, shape: tissue.Shape) -> None:
    write_nrrd(path, tissue.greys(shape, "uint16"), shape=shape, dtype="uint16", geometry=tissue.GEOMETRY)


def converted(name: str, source: Path, target: Path) -> dict[str, float]:
    shutil.rmtree(target, ignore_errors=True)
    return timing.said_by(["-c", AROUND.format(code=CODE[name]), str(source), str(target)])[0]


def is_equal(source: Path, target: Path) -> bool:
    """Whether zarr-python finds in the store what is in the file."""
    import zarr

    stored = zarr.open_array(target / "0", mode="r")
    return all(np.array_equal(stored[index], values) for index, values in open_nrrd(source).read_blocks(64))


def rounds_of(names: list[str], source: Path, rounds: int, at_hand_mib: float) -> dict[str, list[dict[str, float]]]:
    """Interleaved rounds of processes; the first round warms the disk's cache and isn't counted."""
    said: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for number in range(rounds + 1):
        for name in names if number % 2 == 0 else reversed(names):
            timing.have_at_hand(at_hand_mib)
            measured = converted(name, source, source.with_name(f"{name}.zarr"))
            said[name] += [measured] if number else []
    return said


def seconds_of(said: list[dict[str, float]]) -> list[float]:
    return [each["seconds"] for each in said]


def peak_of(said: list[dict[str, float]]) -> float:
    return max(each["peak_mib"] for each in said)


def record_of(who: str, said: dict[str, list[dict[str, float]]], against: str, **more: Any) -> None:
    ours, peer = seconds_of(said[who]), seconds_of(said[against])
    timing.record(
        target="T3",
        ours=round(float(np.median(ours)), 2),
        peer=round(float(np.median(peer)), 2),
        ratio=round(timing.ratio(ours, peer), 2),
        peak_mib=round(peak_of(said[who])),
        **more,
    )


def measure(folder: Path, shapes: list[tissue.Shape], rounds: int) -> None:
    peaks = []
    for number, shape in enumerate(shapes):
        source, size_mib = folder / "volume.nrrd", 2 * np.prod(shape) / 2**20
        make(source, shape)
        said = rounds_of(
            ["ours", "decode"] + (["peer", "stage"] if number == 0 else []), source, rounds, 1.5 * size_mib
        )
        peaks.append(peak_of(said["ours"]))
        same = is_equal(source, folder / "ours.zarr")
        fits = peaks[-1] <= MOST_MIB and peaks[-1] <= MOST_GROWTH * peaks[0]
        words = f"gzip NRRD of {size_mib:.0f} MiB to a store"
        for against, most in (("peer", OF_PEER), ("decode", OF_DECODING)):
            if against in said:
                share = timing.ratio(seconds_of(said["ours"]), seconds_of(said[against]))
                rival = "pynrrd and zarr-python" if against == "peer" else "decoding alone"
                record_of(
                    "ours",
                    said,
                    against,
                    name=f"{words}, against {rival} [s]",
                    limit=f"at most {most:g} of its time, at most {MOST_MIB} MiB and {MOST_GROWTH:g} of the smallest's",
                    identical=same,
                    holds=bool(same and fits and share <= most),
                )
        if "stage" in said:
            record_of(
                "stage",
                said,
                "peer",
                name=f"{words}, with coarser levels and checksum [s]",
                limit="for information",
                holds=None,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--slices", type=int, nargs="+", default=[1024, 4096], help="of each file; the peer only gets the first"
    )
    parser.add_argument("--edge", type=int, default=512, help="height and width")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where a temporary folder is made; 6 GiB")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        measure(Path(folder), [(slices, options.edge, options.edge) for slices in options.slices], options.rounds)


if __name__ == "__main__":
    main()
