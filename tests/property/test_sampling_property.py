"""Whatever the boxes: patches have their shape, and what they show and label is what the volume holds there."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from voxloom.labelled import LabelledVolume, PartBox, TrainingVolume, read_reflected
from voxloom.sampling import Sampler

MODEL = {
    "network": {"name": "unet", "dimensions": 2, "widths": [4, 8], "slices": 3, "slice_step": 1, "norm": "batch"},
    "input": {"size": None, "patch_voxels": [1, 8, 12], "normalise": "zscore"},
    "loss": {"name": "bce", "positive_weight": 1.0},
    "learn_from": ["annotation"],
    "samples_per_epoch": 6,
    "batch_size": 3,
    "foreground_share": 0.5,
    "annotator_share": 0.0,
}


@st.composite
def volumes_and_boxes(draw):
    shape = tuple(draw(st.integers(low, 24)) for low in (1, 5, 5))
    low = [draw(st.integers(0, size - 1)) for size in shape]
    high = [draw(st.integers(start + 1, size)) for start, size in zip(low, shape, strict=True)]
    seed = draw(st.integers(0, 99))
    rng = np.random.default_rng(seed)
    # every voxel has its own grey value, so that a patch tells where it was read
    image = rng.permutation(np.arange(np.prod(shape), dtype=np.uint16)).reshape(shape)
    codes = rng.choice([0, 1, 255], shape).astype(np.uint8)
    codes[low[0], low[1], low[2]] = 1
    codes[high[0] - 1, high[1] - 1, high[2] - 1] = 0  # labels of one kind only are refused
    return TrainingVolume(image, (codes,), (1.0, 1.0, 1.0)), PartBox("a", "train", tuple(low), tuple(high)), seed


@given(example=volumes_and_boxes())
@settings(max_examples=60, deadline=None)
def test_every_labelled_voxel_of_a_patch_is_a_voxel_of_its_box_with_its_grey_value(example):
    volume, box, seed = example
    voxels = [int(np.prod(box.shape))]
    if voxels[0] < 2:  # one grey value has no deviation, and is refused
        return
    sampler = Sampler({"a": volume}, boxes=[box], settings=MODEL, seed=seed, memory_mib=seed % 2)
    if sampler.whole_slices:
        return
    where = {int(value): place for place, value in np.ndenumerate(volume.image)}
    for step in range(sampler.steps_per_epoch):
        batch = sampler.batch(0, step)
        assert batch.image.shape == (3, 3, 8, 12)
        grey = np.rint(
            batch.image.numpy() * sampler.scan.normalisation.deviation + sampler.scan.normalisation.mean
        ).astype(int)
        for n, _, y, x in np.argwhere(~batch.ignore.numpy()):
            place = where[int(grey[n, 1, y, x])]
            assert all(a <= p < b for p, a, b in zip(place, box.start, box.stop, strict=True))
            assert volume.annotations[0][place] == int(batch.mask[n, 0, y, x])


@given(
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    start=st.tuples(*[st.integers(-20, 20)] * 3),
    edges=st.tuples(*[st.integers(1, 12)] * 3),
)
@settings(max_examples=80, deadline=None)
def test_reading_with_reflection_equals_reading_voxel_by_voxel(shape, start, edges):
    def mirror(index, size):
        while size > 1 and not 0 <= index < size:
            index = -index if index < 0 else 2 * (size - 1) - index
        return 0 if size == 1 else index

    image = np.arange(np.prod(shape)).reshape(shape)
    box = read_reflected(image, start, edges)
    assert box.shape == edges
    for place in np.ndindex(edges):
        assert box[place] == image[tuple(mirror(s + p, n) for s, p, n in zip(start, place, shape, strict=True))]


@given(example=volumes_and_boxes(), margin=st.tuples(*[st.integers(0, 6)] * 3))
@settings(max_examples=40, deadline=None)
def test_holding_in_memory_changes_no_reading(example, margin):
    volume, box, _ = example
    stored, held = (LabelledVolume("a", volume, [box]) for _ in range(2))
    held.hold(margin)
    start, stop = held.window(margin)
    shape = np.subtract(stop, start)
    np.testing.assert_array_equal(held.image(start, shape), stored.image(start, shape))
    outside = [s - 2 for s in start]
    np.testing.assert_array_equal(held.codes(outside, shape + 4), stored.codes(outside, shape + 4))
