"""Networks from voxels to a foreground logit, how far each of them sees, and what sizes it takes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxloom.errors import ModelError

Shape = tuple[int, int, int]


class UNet(nn.Module):
    """A U-Net of any depth, in 2-D or 3-D, that returns one logit a voxel.

    Every level is twice (convolution of 3, padded with zeros, batch normalisation, ReLU). Levels are joined by maximum
    pooling of 2 on the way down and transposed convolutions of 2 on the way up, whose result is joined with the skip
    connection; a convolution of 1 makes the logit.

    Parameters
    ----------
    dimensions : {2, 3}
        2 takes tensors (N, C, Y, X), 3 takes (N, C, Z, Y, X).
    in_channels : int
        Channels C of the input; for 2 dimensions neighbouring slices may be channels.
    widths : sequence of int
        Channels a level, from the finest to the coarsest. [32, 64, 128] with batch normalisation has 467 233
        parameters, a weights file of 1.9 MB.
    batch_norm : bool
        Batch normalisation after every convolution of 3.

    References
    ----------
    .. [1] Ronneberger, Fischer, Brox (2015). MICCAI, U-Net.
    .. [2] Çiçek, Abdulkadir, Lienkamp, Brox, Ronneberger (2016). MICCAI, 3D U-Net.
    """

    def __init__(self, *, dimensions: int, in_channels: int, widths: Sequence[int], batch_norm: bool) -> None:
        super().__init__()
        self.dimensions = dimensions
        self.factor = 2 ** (len(widths) - 1)
        convolution: Callable[..., nn.Module] = nn.Conv2d if dimensions == 2 else nn.Conv3d
        transposed: Callable[..., nn.Module] = nn.ConvTranspose2d if dimensions == 2 else nn.ConvTranspose3d
        normalisation: Callable[..., nn.Module] = nn.BatchNorm2d if dimensions == 2 else nn.BatchNorm3d

        def block(channels_in: int, channels_out: int) -> nn.Sequential:
            layers: list[nn.Module] = []
            for channels in (channels_in, channels_out):
                layers.append(convolution(channels, channels_out, 3, padding=1))
                if batch_norm:
                    layers.append(normalisation(channels_out))
                layers.append(nn.ReLU(inplace=True))
            return nn.Sequential(*layers)

        pairs = list(itertools.pairwise(widths))
        self.down = nn.ModuleList([block(in_channels, widths[0]), *(block(fine, coarse) for fine, coarse in pairs)])
        self.up = nn.ModuleList([transposed(coarse, fine, 2, stride=2) for fine, coarse in reversed(pairs)])
        self.join = nn.ModuleList([block(2 * fine, fine) for fine, _ in reversed(pairs)])
        self.head = convolution(widths[0], 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch.

        Parameters
        ----------
        x : Tensor, shape (N, C, [Z,] Y, X)
            Every spatial size a multiple of 2 to the number of poolings.

        Returns
        -------
        logits : Tensor, shape (N, 1, [Z,] Y, X)
        """
        if any(size % self.factor for size in x.shape[2:]):
            raise ModelError(f"spatial sizes must be multiples of {self.factor}, got {tuple(x.shape[2:])}; pad first")
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else halve(x))
            skips.append(x)
        skips.pop()
        for enlarge, block in zip(self.up, self.join, strict=True):
            x = block(torch.cat([skips.pop(), enlarge(x)], dim=1))
        return self.head(x)


NETWORKS: dict[str, Callable[..., nn.Module]] = {"unet": UNet}


def halve(x: Tensor) -> Tensor:
    """Maximum over cells of two voxels along every spatial axis.

    Parameters
    ----------
    x : Tensor, shape (N, C, [Z,] Y, X)
        Even spatial sizes.

    Returns
    -------
    halved : Tensor
    """
    if x.ndim == 4:
        return F.max_pool2d(x, 2)
    if x.is_cuda and x.requires_grad:  # max_pool3d has no deterministic gradient there
        return _halve_by_maximum(x)
    return F.max_pool3d(x, 2)


