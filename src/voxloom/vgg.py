"""Weights of VGG-16, as torchvision names them, for the way down of a deep contextual network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from voxloom.contextual import ContextualNetwork
from voxloom.errors import ModelError

CONVOLUTIONS = {
    0: (64, 3),
    2: (64, 64),
    5: (128, 64),
    7: (128, 128),
    10: (256, 128),
    12: (256, 256),
    14: (256, 256),
    17: (512, 256),
    19: (512, 512),
    21: (512, 512),
}
"""The first ten convolutions: number in ``features``, channels that it makes and takes. Their kernels are 3 x 3."""


def is_vgg(tensors: Mapping[str, Tensor]) -> bool:
    """Whether tensors are named as torchvision names those of a VGG.

    Parameters
    ----------
    tensors : mapping of str to Tensor

    Returns
    -------
    is_vgg : bool
    """
    return "features.0.weight" in tensors


def sources(network: nn.Module, tensors: Mapping[str, Tensor], *, source: str) -> dict[str, str]:
    """Which tensor of VGG-16 each tensor of a network's way down begins with.

    Parameters
    ----------
    network : torch.nn.Module
    tensors : mapping of str to Tensor
        Of the source.
    source : str
        What it is called, for messages.

    Returns
    -------
    names : dict of str to str
        By name in the network. Empty where the network is another one, or the source is no VGG.

    Raises
    ------
    ModelError
        If the source is another VGG than VGG-16 without normalisation, or no convolution has its channels.
    """
    if not isinstance(network, ContextualNetwork) or not is_vgg(tensors):
        return {}
    _refuse_others(tensors, source=source)
    names, own, fits = {}, network.state_dict(), False
    convolutions = [
        name for name, part in network.named_modules() if name[:5] == "down." and isinstance(part, nn.Conv2d)
    ]
    for name, number in zip(convolutions, CONVOLUTIONS, strict=False):
        kinds = [kind for kind in ("weight", "bias") if f"{name}.{kind}" in own]
        names.update({f"{name}.{kind}": f"features.{number}.{kind}" for kind in kinds})
        weight = own[f"{name}.weight"]
        fits |= for_input(tensors[f"features.{number}.weight"], channels=weight.shape[1:2]).shape == weight.shape
    if not fits:
        widths = [own[f"{name}.weight"].shape[0] for name in convolutions]
        raise ModelError(
            f"init_from: {source} is VGG-16, whose convolutions make {_listed(CONVOLUTIONS)} channels; this network's "
            f"make {', '.join(map(str, widths))}: leave out network.widths with preset chen2016, or remove init_from"
        )
    return names


def for_input(weight: Tensor, *, channels: Sequence[int]) -> Tensor:
    """The first convolution's weights for another number of input channels.

    Parameters
    ----------
    weight : Tensor, shape (64, 3, 3, 3)
        For red, green and blue; weights of any other convolution, and biases, are given back as they are.
    channels : sequence of int
        How many the network's own convolution takes; empty for a bias.

    Returns
    -------
    weight : Tensor, shape (64, C, 3, 3)
        The sum over colours, divided by C: grey values answer as a grey picture, whose three colours are alike, did,
        and so do C equal slices.
    """
    if tuple(weight.shape[:2]) != CONVOLUTIONS[0]:
        return weight
    return weight.sum(dim=1, keepdim=True).repeat(1, channels[0], 1, 1) / channels[0]


def _refuse_others(tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Refuse what is named as a VGG and isn't VGG-16 without normalisation."""
    for number, (after, before) in CONVOLUTIONS.items():
        for name, shape in (
            (f"features.{number}.weight", (after, before, 3, 3)),
            (f"features.{number}.bias", (after,)),
        ):
            found = tensors.get(name)
            if found is None or tuple(found.shape) != shape:
                has = "it lacks" if found is None else f"its shape is {'x'.join(map(str, found.shape))}, not that of"
                raise ModelError(
                    f"init_from: {source} is named as a VGG, but is no VGG-16 without normalisation: {has} {name} "
                    f"({'x'.join(map(str, shape))}); give the state dict of torchvision's vgg16"
                )


def _listed(convolutions: Mapping[int, tuple[int, int]]) -> str:
    return ", ".join(str(after) for after, _ in convolutions.values())
