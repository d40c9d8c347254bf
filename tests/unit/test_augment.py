"""Labels follow the image through every change of place, and changes of value leave them alone."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from voxloom.augment import CHANGES, NAMES, augment, check_augment
from voxloom.augment_sections import MISALIGNED
from voxloom.augment_space import MOVES, RESAMPLING, resampled, smooth_field, turn_in_plane, turn_in_space
from voxloom.augment_values import CONTRASTS, GAMMAS, NOISE_DEVIATIONS, blurred
from voxloom.errors import ModelError

CUBES, SLABS = (1.0, 1.0, 1.0), (4.0, 1.0, 1.0)
LENGTHS = {"elastic_sigma_um": None, "elastic_amplitude_um": None}


def settings(**probabilities):
    return {**dict.fromkeys(NAMES, 0.0), **LENGTHS, **probabilities}


def run(image, mask, ignore, seed=0, spacing_um=CUBES, first=0, **probabilities):
    return augment(
        image,
        mask,
        ignore,
        settings=settings(**probabilities),
        spacing_um=spacing_um,
        deviation=1.0,
        generator=torch.Generator().manual_seed(seed),
        first=first,
    )


def nothing(mask):
    return torch.zeros_like(mask, dtype=torch.bool)


def checkerboard(dimensions, channels=1, size=8, samples=2):
    """An image whose bright voxels are the mask; a corner of it is ignored, and -1 in the image."""
    shape = (samples, 1, size, size) if dimensions == 2 else (samples, 1, 4, size, size)
    mask = (torch.rand(shape, generator=torch.Generator().manual_seed(9)) > 0.5).float()
    ignore = nothing(mask)
    ignore[..., :2, :3] = True
    mask[ignore] = 0
    image = (mask - ignore.float()).repeat_interleave(channels, dim=1)
    return image, mask, ignore


def ball(dimensions, size=48):
    """A disc or a ball off the centre, as image and mask."""
    places = torch.meshgrid(*[torch.arange(float(size))] * dimensions, indexing="ij")
    centre = (0.62 * size, 0.55 * size, 0.6 * size)[:dimensions]
    distance = sum((place - at) ** 2 for place, at in zip(places, centre, strict=True))
    return (distance < (0.2 * size) ** 2).float()[None, None]


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("name", ["flip", "rotate90"])
def test_labels_follow_the_image_exactly(dimensions, name):
    image, mask, ignore = checkerboard(dimensions)
    moved = []
    for seed in range(12):
        new_image, new_mask, new_ignore = run(image, mask, ignore, seed, **{name: 0.7})
        assert torch.equal(new_image, new_mask - new_ignore.float())
        assert new_image.sort(-1).values.sum() == image.sum()
        moved.append(not torch.equal(new_image, image))
    assert any(moved)


@pytest.mark.parametrize("spacing_um", [CUBES, SLABS])
@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("name", [*RESAMPLING, MISALIGNED])
def test_labels_follow_the_image_within_interpolation(dimensions, name, spacing_um):
    solid = ball(dimensions)
    moved = []
    for seed in (1, 2, 11):
        image, mask, ignore = run(solid, solid, nothing(solid), seed, spacing_um, **{name: 1.0})
        assert float(((image > 0.5) == (mask > 0.5)).float()[~ignore].mean()) > 0.99
        assert float(mask.sum()) > 0.2 * float(solid.sum())
        moved.append(not torch.equal(mask, solid))
    assert any(moved)


def test_equally_far_neighbours_move_alike():
    """The channels of a network of 2 dimensions are slices: a move in the plane is one move for all of them."""
    disc = ball(2)
    for name in ("rotate90", *RESAMPLING):
        image, _, _ = run(disc.repeat(1, 3, 1, 1), disc, nothing(disc), 3, **{name: 1.0})
        assert torch.equal(image[:, 0], image[:, 2])
        assert not torch.equal(image[:, :1], disc)


def test_every_move_of_an_anisotropic_volume_stays_in_its_slice():
    """A volume whose slices are constant, each in its own grey, keeps them."""
    steps = torch.arange(6.0).view(1, 1, 6, 1, 1).expand(1, 1, 6, 16, 16).contiguous()
    mask = torch.ones_like(steps)
    for name in RESAMPLING:
        flat, _, _ = run(steps, mask, nothing(mask), 1, SLABS, **{name: 1.0})
        torch.testing.assert_close(flat, steps, atol=1e-5, rtol=0)
    turned, _, _ = run(steps, mask, nothing(mask), 1, CUBES, rotate=1.0)
    assert float((turned - steps).abs().max()) > 1


@pytest.mark.parametrize("dimensions", [2, 3])
def test_what_comes_from_outside_the_patch_is_ignored(dimensions):
    ones = torch.ones(1, 1, *[16] * dimensions)
    for name in (*RESAMPLING, MISALIGNED):
        image, mask, ignore = run(ones, ones, nothing(ones), 1, **{name: 1.0})
        assert bool((mask[~ignore] == 1).all())
        assert bool((mask[ignore] == 0).all())
        torch.testing.assert_close(image, ones)
    turn = turn_in_plane(math.pi / 4)[None]
    _, codes = resampled(torch.ones(1, 1, 32, 32), torch.ones(1, 1, 32, 32), matrices=turn, spacing_um=(1, 1))
    assert codes[0, 0, 0, 0] == 0
    assert codes[0, 0, 16, 16] == 1


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_quarter_turn_by_angle_is_a_quarter_turn(dimensions):
    patch = torch.rand(1, 1, *[16] * dimensions, generator=torch.Generator().manual_seed(0))
    codes = (patch > 0.5).float() + 1
    for axes in [(-2, -1)] if dimensions == 2 else [(-2, -1), (-3, -1), (-3, -2)]:
        matrix = torch.eye(dimensions, dtype=torch.float64)
        rows = torch.tensor(axes) + dimensions
        matrix[rows[:, None], rows] = turn_in_plane(math.pi / 2)
        turned, marks = resampled(patch, codes, matrices=matrix[None], spacing_um=(1.0,) * dimensions)
        torch.testing.assert_close(turned, patch.rot90(-1, axes), atol=1e-4, rtol=0)
        assert torch.equal(marks, codes.rot90(-1, axes))


def test_looking_up_equals_an_interpolation_that_nobody_doubts():
    """SciPy's linear interpolation, reflected at the voxels' edges, of an anisotropic box that is turned and warped."""
    rng = np.random.default_rng(3)
    image, codes = rng.random((7, 12, 9)).astype(np.float32), rng.integers(1, 3, (7, 12, 9)).astype(np.float32)
    spacing_um, matrix = np.array([2.0, 0.5, 1.0]), turn_in_space([0.2, 0.7, 0.4]).numpy() / 0.9
    warp_um = rng.normal(0, 0.7, (3, *image.shape)).astype(np.float32)
    centred = [(np.arange(n) + 0.5 - n / 2) * s for n, s in zip(image.shape, spacing_um, strict=True)]
    places_um = np.tensordot(matrix, np.stack(np.meshgrid(*centred, indexing="ij")), 1) + warp_um
    sizes = np.array(image.shape)[:, None, None, None]
    places = places_um / spacing_um[:, None, None, None] + sizes / 2 - 0.5
    expected = ndimage.map_coordinates(image, places, order=1, mode="reflect")
    labels = ndimage.map_coordinates(codes, np.round(places), order=0, mode="constant", cval=0)
    values, marks = resampled(
        torch.from_numpy(image)[None, None],
        torch.from_numpy(codes)[None, None],
        matrices=torch.from_numpy(matrix)[None],
        spacing_um=spacing_um.tolist(),
        displacement_um=torch.from_numpy(warp_um)[None],
    )
    np.testing.assert_allclose(values[0, 0], expected, atol=1e-4)
    assert (marks[0, 0].numpy() == labels).mean() > 0.998  # places on the border between two voxels
    assert (labels == 0).any()


def test_a_rotation_keeps_lengths_in_micrometres():
    """A bar of 20 um along x, 10 voxels of 2 um, becomes one of 20 voxels of 1 um along y."""
    bar = torch.zeros(1, 1, 64, 32)
    bar[..., 30:34, 11:21] = 1
    turned, _ = resampled(bar, bar, matrices=turn_in_plane(math.pi / 2)[None], spacing_um=(1.0, 2.0))
    assert int((turned[0, 0] > 0.5).any(dim=1).sum()) == 20
    assert int((turned[0, 0] > 0.5).any(dim=0).sum()) == 2


def test_turns_in_space_are_turns_and_point_everywhere():
    numbers = torch.rand(2000, 3, generator=torch.Generator().manual_seed(0)).tolist()
    turns = torch.stack([turn_in_space(three) for three in numbers])
    torch.testing.assert_close(turns @ turns.mT, torch.eye(3, dtype=torch.float64).expand_as(turns))
    torch.testing.assert_close(torch.linalg.det(turns), torch.ones(2000, dtype=torch.float64))
    assert float(turns.mean(0).abs().max()) < 0.06
    torch.testing.assert_close(
        turns.square().mean(0), torch.full((3, 3), 1 / 3, dtype=torch.float64), atol=0.03, rtol=0
    )


def test_no_displacement_changes_nothing():
    patch = torch.rand(2, 1, 5, 12, 12, generator=torch.Generator().manual_seed(0))
    same, codes = resampled(
        patch,
        patch + 1,
        matrices=torch.eye(3, dtype=torch.float64).repeat(2, 1, 1),
        spacing_um=CUBES,
        displacement_um=torch.zeros(2, 3, 5, 12, 12),
    )
    torch.testing.assert_close(same, patch, atol=1e-5, rtol=0)
    assert torch.equal(codes, patch + 1)


def test_a_displacement_field_is_as_large_and_as_smooth_as_it_says():
    """Deviation 1 everywhere, correlation exp(-d^2 / 4 sigma^2) at a distance d: at 2 sigma exp(-1)."""
    noise = torch.randn(4000, 1, 4 + 7, 3 + 7, generator=torch.Generator().manual_seed(0))
    field = smooth_field(noise, (20, 9), (1.0, 1.5), sigma_um=5.0)[:, 0]
    assert field.shape == (4000, 20, 9)
    torch.testing.assert_close(field.std(dim=0), torch.ones(20, 9), atol=0.05, rtol=0)
    correlation = (field[:, 4] * field[:, 14]).mean()
    assert float(correlation) == pytest.approx(math.exp(-1), abs=0.04)


def test_elastic_lengths_are_in_micrometres():
    """The same patch in voxels of half the size is warped alike: places, in um, are where they were."""
    lengths = {"elastic": 1.0, "elastic_sigma_um": 20.0, "elastic_amplitude_um": 2.0}
    shown = []
    for voxels in (64, 128):
        edge = 64 / voxels
        ramp = ((torch.arange(voxels) + 0.5) * edge).expand(1, 1, voxels, voxels).contiguous()
        shown.append((run(ramp, ramp * 0, nothing(ramp), 2, (edge,) * 3, **lengths)[0] - ramp)[0, 0])
    coarse, fine = shown[0], shown[1].unflatten(0, (64, 2)).unflatten(2, (64, 2)).mean((1, 3))
    torch.testing.assert_close(fine[8:-8, 8:-8], coarse[8:-8, 8:-8], atol=0.02, rtol=0)
    assert 0.5 < float(coarse.std()) < 4


def test_a_displacement_that_folds_the_image_is_refused():
    image, mask, ignore = checkerboard(2)
    folding = {"elastic": 1.0, "elastic_sigma_um": 2.0, "elastic_amplitude_um": 1.0}
    with pytest.raises(
        ModelError, match=r"elastic_amplitude_um is 1 and elastic_sigma_um 2.*set the amplitude to 0\.8"
    ):
        run(image, mask, ignore, **folding)
    with pytest.raises(ModelError, match="folds onto itself"):
        check_augment(settings(**folding), network={"dimensions": 2, "slices": 1}, spacing_um=CUBES)


@pytest.mark.parametrize("spacing_um", [(1.0, 1.0, 2.0), CUBES])
def test_no_quarter_turns_where_voxels_or_patches_are_not_square(spacing_um):
    image, mask, ignore = checkerboard(2)
    if spacing_um == CUBES:
        image, mask, ignore = (tensor[..., :6] for tensor in (image, mask, ignore))
    for seed in range(8):
        turned, _, _ = run(image, mask, ignore, seed, spacing_um, rotate90=1.0)
        assert torch.equal(turned, image.rot90(2, (-2, -1)))


def test_quarter_turns_are_all_three():
    image, mask, ignore = checkerboard(2, samples=1)
    turned = [run(image, mask, ignore, seed, rotate90=1.0)[0] for seed in range(12)]
    for turns in (1, 2, 3):
        assert any(torch.equal(one, image.rot90(turns, (-2, -1))) for one in turned)


def test_mirroring_along_z_reverses_slices_that_are_channels_and_keeps_the_labels():
    image = torch.arange(3.0).reshape(1, 3, 1, 1).expand(1, 3, 4, 4)
    mask = torch.ones(1, 1, 4, 4)
    flipped, new_mask, new_ignore = run(image, mask, nothing(mask), flip=1.0)
    assert flipped[0, :, 0, 0].tolist() == [2.0, 1.0, 0.0]
    assert torch.equal(new_mask, mask)
    assert not new_ignore.any()


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("dimensions", [2, 3])
def test_values_change_and_labels_don_t(name, dimensions):
    image, mask, ignore = checkerboard(dimensions, channels=3 if dimensions == 2 else 1)
    changed, new_mask, new_ignore = run(image, mask, ignore, **{name: 1.0})
    assert torch.equal(new_mask, mask)
    assert torch.equal(new_ignore, ignore)
    assert not torch.equal(changed, image)
    assert torch.isfinite(changed).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_constant_patch_stays_finite(name):
    image = torch.full((2, 3, 8, 8), 0.25)
    mask = torch.zeros(2, 1, 8, 8)
    changed, _, _ = run(image, mask, nothing(mask), **{name: 1.0})
    assert torch.isfinite(changed).all()


def test_gamma_is_a_power_of_the_share_of_the_range():
    """The power is recovered from one value and explains all others; 0 and 1 of the range stay."""
    image = torch.linspace(-2, 3, 64).reshape(1, 1, 8, 8)
    changed, _, _ = run(image, image * 0, nothing(image), 4, gamma=1.0)
    share, raised = (image.flatten() + 2) / 5, (changed.flatten() + 2) / 5
    power = float(raised[32].log() / share[32].log())
    assert GAMMAS[0] <= power <= GAMMAS[1]
    assert power != pytest.approx(1, abs=0.01)
    torch.testing.assert_close(raised, share**power, atol=1e-5, rtol=0)


def test_contrast_stretches_about_the_mean_and_brightness_shifts():
    image = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    stretched, _, _ = run(image, image * 0, nothing(image), contrast=1.0)
    for before, after in zip(image, stretched, strict=True):
        factor = float(after.std() / before.std())
        assert CONTRASTS[0] <= factor <= CONTRASTS[1]
        torch.testing.assert_close(after - after.mean(), (before - before.mean()) * factor, atol=1e-5, rtol=0)
    shifted, _, _ = run(image, image * 0, nothing(image), brightness=1.0)
    steps = (shifted - image).flatten(1)
    torch.testing.assert_close(steps, steps[:, :1].expand_as(steps), atol=1e-6, rtol=0)
    assert float(steps[0, 0]) != pytest.approx(float(steps[1, 0]), abs=1e-3)


def test_darkening_is_smooth_never_brightens_and_keeps_black():
    image = torch.ones(8, 1, 32, 32)
    image[..., 0, 0] = 0
    dark, _, _ = run(image, image * 0, nothing(image), darken=1.0)
    assert bool((dark[..., 0, 0] == 0).all())
    assert bool((dark <= image).all())
    assert bool((dark.flatten(1)[:, 1:].amin(1) < 0.85).all())
    inside = dark[..., 1:, 1:]
    assert float(inside.diff(dim=-1).abs().max()) < 0.12


def test_noise_is_as_strong_as_drawn_and_differs_between_samples():
    image = torch.zeros(6, 1, 64, 64)
    noisy, _, _ = run(image, image, nothing(image), noise=1.0)
    deviations = noisy.flatten(1).std(dim=1)
    assert bool((deviations < 1.05 * NOISE_DEVIATIONS).all())
    assert float(deviations.max()) > 0.4 * NOISE_DEVIATIONS
    assert abs(float(torch.corrcoef(noisy.flatten(1))[0, 1])) < 0.1


def test_blur_is_a_gaussian():
    rng = np.random.default_rng(0)
    image = rng.random((10, 12, 14)).astype(np.float32)
    expected = ndimage.gaussian_filter(image, 0.8, mode="nearest", radius=3)
    smooth = blurred(torch.from_numpy(image), 0.8, (-3, -2, -1))
    np.testing.assert_allclose(smooth, expected, atol=1e-5)
    assert torch.equal(blurred(torch.from_numpy(image), 0.0, (-1,)), torch.from_numpy(image))


def test_low_resolution_keeps_the_mean_and_loses_detail():
    fine = torch.arange(16.0).remainder(2).expand(1, 1, 16, 16).contiguous()
    coarse, _, _ = run(fine, fine, nothing(fine), 3, low_resolution=1.0)
    assert float(coarse.mean()) == pytest.approx(float(fine.mean()), abs=0.03)
    assert float(coarse.std()) < 0.8 * float(fine.std())
    steps = torch.arange(6.0).remainder(2).view(1, 1, 6, 1, 1).expand(1, 1, 6, 16, 16).contiguous()
    flat, _, _ = run(steps, steps, nothing(steps), 3, SLABS, low_resolution=1.0)
    torch.testing.assert_close(flat, steps)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("name", ["missing_section", "blurred_section", "dark_section", MISALIGNED])
def test_a_fault_is_of_one_section(dimensions, name):
    stack = torch.rand(4, 5, 16, 16, generator=torch.Generator().manual_seed(0))
    image = stack if dimensions == 2 else stack[:, None]
    mask = (image > 0.5).float() if dimensions == 3 else (image[:, 2:3] > 0.5).float()
    struck = set()
    for seed in range(6):
        faulty, new_mask, _ = run(image, mask, nothing(mask), seed, **{name: 1.0})
        for sample, before, labels, old in zip(faulty, image, new_mask, mask, strict=True):
            sections, as_were = (sample, before) if dimensions == 2 else (sample[0], before[0])
            changed = (sections != as_were).flatten(1).any(1).nonzero().flatten().tolist()
            assert len(changed) == 1
            struck |= set(changed)
            moved = (labels != old).flatten(2).any(2)[0].any() if dimensions == 2 else (labels != old).any()
            assert bool(moved) == (name == MISALIGNED and (dimensions == 3 or changed == [2]))
    assert struck == set(range(5))


def test_a_missing_section_is_black_or_all_mean():
    image = torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(16, 1, 8, 8)
    missing, _, _ = run(image, mask, nothing(mask), missing_section=1.0)
    fills = set()
    for sample, before in zip(missing, image, strict=True):
        section = next(section for section, was in zip(sample, before, strict=True) if not torch.equal(section, was))
        assert float(section.min()) == float(section.max())
        is_black = torch.equal(section[0, 0], before.min())
        assert is_black or float(section[0, 0]) == pytest.approx(float(before.mean()), abs=1e-6)
        fills.add(is_black)
    assert fills == {True, False}


def test_a_network_of_one_slice_can_t_do_without_it():
    with pytest.raises(ModelError, match=r"missing_section is 0\.1.*network\.slices to 3"):
        check_augment(settings(missing_section=0.1), network={"dimensions": 2, "slices": 1}, spacing_um=CUBES)
    check_augment(settings(missing_section=0.1), network={"dimensions": 2, "slices": 3}, spacing_um=CUBES)
    check_augment(settings(missing_section=0.1), network={"dimensions": 3, "slices": 1}, spacing_um=CUBES)


def test_equal_seeds_change_equally_and_zero_changes_nothing():
    image, mask, ignore = checkerboard(2, channels=3)
    everything = dict.fromkeys(NAMES, 0.8)
    kept = [tensor.clone() for tensor in (image, mask, ignore)]
    first, again = (run(image, mask, ignore, 5, **everything) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    assert not torch.equal(first[0], run(image, mask, ignore, 6, **everything)[0])
    assert all(torch.equal(one, other) for one, other in zip(run(image, mask, ignore, 5), kept, strict=True))
    assert all(torch.equal(one, other) for one, other in zip((image, mask, ignore), kept, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_switching_an_augmentation_on_leaves_the_others_as_they_are(name):
    """The samples that it doesn't happen to are as they would be without it."""
    image, mask, ignore = checkerboard(2, channels=3, samples=8)
    others = {**dict.fromkeys(NAMES, 0.5), name: 0.0}
    without = run(image, mask, ignore, 7, **others)
    with_it = run(image, mask, ignore, 7, **{**others, name: 0.5})
    only = run(image, mask, ignore, 7, **{name: 0.5})
    untouched = [
        k for k in range(8) if all(torch.equal(a[k], b[k]) for a, b in zip(only, (image, mask, ignore), strict=True))
    ]
    assert 0 < len(untouched) < 8
    for one, other in zip(without, with_it, strict=True):
        torch.testing.assert_close(one[untouched], other[untouched], atol=1e-6, rtol=0)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_sample_is_changed_alike_alone_and_in_its_batch(dimensions):
    """What two processes make of their halves of a batch is what one makes of the whole."""
    image, mask, ignore = checkerboard(dimensions, channels=3 if dimensions == 2 else 1, samples=4)
    everything = dict.fromkeys(NAMES, 0.6)
    whole = run(image, mask, ignore, 11, **everything)
    for first in (0, 2):
        part = slice(first, first + 2)
        half = run(image[part], mask[part], ignore[part], 11, first=first, **everything)
        for one, other in zip(half, whole, strict=True):
            torch.testing.assert_close(one, other[part], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_alone_is_changed_as_in_its_batch(name):
    """Whether a move happens to one sample isn't asked of its neighbours: one batch of 4 is 4 batches of one."""
    image, mask, ignore = checkerboard(2, channels=3, samples=4)
    for seed in range(8):
        whole = run(image, mask, ignore, seed, **{name: 0.5})
        for k in range(4):
            alone = run(*(tensor[k : k + 1] for tensor in (image, mask, ignore)), seed, first=k, **{name: 0.5})
            for one, other in zip(alone, whole, strict=True):
                torch.testing.assert_close(one, other[k : k + 1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("axis", [-2, -1])
def test_a_flip_happens_along_each_axis_as_often_as_it_says(axis):
    image = torch.arange(64.0).reshape(1, 1, 8, 8)
    corner = {-2: (0, 0, -1, 0), -1: (0, 0, 0, -1)}[axis]
    flipped = 0
    for seed in range(200):
        changed, _, _ = run(image, torch.zeros_like(image), torch.zeros_like(image, dtype=torch.bool), seed, flip=0.5)
        low, high = sorted((float(changed[0, 0, 0, 0]), float(changed[corner])))
        flipped += float(changed[0, 0, 0, 0]) == high and low != high
    assert 70 <= flipped <= 130  # 100 are expected; a share of a quarter would be 50


def test_every_move_is_known_to_labels():
    assert set(MOVES) | {MISALIGNED} | set(CHANGES) == set(NAMES)
