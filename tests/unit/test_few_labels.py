"""A share of the training boxes is the same boxes every time, and nothing of validation and test is touched."""

import math

import pytest

from voxloom.few_labels import share_of_boxes
from voxloom.labelled import PartBox

BOXES = [
    *(PartBox("a", "train", (10 * k, 0, 0), (10 * k + 10, 40, 40)) for k in range(6)),
    PartBox("b", "train", (0, 0, 0), (20, 40, 40)),
    PartBox("a", "validation", (70, 0, 0), (80, 40, 40)),
    PartBox("b", "test", (30, 0, 0), (40, 40, 40)),
]
VOXELS = 80 * 40 * 40


def chosen(share, *, seed=3, boxes=BOXES, size=None, patch=(1, 16, 16)):
    settings = {"train_share": share, "input": {"size": size, "patch_voxels": patch}}
    return share_of_boxes(boxes, settings=settings, seed=seed)


def training(boxes):
    return [box for box in boxes if box.part == "train"]


def voxels(boxes):
    return sum(math.prod(box.shape) for box in training(boxes))


def test_everything_is_everything():
    assert sorted(chosen(1.0), key=str) == sorted(BOXES, key=str)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.99])
def test_a_share_has_its_voxels_and_leaves_the_other_parts_alone(share):
    kept = chosen(share)
    assert share * VOXELS <= voxels(kept) < share * VOXELS + 40 * 40
    assert [box for box in kept if box.part != "train"] == BOXES[-2:]
    for box in training(kept):
        assert any(
            box.volume == whole.volume and box.start == whole.start and box.stop <= whole.stop
            for whole in training(BOXES)
        )


def test_the_order_of_the_table_changes_nothing_and_the_seed_does():
    assert training(chosen(0.3, boxes=BOXES[::-1])) == training(chosen(0.3))
    assert any(training(chosen(0.3, seed=seed)) != training(chosen(0.3)) for seed in range(4, 8))


def test_a_smaller_share_lies_in_a_larger_one():
    small, large = training(chosen(0.2)), training(chosen(0.7))
    for box in small:
        assert any(box.volume == o.volume and o.start <= box.start and box.stop <= o.stop for o in large)


def test_a_box_is_cut_by_whole_samples():
    block = [PartBox("a", "train", (0, 0, 0), (20, 60, 40))]
    assert chosen(0.001, boxes=block)[0].shape == (1, 60, 40)  # slices
    assert chosen(0.001, boxes=block, patch=(16, 16, 16))[0].shape == (20, 16, 40)  # boxes
    assert chosen(0.5, boxes=block, size=[64, 64])[0].shape == (10, 60, 40)  # whole slices
