"""The U-Net: any depth, in 2-D or 3-D, plain or residual, with its own stride and kernel along every axis."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxloom.convolution import Conv3d
from voxloom.errors import ModelError

MOST_GROUPS = 8
Sizes = Sequence[int]


class UNet(nn.Module):
    """A U-Net of any depth, in 2-D or 3-D, that returns logits.

    Every plain level is some convolutions, padded with zeros, each with normalisation and ReLU. Levels are joined by
    maximum pooling on the way down; on the way up the coarser level is enlarged and joined with the skip connection. A
    convolution of 1 makes the logits. Residual levels are a `ResidualUnit`, whose first convolution has the stride in
    the place of pooling.

    Parameters
    ----------
    dimensions : {2, 3}
        2 takes tensors (N, C, Y, X), 3 takes (N, C, Z, Y, X).
    in_channels : int
        Channels C of the input; for 2 dimensions neighbouring slices may be channels.
    out_channels : int
        Logits a voxel.
    widths : sequence of int
        Channels a level, from the finest to the coarsest. [32, 64, 128] with batch normalisation has 467 233
        parameters, a weights file of 1.9 MB.
    strides : sequence of sequence of int
        Of the step to each coarser level, along (Z, Y, X); Z is not read in 2-D.
    kernels : sequence of sequence of int
        Of each level's convolutions, along (Z, Y, X); odd.
    convolutions : int
        A level, on the way down and on the way up.
    norm : {"batch", "instance", "group", "none"}
        After every convolution; before it, with its ReLU, in residual units.
    dropout : float
        Share of a level's channels that is dropped in training, after the level. Its choice is not random: see
        `ChannelDropout`.
    residual : bool
    shortcut : {"projection", "padding"}
        Of residual units where channels or size change; see `ResidualUnit`.
    upsampling : {"transposed", "transposed_wide", "nearest"}
        A transposed convolution of the stride to the finer level's channels, or one that keeps the coarser level's, or
        copies of the nearest voxel.
    late_widening : bool
        On the way down the first convolution of a level makes half of the level's channels.
    deep_supervision : bool
        In training, return the logits of every level of the way up, the finest first.

    References
    ----------
    .. [1] Ronneberger, Fischer, Brox (2015). MICCAI, U-Net.
    .. [2] Çiçek, Abdulkadir, Lienkamp, Brox, Ronneberger (2016). MICCAI, 3D U-Net.
    .. [3] Zhang, Liu, Wang (2018). IEEE Geoscience and Remote Sensing Letters 15(5), Deep residual U-Net.
    """

    def __init__(
        self,
        *,
        dimensions: int,
        in_channels: int,
        out_channels: int,
        widths: Sizes,
        strides: Sequence[Sizes],
        kernels: Sequence[Sizes],
        convolutions: int,
        norm: str,
        dropout: float,
        residual: bool,
        shortcut: str,
        upsampling: str,
        late_widening: bool,
        deep_supervision: bool,
    ) -> None:
        super().__init__()
        self.deep_supervision = deep_supervision
        self.strides = [tuple(stride[-dimensions:]) for stride in strides]
        self.pools = not residual
        self.factor = tuple(math.prod(axis) for axis in zip(*self.strides, strict=True)) or (1,) * dimensions

        def block(channels: Sizes, level: int, stride: Sizes = (1,) * dimensions, *, is_raw: bool = False) -> nn.Module:
            """One level's convolutions between these channels."""
            kernel = tuple(kernels[level][-dimensions:])
            kind: Any = ResidualUnit if residual else PlainUnit
            options = {"stride": stride, "shortcut": shortcut, "is_raw": is_raw} if residual else {}
            return kind(channels, kernel=kernel, norm=norm, dropout=dropout, **options)

        def down(level: int) -> nn.Module:
            before = widths[level - 1] if level else in_channels
            first = widths[level] // 2 if late_widening else widths[level]
            channels = [before, first, *[widths[level]] * (convolutions - 1)]
            return block(channels, level, self.strides[level - 1] if level else (1,) * dimensions, is_raw=level == 0)

        def join(level: int) -> nn.Module:
            enlarged = widths[level] if upsampling == "transposed" else widths[level + 1]
            return block([widths[level] + enlarged, *[widths[level]] * convolutions], level)

        upward = range(len(widths) - 2, -1, -1)
        self.down = nn.ModuleList([down(level) for level in range(len(widths))])
        self.up = nn.ModuleList([_enlarger(upsampling, widths[n + 1], widths[n], self.strides[n]) for n in upward])
        self.join = nn.ModuleList([join(level) for level in upward])
        self.head = convolution(widths[0], out_channels, (1,) * dimensions)
        supervised = [level for level in upward if level > 0 and deep_supervision]
        self.coarse_heads = nn.ModuleList(
            [convolution(widths[level], out_channels, (1,) * dimensions) for level in supervised]
        )

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits of a batch.

        Parameters
        ----------
        x : Tensor, shape (N, C, [Z,] Y, X)
            Spatial sizes are multiples of the product of the strides.

        Returns
        -------
        logits : Tensor, shape (N, out_channels, [Z,] Y, X)
            With deep supervision and in training, a list that begins with it; each further one is smaller by one more
            stride.
        """
        if any(size % factor for size, factor in zip(x.shape[2:], self.factor, strict=True)):
            raise ModelError(f"spatial sizes must be multiples of {self.factor}, got {tuple(x.shape[2:])}; pad first")
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(pool(x, self.strides[level - 1]) if level and self.pools else x)
            skips.append(x)
        skips.pop()
        coarse: list[Tensor] = []
        heads = self.coarse_heads if self.training else ()
        for enlarge, block, head in itertools.zip_longest(self.up, self.join, heads):
            x = block(torch.cat([skips.pop(), enlarge(x)], dim=1))
            coarse += [head(x)] if head is not None else []
        if self.training and self.deep_supervision:
            return [self.head(x), *reversed(coarse)]
        return self.head(x)


class PlainUnit(nn.Sequential):
    """Convolutions, each followed by normalisation and ReLU.

    Parameters
    ----------
    channels : sequence of int
        Of the input, then of what each convolution makes.
    kernel : sequence of int
    norm : {"batch", "instance", "group", "none"}
    dropout : float
        Share of the last channels that is dropped in training.
    has_bias : bool
        Of the convolutions; normalisation takes a bias away again.
    """

    def __init__(self, channels: Sizes, *, kernel: Sizes, norm: str, dropout: float, has_bias: bool = True) -> None:
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(channels):
            layers += [convolution(before, after, kernel, has_bias=has_bias)]
            layers += [*_normalisation(norm, after, len(kernel)), nn.ReLU(inplace=True)]
        super().__init__(*layers, *_dropout(dropout, channels[-1]))


class ResidualUnit(nn.Module):
    """Normalisation, ReLU and convolution, some times, plus a shortcut past all of them (pre-activation [1]_).

    Parameters
    ----------
    channels : sequence of int
        Of the input, then of what each convolution makes.
    kernel, stride : sequence of int
        The first convolution has the stride.
    norm : {"batch", "instance", "group", "none"}
    dropout : float
        Share of the last channels that is dropped in training.
    shortcut : {"projection", "padding"}
        Where channels or size change: a convolution of 1 with normalisation, or every stride-th voxel with further
        channels of zeros, surplus ones left out. Elsewhere it is the input itself.
    is_raw : bool
        The input is grey values: no normalisation and ReLU before the first convolution.
    shortcut_kernel : int
        Edge of the projection's convolution.

    References
    ----------
    .. [1] He, Zhang, Ren, Sun (2016). ECCV, Identity mappings in deep residual networks.
    """

    def __init__(
        self,
        channels: Sizes,
        *,
        kernel: Sizes,
        stride: Sizes,
        norm: str,
        dropout: float,
        shortcut: str,
        is_raw: bool,
        shortcut_kernel: int = 1,
    ) -> None:
        super().__init__()
        dimensions, first, last = len(kernel), channels[0], channels[-1]
        layers: list[nn.Module] = []
        for number, (before, after) in enumerate(itertools.pairwise(channels)):
            if number or not is_raw:
                # the shortcut needs the input as it was
                layers += [*_normalisation(norm, before, dimensions), nn.ReLU(inplace=number > 0 or norm != "none")]
            layers += [convolution(before, after, kernel, (1,) * dimensions if number else stride)]
        self.layers = nn.Sequential(*layers, *_dropout(dropout, last))
        self.shortcut: nn.Module
        if first == last and max(stride) == 1:
            self.shortcut = nn.Identity()
        elif shortcut == "padding":
            self.shortcut = PaddedShortcut(last, stride=stride)
        else:
            projection = convolution(first, last, (shortcut_kernel,) * dimensions, stride)
            self.shortcut = nn.Sequential(projection, *_normalisation(norm, last, dimensions))

    def forward(self, x: Tensor) -> Tensor:
        """What the convolutions add to the shortcut.

        Parameters
        ----------
        x : Tensor, shape (N, C, [Z,] Y, X)

        Returns
        -------
        y : Tensor
        """
        return self.layers(x) + self.shortcut(x)


class PaddedShortcut(nn.Module):
    """Every stride-th voxel, with channels of zeros added or surplus channels left out; has no parameters.

    Parameters
    ----------
    channels : int
        Of the result.
    stride : sequence of int
    """

    def __init__(self, channels: int, *, stride: Sizes) -> None:
        super().__init__()
        self.channels, self.stride = channels, tuple(stride)

    def forward(self, x: Tensor) -> Tensor:
        """The shortcut of a residual unit.

        Parameters
        ----------
        x : Tensor, shape (N, C, [Z,] Y, X)

        Returns
        -------
        y : Tensor, shape (N, channels, [Z,] Y, X) with spatial sizes divided by the stride
        """
        x = x[(slice(None), slice(self.channels), *(slice(None, None, step) for step in self.stride))]
        missing = self.channels - x.shape[1]
        return F.pad(x, (*(0, 0) * len(self.stride), 0, missing)) if missing else x


class ChannelDropout(nn.Module):
    """Drops whole channels in training: those that were drawn beforehand.

    The choice is part of the training's state and not of a global generator, so that a resumed training makes the same
    one, and two processes that share a batch make that of one.

    Parameters
    ----------
    share : float
        Of the channels, dropped; the others are multiplied by 1 / (1 - share).
    channels : int
    """

    def __init__(self, share: float, *, channels: int) -> None:
        super().__init__()
        self.share, self.channels = share, channels
        self.factors: Tensor | None = None

    def draw(self, samples: int, generator: torch.Generator, share: slice = slice(None)) -> None:
        """Choose the channels that the next batches lack.

        Parameters
        ----------
        samples : int
            In a batch.
        generator : torch.Generator
            On the CPU.
        share : slice
            Samples that this process sees.
        """
        kept = torch.rand((samples, self.channels), generator=generator)[share] >= self.share
        self.factors = kept / (1 - self.share)

    def forward(self, x: Tensor) -> Tensor:
        """The input without the dropped channels.

        Parameters
        ----------
        x : Tensor, shape (N, C, [Z,] Y, X)

        Returns
        -------
        y : Tensor
        """
        if not self.training:
            return x
        if self.factors is None or len(self.factors) != len(x):
            raise ModelError(
                f"dropout of {len(x)} samples was not drawn; call networks.draw_dropout before the batch is learnt"
            )
        return x * self.factors.to(x).reshape(*self.factors.shape, *(1,) * (x.ndim - 2))


def pool(x: Tensor, stride: Sizes) -> Tensor:
    """Maximum over cells.

    Parameters
    ----------
    x : Tensor, shape (N, C, [Z,] Y, X)
        Spatial sizes are multiples of the stride.
    stride : sequence of int
        Edges of a cell.

    Returns
    -------
    pooled : Tensor
    """
    if x.ndim == 4:
        return F.max_pool2d(x, tuple(stride))
    if x.is_cuda and x.requires_grad:  # max_pool3d has no deterministic gradient there
        return _pool_by_maximum(x, stride)
    return F.max_pool3d(x, tuple(stride))


def _pool_by_maximum(x: Tensor, stride: Sizes) -> Tensor:
    cells = [part for size, step in zip(x.shape[2:], stride, strict=True) for part in (size // step, step)]
    return x.reshape(*x.shape[:2], *cells).amax(dim=(3, 5, 7))


def convolution(
    before: int, after: int, kernel: Sizes, stride: Sizes | None = None, *, has_bias: bool = True
) -> nn.Module:
    """A convolution that is padded with zeros, so that only its stride makes the result smaller.

    Parameters
    ----------
    before, after : int
        Channels.
    kernel, stride : sequence of int
        Two numbers for (Y, X), three for (Z, Y, X); the kernel's are odd. No stride is 1.
    has_bias : bool

    Returns
    -------
    convolution : torch.nn.Module
    """
    kind: Any = nn.Conv2d if len(kernel) == 2 else Conv3d
    padding = tuple(edge // 2 for edge in kernel)
    strides = tuple(stride or (1,) * len(kernel))
    return kind(before, after, tuple(kernel), stride=strides, padding=padding, bias=has_bias)


def _enlarger(upsampling: str, coarse: int, fine: int, stride: Sizes) -> nn.Module:
    """From a coarser level to the size of the next finer one."""
    if upsampling == "nearest":
        return nn.Upsample(scale_factor=tuple(map(float, stride)), mode="nearest")
    kind: Any = nn.ConvTranspose2d if len(stride) == 2 else nn.ConvTranspose3d
    return kind(coarse, fine if upsampling == "transposed" else coarse, tuple(stride), stride=tuple(stride))


def _normalisation(name: str, channels: int, dimensions: int) -> list[nn.Module]:
    if name == "none":
        return []
    if name == "group":
        return [nn.GroupNorm(math.gcd(MOST_GROUPS, channels), channels)]
    kinds: Any = {
        ("batch", 2): nn.BatchNorm2d,
        ("batch", 3): nn.BatchNorm3d,
        ("instance", 2): nn.InstanceNorm2d,
        ("instance", 3): nn.InstanceNorm3d,
    }
    return [kinds[name, dimensions](channels, affine=True)]


def _dropout(share: float, channels: int) -> list[nn.Module]:
    return [ChannelDropout(share, channels=channels)] if share > 0 else []
