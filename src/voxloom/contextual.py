"""The deep contextual network: one way down, and from every coarser level a branch back to the input's size."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from voxloom.errors import ModelError
from voxloom.network_settings import vgg_convolutions
from voxloom.unet import PlainUnit, convolution, pool


class ContextualNetwork(nn.Module):
    """The deep contextual network [1]_, in 2-D, that returns logits.

    On the way down every level is two convolutions of 3, from the third level on three, as in VGG-16, each with ReLU;
    levels are joined by maximum pooling of 2. Every level but the finest feeds a `Branch` with what it has before its
    pooling. A branch makes a score for every class at the input's size; scores of all branches are added, so that the
    probabilities of the sum join what is seen at every scale.

    Parameters
    ----------
    in_channels : int
        Channels C of the input; neighbouring slices may be channels.
    out_channels : int
        Logits a voxel. For one logit there are two classes inside, and their difference is given: its sigmoid is their
        softmax.
    widths : sequence of int
        Channels a level, from the finest to the coarsest. [64, 128, 256, 512], the published ones, have 7 933 258
        parameters without normalisation and 7 935 952 with batch normalisation.
    norm : {"batch", "instance", "group", "none"}
        After every convolution before a ReLU; those have no bias then.
    dropout : float
        Share of a level's channels that is dropped in training, after the level.
    deep_supervision : bool
        In training, return the logits of every branch, too: the auxiliary classifiers.
    **_
        What of a U-Net's structure this network doesn't have; see `network_settings.problems`.

    References
    ----------
    .. [1] Chen, Qi, Cheng, Heng (2016). AAAI, Deep contextual networks for neuronal structure segmentation.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        widths: Sequence[int],
        norm: str,
        dropout: float,
        deep_supervision: bool,
        **_: Any,
    ) -> None:
        super().__init__()
        self.deep_supervision, self.is_binary = deep_supervision, out_channels == 1
        self.factor = 2 ** (len(widths) - 1)
        classes = max(2, out_channels)

        def down(level: int) -> nn.Module:
            before = widths[level - 1] if level else in_channels
            channels = [before, *[widths[level]] * vgg_convolutions(level)]
            return PlainUnit(channels, kernel=(3, 3), norm=norm, dropout=dropout, has_bias=norm == "none")

        self.down = nn.ModuleList([down(level) for level in range(len(widths))])
        self.branches = nn.ModuleList(
            [Branch(width, classes, stride=2**level, norm=norm) for level, width in enumerate(widths) if level]
        )

    def scores(self, x: Tensor) -> list[Tensor]:
        """Scores of every branch, before any softmax.

        Parameters
        ----------
        x : Tensor, shape (N, C, Y, X)
            Sizes are multiples of 2 to the number of poolings.

        Returns
        -------
        scores : list of Tensor, shape (N, classes, Y, X)
            From the finest branch to the coarsest, each a channel a class.
        """
        if any(size % self.factor for size in x.shape[2:]):
            raise ModelError(f"spatial sizes must be multiples of {self.factor}, got {tuple(x.shape[2:])}; pad first")
        x, scores = self.down[0](x), []
        for block, branch in zip(self.down[1:], self.branches, strict=True):
            x = block(pool(x, (2, 2)))
            scores.append(branch(x))
        return scores

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits of a batch.

        Parameters
        ----------
        x : Tensor, shape (N, C, Y, X)
            See `scores`.

        Returns
        -------
        logits : Tensor, shape (N, out_channels, Y, X)
            Of the sum of all branches. With deep supervision and in training, a list that begins with it; then come
            those of every branch, the finest first, of the same size.
        """
        scores = self.scores(x)
        fused = self._logits(functools.reduce(torch.add, scores))
        if self.training and self.deep_supervision:
            return [fused, *map(self._logits, scores)]
        return fused

    def _logits(self, scores: Tensor) -> Tensor:
        return scores[:, 1:] - scores[:, :1] if self.is_binary else scores


class Branch(nn.Module):
    """From a coarser level to scores at the input's size: a transposed convolution, a convolution of 3, a classifier.

    Parameters
    ----------
    channels : int
        Of the level.
    classes : int
    stride : int
        How much coarser than the input the level is, even. The transposed convolution's kernel is twice as wide, padded
        by half of the stride.
    norm : {"batch", "instance", "group", "none"}
        After the convolution.
    """

    def __init__(self, channels: int, classes: int, *, stride: int, norm: str) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(channels, classes, 2 * stride, stride=stride, padding=stride // 2)
        self.mix = PlainUnit([classes, classes], kernel=(3, 3), norm=norm, dropout=0.0, has_bias=norm == "none")
        self.head = convolution(classes, classes, (1, 1))

    def initialise(self, generator: torch.Generator) -> None:
        """Draw random weights for the transposed convolution, and let the convolution begin as the identity.

        Parameters
        ----------
        generator : torch.Generator
            On the CPU.

        Notes
        -----
        The transposed convolution interpolates linearly and mixes the level's channels at random, so that the first
        scores are as smooth as they will be, with no pattern of the stride. With two channels, random weights before a
        ReLU often leave it shut everywhere, and the branch then never learns. The classes' mixtures therefore sum to
        zero: at every voxel one of them is not below it.
        """
        channels, classes, edge, _ = self.up.weight.shape
        mixture = torch.randn((channels, classes), generator=generator) * math.sqrt(classes / (classes - 1) / channels)
        mixture = mixture - mixture.mean(dim=1, keepdim=True)
        ramp = 1 - ((torch.arange(edge) - (edge - 1) / 2).abs() / self.up.stride[0])
        with torch.no_grad():
            self.up.weight.copy_(mixture[:, :, None, None] * ramp[:, None] * ramp)
            nn.init.dirac_(self.mix[0].weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Scores of a level.

        Parameters
        ----------
        x : Tensor, shape (N, channels, Y, X)

        Returns
        -------
        scores : Tensor, shape (N, classes, stride * Y, stride * X)
        """
        scores: Tensor = self.head(self.mix(self.up(x)))
        return scores
