"""What the same minutes of training make of real EM membranes: the default plan, the published network, nnU-Net's.

    python benchmarks/training_membranes.py                                    # ten minutes each, on two threads
    python benchmarks/training_membranes.py --minutes 1 --contenders published nnunet
    python benchmarks/training_membranes.py --resume                           # after an interruption

Every contender learns from the same sections with the same seed, threads, minutes and loop (`voxloom.training.train`,
whose schedules follow the time), in a process of its own. Thresholds are chosen on the validation sections; the test
sections are scored once. nnU-Net's network needs dynamic-network-architectures (see nnunet.py) and is given the
augmentation of the default plan. Probabilities, training logs and a picture of each contender are left in --folder.
"""

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import membranes
import nnunet
import numpy as np
import timing
from numpy.typing import NDArray
from scipy import ndimage

from voxloom import devices, figures, metrics, partitions, training
from voxloom.labelled import PartBox, TrainingVolume
from voxloom.predictor import prepare

TARGET = "EM membranes, equal minutes"
MEMORY_MIB = 6144
ENDLESS = 100_000
RAND_LEVELS = range(13, 255, 11)
WARM_UP_SAMPLES = 12


def automatic(held: TrainingVolume, boxes: Sequence[PartBox], options: argparse.Namespace) -> dict[str, Any]:
    """The default plan; it is told the minutes, the device and the threads."""
    return membranes.automatic(
        held, minutes=options.minutes, device=options.device, threads=options.threads, memory_mib=MEMORY_MIB
    )


def published(task: str, held: TrainingVolume, boxes: Sequence[PartBox], options: argparse.Namespace) -> dict[str, Any]:
    """The shipped settings of a task, whose ten epochs of falling rates are spread over the minutes."""
    settings = membranes.published(task)
    rate = samples_per_s({**settings, "epochs": 2, "samples_per_epoch": WARM_UP_SAMPLES}, held, boxes, options)
    samples = max(1, round(0.95 * rate * 60 * options.minutes / settings["epochs"]))
    return {**settings, "samples_per_epoch": samples}


def published_axons(held: TrainingVolume, boxes: Sequence[PartBox], options: argparse.Namespace) -> dict[str, Any]:
    return published("axons", held, boxes, options)


def published_vessels(held: TrainingVolume, boxes: Sequence[PartBox], options: argparse.Namespace) -> dict[str, Any]:
    return published("vessels", held, boxes, options)


def nnunet_own(held: TrainingVolume, boxes: Sequence[PartBox], options: argparse.Namespace) -> dict[str, Any]:
    """nnU-Net's network, loss, optimiser, schedule and batch; augmented as the default plan."""
    plan = automatic(held, boxes, options)
    settings = membranes.complete(
        description="nnU-Net's 2d configuration.",
        input={"patch_voxels": nnunet.PATCH_VOXELS, "normalise": "zscore"},
        loss={"name": "bce_dice"},
        optimiser=nnunet.OPTIMISER,
        schedule=nnunet.SCHEDULE,
        gradient_clip=nnunet.GRADIENT_CLIP,
        batch_size=nnunet.BATCH_SIZE,
        epochs=ENDLESS,
        samples_per_epoch=plan["samples_per_epoch"],
        foreground_share=nnunet.FOREGROUND_SHARE,
        test_time_flips=True,
    )
    nnunet.register()
    return {**settings, "network": {**settings["network"], **nnunet.NETWORK}, "augment": plan["augment"]}


def nnunet_tuned(held: TrainingVolume, boxes: Sequence[PartBox], options: argparse.Namespace) -> dict[str, Any]:
    """nnU-Net's network and loss with the default plan's optimiser, schedule, batch and patch: many more steps.

    Without averaged weights, which nnU-Net doesn't have.
    """
    plan, own = automatic(held, boxes, options), nnunet_own(held, boxes, options)
    taken = ("optimiser", "schedule", "gradient_clip", "batch_size")
    factor = 2 ** (len(nnunet.WIDTHS) - 1)
    z, *plane = plan["input"]["patch_voxels"]
    patch = [z, *(factor * math.ceil(voxels / factor) for voxels in plane)]
    return {**own, **{key: plan[key] for key in taken}, "input": {**own["input"], "patch_voxels": patch}}


Contender = Callable[[TrainingVolume, Sequence[PartBox], argparse.Namespace], dict[str, Any]]
CONTENDERS: dict[str, tuple[str, Contender]] = {
    "auto": ("voxloom, `network: auto`, defaults", automatic),
    "published": ("shallow U-Net as published for axons", published_axons),
    "published_vessels": ("shallow U-Net as published for vessels", published_vessels),
    "nnunet": ("nnU-Net's network, loss and optimiser", nnunet_own),
    "nnunet_tuned": ("nnU-Net's network and loss, auto's patch, batch and optimiser", nnunet_tuned),
}


