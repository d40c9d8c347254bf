"""Peak memory and time of converting a gzip NRRD of uint8, by default 1024^3, in a process of its own.

Prints one line of JSON: {"stage": "convert", "peak_mib": ..., "seconds": ..., ...}.

    python benchmarks/convert_memory.py [--size 1024] [--memory-mib 512] [--folder FOLDER]
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from voxloom.io.nrrd import write_nrrd
from voxloom.volume import Geometry

CONVERT = """
import json, sys, time
from voxloom.convert import convert_file
start = time.perf_counter()
convert_file(sys.argv[1], sys.argv[2], memory_mib=float(sys.argv[3]))
seconds = time.perf_counter() - start
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({"seconds": round(seconds, 1), "peak_mib": round(int(status["VmHWM"].split()[0]) / 1024)}))
"""


def tissue(size: int, *, slices: int) -> Iterator[tuple[tuple[slice, ...], np.ndarray[Any, Any]]]:
    """Noise on a slow wave, in slabs: as hard to compress as a grey image, and quick to make."""
    rng = np.random.default_rng(17)
    noise = rng.normal(128, 12, (slices + 37, size, size)).clip(0, 255).astype(np.uint8)
    for start in range(0, size, slices):
        stop = min(start + slices, size)
        first = start * 7 % 37
        slab = noise[first : first + stop - start] // 2 + np.uint8(40 * (1 + np.sin(start / 100)))
        yield (slice(start, stop), slice(0, size), slice(0, size)), slab


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--memory-mib", type=float, default=512)
    parser.add_argument("--folder", type=Path, help="where the temporary files go; a few GiB")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        source, target = Path(folder) / "volume.nrrd", Path(folder) / "volume.zarr"
        shape = (given.size,) * 3
        write_nrrd(
            source, tissue(given.size, slices=32), shape=shape, dtype="uint8", geometry=Geometry((1.17, 1.17, 1.17))
        )
        words = [sys.executable, "-c", CONVERT, str(source), str(target), str(given.memory_mib)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        measured = json.loads(done.stdout)
        said = {"stage": "convert", **measured, "size": given.size, "gzip_mib": source.stat().st_size >> 20}
        print(json.dumps(said))


if __name__ == "__main__":
    main()
