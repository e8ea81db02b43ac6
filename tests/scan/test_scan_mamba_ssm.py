"""The backend "mamba_ssm".

The package does not run without a GPU. What is tested here is ours: layouts, directions, dtypes and
gradients on the way to it and back, with a stand-in that follows the package's documentation, for
(b, d, l) and one direction. `make bench-gpu` runs the package itself.
"""

import sys
import types
from typing import Any

import pytest
import torch
from scan_cases import assert_close, check_contract, make_both, run_both
from torch import Tensor

from bsbimamba.scan import chunked, dispatch, selective_scan
from bsbimamba.scan.interface import SEQUENCES, Inputs, Options


def selective_scan_fn(*arguments: Any, return_last_state: bool) -> Any:
    """The documented function: u, delta (b, d, l), A, B, C (b, n, l), D, z (b, d, l), delta_bias
    and delta_softplus. The kernel demands sequences of one dtype, steps side by side."""
    *tensors, softplus = arguments
    given = {k: x for k, x in zip(Inputs._fields, tensors, strict=False) if x is not None}
    sequences = [x for k, x in given.items() if k in SEQUENCES]
    assert len({x.dtype for x in sequences}) == 1
    assert all(x.stride(-1) == 1 for x in sequences)
    assert all(x.dtype == torch.float32 for k, x in given.items() if k not in SEQUENCES)
    assert return_last_state
    return _Scan.apply(softplus, *tensors)


class _Scan(torch.autograd.Function):
    """As in the package an autograd node of its own, which does not consider the gradient of the
    last state."""

    @staticmethod
    def forward(ctx: Any, softplus: bool, *tensors: Tensor | None) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(*tensors)
        ctx.options = Options(softplus, False, 64, True)
        out, last, ctx.kept = chunked.forward(time_major(tensors), ctx.options)
        return out.mT.to(tensors[0].dtype), last.float()  # type: ignore[union-attr]

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
        given = ctx.saved_tensors
        found = chunked.backward(grad.mT, None, time_major(given), ctx.kept, ctx.options)
        return None, *(
            None if x is None else (y.mT if x.dim() == 3 else y).to(x.dtype)  # type: ignore[union-attr]
            for x, y in zip(given, found, strict=False)
        )


def time_major(tensors: tuple[Tensor | None, ...]) -> Inputs:
    """The package's arguments as one direction's inputs, in float64."""
    return Inputs(*tensors).map(lambda k, x: (x.mT if k in SEQUENCES else x).double())  # type: ignore[arg-type]


@pytest.fixture
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in in the package's place, and a CPU that passes for the device it wants."""
    for name in ("mamba_ssm", "mamba_ssm.ops", "mamba_ssm.ops.selective_scan_interface"):
        module = types.ModuleType(name)
        module.selective_scan_fn = selective_scan_fn  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(dispatch, "why_not", lambda name, inputs, want_last=False: None)


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("absent", [(), ("D", "z", "delta_bias")])
def test_mamba_ssm_against_the_oracle(reverse: bool, absent: tuple[str, ...]) -> None:
    arguments = {k: v for k, v in make_both(2, 9, 6, 3).items() if k not in absent}
    expected = run_both(arguments, torch.float64, "reference", reverse=reverse)
    got = run_both(arguments, torch.float32, "mamba_ssm", reverse=reverse)
    assert_close(got, expected, torch.float32)
    one = {k: v[0] for k, v in arguments.items()}
    options: Any = {"reverse": reverse, "return_last_state": True}
    _, exact = selective_scan(**one, **options, backend="reference")
    one = {k: v.float() for k, v in one.items()}
    _, last = selective_scan(**one, **options, backend="mamba_ssm")
    assert_close({"last": last}, {"last": exact}, torch.float32)


def test_mamba_ssm_is_not_asked_for_what_it_cannot_do(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnGpu:
        dtype = torch.float32
        device = torch.device("cuda")
        requires_grad = True

    for package in dispatch.INSTALLED:
        monkeypatch.setitem(dispatch.INSTALLED, package, True)
    monkeypatch.setattr(dispatch, "triton_fails", lambda device: None)
    inputs: Any = Inputs(*[OnGpu()] * 8, None)
    assert dispatch.why_not("mamba_ssm", inputs) is None
    assert dispatch.choose("auto", inputs) == "triton"
    assert "last state" in str(dispatch.why_not("mamba_ssm", inputs, want_last=True))
    with_state = inputs._replace(initial_state=OnGpu())
    assert "initial_state" in str(dispatch.why_not("mamba_ssm", with_state))
    monkeypatch.setitem(dispatch.INSTALLED, "triton", False)
    assert dispatch.choose("auto", inputs) == "mamba_ssm"
    assert dispatch.choose("auto", with_state) == "chunked"


@pytest.mark.usefixtures("_installed")
def test_operators_keep_torchs_contract() -> None:
    arguments = {k: v.float().requires_grad_() for k, v in make_both(2, 5, 8, 3).items()}
    check_contract("mamba_ssm", [*arguments.values(), None], want_last=False)
