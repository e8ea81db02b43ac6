"""The Triton kernels of scan and convolution, in Triton's interpreter on a CPU.

Triton reads TRITON_INTERPRET when it is imported, so the tests run in a pytest process of their
own, which the first test here starts. On a GPU, `tests/test_gpu.py` runs the same kernels natively.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from scan_cases import (
    NAMES,
    OPTIONAL,
    assert_close,
    check_contract,
    check_every_entry_is_written,
    check_extreme_steps,
    check_nan,
    check_overflowing_decay,
    compare_convolution,
    make_arguments,
    make_both,
    run,
    run_both,
)
from test_scan_interface import ORDERS, check_fakes, check_values

from bsbimamba.scan import dispatch
from bsbimamba.scan.dispatch import VARIABLE

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

pytestmark = pytest.mark.skipif(
    not dispatch.INSTALLED["triton"],
    reason="triton is not installed (it has wheels for Linux only)",
)
interpreted = pytest.mark.skipif(
    not INTERPRETED, reason="runs in the process that test_in_the_interpreter starts"
)


@pytest.mark.skipif(INTERPRETED, reason="is itself what starts this process")
def test_in_the_interpreter() -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert finished.returncode == 0, finished.stdout[-10_000:] + finished.stderr[-2000:]
    assert " passed" in finished.stdout


def test_kernels_compile_for_the_cards_they_are_for() -> None:
    """For 8.6 (the 12 GB card) and 9.0, by the compiler, which needs no GPU: nothing goes through
    shared memory, the forward pass spills nothing, and only sums over lanes exchange."""
    if INTERPRETED:
        pytest.skip("the interpreter compiles nothing")
    code = (
        "from gpu_code import compile_kernel, resources\n"
        "for capability in (86, 90):\n"
        "    found = resources(compile_kernel('scan_forward', 'bf16', capability))\n"
        "    assert not any(found.values()), found\n"
        "found = resources(compile_kernel('scan_backward', 'bf16', 86))\n"
        "assert found['shared'] == 0 and found['exchanges'] == 9, found\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = str(ROOT / "tests/scan")
    finished = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]


@interpreted
@pytest.mark.parametrize("length", [1, 7, 31, 33])
def test_two_directions_against_the_oracle(length: int) -> None:
    """All gradients, a width that is no multiple of the block, several chunks, one launch."""
    arguments = make_both(1, length, 70, 3)
    expected = run_both(arguments, torch.float64, "reference", reverse=length == 31)
    got = run_both(arguments, torch.float32, "triton", reverse=length == 31, chunk_size=16)
    assert_close(got, expected, torch.float32)


@interpreted
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("absent", [(), OPTIONAL])
def test_states_and_optional_arguments(reverse: bool, absent: tuple[str, ...]) -> None:
    arguments = make_arguments(2, 19, 66, 2)
    for name in absent:
        del arguments[name]
    expected = run(arguments, torch.float64, "reference", reverse=reverse)
    got = run(arguments, torch.float32, "triton", reverse=reverse, chunk_size=16)
    assert_close(got, expected, torch.float32)


@interpreted
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    rounded = {k: v.to(dtype).double() for k, v in make_arguments(1, 9, 64, 2).items()}
    expected = run(rounded, torch.float64, "reference")
    assert_close(run(rounded, dtype, "triton"), expected, dtype)


@interpreted
def test_groups_of_sequences_sum_as_single_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program may take several sequences, one after the other."""
    from bsbimamba.scan.triton import launch

    arguments = make_arguments(5, 9, 64, 2)
    expected = run(arguments, torch.float64, "reference")
    monkeypatch.setattr(launch, "PROGRAMS", 2)
    assert_close(run(arguments, torch.float32, "triton"), expected, torch.float32)


@interpreted
@pytest.mark.parametrize(("block", "tile"), [(32, 16), (32, 4), (64, 1)])
def test_other_sizes_give_the_same(block: int, tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other blocks and tiles than the fastest, and a length and chunks that tiles do not fill."""
    from bsbimamba.scan.triton import launch

    for sizes in (launch.FORWARD, launch.BACKWARD):
        monkeypatch.setitem(sizes, "BLOCK", block)
        monkeypatch.setitem(sizes, "TILE", tile)
    arguments = make_arguments(1, 23, 70, 2)
    expected = run(arguments, torch.float64, "reference")
    assert_close(run(arguments, torch.float32, "triton", chunk_size=9), expected, torch.float32)


@interpreted
def test_every_entry_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    check_every_entry_is_written("triton", make_arguments(2, 19, 66, 2), monkeypatch)


@interpreted
@pytest.mark.parametrize("name", NAMES)
def test_a_nan_that_goes_in_comes_out(name: str) -> None:
    check_nan("triton", name, length=3)


@interpreted
@pytest.mark.parametrize("order", ORDERS.values(), ids=list(ORDERS))
def test_no_value_depends_on_the_layout(
    order: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "triton")
    check_values(6, order)
    check_fakes("triton", torch.float32, 6, order)


@interpreted
def test_operators_keep_torchs_contract() -> None:
    """Also for the smallest of shapes, whose views are contiguous as they are."""
    for length in (1, 5):
        x = make_arguments(1, length, 8, 2).values()
        check_contract("triton", [value.float()[None].requires_grad_() for value in x])


@interpreted
def test_a_decay_that_overflows_leaves_nothing_at_nothing() -> None:
    check_overflowing_decay("triton")


@interpreted
@pytest.mark.parametrize("delta", [-1e30, -1e4, 1e4, 1e30])
@pytest.mark.filterwarnings("ignore:overflow encountered")  # by numpy, in the interpreter
def test_extreme_step_sizes_give_no_nan(delta: float) -> None:
    check_extreme_steps("triton", delta)


@interpreted
@pytest.mark.parametrize("length", [1, 2, 3, 16, 19])
@pytest.mark.parametrize("reverse", [False, True])
def test_convolution(length: int, reverse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from bsbimamba.scan.triton import launch

    monkeypatch.setitem(launch._CONV, "SEGMENT", 16)  # of 64, the interpreter takes too long
    compare_convolution("triton", 1, length, 70, reverse=reverse)
    compare_convolution("triton", 1, length, 64, taps=2, reverse=reverse, dtype=torch.bfloat16)
