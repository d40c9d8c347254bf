"""nnU-Net's network as one more entry of voxloom's registry, with what its planner chooses for the EM membranes.

Needs dynamic-network-architectures, a peer and no dependency:

    pip install --no-deps --requirement benchmarks/requirements.txt

The figures below are the "2d" configuration that ExperimentPlanner of nnU-Net 2.8.1 makes from one case of
20 x 512 x 512 voxels of 50 x 4 x 4 nm (8 GB of GPU memory, its default): whole sections, a batch of 2 (its rule that a
batch covers at most 5 % of the data set, and no fewer than 2), eight levels. Its loss is cross-entropy plus Dice over
the batch, with deep supervision whose coarsest output has no weight.
"""

from typing import Any

from torch import Tensor, nn

from voxloom import network_memory, network_reach, networks

NAME = "nnunet_plain"
PATCH_VOXELS = [1, 512, 512]
BATCH_SIZE = 2
WIDTHS = [32, 64, 128, 256, 512, 512, 512, 512]
OPTIMISER = {"name": "sgd", "learning_rate": 1e-2, "momentum": 0.99, "nesterov": True, "weight_decay": 3e-5}
SCHEDULE = {"name": "polynomial", "power": 0.9}
GRADIENT_CLIP = 12.0
FOREGROUND_SHARE = 0.33
NETWORK: dict[str, Any] = {
    "name": NAME,
    "dimensions": 2,
    "widths": WIDTHS,
    "strides": [[1, 2, 2]] * (len(WIDTHS) - 1),
    "kernels": [[1, 3, 3]] * len(WIDTHS),
    "convolutions": 2,
    "norm": "instance",
    "deep_supervision": True,
}
"""Goes over the keys under ``network`` of a model's complete settings."""


class PlainConvUNet(nn.Module):
    """nnU-Net's U-Net of two classes, whose logit is the difference of theirs: the sigmoid of one is their softmax.

    Parameters
    ----------
    dimensions : {2, 3}
    in_channels : int
    widths : sequence of int
        Channels a level, from the finest to the coarsest.
    """

    def __init__(self, *, dimensions: int, in_channels: int, widths: list[int]) -> None:
        from dynamic_network_architectures.architectures.unet import PlainConvUNet as Peer

        super().__init__()
        levels = len(widths)
        self.network = Peer(
            input_channels=in_channels,
            n_stages=levels,
            features_per_stage=list(widths),
            conv_op=nn.Conv2d if dimensions == 2 else nn.Conv3d,
            kernel_sizes=3,
            strides=[1] + [2] * (levels - 1),
            n_conv_per_stage=2,
            num_classes=2,
            n_conv_per_stage_decoder=2,
            conv_bias=True,
            norm_op=nn.InstanceNorm2d if dimensions == 2 else nn.InstanceNorm3d,
            norm_op_kwargs={"eps": 1e-5, "affine": True},
            nonlin=nn.LeakyReLU,
            nonlin_kwargs={"inplace": True},
            deep_supervision=True,
        )

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        self.network.decoder.deep_supervision = self.training
        found = self.network(x)
        if not self.training:
            return _logit(found)
        return [_logit(classes) for classes in found[:-1]]


def _logit(classes: Tensor) -> Tensor:
    return classes[:, 1:] - classes[:, :1]


def is_installed() -> bool:
    """Whether the peer can be imported here."""
    from importlib.util import find_spec

    return find_spec("dynamic_network_architectures") is not None


def register() -> None:
    """Add the network to voxloom's registry, for this process."""

    def construct(*, dimensions: int, in_channels: int, widths: list[int], **_: Any) -> nn.Module:
        return PlainConvUNet(dimensions=dimensions, in_channels=in_channels, widths=widths)

    networks.NETWORKS[NAME] = construct
    # pooling apart, it is the same arrangement of convolutions
    network_reach.SEEN[NAME] = network_reach.SEEN["unet"]
    network_memory.HELD[NAME] = network_memory.HELD["unet"]
