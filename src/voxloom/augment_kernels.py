"""Patches shown at other places on a CPU: image and labels in one pass, machine code on every thread."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from voxloom.kernels import compiled

LEAST_VOXELS = 2**14
"""What a thread is started for."""


def resampled(
    image: Tensor, labels: Tensor, *, matrices: Tensor, spacing_um: Sequence[float], displacement_um: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Show at each voxel what is elsewhere in the patch.

    Parameters
    ----------
    image, labels, matrices, spacing_um, displacement_um
        As in `voxloom.augment_space.resampled`, on the CPU.

    Returns
    -------
    image, labels : Tensor
        Each voxel is computed by itself, so that the number of threads changes nothing.
    """
    sizes = image.shape[2:]
    flat = (1,) * (3 - len(sizes))
    images, marks = (tensor.detach().contiguous().numpy() for tensor in (image, labels))
    images, marks = (array.reshape(*array.shape[:2], *flat, *sizes) for array in (images, marks))
    values, codes = np.empty_like(images), np.empty_like(marks)
    whole = np.array([*flat, *sizes])
    lines = [_line(matrix.numpy(), whole, spacing_um) for matrix in matrices]
    shifts = [np.zeros((3, 0, 0, 0), dtype=np.float32)] * len(lines)
    if displacement_um is not None:
        edges = torch.tensor(spacing_um, dtype=torch.float32).view(-1, *[1] * len(sizes))
        moved = (displacement_um / edges).contiguous()
        shifts = [_in_space(shift.numpy(), whole) for shift in moved]
    _in_parts(
        lambda sample, first, last: _show(
            images[sample], marks[sample], lines[sample], shifts[sample], first, last, values[sample], codes[sample]
        ),
        samples=len(images),
        rows=int(whole[0] * whole[1]),
        voxels=int(whole.prod()),
    )
    return torch.from_numpy(values).reshape(image.shape), torch.from_numpy(codes).reshape(labels.shape)


def _line(matrix: NDArray[np.float64], whole: NDArray[np.int_], spacing_um: Sequence[float]) -> NDArray[np.float64]:
    """From voxels (z, y, x, 1) of the result to the voxel that is shown, shape (3, 4)."""
    first = 3 - len(matrix)
    line = np.eye(3, 4)
    line[first:, first:3] = matrix * np.array(spacing_um) / np.array(spacing_um)[:, None]
    centre = (whole - 1) / 2
    line[:, 3] = centre - line[:, :3] @ centre
    return line


def _in_space(shift: NDArray[np.float32], whole: NDArray[np.int_]) -> NDArray[np.float32]:
    """Shifts along (z, y, x), shape (3, Z, Y, X)."""
    shift = shift.reshape(len(shift), *whole)
    return shift if len(shift) == 3 else np.concatenate([np.zeros_like(shift[:1]), shift])


def _in_parts(show: Callable[[int, int, int], Any], *, samples: int, rows: int, voxels: int) -> None:
    """Show the rows of all samples on as many threads as PyTorch has."""
    threads = torch.get_num_threads()
    parts = max(1, min(rows, voxels // LEAST_VOXELS, -(-threads // samples)))
    edges = [rows * part // parts for part in range(parts + 1)]
    work = [(sample, *part) for sample in range(samples) for part in itertools.pairwise(edges)]
    if threads == 1 or len(work) == 1:
        for one in work:
            show(*one)
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="augment") as pool:
        list(pool.map(show, *zip(*work, strict=True)))


@compiled
def _show(image: Any, labels: Any, line: Any, shift: Any, first: int, last: int, values: Any, codes: Any) -> None:
    """Rows of one sample, counted through its slices: (C, Z, Y, X) and (K, Z, Y, X)."""
    depth, height, width = image.shape[1:]
    steps = (height * width if depth > 1 else 0, width if height > 1 else 0, 1 if width > 1 else 0)
    grey, marks = image.reshape(image.shape[0], -1), labels.reshape(labels.shape[0], -1)
    shown, coded = values.reshape(image.shape[0], -1), codes.reshape(labels.shape[0], -1)
    corner, nearest = np.empty(width, np.int64), np.empty(width, np.int64)
    weights = np.empty((3, width), np.float32)
    for row in range(first, last):
        _places(row // height, row % height, (depth, height, width), line, shift, corner, nearest, weights)
        begin = row * width
        for channel in range(len(grey)):
            _interpolate(grey[channel], corner, weights, steps, shown[channel, begin : begin + width])
        for channel in range(len(marks)):
            for x in range(width):
                coded[channel, begin + x] = marks[channel, nearest[x]] if nearest[x] >= 0 else 0


@compiled
def _places(z: int, y: int, sizes: Any, line: Any, shift: Any, corner: Any, nearest: Any, weights: Any) -> None:
    """Where a row looks: the first of the eight voxels around each place, its weights, and the nearest voxel or -1."""
    corner[:] = 0
    nearest[:] = 0
    for axis in range(3):
        size, by_x = sizes[axis], line[axis, 2]
        begin = line[axis, 0] * z + line[axis, 1] * y + line[axis, 3]
        most = max(size - 2, 0)
        for x in range(len(corner)):
            place = begin + by_x * x
            if shift.size:
                place += shift[axis, z, y, x]
            voxel = np.int64(np.rint(place))
            is_inside = 0 <= voxel < size and nearest[x] >= 0
            nearest[x] = nearest[x] * size + voxel if is_inside else -1
            # reflected at the outer faces of the voxels; beyond the last centre the last voxel's value
            turns = (place + 0.5) / (2 * size)
            turns -= np.floor(turns)
            inside = min(max(min(turns, 1 - turns) * (2 * size) - 0.5, 0.0), size - 1.0)
            voxel = min(np.int64(inside), most)
            corner[x] = corner[x] * size + voxel
            weights[axis, x] = inside - voxel


@compiled
def _interpolate(grey: Any, corner: Any, weights: Any, steps: Any, shown: Any) -> None:
    """Linear between the voxels around each place of a row."""
    dz, dy, dx = steps
    for x in range(len(corner)):
        at, wz, wy, wx = corner[x], weights[0, x], weights[1, x], weights[2, x]
        a = grey[at] + wx * (grey[at + dx] - grey[at])
        b = grey[at + dy] + wx * (grey[at + dy + dx] - grey[at + dy])
        value = a + wy * (b - a)
        if dz:
            a = grey[at + dz] + wx * (grey[at + dz + dx] - grey[at + dz])
            b = grey[at + dz + dy] + wx * (grey[at + dz + dy + dx] - grey[at + dz + dy])
            value += wz * (a + wy * (b - a) - value)
        shown[x] = value
