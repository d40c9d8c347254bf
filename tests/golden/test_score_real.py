"""Published baselines on real tissue: simple rules, tuned on these very voxels, reach known Dice values."""

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from voxloom.score import score_arrays

nrrd = pytest.importorskip("nrrd")

AXON, VESSEL = 1, 2


@pytest.fixture(scope="module")
def tissue(shared_data):
    """Image and human labels of cube 2, indexed [x, y, z] as the files are; 255 where nobody labelled."""
    folder = shared_data / "xray-thc"
    image = np.stack([tifffile.imread(file) for file in sorted((folder / "test_cube2").glob("*.tif"))])
    labels, _ = nrrd.read(str(folder / "test_cube2_labels_z200_z230_z260.nrrd"), index_order="C")
    return image, labels


def dice(prediction, labels, label):
    return score_arrays(prediction, labels == label, ignore=labels == 255)["dice"]


def test_a_blurred_threshold_finds_axons_with_dice_0_79(tissue):
    image, labels = tissue
    blurred = ndimage.gaussian_filter(image.astype(np.float32), 5)
    assert dice(blurred > 123, labels, AXON) == pytest.approx(0.79, abs=0.02)


def test_a_threshold_finds_vessels_with_dice_0_53(tissue):
    image, labels = tissue
    assert dice(image < 60, labels, VESSEL) == pytest.approx(0.53, abs=0.02)
