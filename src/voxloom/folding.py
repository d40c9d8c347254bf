"""Batch normalisation folded into the convolution before it: the same network with fewer passes over its data."""

from __future__ import annotations

import copy
import itertools

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
NORMALISATIONS = (nn.BatchNorm2d, nn.BatchNorm3d)


def folded(network: nn.Module) -> nn.Module:
    """A network for prediction whose convolutions do what the batch normalisation after them did.

    Parameters
    ----------
    network : torch.nn.Module
        Not modified.

    Returns
    -------
    network : torch.nn.Module
        A copy, in evaluation mode. Its output differs by the rounding of its sums.

    Notes
    -----
    Only a normalisation that follows a convolution at once can be folded; in residual units, where a ReLU lies between
    the two, most can't. Instance and group normalisation depend on what is predicted and stay.
    """
    made = copy.deepcopy(network).eval()
    for layers in list(made.modules()):
        if isinstance(layers, nn.Sequential):
            _fold_pairs(layers)
    return made


def _fold_pairs(layers: nn.Sequential) -> None:
    """Fold within a chain of layers; what was folded away does nothing from then on."""
    for (name, layer), (following, after) in itertools.pairwise(list(layers.named_children())):
        if isinstance(layer, CONVOLUTIONS) and isinstance(after, NORMALISATIONS):
            setattr(layers, name, fuse_conv_bn_eval(layer, after))
            setattr(layers, following, nn.Identity())
