"""Scores of a prediction: precision-recall curves (T17), and how two segmentations agree (T18).

    python benchmarks/scores.py [--only PART ...] [--size 256] [--voxels 1000000000] [--rounds 5] [--folder FOLDER]

On one core. The curve is compared point by point with scikit-learn's; torchmetrics takes so long that both are given
the first 2²⁰ voxels only. A billion voxels are read from the disk, and compared with reading them.
"""

import argparse
import os
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import against
import cells
import numpy as np
import timing
import tissue
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, precision_recall_curve

from voxloom import metrics, partitions

MOST_MIB = 16
FEW = 1 << 20
PIECE = 1 << 22

Points = tuple[NDArray[np.float64], NDArray[np.float64]]


def our_points(stored: NDArray, mask: NDArray[np.bool_]) -> Points:
    curve = metrics.precision_recall_curve(metrics.joint_histogram(stored, mask))
    return curve.precision, curve.recall


def their_points(stored: NDArray, mask: NDArray[np.bool_]) -> Points:
    precision, recall, _ = precision_recall_curve(mask.reshape(-1), stored.reshape(-1))
    return precision[:-1], recall[:-1]


def torchmetrics_curve(stored: NDArray[np.uint8], mask: NDArray[np.bool_]) -> object:
    import torch
    from torchmetrics.classification import BinaryPrecisionRecallCurve

    metric = BinaryPrecisionRecallCurve(thresholds=torch.arange(256) / 255, validate_args=False)
    for first in range(0, stored.size, 1 << 16):
        at = slice(first, first + (1 << 16))
        metric.update(torch.from_numpy(stored[at]).float() / 255, torch.from_numpy(mask[at]).long())
    return metric.compute()


def binned_average(scores: NDArray[np.float32], mask: NDArray[np.bool_]) -> float:
    _, histogram, is_mixed = metrics.binned_histogram(scores, mask)
    return float(metrics.average_precision(histogram, is_mixed=is_mixed))


def curves(options: argparse.Namespace) -> None:
    shape = (options.size,) * 3
    mask = tissue.whole(shape, tissue.masks(shape))
    bytes_ = tissue.whole(shape, tissue.probabilities(shape))
    rng = np.random.default_rng(0)
    words = bytes_.astype(np.uint16) * 256 + rng.integers(0, 256, shape, np.uint16)
    common = {
        "target": "T17",
        "rounds": options.rounds,
        "most_mib": MOST_MIB,
        "memory_words": f"{MOST_MIB} MiB",
        "stage": "evaluate",
    }
    for stored in (bytes_, words):
        ours, theirs = partial(our_points, stored, mask), partial(their_points, stored, mask)
        same = all(np.array_equal(a, b) for a, b in zip(ours(), theirs(), strict=True))
        peers = {"scikit-learn": against.Peer(theirs, 30, "sklearn")}
        against.compare(
            f"precision-recall curve, {options.size}³ {stored.dtype}", ours, peers, identical=same, **common
        )
    few = (bytes_.reshape(-1)[:FEW], mask.reshape(-1)[:FEW])
    same = all(np.array_equal(a, b) for a, b in zip(our_points(*few), their_points(*few), strict=True))
    peers = {"torchmetrics": against.Peer(partial(torchmetrics_curve, *few), 300, "torchmetrics")}
    against.compare("precision-recall curve, 2²⁰ uint8", partial(our_points, *few), peers, identical=same, **common)
    real = (bytes_ / np.float32(255) + rng.normal(0, 1e-3, shape).astype(np.float32)).clip(0, 1)
    ours, theirs = partial(binned_average, real, mask), partial(their_points, real, mask)
    off = abs(ours() - average_precision_score(mask.reshape(-1), real.reshape(-1)))
    against.compare(
        f"precision-recall curve, {options.size}³ float32 in 65536 bins",
        ours,
        {"scikit-learn": against.Peer(theirs, 30, "sklearn")},
        identical=f"average precision within {off:.1e}",
        also_holds=off <= 1e-6,
        **common,
    )


