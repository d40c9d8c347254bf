"""Components and mutex watersheds of affinities are those that other programs found."""

import numpy as np
import pytest

from voxloom.affinities import label_components
from voxloom.mutex import mutex_watershed


@pytest.mark.parametrize("percent", [50, 70, 80])
def test_components_are_those_of_malis(golden, percent):
    with np.load(golden / "affinities_mws.npz") as data:
        labels, _ = label_components(data["pred_affinities"][:3], threshold=percent / 100)
        np.testing.assert_array_equal(labels, data[f"cc_t{percent}"])


def test_components_of_true_affinities_are_the_objects(golden):
    with np.load(golden / "affinities_mws.npz") as data:
        labels, _ = label_components(data["gt_affinities"][:3], threshold=0)
        np.testing.assert_array_equal(labels, data["cc_of_gt"])


def test_mutex_watershed_is_that_of_bioimage_cpp(golden):
    with np.load(golden / "affinities_mws.npz") as data:
        offsets = [tuple(offset) for offset in data["offsets"].tolist()]
        labels, count = mutex_watershed(data["pred_affinities"], offsets=offsets, attractive=3)
        np.testing.assert_array_equal(labels, data["mws_attractive_repulsive"])
    assert count == labels.max()
