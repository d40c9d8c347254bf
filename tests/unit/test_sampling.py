"""Samples are what seed, epoch and step say, come from the training boxes, and hold what was asked for."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from voxloom.errors import ModelError, SplitError
from voxloom.labelled import PartBox, TrainingVolume
from voxloom.sampling import Sampler
from voxloom.sampling_check import refuse_reads_across_the_gap
from voxloom.slice_scaling import scale_codes, scale_image

SHAPE = (12, 40, 48)


def settings(**changes):
    network = {"name": "unet", "dimensions": 2, "widths": [4, 8], "slices": 1, "slice_step": 1, "norm": "batch"}
    made = {
        "network": network,
        "input": {"size": None, "patch_voxels": [1, 16, 16], "normalise": "unit"},
        "loss": {"name": "bce", "positive_weight": 1.0},
        "learn_from": ["annotation"],
        "samples_per_epoch": 10,
        "batch_size": 2,
        "foreground_share": 0.5,
        "annotator_share": 0.0,
    }
    for key, value in changes.items():
        made[key] = {**made[key], **value} if isinstance(value, dict) else value
    return made


def volume(codes=None, shape=SHAPE, dtype=np.uint8):
    """Every voxel's grey value tells its slice (tens) and its column."""
    z, _, x = np.indices(shape)
    image = ((z * 10 + x % 10) % 250).astype(dtype)
    if codes is None:
        codes = np.zeros(shape, dtype=np.uint8)
        codes[:, 20:24, 20:24] = 1
    return TrainingVolume(image, codes if isinstance(codes, tuple) else (codes,), (1.0, 1.0, 1.0))


def sampler(volumes=None, boxes=None, *, memory_mib=100, seed=3, **changes):
    volumes = {"a": volume()} if volumes is None else volumes
    if boxes is None:
        boxes = [PartBox("a", "train", (0, 0, 0), (8, 40, 48)), PartBox("a", "test", (9, 0, 0), (12, 40, 48))]
    return Sampler(volumes, boxes=boxes, settings=settings(**changes), seed=seed, memory_mib=memory_mib)


def same(one, other):
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("image", "mask", "ignore"))


@pytest.mark.parametrize("size", [None, [20, 24]])
def test_a_batch_depends_on_seed_epoch_and_step_only(size):
    first, again, other = sampler(input={"size": size}), sampler(input={"size": size}), sampler(seed=4)
    first.batch(0, 0)
    assert same(first.batch(2, 3), again.batch(2, 3))
    assert not same(first.batch(2, 3), again.batch(2, 2))
    assert not same(first.batch(2, 3), again.batch(1, 3))
    assert size or not same(first.batch(2, 3), other.batch(2, 3))


@pytest.mark.parametrize("changes", [{}, {"input": {"size": [20, 24]}}, {"network": {"slices": 3}}])
def test_reading_from_disk_or_from_memory_gives_the_same_samples(changes):
    in_memory, on_disk = sampler(**changes), sampler(memory_mib=0, **changes)
    for step in range(3):
        assert same(in_memory.batch(0, step), on_disk.batch(0, step))


def test_every_training_slice_comes_once_an_epoch_in_changing_order():
    chosen = sampler(input={"size": [40, 48]}, samples_per_epoch=None, batch_size=3)
    assert (chosen.samples_per_epoch, chosen.steps_per_epoch) == (8, 3)
    orders = []
    for epoch in range(3):
        images = torch.cat([chosen.batch(epoch, step).image for step in range(3)])
        orders.append([round(float(v) * 255 / 10) for v in images[:, 0, 0, 0]])
        assert sorted(orders[-1]) == list(range(8))
    assert orders[0] != orders[1]


def test_samples_per_epoch_limits_and_repeats_slices():
    def slices(samples):
        chosen = sampler(input={"size": [40, 48]}, samples_per_epoch=samples, batch_size=1)
        return [round(float(chosen.batch(0, step).image[0, 0, 0, 0]) * 25.5) for step in range(chosen.steps_per_epoch)]

    assert len(set(slices(5))) == 5
    assert sorted(slices(16)) == sorted([*range(8), *range(8)])


def test_slices_without_any_annotation_are_left_out():
    codes = np.full(SHAPE, 255, dtype=np.uint8)
    codes[[2, 5]] = 0
    codes[2, :4, :4] = 1
    chosen = sampler({"a": volume(codes)}, input={"size": [40, 48]}, samples_per_epoch=None)
    assert chosen.samples_per_epoch == 2


def test_patches_as_large_as_the_slices_are_whole_slices():
    chosen = sampler(input={"patch_voxels": [1, 64, 64]}, samples_per_epoch=None)
    assert chosen.whole_slices
    assert chosen.batch(0, 0).image.shape == (2, 1, 40, 48)
    assert not sampler(input={"patch_voxels": [1, 64, 32]}).whole_slices


