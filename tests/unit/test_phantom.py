"""The phantom looks like the tissue it stands for, and its truth fits its image."""

import cc3d
import numpy as np
import pytest
import scipy.ndimage as ndi

from voxloom.errors import VolumeError
from voxloom.phantom import LABELS, REGIONS, make_phantom
from voxloom.phantom_fibres import smooth_field
from voxloom.phantom_imaging import acquire, ring_artefacts

AXON, LUMEN, WALL, CELL = (LABELS[name] for name in ("axon", "vessel_lumen", "vessel_wall", "cell"))
SPACING_UM = (1.17, 1.17, 1.17)


@pytest.fixture(scope="module")
def thalamus():
    return make_phantom(shape=(80, 128, 128), spacing_um=SPACING_UM, seed=1, region="VP")


@pytest.fixture(scope="module")
def of_region():
    """Draw each region once, small."""
    drawn = {}

    def draw(region):
        if region not in drawn:
            drawn[region] = make_phantom(shape=(64, 96, 96), spacing_um=SPACING_UM, seed=5, region=region)
        return drawn[region]

    return draw


def autocorrelation(image, axis, lags=(1, 2, 3, 4)):
    """Of what is left when structures wider than 4 voxels are taken away."""
    image = image.astype(np.float32)
    residual = np.moveaxis(image - ndi.gaussian_filter(image, 4), axis, 0)
    return np.array([(residual[k:] * residual[:-k]).mean() / (residual**2).mean() for k in lags])


def f1(found, truth):
    return 2 * (found & truth).sum() / (found.sum() + truth.sum())


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_specimen():
    first, again, other = (
        make_phantom(shape=(32, 40, 48), spacing_um=SPACING_UM, seed=seed, region="VP") for seed in (3, 3, 4)
    )
    assert first.image.tobytes() == again.image.tobytes()
    assert first.labels.tobytes() == again.labels.tobytes()
    assert (first.labels != other.labels).mean() > 0.1
    assert abs(np.corrcoef(first.image.ravel(), other.image.ravel())[0, 1]) < 0.3


def test_carries_what_it_was_made_of():
    phantom = make_phantom(shape=(20, 30, 40), spacing_um=(2.0, 1.0, 0.5), seed=8, region="STR")
    assert (phantom.region, phantom.seed, phantom.geometry.spacing_um) == ("STR", 8, (2.0, 1.0, 0.5))
    assert phantom.image.shape == phantom.labels.shape == (20, 30, 40)
    assert phantom.image.dtype == phantom.labels.dtype == np.uint8


@pytest.mark.parametrize(
    ("label", "mean", "mean_within", "deviation", "deviation_within"),
    [(0, 115, 6, 23, 5), (AXON, 139, 6, 18, 4), (LUMEN, 50, 12, 26, 6), (CELL, 52, 8, 19, 5)],
    ids=["neuropil", "axons", "vessels", "cells"],
)
def test_classes_have_the_greys_measured_on_the_tissue(thalamus, label, mean, mean_within, deviation, deviation_within):
    greys = thalamus.image[thalamus.labels == label]
    assert greys.mean() == pytest.approx(mean, abs=mean_within)
    assert greys.std() == pytest.approx(deviation, abs=deviation_within)


@pytest.mark.parametrize("region", ["VP", "TRN", "STR"])
def test_lumina_are_darkest_then_cells_then_neuropil_then_axons(of_region, region):
    phantom = of_region(region)
    means = [phantom.image[phantom.labels == label].mean() for label in (LUMEN, CELL, 0, AXON)]
    assert means == sorted(means)
    assert min(np.diff(means)) > 5


