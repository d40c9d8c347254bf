"""A training begins with the weights that it was given, says which, and freezes what it was told to."""

import logging

import pytest
import torch
from safetensors.torch import save_file
from unit.test_training import BOXES, equal, numbers, settings, tubes, weights

from voxloom import initialisation, networks, pretrained
from voxloom.errors import ModelError, SplitError
from voxloom.initialisation import Initial, SeenBox
from voxloom.labelled import PartBox, TrainingVolume
from voxloom.training import train


def network(seed=0, **changes):
    return networks.build({**settings()["network"], **changes}, seed=seed)


def initial(source=None, freeze=(), seen=(), **changes):
    tensors = (source or network(seed=7)).state_dict()
    return Initial("axons/best, fold 0", "ab" * 32, {**tensors, **changes}, tuple(freeze), seen)


def statuses(net, start):
    return {row.tensor: row.status for row in initialisation.compare(net, start)}


def learn(start, **changes):
    return train(
        {"a": tubes()}, boxes=BOXES, settings=settings(**changes), seed=1, memory_mib=200, threads=1, device="cpu",
        initial=start,
    )  # fmt: skip


def test_equal_networks_begin_with_all_weights_and_running_statistics():
    source, target = network(seed=7), network(seed=8)
    source.down[0][1].running_mean.fill_(3.0)
    initialisation.begin(target, initial(source))
    assert equal(target.state_dict(), source.state_dict())


def test_another_number_of_channels_keeps_random_weights_there_only(caplog):
    target, random = network(seed=8, slices=3), network(seed=8, slices=3)
    source = network(seed=7)
    with caplog.at_level(logging.INFO, "voxloom"):
        initialisation.begin(target, initial(source))
    changed = target.state_dict()
    assert torch.equal(changed["down.0.0.weight"], random.state_dict()["down.0.0.weight"])
    others = [name for name in changed if name != "down.0.0.weight"]
    assert all(torch.equal(changed[name], source.state_dict()[name]) for name in others)
    assert "down.0.0.weight begins at random: other shape (here 6x3x3x3, there 6x1x3x3)" in caplog.text


def test_a_longer_source_and_a_missing_head_are_listed():
    start = initial(extra=torch.zeros(2))
    start = Initial(start.source, start.sha256, {k: v for k, v in start.tensors.items() if k != "head.bias"}, (), ())
    found = statuses(network(), start)
    assert found["head.bias"] == "not in the source"
    assert found["extra"] == "not in the network"
    assert sum(status == "loaded" for status in found.values()) == len(found) - 2


def test_nothing_that_fits_is_an_error():
    strange = Initial("foreign.pt", "0", {"conv1.weight": torch.zeros(2, 2)}, (), None)
    with pytest.raises(ModelError, match=r"none has the name and shape of one in foreign.pt .*conv1.weight there"):
        initialisation.begin(network(), strange)


def test_step_counters_alone_are_no_weights():
    counters = {k: v for k, v in network().state_dict().items() if k.endswith("num_batches_tracked")}
    with pytest.raises(ModelError, match="none has the name and shape"):
        initialisation.begin(network(), Initial("x", "0", counters, (), None))


def test_weights_that_are_not_finite_are_refused():
    with pytest.raises(ModelError, match="head.bias of axons/best, fold 0 holds values that are not finite"):
        initialisation.begin(network(), initial(**{"head.bias": torch.tensor([torch.nan])}))


def test_training_from_weights_differs_from_training_from_scratch_and_is_repeatable():
    start = initial()
    once, twice, scratch = learn(start), learn(start), learn(None)
    assert equal(weights(once), weights(twice))
    assert numbers(once.log) == numbers(twice.log)
    assert not equal(weights(once), weights(scratch))


def test_frozen_modules_keep_weights_and_batch_statistics_and_the_others_learn():
    start = initial(freeze=["down.0"])
    learnt = weights(learn(start))
    for name, tensor in learnt.items():
        if name.startswith("down.0."):
            assert torch.equal(tensor, start.tensors[name]), name
    assert not torch.equal(learnt["down.1.0.weight"], start.tensors["down.1.0.weight"])
    assert not torch.equal(learnt["down.1.1.running_mean"], start.tensors["down.1.1.running_mean"])


