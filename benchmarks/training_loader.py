"""What loading costs: an epoch from stored volumes against the same steps on one constant batch; equal patches.

    python benchmarks/training_loader.py                       # a store of 512^3, patches read from disk in every step
    python benchmarks/training_loader.py --edge 128 --steps 4 --rounds 1

Both run the whole loop, with augmentation; the constant one is given the first batch again and again. Nothing is held
in memory, so that every patch is read from the Zarr store. Patches, batches and the 2-D network are those of the
default plan on a CPU. A tenth of that network's work for a voxel, on small patches that each lie in nine chunks of the
store, shows what reading takes at most.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import membranes
import numpy as np
import timing
import torch

from voxloom import io, training, training_setup
from voxloom.labelled import PartBox, TrainingVolume
from voxloom.loading import Prefetched
from voxloom.sampling import Batch, Sampler
from voxloom.volume import Geometry

MOST = 1.05
LIMIT = f"at most {MOST} times the epoch of a constant batch; equal patches for 0, 1 and 2 workers"
GEOMETRY = Geometry(spacing_um=(1.0, 1.0, 1.0))
SMALL = "2-D, 8 x 128², small network"
CASES: dict[str, dict[str, Any]] = {
    "2-D, 2 x 256²": {
        "network": {"widths": [32, 64, 128, 256, 512]},
        "input": {"patch_voxels": [1, 256, 256]},
        "batch_size": 2,
    },
    SMALL: {
        "network": {"widths": [32, 64, 128]},
        "input": {"patch_voxels": [1, 128, 128]},
        "batch_size": 8,
    },
    "3-D, 1 x 64³": {
        "network": {"dimensions": 3, "widths": [16, 32, 64]},
        "input": {"patch_voxels": [64, 64, 64]},
        "batch_size": 1,
    },
}
AUGMENT = {"flip": 0.5, "rotate90": 0.5, "contrast": 0.5, "noise": 0.3}


def store(folder: Path, edge: int) -> TrainingVolume:
    """Tubes in noise, written slab by slab: a volume and its annotation on disk."""
    rng = np.random.default_rng(0)
    y, x = np.ogrid[:edge, :edge]
    held = {}
    for kind in ("image", "annotation"):
        options = {"shape": (edge,) * 3, "dtype": "uint8", "geometry": GEOMETRY, "kind": kind, "multiscale": False}
        with io.create_volume(folder / f"{kind}.zarr", **options) as out:
            for first in range(0, edge, 64):
                last = min(first + 64, edge)
                shift = 6 * np.sin(np.arange(first, last) / 40)[:, None, None]
                mask = ((y + shift) % 32 - 16) ** 2 + ((x + shift) % 32 - 16) ** 2 < 17
                grey = 90 + 70 * mask + rng.integers(-40, 40, mask.shape)
                out[first:last] = (mask if kind == "annotation" else grey).astype(np.uint8)
        held[kind] = io.open_volume(folder / f"{kind}.zarr")
    return TrainingVolume(held["image"], (held["annotation"],), GEOMETRY.spacing_um)


def parts(edge: int) -> list[PartBox]:
    """Nearly everything trains; validation is as small as can be, since it isn't what is measured."""
    last = edge - 32
    return [
        PartBox("tubes", "train", (0, 0, 0), (last - 32, edge, edge)),
        PartBox("tubes", "validation", (last, 0, 0), (last + 1, 64, 64)),
    ]


@contextmanager
def constant_batch() -> Iterator[None]:
    """Give every step the first batch, made once: no data loading."""
    made: dict[int, Batch] = {}
    samples = Sampler.samples

    def first(sampler: Sampler, epoch: int, numbers: Sequence[int]) -> Batch:
        if id(sampler) not in made:
            made[id(sampler)] = samples(sampler, 0, numbers)
        return made[id(sampler)]

    with mock.patch.object(Sampler, "samples", first):
        yield


@contextmanager
def nothing_held() -> Iterator[None]:
    """Read every patch from the store, however much memory there is."""
    with mock.patch.object(training_setup, "HELD_SHARE", 0.0):
        yield


def settings_of(case: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    return complete(**case, epochs=2, samples_per_epoch=options.steps * case["batch_size"])


def complete(**changes: Any) -> dict[str, Any]:
    """A model's settings with an optimiser, a loss and augmentation where none are given."""
    optimiser = {"name": "adamw", "learning_rate": 1e-3}
    return membranes.complete(**{"optimiser": optimiser, "loss": {"name": "bce_dice"}, "augment": AUGMENT, **changes})


def seconds_of_epoch(held: TrainingVolume, settings: dict[str, Any], options: argparse.Namespace) -> float:
    """Of the second epoch, without validation: by then everything is warm."""
    with nothing_held():
        log = training.train(
            {"tubes": held},
            boxes=parts(options.edge),
            settings=settings,
            seed=1,
            memory_mib=options.memory_mib,
            threads=options.threads,
            device=options.device,
        ).log
    return float(settings["samples_per_epoch"] / log[-1]["samples_per_s"])


def has_equal_patches(held: TrainingVolume, settings: dict[str, Any], options: argparse.Namespace) -> bool:
    """Whether 0, 1 and 2 workers make the same batches."""

    def batches(workers: int) -> list[Batch]:
        sampler = Sampler({"tubes": held}, boxes=parts(options.edge), settings=settings, seed=1, memory_mib=0)
        made = Prefetched(lambda step: sampler.batch(0, step), range(sampler.steps_per_epoch), workers=workers)
        return [batch for _, batch in made]

    alone = batches(0)
    return all(
        torch.equal(getattr(one, name), getattr(other, name))
        for workers in (1, 2)
        for one, other in zip(alone, batches(workers), strict=True)
        for name in ("image", "mask", "ignore")
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edge", type=int, default=512)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--memory-mib", type=float, default=4096.0)
    options = parser.parse_args()
    timing.pin(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        held = store(Path(folder), options.edge)
        for name, case in CASES.items():
            settings = settings_of(case, options)
            seconds: dict[str, list[float]] = {"stored": [], "constant": []}
            for number in range(options.rounds):
                for kind in ("stored", "constant") if number % 2 == 0 else ("constant", "stored"):
                    if kind == "stored":
                        seconds[kind].append(seconds_of_epoch(held, settings, options))
                        continue
                    with constant_batch():
                        seconds[kind].append(seconds_of_epoch(held, settings, options))
            is_equal = has_equal_patches(held, settings, options)
            longer = timing.ratio(seconds["stored"], seconds["constant"])
            timing.record(
                f"loading, {name}",
                target="T9",
                ours=round(float(np.median(seconds["stored"])), 3),
                peer=round(float(np.median(seconds["constant"])), 3),
                ratio=round(longer, 3),
                limit=LIMIT if name != SMALL else "for information",
                holds=longer <= MOST and is_equal if name != SMALL else None,
                identical=is_equal,
                device=options.device,
                threads=options.threads,
                steps=options.steps,
                rounds=options.rounds,
            )


if __name__ == "__main__":
    main()
