"""Losses are what a plain loop says, and what nobody annotated counts for nothing."""

import itertools
import math

import numpy as np
import pytest
import torch

from voxloom import config, losses
from voxloom.errors import ModelError
from voxloom.validation import _as_batch

CLASSES = 4
OPTIONS = {
    "focal_gamma": 2.0,
    "tversky_miss_weight": 0.7,
    "cldice_iterations": 2,
    "huber_delta": 0.8,
}
NAMES = sorted(losses.LOSSES)
MASK_NAMES = sorted(losses.BY_TARGET["mask"])
SHAPES = [(2, 1, 3, 4), (1, 1, 2, 3, 4)]
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")),
]


def named(name):
    return losses.named(name, classes=CLASSES, **OPTIONS)


def example(name="bce", shape=SHAPES[0], seed=0, dtype=torch.float32):
    """Output, target and ignore of the kind that the loss learns."""
    rng = np.random.default_rng(seed)
    kind = named(name).learns
    channels = CLASSES if kind == "classes" else 1
    output = torch.tensor(rng.normal(0, 2, (shape[0], channels, *shape[2:])), dtype=dtype)
    numbers = rng.normal(0, 2, shape) if kind == "numbers" else rng.integers(0, 4 if kind == "classes" else 2, shape)
    ignore = torch.tensor(rng.random(shape) < 0.3)
    return output, torch.tensor(numbers, dtype=dtype), ignore


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


def annotated(output, target, ignore):
    """(values of the channels, target) of every voxel that counts."""
    for place in itertools.product(*(range(n) for n in ignore.shape)):
        if not ignore[place]:
            sample, _, *where = place
            yield [float(output[(sample, c, *where)]) for c in range(output.shape[1])], float(target[place])


def overlap_by_loop(pairs, alpha, beta):
    both = sum(p * y for p, y in pairs)
    false, missed = sum(p * (1 - y) for p, y in pairs), sum((1 - p) * y for p, y in pairs)
    return 1 - (2 * both + 1) / (2 * both + 2 * alpha * false + 2 * beta * missed + 1)


def neighbours(place, shape, *, faces_only):
    steps = itertools.product((-1, 0, 1), repeat=len(shape))
    for step in steps:
        near = tuple(a + b for a, b in zip(place, step, strict=True))
        if all(0 <= n < size for n, size in zip(near, shape, strict=True)) and (
            not faces_only or sum(map(abs, step)) <= 1
        ):
            yield near


def skeleton_by_loop(image, iterations):
    """The published recipe, voxel by voxel; an image is a dict from place to value."""
    shape = tuple(max(place[k] for place in image) + 1 for k in range(len(next(iter(image)))))

    def erode(x):
        return {place: min(x[near] for near in neighbours(place, shape, faces_only=True)) for place in x}

    def open_up(x):
        x = erode(x)
        return {place: max(x[near] for near in neighbours(place, shape, faces_only=False)) for place in x}

    def rest(x):
        opened = open_up(x)
        return {place: max(x[place] - opened[place], 0.0) for place in x}

    line = rest(image)
    for _ in range(iterations):
        image = erode(image)
        more = rest(image)
        line = {p: line[p] + max(more[p] - line[p] * more[p], 0.0) for p in line}
    return line


def cldice_by_loop(output, target, ignore):
    sums = [0.0] * 4
    for sample in range(output.shape[0]):
        places = list(itertools.product(*(range(n) for n in output.shape[2:])))
        p = {at: 0.0 if ignore[(sample, 0, *at)] else sigmoid(float(output[(sample, 0, *at)])) for at in places}
        y = {at: 0.0 if ignore[(sample, 0, *at)] else float(target[(sample, 0, *at)]) for at in places}
        line, true_line = skeleton_by_loop(p, 2), skeleton_by_loop(y, 2)
        for at in places:
            pieces = (line[at] * y[at], line[at], true_line[at] * p[at], true_line[at])
            sums = [total + piece for total, piece in zip(sums, pieces, strict=True)]
    precision, sensitivity = (sums[0] + 1) / (sums[1] + 1), (sums[2] + 1) / (sums[3] + 1)
    return 1 - 2 * precision * sensitivity / (precision + sensitivity)


