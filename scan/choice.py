"""Which backend scans what: availability, and the fastest of those that there are."""

from __future__ import annotations

import logging
import os
from importlib.util import find_spec

import torch
from numba import config
from torch import Tensor

from scan.interface import Inputs

log = logging.getLogger("scan")

BACKENDS = ("reference", "chunked", "cpu", "triton", "mamba_ssm")
VARIABLE = "BSBIMAMBA_SCAN"

# Fastest first. On a CPU "cpu" is the fastest from two to four steps on, for the lengths up to 4000
# that were measured (EXPERIMENTS.md, "The scan to the limit"; `python -m benchmarks.scan
# --loop --shape B L D N` measures it again). The order on a GPU is as measured on an H100
# (EXPERIMENTS.md, "first runs on a GPU").
_FASTEST = {"cpu": ("cpu", "chunked"), "cuda": ("triton", "mamba_ssm", "chunked")}


def choose(backend: str, inputs: Inputs, want_last: bool = False) -> str:
    """The name of the backend to use; raises ValueError where `backend` cannot scan the inputs.

    The environment variable BSBIMAMBA_SCAN stands in for "auto".
    """
    origin = "backend"
    if backend == "auto" and os.environ.get(VARIABLE):
        backend, origin = os.environ[VARIABLE], f"the environment variable {VARIABLE}:"
    device = inputs.u.device.type
    if backend == "auto":
        for name in _FASTEST.get(device, ()):
            if why_not(name, inputs, want_last) is None:
                return _announce(name, device)
        return _announce("chunked", device)
    if backend not in BACKENDS:
        raise ValueError(f"{origin} {backend!r} is not one of {', '.join(BACKENDS)}, auto")
    reason = why_not(backend, inputs, want_last)
    if reason is not None:
        raise ValueError(f"{origin} {backend!r} {reason}. Use 'chunked' or 'auto'.")
    return backend


def why_not(name: str, inputs: Inputs, want_last: bool = False) -> str | None:
    """Why a backend cannot scan these inputs, to go behind its name; None where it can."""
    if name in ("reference", "chunked"):
        return None
    # The package's Python half can be there without the compiled one.
    packages = ("mamba_ssm", "selective_scan_cuda") if name == "mamba_ssm" else (name,)
    reason = cannot_run(inputs.u, *packages)
    if reason is not None or name != "mamba_ssm":
        return reason
    if inputs.initial_state is not None:
        return "takes no initial_state"
    trained = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)
    if want_last and trained:
        return "has no gradient for the last state"
    return None


def cannot_run(u: Tensor, name: str, *others: str) -> str | None:
    """Why "cpu", or the packages of a GPU backend, cannot compute on u; None where they can."""
    if u.dtype == torch.float64:
        return "computes in float32, and u is float64"
    device = u.device.type
    if name == "cpu":
        if not compilable():
            return "needs numba's compiler, and NUMBA_DISABLE_JIT is set"
        return None if device == "cpu" else f"runs on a CPU, and u is on {u.device}"
    if not all(importable(package) for package in (name, *others)):
        return f"needs the package {name.replace('_', '-')}, which is not installed"
    if device == "cuda" or (name == "triton" and device == "cpu" and interpreted()):
        return None
    hint = " (TRITON_INTERPRET=1 tries it there)" if name == "triton" else ""
    return f"runs on a CUDA device, and u is on {u.device}{hint}"


_UNCOMPILED = bool(config.DISABLE_JIT)  # type: ignore[attr-defined]
# Looked up once, and before torch.compile could trace it.
_INSTALLED = {
    name: find_spec(name) is not None
    for name in ("triton", "mamba_ssm", "selective_scan_cuda", "causal_conv1d")
}


def importable(package: str) -> bool:
    """Whether one of the packages that a backend needs is installed; it is not imported."""
    return _INSTALLED[package]


def compilable() -> bool:
    """Whether numba compiles, and does not run its functions as plain Python."""
    return not _UNCOMPILED


def interpreted() -> bool:
    """Whether Triton's kernels run on the CPU, in its interpreter."""
    return os.environ.get("TRITON_INTERPRET") == "1"


_announced: set[tuple[str, str]] = set()


def _announce(name: str, device: str) -> str:
    """Log a choice once."""
    if (name, device) not in _announced and not torch.compiler.is_compiling():
        _announced.add((name, device))
        log.info("selective scan on %s: backend %s", device, name)
    return name
