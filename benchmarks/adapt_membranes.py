"""Membranes of two electron microscopes: a network that begins with the other's weights against one from scratch.

    python benchmarks/adapt_membranes.py FOLDER --threads 1 --seeds 1

FOLDER holds vnc-sstem (the source: ten sections learnt from) and isbi2012-em (the target: few labels of sections 0 to
5, sections 8 and 9 validate, 12 to 19 test). Prints a Markdown table: average precision of the test sections, and F1
there at the threshold that is best on the validation sections. Both volumes are real; every row has the same network,
learning rate and steps.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from PIL import Image

from voxloom import config, few_labels, inference, metrics, network_settings
from voxloom.initialisation import Initial
from voxloom.labelled import PartBox, TrainingVolume
from voxloom.training import train

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = config.read_yaml(ROOT / "workflow" / "schemas" / "task.schema.yaml")
SHARES = {"a strip of 128 rows": 1 / 24, "one section": 1 / 6, "six sections": 1.0}


def model(**changes):
    """Settings with the schema's defaults."""
    given = {
        "network": {"widths": [16, 32, 64]},
        "input": {"patch_voxels": [1, 128, 128], "normalise": "volume_zscore"},
        "optimiser": {"name": "adamw", "learning_rate": 2e-3, "weight_decay": 1e-2},
        "schedule": {"name": "cosine", "warmup_steps": 10},
        "batch_size": 8,
        "augment": {"flip": 0.5, "rotate90": 0.5, "contrast": 0.5},
        "precision": "float32",
        **changes,
    }
    task = {"annotate": {"recipe": [{"threshold": {"above": 1}}]}, "models": {"m": given}}
    settings = config.check(task, SCHEMA, name="adapt_membranes")["models"]["m"]
    return {**settings, "network": network_settings.resolved(settings["network"])}


def stack(paths):
    return np.stack([np.array(Image.open(path).convert("L")) for path in paths])


def sections(numbers, part, *, volume, edge):
    return [PartBox(volume, part, (z, 0, 0), (z + 1, edge, edge)) for z in numbers]


def learn(volume, boxes, settings, *, seed, threads, initial=None):
    begin = time.monotonic()
    kept = few_labels.share_of_boxes(boxes, settings=settings, seed=seed)
    trained = train(
        {boxes[0].volume: volume}, boxes=kept, settings=settings, seed=seed, memory_mib=2000, threads=threads,
        device="cpu", initial=initial,
    )  # fmt: skip
    return trained, time.monotonic() - begin


def scores(trained, volume, *, threads):
    """Average precision of the test sections, and F1 there at the validation sections' best threshold."""
    found = np.empty(volume.image.shape, dtype=np.uint8)
    inference.predict_volume(
        trained.network, trained.settings, volume.image, found, memory_mib=1000, threads=threads, device="cpu"
    )
    validation, test = (
        metrics.joint_histogram(found[part], volume.annotations[0][part] == 1) for part in (slice(8, 10), slice(12, 20))
    )
    level = int(metrics.best_threshold(validation, metric="f1")[0])
    mask, truth = found[12:20] >= level, volume.annotations[0][12:20] == 1
    both = int((mask & truth).sum())
    return float(metrics.average_precision(test)), 2 * both / int(mask.sum() + truth.sum())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=1)
    chosen = parser.parse_args()
    vnc, isbi = chosen.folder / "vnc-sstem", chosen.folder / "isbi2012-em" / "train"
    source = TrainingVolume(
        stack([vnc / "raw" / f"{k:02}.tif" for k in range(12)]),
        ((stack([vnc / "membranes" / f"{k:02}.png" for k in range(12)]) > 0).astype(np.uint8),),
        (0.047, 0.0046, 0.0046),
    )
    target = TrainingVolume(
        stack([isbi / "image" / f"{k}.png" for k in range(20)]),
        ((stack([isbi / "label" / f"{k}.png" for k in range(20)]) == 0).astype(np.uint8),),
        (0.05, 0.004, 0.004),
    )
    boxes = [
        *sections(range(10), "train", volume="vnc", edge=1024),
        *sections([11], "validation", volume="vnc", edge=1024),
    ]
    first, seconds = learn(source, boxes, model(epochs=1, samples_per_epoch=1600), seed=0, threads=chosen.threads)
    ap, f1 = scores(first, target, threads=chosen.threads)
    print("| labels of the target | voxels | seed | begins | AP | F1 | s |\n|---|---|---|---|---|---|---|")
    print(f"| none | 0 | – | the source as it is | {ap:.3f} | {f1:.3f} | {seconds:.0f} |", flush=True)
    weights = Initial("vnc", "", first.network.state_dict(), (), ())
    boxes = [
        *sections(range(6), "train", volume="isbi", edge=512),
        *sections([8, 9], "validation", volume="isbi", edge=512),
    ]
    for name, share in SHARES.items():
        settings = model(epochs=1, samples_per_epoch=640, train_share=share)
        for seed in range(chosen.seeds):
            for begins, initial in (("at random", None), ("with the source", weights)):
                trained, seconds = learn(target, boxes, settings, seed=seed, threads=chosen.threads, initial=initial)
                ap, f1 = scores(trained, target, threads=chosen.threads)
                voxels = trained.counts["training_annotated_voxels"]
                row = (name, voxels, seed, begins, f"{ap:.3f}", f"{f1:.3f}", f"{seconds:.0f}")
                print(f"| {' | '.join(map(str, row))} |", flush=True)


if __name__ == "__main__":
    main()
