"""What every backend of the scan promises to PyTorch and to its caller, and where it puts it."""

import logging
from functools import cache
from typing import Any

import pytest
import torch
from scan_cases import (
    NAMES,
    OPTIONAL,
    TOLERANCE,
    check_contract,
    make_arguments,
    make_both,
    make_convolution,
    run,
)
from torch import Tensor

from bsbimamba.scan import dispatch, scan_directions, selective_scan
from bsbimamba.scan.api import scan_backward, scan_forward
from bsbimamba.scan.dispatch import VARIABLE
from bsbimamba.scan.interface import AS_U, SEQUENCES, Inputs, Options, Upstream
from bsbimamba.scan.layout import empty_as

FAST = ("chunked", "cpu")
ALL = ("reference", *FAST)
OPTIONS = Options(True, reverse=False, chunk_size=4, want_last=False)
# As rows of both directions side by side, by sequences and by steps, and as nothing of ours.
ORDERS = {"by sequences": (1, 2, 0, 3), "by steps": (2, 1, 0, 3), "channels first": (0, 1, 3, 2)}


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("absent", [(), OPTIONAL])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_operators_keep_torchs_contract(
    backend: str, absent: tuple[str, ...], dtype: torch.dtype
) -> None:
    stacked = {
        k: v.to(dtype if k in SEQUENCES else torch.float32)[None].requires_grad_()
        for k, v in make_arguments(2, 9, 6, 3).items()
    }
    check_contract(backend, [None if name in absent else stacked[name] for name in NAMES])


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
        ({"C": torch.zeros(2, 9, 3, dtype=torch.long)}, r"C \(2, 9, 3\) has dtype torch.int64"),
        ({"z": torch.zeros(2, 9, 6, device="meta")}, r"z \(2, 9, 6\) is on meta, u is on cpu"),
        ({"chunk_size": 0}, "chunk_size is 0, expected at least 1"),
        ({"delta": None}, "delta is of type NoneType, expected a tensor"),
        ({"backend": "cuda"}, "backend 'cuda' is not one of"),
    ],
)
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


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's own, in jvp
@pytest.mark.parametrize("backend", FAST)
def test_forward_mode_is_refused_not_zero(backend: str) -> None:
    arguments = {k: v.float() for k, v in make_arguments(1, 3, 4, 2).items()}

    def scan(u: Tensor) -> Any:
        return selective_scan(**{**arguments, "u": u}, delta_softplus=True, backend=backend)

    with pytest.raises(NotImplementedError, match="no forward-mode derivative"):
        torch.func.jvp(scan, (arguments["u"],), (arguments["u"],))


def test_an_explicit_backend_that_cannot_run_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    exact = make_arguments(1, 3, 4, 2)
    with pytest.raises(ValueError, match="'cpu' computes in float32, and u is float64"):
        selective_scan(**exact, backend="cpu")
    expected = selective_scan(**exact, backend="reference")
    torch.testing.assert_close(selective_scan(**exact), expected, rtol=1e-12, atol=1e-12)
    arguments = {k: v.float() for k, v in exact.items()}
    monkeypatch.setitem(dispatch.INSTALLED, "triton", True)
    with pytest.raises(ValueError, match="'triton' runs on a CUDA device, and u is on cpu"):
        selective_scan(**arguments, backend="triton")
    monkeypatch.setitem(dispatch.INSTALLED, "triton", False)
    with pytest.raises(ValueError, match="'triton' needs the package triton, which is not"):
        selective_scan(**arguments, backend="triton")


def test_triton_that_cannot_compile_is_left_out_with_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setenv("TRITON_INTERPRET", "1")  # a CPU does for a GPU
    monkeypatch.setitem(dispatch.INSTALLED, "triton", True)
    monkeypatch.setitem(dispatch._FASTEST, "cpu", ("triton", "chunked"))
    monkeypatch.setattr(dispatch, "_try_triton", cache(dispatch._try_triton.__wrapped__))
    monkeypatch.setattr(dispatch.triton, "backward", fail)
    monkeypatch.setattr(dispatch.triton, "forward", lambda *_: [None] * 3)
    arguments = {k: v.float() for k, v in make_arguments(1, 3, 4, 2).items()}
    compiled = torch.compile(selective_scan, backend="aot_eager", fullgraph=True)
    for scan in (compiled, selective_scan, selective_scan):
        assert torch.equal(scan(**arguments), selective_scan(**arguments, backend="chunked"))
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING] == [
        "Triton cannot run its kernels here: RuntimeError: Failed to find C compiler"
    ]
    with pytest.raises(ValueError, match="'triton' cannot run its kernels here: RuntimeError: F"):
        selective_scan(**arguments, backend="triton")