@pytest.mark.parametrize(
    ("axis", "measured", "within"),
    [
        (0, (0.94, 0.78, 0.58, 0.40), 0.12),
        (1, (0.90, 0.65, 0.36, 0.10), 0.12),
        (2, (0.82, 0.46, 0.13, -0.05), 0.26),  # vessels and cells are rounder than real ones, so x is smoother
    ],
    ids=["z", "y", "x"],
)
def test_greys_change_over_the_distances_measured_on_the_tissue(thalamus, axis, measured, within):
    np.testing.assert_allclose(autocorrelation(thalamus.image, axis), measured, atol=within)


def test_histogram_and_texture_match_the_tissue(thalamus, shared_data):
    tifffile = pytest.importorskip("tifffile")
    files = sorted((shared_data / "xray-thc" / "test_cube2").glob("*.tif"))[::2]
    tissue = np.stack([tifffile.imread(file) for file in files])
    levels = [5, 25, 50, 75, 95]
    np.testing.assert_allclose(np.percentile(thalamus.image, levels), np.percentile(tissue, levels), atol=12)
    assert thalamus.image.std() == pytest.approx(tissue.std(), rel=0.12)


def test_clips_some_lumen_to_black_and_hardly_anything_to_white(thalamus):
    black = thalamus.image == 0
    assert 5e-4 < black.mean() < 6e-3
    assert np.isin(thalamus.labels[black], (LUMEN, WALL, CELL)).mean() > 0.99
    assert (thalamus.image > 230).mean() < 1e-3


@pytest.mark.parametrize("region", list(REGIONS))
def test_regions_hold_their_shares(of_region, region):
    labels, asked = of_region(region).labels, REGIONS[region]
    shares = {label: (labels == label).mean() for label in (AXON, LUMEN, CELL)}
    # Vessels and cells lie over the axons, and vessels take what they need to cross the crop.
    assert 0.8 * asked.axon_fraction <= shares[AXON] <= asked.axon_fraction
    assert shares[LUMEN] == pytest.approx(asked.lumen_fraction, rel=0.35)
    assert shares[CELL] == pytest.approx(asked.cell_fraction, rel=0.4)


def test_every_lumen_has_a_wall_all_round(thalamus):
    lumen = thalamus.labels == LUMEN
    around = ndi.binary_dilation(lumen) & ~lumen
    assert (thalamus.labels[around] == WALL).all()
    inner = (slice(6, -6),) * 3  # elsewhere a wall's lumen may lie outside the crop
    far_um = ndi.distance_transform_edt(~lumen)[inner] * SPACING_UM[0]
    assert far_um[thalamus.labels[inner] == WALL].max() < 4.0 + SPACING_UM[0] * np.sqrt(3)


def test_phase_fringe_and_wall_brighten_what_surrounds_a_lumen(thalamus):
    steps = np.rint(ndi.distance_transform_edt(thalamus.labels != LUMEN))
    tissue = thalamus.labels != CELL
    grey = {step: thalamus.image[tissue & (steps == step)].mean() for step in (1, 3, 7)}
    assert grey[1] < grey[3]
    assert 4 < grey[3] - grey[7] < 18


def test_size_tells_vessels_from_cells(thalamus):
    vessels = cc3d.connected_components((thalamus.labels == LUMEN) | (thalamus.labels == WALL), connectivity=26)
    sizes = np.bincount(vessels.ravel())[1:]
    assert sizes[sizes >= 2000].sum() > 0.8 * sizes.sum()
    cells = cc3d.connected_components(thalamus.labels == CELL, connectivity=6)
    assert np.bincount(cells.ravel())[1:].max() < 2000


def test_recipes_find_most_of_the_truth_but_not_all(thalamus):
    image, labels = thalamus.image, thalamus.labels
    lumen = cc3d.dust(image < 62, threshold=2000, connectivity=26).astype(bool)
    vessels = ndi.distance_transform_edt(~lumen) * SPACING_UM[0] <= 4.0
    assert 0.7 < f1(vessels, (labels == LUMEN) | (labels == WALL)) < 0.93
    axons = (ndi.gaussian_filter(image.astype(np.float32), 4.0 / SPACING_UM[0]) > 127) & (image >= 85)
    assert 0.7 < f1(axons, labels == AXON) < 0.95


