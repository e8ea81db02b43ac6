"""Counters of bytes, operators and launches, on computations whose counts are known."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable

import torch
from torch import nn

from benchmarks.counting import (
    PHASES,
    Clock,
    Operators,
    count_launches,
    peak_bytes,
    saved_bytes,
)

MIB = 2**20


def test_saved_bytes_leaves_out_parameters_and_arguments() -> None:
    linear, x = nn.Linear(100, 200), torch.randn(50, 100)
    assert saved_bytes(lambda: linear(x), [x]) == 0
    assert saved_bytes(lambda: linear(x).tanh(), [x]) == 4 * 50 * 200
    assert saved_bytes(lambda: linear(x)) == 4 * 50 * 100


def test_saved_bytes_leaves_out_views_of_parameters() -> None:
    linear, x = nn.Linear(100, 200), torch.randn(50, 100, requires_grad=True)
    assert saved_bytes(lambda: x @ linear.weight.mT, [x]) == 0
    assert saved_bytes(lambda: x @ linear.weight[:100].mT[:, 7:], [x]) == 0
    weight = linear.weight.detach()
    assert saved_bytes(lambda: x @ weight.mT, [x]) == 4 * 200 * 100  # not known to be a parameter
    assert saved_bytes(lambda: x @ weight.mT, [x, *linear.parameters()]) == 0


def test_saved_bytes_counts_a_tensor_of_two_nodes_once() -> None:
    x = torch.randn(1000, requires_grad=True)

    def forward() -> torch.Tensor:
        y = x.sin()
        return (y.square() + y.exp().neg()).sum()

    assert saved_bytes(forward, [x]) == 2 * 4000  # y, and what exp returns


def test_saved_bytes_counts_views_of_one_storage_once() -> None:
    x = torch.randn(1000, requires_grad=True)

    def forward() -> torch.Tensor:
        y = x.sin()
        return (y[:600] * y[400:]).sum()

    assert saved_bytes(forward, [x]) == 4000


def test_saved_bytes_is_zero_without_gradients() -> None:
    x = torch.randn(1000)
    assert saved_bytes(lambda: (x.sin() * x.exp()).sum()) == 0


def test_saved_bytes_leaves_nothing_behind() -> None:
    x = torch.randn(1000, requires_grad=True)
    alive = weakref.WeakSet()

    def forward() -> torch.Tensor:
        y = x.exp()  # saves its own output
        alive.add(y)
        return y.sum()

    assert saved_bytes(forward, [x]) == 4000
    gc.collect()
    assert not alive


def test_peak_bytes_is_the_most_at_once() -> None:
    def run() -> torch.Tensor:
        first = torch.zeros(3 * MIB // 4)
        second = torch.zeros(2 * MIB // 4)
        total = first.sum() + second.sum()
        del first
        return total + torch.zeros(MIB // 4).sum()

    assert 5 * MIB <= peak_bytes(run) <= 5 * MIB + 1000
    assert peak_bytes(lambda: None) == 0


def test_operators_count_forward_and_backward_but_no_views() -> None:
    x = torch.ones(3, requires_grad=True)

    def count(run: Callable[[], object]) -> int:
        with Operators() as counter:
            run()
        return counter.count

    assert count(lambda: x.sin().cos()) == 2
    assert count(lambda: x.view(3, 1).mT[0].sin()) == 1
    assert count(lambda: x.sin().backward(torch.ones(3))) == 4  # sin, ones, cos and a product


def test_launches_are_known_by_their_names() -> None:
    names = ["cudaLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch", "cudaMemcpyAsync", "mm"]
    assert count_launches(names) == 3


def test_clock_adds_up_phases() -> None:
    clock = Clock(torch.device("cpu"))
    clock.begin()
    for phase in ("data", "forward", "backward", "forward"):
        time.sleep(0.01)
        clock(phase)
    seconds = clock.end()
    assert seconds.keys() == {*PHASES, "step"}
    assert seconds["forward"] >= 0.02
    assert seconds["labels"] == 0
    assert sum(seconds[phase] for phase in PHASES) <= seconds["step"]
