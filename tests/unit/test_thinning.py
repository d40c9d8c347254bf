"""Lines of shapes whose lines are known."""

import itertools

import numpy as np
import pytest
import scipy.ndimage as ndi
from skimage.draw import line_nd

from voxloom import io
from voxloom.errors import VolumeError
from voxloom.instances import label_objects
from voxloom.skeleton import skeleton_length_um
from voxloom.thinning import thin, thin_volume


def tube(shape, points, radius):
    """Voxels within a radius of a broken line."""
    mask = np.zeros(shape, bool)
    for first, last in itertools.pairwise(points):
        for share in np.linspace(0, 1, 100):
            mask[tuple(np.rint(np.add(first, share * np.subtract(last, first))).astype(int))] = True
    return ndi.distance_transform_edt(~mask) <= radius


def euler_number(mask):
    """Objects minus tunnels plus cavities: corners minus edges plus faces minus voxels, of closed voxels."""
    counts = []
    padded = np.pad(mask, 1)
    for axes in ((), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)):
        cells = padded
        for axis in range(3):
            if axis not in axes:  # a corner, edge or face belongs to the mask if a voxel at it does
                first = np.take(cells, np.arange(cells.shape[axis] - 1), axis)
                cells = first | np.take(cells, np.arange(1, cells.shape[axis]), axis)
        counts.append((-1) ** len(axes) * int(cells.sum()))
    return sum(counts)


def test_a_rod_thins_to_its_axis():
    rod = np.zeros((5, 5, 20), bool)
    rod[1:4, 1:4] = True
    lines = thin(rod)
    assert set(map(tuple, np.argwhere(lines)[:, :2])) == {(2, 2)}
    assert lines.sum() >= 18


def test_a_line_stays_as_it_is():
    line = np.zeros((8, 8, 8), bool)
    line[line_nd((1, 1, 1), (6, 3, 5), endpoint=True)] = True
    np.testing.assert_array_equal(thin(line), line)


@pytest.mark.parametrize("edge", [1, 2, 3, 4])
def test_a_cube_becomes_a_short_line_but_never_nothing(edge):
    cube = np.pad(np.ones((edge,) * 3, bool), 1)
    lines = thin(cube)
    assert 1 <= lines.sum() <= edge
    assert label_objects(lines, connectivity=26)[1] == 1


def test_a_bent_tube_becomes_a_line_of_its_length():
    lines = thin(tube((40, 40, 60), [(8, 8, 8), (30, 20, 30), (20, 30, 52)], 3.2))
    length = skeleton_length_um(lines, spacing_um=(1.0, 1.0, 1.0))
    true_length = np.linalg.norm([22, 12, 22]) + np.linalg.norm([10, 10, 22])
    assert 0.9 * true_length < length < 1.15 * true_length + 2 * 3.2


def test_a_y_keeps_three_arms():
    y = tube((30, 30, 50), [(15, 15, 4), (15, 15, 25), (5, 5, 45)], 2.5)
    y |= tube((30, 30, 50), [(15, 15, 25), (25, 25, 45)], 2.5)
    lines = thin(y)
    neighbours = ndi.convolve(lines.astype(int), np.ones((3, 3, 3), int))[lines] - 1
    assert (neighbours == 1).sum() == 3


@pytest.mark.parametrize("seed", range(10))
def test_objects_tunnels_and_cavities_stay(seed):
    mask = ndi.gaussian_filter(np.random.default_rng(seed).normal(size=(14, 15, 16)), 1.1) > 0.05
    lines = thin(mask)
    assert not (lines & ~mask).any()
    assert label_objects(lines, connectivity=26)[1] == label_objects(mask, connectivity=26)[1]
    assert label_objects(~np.pad(lines, 1), connectivity=6)[1] == label_objects(~np.pad(mask, 1), connectivity=6)[1]
    assert euler_number(lines) == euler_number(mask)
    assert lines.sum() < mask.sum() / 2


def test_stored_masks_are_thinned_over_shards(tmp_path):
    mask = tube((130, 20, 20), [(4, 6, 6), (70, 13, 12), (126, 8, 14)], 3.5)
    with (
        io.scratch_volume(tmp_path, name="out", shape=mask.shape, dtype="uint8") as out,
        io.scratch_volume(tmp_path, name="scratch", shape=mask.shape, dtype="uint8") as scratch,
    ):
        voxels = thin_volume(mask.view(np.uint8), out, scratch, memory_mib=1.2, threads=2)
        np.testing.assert_array_equal(out[:], thin(mask))
    assert voxels == thin(mask).sum()


@pytest.mark.parametrize("mask", [np.zeros((3, 3), bool), np.zeros((3, 3, 3), np.uint8)])
def test_only_3d_masks_are_thinned(mask):
    with pytest.raises(VolumeError, match="3D boolean array"):
        thin(mask)
