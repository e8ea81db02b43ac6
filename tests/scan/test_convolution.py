"""Mamba's short convolution with its SiLU, on a CPU."""

import sys
import types
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scan_cases import compare_convolution, make_convolution
from torch import Tensor

from bsbimamba.scan import causal_conv_silu, convolution

HERE = ("torch", "cpu")


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [1, 3, 4, 31, 251])
@pytest.mark.parametrize("backend", HERE)
def test_against_its_definition(backend: str, length: int, reverse: bool) -> None:
    compare_convolution(backend, 2, length, 70, reverse=reverse, directions=2)


@settings(max_examples=30, deadline=None)
@given(
    b=st.integers(1, 40),
    length=st.integers(1, 20),
    d=st.sampled_from([1, 15, 16, 17, 64]),
    taps=st.integers(1, 6),
    reverse=st.booleans(),
    directions=st.integers(1, 2),
    backend=st.sampled_from(HERE),
)
def test_any_size(
    b: int, length: int, d: int, taps: int, reverse: bool, directions: int, backend: str
) -> None:
    compare_convolution(backend, b, length, d, taps, reverse, directions)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_precisions(dtype: torch.dtype) -> None:
    compare_convolution("torch", 2, 20, 64, dtype=dtype)
    if dtype != torch.float64:
        compare_convolution("cpu", 2, 20, 64, dtype=dtype)
        return
    with pytest.raises(ValueError, match="'cpu' computes in float32, and u is float64"):
        compare_convolution("cpu", 2, 20, 64, dtype=dtype)


def test_operators_keep_torchs_contract() -> None:
    arguments = [x.float().requires_grad_() for x in make_convolution(2, 9, 20, 4, 2).values()]
    torch.library.opcheck(torch.ops.bsbimamba.conv_silu, (*arguments, False, "cpu"))
    given_ = [arguments[0].detach(), *(x.detach() for x in arguments)]
    torch.library.opcheck(torch.ops.bsbimamba.conv_silu_backward, (*given_, True, "cpu"))


def causal_conv1d_fn(x: Tensor, weight: Tensor, bias: Tensor, activation: str) -> Tensor:
    """A stand-in with the package's signature: x (b, d, l), whose rows lie in whole eights."""
    assert activation == "silu"
    assert x.stride(0) % 8 == x.stride(2) % 8 == 0
    padded = F.pad(x.float(), (weight.shape[1] - 1, 0))
    return F.silu(F.conv1d(padded, weight[:, None], bias, groups=len(weight))).to(x.dtype)


@pytest.mark.parametrize("reverse", [False, True])
def test_causal_conv1d(reverse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("causal_conv1d")
    module.causal_conv1d_fn = causal_conv1d_fn  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "causal_conv1d", module)
    monkeypatch.setattr(
        convolution, "cannot_run", lambda u, name: None if name == "causal_conv1d" else ""
    )
    compare_convolution("causal_conv1d", 2, 9, 8, reverse=reverse, directions=2)
    compare_convolution("causal_conv1d", 2, 9, 8, reverse=reverse, dtype=torch.bfloat16)
    with pytest.raises(
        ValueError, match="takes 2 to 4 taps and a width in whole eights, not 5 and 8"
    ):
        compare_convolution("causal_conv1d", 2, 9, 8, taps=5)
    monkeypatch.delattr(module, "causal_conv1d_fn")  # "auto" takes another
    compare_convolution("auto", 2, 9, 8)


def test_views_as_a_projection_gives_them() -> None:
    arguments = {k: v[0].float() for k, v in make_convolution(3, 9, 32, 4, 1).items()}
    u = torch.stack([arguments["u"], torch.full_like(arguments["u"], torch.nan)], 2)[:, :, 0]
    assert not u.is_contiguous()
    for backend in HERE:
        got = causal_conv_silu(u, arguments["weight"], arguments["bias"], backend=backend)
        assert torch.equal(got, causal_conv_silu(**arguments, backend=backend))


@pytest.mark.parametrize("backend", HERE)
@pytest.mark.parametrize("name", ["u", "weight", "bias"])
def test_a_nan_that_goes_in_comes_out(name: str, backend: str) -> None:
    arguments = {k: v[0].float() for k, v in make_convolution(1, 9, 20, 4, 1).items()}
    arguments[name][(0,) * arguments[name].dim()] = torch.nan
    assert causal_conv_silu(**arguments, backend=backend).isnan().any()


def test_an_empty_sequence_gives_an_empty_one() -> None:
    for shape in ((2, 0, 6), (0, 3, 6), (2, 3, 0)):
        u = torch.empty(shape)
        d = shape[-1]
        assert causal_conv_silu(u, torch.empty(d, 4), torch.empty(d)).shape == shape


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"u": torch.zeros(1, 2, 9, 6)}, r"weight has shape \(6, 4\), expected \(r, d, k\)"),
        ({"weight": torch.zeros(5, 4)}, r"weight has shape \(5, 4\), expected \(d, k\): d = 6"),
        ({"weight": torch.zeros(6, 0)}, r"weight has shape \(6, 0\), expected at least one tap"),
        ({"backend": "cuda"}, "backend 'cuda' is not one of cpu, triton, torch, causal_conv1d"),
        ({"backend": "causal_conv1d"}, "'causal_conv1d' needs the package causal-conv1d"),
    ],
)
def test_an_argument_that_does_not_fit_is_named(change: dict, message: str) -> None:
    arguments: dict[str, Any] = {
        "u": torch.zeros(2, 9, 6),
        "weight": torch.zeros(6, 4),
        "bias": torch.zeros(6),
    }
    with pytest.raises(ValueError, match=message):
        causal_conv_silu(**{**arguments, **change})
