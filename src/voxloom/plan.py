"""Chooses how a model is trained from what is annotated and what the machine can do, and says why."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from voxloom import network_reach
from voxloom.config import GIVEN
from voxloom.errors import ModelError
from voxloom.fingerprint import Fingerprint
from voxloom.plan_cost import MINUTES, STEP_SHARE, Machine, forward_flops, machine, training_seconds
from voxloom.training_memory import training_bytes

FIRST_WIDTHS = (64, 48, 32, 24, 16, 12, 8)
"""Channels of the finest level that are tried, the widest first."""

WIDEST = {2: 512, 3: 320}
LEAST_STEPS, MOST_STEPS = 1000, 20_000
"""A network that can't have the first in the time given is too large; the second is enough for any."""

VALIDATION_SHARE = 0.1
"""Of the time: for validation after every epoch; what steps leave beside it is for loading and checkpoints."""

STEP_MEMORY = 0.5
"""Share of a job's memory for a training step; the other half keeps training boxes."""

SPARE_STEPS = 1.3
"""More steps than the assumed speed allows, where a clock ends the training."""

VALIDATED = 0.2
"""Share of the annotated voxels that is taken to validate."""

MOST_EPOCHS, LEAST_EPOCHS = 25, 4
CONTEXT = {2: 96, 3: 20}
"""Voxels that a network sees to each side at least, where the volume is that large."""

VOXELS_A_STEP = {"cpu": {2: 2**17, 3: 2**18}, "mps": {2: 2**18, 3: 2**19}, "cuda": {2: 2**20, 3: 2**22}}
WEIGHTS_AVERAGE = 0.99
LEARNING_RATES = {"adam": 1e-3, "adamw": 2e-3, "sgd": 1e-2}
ISOTROPIC = 3.0
"""Up to this ratio of voxel edges a volume is taken for three-dimensional."""

LONG = 2.0
"""From this ratio on an axis' voxels are too long to be convolved or made coarser with the others."""

CONTINUES = 0.5
"""Slice continuity from which neighbouring slices are worth seeing."""


@dataclass(frozen=True)
class Choice:
    """One setting of a plan.

    Parameters
    ----------
    key : str
        Dotted, as under a model in the task file.
    value : object
        As YAML holds it.
    reason : str
        A sentence for a microscopist.
    """

    key: str
    value: Any
    reason: str


@dataclass(frozen=True)
class _Fit:
    """A network that fits the time and the memory."""

    network: dict[str, Any]
    patch: tuple[int, int, int]
    batch: int
    flops: float  # forward, a voxel
    steps: int
    mib: float

    @property
    def voxels(self) -> int:
        """Of a step."""
        return math.prod(self.patch) * self.batch


def plan_model(
    fingerprint: Fingerprint, *, settings: Mapping[str, Any], machine: Machine, room: Room
) -> dict[str, Any]:
    """Plan one model.

    Parameters
    ----------
    fingerprint : Fingerprint
    settings : mapping
        Of a model, from `voxloom.plan_file.to_plan`: the plan makes room for what the task file says itself.
    machine : Machine
    room : Room
        How large the split's boxes are.

    Returns
    -------
    planned : dict
        ``expected`` (steps, minutes, memory), ``fingerprint``, and ``choices`` by dotted key, each with ``value`` and
        ``reason``. Equal arguments give equal plans.

    Raises
    ------
    ModelError
        If not even the smallest network fits the memory, or what the task file says doesn't fit the plan.
    """
    given = settings[GIVEN]
    minutes = given.get("max_minutes") or MINUTES[machine.device]
    dimensions, slices, why = _dimensions(fingerprint, room)
    patch = given.get("input", {}).get("patch_voxels")
    if patch and dimensions == 2 and patch[0] != 1:
        raise ModelError(
            f"input.patch_voxels is {list(patch)}, but the plan takes a network of 2 dimensions, whose patches are one "
            f"slice: {why}; set it to {[1, *patch[1:]]}, or leave it to the plan"
        )
    norm = "batch" if machine.has_joint_statistics else "instance"
    base = {
        **settings["network"],
        "name": "unet",
        "dimensions": dimensions,
        "slices": slices,
        "slice_step": 1,
        "norm": norm,
    }
    fit = _fit(fingerprint, base, given=given, machine=machine, minutes=minutes, room=room)
    epochs, samples = _epochs(fingerprint, fit, given=given, machine=machine, minutes=minutes)
    choices = [
        Choice("network.dimensions", dimensions, why),
        *_network_choices(fingerprint, fit, minutes=minutes, machine=machine),
        *_sampling_choices(fingerprint, fit, epochs=epochs, samples=samples, minutes=minutes),
        *_learning_choices(fingerprint, given=given, epochs=epochs, steps=epochs * math.ceil(samples / fit.batch)),
        *_augment_choices(fingerprint),
        *_left_out_choices(),
        _flips(fingerprint, fit, machine=machine, minutes=minutes),
    ]
    steps = epochs * math.ceil(samples / fit.batch)
    return {
        "machine": {
            "device": machine.device,
            "precision": machine.precision,
            "threads": machine.threads,
            "processes": machine.processes,
            "assumed_gflops": machine.gflops,
            "memory_of_a_step_mib": round(machine.memory_mib),
        },
        "expected": {
            "steps": steps,
            "minutes": round(training_seconds(fit.flops, voxels=steps * fit.voxels, machine=machine) / 60, 1),
            "memory_of_a_step_mib": round(fit.mib),
        },
        "fingerprint": fingerprint.as_dict(),
        "choices": {
            choice.key: {
                "value": choice.value,
                "reason": "written in the task file" if _is_given(choice.key, given) else choice.reason,
            }
            for choice in choices
        },
    }


