"""Compiled loops work where no cache can be kept."""

import numba
import numpy as np

from voxloom.kernels import _keeps_code, compiled, prefetch


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


@compiled
def _sum_of(values, order):
    total = 0
    for k in range(order.size):
        prefetch(values, order[k] + 4)
        total += values[order[k]]
    return total


def test_fetching_ahead_becomes_an_instruction_and_changes_nothing():
    values, order = np.arange(50), np.random.default_rng(0).permutation(50)
    assert _sum_of(values, order) == values.sum()
    assert values.tolist() == list(range(50))
    anew = numba.njit(_sum_of._function)  # code that was kept can't be looked into
    anew(values, order)
    assert any("llvm.prefetch" in code for code in anew.inspect_llvm().values())
    assert prefetch(values, 60) is None


def test_machine_code_is_kept_until_any_file_with_kernels_changes(tmp_path):
    (tmp_path / "io" / "__pycache__").mkdir(parents=True)
    caller, callee = tmp_path / "caller.py", tmp_path / "callee.py"
    caller.write_text("@compiled\ndef a(): ...")
    callee.write_text("@compiled\ndef b(): ...")
    code = tmp_path / "io" / "__pycache__" / "caller.a-1.py311.1.nbc"

    def is_kept():
        code.touch()
        _keeps_code.cache_clear()
        assert _keeps_code(tmp_path)
        return code.is_file()

    assert not is_kept()  # whose it is isn't known
    assert is_kept()
    (tmp_path / "report.py").write_text("no kernels")
    assert is_kept()
    callee.write_text("@compiled\ndef b(): return 1")
    assert not is_kept()
    assert is_kept()
    assert not list(tmp_path.glob("__pycache__/kernels.[0-9]*"))


def test_machine_code_is_not_kept_in_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "__pycache__").write_text("not a folder")
    assert not _keeps_code(tmp_path)