def samples_per_s(
    settings: Mapping[str, Any], held: TrainingVolume, boxes: Sequence[PartBox], options: argparse.Namespace
) -> float:
    """Speed of the last epoch, validation counted in."""
    log = trained(settings, held, boxes, options).log
    return float(settings["samples_per_epoch"] / log[-1]["seconds"])


def trained(
    settings: Mapping[str, Any], held: TrainingVolume, boxes: Sequence[PartBox], options: argparse.Namespace
) -> training.Trained:
    return training.train(
        {"membranes": held},
        boxes=boxes,
        settings=settings,
        seed=options.seed,
        memory_mib=MEMORY_MIB,
        threads=options.threads,
        device=options.device,
    )


def run(options: argparse.Namespace) -> None:
    """Train one contender, score it, and leave its record and probabilities in the folder."""
    held = membranes.volume()
    boxes = membranes.boxes(held)
    learnt = membranes.without_test(held, boxes)
    settings = {**CONTENDERS[options.run][1](learnt, boxes, options), "max_minutes": options.minutes}
    begin = time.monotonic()
    made = trained(settings, learnt, boxes, options)
    minutes = (time.monotonic() - begin) / 60
    peak_mib = timing.resident_mib("VmHWM")
    found: dict[str, Any] = {}
    stored: dict[str, NDArray[np.uint8]] = {}
    for name, has_flips in (("plain", False), ("mirrored", True)):
        stored[name] = predicted(made, held, boxes, has_flips=has_flips, options=options)
        found[name] = scores(stored[name], held, boxes)
    chosen = "mirrored" if settings["test_time_flips"] else "plain"
    row = {
        **key(options.run, options.seed, options),
        "minutes": round(minutes, 2),
        "epochs": len(made.log),
        "kept_epoch": made.kept_epoch,
        "steps": int(made.log[-1]["step"]),
        "parameters": made.counts["parameters"],
        "batch": settings["batch_size"],
        "patch": settings["input"]["size"] or settings["input"]["patch_voxels"][1:],
        "peak_mib": round(peak_mib),
        "is_mirrored": bool(settings["test_time_flips"]),
        **found[chosen],
        "other": found["plain" if chosen == "mirrored" else "mirrored"],
    }
    stem = options.folder / f"{options.run}-{options.seed}"
    np.savez_compressed(stem.with_suffix(".npz"), probability=stored[chosen])
    stem.with_suffix(".json").write_text(json.dumps({**row, "settings": made.settings, "log": made.log}, indent=1))
    draw(options.run, stored[chosen], held, row["level"], options.folder / f"{options.run}-{options.seed}")


