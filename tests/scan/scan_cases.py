"""Arguments for scan and convolution, and what a backend makes of them."""

from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bsbimamba.scan import convolution, scan_directions, selective_scan
from bsbimamba.scan.convolution import convolution_backward, convolution_forward

NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state")
OPTIONAL = ("D", "z", "delta_bias", "initial_state")
# Largest error relative to the largest entry. Float32 sums of up to 1000 rounded terms.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}


def make_arguments(b: int, length: int, d: int, n: int, seed: int = 0) -> dict[str, Tensor]:
    """float64 arguments in the range that a trained Mamba has."""
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    return {
        "u": normal(b, length, d),
        "delta": normal(b, length, d),
        "A": -torch.exp(normal(d, n)),
        "B": normal(b, length, n),
        "C": normal(b, length, n),
        "D": normal(d),
        "z": normal(b, length, d),
        "delta_bias": normal(d) - 2,
        "initial_state": normal(b, d, n),
    }


def make_both(b: int, length: int, d: int, n: int) -> dict[str, Tensor]:
    """Arguments for two directions."""
    one, other = (make_arguments(b, length, d, n, seed) for seed in (1, 2))
    return {k: torch.stack([one[k], other[k]]) for k in one if k != "initial_state"}


def probe(x: Tensor) -> Tensor:
    rng = torch.Generator().manual_seed(1)
    return torch.randn(x.shape, generator=rng, dtype=torch.float64)