@dataclass(frozen=True)
class Room:
    """How large the split's boxes can be.

    Parameters
    ----------
    block_um : tuple of float or None
        Edges (Z, Y, X) of a block that is kept together; None is the whole axis.
    """

    block_um: tuple[float | None, float | None, float | None]

    @classmethod
    def of(cls, split: Mapping[str, Any]) -> Room:
        """The room that a task's ``split`` leaves."""
        if split["by"] != "block":
            return cls((None, None, None))
        z, y, x = split["block_um"]
        return cls((z, y, x))

    def voxels(self, fingerprint: Fingerprint) -> tuple[int, int, int]:
        """Voxels (Z, Y, X) of a block, at most the smallest volume's own."""
        z, y, x = (
            size if um is None else min(size, int(um / spacing))
            for um, size, spacing in zip(self.block_um, fingerprint.shape, fingerprint.spacing_um, strict=True)
        )
        return z, y, x


def _is_given(key: str, given: Any) -> bool:
    for part in key.split("."):
        if not isinstance(given, Mapping) or part not in given:
            return False
        given = given[part]
    return True


def _dimensions(fingerprint: Fingerprint, room: Room) -> tuple[int, int, str]:
    """Dimensions of the network, slices that it sees, and why."""
    ratio, continuity = fingerprint.anisotropy, fingerprint.slice_continuity
    depth = room.voxels(fingerprint)[0]
    apart = f"voxels are {ratio:.3g} times as long along one axis as along another"
    follows = f"{continuity:.0%} of the foreground goes on in the next slice"
    if ratio <= ISOTROPIC and continuity >= CONTINUES and depth >= 3 * CONTEXT[3]:
        return 3, 1, f"{apart}, and {follows}: objects are followed in three dimensions"
    slices = 1 if continuity < CONTINUES or fingerprint.depth < 3 else 3
    seen = "a slice by itself" if slices == 1 else "a slice and its two neighbours"
    if ratio > ISOTROPIC:
        return 2, slices, f"{apart}, too unlike for three dimensions; {follows}: {seen}"
    if continuity >= CONTINUES:
        return (
            2,
            slices,
            f"blocks of the split are {depth} slices deep, too few for three dimensions ({3 * CONTEXT[3]}; a larger "
            f"split.block_um makes them deeper); {follows}: {seen}",
        )
    return 2, slices, f"{apart}, but only {follows}: {seen}"


def _network(fingerprint: Fingerprint, base: Mapping[str, Any], first: int, levels: int) -> dict[str, Any]:
    """A network of that depth: an axis whose voxels are long waits until the others are as coarse [1]_.

    References
    ----------
    .. [1] Isensee, Jaeger, Kohl, Petersen, Maier-Hein (2021). Nature Methods 18, nnU-Net.
    """
    is_flat = base["dimensions"] == 2
    edges = [math.inf if is_flat and axis == 0 else edge for axis, edge in enumerate(fingerprint.spacing_um)]
    strides, kernels = [], []
    for level in range(levels):
        is_fine = [edge <= LONG * min(edges) for edge in edges]
        kernels.append([3 if fine else 1 for fine in is_fine])
        if level + 1 < levels:
            strides.append([2 if fine else 1 for fine in is_fine])
            edges = [edge * stride for edge, stride in zip(edges, strides[-1], strict=True)]
    widths = [min(first * 2**level, WIDEST[base["dimensions"]]) for level in range(levels)]
    return {**base, "widths": widths, "strides": strides, "kernels": kernels}


