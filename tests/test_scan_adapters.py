"""The adapters of mamba-ssm and causal-conv1d.

Neither package runs without a GPU. What is tested here is ours: layouts, directions, dtypes and
gradients on the way to them and back, with stand-ins that follow the packages' documentation, for
(b, d, l) and one direction. `make bench-gpu` runs the packages themselves.
"""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest
import torch
from convolution_cases import compare, definition
from scan_cases import assert_close, make_arguments, make_both, run, run_both
from torch import Tensor

from scan import choice, chunked, convolution, selective_scan
from scan.convolution_backends import ALL
from scan.interface import SEQUENCES, Inputs, Options


def check_sequences(*tensors: Tensor | None) -> None:
    """What mamba-ssm's kernel demands: one dtype, and steps side by side."""
    given = [x for x in tensors if x is not None]
    assert len({x.dtype for x in given}) == 1
    assert all(x.stride(-1) == 1 for x in given)


def selective_scan_fn(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Any:
    """The documented function: u, delta, z (b, d, l); B, C (b, n, l)."""
    check_sequences(u, delta, B, C, z)
    assert all(x is None or x.dtype == torch.float32 for x in (A, D, delta_bias))

    out, last = _Scan.apply(delta_softplus, u, delta, A, B, C, D, z, delta_bias)
    return (out, last) if return_last_state else out


class _Scan(torch.autograd.Function):
    """As in the package an autograd node of its own, which does not consider the gradient of the
    last state."""

    @staticmethod
    def forward(ctx: Any, softplus: bool, *tensors: Tensor | None) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(*tensors)
        ctx.options = Options(softplus, False, 64, True)
        out, last, ctx.kept = chunked.forward(stacked(tensors), ctx.options)
        return out[0].transpose(1, 2).to(tensors[0].dtype), last[0].float()  # type: ignore[union-attr]

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
        given = ctx.saved_tensors
        inputs = stacked(given)
        grad = grad.transpose(1, 2).double()[None]
        found = chunked.backward(grad, None, inputs, ctx.kept, ctx.options)
        return None, *(
            None if x is None else (y[0].transpose(1, 2) if name in SEQUENCES else y[0]).to(x.dtype)
            for name, x, y in zip(Inputs._fields[:-1], given, found, strict=False)
        )


def stacked(tensors: tuple[Tensor | None, ...]) -> Inputs:
    """The package's arguments as `scan.interface.Inputs` in float64."""
    named = dict(zip(Inputs._fields, (*tensors, None), strict=True))
    for name, x in named.items():
        if x is not None:
            named[name] = (x.transpose(1, 2) if name in SEQUENCES else x).double()[None]
    return Inputs(**named)  # type: ignore[arg-type]


def causal_conv1d_fn(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str | None = None
) -> Tensor:
    """The documented function: x (b, d, l), steps or channels side by side."""
    assert activation == "silu"
    assert 1 in (x.stride(1), x.stride(2))

    return _Convolution.apply(x, weight, bias)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        y = definition(x.transpose(1, 2).double(), weight.double(), bias.double(), False)
        return y.transpose(1, 2).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        x, weight, bias = ctx.saved_tensors
        given = (y.double()[None] for y in (grad.transpose(1, 2), x.transpose(1, 2), weight, bias))
        dx, dweight, dbias = ALL["torch"].backward(*given, False)
        return dx[0].transpose(1, 2).to(x.dtype), dweight[0].to(weight.dtype), dbias[0]


@pytest.fixture
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-ins in the packages' places, and a device that passes for the one they want."""
    for name in ("mamba_ssm", "mamba_ssm.ops", "mamba_ssm.ops.selective_scan_interface"):
        module = types.ModuleType(name)
        module.selective_scan_fn = selective_scan_fn  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, module)
    module = types.ModuleType("causal_conv1d")
    module.causal_conv1d_fn = causal_conv1d_fn  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "causal_conv1d", module)
    monkeypatch.setattr(choice, "why_not", lambda name, inputs, want_last=False: None)
    monkeypatch.setattr(convolution, "_why_not", lambda name, u, weight: None)


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("absent", [(), ("D", "z", "delta_bias")])
def test_mamba_ssm_in_one_direction(reverse: bool, absent: tuple[str, ...]) -> None:
    arguments = make_arguments(2, 9, 6, 3)
    for name in (*absent, "initial_state"):
        del arguments[name]
    options: dict[str, Any] = {"delta_softplus": True, "reverse": reverse}
    leaves = {k: v.float().requires_grad_() for k, v in arguments.items()}
    out, last = selective_scan(**leaves, **options, return_last_state=True, backend="mamba_ssm")
    exact = {k: v.requires_grad_() for k, v in arguments.items()}
    expected, expected_last = selective_scan(
        **exact, **options, return_last_state=True, backend="reference"
    )
    torch.testing.assert_close(last.double(), expected_last, rtol=1e-5, atol=1e-5)
    got = torch.autograd.grad(out.square().sum(), list(leaves.values()))
    wanted = torch.autograd.grad(expected.square().sum(), list(exact.values()))
    assert_close(
        {"out": out, **dict(zip(leaves, got, strict=True))},
        {"out": expected, **dict(zip(leaves, wanted, strict=True))},
        torch.float32,
    )