def _halve_by_maximum(x: Tensor) -> Tensor:
    cells = [part for size in x.shape[2:] for part in (size // 2, 2)]
    return x.reshape(*x.shape[:2], *cells).amax(dim=(3, 5, 7))


def build(network: Mapping[str, Any], *, seed: int) -> nn.Module:
    """Make a network with random weights.

    Parameters
    ----------
    network : mapping
        The keys under ``network`` of a model: name, dimensions, widths, slices, slice_step, batch_norm.
    seed : int
        Equal seeds give equal weights. Convolutions before a ReLU are initialised after He et al. [1]_, the others with
        unit gain; biases are zero.

    Returns
    -------
    network : torch.nn.Module

    Raises
    ------
    ModelError
        If the name is unknown or the keys don't fit together.

    References
    ----------
    .. [1] He, Zhang, Ren, Sun (2015). ICCV, Delving deep into rectifiers.
    """
    check(network)
    made = NETWORKS[network["name"]](
        dimensions=network["dimensions"],
        in_channels=network["slices"],
        widths=network["widths"],
        batch_norm=network["batch_norm"],
    )
    generator = torch.Generator().manual_seed(seed)
    transposed = (nn.ConvTranspose2d, nn.ConvTranspose3d)
    with torch.no_grad():
        for module in made.modules():
            if isinstance(module, (nn.Conv2d, nn.Conv3d, *transposed)):
                # every voxel of a transposed convolution of 2 with stride 2 has one voxel of input
                fan_in = module.in_channels * (1 if isinstance(module, transposed) else math.prod(module.kernel_size))
                gain = 2.0 if math.prod(module.kernel_size) == 3 ** network["dimensions"] else 1.0
                module.weight.normal_(0.0, math.sqrt(gain / fan_in), generator=generator)
                assert module.bias is not None
                module.bias.zero_()
    return made


def check(network: Mapping[str, Any]) -> None:
    """Say what is wrong with the keys under ``network`` of a model.

    Parameters
    ----------
    network : mapping
        name, dimensions, widths, slices, slice_step, batch_norm.

    Raises
    ------
    ModelError
        If the name is unknown, or `slices` doesn't go with `dimensions`.
    """
    if network["name"] not in NETWORKS:
        raise ModelError(f"network.name must be one of {', '.join(sorted(NETWORKS))}, got {network['name']!r}")
    if network["dimensions"] not in (2, 3):
        raise ModelError(f"network.dimensions must be 2 or 3, got {network['dimensions']}")
    if network["dimensions"] == 3 and network["slices"] != 1:
        raise ModelError(f"network.slices is for 2 dimensions; set it to 1 for 3, got {network['slices']}")
    if network["slices"] % 2 == 0:
        raise ModelError(
            f"network.slices must be odd, since the middle one is predicted, got {network['slices']}; "
            f"set {network['slices'] + 1}"
        )


def size_factor(network: Mapping[str, Any]) -> Shape:
    """Sizes (Z, Y, X) whose multiples the network takes: 2 to the number of poolings, 1 along z in 2-D.

    Parameters
    ----------
    network : mapping
        The keys under ``network`` of a model.

    Returns
    -------
    factor : tuple of int
    """
    factor = 2 ** (len(network["widths"]) - 1)
    return (factor if network["dimensions"] == 3 else 1, factor, factor)


def receptive_field(network: Mapping[str, Any]) -> Shape:
    """How far a predicted voxel sees: half widths (Z, Y, X) in voxels of the network's input.

    Parameters
    ----------
    network : mapping
        The keys under ``network`` of a model.

    Returns
    -------
    reach_voxels : tuple of int
        No voxel farther away along an axis can change the prediction. Exact for the worst place in the pooling grid.

    Examples
    --------
    >>> receptive_field({"name": "unet", "dimensions": 2, "widths": [32, 64, 128], "slices": 3, "slice_step": 1})
    (1, 23, 23)
    """
    levels = len(network["widths"])
    reach = 0
    for place in range(2 ** (levels - 1)):
        low, high = _seen(place, place, levels)
        reach = max(reach, place - low, high - place)
    return (reach if network["dimensions"] == 3 else slices_beside(network), reach, reach)


def slices_beside(network: Mapping[str, Any]) -> int:
    """How many slices to each side of the predicted one a network of 2 dimensions looks across.

    Parameters
    ----------
    network : mapping
        Its keys ``slices`` and ``slice_step`` are read.

    Returns
    -------
    beside : int

    Examples
    --------
    >>> slices_beside({"slices": 5, "slice_step": 3})
    6
    """
    return int(network["slices"]) // 2 * int(network["slice_step"])


def _seen(low: int, high: int, levels: int) -> tuple[int, int]:
    """First and last input voxel that voxels `low` to `high` of a U-Net's output depend on, along one axis."""
    low, high = low - 2, high + 2  # two convolutions of 3
    if levels == 1:
        return low, high
    coarse_low, coarse_high = _seen(low // 2, high // 2, levels - 1)
    low, high = min(low, 2 * coarse_low), max(high, 2 * coarse_high + 1)
    return low - 2, high + 2


def native_reach(settings: Mapping[str, Any], slice_shape: Sequence[int]) -> Shape:
    """How far a predicted voxel sees in the volume's own voxels, also where slices are scaled for the network.

    Parameters
    ----------
    settings : mapping
        A model's settings: its keys ``network`` and ``input`` are read.
    slice_shape : sequence of int
        (Y, X) of the volume.

    Returns
    -------
    reach_voxels : tuple of int
        Half widths (Z, Y, X). Scaling adds the width of its two filters.
    """
    z, *plane = receptive_field(settings["network"])
    if settings["input"]["size"] is None:
        return z, plane[0], plane[1]
    scales = [native / size for native, size in zip(slice_shape, settings["input"]["size"], strict=True)]
    y, x = (math.ceil((reach + 1) * scale + max(scale, 1.0) + 1) for reach, scale in zip(plane, scales, strict=True))
    return z, y, x


def activation_bytes(network: Mapping[str, Any]) -> float:
    """Memory that a forward pass holds for each voxel of its input, in bytes; an upper estimate for float32.

    Parameters
    ----------
    network : mapping
        The keys under ``network`` of a model.

    Returns
    -------
    bytes_per_voxel : float
        At its peak, when the finest level is joined: the skip, the enlarged, both joined, and one result, with the
        same again for a convolution's reordered copies.
    """
    return 4.0 * (network["slices"] + 8 * network["widths"][0])
