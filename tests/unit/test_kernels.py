"""Compiled loops work where no cache can be kept."""

import numba
import numpy as np

from voxloom.kernels import compiled


def _double(values):
    for i in range(values.size):
        values[i] *= 2


def test_a_kernel_is_compiled_without_a_cache_where_no_folder_can_be_written(monkeypatch):
    njit, asked = numba.njit, []

    def refusing(*functions, cache=False, **options):
        if functions:  # numba's own use
            return njit(*functions, **options)
        asked.append(cache)
        if cache:
            raise RuntimeError("cannot cache function '_double': no locator available")
        return njit(**options)

    monkeypatch.setattr(numba, "njit", refusing)
    values = np.arange(3)
    compiled(_double)(values)
    assert values.tolist() == [0, 2, 4]
    assert asked == [True, False]


@compiled
def _plus_one(value):
    return value + 1


@compiled
def _add_ones(values):
    for i in range(values.size):
        values[i] = _plus_one(values[i])


def test_a_kernel_calls_kernels_that_were_never_called_from_python():
    values = np.arange(3)
    _add_ones(values)
    assert values.tolist() == [1, 2, 3]
