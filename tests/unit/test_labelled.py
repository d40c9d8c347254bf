"""Labels are seen inside their boxes only, and images continue by reflection."""

import numpy as np
import pytest

from voxloom.errors import SplitError, VolumeError
from voxloom.labelled import (
    LabelledVolume,
    PartBox,
    TrainingVolume,
    boxes_of_fold,
    labelled_volumes,
    read_reflected,
)


def volume(shape=(6, 10, 12), annotations=1, seed=0):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 255, shape).astype(np.uint8)
    codes = tuple(rng.choice([0, 1, 255], shape).astype(np.uint8) for _ in range(annotations))
    return TrainingVolume(image, codes, (1.0, 1.0, 1.0))


def box(start, stop, part="train", name="a"):
    return PartBox(name, part, start, stop)


@pytest.mark.parametrize("start", [(-3, -2, -1), (4, 8, 9), (-9, -25, 3), (1, 2, 3)])
def test_reading_past_the_border_equals_numpys_reflection(start):
    image = volume().image
    shape = (5, 7, 9)
    width = 40
    padded = np.pad(image, width, mode="reflect")
    expected = padded[tuple(slice(s + width, s + width + n) for s, n in zip(start, shape, strict=True))]
    np.testing.assert_array_equal(read_reflected(image, start, shape), expected)


def test_a_single_slice_is_repeated():
    image = np.arange(6).reshape(1, 2, 3)
    np.testing.assert_array_equal(read_reflected(image, (-1, 0, 0), (3, 2, 3)), np.repeat(image, 3, axis=0))


@pytest.mark.parametrize("held", [False, True])
def test_no_label_is_seen_outside_the_boxes(held):
    source = volume()
    part = LabelledVolume("a", source, [box((0, 0, 0), (2, 10, 12)), box((4, 2, 0), (6, 5, 6))])
    if held:
        part.hold((1, 1, 1))
    expected = np.full(source.image.shape, 255, dtype=np.uint8)
    expected[:2] = source.annotations[0][:2]
    expected[4:, 2:5, :6] = source.annotations[0][4:, 2:5, :6]
    np.testing.assert_array_equal(part.codes((0, 0, 0), (6, 10, 12)), expected)
    outside = part.codes((-1, -1, -1), (3, 5, 5))
    assert (outside[0] == 255).all()
    np.testing.assert_array_equal(outside[1:, 1:, 1:], expected[:2, :4, :4])


@pytest.mark.parametrize("held", [False, True])
def test_the_first_annotation_wins_wherever_it_is_annotated(held):
    source = volume(annotations=2)
    part = LabelledVolume("a", source, [box((0, 0, 0), (6, 10, 12))])
    if held:
        part.hold((0, 0, 0))
    first, second = source.annotations
    joined = part.codes((0, 0, 0), (6, 10, 12))
    np.testing.assert_array_equal(joined, np.where(first != 255, first, second))
    np.testing.assert_array_equal(part.codes((0, 0, 0), (6, 10, 12), first_only=True), first)


@pytest.mark.parametrize("held", [False, True])
def test_an_annotation_that_a_volume_lacks_is_passed_over(held):
    source = volume()
    part = LabelledVolume(
        "a", TrainingVolume(source.image, (None, *source.annotations), (1, 1, 1)), [box((0, 0, 0), (6, 10, 12))]
    )
    if held:
        part.hold((0, 0, 0))
    np.testing.assert_array_equal(part.codes((0, 0, 0), (6, 10, 12)), source.annotations[0])
    assert (part.codes((0, 0, 0), (6, 10, 12), first_only=True) == 255).all()


def test_what_is_held_in_memory_reads_as_before():
    source = volume((20, 30, 30))
    boxes = [box((5, 8, 0), (9, 20, 30))]
    stored, held = LabelledVolume("a", source, boxes), LabelledVolume("a", source, boxes)
    held.hold((2, 4, 4))
    size = held.bytes_held((2, 4, 4))
    assert size == 8 * 20 * 30 * 2
    for start in [(3, 4, -4), (5, 10, 12)]:
        np.testing.assert_array_equal(held.image(start, (4, 8, 8)), stored.image(start, (4, 8, 8)))
        np.testing.assert_array_equal(held.codes(start, (4, 8, 8)), stored.codes(start, (4, 8, 8)))


def test_shapes_that_differ_are_refused():
    source = volume()
    with pytest.raises(VolumeError, match=r"volume a: .*image \(6, 10, 12\), annotation 1 \(6, 10, 11\)"):
        LabelledVolume("a", TrainingVolume(source.image, (source.image[..., :-1],), (1, 1, 1)), [])


def test_a_box_outside_the_volume_is_refused():
    with pytest.raises(SplitError, match="train box ends at.*make it anew"):
        LabelledVolume("a", volume(), [box((0, 0, 0), (7, 10, 12))])


def test_boxes_come_from_the_rows_of_one_fold():
    row = dict(volume="a", part="test", z_from="0", z_to="2", y_from="1", y_to="3", x_from="2", x_to="4")
    assert boxes_of_fold([{**row, "fold": "1"}, {**row, "fold": 0, "volume": "b"}], fold=1) == [
        PartBox("a", "test", (0, 1, 2), (2, 3, 4))
    ]
    with pytest.raises(SplitError, match="no fold 3, only 1"):
        boxes_of_fold([{**row, "fold": 1}], fold=3)


def test_only_volumes_with_boxes_of_the_part_are_taken():
    boxes = [box((0, 0, 0), (1, 1, 1)), box((1, 0, 0), (2, 1, 1), "test", "b")]
    assert [part.name for part in labelled_volumes({"a": volume(), "b": volume()}, boxes, part="train")] == ["a"]
    with pytest.raises(SplitError, match="names volume 'b', but only a were"):
        labelled_volumes({"a": volume()}, boxes, part="test")
