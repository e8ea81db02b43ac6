"""What every backend of the scan promises to PyTorch and to its caller."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch
from scan_cases import NAMES, OPTIONAL, make_arguments, make_both, run
from torch import Tensor

from bsbimamba.scan import dispatch, scan_directions, selective_scan
from bsbimamba.scan.interface import SEQUENCES

FAST = ("chunked", "cpu")
ALL = ("reference", *FAST)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("absent", [(), OPTIONAL])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_operators_keep_torchs_contract(
    backend: str, absent: tuple[str, ...], dtype: torch.dtype
) -> None:
    """Schema, fake implementations, autograd registration and tracing, forward and backward."""
    stacked = {
        k: v.to(dtype if k in SEQUENCES else torch.float32)[None].requires_grad_()
        for k, v in make_arguments(2, 9, 6, 3).items()
    }
    tensors = [None if name in absent else stacked[name] for name in NAMES]
    operator = getattr(torch.ops.bsbimamba, f"scan_{backend}")
    torch.library.opcheck(operator, (*tensors, True, False, 4, True))
    detached = [None if x is None else x.detach() for x in tensors]
    out, last, borders = operator(*detached, True, False, 4, True)
    backward = getattr(torch.ops.bsbimamba, f"scan_{backend}_backward")
    for want_out in (False, True):
        given = (out, last, *detached, borders, True, False, 4, True, want_out)
        torch.library.opcheck(backward, given)


@pytest.mark.parametrize("backend", [*FAST, "auto"])
def test_compile_traces_through_without_a_graph_break(backend: str) -> None:
    arguments = {k: v.float() for k, v in make_both(2, 9, 6, 3).items()}

    def scan(u: Tensor) -> Any:
        return scan_directions(**{**arguments, "u": u}, delta_softplus=True, backend=backend)

    compiled = torch.compile(scan, backend="aot_eager", fullgraph=True)
    u = arguments["u"].requires_grad_()
    torch.testing.assert_close(compiled(u), scan(u))
    expected, got = (torch.autograd.grad(f(u).square().sum(), u) for f in (scan, compiled))
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("backend", FAST)
def test_backward_inside_autocast_is_in_full_precision(backend: str) -> None:
    arguments = make_arguments(2, 20, 70, 4)
    expected = run(arguments, torch.float32, backend)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = run(arguments, torch.float32, backend)
    assert all(torch.equal(got[name], expected[name]) for name in got)


@pytest.mark.parametrize("backend", [*ALL, "auto"])
@pytest.mark.parametrize(("b", "length", "d"), [(2, 0, 6), (0, 5, 6), (2, 5, 0)])
def test_an_empty_dimension_gives_an_empty_output_and_the_initial_state(
    b: int, length: int, d: int, backend: str
) -> None:
    arguments = {k: v.float() for k, v in make_arguments(b, length, d, 3).items()}
    out, last = selective_scan(**arguments, return_last_state=True, backend=backend)
    assert out.shape == (b, length, d)
    assert torch.equal(last, arguments["initial_state"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"B": torch.zeros(2, 9, 4)}, r"B has shape \(2, 9, 4\), expected \(b, l, n\): .*n = 3"),
        ({"D": torch.zeros(5)}, r"D has shape \(5,\), expected \(d\): d = 6"),
        ({"u": torch.zeros(9, 6)}, r"u has shape \(9, 6\), expected \(b, l, d\)"),
        ({"A": torch.zeros(6)}, r"A has shape \(6,\), expected \(d, n\): d = 6"),
        ({"C": torch.zeros(2, 9, 3, dtype=torch.long)}, r"C \(2, 9, 3\) has dtype torch.int64"),
        ({"z": torch.zeros(2, 9, 6, device="meta")}, r"z \(2, 9, 6\) is on meta, u is on cpu"),
        ({"chunk_size": 0}, "chunk_size is 0, expected a whole number"),
        ({"chunk_size": 1.5}, "chunk_size is 1.5"),
        ({"delta": None}, "delta is of type NoneType, expected a tensor"),
        ({"z": np.zeros((2, 9, 6))}, "z is of type ndarray, expected a tensor"),
        ({"D": torch.zeros(6).to_sparse()}, "D .* is torch.sparse_coo, expected a dense"),
        ({"A": torch.zeros(6, 0), "B": torch.zeros(2, 9, 0), "C": torch.zeros(2, 9, 0),
          "initial_state": None}, "at least one state"),
        ({"backend": "cuda"}, "backend 'cuda' is not one of"),
    ],
)  # fmt: skip
def test_an_argument_that_does_not_fit_is_named(change: dict, message: str) -> None:
    arguments = {k: v.float() for k, v in make_arguments(2, 9, 6, 3).items()}
    with pytest.raises(ValueError, match=message):
        selective_scan(**{**arguments, **change})


def test_auto_logs_its_choice_once(caplog: pytest.LogCaptureFixture) -> None:
    dispatch._logged.clear()
    arguments = {k: v.float() for k, v in make_arguments(1, 3, 4, 2).items()}
    with caplog.at_level(logging.INFO, logger="scan"):
        for _ in range(3):
            selective_scan(**arguments)
    assert [r.getMessage() for r in caplog.records] == ["selective scan on cpu: backend cpu"]


def test_auto_takes_what_can_compute_in_float64() -> None:
    arguments = make_arguments(1, 9, 4, 2)
    got, expected = (selective_scan(**arguments, backend=name) for name in ("auto", "reference"))
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_the_environment_stands_in_for_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = {k: v.float() for k, v in make_arguments(1, 70, 4, 2).items()}

    def scan(backend: str) -> Tensor:
        return selective_scan(**arguments, delta_softplus=True, backend=backend)

    monkeypatch.setenv("BSBIMAMBA_SCAN", "chunked")
    assert torch.equal(scan("auto"), scan("chunked"))
    assert not torch.equal(scan("cpu"), scan("chunked"))
    monkeypatch.setenv("BSBIMAMBA_SCAN", "fast")
    with pytest.raises(ValueError, match="variable BSBIMAMBA_SCAN: 'fast' is not one of reference"):
        selective_scan(**arguments)
    monkeypatch.setenv("BSBIMAMBA_SCAN", "mamba_ssm")
    with pytest.raises(ValueError, match="BSBIMAMBA_SCAN: 'mamba_ssm' needs the package mamba-ssm"):
        selective_scan(**arguments)


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        ("cpu", "'cpu' computes in float32, and u is float64. Use 'chunked'"),
        ("triton", "'triton' computes in float32"),
    ],
)
def test_an_explicit_backend_that_cannot_run_says_why(backend: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        selective_scan(**make_arguments(1, 3, 4, 2), backend=backend)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's own, in jvp
@pytest.mark.parametrize("backend", FAST)
def test_forward_mode_is_refused_not_zero(backend: str) -> None:
    arguments = {k: v.float() for k, v in make_arguments(1, 3, 4, 2).items()}

    def scan(u: Tensor) -> Any:
        return selective_scan(**{**arguments, "u": u}, delta_softplus=True, backend=backend)

    with pytest.raises(NotImplementedError, match="no forward-mode derivative"):
        torch.func.jvp(scan, (arguments["u"],), (arguments["u"],))


def test_triton_without_a_gpu_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    arguments = {k: v.float() for k, v in make_arguments(1, 3, 4, 2).items()}
    monkeypatch.setitem(dispatch.INSTALLED, "triton", True)
    with pytest.raises(ValueError, match="'triton' runs on a CUDA device, and u is on cpu"):
        selective_scan(**arguments, backend="triton")
    monkeypatch.setitem(dispatch.INSTALLED, "triton", False)
    with pytest.raises(ValueError, match="'triton' needs the package triton, which is not"):
        selective_scan(**arguments, backend="triton")


def test_the_wrong_number_of_directions_is_named() -> None:
    arguments = {k: v.float() for k, v in make_both(2, 9, 6, 3).items()}
    three = {k: torch.cat([v, v[:1]]) for k, v in arguments.items()}
    with pytest.raises(ValueError, match="u has 3 directions, expected 1 or 2"):
        scan_directions(**three)
    with pytest.raises(ValueError, match=r"D has shape \(6,\), expected \(r, d\)"):
        scan_directions(**{**arguments, "D": torch.zeros(6)})
