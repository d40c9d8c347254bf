"""Augmentation in 3-D on one core, beside what others do to the same patch: million voxels a second.

    python benchmarks/training_augment.py                      # a patch of 96^3, image and labels
    python benchmarks/training_augment.py --edge 32 --rounds 1

All turn about every axis and scale, image linear, labels nearest; `elastic` warps as well. Peers that are not installed
(requirements.txt names them) are left out, visibly. Draws differ, so no two libraries make the same patch; what is
checked is that ours doesn't depend on threads, and equals PyTorch's own grid_sample but for rounding.
"""

import argparse
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import timing
import torch
from torch import Tensor

from voxloom import augment, augment_kernels, augment_space

ANGLE, SCALES = 0.5, (0.8, 1.2)  # of the peers; ours turns any angle
SPACING_UM = (1.0, 1.0, 1.0)
KINDS = {"affine": ("rotate", "scale"), "elastic": ("rotate", "scale", "elastic")}
PUBLISHED = {"affine": 19.0, "elastic": 16.0}
"""What this project's own study measured with grid_sample, in million voxels a second a core."""


def patch(edge: int) -> tuple[Tensor, Tensor]:
    """Tubes in noise and their mask, (C, Z, Y, X)."""
    rng = np.random.default_rng(0)
    _, y, x = np.indices((edge,) * 3)
    mask = (y % 16 - 8) ** 2 + (x % 16 - 8) ** 2 < 12
    image = 0.4 + 0.3 * mask + rng.normal(0, 0.1, mask.shape)
    return torch.from_numpy(image.astype(np.float32))[None], torch.from_numpy(mask.astype(np.float32))[None]


def settings(kind: str) -> dict[str, Any]:
    chosen = dict.fromkeys(augment.NAMES, 0.0) | dict.fromkeys(KINDS[kind], 1.0)
    return {**chosen, "elastic_sigma_um": None, "elastic_amplitude_um": None}


def ours(kind: str, image: Tensor, mask: Tensor) -> Callable[[], Any]:
    generator, chosen = torch.Generator().manual_seed(0), settings(kind)
    image, mask = image[None], mask[None]
    ignore = torch.zeros(mask.shape, dtype=torch.bool)
    return lambda: augment.augment(
        image, mask, ignore, settings=chosen, spacing_um=SPACING_UM, deviation=1.0, generator=generator
    )


def by_torch(kind: str, image: Tensor, mask: Tensor) -> Callable[[], Any]:
    """Ours as a GPU computes it, by grid_sample."""
    call, kernels = ours(kind, image, mask), augment_kernels.resampled

    def changed() -> Any:
        augment_kernels.resampled = augment_space.resampled_by_torch
        try:
            return call()
        finally:
            augment_kernels.resampled = kernels

    return changed


def batchgeneratorsv2(kind: str, image: Tensor, mask: Tensor) -> Callable[[], Any]:
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform

    elastic = {"p_elastic_deform": 1, "elastic_deform_magnitude": (0, 0.2)} if kind == "elastic" else {}
    change = SpatialTransform(
        tuple(image.shape[1:]),
        0,
        False,
        **{"p_elastic_deform": 0, **elastic},
        p_rotation=1,
        rotation=(-ANGLE, ANGLE),
        p_scaling=1,
        scaling=SCALES,
    )
    labels = mask.to(torch.int16)
    return lambda: change(image=image, segmentation=labels)


def monai(kind: str, image: Tensor, mask: Tensor) -> Callable[[], Any]:
    from monai.transforms import Rand3DElasticd, RandAffined

    common: dict[str, Any] = {
        "keys": ["image", "label"],
        "prob": 1,
        "rotate_range": (ANGLE,) * 3,
        "scale_range": (0.2,) * 3,
        "mode": ("bilinear", "nearest"),
        "padding_mode": "border",
        "spatial_size": tuple(image.shape[1:]),
    }
    if kind == "elastic":
        change = Rand3DElasticd(sigma_range=(5, 7), magnitude_range=(50, 150), **common)
    else:
        change = RandAffined(cache_grid=True, **common)
    return lambda: change({"image": image, "label": mask})


def torchio(kind: str, image: Tensor, mask: Tensor) -> Callable[[], Any]:
    import torchio as tio

    affine = tio.RandomAffine(scales=SCALES, degrees=30)
    change = tio.Compose([affine, tio.RandomElasticDeformation()]) if kind == "elastic" else affine
    return lambda: change(tio.Subject(image=tio.ScalarImage(tensor=image), label=tio.LabelMap(tensor=mask)))


PEERS = {"batchgeneratorsv2": batchgeneratorsv2, "MONAI": monai, "torchio": torchio}


def installed(kind: str, image: Tensor, mask: Tensor) -> tuple[dict[str, Callable[[], Any]], dict[str, str]]:
    """The peers' calls, and why the others are missing."""
    calls, missing = {}, {}
    for name, make in PEERS.items():
        try:
            calls[name] = make(kind, image, mask)
        except ImportError as error:
            missing[name] = str(error).splitlines()[0]
    return calls, missing


def is_identical(kind: str, image: Tensor, mask: Tensor) -> bool:
    """Equal bytes on one and two threads; grid_sample's values but for rounding, labels but on borders of voxels."""
    alone = ours(kind, image, mask)()
    torch.set_num_threads(2)
    together = ours(kind, image, mask)()
    torch.set_num_threads(1)
    theirs = by_torch(kind, image, mask)()
    return (
        all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))
        and torch.allclose(alone[0], theirs[0], atol=1e-3)
        and float((alone[1] == theirs[1]).float().mean()) > 0.999
    )


def say(kind: str, seconds: Mapping[str, list[float]], voxels: int, *, rounds: int, is_same: bool) -> None:
    rate = {name: voxels / 1e6 / float(np.median(times)) for name, times in seconds.items()}
    ours_rate = rate.pop("ours")
    fastest = max((name for name in rate if name != "grid_sample"), key=lambda name: rate[name], default=None)
    timing.record(
        f"{kind}, 3-D [Mvox/s a core]",
        target="own torch",
        ours=round(ours_rate, 1),
        peer=None if fastest is None else f"{rate[fastest]:.1f} ({fastest})",
        ratio=None if fastest is None else round(timing.ratio(seconds[fastest], seconds["ours"]), 2),
        limit=f"at least {PUBLISHED[kind]:g} and the fastest peer",
        holds=ours_rate >= max([PUBLISHED[kind], *([] if fastest is None else [rate[fastest]])]),
        identical=is_same,
        rates={name: round(value, 2) for name, value in rate.items()},
        rounds=rounds,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edge", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")  # the peers'
    timing.pin(1)
    image, mask = patch(options.edge)
    for kind in KINDS:
        peers, missing = installed(kind, image, mask)
        for name, why in missing.items():
            timing.skip(f"{kind}, 3-D, {name}", target="own torch", why=why)
        cases = {"ours": ours(kind, image, mask), "grid_sample": by_torch(kind, image, mask), **peers}
        seconds = timing.interleaved(cases, rounds=options.rounds)
        is_same = is_identical(kind, image, mask)
        say(kind, seconds, options.edge**3, rounds=options.rounds, is_same=is_same)


if __name__ == "__main__":
    main()
