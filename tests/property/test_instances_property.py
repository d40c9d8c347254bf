"""Objects by slabs are those of the whole, and those of other libraries."""

import numpy as np
import scipy.ndimage as ndi
from hypothesis import given, settings
from hypothesis import strategies as st
from sharded import memory_mib, slabbed

from voxloom.instances import (
    fill_holes,
    fill_holes_volume,
    label_objects,
    label_volume,
    remove_small_objects,
    remove_small_objects_volume,
)

STRUCTURES = {6: ndi.generate_binary_structure(3, 1), 18: ndi.generate_binary_structure(3, 2), 26: np.ones((3, 3, 3))}

volumes = st.builds(
    lambda shape, seed, share: (np.random.default_rng(seed).random(shape) < share).astype(np.uint8),
    st.tuples(st.integers(1, 12), st.integers(1, 8), st.integers(1, 8)),
    st.integers(0, 2**32),
    st.sampled_from([0.05, 0.2, 0.35, 0.6, 0.9]),
)
connectivities = st.sampled_from([6, 18, 26])


@settings(deadline=None, max_examples=120)
@given(
    volume=volumes,
    connectivity=connectivities,
    min_size_voxels=st.integers(1, 12),
    slices=st.integers(1, 5),
    threads=st.integers(1, 3),
)
def test_small_objects_by_slabs_are_those_of_the_whole(volume, connectivity, min_size_voxels, slices, threads):
    whole = remove_small_objects(volume != 0, min_size_voxels=min_size_voxels, connectivity=connectivity)
    stored = slabbed(volume.copy(), slices)
    filtered = remove_small_objects_volume(
        stored,
        stored,
        min_size_voxels=min_size_voxels,
        connectivity=connectivity,
        memory_mib=memory_mib(volume, slices, bytes_per_voxel=16, threads=threads),
        threads=threads,
    )
    np.testing.assert_array_equal(stored.array, whole)
    labels, count = ndi.label(volume, STRUCTURES[connectivity])
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    np.testing.assert_array_equal(whole, np.isin(labels, np.flatnonzero(sizes >= min_size_voxels) + 1))
    assert filtered.objects == count
    assert filtered.changed_objects == (sizes < min_size_voxels).sum()
    assert filtered.changed_voxels == volume.sum() - whole.sum()


@settings(deadline=None, max_examples=120)
@given(volume=volumes, connectivity=connectivities, slices=st.integers(1, 5), threads=st.integers(1, 3))
def test_holes_by_slabs_are_those_of_the_whole(volume, connectivity, slices, threads):
    whole = fill_holes(volume != 0, connectivity=connectivity)
    stored = slabbed(volume.copy(), slices)
    fill_holes_volume(
        stored,
        stored,
        connectivity=connectivity,
        memory_mib=memory_mib(volume, slices, bytes_per_voxel=16, threads=threads),
        threads=threads,
    )
    np.testing.assert_array_equal(stored.array, whole)
    if min(volume.shape) > 1:
        by_scipy = ndi.binary_fill_holes(volume != 0, STRUCTURES[connectivity])
        np.testing.assert_array_equal(whole, by_scipy)


@settings(deadline=None, max_examples=120)
@given(volume=volumes, connectivity=connectivities, slices=st.integers(1, 5), threads=st.integers(1, 3))
def test_numbers_by_slabs_are_those_of_the_whole(volume, connectivity, slices, threads):
    whole, count = label_objects(volume != 0, connectivity=connectivity)
    labels = slabbed(np.full(volume.shape, 9, np.uint32), slices)
    memory = memory_mib(volume, slices, bytes_per_voxel=16, threads=threads)
    found = label_volume(volume, labels, connectivity=connectivity, memory_mib=memory, threads=threads)
    np.testing.assert_array_equal(labels.array, whole)
    assert found == (volume.sum(), count)
    seen = whole[whole > 0]
    assert list(dict.fromkeys(seen.tolist())) == list(range(1, count + 1)), "numbered in the order of first voxels"
