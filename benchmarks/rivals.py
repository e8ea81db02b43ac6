"""The scans that ours is measured against, all with one signature.

Each takes the arguments of `Case` for one or two directions and returns the output (r, b, l, d).
None is part of the product: they are here so that a ratio is taken side by side in one run.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from scan import scan_directions


class Case(NamedTuple):
    """Arguments of `scan.scan_directions`, as the networks have them."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor
    z: Tensor
    delta_bias: Tensor

    def directions(self) -> list[Case]:
        """Those of each direction, without that dimension."""
        return [Case(*(x[r] for x in self)) for r in range(len(self.u))]


def make_case(
    shape: tuple[int, int, int, int], directions: int, device: str, dtype: torch.dtype
) -> Case:
    """u, delta, B, C and z of `dtype`, the rest in float32; as at the start of training."""
    b, length, d, n = shape
    r = directions
    torch.manual_seed(0)
    sequences = [torch.randn(r, b, length, size) for size in (d, d, n, n, d)]
    u, delta, B, C, z = (x.to(device, dtype) for x in sequences)
    A = -torch.arange(1, n + 1.0).repeat(r, d, 1)
    step = torch.exp(torch.rand(r, d) * 4.6 - 6.9)
    bias = step + torch.log(-torch.expm1(-step))
    return Case(u, 0.3 * delta, A.to(device), B, C, torch.ones(r, d).to(device), z, bias.to(device))


def as_mamba_lays_it_out(case: Case) -> Case:
    """The same with steps side by side, (b, d, l), as mamba-ssm's own block makes them."""
    return Case(*(x.mT.contiguous().mT if x.dim() == 4 else x for x in case))


def ours(backend: str) -> Callable[[Case], Tensor]:
    return lambda case: scan_directions(**case._asdict(), delta_softplus=True, backend=backend)


class EachDirection:
    """A scan from left to right, of one direction at a time; for the second one it is flipped.

    What is put together for it or taken apart would not be its own cost: it is given each direction
    by itself, and gives the output (b, l, d) of each.
    """

    def __init__(self, scan: Callable[..., Tensor]) -> None:
        self._scan = scan

    def __call__(self, cases: list[Case]) -> list[Tensor]:
        outputs = []
        for r, case in enumerate(cases):
            one = [x.flip(1) if r == 1 and x.dim() == 3 else x for x in case]
            y = self._scan(*one)
            outputs.append(y.flip(1) if r == 1 else y)
        return outputs


Scan = Callable[[Case], Tensor] | EachDirection


def _pscan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, bias: Tensor
) -> Tensor:
    """mambapy 1.2's parallel scan (alxndrTL/mamba.py), used as its mambapy/mamba.py uses it."""
    from mambapy.pscan import pscan

    step = F.softplus(delta + bias)
    decay = torch.exp(step[..., None] * A)
    states = pscan(decay, (step[..., None] * B[:, :, None]) * u[..., None])
    return ((states @ C[..., None].to(states.dtype)).squeeze(-1) + D * u) * F.silu(z)


@cache
def _compiled() -> Any:
    """The loop of avx2_scan.c; None where there is no compiler for it."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    source = Path(__file__).with_name("avx2_scan.c")
    flags = ["-O3", "-mavx2", "-mfma", "-fopenmp", "-shared", "-fPIC"]
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "avx2_scan.so"
        command = [compiler, *flags, str(source), "-o", str(target)]
        made = subprocess.run(command, capture_output=True, check=False)
        return ctypes.CDLL(str(target)) if made.returncode == 0 else None


def _avx2(case: Case) -> Tensor:
    """Forward only."""
    b, length, d = case.u.shape[1:]
    n = case.A.shape[2]
    a2 = (case.A[0].T * 1.4426950408889634).contiguous()
    out = torch.empty(1, b, length, d)
    tensors = (case.u, case.delta, a2, case.B, case.C, case.D, case.z, case.delta_bias, out)
    pointers = [ctypes.c_void_p(x.data_ptr()) for x in tensors]
    _compiled().avx2_scan(b, length, d, n, *pointers)
    return out


class _MambaKernel(torch.autograd.Function):
    """The compiled module of mamba-ssm 2.3 (`make bench-gpu-build`), on (b, d, l)."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Tensor:
        from benchmarks.build_mamba import load

        u, delta, A, B, C, D, z, bias = tensors
        out, states, gated = load().fwd(u, delta, A, B[:, None], C[:, None], D, z, bias, True)
        ctx.save_for_backward(*tensors, states, out)
        return gated

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        from benchmarks.build_mamba import load

        u, delta, A, B, C, D, z, bias, states, out = ctx.saved_tensors
        du, ddelta, dA, dB, dC, dD, dbias, dz, *_ = load().bwd(
            u, delta, A, B[:, None], C[:, None], D, z, bias, grad.contiguous(), states, out,
            None, True, False,
        )  # fmt: skip
        return du, ddelta, dA, dB[:, 0], dC[:, 0], dD, dz, dbias


def _mamba(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, bias: Tensor
) -> Tensor:
    # No copies: `as_mamba_lays_it_out` has been there before.
    turned = (x.transpose(1, 2).contiguous() for x in (u, delta, B, C, z))
    u, delta, B, C, z = turned
    return _MambaKernel.apply(u, delta, A, B, C, D, z, bias).transpose(1, 2)


def rivals(device: str) -> dict[str, Scan | str]:
    """By name, slowest first; a text instead of a function says why one is not measured."""
    if device == "cpu":
        loop = "no C compiler" if _compiled() is None else _avx2
        return {
            "sequential loop": ours("reference"),
            "mambapy pscan": EachDirection(_pscan),
            "chunked": ours("chunked"),
            "AVX2 loop in C": loop,
            "cpu": ours("cpu"),
        }
    from benchmarks.build_mamba import built

    kernel = EachDirection(_mamba) if built() else "make bench-gpu-build has not been run"
    return {
        "mambapy pscan": EachDirection(_pscan),
        "chunked": ours("chunked"),
        "mamba-ssm with flips": kernel,
        "triton": ours("triton"),
    }
