"""What a block, a shard and a job take that have nothing to do: what is paid for cutting work into pieces.

    python benchmarks/overheads.py [--rounds 3] [--blocks 2000] [--shards 50] [--jobs 20]

Each is the difference between many pieces and a tenth of them, in seconds of the processor, on one core: others on the
machine don't count. Blocks of one voxel, in memory; shards of 64³ zeros, with the account of finished shards that an
interrupted job goes on from; jobs of Snakemake with a script that imports nothing. What the workflow's own scripts
import is in jobs.py, what a dry run takes in dag.py.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import timing

from voxloom import io
from voxloom.blocks import grid, map_blocks
from voxloom.volume import Geometry

EDGE = 64
MOST_MS = {"block": 1.0, "shard": 30.0, "job": 500.0}
SNAKEFILE = """\
rule all:
    input: expand("{{n}}.txt", n=range({count}))

rule job:
    output: "{{n}}.txt"
    script: "job.py"
"""


def cpu_seconds() -> float:
    own, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime


def of_blocks(count: int, folder: Path) -> None:
    array = np.zeros((count, 1, 1), np.uint8)
    map_blocks(lambda read: read, array, out=np.empty_like(array), blocks=grid(array.shape, (1, 1, 1)))


def of_shards(count: int, folder: Path) -> None:
    array = np.zeros((count * EDGE, EDGE, EDGE), np.uint8)
    how = {"shape": array.shape, "dtype": "uint8", "geometry": Geometry((1.0, 1.0, 1.0)), "kind": "mask"}
    with io.create_volume(folder / "out.zarr", multiscale=False, resume="a" * 64, **how) as out:
        assert out.shard_shape == (EDGE, EDGE, EDGE)
        map_blocks(lambda read: read, array, out=out, blocks=grid(array.shape, (EDGE, EDGE, EDGE)))


def of_jobs(count: int, folder: Path) -> None:
    (folder / "Snakefile").write_text(SNAKEFILE.format(count=count))
    (folder / "job.py").write_text("open(snakemake.output[0], 'w').close()\n")
    words = [sys.executable, "-m", "snakemake", "--directory", str(folder), "--snakefile", str(folder / "Snakefile")]
    done = subprocess.run([*words, "--cores", "1", "--quiet", "all"], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)


def each(work: Callable[[int, Path], None], count: int) -> float:
    """Seconds of one piece more."""
    seconds = []
    for pieces in (count // 10, count):
        with tempfile.TemporaryDirectory() as folder:
            begin = cpu_seconds()
            work(pieces, Path(folder))
            seconds.append(cpu_seconds() - begin)
    return (seconds[1] - seconds[0]) / (count - count // 10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--blocks", type=int, default=2000)
    parser.add_argument("--shards", type=int, default=50)
    parser.add_argument("--jobs", type=int, default=20)
    options = parser.parse_args()
    timing.pin(1)
    cases = {"block": (of_blocks, options.blocks), "shard": (of_shards, options.shards), "job": (of_jobs, options.jobs)}
    for name, (work, count) in cases.items():
        each(work, 10)  # loads what is loaded once
        seconds = [each(work, count) for _ in range(options.rounds)]
        timing.record(
            f"one {name} more [ms of CPU]",
            target="overhead",
            ours=round(float(np.median(seconds)) * 1000, 2),
            peer=None,
            ratio=None,
            limit=f"at most {MOST_MS[name]:g}",
            holds=float(np.median(seconds)) * 1000 <= MOST_MS[name],
        )


if __name__ == "__main__":
    main()