def _levels(fingerprint: Fingerprint, base: Mapping[str, Any]) -> int:
    """Levels until the network sees enough around a voxel, and no more than the volume can be halved."""
    wanted = max(CONTEXT[base["dimensions"]], 3 * fingerprint.thickness_voxels)
    smallest = min(fingerprint.shape[3 - base["dimensions"] :])
    levels = 3
    while levels < 6 and smallest >= 8 * 2**levels:
        if network_reach.receptive_field(_network(fingerprint, base, 8, levels))[-1] >= wanted:
            break
        levels += 1
    return levels


def _patch(
    fingerprint: Fingerprint, network: Mapping[str, Any], room: Room, *, voxels_a_step: int
) -> tuple[int, int, int]:
    """Edges (Z, Y, X): five times what the network sees to a side, so that most voxels see all they can.

    In 2-D no larger than half of a step's voxels, so that a step sees two places at least.
    """
    reach, factor = network_reach.receptive_field(network), network_reach.size_factor(network)
    times = 5 if network["dimensions"] == 2 else 3
    edges = []
    for axis, (size, block) in enumerate(zip(fingerprint.shape, room.voxels(fingerprint), strict=True)):
        if axis == 0 and network["dimensions"] == 2:
            edges.append(1)
            continue
        step = max(factor[axis], 16 if network["dimensions"] == 3 else 32)
        wanted = _multiple(max(times * reach[axis], 8 * fingerprint.thickness_voxels), step)
        if network["dimensions"] == 2:
            wanted = min(wanted, _below(math.sqrt(voxels_a_step / 2), step))
        # a patch may reach past its box by what is kept from the other parts, but not past that
        held = size if block == size else block + reach[axis]
        edges.append(min(wanted, _multiple(held, factor[axis]) if block == size else _below(held, factor[axis])))
    return edges[0], edges[1], edges[2]


def _multiple(length: float, step: int) -> int:
    return max(1, math.ceil(length / step)) * step


def _below(length: float, step: int) -> int:
    return max(1, math.floor(length / step)) * step


def _fit(
    fingerprint: Fingerprint,
    base: Mapping[str, Any],
    *,
    given: Mapping[str, Any],
    machine: Machine,
    minutes: float,
    room: Room,
) -> _Fit:
    """The widest network that has `LEAST_STEPS` in the time and whose step fits the memory."""
    levels = _levels(fingerprint, base)
    flops_budget = machine.gflops * 1e9 * minutes * 60 * STEP_SHARE
    smallest: _Fit | None = None
    for network in (_network(fingerprint, base, first, levels) for first in FIRST_WIDTHS):
        voxels_a_step = VOXELS_A_STEP[machine.device][network["dimensions"]]
        chosen = _patch(fingerprint, network, room, voxels_a_step=voxels_a_step)
        patch = tuple(given.get("input", {}).get("patch_voxels") or chosen)
        flops = forward_flops(network)
        wanted = round(voxels_a_step / math.prod(patch))
        batch = given.get("batch_size") or max(1, wanted)
        mib = training_bytes(network, patch, batch, machine.precision) / 2**20
        while batch > 1 and "batch_size" not in given and mib > machine.memory_mib:
            batch = max(1, min(batch - 1, int(batch * machine.memory_mib / mib)))
            mib = training_bytes(network, patch, batch, machine.precision) / 2**20
        steps = int(flops_budget / (3 * flops * math.prod(patch) * batch))
        fit = _Fit(network, patch, batch, flops, min(steps, MOST_STEPS), mib)  # type: ignore[arg-type]
        if mib <= machine.memory_mib:
            if steps >= LEAST_STEPS:
                return fit
            smallest = fit
    if smallest is None:
        raise ModelError(
            f"no network fits: a step of the smallest takes {mib:.0f} MiB at patches of {list(patch)} voxels, the job "
            f"has {machine.memory_mib:.0f} for it; raise resources.memory_mib, or give the model a smaller "
            "input.patch_voxels"
        )
    return smallest


