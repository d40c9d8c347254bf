"""Peak memory of predicting a large volume: prints {"stage": "predict", "peak_mib": ..., "seconds": ..., ...}.

    python benchmarks/predict_memory.py                # 1024^3 uint8, the published network: an hour on two cores
    python benchmarks/predict_memory.py --slices 64    # the same memory, in minutes: blocks are 64 slices deep

Memory doesn't depend on what the network learnt, so its weights are random.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from voxloom import inference, io, networks
from voxloom.volume import PROBABILITY, Geometry

GEOMETRY = Geometry(spacing_um=(1.17, 1.17, 1.17))


def settings(size: list[int] | None) -> dict:
    return {
        "network": {
            "name": "unet",
            "dimensions": 2,
            "widths": [32, 64, 128],
            "slices": 1,
            "slice_step": 1,
            "norm": "batch",
        },
        "input": {"size": size, "patch_voxels": [1, 128, 128], "normalise": "zscore"},
        "normalisation": {"name": "zscore", "mean": 128.0, "deviation": 50.0, "dtype": "uint8"},
        "precision": "auto",
        "test_time_flips": False,
    }


def write_image(path: Path, shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    with io.create_volume(path, shape=shape, dtype="uint8", geometry=GEOMETRY, kind="image", multiscale=False) as out:
        for z in range(0, shape[0], 64):
            depth = min(64, shape[0] - z)
            out[z : z + depth] = rng.integers(0, 256, (depth, *shape[1:]), dtype=np.uint8)


def predict(folder: Path, *, size: list[int] | None, memory_mib: int, threads: int) -> None:
    image = io.open_volume(folder / "image.zarr")
    model = settings(size)
    begin = time.monotonic()
    with io.create_volume(
        folder / "probability.zarr",
        shape=image.shape,
        dtype="uint8",
        geometry=image.geometry,
        kind="probability",
        quantisation=PROBABILITY,
    ) as out:
        inference.predict_volume(
            networks.build(model["network"], seed=0), model, image, out, memory_mib=memory_mib, threads=threads
        )
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    result = {
        "stage": "predict",
        "peak_mib": round(peak_mib),
        "seconds": round(time.monotonic() - begin, 1),
        "shape": image.shape,
        "memory_mib": memory_mib,
        "threads": threads,
        "input_size": size,
    }
    print(json.dumps(result))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=1024, help="depth of the volume")
    parser.add_argument("--edge", type=int, default=1024, help="height and width of the volume")
    parser.add_argument("--size", type=int, nargs=2, default=None, help="scale slices to this (Y, X) size")
    parser.add_argument("--memory-mib", type=int, default=2048, help="budget given to predict")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=None, help="work here, a folder that holds image.zarr")
    options = parser.parse_args()
    if options.folder:
        predict(options.folder, size=options.size, memory_mib=options.memory_mib, threads=options.threads)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_image(Path(folder) / "image.zarr", (options.slices, options.edge, options.edge))
        # a process of its own: its peak isn't that of making the image
        subprocess.run([sys.executable, __file__, "--folder", folder, *sys.argv[1:]], check=True)


if __name__ == "__main__":
    main()
