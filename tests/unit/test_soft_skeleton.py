"""The soft skeleton is the published one, of any dimension, and its gradient is the derivative."""

import numpy as np
import pytest
import torch

from voxloom.errors import ModelError
from voxloom.soft_skeleton import soft_skeleton


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("iterations", [3, 10])
def test_equals_the_published_one(golden, dimensions, iterations):
    reference = np.load(golden / "skeleton_metrics.npz")
    soft = torch.from_numpy(reference[f"soft{dimensions}"])[None, None]
    expected = reference[f"softskel{dimensions}_it{iterations}"]
    assert expected.max() > 0.5
    np.testing.assert_allclose(soft_skeleton(soft, iterations=iterations)[0, 0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1, 5, 6), (2, 1, 2, 3, 4), (1, 1, 1, 1, 2)])
def test_the_gradient_is_the_derivative(shape):
    generator = torch.Generator().manual_seed(3)
    # distinct values, for a minimum has a kink where two are equal
    soft = (torch.randperm(int(np.prod(shape)), generator=generator).reshape(shape) + 1.0).double() / 200
    soft.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: soft_skeleton(x, iterations=2), (soft,), eps=1e-7, atol=1e-5)


def test_a_bar_keeps_its_middle_row():
    bar = torch.zeros(1, 1, 7, 12)
    bar[..., 2:5, 2:10] = 1.0
    line = soft_skeleton(bar, iterations=2)[0, 0]
    assert line[3, 4:8].tolist() == [1.0] * 4
    assert line[[0, 1, 5, 6]].sum() == 0


def test_samples_and_channels_don_t_touch():
    soft = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    together = soft_skeleton(soft, iterations=3)
    for sample in range(2):
        for channel in range(3):
            alone = soft_skeleton(soft[sample, channel][None, None], iterations=3)[0, 0]
            assert torch.equal(together[sample, channel], alone)


def test_a_tensor_without_sample_and_channel_is_refused():
    with pytest.raises(ModelError, match=r"\(N, C, \[Z,\] Y, X\), got shape \(4, 5\)"):
        soft_skeleton(torch.zeros(4, 5), iterations=1)
