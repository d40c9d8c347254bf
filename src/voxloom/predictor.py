"""A network on its device: predicts any box of a volume, by tiles whose seams can't be told from the whole."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from voxloom import devices, networks
from voxloom.blocks import Readable
from voxloom.constant_tiles import ConstantTiles
from voxloom.errors import ModelError, VolumeError
from voxloom.folding import folded
from voxloom.intensity import Normalisation
from voxloom.labelled import Shape, read_reflected, reflected
from voxloom.occupancy import is_occupied
from voxloom.slice_scaling import scale_image
from voxloom.symmetries import Transform, tile_symmetries
from voxloom.tile_memory import TileMemory, apart
from voxloom.tiles import Tile, axis_tiles, each_shape_first, fixed_tiles, spread, spread_tiles

# the largest tile (2-D, 3-D): on a CPU small ones stay in its cache; on a GPU large ones keep it busy
TILE_EDGES = {"cpu": (640, 160), "mps": (1024, 192), "cuda": (2048, 320)}
MOST_SLICES = 64  # at once; layers of shards are as deep
REMEMBERED = 0.05  # share of the memory that holds what the network made of tiles of one value
# the fixed grid of tiles whose halo is narrower than what the network sees (2-D, 3-D)
FIXED_CORES = {"cpu": (512, 64), "mps": (512, 128), "cuda": (1024, 256)}


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
        In evaluation mode.
    settings : mapping
        A model's settings with its ``normalisation``.
    device : torch.device
    dtype : torch.dtype
        Of the arithmetic.
    transforms : tuple of Transform
        The mean over the tiles that these make is predicted.
    memory_mib : float
        Budget of one forward pass.
    halo : tuple of int
        Voxels (Z, Y, X) around what is kept that the network looks at too.
    constant : ConstantTiles
        What it made of tiles of one value.
    averaged : tuple of int, optional
        Edges (Z, Y, X) of tiles that overlap, over which the mean is taken, instead of tiles with a halo.
    memory : TileMemory, optional
        Where the network's numbers lie, if they are to lie elsewhere than where the C library puts them.
    """

    network: nn.Module
    settings: Mapping[str, Any]
    device: torch.device
    dtype: torch.dtype
    transforms: tuple[Transform, ...]
    memory_mib: float
    halo: Shape
    constant: ConstantTiles = field(compare=False)
    averaged: Shape | None = None
    memory: TileMemory | None = field(default=None, compare=False)

    @property
    def is_exact(self) -> bool:
        """Whether the halo holds all that the network sees."""
        sees = networks.receptive_field(self.settings["network"])
        return all(halo >= reach for halo, reach in zip(self.halo, sees, strict=True))

    @property
    def normalisation(self) -> Normalisation:
        """How grey values become the network's numbers."""
        return Normalisation(**self.settings["normalisation"])

    def region(
        self,
        image: Readable,
        start: Sequence[int],
        stop: Sequence[int],
        result: NDArray[Any],
        *,
        occupied: NDArray[np.bool_] | None = None,
    ) -> None:
        """Predict a box.

        Parameters
        ----------
        image : array-like, shape (Z, Y, X)
            The whole volume, or a `Window` of it that holds what the box sees.
        start, stop : sequence of int
            Half-open range of voxels (Z, Y, X).
        result : ndarray of float32 or uint8, shape stop - start
            Takes the probabilities; uint8 those times 255, rounded.
        occupied : ndarray of bool, optional
            Squares of the box that hold something (see `occupancy.Occupancy`). Tiles and slices without one
            are not looked at, and become 0.

        Raises
        ------
        ModelError
            If the network's output is not finite.
        VolumeError
            If the image is not finite, or a tile doesn't fit the budget.
        """
        if self.settings["input"]["size"] is not None:
            self._scaled_slices(image, start, stop, result, occupied)
            return
        if self.averaged is not None:
            self._mean_over_tiles(image, start, stop, result, occupied)
            return
        self._each_tile(image, start, stop, result, occupied)

    def _mean_over_tiles(
        self,
        image: Readable,
        start: Sequence[int],
        stop: Sequence[int],
        result: NDArray[Any],
        occupied: NDArray[np.bool_] | None,
    ) -> None:
        """Every voxel's mean over the tiles that it is in, with equal weights."""
        total = result if result.dtype == np.float32 else np.empty(result.shape, dtype=np.float32)
        total[:] = 0
        self._each_tile(image, start, stop, total, occupied)
        along = self._tiles(image.shape, start, stop)
        for axis, tiles in zip(range(3 - len(along), 3), along, strict=True):
            count = np.zeros(result.shape[axis], dtype=np.float32)
            for tile in tiles:
                count[tile.core[0] - start[axis] : tile.core[1] - start[axis]] += 1
            total /= count.reshape([-1 if k == axis else 1 for k in range(3)])
        if total is not result:
            total *= 255
            np.copyto(result, np.rint(total, out=total), casting="unsafe")

    def _each_tile(
        self,
        image: Readable,
        start: Sequence[int],
        stop: Sequence[int],
        result: NDArray[Any],
        occupied: NDArray[np.bool_] | None,
    ) -> None:
        """Predict a box tile by tile; what averaged tiles give is added."""
        boxes = itertools.product(*self._tiles(image.shape, start, stop))
        for tiles in boxes if self.memory is None else each_shape_first(boxes):
            reads, cores = [tile.read for tile in tiles], [tile.core for tile in tiles]
            if len(tiles) == 2:
                self._slices_of_tile(image, (start[0], stop[0]), reads, cores, start, result, occupied)
            elif _holds_something(occupied, cores, start, result):
                self._volume_of_tile(image, reads, cores, start, result)

    def _volume_of_tile(
        self,
        image: Readable,
        reads: list[tuple[int, int]],
        cores: list[tuple[int, int]],
        start: Sequence[int],
        result: NDArray[Any],
    ) -> None:
        """One tile of a 3-D network; nothing of it is held when the next one begins."""
        probability = self.constant.predict(self._normalised(image, reads)[None, None], self.forward)[0]
        _put(probability, reads, cores, start, result, adds=self.averaged is not None)

    def largest_batch(self, shape: Sequence[int], start: Sequence[int], stop: Sequence[int]) -> tuple[int, ...]:
        """What predicting a box takes at a time.

        Parameters
        ----------
        shape : sequence of int
            (Z, Y, X) of the whole volume.
        start, stop : sequence of int
            As in `region`.

        Returns
        -------
        shape : tuple of int
            (N, C, [Z,] Y, X) of the largest batch that the network is given.
        """
        network, size = self.settings["network"], self.settings["input"]["size"]
        if size is not None:
            _, *factor = networks.size_factor(network)
            return (1, network["slices"], *(-(-n // f) * f for n, f in zip(size, factor, strict=True)))
        longest = [max(tile.read[1] - tile.read[0] for tile in tiles) for tiles in self._tiles(shape, start, stop)]
        samples = min(self._tiles_at_once(math.prod(longest)), stop[0] - start[0]) if len(longest) == 2 else 1
        return (samples, network["slices"], *longest)

    def _tiles(self, shape: Sequence[int], start: Sequence[int], stop: Sequence[int]) -> list[list[Tile]]:
        """The tiles of a box along [Z,] Y, X."""
        axes = range(3 - self.settings["network"]["dimensions"], 3)
        factor = networks.size_factor(self.settings["network"])
        if self.averaged is not None:
            edges = self.averaged
            self._require_averaged(shape)
            return [spread_tiles(start[k], stop[k], shape[k], edge=edges[k], factor=factor[k]) for k in axes]
        if self.is_exact:
            edges = self._edges(shape)
            return [
                axis_tiles(start[k], stop[k], shape[k], edge=edges[k], halo=self.halo[k], factor=factor[k])
                for k in axes
            ]
        cores = self.fixed_core(shape)
        return [
            fixed_tiles(start[k], stop[k], shape[k], core=cores[k], halo=self.halo[k], factor=factor[k]) for k in axes
        ]

    def _slices_of_tile(
        self,
        image: Readable,
        z: tuple[int, int],
        reads: list[tuple[int, int]],
        cores: list[tuple[int, int]],
        start: Sequence[int],
        result: NDArray[Any],
        occupied: NDArray[np.bool_] | None,
    ) -> None:
        """One tile of every slice, several at once where they are small."""
        beside, step = networks.slices_beside(self.settings["network"]), self.settings["network"]["slice_step"]
        at_once = self._tiles_at_once(math.prod(high - low for low, high in reads))
        for low in range(*z, at_once):
            high = min(low + at_once, z[1])
            if not _holds_something(occupied, [(low, high), *cores], start, result):
                continue
            stack = self._normalised(image, [(low - beside, high + beside), *reads])
            channels = stack.unfold(0, 2 * beside + 1, 1)[..., ::step].movedim(-1, 1)  # (N, C, Y, X)
            probability = self.constant.predict(channels, self.forward)
            ranges = [(low, high), *reads], [(low, high), *cores]
            _put(probability, *ranges, start, result, adds=self.averaged is not None)

    def _scaled_slices(
        self,
        image: Readable,
        start: Sequence[int],
        stop: Sequence[int],
        result: NDArray[Any],
        occupied: NDArray[np.bool_] | None,
    ) -> None:
        native = (image.shape[1], image.shape[2])
        plane = [(start[1], stop[1]), (start[2], stop[2])]
        for z in range(start[0], stop[0]):
            if not _holds_something(occupied, [(z, z + 1), *plane], start, result):
                continue
            scaled = self.at_network_scale(image, z)[None]
            back = scale_image(scaled, native)[0].clamp(0, 1)
            _put(back[None], [(z, z + 1), (0, native[0]), (0, native[1])],
                 [(z, z + 1), *plane], start, result)  # fmt: skip

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
        whole = self.constant.predict(self._apart(scaled[:, rows][:, :, columns])[None], self.forward)
        return whole[0, : size[0], : size[1]]

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
        place = contextlib.nullcontext() if self.memory is None else self.memory.of_forward_pass(batch.shape)
        with place:
            mean = self._mean_over_transforms(batch.to(self.device))
        if not math.isfinite(mean.sum()):
            raise ModelError(
                "the network's output is not finite: its training diverged; train again with a lower learning rate"
            )
        return self._apart(mean)

    def _apart(self, numbers: Tensor) -> Tensor:
        return numbers if self.memory is None else apart(numbers)

    def _normalised(self, image: Readable, ranges: Sequence[tuple[int, int]]) -> Tensor:
        return self._apart(torch.from_numpy(self.normalisation.apply(read_box(image, ranges))))

    def _mean_over_transforms(self, batch: Tensor) -> Tensor:
        memory_format = devices.memory_format(batch.ndim - 2)
        total: Tensor | None = None
        with torch.inference_mode(), devices.arithmetic(self.device, self.dtype):
            for transform in self.transforms:
                logits = self.network(transform.apply(batch).contiguous(memory_format=memory_format))
                probability = transform.undo(logits.float().sigmoid_())
                total = probability if total is None else total.add_(probability)
            assert total is not None
            return total.div_(len(self.transforms))[:, 0].cpu()

    def _voxels_at_once(self) -> float:
        budget = self.memory_mib * 2**20
        if self.device.type == "cuda":
            budget = 0.5 * devices.free_gpu_bytes(self.device)
        return budget / networks.activation_bytes(self.settings["network"])

    def forward_mib(self, shape: Sequence[int]) -> float:
        """What a forward pass over a volume takes at most.

        Parameters
        ----------
        shape : sequence of int
            (Z, Y, X) of the volume.

        Returns
        -------
        mib : float

        Raises
        ------
        VolumeError
            If a tile doesn't fit the budget.
        """
        network, size = self.settings["network"], self.settings["input"]["size"]
        if size is not None:
            voxels = math.prod(-(-n // f) * f for n, f in zip(size, networks.size_factor(network)[1:], strict=True))
        else:
            voxels = self._largest_tile(shape)
            at_once = self._tiles_at_once(voxels) if network["dimensions"] == 2 else 1
            voxels *= min(at_once, shape[0])
        return voxels * networks.activation_bytes(network) / 2**20

    def _largest_tile(self, shape: Sequence[int]) -> int:
        if self.averaged is not None:
            self._require_averaged(shape)
            return self._averaged_voxels(shape)
        core = None if self.is_exact else self.fixed_core(shape)
        return self._tile_voxels(self._edges(shape) if core is None else _with_halo(core, self.halo), shape)

    def _averaged_voxels(self, shape: Sequence[int]) -> int:
        assert self.averaged is not None
        factor = networks.size_factor(self.settings["network"])
        axes = range(3 - self.settings["network"]["dimensions"], 3)
        return math.prod(spread(shape[k], edge=self.averaged[k], factor=factor[k])[0] for k in axes)

    def _require_averaged(self, shape: Sequence[int]) -> None:
        """Refuse overlapping tiles that don't fit the budget."""
        voxels = self._averaged_voxels(shape)
        if voxels > self._voxels_at_once():
            needed = voxels * networks.activation_bytes(self.settings["network"]) / 2**20
            raise VolumeError(
                f"a tile of input.patch_voxels, {list(self.averaged or ())}, needs about {needed:.0f} MiB and "
                f"{self.memory_mib:.0f} MiB are left for it; raise resources.memory_mib, or set predict.tiles to exact"
            )

    def fixed_core(self, shape: Sequence[int]) -> Shape:
        """Edges (Z, Y, X) of the grid of tiles that lies fixed in a volume.

        Parameters
        ----------
        shape : sequence of int
            Of the volume.

        Returns
        -------
        core : tuple of int
            Z is 1 in 2-D.

        Raises
        ------
        VolumeError
            If such a tile doesn't fit the budget.
        """
        dimensions = self.settings["network"]["dimensions"]
        edge = FIXED_CORES[self.device.type][dimensions - 2]
        z, y, x = (-(-edge // multiple) * multiple for multiple in networks.size_factor(self.settings["network"]))
        core = (z if dimensions == 3 else 1, y, x)
        self._require(_with_halo(core, self.halo), shape)
        return core

    def _edges(self, shape: Sequence[int]) -> Shape:
        """Lengths (Z, Y, X) of a tile to read that fits the budget; Z is not read in 2-D."""
        axes = range(3 - self.settings["network"]["dimensions"], 3)
        factor = networks.size_factor(self.settings["network"])
        least = [2 * reach + multiple for reach, multiple in zip(self.halo, factor, strict=True)]
        edges = [TILE_EDGES[self.device.type][len(axes) - 2]] * 3
        most = self._voxels_at_once()
        while self._tile_voxels(edges, shape) > most and any(edges[k] > least[k] for k in axes):
            edges = [max(least[k], int(edges[k] * 0.85) // factor[k] * factor[k]) for k in range(3)]
        self._require(edges, shape)
        z, y, x = edges
        return z, y, x

    def _tile_voxels(self, edges: Sequence[int], shape: Sequence[int]) -> int:
        """Voxels of a tile of these edges, on the pooling grid and no larger than the volume."""
        factor = networks.size_factor(self.settings["network"])
        return math.prod(
            min(edges[k] + 2 * factor[k], -(-shape[k] // factor[k]) * factor[k])
            for k in range(3 - self.settings["network"]["dimensions"], 3)
        )

    def _require(self, edges: Sequence[int], shape: Sequence[int]) -> None:
        """Refuse a tile that doesn't fit the budget."""
        voxels = self._tile_voxels(edges, shape)
        if voxels <= self._voxels_at_once():
            return
        needed = voxels * networks.activation_bytes(self.settings["network"]) / 2**20
        axes = range(3 - self.settings["network"]["dimensions"], 3)
        size, sight = (" x ".join(str(lengths[k]) for k in axes) for lengths in (edges, self.halo))
        raise VolumeError(
            f"the smallest tile of this network, {size} voxels because it looks {sight} voxels far, needs about "
            f"{needed:.0f} MiB and {self.memory_mib:.0f} MiB are left for it; raise resources.memory_mib, or set "
            "predict.halo_voxels to fewer voxels"
        )

    def _tiles_at_once(self, voxels: int) -> int:
        """A power of two: groups of slices then end where shards do, and don't depend on how jobs share a volume."""
        most = min(self._voxels_at_once(), 2 ** (24 if self.device.type == "cuda" else 19))
        return min(MOST_SLICES, 1 << max(0, int(most // voxels).bit_length() - 1))


def _with_halo(core: Shape, halo: Shape) -> list[int]:
    return [edge + 2 * beside for edge, beside in zip(core, halo, strict=True)]


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


def _holds_something(
    occupied: NDArray[np.bool_] | None,
    cores: Sequence[tuple[int, int]],
    start: Sequence[int],
    result: NDArray[Any],
) -> bool:
    """Whether a tile's core must be looked at; it becomes 0 where it needn't."""
    inside = [(low - first, high - first) for (low, high), first in zip(cores, start, strict=True)]
    if is_occupied(occupied, inside):
        return True
    result[tuple(slice(low, high) for low, high in inside)] = 0
    return False


def _put(
    probability: Tensor,
    reads: Sequence[tuple[int, int]],
    cores: Sequence[tuple[int, int]],
    start: Sequence[int],
    result: NDArray[Any],
    *,
    adds: bool = False,
) -> None:
    """Write the core of a tile where it belongs, or add it to what is there."""
    inner = tuple(slice(low - read, high - read) for (low, high), (read, _) in zip(cores, reads, strict=True))
    to = tuple(slice(low - first, high - first) for (low, high), first in zip(cores, start, strict=True))
    core = probability[inner]
    if adds:
        result[to] += core.numpy()
        return
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
        Not modified: a copy of it predicts, with its batch normalisation folded into its convolutions.
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
        With the halo of all that the network sees; `halo.chosen` narrows it.

    Raises
    ------
    ModelError
        If the model can't be turned; see `check_rotations`.
    """
    check_rotations(settings)
    where = devices.choose_device(device)
    dimensions = settings["network"]["dimensions"]
    return Predictor(
        network=folded(network).to(where, memory_format=devices.memory_format(dimensions)),  # type: ignore[call-overload]
        settings=settings,
        device=where,
        dtype=devices.choose_precision(precision or settings["precision"], where),
        transforms=tile_symmetries(
            dimensions,
            has_flips=settings["test_time_flips"] if has_flips is None else has_flips,
            # models of version 0.1.0 lack the key
            has_rotations=settings.get("test_time_rotations", False) if has_rotations is None else has_rotations,
        ),
        memory_mib=(1 - REMEMBERED) * memory_mib,
        halo=networks.receptive_field(settings["network"]),
        constant=ConstantTiles(REMEMBERED * memory_mib),
    )
