"""A network on its device: predicts any box of a volume, by tiles whose seams can't be told from the whole."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from voxloom import devices, networks
from voxloom.blocks import Readable
from voxloom.errors import ModelError, VolumeError
from voxloom.intensity import Normalisation
from voxloom.labelled import Shape, read_reflected, reflected
from voxloom.sampling import scale_image

# the largest tile (2-D, 3-D): on a CPU small ones stay in its cache; on a GPU large ones keep it busy
TILE_EDGES = {"cpu": (640, 160), "mps": (1024, 192), "cuda": (2048, 320)}


@dataclass(frozen=True)
class Tile:
    """A range of voxels along one axis that is predicted at once.

    Parameters
    ----------
    core : tuple of int
        First voxel and the one after the last that are kept.
    read : tuple of int
        The core and what it sees, on the pooling grid of the whole volume; may end past the volume.
    """

    core: tuple[int, int]
    read: tuple[int, int]


def axis_tiles(start: int, stop: int, size: int, *, edge: int, halo: int, factor: int) -> list[Tile]:
    """Cut a range of voxels into tiles of nearly equal length.

    Parameters
    ----------
    start, stop : int
        The range to predict.
    size : int
        Of the whole volume along this axis; it is mirrored up to the next multiple of `factor`.
    edge : int
        Length to read at most; exceeded by up to two factors, or where the halo leaves no room.
    halo : int
        How far a predicted voxel sees.
    factor : int
        Period of the pooling grid: a tile that doesn't begin on it would see another grid than the whole volume.

    Returns
    -------
    tiles : list of Tile

    Examples
    --------
    >>> [tile.read for tile in axis_tiles(0, 100, 100, edge=64, halo=5, factor=4)]
    [(0, 56), (44, 100)]

    What fits at once is read at once, however far a voxel sees:

    >>> [tile.read for tile in axis_tiles(0, 512, 512, edge=640, halo=891, factor=128)]
    [(0, 512)]
    """
    end = math.ceil(size / factor) * factor
    fits = min(stop + halo, end) - max(start - halo, 0) <= edge
    count = 1 if fits else math.ceil((stop - start) / max(edge - 2 * halo, factor))
    length = math.ceil((stop - start) / count)
    tiles = []
    for low in range(start, stop, length):
        high = min(low + length, stop)
        first, last = max(low - halo, 0) // factor * factor, math.ceil((high + halo) / factor) * factor
        tiles.append(Tile((low, high), (first, min(last, end))))
    return tiles


@dataclass(frozen=True)
class Transform:
    """A symmetry of the voxel grid: the slices' axes Y and X swapped or not, and then axes mirrored.

    Parameters
    ----------
    is_turned : bool
    mirrored : tuple of int
        Axes of the tensor.
    """

    is_turned: bool
    mirrored: tuple[int, ...]

    def apply(self, batch: Tensor) -> Tensor:
        """The transformed batch, shape (N, C, [Z,] Y, X) or (N, C, [Z,] X, Y)."""
        return (batch.transpose(-2, -1) if self.is_turned else batch).flip(self.mirrored)

    def undo(self, batch: Tensor) -> Tensor:
        """The batch that `apply` made this one of."""
        back = batch.flip(self.mirrored)
        return back.transpose(-2, -1) if self.is_turned else back


def tile_symmetries(dimensions: int, *, has_flips: bool, has_rotations: bool) -> tuple[Transform, ...]:
    """The transforms over which a prediction is averaged, each once, the identity first.

    Parameters
    ----------
    dimensions : {2, 3}
    has_flips : bool
        Mirrors along every axis: 4 transforms in 2-D, 8 in 3-D.
    has_rotations : bool
        Quarter turns in the plane of Y and X: 4 transforms, with flips 8 in 2-D and 16 in 3-D.

    Returns
    -------
    transforms : tuple of Transform

    Examples
    --------
    >>> tile_symmetries(2, has_flips=False, has_rotations=True)[1:3]
    (Transform(is_turned=False, mirrored=(2, 3)), Transform(is_turned=True, mirrored=(2,)))
    """
    axes = range(2, 2 + dimensions)
    plane = {dimensions, dimensions + 1}
    mirrors = [mirror for count in range(dimensions + 1) for mirror in itertools.combinations(axes, count)]
    every = [Transform(turned, mirror) for turned in (False, True) for mirror in mirrors]

    def is_rotation(transform: Transform) -> bool:
        # swapping two axes is a mirror image; a second mirror makes it a quarter turn
        return plane.issuperset(transform.mirrored) and len(transform.mirrored) % 2 == transform.is_turned

    if has_flips:
        return tuple(transform for transform in every if has_rotations or not transform.is_turned)
    return tuple(filter(is_rotation, every)) if has_rotations else (every[0],)


def check_rotations(settings: Mapping[str, Any]) -> None:
    """Say why a model can't be predicted over quarter turns, if it is to be.

    Parameters
    ----------
    settings : mapping
        A model's settings with its ``spacing_um``.

    Raises
    ------
    ModelError
        If ``test_time_rotations`` is set and Y and X are not alike.
    """
    if not settings.get("test_time_rotations", False):
        return
    _, height_um, width_um = settings["spacing_um"]
    _, *reach = networks.receptive_field(settings["network"])
    _, *factor = networks.size_factor(settings["network"])
    why = None
    if settings["input"]["size"] is not None:
        why = f"input.size scales slices to {settings['input']['size']}, so that pixels may not be square"
    elif not math.isclose(height_um, width_um, rel_tol=0.01):
        why = f"voxels are {height_um:g} um along Y and {width_um:g} um along X"
    elif reach[0] != reach[1] or factor[0] != factor[1]:
        why = "the network's strides or kernels differ along Y and X"
    if why:
        raise ModelError(f"test_time_rotations turns slices by 90 degrees, but {why}; set it to false")


@dataclass(frozen=True)
class Predictor:
    """A network on its device, ready to predict any box of a volume as if the whole volume had been predicted.

    Parameters
    ----------
    network : torch.nn.Module
        In evaluation mode while it predicts; its training mode is the caller's.
    settings : mapping
        A model's settings with its ``normalisation``.
    device : torch.device
    dtype : torch.dtype
        Of the arithmetic.
    transforms : tuple of Transform
        The mean over the tiles that these make is predicted.
    memory_mib : float
        Budget of one forward pass.
    """

    network: nn.Module
    settings: Mapping[str, Any]
    device: torch.device
    dtype: torch.dtype
    transforms: tuple[Transform, ...]
    memory_mib: float

    @property
    def normalisation(self) -> Normalisation:
        """How grey values become the network's numbers."""
        return Normalisation(**self.settings["normalisation"])

    def region(self, image: Readable, start: Sequence[int], stop: Sequence[int], result: NDArray[Any]) -> None:
        """Predict a box.

        Parameters
        ----------
        image : array-like, shape (Z, Y, X)
            The whole volume, or a `Window` of it that holds what the box sees.
        start, stop : sequence of int
            Half-open range of voxels (Z, Y, X).
        result : ndarray of float32 or uint8, shape stop - start
            Takes the probabilities; uint8 those times 255, rounded.

        Raises
        ------
        ModelError
            If the network's output is not finite.
        VolumeError
            If the image is not finite, or a tile doesn't fit the budget.
        """
        if self.settings["input"]["size"] is not None:
            self._scaled_slices(image, start, stop, result)
            return
        is_3d = self.settings["network"]["dimensions"] == 3
        factor, halo = (
            networks.size_factor(self.settings["network"]),
            networks.receptive_field(self.settings["network"]),
        )
        edges = self._edges(image.shape)
        axes = [
            axis_tiles(start[k], stop[k], image.shape[k], edge=edges[k], halo=halo[k], factor=factor[k])
            for k in ((0, 1, 2) if is_3d else (1, 2))
        ]
        for tiles in itertools.product(*axes):
            reads, cores = [tile.read for tile in tiles], [tile.core for tile in tiles]
            if not is_3d:
                self._slices_of_tile(image, (start[0], stop[0]), reads, cores, start, result)
                continue
            box = self.normalisation.apply(read_box(image, reads))
            probability = self.forward(torch.from_numpy(box)[None, None])[0]
            _put(probability, reads, cores, start, result)

    def _slices_of_tile(
        self,
        image: Readable,
        z: tuple[int, int],
        reads: list[tuple[int, int]],
        cores: list[tuple[int, int]],
        start: Sequence[int],
        result: NDArray[Any],
    ) -> None:
        """One tile of every slice, several at once where they are small."""
        beside, step = networks.slices_beside(self.settings["network"]), self.settings["network"]["slice_step"]
        at_once = self._tiles_at_once(math.prod(high - low for low, high in reads))
        for low in range(*z, at_once):
            high = min(low + at_once, z[1])
            stack = self.normalisation.apply(read_box(image, [(low - beside, high + beside), *reads]))
            channels = torch.from_numpy(stack).unfold(0, 2 * beside + 1, 1)[..., ::step].movedim(-1, 1)  # (N, C, Y, X)
            _put(self.forward(channels), [(low, high), *reads], [(low, high), *cores], start, result)

    def _scaled_slices(self, image: Readable, start: Sequence[int], stop: Sequence[int], result: NDArray[Any]) -> None:
        native = (image.shape[1], image.shape[2])
        for z in range(start[0], stop[0]):
            scaled = self.at_network_scale(image, z)[None]
            back = scale_image(scaled, native)[0].clamp(0, 1)
            _put(back[None], [(z, z + 1), (0, native[0]), (0, native[1])],
                 [(z, z + 1), (start[1], stop[1]), (start[2], stop[2])], start, result)  # fmt: skip

    def at_network_scale(self, image: Readable, z: int) -> Tensor:
        """Probabilities of one slice at the size that the network sees (``input.size``).

        Parameters
        ----------
        image : array-like, shape (Z, Y, X)
        z : int

        Returns
        -------
        probability : Tensor of float32, shape input.size
        """
        beside, step = networks.slices_beside(self.settings["network"]), self.settings["network"]["slice_step"]
        size = self.settings["input"]["size"]
        _, height, width = image.shape
        window = read_reflected(image, (z - beside, 0, 0), (2 * beside + 1, height, width))
        scaled = scale_image(torch.from_numpy(self.normalisation.apply(window[::step])), size)
        factor = networks.size_factor(self.settings["network"])
        rows, columns = (
            torch.from_numpy(reflected(0, -(-n // f) * f, n)) for n, f in zip(size, factor[1:], strict=True)
        )
        return self.forward(scaled[:, rows][:, :, columns][None])[0, : size[0], : size[1]]

    def forward(self, batch: Tensor) -> Tensor:
        """Probabilities of a batch.

        Parameters
        ----------
        batch : Tensor of float32, shape (N, C, [Z,] Y, X)
            On the CPU, normalised.

        Returns
        -------
        probability : Tensor of float32, shape (N, [Z,] Y, X)
            On the CPU.
        """
        batch = batch.to(self.device)
        memory_format = devices.memory_format(batch.ndim - 2)
        total: Tensor | None = None
        with torch.inference_mode(), devices.arithmetic(self.device, self.dtype):
            for transform in self.transforms:
                logits = self.network(transform.apply(batch).contiguous(memory_format=memory_format))
                probability = transform.undo(torch.sigmoid(logits.float()))
                total = probability if total is None else total + probability
        assert total is not None
        mean = (total[:, 0] / len(self.transforms)).cpu()
        if not bool(torch.isfinite(mean).all()):
            raise ModelError(
                "the network's output is not finite: its training diverged; train again with a lower learning rate"
            )
        return mean

    def _voxels_at_once(self) -> float:
        budget = self.memory_mib * 2**20
        if self.device.type == "cuda":
            budget = 0.5 * torch.cuda.mem_get_info(self.device)[0]
        return budget / networks.activation_bytes(self.settings["network"])

    def _edges(self, shape: Sequence[int]) -> Shape:
        """Lengths (Z, Y, X) of a tile to read that fits the budget; Z is not read in 2-D."""
        axes = range(3 - self.settings["network"]["dimensions"], 3)
        factor = networks.size_factor(self.settings["network"])
        halo = networks.receptive_field(self.settings["network"])
        least = [2 * reach + multiple for reach, multiple in zip(halo, factor, strict=True)]
        edges = [TILE_EDGES[self.device.type][len(axes) - 2]] * 3

        def voxels(lengths: Sequence[int]) -> int:
            longest = [lengths[k] + 2 * factor[k] for k in axes]
            return math.prod(
                min(most, -(-shape[k] // factor[k]) * factor[k]) for k, most in zip(axes, longest, strict=True)
            )

        while voxels(edges) > self._voxels_at_once() and any(edges[k] > least[k] for k in axes):
            edges = [max(least[k], int(edges[k] * 0.85) // factor[k] * factor[k]) for k in range(3)]
        if voxels(edges) > self._voxels_at_once():
            needed = voxels(edges) * networks.activation_bytes(self.settings["network"]) / 2**20
            size, sight = (" x ".join(str(lengths[k]) for k in axes) for lengths in (edges, halo))
            raise VolumeError(
                f"the smallest tile of this network, {size} voxels because it sees {sight} voxels far, needs about "
                f"{needed:.0f} MiB and {self.memory_mib:.0f} MiB are left for it; raise resources.memory_mib"
            )
        z, y, x = edges
        return z, y, x

    def _tiles_at_once(self, voxels: int) -> int:
        most = min(self._voxels_at_once(), 2 ** (24 if self.device.type == "cuda" else 19))
        return max(1, int(most // voxels))


def read_box(image: Readable, ranges: Sequence[tuple[int, int]]) -> NDArray[Any]:
    """Read a box that is given by its ranges; see `labelled.read_reflected`.

    Parameters
    ----------
    image : array-like, shape (Z, Y, X)
    ranges : sequence of tuple of int
        First voxel and the one after the last, along (Z, Y, X).

    Returns
    -------
    box : ndarray
    """
    return read_reflected(image, [low for low, _ in ranges], [high - low for low, high in ranges])


def _put(
    probability: Tensor,
    reads: Sequence[tuple[int, int]],
    cores: Sequence[tuple[int, int]],
    start: Sequence[int],
    result: NDArray[Any],
) -> None:
    """Write the core of a tile where it belongs."""
    inner = tuple(slice(low - read, high - read) for (low, high), (read, _) in zip(cores, reads, strict=True))
    to = tuple(slice(low - first, high - first) for (low, high), first in zip(cores, start, strict=True))
    core = probability[inner]
    result[to] = (torch.round(core * 255).to(torch.uint8) if result.dtype == np.uint8 else core).numpy()


def prepare(
    network: nn.Module,
    settings: Mapping[str, Any],
    *,
    memory_mib: float,
    device: str,
    precision: str | None,
    has_flips: bool | None = None,
    has_rotations: bool | None = None,
) -> Predictor:
    """Put a network on its device.

    Parameters
    ----------
    network : torch.nn.Module
        Moved, and set to evaluation mode.
    settings : mapping
        A model's settings with its ``normalisation``.
    memory_mib : float
        Budget of one forward pass on a CPU; a GPU gives half of what it has free.
    device : str
        See `devices.choose_device`.
    precision : str or None
        See `devices.choose_precision`; None takes the model's own.
    has_flips, has_rotations : bool, optional
        Mean over mirrored, over turned tiles; the model's ``test_time_flips`` and ``test_time_rotations`` where they
        are left out.

    Returns
    -------
    predictor : Predictor

    Raises
    ------
    ModelError
        If the model can't be turned; see `check_rotations`.
    """
    check_rotations(settings)
    where = devices.choose_device(device)
    dimensions = settings["network"]["dimensions"]
    network = network.to(where, memory_format=devices.memory_format(dimensions)).eval()  # type: ignore[call-overload]
    return Predictor(
        network=network,
        settings=settings,
        device=where,
        dtype=devices.choose_precision(precision or settings["precision"], where),
        transforms=tile_symmetries(
            dimensions,
            has_flips=settings["test_time_flips"] if has_flips is None else has_flips,
            # models of version 0.1.0 lack the key
            has_rotations=settings.get("test_time_rotations", False) if has_rotations is None else has_rotations,
        ),
        memory_mib=memory_mib,
    )
