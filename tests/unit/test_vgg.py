"""The way down of a deep contextual network begins as VGG-16, whose file has other names and three colours."""

import pytest
import torch
from safetensors.torch import save_file

from voxloom import initialisation, networks, pretrained, vgg
from voxloom.errors import ModelError

FULL = {"preset": "chen2016", "slices": 1}


def state(**changes):
    """The names and shapes of torchvision's vgg16, its classifier narrowed; further convolutions as there."""
    generator = torch.Generator().manual_seed(0)
    shapes = dict(vgg.CONVOLUTIONS) | {24: (512, 512), 26: (512, 512), 28: (512, 512)}
    tensors = {}
    for number, (after, before) in shapes.items():
        tensors[f"features.{number}.weight"] = torch.randn(after, before, 3, 3, generator=generator) * 0.05
        tensors[f"features.{number}.bias"] = torch.randn(after, generator=generator) * 0.05
    tensors["classifier.0.weight"] = torch.zeros(8, 4)
    return {name: tensor for name, tensor in {**tensors, **changes}.items() if tensor is not None}


def begun(tmp_path, tensors, ending="pth", **network):
    path = tmp_path / f"vgg16.{ending}"
    torch.save(tensors, path) if ending == "pth" else save_file(tensors, path)
    initial = pretrained.read_initial(path, freeze=[])
    made = networks.build({**FULL, **network}, seed=3)
    initialisation.begin(made, initial)
    return made, initial


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_the_way_down_answers_a_grey_picture_as_vgg_16_does(tmp_path, ending):
    tensors = state()
    network, _ = begun(tmp_path, tensors, ending)
    grey = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    x = grey.expand(-1, 3, -1, -1)
    ours = grey
    for level, numbers in enumerate(((0, 2), (5, 7), (10, 12, 14), (17, 19, 21))):
        if level:
            x, ours = (torch.nn.functional.max_pool2d(each, 2) for each in (x, ours))
        for number in numbers:
            weight, bias = (tensors[f"features.{number}.{kind}"] for kind in ("weight", "bias"))
            x = torch.relu(torch.nn.functional.conv2d(x, weight, bias, padding=1))
        ours = network.down[level](ours)
        torch.testing.assert_close(ours, x, rtol=1e-4, atol=1e-5)


def test_equal_slices_answer_as_one_of_them(tmp_path):
    single, several = (begun(tmp_path, state(), slices=slices)[0] for slices in (1, 5))
    grey = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(several.down[0](grey.expand(-1, 5, -1, -1)), single.down[0](grey), rtol=1e-4, atol=1e-5)


def test_every_tensor_is_listed_with_its_name_in_the_file(tmp_path):
    network, initial = begun(tmp_path, state())
    rows = {row.tensor: row for row in initialisation.compare(network, initial)}
    first = rows["down.0.0.weight"]
    assert (first.source_tensor, first.status, first.shape, first.source_shape) == (
        "features.0.weight", "loaded", "64x1x3x3", "64x3x3x3",
    )  # fmt: skip
    assert rows["down.3.4.bias"].source_tensor == "features.21.bias"
    assert {row.status for name, row in rows.items() if name.startswith("down.")} == {"loaded"}
    assert {row.status for name, row in rows.items() if name.startswith("branches.")} == {"not in the source"}
    unused = {name for name, row in rows.items() if row.status == "not in the network"}
    assert unused == {f"features.{n}.{kind}" for n in (24, 26, 28) for kind in ("weight", "bias")} | {
        "classifier.0.weight"
    }


def test_branches_stay_random_and_batch_normalisation_as_it_begins(tmp_path):
    network, initial = begun(tmp_path, state(), norm="batch")
    random = networks.build({**FULL, "norm": "batch"}, seed=3).state_dict()
    rows = {row.tensor: row.status for row in initialisation.compare(network, initial)}
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, random[name]) == (rows[name] != "loaded"), name
    assert sum(status == "loaded" for status in rows.values()) == 10
    assert rows["features.0.bias"] == "not in the network"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features.5.bias": None}, r"no VGG-16 without normalisation: it lacks features.5.bias \(128\); give"),
        ({"features.2.weight": torch.zeros(64)}, r"its shape is 64, not that of features.2.weight \(64x64x3x3\)"),
        ({"features.0.weight": torch.zeros(64, 4, 3, 3)}, r"64x4x3x3, not that of features.0.weight \(64x3x3x3\)"),
        ({"features.7.weight": torch.full((128, 128, 3, 3), torch.nan)}, "features.7.weight of vgg16.pth holds values"),
    ],
)
def test_another_vgg_is_refused(tmp_path, changes, message):
    with pytest.raises(ModelError, match=message):
        begun(tmp_path, state(**changes))


def test_a_network_of_other_widths_is_told_those_of_vgg_16(tmp_path):
    with pytest.raises(ModelError, match=r"512, 512, 512 channels; this network's make 8, 8, 16, 16, 32.* leave out"):
        begun(tmp_path, state(), widths=[8, 16, 32, 48])


def test_a_u_net_does_not_begin_as_vgg_16(tmp_path):
    with pytest.raises(ModelError, match=r"none has the name and shape of one in vgg16.pth"):
        begun(tmp_path, state(), preset="shallow")