def gradients(outputs: dict[str, Tensor], leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    """The outputs, and all gradients of a fixed scalar function of them."""
    loss = sum((x.double() * probe(x).to(x.device)).sum() for x in outputs.values())
    grads = torch.autograd.grad(loss, list(leaves.values()))  # type: ignore[arg-type]
    return {**outputs, **dict(zip(leaves, grads, strict=True))}


def leaves_of(arguments: dict[str, Tensor], dtype: torch.dtype | dict[str, torch.dtype]) -> dict:
    return {
        k: v.to(dtype[k] if isinstance(dtype, dict) else dtype).detach().requires_grad_()
        for k, v in arguments.items()
    }


def run(arguments: dict[str, Tensor], dtype: Any, backend: str, **options: Any) -> dict:
    """Outputs and gradients of a scan in one direction."""
    leaves = leaves_of(arguments, dtype)
    out, last = selective_scan(
        **leaves, delta_softplus=True, return_last_state=True, backend=backend, **options
    )
    return gradients({"out": out, "last": last}, leaves)


def run_both(arguments: dict[str, Tensor], dtype: Any, backend: str, **options: Any) -> dict:
    """Output and gradients of a scan in two directions at once."""
    leaves = leaves_of(arguments, dtype)
    out = scan_directions(**leaves, delta_softplus=True, backend=backend, **options)
    return gradients({"out": out}, leaves)


def assert_close(got: dict, expected: dict, dtype: torch.dtype) -> None:
    assert got.keys() == expected.keys()
    for name, value in got.items():
        reference = expected[name].double().cpu()
        assert value.shape == reference.shape, name
        error = (value.double().cpu() - reference).abs().max()
        scale = reference.abs().max()
        if name == "delta_bias" and "delta" in expected:  # a sum of those of delta: they may cancel
            scale = scale.maximum(expected["delta"].double().cpu().abs().sum((-3, -2)).max())
        error = error / scale.clamp_min(1e-30)
        assert error < TOLERANCE[dtype], f"{name}: relative error {error:.2e}"


def check_nan(backend: str, name: str, length: int = 9, device: str = "cpu") -> None:
    """A NaN in an argument comes out wherever the definition makes one, also in gradients."""
    arguments = make_arguments(1, length, 70, 3)
    arguments[name][(0,) * arguments[name].dim()] = torch.nan
    expected = run(arguments, torch.float64, "reference")
    got = run({k: v.to(device) for k, v in arguments.items()}, torch.float32, backend)
    assert got["out"].isnan().any()
    for label, value in got.items():
        assert (value.cpu().isnan() | ~expected[label].isnan()).all(), label
    found = [x for label, x in got.items() if label not in ("out", "last")]
    assert any(x.isnan().any() for x in found)


def check_extreme_steps(backend: str, delta: float, device: str = "cpu") -> None:
    """Steps far beyond what exp and softplus hold give no NaN."""
    arguments = {k: v.float().to(device) for k, v in make_arguments(1, 9, 70, 3).items()}
    arguments["delta"] = torch.full_like(arguments["delta"], delta)
    assert not selective_scan(**arguments, delta_softplus=True, backend=backend).isnan().any()  # type: ignore[union-attr]


def check_overflowing_decay(backend: str) -> None:
    """Without softplus a step can be negative: exp(-1000 A) is beyond every float, but not what is
    driven into the state in the first step."""
    arguments = make_arguments(2, 1, 40, 3)
    del arguments["initial_state"]
    arguments["delta"] = torch.full_like(arguments["delta"], -1e3)
    expected = selective_scan(**arguments, backend="chunked")
    out = selective_scan(**{k: v.float() for k, v in arguments.items()}, backend=backend)
    assert_close({"out": out}, {"out": expected}, torch.float32)


def check_contract(backend: str, tensors: list[Tensor | None], want_last: bool = True) -> None:
    """Schema, fake implementations, autograd registration and tracing, forward and backward."""
    operator = getattr(torch.ops.bsbimamba, f"scan_{backend}")
    backward = getattr(torch.ops.bsbimamba, f"scan_{backend}_backward")
    options = (True, False, 4, want_last)
    torch.library.opcheck(operator, (*tensors, *options))
    given = [None if x is None else x.detach() for x in tensors]
    out, last, kept = operator(*given, *options)
    upstream = (out, last if want_last else None)
    for want_out in (False, True):
        torch.library.opcheck(backward, (*upstream, *given, kept, *options, want_out))


def check_every_entry_is_written(
    backend: str, arguments: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left as `torch.empty` has made it."""
    expected = run(arguments, torch.float32, backend, chunk_size=16)
    empty = torch.empty

    def poisoned(*args: Any, **options: Any) -> Tensor:
        return empty(*args, **options).fill_(torch.nan)

    monkeypatch.setattr(torch, "empty", poisoned)
    got = run(arguments, torch.float32, backend, chunk_size=16)
    assert all(torch.equal(got[name], expected[name]) for name in got)


def definition(u: Tensor, weight: Tensor, bias: Tensor, reverse: bool) -> Tensor:
    """The convolution (b, l, d) by conv1d on (b, d, l), flipped where it looks ahead."""
    x = u.flip(1) if reverse else u
    padded = F.pad(x.transpose(1, 2), (weight.shape[1] - 1, 0))
    y = F.conv1d(padded, weight[:, None], bias, groups=len(weight)).transpose(1, 2)
    return F.silu(y.flip(1) if reverse else y)


def make_convolution(b: int, length: int, d: int, taps: int, directions: int) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(0)
    shapes = {"u": (b, length, d), "weight": (d, taps), "bias": (d,)}
    return {
        k: torch.randn(directions, *shape, generator=rng, dtype=torch.float64)
        for k, shape in shapes.items()
    }


def only(backend: str) -> Any:
    """Let the convolution be computed by this backend."""
    return patch.object(convolution, "_BACKENDS", {backend: convolution._BACKENDS[backend]})


def compare_convolution(
    backend: str,
    b: int,
    length: int,
    d: int,
    taps: int = 4,
    reverse: bool = False,
    directions: int = 2,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> None:
    """Output and all gradients of a backend against the definition in float64."""
    arguments = {
        k: v.to(dtype).double() for k, v in make_convolution(b, length, d, taps, directions).items()
    }
    leaves = leaves_of(arguments, torch.float64)
    ways = (reverse, not reverse)[:directions]
    parts = [definition(*(x[r] for x in leaves.values()), way) for r, way in enumerate(ways)]
    expected = gradients({"out": torch.stack(parts)}, leaves)
    given = {k: v.to(device, dtype) for k, v in arguments.items()}
    with only(backend):
        out = convolution_forward(*given.values(), reverse)
        found = convolution_backward(probe(out).to(out), *given.values(), reverse)
    assert out.dtype == dtype
    assert_close({"out": out, **dict(zip(given, found, strict=True))}, expected, dtype)