def test_slices_of_different_sizes_make_one_batch_without_new_labels():
    volumes = {"a": volume(), "b": volume(shape=(12, 37, 30), codes=np.ones((12, 37, 30), dtype=np.uint8))}
    boxes = [PartBox("a", "train", (0, 0, 0), (1, 40, 48)), PartBox("b", "train", (0, 0, 0), (1, 37, 30))]
    batch = sampler(volumes, boxes, input={"patch_voxels": [1, 64, 64]}, samples_per_epoch=None).batch(0, 0)
    assert batch.image.shape == (2, 1, 40, 48)
    assert sorted((~batch.ignore).sum((1, 2, 3)).tolist()) == [37 * 30, 40 * 48]


def test_labels_outside_the_training_boxes_are_ignored():
    boxes = [PartBox("a", "train", (0, 8, 8), (8, 30, 30))]
    chosen = sampler(boxes=boxes, input={"size": [40, 48]})
    ignore = chosen.batch(0, 0).ignore[0, 0]
    assert not ignore[8:30, 8:30].any()
    assert int((~ignore).sum()) == 22 * 22


def test_patches_lie_in_their_box_where_they_fit():
    boxes = [PartBox("a", "train", (0, 10, 4), (8, 30, 30))]
    chosen = sampler(boxes=boxes, samples_per_epoch=60, batch_size=1)
    assert not any(bool(chosen.batch(0, step).ignore.any()) for step in range(60))


def test_a_patch_larger_than_its_box_holds_the_box_and_ignores_the_rest():
    boxes = [PartBox("a", "train", (0, 14, 20), (8, 26, 30))]
    batch = sampler(boxes=boxes, batch_size=1).batch(0, 0)
    assert int((~batch.ignore).sum()) == 12 * 10


def test_a_patch_larger_than_the_volume_is_reflected_and_ignored_there():
    patch = sampler(input={"patch_voxels": [1, 64, 16]}, batch_size=1).batch(0, 1)
    assert patch.image.shape == (1, 1, 64, 16)
    assert not bool(patch.ignore[0, 0, 12:52].any())
    assert bool(patch.ignore[0, 0, :12].all())
    assert torch.equal(patch.image[0, 0, 11], patch.image[0, 0, 13])