def _epochs(
    fingerprint: Fingerprint, fit: _Fit, *, given: Mapping[str, Any], machine: Machine, minutes: float
) -> tuple[int, int]:
    """Epochs, each followed by validation, and samples in each."""
    validation_s = VALIDATED * fingerprint.annotated_voxels * fit.flops / (machine.gflops * 1e9)
    affordable = int(VALIDATION_SHARE * minutes * 60 / max(validation_s, 1e-9))
    epochs = given.get("epochs") or min(MOST_EPOCHS, max(LEAST_EPOCHS, affordable))
    # a schedule reaches its end with max_minutes: steps to spare only let a faster machine use its time
    spare = SPARE_STEPS if "max_minutes" in given else 1.0
    samples = given.get("samples_per_epoch") or max(1, int(spare * fit.steps) // epochs) * fit.batch
    return int(epochs), int(samples)


def _network_choices(fingerprint: Fingerprint, fit: _Fit, *, minutes: float, machine: Machine) -> Iterator[Choice]:
    network, dimensions = fit.network, fit.network["dimensions"]
    reach = network_reach.receptive_field(network)
    levels, widths = len(network["widths"]), network["widths"]
    step = "plane" if dimensions == 2 else "box"
    yield Choice("network.name", "unet", "a plain U-Net; what it is trained on matters more than what it is called")
    yield Choice(
        "network.slices",
        network["slices"],
        "more slices than the predicted one as channels cost next to nothing"
        if network["slices"] > 1
        else "one slice, or a box, is all the network sees",
    )
    yield Choice("network.slice_step", network["slice_step"], "the slices are neighbours")
    yield Choice(
        "network.widths",
        widths,
        f"{levels} levels see {reach[-1]} voxels to each side, where objects are {fingerprint.thickness_voxels:.3g} "
        f"voxels thick and {CONTEXT[dimensions]} voxels of context are wanted; {minutes:g} minutes at "
        f"{machine.gflops:g} GFLOP/s hold {fit.steps} steps with {widths[0]} channels, "
        + (f"the widest with {LEAST_STEPS}" if fit.steps >= LEAST_STEPS else f"too few ({LEAST_STEPS} are wanted)"),
    )
    edges = " x ".join(f"{edge:.3g}" for edge in fingerprint.spacing_um)
    rule = f"voxels are {edges} um; an axis more than {LONG:g} times as coarse as the finest waits for the others"
    yield Choice("network.strides", network["strides"], rule)
    yield Choice("network.kernels", network["kernels"], f"{rule}, and isn't looked along until then")
    yield Choice("network.convolutions", network["convolutions"], "two a level; more time goes into channels instead")
    yield Choice(
        "network.norm",
        network["norm"],
        f"a step has {fit.voxels} voxels, enough for statistics of a batch"
        if machine.has_joint_statistics
        else f"{machine.processes} processes on a {machine.device} can't take the statistics of a batch together",
    )
    yield Choice("network.dropout", 0.0, "augmentation and early stopping keep it from learning by heart")
    yield Choice("network.residual", False, f"{levels} levels learn without shortcuts")
    yield Choice("network.deep_supervision", False, "a network this small doesn't need to be taught level by level")
    yield Choice(
        "input.patch_voxels",
        list(fit.patch),
        f"a {step} of several times what the network sees; larger would leave fewer steps, or fewer places in each",
    )
    yield Choice("input.size", None, "native voxels: scaling would blur what is thin")
    yield Choice("input.normalise", "zscore", "whatever the instrument's grey values, the network sees the same range")
    yield Choice(
        "batch_size",
        fit.batch,
        f"{fit.voxels} voxels a step keep the device busy; a step takes {fit.mib:.0f} MiB of {machine.memory_mib:.0f}",
    )


def _sampling_choices(
    fingerprint: Fingerprint, fit: _Fit, *, epochs: int, samples: int, minutes: float
) -> Iterator[Choice]:
    share = fingerprint.foreground_share
    yield Choice(
        "epochs", epochs, f"each ends with a validation, which together may take {VALIDATION_SHARE:.0%} of the time"
    )
    seen = samples * epochs * math.prod(fit.patch) / fingerprint.annotated_voxels
    yield Choice(
        "samples_per_epoch",
        samples,
        f"{epochs} epochs of them fill {minutes:g} minutes on this machine; every annotated voxel is seen {seen:.3g} "
        "times on average",
    )
    wanted = 0.33 if share > 0.05 else 0.5 if share > 0.01 else 0.67
    yield Choice(
        "foreground_share",
        wanted,
        f"{share:.2%} of the annotated voxels are foreground: "
        + ("nearly every patch holds some" if share > 0.05 else "a patch anywhere would often hold none"),
    )


def _learning_choices(
    fingerprint: Fingerprint, *, given: Mapping[str, Any], epochs: int, steps: int
) -> Iterator[Choice]:
    share = fingerprint.foreground_share
    rare = share < 0.1
    yield Choice(
        "loss.name",
        "bce_dice" if rare else "bce",
        f"{share:.2%} foreground: "
        + ("cross-entropy alone would gain most by finding none of it" if rare else "no class is rare"),
    )
    name = given.get("optimiser", {}).get("name", "adamw")
    rate = LEARNING_RATES[name]
    yield Choice("optimiser.name", name, "learns fast from few labels, without tuning")
    yield Choice("optimiser.learning_rate", rate, f"what {name} takes with normalised layers; lower it if it diverges")
    yield Choice("optimiser.weight_decay", 0.01, "keeps the weights of a network with few labels small")
    yield Choice("schedule.name", "cosine", "ends at a rate of zero, so that the last weights are settled ones")
    warmup = min(100, steps // 20)
    yield Choice("schedule.warmup_steps", warmup, "the first steps go where the random weights point; they are short")
    yield Choice(
        "weights_average",
        WEIGHTS_AVERAGE,
        f"over some {1 / (1 - WEIGHTS_AVERAGE):.0f} steps: scores of epochs then differ by what was learnt, not by the "
        "last few batches",
    )
    patience = max(3, epochs // 2) if fingerprint.annotated_blocks > 2 else None
    yield Choice(
        "early_stopping_epochs",
        patience,
        "keeps the epoch that is best in validation, and stops where half of the epochs brought nothing"
        if patience
        else "so little is annotated that validation can't choose an epoch",
    )


def _augment_choices(fingerprint: Fingerprint) -> Iterator[Choice]:
    turns = fingerprint.spacing_um[1] == fingerprint.spacing_um[2]
    yield Choice("augment.flip", 0.5, "tissue has no left and right")
    yield Choice(
        "augment.rotate90",
        0.5 if turns else 0.0,
        "square pixels can be turned" if turns else "pixels aren't square, so quarter turns would distort",
    )
    yield Choice("augment.affine", 0.3, "objects lie at any angle, and vary in size")
    yield Choice("augment.contrast", 0.3, "contrast and brightness differ between sections and scans")
    yield Choice("augment.gamma", 0.3, "so does the instrument's response")
    yield Choice("augment.noise", 0.3, "and its noise")
    yield Choice("augment.blur", 0.1, "and its focus")


def _left_out_choices() -> Iterator[Choice]:
    """What could be switched on, and why it isn't."""
    yield Choice("gradient_clip", None, "a training that diverges stops and says so; set it to 1 then")
    yield Choice(
        "augment.elastic",
        0.0,
        "no comparison shows here that it buys anything beyond turns and scales; try 0.2 where tissue is soft",
    )
    sections = "only serial sections have such faults; set it to 0.05 or so where the volume has some"
    for name in ("misaligned_section", "missing_section", "blurred_section", "dark_section"):
        yield Choice(f"augment.{name}", 0.0, sections)


def _flips(fingerprint: Fingerprint, fit: _Fit, *, machine: Machine, minutes: float) -> Choice:
    voxels = sum(math.prod(facts.shape) for facts in fingerprint.volumes.values())
    passes = 2 ** fit.network["dimensions"]
    needed = passes * voxels * fit.flops / (machine.gflops * 1e9) / 60
    affordable = needed <= minutes
    return Choice(
        "test_time_flips",
        affordable,
        f"the mean over {passes} mirrored predictions of all volumes takes about {needed:.2g} minutes, "
        + ("less" if affordable else "more")
        + " than training",
    )


def plan_task(
    fingerprints: Mapping[str, Fingerprint],
    *,
    task: str,
    models: Mapping[str, Mapping[str, Any]],
    split: Mapping[str, Any],
    device: str,
    threads: int,
    memory_mib: float,
    processes: int = 1,
) -> dict[str, Any]:
    """Plan the models of a task that wait for a plan.

    Parameters
    ----------
    fingerprints : mapping of str to Fingerprint
        By model.
    task : str
    models : mapping of str to mapping
        From `voxloom.plan_file.to_plan`.
    split : mapping
        The task's key ``split``.
    device : {"auto", "cpu", "cuda", "mps"}
    threads : int
    memory_mib : float
        Beside the interpreter and its libraries.
    processes : int
        That train one network together.

    Returns
    -------
    plan : dict
        For `voxloom.plan_file.write_plan`.
    """
    planned = {}
    for name, settings in models.items():
        # half of the memory keeps training boxes, as in training
        given = machine(
            device=device,
            precision=settings["precision"],
            threads=threads,
            memory_mib=STEP_MEMORY * memory_mib,
            processes=processes,
        )
        try:
            planned[name] = plan_model(fingerprints[name], settings=settings, machine=given, room=Room.of(split))
        except ModelError as error:
            error.add_note(f"while planning model {name} of task {task}")
            raise
    return {"task": task, "models": planned}