@pytest.mark.usefixtures("_installed")
def test_mamba_ssm_in_both_directions() -> None:
    arguments = make_both(2, 9, 6, 3)
    expected = run_both(arguments, torch.float64, "reference")
    assert_close(run_both(arguments, torch.float32, "mamba_ssm"), expected, torch.float32)
    half = dict.fromkeys(arguments, torch.float32) | dict.fromkeys(SEQUENCES, torch.bfloat16)
    got = run_both(arguments, half, "mamba_ssm")
    assert {k: v.dtype for k, v in got.items() if k != "out"} == half


@pytest.mark.usefixtures("_installed")
def test_mamba_ssm_has_no_gradient_for_the_last_state() -> None:
    arguments = make_arguments(1, 9, 6, 3)
    del arguments["initial_state"]
    with pytest.raises(ValueError, match="no gradient for the last state"):
        run(arguments, torch.float32, "mamba_ssm")


def test_mamba_ssm_is_not_asked_for_what_it_cannot_do(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnGpu:
        dtype = torch.float32
        device = torch.device("cuda")
        requires_grad = True

    monkeypatch.setattr(choice, "importable", lambda package: True)
    inputs: Any = Inputs(*[OnGpu()] * 8, None)
    assert choice.why_not("mamba_ssm", inputs) is None
    assert choice.choose("auto", inputs) == "triton"
    assert "last state" in str(choice.why_not("mamba_ssm", inputs, want_last=True))
    with_state = inputs._replace(initial_state=OnGpu())
    assert "initial_state" in str(choice.why_not("mamba_ssm", with_state))
    monkeypatch.setattr(choice, "importable", lambda package: package != "triton")
    assert choice.choose("auto", inputs) == "mamba_ssm"
    assert choice.choose("auto", with_state) == "chunked"


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize("reverse", [False, True])
def test_causal_conv1d(reverse: bool) -> None:
    compare("causal_conv1d", 2, 9, 8, reverse=reverse, directions=2)
    compare("causal_conv1d", 2, 9, 8, reverse=reverse, dtype=torch.bfloat16)


@pytest.mark.usefixtures("_installed")
def test_the_adapters_operators_keep_torchs_contract() -> None:
    arguments = {k: v.float().requires_grad_() for k, v in make_both(2, 5, 8, 3).items()}
    given = [*arguments.values(), None]
    operator = torch.ops.bsbimamba.scan_mamba_ssm
    torch.library.opcheck(operator, (*given, True, False, 4, False))
    detached = [None if x is None else x.detach() for x in given]
    out, _, kept = operator(*detached, True, False, 4, True)
    backward = torch.ops.bsbimamba.scan_mamba_ssm_backward
    torch.library.opcheck(backward, (out, None, *detached, kept, True, False, 4, False, True))
    u, weight, bias = arguments["u"], torch.randn(2, 8, 4), torch.randn(2, 8)
    torch.library.opcheck(torch.ops.bsbimamba.conv_silu, (u, weight, bias, True, "causal_conv1d"))