def test_the_wrong_number_of_directions_is_named() -> None:
    arguments = {k: v.float() for k, v in make_both(2, 9, 6, 3).items()}
    three = {k: torch.cat([v, v[:1]]) for k, v in arguments.items()}
    with pytest.raises(ValueError, match="u has 3 directions, expected 1 or 2"):
        scan_directions(**three)
    with pytest.raises(ValueError, match=r"D has shape \(6,\), expected \(r, d\)"):
        scan_directions(**{**arguments, "D": torch.zeros(6)})


def laid_out(x: Tensor, order: tuple[int, ...]) -> Tensor:
    """x with its dimensions in memory in that order."""
    back = [order.index(i) for i in range(4)]
    return x.permute(order).contiguous().permute(back)


def inputs(order: tuple[int, ...], d: int, dtype: torch.dtype) -> Inputs:
    arguments: dict[str, Any] = make_both(3, 10, d, 5)
    for name, x in arguments.items():
        x = x.to(dtype if name in SEQUENCES else torch.promote_types(dtype, torch.float32))
        arguments[name] = laid_out(x, order) if name in AS_U else x
    return Inputs(**arguments, initial_state=None)


@pytest.mark.parametrize("order", ORDERS.values(), ids=list(ORDERS))
@pytest.mark.parametrize("d", [6, 32])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backend", FAST)
def test_operators_return_what_their_fakes_say(
    backend: str, dtype: torch.dtype, d: int, order: tuple[int, ...]
) -> None:
    check_fakes(backend, dtype, d, order)
    u = make_convolution(3, 10, d, 4, 2)
    u["u"] = laid_out(u["u"], order)
    tensors = [x.to(dtype) for x in u.values()]
    convolution = (*tensors, False)
    operators = torch.ops.bsbimamba
    torch.library.opcheck(operators.conv_silu, convolution, test_utils="test_faketensor")
    torch.library.opcheck(
        operators.conv_silu_backward, (tensors[0], *convolution), test_utils="test_faketensor"
    )


def check_fakes(backend: str, dtype: torch.dtype, d: int, order: tuple[int, ...]) -> None:
    """Of both of a backend's operators."""
    given = inputs(order, d, dtype)
    operators = torch.ops.bsbimamba
    forward = getattr(operators, f"scan_{backend}")
    torch.library.opcheck(forward, (*given, *OPTIONS), test_utils="test_faketensor")
    out, _, kept = forward(*given, *OPTIONS)
    backward = getattr(operators, f"scan_{backend}_backward")
    arguments = (laid_out(out, order), None, *given, kept, *OPTIONS, True)
    torch.library.opcheck(backward, arguments, test_utils="test_faketensor")


@pytest.mark.parametrize("order", ORDERS.values(), ids=list(ORDERS))
@pytest.mark.parametrize("d", [6, 32])
@pytest.mark.parametrize("backend", ALL)
def test_no_value_depends_on_the_layout(
    backend: str, d: int, order: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, backend)
    check_values(d, order)
    # The CPU kernels walk through the very states of the forward pass.
    given = inputs(order, d, torch.float32)
    out, kept = scan_forward(given, OPTIONS)
    again = scan_backward(Upstream(out, None, True), given, kept, OPTIONS)[1]
    assert backend != "cpu" or torch.equal(again, out)


def check_values(d: int, order: tuple[int, ...]) -> None:
    """Of the backend that the environment names: whatever the layout, the same."""
    plain, turned = (inputs(how, d, torch.float32) for how in ((0, 1, 2, 3), order))
    probe = torch.randn(plain.u.shape)
    found = []
    for given, grad in ((plain, probe), (turned, laid_out(probe, order))):
        out, kept = scan_forward(given, OPTIONS)
        assert out.stride() == empty_as(given.u).stride()
        gradients, again = scan_backward(Upstream(grad, None, True), given, kept, OPTIONS)
        assert gradients.u.stride() == gradients.z.stride() == out.stride()
        torch.testing.assert_close(again, out)
        found.append([out, *(x for x in gradients if x is not None and x.numel())])
    for one, other in zip(*found, strict=True):
        error = (one - other).abs().max() / one.abs().max()
        assert error < TOLERANCE[torch.float32]
