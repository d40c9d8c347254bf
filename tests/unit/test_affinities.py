"""Components of affinities, worked out by hand."""

import numpy as np
import pytest

from voxloom import io
from voxloom.affinities import label_components, label_components_volume
from voxloom.errors import VolumeError
from voxloom.volume import Geometry


def test_an_edge_of_exactly_the_threshold_joins_nothing():
    affinities = np.full((3, 1, 1, 2), 0.5, np.float32)
    assert label_components(affinities, threshold=0.5)[1] == 2
    assert label_components(affinities, threshold=0.49)[1] == 1


def test_a_threshold_has_the_precision_of_the_affinities():
    """0.1 as 32 bits is a little more than as 64 bits."""
    assert label_components(np.full((3, 1, 1, 2), 0.1, np.float32), threshold=0.1)[1] == 2


def test_a_long_range_edge_joins_voxels_apart():
    affinities = np.zeros((4, 1, 1, 7), np.uint8)
    affinities[3, 0, 0, 5] = 200
    labels, count = label_components(
        affinities, threshold=100, offsets=[(-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, 0, -4)], min_size_voxels=2
    )
    assert (labels[0, 0].tolist(), count) == ([0, 1, 0, 0, 0, 1, 0], 1)


def test_edges_beyond_the_border_are_not_looked_at():
    assert label_components(np.full((3, 1, 2, 1), np.nan, np.float32), threshold=0.5)[1] == 2
    affinities = np.zeros((3, 2, 2, 2), np.uint8)
    affinities[:, 0, 0, 0] = 255
    assert label_components(affinities, threshold=1, min_size_voxels=2)[1] == 0


def test_stored_affinities_are_labelled_over_shards(tmp_path):
    rng = np.random.default_rng(5)
    affinities = rng.integers(0, 256, (3, 70, 20, 20)).astype(np.uint8)
    geometry = Geometry((1.0, 1.0, 1.0))
    with io.create_volume(
        tmp_path / "a.zarr", shape=affinities.shape, dtype="uint8", geometry=geometry, kind="image"
    ) as writer:
        writer[:] = affinities
    with io.create_volume(
        tmp_path / "l.zarr", shape=affinities.shape[1:], dtype="uint32", geometry=geometry, kind="labels"
    ) as labels:
        stored = io.open_volume(tmp_path / "a.zarr")
        count = label_components_volume(stored, labels, threshold=150, memory_mib=0.2, threads=2)
    expected = label_components(affinities, threshold=150)
    assert count == expected[1]
    np.testing.assert_array_equal(io.open_volume(tmp_path / "l.zarr")[:], expected[0])


@pytest.mark.parametrize(
    ("affinities", "offsets", "said"),
    [
        (np.zeros((3, 2, 2), np.uint8), [(-1, 0, 0)] * 3, r"axes \(C, Z, Y, X\)"),
        (np.zeros((3, 2, 2, 2), np.int8), [(-1, 0, 0)] * 3, "uint8, uint16, float32, float64, got int8"),
        (np.zeros((3, 2, 2, 2), np.uint8), [(-1, 0, 0)] * 2, "3 channels of affinities need as many offsets, got 2"),
        (np.zeros((1, 2, 2, 2), np.uint8), [(1, 0, 0)], r"earlier slice, got \(1, 0, 0\).*turn the offset's signs"),
        (np.zeros((1, 2, 2, 2), np.uint8), [(0, 0, 0)], "must lead to another voxel"),
    ],
)
def test_what_is_no_affinity_graph_is_refused(affinities, offsets, said):
    with pytest.raises(VolumeError, match=said):
        label_components(affinities, threshold=0, offsets=offsets)


def test_slabs_thinner_than_an_offset_are_refused():
    affinities = np.zeros((1, 40, 64, 64), np.uint8)
    with pytest.raises(VolumeError, match="raise resources.memory_mib"):
        label_components_volume(
            affinities, np.zeros((40, 64, 64), np.uint32), threshold=0, offsets=[(-9, 0, 0)], memory_mib=0.3
        )
