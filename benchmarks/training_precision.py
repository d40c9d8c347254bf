"""Two comparisons of whole short trainings on the EM membranes: bfloat16 with float32, reproducible or not.

    python benchmarks/training_precision.py
    python benchmarks/training_precision.py --epochs 2 --samples 8 --seeds 1 2 --only precision

Precision: the same seeds, hence the same weights and batches, in both number formats; the curves of the mean loss must
lie within the spread that other seeds make. Determinism: seconds of an epoch with and without it, interleaved, and
whether two runs give the same bytes.
"""

import argparse
from typing import Any

import membranes
import numpy as np
import timing
import torch
from numpy.typing import NDArray

from voxloom import training


def settings_of(options: argparse.Namespace, **changes: Any) -> dict[str, Any]:
    return membranes.complete(
        network={"widths": [16, 32, 64]},
        input={"patch_voxels": [1, 128, 128]},
        loss={"name": "bce_dice"},
        optimiser={"name": "adamw", "learning_rate": 2e-3, "weight_decay": 1e-2},
        batch_size=4,
        epochs=options.epochs,
        samples_per_epoch=options.samples,
        augment={"flip": 0.5, "rotate90": 0.5},
        **changes,
    )


def trained(settings: dict[str, Any], seed: int, options: argparse.Namespace) -> training.Trained:
    held = membranes.volume()
    return training.train(
        {"membranes": held},
        boxes=membranes.boxes(held),
        settings=settings,
        seed=seed,
        memory_mib=2048,
        threads=options.threads,
        device=options.device,
    )


def compare_precisions(options: argparse.Namespace) -> None:
    curves: dict[str, NDArray[np.float64]] = {}
    final: dict[str, NDArray[np.float64]] = {}
    for precision in ("float32", "bfloat16"):
        logs = [trained(settings_of(options, precision=precision), seed, options).log for seed in options.seeds]
        curves[precision] = np.array([[row["training_loss"] for row in log] for log in logs])  # (seeds, epochs)
        final[precision] = np.array([log[-1]["validation_average_precision"] for log in logs])
    late = slice(options.epochs // 2, None)
    apart = np.abs(curves["bfloat16"].mean(axis=0) - curves["float32"].mean(axis=0))[late].mean()
    spread = np.ptp(curves["float32"], axis=0)[late].mean()
    timing.record(
        "bfloat16 converges as float32",
        target="T10",
        ours=round(float(curves["bfloat16"].mean(axis=0)[-1]), 4),
        peer=round(float(curves["float32"].mean(axis=0)[-1]), 4),
        ratio=round(float(apart / spread), 3),
        limit="mean losses of the later half no farther apart than float32's own seeds",
        holds=bool(apart <= spread),
        device=options.device,
        distance=round(float(apart), 5),
        spread_of_seeds=round(float(spread), 5),
        seeds=options.seeds,
        steps=options.epochs * -(-options.samples // 4),
        losses={name: np.round(curve, 4).tolist() for name, curve in curves.items()},
        validation_average_precision={name: np.round(values, 4).tolist() for name, values in final.items()},
    )


def compare_determinism(options: argparse.Namespace) -> None:
    seconds: dict[bool, list[float]] = {True: [], False: []}
    weights: dict[bool, list[dict[str, torch.Tensor]]] = {True: [], False: []}
    for number in range(options.rounds):
        for is_deterministic in (True, False) if number % 2 == 0 else (False, True):
            made = trained(settings_of(options, deterministic=is_deterministic), 1, options)
            seconds[is_deterministic].append(float(options.samples / made.log[-1]["samples_per_s"]))
            weights[is_deterministic].append(made.network.state_dict())
    first = weights[True][0]
    is_identical = all(torch.equal(first[name], again[name]) for again in weights[True] for name in first)
    timing.record(
        "cost of determinism",
        target="equal seeds, equal bytes",
        ours=round(float(np.median(seconds[True])), 3),
        peer=round(float(np.median(seconds[False])), 3),
        ratio=round(timing.ratio(seconds[True], seconds[False]), 3),
        limit="said, not limited; equal bytes in every run",
        holds=is_identical,
        identical=is_identical,
        device=options.device,
        threads=options.threads,
        rounds=options.rounds,
    )


COMPARISONS = {"precision": compare_precisions, "determinism": compare_determinism}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=COMPARISONS, default=list(COMPARISONS))
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--samples", type=int, default=80, help="an epoch, in batches of 4")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    timing.pin(options.threads)
    for name in options.only:
        COMPARISONS[name](options)


if __name__ == "__main__":
    main()
