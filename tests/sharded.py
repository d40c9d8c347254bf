"""A volume in memory that is stored in shards of any shape, as far as its readers and writers can tell."""

import numpy as np


class Sharded:
    """An array that is read, written and cut into blocks like a stored volume."""

    def __init__(self, array, shard_shape):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        self.shard_shape = tuple(min(n, edge) for n, edge in zip(array.shape[-3:], shard_shape, strict=True))

    def __getitem__(self, index):
        return self.array[index].copy()

    def __setitem__(self, index, values):
        self.array[index] = values


def slabbed(array, slices):
    """In slabs of a few slices."""
    return Sharded(array, (slices, *array.shape[-2:]))


def memory_mib(array, slices, *, bytes_per_voxel, threads=1):
    """What holds exactly one slab on every thread."""
    return float(np.prod(array.shape[-2:])) * slices * bytes_per_voxel * threads * 1.0001 / 2**20
