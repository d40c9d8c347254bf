"""Labels follow the image through every change of place, and changes of value leave them alone."""

import math

import pytest
import torch

from voxloom.augment import augment, turn_and_scale

NAMES = ("flip", "rotate90", "affine", "contrast", "gamma", "noise", "blur")


def run(image, mask, ignore, seed=0, spacing_um=(1.0, 1.0, 1.0), **probabilities):
    return augment(
        image,
        mask,
        ignore,
        probabilities={name: probabilities.get(name, 0.0) for name in NAMES},
        spacing_um=spacing_um,
        deviation=1.0,
        generator=torch.Generator().manual_seed(seed),
    )


def checkerboard(dimensions, channels=1, size=8):
    """An image whose bright voxels are the mask; a corner of it is ignored."""
    shape = (2, 1, size, size) if dimensions == 2 else (2, 1, 4, size, size)
    mask = (torch.rand(shape, generator=torch.Generator().manual_seed(9)) > 0.5).float()
    ignore = torch.zeros(shape, dtype=torch.bool)
    ignore[..., :2, :3] = True
    image = (mask - ignore.float()).repeat_interleave(channels, dim=1)
    return image, mask, ignore


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("name", ["flip", "rotate90"])
def test_labels_follow_the_image_exactly(dimensions, name):
    image, mask, ignore = checkerboard(dimensions)
    moved = set()
    for seed in range(12):
        new_image, new_mask, new_ignore = run(image, mask, ignore, seed, **{name: 0.7})
        assert torch.equal(new_image, new_mask - new_ignore.float())
        moved.add(not torch.equal(new_image, image))
    assert True in moved


def test_an_affine_change_moves_the_labels_with_the_image():
    """A bright disc off the centre is where its mask is, whatever the angle."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    disc = (((y - 40) ** 2 + (x - 36) ** 2) < 81).float()[None, None]
    nothing = torch.zeros_like(disc, dtype=torch.bool)
    for seed in range(8):
        image, mask, ignore = run(disc, disc, nothing, seed, affine=1.0)
        assert float(((image > 0.5) == (mask > 0.5)).float()[~ignore].mean()) > 0.99
        assert not torch.equal(mask, disc)


def test_what_comes_from_outside_the_patch_is_ignored():
    ones = torch.ones(1, 1, 32, 32)
    image, mask, ignore = run(ones, ones, torch.zeros_like(ones, dtype=torch.bool), 1, affine=1.0)
    _, labels = turn_and_scale(ones[0], torch.zeros(2, 32, 32), angle=math.pi / 4, scale=1.0, spacing_um=(1, 1, 1))
    assert labels[1, 0, 0] == 1
    assert labels[1, 16, 16] == 0
    assert bool((mask[~ignore] == 1).all())
    torch.testing.assert_close(image, ones)


def test_a_quarter_turn_by_angle_is_a_quarter_turn():
    patch = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(0))
    turned, _ = turn_and_scale(patch, torch.zeros(2, 16, 16), angle=math.pi / 2, scale=1.0, spacing_um=(1, 1, 1))
    torch.testing.assert_close(turned, patch.rot90(-1, (-2, -1)), atol=1e-4, rtol=0)


def test_a_rotation_keeps_lengths_in_micrometres():
    """A bar of 20 um along x, 10 voxels of 2 um, becomes one of 20 voxels of 1 um along y."""
    bar = torch.zeros(1, 64, 32)
    bar[0, 30:34, 11:21] = 1
    turned, _ = turn_and_scale(bar, torch.zeros(2, 64, 32), angle=math.pi / 2, scale=1.0, spacing_um=(1.0, 1.0, 2.0))
    assert int((turned[0] > 0.5).any(dim=1).sum()) == 20
    assert int((turned[0] > 0.5).any(dim=0).sum()) == 2


def test_no_quarter_turns_where_voxels_are_not_square():
    image, mask, ignore = checkerboard(2)
    for seed in range(8):
        turned, _, _ = run(image, mask, ignore, seed, spacing_um=(1.0, 1.0, 2.0), rotate90=1.0)
        assert torch.equal(turned, image.rot90(2, (-2, -1)))


def test_no_quarter_turns_where_patches_are_not_square():
    image, mask, ignore = (tensor[..., :6] for tensor in checkerboard(2))
    turned, _, _ = run(image, mask, ignore, rotate90=1.0)
    assert turned.shape == image.shape


def test_mirroring_along_z_reverses_slices_that_are_channels_and_keeps_the_labels():
    image = torch.arange(3.0).reshape(1, 3, 1, 1).expand(1, 3, 4, 4)
    mask = torch.ones(1, 1, 4, 4)
    ignore = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    flipped, new_mask, new_ignore = run(image, mask, ignore, flip=1.0)
    assert flipped[0, :, 0, 0].tolist() == [2.0, 1.0, 0.0]
    assert torch.equal(new_mask, mask)
    assert torch.equal(new_ignore, ignore)


@pytest.mark.parametrize("name", ["contrast", "gamma", "noise", "blur"])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_values_change_and_labels_don_t(name, dimensions):
    image, mask, ignore = checkerboard(dimensions)
    changed, new_mask, new_ignore = run(image, mask, ignore, **{name: 1.0})
    assert torch.equal(new_mask, mask)
    assert torch.equal(new_ignore, ignore)
    assert not torch.equal(changed, image)
    assert torch.isfinite(changed).all()


def test_blur_keeps_the_sum_of_a_point_and_its_place():
    image = torch.zeros(1, 1, 15, 15)
    image[..., 7, 7] = 1
    nothing = torch.zeros_like(image, dtype=torch.bool)
    blurred, _, _ = run(image, image, nothing, blur=1.0)
    assert float(blurred.sum()) == pytest.approx(1.0, abs=1e-5)
    assert int(blurred.argmax()) == 7 * 15 + 7
    torch.testing.assert_close(blurred, blurred.flip(-1))


def test_gamma_keeps_the_darkest_and_the_brightest_value():
    image, mask, ignore = checkerboard(2)
    changed, _, _ = run(image, mask, ignore, gamma=1.0)
    torch.testing.assert_close(changed.amin((1, 2, 3)), image.amin((1, 2, 3)))
    torch.testing.assert_close(changed.amax((1, 2, 3)), image.amax((1, 2, 3)))


def test_equal_seeds_change_equally_and_zero_changes_nothing():
    image, mask, ignore = checkerboard(2)
    everything = dict.fromkeys(NAMES, 0.8)
    assert torch.equal(run(image, mask, ignore, 5, **everything)[0], run(image, mask, ignore, 5, **everything)[0])
    assert not torch.equal(run(image, mask, ignore, 5, **everything)[0], run(image, mask, ignore, 6, **everything)[0])
    assert torch.equal(run(image, mask, ignore, 5)[0], image)
