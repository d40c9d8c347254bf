"""A step takes the rate of its schedule and a gradient that isn't too long; the average of the weights follows."""

import numpy as np
import pytest
import torch
from torch import nn

from voxloom import optimisation
from voxloom.errors import ModelError
from voxloom.optimisation import Progress, WeightsAverage, build_optimiser, change_weights, learning_rate

SCHEDULE = {"factor_per_epoch": 1.0, "every_steps": 10, "factor": 0.1, "power": 0.9, "warmup_steps": 0}


def rate(name, *, highest=1.0, step=0, steps=104, epoch=0, time_share=0.0, **changes):
    settings = {"optimiser": {"learning_rate": highest}, "schedule": {**SCHEDULE, "name": name, **changes}}
    return learning_rate(settings, Progress(step, steps, epoch, time_share))


def weight(value, gradient):
    network = nn.Linear(1, 1, bias=False)
    network.weight.data.fill_(value)
    network.weight.grad = torch.full((1, 1), float(gradient))
    return network


def optimiser(network, name, **changes):
    keys = {"name": name, "learning_rate": 0.1, "weight_decay": 0.0, "momentum": 0.9, "nesterov": False, **changes}
    return build_optimiser({"optimiser": keys}, network)


def test_the_learning_rates_are_the_published_ones(golden):
    reference = np.load(golden / "formats_misc.npz")
    for name, highest, factor in (("lr_axon", 1e-2, 0.5), ("lr_vessel", 1e-3, 0.9)):
        rates = [rate("exponential", highest=highest, epoch=k, factor_per_epoch=factor) for k in range(10)]
        np.testing.assert_allclose(rates, reference[name], rtol=1e-6)


def test_cosine_rises_linearly_and_falls_to_nothing():
    rates = [rate("cosine", step=k, warmup_steps=4) for k in range(105)]
    np.testing.assert_allclose(rates[:5], [0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[54] == pytest.approx(0.5)
    assert rates[104] == pytest.approx(0.0, abs=1e-12)
    assert np.all(np.diff(rates[4:]) < 0)


def test_every_schedule_can_warm_up():
    for name in optimisation.SCHEDULES:
        assert rate(name, step=0, warmup_steps=4) == pytest.approx(0.2)
        assert rate(name, step=4, warmup_steps=4) == pytest.approx(1.0)


def test_polynomial_is_that_of_nnunet():
    for step in (0, 1, 50, 103):
        assert rate("polynomial", highest=0.01, step=step, steps=104) == pytest.approx(0.01 * (1 - step / 104) ** 0.9)


def test_step_falls_every_so_many_steps():
    rates = [rate("step", step=k, every_steps=10, factor=0.5) for k in (0, 9, 10, 19, 20)]
    assert rates == [1.0, 1.0, 0.5, 0.5, 0.25]


def test_the_deep_contextual_network_s_optimiser_is_the_published_one():
    """0.01, a tenth of it after every 2000 steps; v = 0.9 v + g + 5e-4 w, w = w - rate v (L2 on every weight)."""
    published = {"highest": 0.01, "steps": 6000, "every_steps": 2000, "factor": 0.1}
    rates = [rate("step", step=step, **published) for step in (0, 1999, 2000, 3999, 4000)]
    assert rates == pytest.approx([0.01, 0.01, 0.001, 0.001, 0.0001], rel=1e-12)
    network, velocity, expected = weight(2.0, gradient=0.5), 0.0, 2.0
    chosen = optimiser(network, "sgd", weight_decay=5e-4)
    for step in (1999, 2000):
        network.weight.grad = torch.full((1, 1), 0.5)
        change_weights(network, chosen, rate=rate("step", step=step, **published), longest=None)
        velocity = 0.9 * velocity + 0.5 + 5e-4 * expected
        expected -= (0.01 if step < 2000 else 0.001) * velocity
    assert float(network.weight.detach()) == pytest.approx(expected, rel=1e-6)


def test_a_spent_budget_ends_a_schedule_that_has_an_end():
    for name in ("cosine", "polynomial"):
        assert rate(name, step=1, time_share=1.0) == pytest.approx(0.0, abs=1e-12)
        assert rate(name, step=52, time_share=0.1) == rate(name, step=52)
    assert rate("constant", time_share=1.0) == 1.0


def test_coupled_weight_decay_is_added_to_the_gradient_and_decoupled_taken_off_the_weight():
    def after_a_step(name):
        network = weight(2.0, gradient=0.0)
        change_weights(network, optimiser(network, name, weight_decay=0.5), rate=0.1, longest=None)
        return float(network.weight.detach())

    assert after_a_step("adam") == pytest.approx(2.0 - 0.1)  # a step of Adam is the learning rate, whatever the decay
    assert after_a_step("adamw") == pytest.approx(2.0 - 0.1 * 0.5 * 2.0)
    assert after_a_step("sgd") == pytest.approx(2.0 - 0.1 * 0.5 * 2.0)


@pytest.mark.parametrize(("nesterov", "second"), [(False, 1.9), (True, 2.71)])
def test_sgd_has_momentum(nesterov, second):
    network = weight(0.0, gradient=1.0)
    chosen = optimiser(network, "sgd", nesterov=nesterov)
    change_weights(network, chosen, rate=0.1, longest=None)
    before = float(network.weight.detach())
    network.weight.grad = torch.ones(1, 1)
    change_weights(network, chosen, rate=0.1, longest=None)
    assert (before - float(network.weight.detach())) / 0.1 == pytest.approx(second, rel=1e-5)


def test_nesterov_without_momentum_is_refused():
    with pytest.raises(ModelError, match="optimiser.nesterov needs momentum.*set it to 0.9"):
        optimiser(weight(0.0, 1.0), "sgd", momentum=0.0, nesterov=True)


def test_a_long_gradient_is_shortened_and_its_length_told():
    network = weight(0.0, gradient=8.0)
    norm = change_weights(network, optimiser(network, "sgd", momentum=0.0), rate=1.0, longest=2.0)
    assert float(norm) == 8.0
    assert float(network.weight.detach()) == pytest.approx(-2.0, rel=1e-5)
    network = weight(0.0, gradient=1.5)
    change_weights(network, optimiser(network, "sgd", momentum=0.0), rate=1.0, longest=2.0)
    assert float(network.weight.detach()) == -1.5


def test_frozen_weights_are_not_the_optimiser_s():
    network = nn.Sequential(weight(1.0, 1.0), weight(2.0, 1.0))
    network[0].weight.requires_grad_(False)
    assert [len(group["params"]) for group in optimiser(network, "adam").param_groups] == [1]


def test_the_average_follows_weights_and_statistics_and_copies_counters():
    network = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    network[0].weight.data.fill_(0.0)
    average = WeightsAverage(network, decay=0.9)
    expected = 0.0
    for step in range(200):
        network[0].weight.data.fill_(float(step))
        network[1].running_mean.fill_(float(step))
        network[1].num_batches_tracked.fill_(step)
        average.update(network, step=step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    state = average.network.state_dict()
    assert float(state["0.weight"]) == pytest.approx(expected, rel=1e-5)
    assert float(state["1.running_mean"]) == pytest.approx(expected, rel=1e-5)
    assert int(state["1.num_batches_tracked"]) == 199
    assert float(network[0].weight.detach()) == 199.0
