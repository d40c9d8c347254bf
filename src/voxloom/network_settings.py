"""Published networks by name, and what a configuration leaves out of its own taken from them.

Imported while the Snakefile is parsed, so it needs nothing but the standard library.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from voxloom.errors import ModelError

DEFAULT_PRESET = "shallow"
SHALLOW: dict[str, Any] = {
    "name": "unet",
    "dimensions": 2,
    "widths": [32, 64, 128],
    "strides": None,
    "kernels": None,
    "convolutions": 2,
    "norm": "batch",
    "dropout": 0.0,
    "residual": False,
    "shortcut": "projection",
    "upsampling": "transposed",
    "late_widening": False,
    "deep_supervision": False,
}
"""Every structural key, as in the shallow U-Net of two poolings: 467 233 parameters, a weights file of 1.9 MB."""

ZHANG: dict[str, Any] = {"widths": [64, 128, 256, 512], "residual": True, "upsampling": "nearest"}
PRESETS: dict[str, dict[str, Any]] = {
    "shallow": {},
    "ronneberger2015": {"widths": [64, 128, 256, 512, 1024], "norm": "none"},
    "cicek2016": {
        "dimensions": 3,
        "widths": [64, 128, 256, 512],
        "upsampling": "transposed_wide",
        "late_widening": True,
    },
    "unet3d_8": {"dimensions": 3, "widths": [8, 16, 32, 64, 128]},
    "unet3d_16": {"dimensions": 3, "widths": [16, 32, 64, 128, 256]},
    "unet3d_32": {"dimensions": 3, "widths": [32, 64, 128, 256, 512]},
    "zhang2018": {**ZHANG, "shortcut": "padding"},
    "zhang2018_projected": ZHANG,
    "chen2016": {"name": "contextual", "widths": [64, 128, 256, 512], "norm": "none", "deep_supervision": True},
}
"""What each published network has other than the shallow U-Net [1]_ [2]_ [3]_ [4]_.

Convolutions are padded, so that the output has the input's size, and there is one logit: Ronneberger's valid
convolutions and two classes, Çiçek's three classes and the final ReLU of the regression networks unet3d_* are left out.
zhang2018 has 7.8 million parameters, with projections 8.22 million; chen2016 has 7 933 258, with batch normalisation
7 935 952.

References
----------
.. [1] Ronneberger, Fischer, Brox (2015). MICCAI, U-Net.
.. [2] Çiçek, Abdulkadir, Lienkamp, Brox, Ronneberger (2016). MICCAI, 3D U-Net.
.. [3] Zhang, Liu, Wang (2018). IEEE Geoscience and Remote Sensing Letters 15(5), Deep residual U-Net.
.. [4] Chen, Qi, Cheng, Heng (2016). AAAI, Deep contextual networks for neuronal structure segmentation.
"""

FIXED: dict[str, dict[str, Any]] = {
    "contextual": {
        "dimensions": 2,
        "strides": [1, 2, 2],
        "kernels": [1, 3, 3],
        "convolutions": 2,
        "residual": False,
        "shortcut": "projection",
        "upsampling": "transposed",
        "late_widening": False,
    }
}
"""By network, keys of a U-Net that it has no choice of, with the value to leave them at; strides and kernels are each
level's."""

CHOICES = {
    "dimensions": (2, 3),
    "norm": ("batch", "instance", "group", "none"),
    "shortcut": ("projection", "padding"),
    "upsampling": ("transposed", "transposed_wide", "nearest"),
}
KEYS = ("preset", "slices", "slice_step", *SHALLOW)


def resolved(network: Mapping[str, Any]) -> dict[str, Any]:
    """The keys under ``network`` of a model, complete: what is null or left out is the preset's.

    Parameters
    ----------
    network : mapping
        Any of `KEYS`.

    Returns
    -------
    whole : dict
        All of `KEYS`, none of them None; strides and kernels are a list of three numbers (Z, Y, X) a level.

    Raises
    ------
    ModelError
        If the preset is unknown.

    Examples
    --------
    >>> whole = resolved({"preset": "unet3d_8", "widths": [4, 8]})
    >>> whole["dimensions"], whole["widths"], whole["strides"]
    (3, [4, 8], [[2, 2, 2]])
    """
    given = {key: value for key, value in network.items() if value is not None}
    preset = given.get("preset", DEFAULT_PRESET)
    if preset not in PRESETS:
        raise ModelError(f"network.preset must be one of {', '.join(PRESETS)}, got {preset!r}")
    whole = {"preset": preset, "slices": 1, "slice_step": 1, **SHALLOW, **PRESETS[preset], **given}
    levels, is_3d = len(whole["widths"]), whole["dimensions"] == 3
    if whole["strides"] is None:
        whole["strides"] = [[2 if is_3d else 1, 2, 2] for _ in range(levels - 1)]
    if whole["kernels"] is None:
        whole["kernels"] = [[3 if is_3d else 1, 3, 3] for _ in range(levels)]
    return dict(sorted(whole.items()))