def key(contender: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """What two records must share to stand in one table."""
    given = {"minutes_given": options.minutes, "threads": options.threads, "device": options.device}
    return {"contender": contender, "seed": seed, **given, "hardware": timing.hardware()}


def finished(file: Path, wanted: Mapping[str, Any]) -> bool:
    """Whether a contender's record of an earlier run is there, of the same minutes and machine."""
    if not file.is_file():
        return False
    kept = json.loads(file.read_text())
    return all(kept.get(name) == value for name, value in wanted.items())


def predicted(
    made: training.Trained,
    held: TrainingVolume,
    boxes: Sequence[PartBox],
    *,
    has_flips: bool,
    options: argparse.Namespace,
) -> NDArray[np.uint8]:
    """Probabilities of the sections that are scored, 0 in the others."""
    out = np.zeros(held.image.shape, dtype=np.uint8)
    predictor = prepare(
        made.network,
        made.settings,
        memory_mib=0.5 * MEMORY_MIB,
        device=options.device,
        precision=None,
        has_flips=has_flips,
        has_rotations=False,
    )
    with devices.reproducible(threads=options.threads):
        for box in boxes:
            if box.part in membranes.PARTS:
                predictor.region(held.image, box.start, box.stop, out[box.start[0] : box.stop[0]])
    return out


def scores(stored: NDArray[np.uint8], held: TrainingVolume, boxes: Sequence[PartBox]) -> dict[str, Any]:
    """Scores of the test sections at thresholds that the validation sections chose."""
    annotation = held.annotations[0]
    assert annotation is not None
    mask = annotation[:] == 1
    sections = {
        part: [z for box in boxes if box.part == part for z in range(box.start[0], box.stop[0])]
        for part in ("validation", "test")
    }
    counts = {part: metrics.joint_histogram(stored[chosen], mask[chosen]) for part, chosen in sections.items()}
    level, _ = metrics.best_threshold(counts["validation"], metric="f1")
    rand_level = min(RAND_LEVELS, key=lambda trial: rand_error(stored, mask, sections["validation"], trial))
    return {
        "validation_average_precision": round(float(metrics.average_precision(counts["validation"])), 4),
        "average_precision": round(float(metrics.average_precision(counts["test"])), 4),
        "f1": round(float(metrics.confusion(counts["test"], level=level).f1), 4),
        "level": level,
        "rand_error": round(rand_error(stored, mask, sections["test"], rand_level), 4),
        "rand_level": rand_level,
    }


def rand_error(stored: NDArray[np.uint8], mask: NDArray[np.bool_], sections: Sequence[int], level: int) -> float:
    """Adapted Rand error of the interiors, 4-connected in each section; the mean over sections."""
    errors = []
    for z in sections:
        found, _ = ndimage.label(stored[z] < level)
        true, _ = ndimage.label(~mask[z])
        errors.append(partitions.adapted_rand(partitions.contingency(found, true), mode="singletons").error)
    return float(np.mean(errors))


@figures.styled
def picture(name: str, stored: NDArray[np.uint8], held: TrainingVolume, level: int) -> Any:
    """A test section of each image quality: the image, the truth, the probability over it, and what is wrong."""
    figure = figures.new_figure(figures.PAGE_WIDTH_IN, 5.4)
    figure.suptitle(name)
    annotation = held.annotations[0]
    assert annotation is not None
    for row, z in enumerate((11, 19)):
        at = (z, slice(128, 384), slice(128, 384))
        grey, mask, probability = held.image[at], annotation[at] == 1, stored[at]
        wrong = np.stack([grey] * 3, axis=-1)
        wrong[(probability >= level) & ~mask] = (213, 94, 0)
        wrong[(probability < level) & mask] = (0, 114, 178)
        panels = {f"section {z}": grey, "truth": mask, "probability": probability, "extra orange, missed blue": wrong}
        for column, (title, panel) in enumerate(panels.items()):
            axes = figure.add_subplot(2, 4, 4 * row + column + 1, title=title)
            axes.imshow(grey, cmap="gray")
            axes.imshow(panel, cmap="gray" if column < 2 else "magma", alpha=0.75 if column == 2 else 1.0)
            axes.set_axis_off()
    return figure


def draw(name: str, stored: NDArray[np.uint8], held: TrainingVolume, level: int, stem: Path) -> None:
    picture(CONTENDERS[name][0], stored, held, level).savefig(stem.with_suffix(".png"), dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[17])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--folder", type=Path, default=membranes.ROOT / "results" / "benchmarks" / "membranes")
    parser.add_argument("--resume", action="store_true", help="keep what --folder holds of these minutes")
    parser.add_argument("--run", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.run:
        run(options)
        return
    contenders = [name for name in options.contenders if nnunet.is_installed() or not name.startswith("nnunet")]
    for name in set(options.contenders) - set(contenders):
        timing.skip(f"membranes, {name}", target=TARGET, why="dynamic-network-architectures is not installed")
    rows = []
    for seed in options.seeds:
        for name in contenders:
            words = ["--run", name, "--seed", str(seed), "--minutes", str(options.minutes)]
            words += ["--threads", str(options.threads), "--device", options.device, "--folder", str(options.folder)]
            file = options.folder / f"{name}-{seed}.json"
            if not (options.resume and finished(file, key(name, seed, options))):
                subprocess.run([sys.executable, __file__, *words], check=True, stdout=sys.stderr)
            kept = json.loads(file.read_text())
            rows.append({key: value for key, value in kept.items() if key not in ("settings", "log")})
    say(rows, options)


def say(rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """One record: the default plan's worst seed against the best of every other contender, and all rows."""
    for row in rows:
        row["label"] = CONTENDERS[row["contender"]][0]
    ours = [row["average_precision"] for row in rows if row["contender"] == "auto"]
    others = [row["average_precision"] for row in rows if row["contender"] != "auto"]
    is_whole = bool(ours and others)
    timing.record(
        "membranes",
        target=TARGET,
        ours=min(ours) if ours else None,
        peer=max(others) if others else None,
        ratio=round(min(ours) / max(others), 4) if is_whole else None,
        limit="average precision above every other's",
        holds=min(ours) > max(others) if is_whole else None,
        peak_mib=max((row["peak_mib"] for row in rows), default=None),
        device=options.device,
        minutes=options.minutes,
        threads=options.threads,
        rows=rows,
    )


if __name__ == "__main__":
    main()
