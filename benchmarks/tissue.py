"""The volumes that the benchmarks of the stages are given: made slab by slab, the same for the same size.

Tubes that wander along two axes and many small balls are dark in noisy grey tissue: some 5 % of the voxels. How each
wanders and how thick it is, a random table says. A volume of any size is a part of the same pattern, so that work grows
with the number of voxels and nothing else.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from voxloom.volume import Geometry

GEOMETRY = Geometry(spacing_um=(1.17, 1.17, 1.17))
SLAB = 64
BACKGROUND, LUMEN, NOISE = 128.0, 55.0, 14.0
TABLE = np.random.default_rng(17).random((16, 16), np.float32)

Shape = tuple[int, int, int]
Slab = tuple[tuple[slice, slice, slice], NDArray[np.bool_]]


def masks(shape: Shape) -> Iterator[Slab]:
    """Where a slab of slices lies, and its foreground."""
    depth, height, width = shape
    y, x = np.ogrid[:height, :width]
    phases, radii = (_spread(table, y // 64, x // 64) for table in (6.3 * TABLE, 3 + 6 * TABLE.T))
    for first in range(0, depth, SLAB):
        slices = range(first, min(first + SLAB, depth))
        found = np.empty((len(slices), height, width), bool)
        for k, z in enumerate(slices):
            turn = phases + np.float32(z / 40)
            found[k] = _sawtooth(y + 6 * np.sin(turn)) ** 2 + _sawtooth(x + 6 * np.cos(turn)) ** 2 < radii**2
            bend = 6 * np.sin(y / 40 + 6.3 * _spread(TABLE, z // 64, x // 128))
            found[k] |= _sawtooth(z) ** 2 + _sawtooth(x + bend, 128) ** 2 < 36
            balls = 4 * _spread(np.roll(TABLE, z // 18), y // 20, x // 22)
            found[k] |= _sawtooth(y, 20) ** 2 + _sawtooth(x, 22) ** 2 + _sawtooth(z, 18) ** 2 < balls**2
        yield (slice(slices.start, slices.stop), slice(0, height), slice(0, width)), found


def _spread(table, row, column):
    """The table's number for every cell of a lattice."""
    return table[row % len(table), column % len(table)]


def _sawtooth(position, period: int = 64):
    """Distance from the middle of a period."""
    return position % period - period / 2


def greys(shape: Shape, dtype: str = "uint8") -> Iterator[Slab]:
    """Where a slab lies, and its grey values; of uint16 the noise fills all bits, as in a scan."""
    full = 180 if dtype == "uint16" else 1
    for index, mask in masks(shape):
        noise = np.random.default_rng(index[0].start).standard_normal(mask.shape, np.float32)
        grey = np.where(mask, np.float32(LUMEN), np.float32(BACKGROUND)) + NOISE * noise
        yield index, (full * grey).clip(0, np.iinfo(dtype).max).astype(dtype)


def probabilities(shape: Shape) -> Iterator[Slab]:
    """Where a slab lies, and what a fair network would predict of it, as uint8."""
    for index, mask in masks(shape):
        noise = np.random.default_rng(index[0].start).standard_normal(mask.shape, np.float32)
        yield index, (60 + 130 * mask.astype(np.float32) + 45 * noise).clip(0, 255).astype(np.uint8)


def whole(shape: Shape, slabs: Iterator[Slab]) -> NDArray[np.generic]:
    """All slabs as one array."""
    parts = [values for _, values in slabs]
    return np.concatenate(parts).reshape(shape)