def problems(network: Mapping[str, Any]) -> Iterator[str]:
    """Say what is wrong with the keys under ``network`` of a model.

    Parameters
    ----------
    network : mapping
        As `resolved` takes it.

    Yields
    ------
    message : str
        With key, value and mend.
    """
    whole = resolved(network)
    for key in whole.keys() - set(KEYS):
        hint = "; it is norm: batch (or none) now" if key == "batch_norm" else f"; known: {', '.join(KEYS)}"
        yield f"network.{key} is not a key{hint}"
    for key, known in CHOICES.items():
        if whole[key] not in known:
            yield f"network.{key} must be one of {', '.join(map(str, known))}, got {whole[key]!r}"
    if whole["slices"] % 2 == 0:
        yield (
            f"network.slices is {whole['slices']}; use an odd number, since the middle one is predicted, "
            f"{whole['slices'] + 1} say"
        )
    if whole["dimensions"] == 3 and whole["slices"] > 1:
        yield (
            f"network.slices is {whole['slices']}, which is for 2 dimensions; a network of 3 dimensions sees "
            "input.patch_voxels, so use 1"
        )
    if not 0 <= whole["dropout"] < 1:
        yield f"network.dropout is {whole['dropout']}; use a share from 0 to below 1"
    if whole["late_widening"] and (whole["convolutions"] < 2 or whole["residual"]):
        yield "network.late_widening is for two or more convolutions a level that are not residual; set it to false"
    yield from _problems_of_levels(whole)
    yield from _problems_of_fixed_keys(whole)


def _problems_of_levels(whole: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the strides and kernels of levels."""
    levels = len(whole["widths"])
    for key, needed, role in (
        ("strides", levels - 1, "one for each step to a coarser level"),
        ("kernels", levels, "one a level"),
    ):
        if len(whole[key]) != needed:
            yield f"network.{key} has {len(whole[key])} entries for {levels} widths; give {needed}, {role}"
        for number, sizes in enumerate(whole[key]):
            if len(sizes) != 3 or min(sizes) < 1:
                yield f"network.{key}[{number}] is {list(sizes)}; give three whole numbers from 1 (Z, Y, X)"
            elif whole["dimensions"] == 2 and sizes[0] != 1:
                yield f"network.{key}[{number}] is {list(sizes)}; a network of 2 dimensions has no Z, so begin with 1"
            elif key == "kernels" and any(size % 2 == 0 for size in sizes):
                yield f"network.kernels[{number}] is {list(sizes)}; use odd numbers, a kernel has a middle"


def _problems_of_fixed_keys(whole: Mapping[str, Any]) -> Iterator[str]:
    """What a network other than the U-Net has no choice of."""
    for key, value in FIXED.get(whole["name"], {}).items():
        needed = [value] * len(whole[key]) if isinstance(value, list) else value
        if whole[key] != needed:
            yield (
                f"network.{key} is {whole[key]}, but the network {whole['name']} always has {needed}; remove the key "
                "(and take a preset of this network), or use name: unet"
            )


def vgg_convolutions(level: int) -> int:
    """Convolutions of a level of the way down, as in VGG-16: two in the two finest levels, three below.

    Parameters
    ----------
    level : int
        Counted from 0, the finest.

    Returns
    -------
    count : int

    Examples
    --------
    >>> [vgg_convolutions(level) for level in range(4)]
    [2, 2, 3, 3]
    """
    return 2 if level < 2 else 3


def common_size(settings: Sequence[Mapping[str, Any]]) -> tuple[int, int] | None:
    """The size that slices are scaled to, where all models scale them alike.

    Parameters
    ----------
    settings : sequence of mapping
        Of each model, with ``input.size``.

    Returns
    -------
    size : tuple of int or None
        (Y, X); None where they differ or work at the volume's own resolution.

    Examples
    --------
    >>> common_size([{"input": {"size": [400, 400]}}]), common_size([{"input": {"size": None}}])
    ((400, 400), None)
    """
    sizes = {tuple(each["input"]["size"] or ()) for each in settings}
    first = sizes.pop()
    return (first[0], first[1]) if first and not sizes else None
