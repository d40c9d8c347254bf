"""A device and a number format are what was asked for, or an error; reproducibility is switched back off."""

import pytest
import torch

from voxloom import devices
from voxloom.errors import ModelError


def test_an_unknown_device_lists_the_known_ones():
    with pytest.raises(ModelError, match="one of auto, cpu, cuda, mps, got 'gpu'"):
        devices.choose_device("gpu")


def test_a_missing_device_is_refused_not_replaced(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match="'cuda' was asked for, but this machine has none.*set auto"):
        devices.choose_device("cuda")


def test_auto_prefers_cuda_then_mps_then_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert devices.choose_device("auto").type == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices.choose_device("auto").type == "mps"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert devices.choose_device("auto").type == "cpu"


@pytest.mark.parametrize(("native", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_precision_is_bfloat16_only_where_it_is_native(monkeypatch, native, dtype):
    monkeypatch.setattr(devices, "_has_native_bfloat16", lambda device: native)
    cpu = torch.device("cpu")
    assert devices.choose_precision("auto", cpu) == dtype
    assert devices.choose_precision("float32", cpu) == torch.float32
    assert devices.choose_precision("bfloat16", cpu) == torch.bfloat16


def test_an_unknown_precision_lists_the_known_ones():
    with pytest.raises(ModelError, match="one of auto, float32, bfloat16, got 'half'"):
        devices.choose_precision("half", torch.device("cpu"))


def test_what_reproducibility_sets_it_restores():
    before = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())
    with devices.reproducible(threads=1):
        assert torch.get_num_threads() == 1
        assert torch.are_deterministic_algorithms_enabled()
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before
