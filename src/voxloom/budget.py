"""How large a block, and how many at a time, a memory budget holds."""

from __future__ import annotations

from voxloom.blocks import Shape, block_shape_for
from voxloom.errors import VolumeError


def blocks_within(
    shape: tuple[int, ...],
    *,
    bytes_per_voxel: float,
    memory_mib: float,
    halo_voxels: Shape,
    align: tuple[int, ...],
    threads: int,
) -> tuple[Shape, int]:
    """The largest block for the most threads, up to `threads`, that the budget holds.

    Parameters
    ----------
    shape, bytes_per_voxel, memory_mib, halo_voxels, align
        As in `voxloom.blocks.block_shape_for`.
    threads : int
        Blocks that could be in work at a time.

    Returns
    -------
    block_shape : tuple of int
    threads : int
        At least 1.

    Raises
    ------
    VolumeError
        If not even one block on one thread fits.
    """
    for workers in range(threads, 0, -1):
        try:
            block_shape = block_shape_for(
                shape,
                bytes_per_voxel=bytes_per_voxel,
                memory_mib=memory_mib,
                halo_voxels=halo_voxels,
                align=align,
                workers=workers,
            )
            return block_shape, workers
        except VolumeError:
            if workers == 1:
                raise
    raise VolumeError(f"threads must be at least 1, got {threads}")