def by_loop(name, output, target, ignore, weight):
    voxels = list(annotated(output, target, ignore))

    def mean(of_voxel):
        return sum(of_voxel(channels, y) for channels, y in voxels) / len(voxels)

    def entropy(channels, y):
        p = sigmoid(channels[0])
        return -weight * math.log(p) if y else -math.log(1 - p)

    def softmax(channels):
        return [math.exp(c) / sum(map(math.exp, channels)) for c in channels]

    def class_dice():
        pairs = [[(softmax(channels)[c], float(y == c)) for channels, y in voxels] for c in range(1, CLASSES)]
        return sum(overlap_by_loop(of_class, 0.5, 0.5) for of_class in pairs) / (CLASSES - 1)

    masks = [(sigmoid(channels[0]), y) for channels, y in voxels]
    weights = [1.0] + [weight] * (CLASSES - 1)
    return {
        "bce": lambda: mean(entropy),
        "bce_dice": lambda: mean(entropy) + overlap_by_loop(masks, 0.5, 0.5),
        "focal": lambda: mean(
            lambda channels, y: entropy(channels, y) * abs(y - sigmoid(channels[0])) ** OPTIONS["focal_gamma"]
        ),
        "dice": lambda: overlap_by_loop(masks, 0.5, 0.5),
        "tversky": lambda: overlap_by_loop(masks, 0.3, 0.7),
        "cldice": lambda: cldice_by_loop(output, target, ignore),
        "ce": lambda: mean(lambda channels, y: -weights[int(y)] * math.log(softmax(channels)[int(y)])),
        "class_dice": class_dice,
        "mse": lambda: mean(lambda channels, y: (channels[0] - y) ** 2),
        "l1": lambda: mean(lambda channels, y: abs(channels[0] - y)),
        "huber": lambda: mean(
            lambda channels, y: (
                0.5 * (channels[0] - y) ** 2 if abs(channels[0] - y) < 0.8 else 0.8 * (abs(channels[0] - y) - 0.4)
            )
        ),
    }[name]()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weight", [1.0, 7.5])
@pytest.mark.parametrize("name", NAMES)
def test_equals_a_plain_loop(name, weight, shape, device):
    output, target, ignore = example(name, shape)
    value = named(name)(output.to(device), target.to(device), ignore.to(device), positive_weight=weight)
    assert value.item() == pytest.approx(by_loop(name, output, target, ignore, weight), rel=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_is_the_derivative(name, shape):
    output, target, ignore = example(name, shape, dtype=torch.float64)
    output.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: named(name)(x, target, ignore, positive_weight=3.0), (output,))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_deterministic_and_finite_in_bfloat16(name, device):
    """PyTorch refuses operations whose gradient depends on the order of threads."""
    output, target, ignore = (tensor.to(device) for tensor in example(name))
    half = output.bfloat16().requires_grad_()
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        value = named(name)(half, target, ignore, positive_weight=2.0)
        value.backward()
    finally:
        torch.use_deterministic_algorithms(before)
    exact = named(name)(half.detach().float(), target, ignore, positive_weight=2.0)
    assert value.dtype == torch.float32
    assert torch.equal(value, exact)
    assert torch.isfinite(half.grad).all()