def pieces(path: Path, voxels: int, dtype: type) -> Iterator[NDArray]:
    """The values of a file, its pages dropped from memory first."""
    values = np.empty(PIECE, dtype)
    with open(path, "rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        for first in range(0, voxels, PIECE):
            part = values[: min(PIECE, voxels - first)]
            file.readinto(part.view(np.uint8))
            yield part


def write(folder: Path, voxels: int) -> tuple[Path, Path]:
    """As many scores and as large a mask, from a smaller volume again and again."""
    shape = (64, 256, 256)
    sources = {"scores": tissue.probabilities(shape), "mask": tissue.masks(shape)}
    for name, slabs in sources.items():
        part = tissue.whole(shape, slabs).reshape(-1).view(np.uint8)
        with open(folder / name, "wb") as file:
            for first in range(0, voxels, part.size):
                file.write(part[: voxels - first].data)
            os.fsync(file.fileno())
    return folder / "scores", folder / "mask"


def a_billion(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        scores, mask = write(Path(folder), options.voxels)

        def read() -> None:
            for path in (scores, mask):
                for _ in pieces(path, options.voxels, np.uint8):
                    pass

        def ours() -> NDArray[np.int64]:
            total = np.zeros((2, 256), np.int64)
            both = zip(pieces(scores, options.voxels, np.uint8), pieces(mask, options.voxels, np.bool_), strict=True)
            for values, truth in both:
                total += metrics.joint_histogram(values, truth)
            return total

        seconds = timing.interleaved({"ours": ours, "read": read}, rounds=options.rounds)
        slower, peak = timing.ratio(seconds["ours"], seconds["read"]), timing.peak_mib(ours)
        same = int(ours().sum()) == options.voxels
    timing.record(
        f"joint histogram of {options.voxels:.0e} voxels from the disk, against reading them",
        target="T17",
        ours=round(float(np.median(seconds["ours"])), 3),
        peer=round(float(np.median(seconds["read"])), 3),
        ratio=round(1 / slower, 2),
        limit=f"at most twice the time, {MOST_MIB} MiB",
        peak_mib=round(peak, 1),
        identical=same,
        holds=bool(slower <= 2 and peak <= MOST_MIB and same),
        rate=2 * options.voxels / float(np.median(seconds["ours"])) / 1e9,
        roof="disk read",
        stage="evaluate",
    )


def our_agreement(prediction: NDArray, truth: NDArray) -> tuple[float, float, float]:
    """Both variations of information, and the adapted Rand error over pairs of different voxels, as scikit-image's."""
    table = partitions.contingency(prediction, truth)
    both, of_truth, of_prediction = (
        float((counts.astype(float) ** 2).sum() - counts.sum())
        for counts in (table.counts, _sums(table.truth, table.counts), _sums(table.prediction, table.counts))
    )
    return (*partitions.variation_of_information(table), 1 - 2 * both / (of_truth + of_prediction))


def _sums(labels: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.bincount(np.unique(labels, return_inverse=True)[1], weights=counts)


def their_agreement(prediction: NDArray, truth: NDArray) -> tuple[float, float, float]:
    from skimage.metrics import adapted_rand_error, variation_of_information

    merge, split = variation_of_information(prediction, truth)
    return split, merge, adapted_rand_error(truth, prediction)[0]


def agreement(options: argparse.Namespace) -> None:
    truth = cells.cells(options.size)
    moved = np.roll(truth, (2, 1, 3), axis=(0, 1, 2))
    prediction = moved // 2 + 1  # pairs are merged, and borders moved
    sparse = [(labels.astype(np.uint64) * np.uint64(1000003)) for labels in (prediction, truth)]
    ours, theirs = partial(our_agreement, *sparse), partial(their_agreement, prediction, truth)
    off = max(abs(a - b) for a, b in zip(ours(), theirs(), strict=True))
    against.compare(
        f"variation of information and adapted Rand error, {options.size}³ uint64",
        ours,
        {"scikit-image": against.Peer(theirs, 3, "skimage")},
        target="T18",
        rounds=options.rounds,
        identical=f"within {off:.0e}",
        also_holds=off <= 1e-9,
        most_mib=20 * truth.size / against.MIB,
        memory_words="20 bytes a voxel",
        stage="evaluate",
    )


PARTS = {"curves": curves, "billion": a_billion, "agreement": agreement}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--size", type=int, default=256, help="edge of the cube, in voxels")
    parser.add_argument("--voxels", type=int, default=10**9, help="that are read from the disk")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="on the disk to read from")
    options = parser.parse_args()
    timing.pin(1)
    for part in options.only:
        PARTS[part](options)


if __name__ == "__main__":
    main()
