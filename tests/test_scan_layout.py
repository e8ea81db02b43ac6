"""Where a backend puts what it returns, and the output that its backward pass hands over."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scan_cases import TOLERANCE, make_both, make_convolution
from torch import Tensor

from bsbimamba.scan import causal_conv_silu
from bsbimamba.scan.api import scan_backward, scan_forward
from bsbimamba.scan.dispatch import VARIABLE
from bsbimamba.scan.interface import AS_U, SEQUENCES, Inputs, Options, Upstream
from bsbimamba.scan.layout import empty_as

BACKENDS = ("reference", "chunked", "cpu")
OPTIONS = Options(True, reverse=False, chunk_size=4, want_last=False)
# As rows of both directions side by side, by sequences and by steps, and as nothing of ours.
ORDERS = {"by sequences": (1, 2, 0, 3), "by steps": (2, 1, 0, 3), "channels first": (0, 1, 3, 2)}


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
@pytest.mark.parametrize("backend", ["chunked", "cpu"])
def test_operators_return_what_their_fakes_say(
    backend: str, dtype: torch.dtype, d: int, order: tuple[int, ...]
) -> None:
    check_fakes(backend, dtype, d, order)
    u = make_convolution(3, 10, d, 4, 2)
    u["u"] = laid_out(u["u"], order)
    tensors = [x.to(dtype) for x in u.values()]
    convolution = (*tensors, False, "cpu")
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
@pytest.mark.parametrize("backend", BACKENDS)
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


def test_the_output_is_handed_over_only_where_it_is_wanted() -> None:
    given = inputs((0, 1, 2, 3), 16, torch.float32)
    out, kept = scan_forward(given, OPTIONS)
    assert scan_backward(Upstream(out, None, False), given, kept, OPTIONS)[1].numel() == 0


@pytest.mark.parametrize("order", ORDERS.values(), ids=list(ORDERS))
def test_the_convolution_stays_where_it_is(order: tuple[int, ...]) -> None:
    given = inputs(order, 16, torch.float32)
    u = causal_conv_silu(given.u, torch.randn(2, 16, 4), torch.randn(2, 16))
    assert u.stride() == empty_as(given.u).stride()