@pytest.mark.parametrize("name", NAMES)
def test_ignored_voxels_contribute_nothing(name):
    output, target, ignore = example(name)
    output.requires_grad_()
    value = named(name)(output, target, ignore, positive_weight=2.0)
    (gradient,) = torch.autograd.grad(value, output)
    everywhere = ignore.expand_as(output)
    assert (gradient[everywhere] == 0).all()
    assert name == "cldice" or (gradient[~everywhere] != 0).all()  # off the centre lines clDice says nothing
    others = torch.where(ignore, 1 - target if named(name).learns == "mask" else 77.0, target)
    assert torch.equal(named(name)(output, others, ignore, positive_weight=2.0), value)
    annotated_everywhere = named(name)(output, target, torch.zeros_like(ignore), positive_weight=2.0)
    assert not torch.equal(annotated_everywhere, value)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_annotated_is_no_loss_and_no_gradient(name):
    output, target, ignore = example(name)
    output.requires_grad_()
    value = named(name)(output, target, torch.ones_like(ignore), positive_weight=1.0)
    (gradient,) = torch.autograd.grad(value, output)
    assert value.item() == 0
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("name", NAMES)
def test_samples_by_parts_have_the_loss_of_the_whole(name):
    output, target, ignore = example(name)
    loss = named(name)
    parts = sum(loss.sums(output[k : k + 1], target[k : k + 1], ignore[k : k + 1], 3.0) for k in range(2))
    whole = loss(output, target, ignore, positive_weight=3.0)
    assert parts.shape == (loss.length,)
    assert float(loss.value(parts)) == pytest.approx(float(whole), rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_better_prediction_costs_less(name):
    """Following the gradient a little, the loss falls."""
    output, target, ignore = example(name)
    output.requires_grad_()
    value = named(name)(output, target, ignore, positive_weight=1.0)
    (gradient,) = torch.autograd.grad(value, output)
    assert named(name)(output - 0.05 * gradient, target, ignore, positive_weight=1.0) < value


def test_a_weight_acts_once():
    """One foreground voxel at logit 0 costs ln 2, so weight times ln 2."""
    one = torch.zeros(1)
    value = named("bce")(one, torch.ones(1), torch.zeros(1, dtype=torch.bool), positive_weight=5.0)
    assert value.item() == pytest.approx(5 * math.log(2))


@pytest.mark.parametrize("name", [*MASK_NAMES, "ce", "class_dice"])
def test_extreme_logits_stay_finite(name):
    channels = CLASSES if named(name).learns == "classes" else 1
    logits = torch.full((1, channels, 4, 4), 1e4)
    logits[..., 2:, :] = -1e4
    logits[:, 1:] = -1e4
    logits.requires_grad_()
    target = (torch.arange(16).reshape(1, 1, 4, 4) % 2).float()
    value = named(name)(logits, target, torch.zeros(1, 1, 4, 4, dtype=torch.bool), positive_weight=1.0)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("gamma", [0.0, 0.5])
def test_an_easy_voxel_counts_less_in_focal_and_not_at_gamma_0(gamma):
    logits, mask, ignore = torch.tensor([9.0, -200.0]), torch.tensor([1.0, 0.0]), torch.zeros(2, dtype=torch.bool)
    plain = named("bce")(logits, mask, ignore, positive_weight=1.0)
    logits.requires_grad_()
    value = losses.named("focal", focal_gamma=gamma)(logits, mask, ignore, positive_weight=1.0)
    value.backward()
    assert torch.isfinite(logits.grad).all()
    assert torch.equal(value, plain) if gamma == 0 else value < 0.1 * plain


def test_numbers_that_nobody_annotated_may_be_anything():
    output, target, ignore = example("mse")
    output.requires_grad_()
    holes = target.masked_fill(ignore, math.nan)
    value = named("mse")(output, holes, ignore, positive_weight=1.0)
    value.backward()
    assert torch.equal(value, named("mse")(output, target, ignore, positive_weight=1.0))
    assert torch.isfinite(output.grad).all()


@pytest.mark.parametrize("dimensions", [2, 3])
def test_cldice_and_its_mean_with_dice_are_the_published_ones(golden, dimensions):
    reference = np.load(golden / "skeleton_metrics.npz")
    probability = torch.from_numpy(reference[f"soft{dimensions}"])[None, None].double()
    mask = torch.from_numpy(reference[f"gt{dimensions}"])[None, None]
    ignore = torch.zeros_like(mask)
    logits = torch.logit(probability, eps=1e-12).requires_grad_()
    options = {**OPTIONS, "cldice_iterations": 10}
    value = losses.named("cldice", **options)(logits, mask, ignore, positive_weight=1.0)
    assert value.item() == pytest.approx(float(reference[f"soft_cldice_loss{dimensions}"]), rel=1e-5)
    (gradient,) = torch.autograd.grad(value, logits)
    slope = (probability * (1 - probability)).numpy()[0, 0]
    expected = reference[f"soft_cldice_grad{dimensions}"] * slope
    np.testing.assert_allclose(gradient[0, 0], expected, rtol=1e-4, atol=1e-7)
    settings = {"name": "bce", "terms": {"dice": 0.5, "cldice": 0.5}, **options}
    both = losses.chosen(settings, target="mask")(logits, mask, ignore, positive_weight=1.0)
    assert both.item() == pytest.approx(float(reference[f"soft_dice_cldice_loss{dimensions}"]), rel=1e-5)


def test_cldice_of_a_piece_of_a_volume_knows_its_dimension():
    """Three equal slices of a bar are three lines in 2-D, but one in 3-D."""
    bar = np.zeros((5, 9, 12), dtype=np.float32)
    bar[1:4, 3:6, 1:11] = 1.0
    ignore = np.zeros(bar.shape, dtype=bool)

    def sums(dimensions, stack):
        pieces = (20 * bar[stack] - 10, bar[stack], ignore[stack])
        return named("cldice").sums(*(_as_batch(piece, dimensions) for piece in pieces), 1.0)

    assert torch.allclose(sums(2, slice(1, 4)), 3 * sums(2, slice(2, 3)))
    assert torch.allclose(sums(3, slice(0, 5)), sums(2, slice(2, 3)), rtol=0.3)


def test_terms_are_a_weighted_sum_that_adds_over_tiles():
    logits, mask, ignore = example()
    settings = {"name": "bce", "terms": {"cldice": 0.5, "bce": 2.0}, **OPTIONS}
    loss = losses.chosen(settings, target="mask")
    expected = 2.0 * by_loop("bce", logits, mask, ignore, 3.0) + 0.5 * by_loop("cldice", logits, mask, ignore, 3.0)
    assert loss(logits, mask, ignore, positive_weight=3.0).item() == pytest.approx(expected, rel=1e-5)
    parts = sum(loss.sums(logits[k : k + 1], mask[k : k + 1], ignore[k : k + 1], 3.0) for k in range(2))
    assert float(loss.value(parts)) == pytest.approx(expected, rel=1e-5)


def test_each_class_may_have_its_weight():
    output, target, ignore = example("ce")
    weights = [0.5, 1.0, 2.0, 4.0]
    expected = sum(
        weights[int(y)] * (math.log(sum(map(math.exp, channels))) - channels[int(y)])
        for channels, y in annotated(output, target, ignore)
    ) / int((~ignore).sum())
    assert named("ce")(output, target, ignore, positive_weight=weights).item() == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ModelError, match="loss.positive_weight has 2 weights for 4 classes; give one each"):
        named("ce")(output, target, ignore, positive_weight=[1.0, 2.0])
    with pytest.raises(ModelError, match=r"a mask has one loss.positive_weight, got \[1.0, 2.0\]"):
        named("bce")(*example(), positive_weight=[1.0, 2.0])


