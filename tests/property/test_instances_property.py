"""Objects by slabs are those of the whole, and those of other libraries."""

import numpy as np
import scipy.ndimage as ndi
from hypothesis import given, settings
from hypothesis import strategies as st

from voxloom.instances import fill_holes, fill_holes_volume, remove_small_objects, remove_small_objects_volume

STRUCTURES = {6: ndi.generate_binary_structure(3, 1), 18: ndi.generate_binary_structure(3, 2), 26: np.ones((3, 3, 3))}

volumes = st.builds(
    lambda shape, seed, share: (np.random.default_rng(seed).random(shape) < share).astype(np.uint8),
    st.tuples(st.integers(1, 12), st.integers(1, 8), st.integers(1, 8)),
    st.integers(0, 2**32),
    st.sampled_from([0.05, 0.2, 0.35, 0.6, 0.9]),
)
connectivities = st.sampled_from([6, 18, 26])


class Slabbed:
    """An array that is read and written in slabs of a few slices."""

    def __init__(self, array, slices):
        self.array, self.shape, self.shard_shape = array, array.shape, (slices, *array.shape[1:])

    def __getitem__(self, index):
        return self.array[index].copy()

    def __setitem__(self, index, values):
        self.array[index] = values


def _memory_for(volume, slices, threads):
    return volume[0].size * slices * threads * 16 / 2**20


@settings(deadline=None, max_examples=200)
@given(
    volume=volumes,
    connectivity=connectivities,
    min_size_voxels=st.integers(1, 12),
    slices=st.integers(1, 5),
    threads=st.integers(1, 3),
)
def test_small_objects_by_slabs_are_those_of_the_whole(volume, connectivity, min_size_voxels, slices, threads):
    whole = remove_small_objects(volume != 0, min_size_voxels=min_size_voxels, connectivity=connectivity)
    slabbed = Slabbed(volume.copy(), slices)
    filtered = remove_small_objects_volume(
        slabbed,
        slabbed,
        min_size_voxels=min_size_voxels,
        connectivity=connectivity,
        memory_mib=_memory_for(volume, slices, threads),
        threads=threads,
    )
    np.testing.assert_array_equal(slabbed.array, whole)
    labels, count = ndi.label(volume, STRUCTURES[connectivity])
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    np.testing.assert_array_equal(whole, np.isin(labels, np.flatnonzero(sizes >= min_size_voxels) + 1))
    assert filtered.objects == count
    assert filtered.changed_objects == (sizes < min_size_voxels).sum()
    assert filtered.changed_voxels == volume.sum() - whole.sum()


@settings(deadline=None, max_examples=200)
@given(volume=volumes, connectivity=connectivities, slices=st.integers(1, 5), threads=st.integers(1, 3))
def test_holes_by_slabs_are_those_of_the_whole(volume, connectivity, slices, threads):
    whole = fill_holes(volume != 0, connectivity=connectivity)
    slabbed = Slabbed(volume.copy(), slices)
    fill_holes_volume(
        slabbed,
        slabbed,
        connectivity=connectivity,
        memory_mib=_memory_for(volume, slices, threads),
        threads=threads,
    )
    np.testing.assert_array_equal(slabbed.array, whole)
    if min(volume.shape) > 1:
        by_scipy = ndi.binary_fill_holes(volume != 0, STRUCTURES[connectivity])
        np.testing.assert_array_equal(whole, by_scipy)