@pytest.mark.parametrize(
    ("network", "seen"),
    [({"slices": 5}, [3.0, 4.0, 5.0, 6.0, 7.0]), ({"slices": 3, "slice_step": 2}, [3.0, 5.0, 7.0])],
)
def test_slices_beside_are_channels_and_the_middle_one_is_labelled(network, seen):
    codes = np.zeros(SHAPE, dtype=np.uint8)
    codes[5, 10:30, 10:30] = 1
    batch = sampler({"a": volume(codes)}, network=network, foreground_share=1.0).batch(0, 0)
    tens = (batch.image[0, :, 0, 0] * 255 // 10).tolist()
    assert tens == seen
    assert bool(batch.mask[0, 0, 8, 8])


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_foreground_share_says_how_many_patches_centre_on_foreground(share):
    chosen = sampler(foreground_share=share, samples_per_epoch=80, batch_size=80)
    centred = float(chosen.batch(0, 0).mask[:, 0, 8, 8].mean())
    assert centred == 1.0 if share else centred < 0.2


def test_every_foreground_voxel_is_equally_likely():
    """Three foreground voxels in cells of different sizes are each drawn about a third of the time."""
    codes = np.zeros((2, 16, 140), dtype=np.uint8)
    codes[0, 8, 10] = codes[0, 8, 12] = codes[1, 8, 100] = 1
    chosen = sampler(
        {"a": volume(codes, shape=codes.shape)},
        [PartBox("a", "train", (0, 0, 0), codes.shape)],
        foreground_share=1.0,
        samples_per_epoch=600,
        batch_size=600,
    )
    images = chosen.batch(0, 0).image
    slices, counts = np.unique((images[:, 0, 0, 0] * 255 // 10).numpy(), return_counts=True)
    assert slices.tolist() == [0.0, 1.0]
    assert 0.58 < counts[0] / 600 < 0.75


def test_the_annotator_share_centres_patches_on_what_the_first_annotated():
    person = np.full(SHAPE, 255, dtype=np.uint8)
    person[3, 19:25, 19:25] = 0
    person[3, 21, 21] = 1
    volumes = {"a": volume((person, volume().annotations[0]))}
    chosen = sampler(volumes, annotator_share=1.0, samples_per_epoch=40, batch_size=40, learn_from=["p", "annotation"])
    batch = chosen.batch(0, 0)
    assert ((batch.image[:, 0, 0, 0] * 255 // 10) == 3).all()
    assert 8 < int(batch.mask[:, 0, 8, 8].sum()) < 32  # half of them on its one foreground voxel


def test_patches_are_not_wasted_where_nobody_annotated():
    codes = np.full(SHAPE, 255, dtype=np.uint8)
    codes[4] = 0
    codes[4, 0, 0] = 1
    batch = sampler({"a": volume(codes)}, foreground_share=0.0, samples_per_epoch=30, batch_size=30).batch(0, 0)
    assert not batch.ignore.flatten(1).all(1).any()


def test_three_dimensional_patches_have_a_z_axis():
    batch = sampler(network={"dimensions": 3}, input={"patch_voxels": [6, 16, 16]}).batch(0, 0)
    assert batch.image.shape == batch.mask.shape == (2, 1, 6, 16, 16)


def test_without_a_number_patches_cover_the_annotated_voxels_once():
    assert sampler(samples_per_epoch=None).samples_per_epoch == 8 * 40 * 48 // 256


def test_balanced_weight_is_background_over_foreground_but_at_most_20():
    assert sampler(loss={"positive_weight": "balanced"}).positive_weight == 20.0
    codes = np.zeros(SHAPE, dtype=np.uint8)
    codes[:, :10] = 1
    assert sampler({"a": volume(codes)}, loss={"positive_weight": "balanced"}).positive_weight == pytest.approx(3.0)


def test_zscore_uses_the_training_boxes_only():
    source = volume()
    chosen = sampler({"a": source}, input={"normalise": "zscore"})
    assert chosen.scan.normalisation.mean == pytest.approx(source.image[:8].mean())
    assert chosen.scan.normalisation.deviation == pytest.approx(source.image[:8].std())


def test_scaling_an_image_keeps_its_mean_and_antialiases():
    image = torch.rand(1, 100, 100, generator=torch.Generator().manual_seed(0))
    scaled = scale_image(image, (20, 20))
    assert float(scaled.mean()) == pytest.approx(float(image.mean()), abs=0.01)
    assert float(scaled.std()) < 0.4 * float(image.std())


@pytest.mark.parametrize("size", [(20, 30), (7, 9), (80, 41)])
def test_scaled_labels_are_the_nearest(size):
    codes = np.random.default_rng(0).choice([0, 1, 255], (3, 40, 48)).astype(np.uint8)
    expected = F.interpolate(torch.from_numpy(codes)[None].float(), size, mode="nearest-exact")[0].numpy()
    np.testing.assert_array_equal(scale_codes(codes, size), expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": {"patch_voxels": [1, 15, 16]}}, r"multiples of \[1, 2, 2\], the product.*set \[1, 16, 16\]"),
        ({"input": {"patch_voxels": [3, 16, 16]}}, "must begin with 1 for 2 dimensions.*network.slices"),
        ({"network": {"dimensions": 3}, "input": {"size": [20, 20]}}, "set it to null for 3"),
        ({"annotator_share": 0.5}, "first of learn_from.*annotated nothing"),
    ],
)
def test_settings_that_don_t_fit_are_refused(changes, message):
    codes = volume().annotations[0]
    nothing = np.full(SHAPE, 255, dtype=np.uint8)
    with pytest.raises(ModelError, match=message):
        sampler({"a": volume((nothing, codes))}, **changes)


def test_training_without_foreground_is_refused():
    with pytest.raises(ModelError, match="no foreground: nothing can be learnt"):
        sampler({"a": volume(np.zeros(SHAPE, dtype=np.uint8))})


def test_a_split_without_training_boxes_is_refused():
    with pytest.raises(SplitError, match="no training box"):
        sampler(boxes=[PartBox("a", "test", (0, 0, 0), (1, 1, 1))])


def test_samples_that_would_reach_across_the_gap_are_refused():
    codes = np.zeros(SHAPE, dtype=np.uint8)
    codes[:, 10:20, :4] = 1
    narrow = [PartBox("a", "train", (0, 0, 0), (SHAPE[0], SHAPE[1], 4))]
    made = sampler({"a": volume(codes)}, boxes=narrow)
    with pytest.raises(SplitError, match="samples have .* use a smaller patch_voxels"):
        refuse_reads_across_the_gap(made.parts, made.settings, whole_slices=made.whole_slices)


def test_examples_show_foreground_and_leave_the_samples_as_they_are():
    chosen, untouched = sampler(), sampler()
    before = chosen.batch(0, 0)
    examples = chosen.examples(2)
    assert same(chosen.batch(0, 0), before)
    assert same(chosen.batch(1, 2), untouched.batch(1, 2))
    foreground = [float(untouched.samples(0, [number]).mask.mean()) for number in range(10)]
    assert sorted(examples.batch.mask.mean(dim=(1, 2, 3)).tolist()) == pytest.approx(sorted(foreground)[-2:])
    assert (examples.spacing_um, examples.unit_deviation) == ((1.0, 1.0, 1.0), chosen.scan.normalisation.unit_deviation)


def test_there_are_no_more_examples_than_samples():
    assert len(sampler(samples_per_epoch=1).examples(3).batch.image) == 1