def test_the_optimiser_sees_only_what_learns(caplog):
    net = network()
    with caplog.at_level(logging.INFO, "voxloom"):
        initialisation.begin(net, initial(freeze=["down", "up"]))
    learning = sum(parameter.numel() for parameter in initialisation.learning(net))
    assert learning == sum(parameter.numel() for part in (net.join, net.head) for parameter in part.parameters())
    assert f"{learning} of {sum(p.numel() for p in net.parameters())} parameters learn; frozen: down, up" in caplog.text


@pytest.mark.parametrize(
    ("freeze", "message"),
    [
        (["down.7"], r"freeze names 'down.7', which is no part of this network; known: down, down.0, down.1, up"),
        (["down", "up", "join", "head"], r"the whole network: nothing would learn"),
    ],
)
def test_freeze_names_parts_of_the_network(freeze, message):
    with pytest.raises(ModelError, match=message):
        initialisation.begin(network(), initial(freeze=freeze))


def test_frozen_weights_may_not_be_random():
    with pytest.raises(ModelError, match=r"freeze holds down.0.0.weight, which axons/best, fold 0 doesn't have"):
        initialisation.begin(network(slices=3), initial(freeze=["down.0"]))


def test_weights_are_read_from_files_of_tensors(tmp_path):
    tensors = network(seed=7).state_dict()
    save_file(tensors, tmp_path / "w.safetensors")
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in tensors.items()}}, tmp_path / "w.pt")
    for name in ("w.safetensors", "w.pt"):
        start = pretrained.read_initial(tmp_path / name, freeze=["down.0"])
        assert equal(dict(start.tensors), tensors)
        assert (start.source, start.freeze, start.seen) == (name, ("down.0",), None)
    assert pretrained.read_initial(None, freeze=[]) is None


class Payload:
    """Unpickling this would leave a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_file_that_would_execute_code_is_refused_and_executes_nothing(tmp_path):
    torch.save({"weight": Payload(tmp_path / "executed")}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"holds more than tensors.*save its state_dict\(\) alone"):
        pretrained.read_initial(tmp_path / "w.pt", freeze=[])
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.pt", b"nothing", "is damaged"),
        ("w.safetensors", b"nothing", "no safetensors file, or damaged"),
        ("w.onnx", b"", "no model's folder and no .safetensors, .pt, .pth file"),
        ("absent.pt", None, "no model's folder"),
    ],
)
def test_other_files_are_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=message):
        pretrained.read_initial(tmp_path / name, freeze=[])


VOLUMES = {"cube": TrainingVolume(torch.zeros(40, 32, 32).numpy(), (), (1.0, 1.0, 1.0))}
DATA = {"cube": {"sha256": "cd"}}


def refuse(seen, part="test"):
    pretrained.refuse_leaks(
        initial(seen=seen),
        part_boxes=[PartBox("cube", part, (20, 0, 0), (30, 32, 32)), PartBox("cube", "train", (0, 0, 0), (9, 32, 32))],
        volumes=VOLUMES,
        data=DATA,
        settings=settings(network={"slices": 5}),
    )


def box(z, z_to, sha256="cd"):
    return SeenBox(sha256, "train", ((z, z_to), (0, 32), (0, 32)))


def test_weights_that_know_the_labels_of_a_test_box_or_what_it_sees_are_refused():
    with pytest.raises(SplitError, match=r"axons/best, fold 0 learnt from labels in or next to a test box of cube"):
        refuse([box(0, 21)])
    with pytest.raises(SplitError, match="same split"):
        refuse([box(0, 19)])  # 5 slices see 2 beside the first of the box


@pytest.mark.parametrize("seen", [[], [box(0, 18), box(32, 40)], [box(0, 40, sha256="other")]])
def test_labels_elsewhere_or_of_other_volumes_are_no_leak(seen):
    refuse(seen)


def test_labels_of_validation_boxes_are_said(caplog):
    with caplog.at_level(logging.WARNING, "voxloom"):
        refuse([box(0, 21)], part="validation")
    assert "scores on validation boxes will flatter" in caplog.text


def test_unknown_labels_are_said(caplog):
    with caplog.at_level(logging.WARNING, "voxloom"):
        refuse(None)
    assert "nobody knows which labels went into axons/best, fold 0" in caplog.text