def test_anatomy_is_drawn_in_micrometres_not_voxels():
    volumes_um3 = []
    for edge_um, voxels in ((0.8, 96), (1.6, 48)):
        phantom = make_phantom(shape=(voxels,) * 3, spacing_um=(edge_um,) * 3, seed=2, region="CTX")
        cells = cc3d.connected_components(phantom.labels == CELL, connectivity=6)
        volumes_um3.append(np.median(np.bincount(cells.ravel())[1:]) * edge_um**3)
    assert volumes_um3[0] == pytest.approx(volumes_um3[1], rel=0.35)  # 8 times apart if they were voxels
    assert 4 / 3 * np.pi * 3.2**3 < volumes_um3[0] < 4 / 3 * np.pi * 7.0**3


def test_anisotropic_voxels_squeeze_the_anatomy_along_their_long_edge():
    phantom = make_phantom(shape=(32, 96, 96), spacing_um=(3.0, 1.0, 1.0), seed=2, region="CTX")
    cells = cc3d.connected_components(phantom.labels == CELL, connectivity=6)
    boxes = [box for box in cc3d.statistics(cells)["bounding_boxes"][1:] if box is not None]
    # What the crop cut through has no extent to speak of.
    whole = [b for b in boxes if all(s.start > 0 and s.stop < n for s, n in zip(b, cells.shape, strict=True))]
    depth, height = (np.median([box[axis].stop - box[axis].start for box in whole]) for axis in (0, 1))
    assert 2 < height / depth < 4


def test_noise_has_the_deviation_and_the_slant_of_the_tissue():
    flat = np.full((64, 96, 96), 115, dtype=np.float32)
    image = acquire(flat, rng=np.random.default_rng(0)).astype(np.float32)
    image = image[:, (image < 160).all(axis=(0, 2))]  # rows without a speck
    assert 4.5 < image.std() < 8  # noise of 5 to 6, and rings
    along = [autocorrelation(image, axis, lags=(1,))[0] for axis in (2, 1, 0)]
    assert along == sorted(along)


def test_rings_stand_still_from_slice_to_slice():
    rings = ring_artefacts((16, 128, 128), rng=np.random.default_rng(1))
    assert 0.5 < rings.std() < 3.5
    assert np.corrcoef(rings[0].ravel(), rings[1].ravel())[0, 1] > 0.9
    assert np.corrcoef(rings[:, :, 20:].ravel(), rings[:, :, :-20].ravel())[0, 1] < 0.6


def test_smooth_fields_have_unit_variance_and_the_stated_correlation():
    field = smooth_field((64, 64, 64), (1.0, 1.0, 1.0), correlation_um=3.0, rng=np.random.default_rng(0))
    assert field.std() == pytest.approx(1.0, abs=0.12)
    # White noise filtered with a Gaussian: exp(-d^2 / (4 sigma^2)) at a distance d.
    assert np.corrcoef(field[6:].ravel(), field[:-6].ravel())[0, 1] == pytest.approx(np.exp(-1), abs=0.08)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"shape": (8, 64, 64)},
            r"shape must be three numbers of voxels \(Z, Y, X\), each at least 16, got \(8, 64, 64\)",
        ),
        ({"shape": (64, 64)}, "shape must be three numbers"),
        ({"spacing_um": (1.0, 0.0, 1.0)}, "spacing_um must be three positive numbers"),
        ({"seed": -1}, "seed must not be negative, got -1"),
        ({"region": "HPC"}, "region must be one of CTX, STR, TRN, VP, ZI, got 'HPC'"),
    ],
)
def test_refuses_what_it_cannot_draw(change, message):
    asked = {"shape": (32, 32, 32), "spacing_um": SPACING_UM, "seed": 1, "region": "VP"}
    with pytest.raises(VolumeError, match=message):
        make_phantom(**(asked | change))
