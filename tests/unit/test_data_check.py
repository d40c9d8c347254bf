"""What can't be trained on is refused before training begins; what is small, or smaller than a patch, is trained on."""

from pathlib import Path

import numpy as np
import pytest

from voxloom import config, network_settings
from voxloom.errors import ModelError, SplitError, VolumeError
from voxloom.labelled import PartBox, TrainingVolume
from voxloom.training import train

ROOT = Path(__file__).resolve().parents[2]
MODEL = config.read_yaml(ROOT / "workflow" / "schemas" / "task.schema.yaml")
SHAPE = (2, 16, 16)


def settings(**changes):
    schema = {**MODEL["$defs"]["model"], "$defs": MODEL["$defs"]}
    given = {"network": {"widths": [2, 4]}, "input": {"patch_voxels": [1, 16, 16]}, "epochs": 1, **changes}
    complete = config.check({"optimiser": {"learning_rate": 0.01}, **given}, schema, name="model")
    return {**complete, "network": network_settings.resolved(complete["network"])}


def image(dtype=np.uint8):
    return np.random.default_rng(0).integers(0, 255, SHAPE).astype(dtype)


def codes(value=None):
    made = np.zeros(SHAPE, np.uint8)
    made[:, 4:8] = 1
    return made if value is None else np.full(SHAPE, value, np.uint8)


def trained(grey=None, labels=None, *, part="train", **changes):
    volume = TrainingVolume(
        image() if grey is None else grey, (codes() if labels is None else labels,), (1.0, 1.0, 1.0)
    )
    boxes = [PartBox("em", part, (0, 0, 0), SHAPE)]
    return train(
        {"em": volume}, boxes=boxes, settings=settings(**changes), seed=1, memory_mib=200, threads=1, device="cpu"
    )


def test_one_small_annotated_block_is_enough():
    labels = codes(255)
    labels[1, 2:8, 2:8] = codes()[1, 2:8, 2:8]
    made = trained(labels=labels)
    assert made.counts["training_annotated_voxels"] == 36
    assert np.isfinite(made.log[0]["training_loss"])


def test_a_patch_larger_than_every_volume_is_refused():
    with pytest.raises(
        ModelError, match=r"patch_voxels is \[8, 32, 32\], larger than .*: em \(2, 16, 16\); .* \[2, 16, 16\]"
    ):
        trained(network={"dimensions": 3, "widths": [2, 4]}, input={"patch_voxels": [8, 32, 32]})


def test_a_volume_smaller_than_the_patch_is_filled_with_mirror_images_that_nobody_annotated(caplog):
    volumes, boxes = {}, []
    for name, edge in (("small", 16), ("large", 48)):
        shape = (4, edge, edge)
        labels = np.zeros(shape, np.uint8)
        labels[:, 4:8] = 1
        grey = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
        volumes[name] = TrainingVolume(grey, (labels,), (1.0, 1.0, 1.0))
        boxes.append(PartBox(name, "train", (0, 0, 0), shape))
    chosen = settings(input={"patch_voxels": [1, 32, 32]}, samples_per_epoch=8)
    with caplog.at_level("WARNING", logger="voxloom"):
        made = train(volumes, boxes=boxes, settings=chosen, seed=1, memory_mib=200, threads=1, device="cpu")
    assert "volume small (4, 16, 16) is smaller than input.patch_voxels [1, 32, 32]" in caplog.text
    assert made.counts["training_annotated_voxels"] == 4 * (16**2 + 48**2)
    assert np.isfinite(made.log[0]["training_loss"])


def test_a_patch_may_end_beyond_the_volume_by_what_pooling_needs():
    made = trained(network={"widths": [2, 4, 8, 16]}, input={"patch_voxels": [1, 16, 16]})
    assert np.isfinite(made.log[0]["training_loss"])
    grey, labels = (np.ascontiguousarray(array[:, :13, :13]) for array in (image(), codes()))
    volume = TrainingVolume(grey, (labels,), (1.0, 1.0, 1.0))
    boxes = [PartBox("em", "train", (0, 0, 0), grey.shape)]
    chosen = settings(network={"widths": [2, 4]}, input={"patch_voxels": [1, 14, 14]})
    made = train({"em": volume}, boxes=boxes, settings=chosen, seed=1, memory_mib=200, threads=1, device="cpu")
    assert np.isfinite(made.log[0]["training_loss"])


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("part", ["train", "validation"])
def test_voxels_that_are_no_numbers_are_named(value, part):
    grey = image(np.float32)
    grey[1, 2, 3] = grey[1, 9, 9] = value
    with pytest.raises(VolumeError, match=rf"volume em: 2 voxels in or near its {part} .* first at \(1, 2, 3\)"):
        trained(grey, part=part)


@pytest.mark.parametrize("part", ["train", "validation"])
@pytest.mark.parametrize("normalise", ["zscore", "volume_zscore"])
def test_voxels_beside_a_box_count_where_training_reads_them(part, normalise):
    """What the network sees reaches beyond a box, and a volume's own mean is that of all of it."""
    grey = np.random.default_rng(0).random((2, 16, 160), dtype=np.float32)
    labels = np.zeros(grey.shape, np.uint8)
    labels[:, 4:8] = 1
    near, far = (1, 2, 20), (1, 2, 150)
    boxes = [PartBox("em", name, (0, 0, 0), (2, 16, 16)) for name in ("train", part)][: 1 + (part != "train")]

    def run(place):
        image = grey.copy()
        if place is not None:
            image[place] = np.nan
        chosen = settings(input={"patch_voxels": [1, 16, 16], "normalise": normalise}, samples_per_epoch=4)
        held = {"em": TrainingVolume(image, (labels,), (1.0, 1.0, 1.0))}
        return train(held, boxes=boxes, settings=chosen, seed=1, memory_mib=200, threads=1, device="cpu")

    with pytest.raises(VolumeError, match=r"volume em: 1 voxels in or near its .* first at \(1, 2, 20\)"):
        run(near)
    if normalise == "zscore":
        assert np.isfinite(run(far).log[0]["training_loss"])
    else:
        with pytest.raises(VolumeError, match=r"first at \(1, 2, 150\)"):
            run(far)


def test_validation_without_background_can_t_choose_an_epoch():
    volume = TrainingVolume(image(), (codes(),), (1.0, 1.0, 1.0))
    boxes = [PartBox("em", "train", (0, 0, 0), SHAPE), PartBox("em", "validation", (0, 4, 0), (2, 8, 16))]
    with pytest.raises(ModelError, match="the validation boxes hold 128 annotated voxels and no background"):
        train({"em": volume}, boxes=boxes, settings=settings(keep="best"), seed=1, memory_mib=200, threads=1,
              device="cpu")  # fmt: skip


def test_labels_of_another_shape_are_named():
    with pytest.raises(VolumeError, match=r"volume em: image and annotations .* \(2, 16, 16\).* \(2, 16, 17\)"):
        trained(labels=np.zeros((2, 16, 17), np.uint8))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (255, "hold 0 annotated voxels and no foreground"),
        (0, "hold 512 annotated voxels and no foreground"),
        (1, "all 512 annotated voxels of the training boxes are foreground: without background"),
    ],
)
def test_labels_of_one_kind_are_refused(value, message):
    with pytest.raises(ModelError, match=message):
        trained(labels=codes(value))


def test_no_training_box_is_refused():
    with pytest.raises(SplitError, match="no training box in this fold"):
        trained(part="test")


def test_an_image_of_one_value_is_refused():
    with pytest.raises(ModelError, match="deviation of 0"):
        trained(np.full(SHAPE, 7, np.uint8))