def test_a_class_without_a_channel_can_t_go_unnoticed():
    output, target, ignore = example("ce")
    target[~ignore] = CLASSES
    assert torch.isnan(named("ce")(output, target, ignore, positive_weight=1.0))


def test_an_unknown_loss_lists_the_known_ones():
    with pytest.raises(ModelError, match="one of bce, bce_dice, ce, .*, tversky, got 'rmse'"):
        losses.named("rmse")
    with pytest.raises(ModelError, match="got 'rmse'"):
        losses.chosen({"name": "bce", "terms": {"bce": 1.0, "rmse": 1.0}, **OPTIONS}, target="mask")


@pytest.mark.parametrize(
    ("name", "target", "message"),
    [
        ("mse", "mask", "'mse' learns real numbers .* target is a mask .*; use bce, bce_dice, cldice"),
        ("ce", "mask", "'ce' learns classes .* target is a mask"),
        ("bce", "numbers", "'bce' learns a mask .* target is real numbers .*; use huber, l1, mse"),
        ("dice", "classes", "'dice' learns a mask .* target is classes .*; use ce, class_dice"),
    ],
)
def test_a_loss_of_another_target_is_refused(name, target, message):
    with pytest.raises(ModelError, match=message):
        losses.chosen({"name": name, "terms": None}, target=target)


@pytest.mark.parametrize(("name", "channels"), [("ce", 1), ("bce", 3), ("mse", 2)])
def test_an_output_of_another_shape_is_refused(name, channels):
    output = torch.zeros(1, channels, 4, 4)
    target = torch.zeros(1, 1, 4, 4)
    with pytest.raises(ModelError, match=rf"learns .* got an output of shape \(1, {channels}, 4, 4\)"):
        named(name)(output, target, target.bool(), positive_weight=1.0)


def test_the_schema_offers_the_losses_of_masks(schema_of_models):
    loss = schema_of_models["properties"]["loss"]["properties"]
    assert sorted(loss["name"]["enum"]) == MASK_NAMES
    assert sorted(loss["terms"]["properties"]) == sorted(set(MASK_NAMES) - {"bce_dice"})
    made = config.check({}, schema_of_models["properties"]["loss"], name="loss")
    for name in MASK_NAMES:  # with the options that the schema fills in
        losses.chosen({**made, "name": name}, target="mask")


@pytest.fixture
def schema_of_models(pytestconfig):
    return config.read_yaml(pytestconfig.rootpath / "workflow" / "schemas" / "task.schema.yaml")["$defs"]["model"]
