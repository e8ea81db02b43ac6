"""Which backend scans what: availability, and the fastest of those that there are."""

from __future__ import annotations

import logging
import os
from importlib.util import find_spec

import torch
from torch import Tensor

from bsbimamba.scan.interface import Inputs

log = logging.getLogger("scan")

BACKENDS = ("reference", "chunked", "cpu", "triton", "mamba_ssm")
VARIABLE = "BSBIMAMBA_SCAN"

# Fastest first, as measured by `python -m benchmarks.scan` (EXPERIMENTS.md). On a CPU "cpu" is the
# fastest from two to four steps on.
_FASTEST = {"cpu": ("cpu", "chunked"), "cuda": ("triton", "mamba_ssm", "chunked")}
# Looked up once, and before torch.compile could trace it. The packages are not imported.
INSTALLED = {
    name: find_spec(name) is not None
    for name in (
        "triton",
        "mamba_ssm",
        "selective_scan_cuda",
        "causal_conv1d",
        "causal_conv1d_cuda",
    )
}
_logged: set[tuple[str, str]] = set()


def choose(backend: str, inputs: Inputs, want_last: bool = False) -> str:
    """Return the name of the backend to use.

    The environment variable BSBIMAMBA_SCAN stands in for "auto", whose choice is logged once.

    Raises:
        ValueError: `backend` cannot scan the inputs.
    """
    origin = "backend"
    if backend == "auto" and os.environ.get(VARIABLE):
        backend, origin = os.environ[VARIABLE], f"the environment variable {VARIABLE}:"
    device = inputs.u.device.type
    if backend == "auto":
        order = _FASTEST.get(device, ("chunked",))
        name = next(name for name in order if why_not(name, inputs, want_last) is None)
        if (name, device) not in _logged and not torch.compiler.is_compiling():
            _logged.add((name, device))
            log.info("selective scan on %s: backend %s", device, name)
        return name
    if backend not in BACKENDS:
        raise ValueError(f"{origin} {backend!r} is not one of {', '.join(BACKENDS)}, auto")
    reason = why_not(backend, inputs, want_last)
    if reason is not None:
        raise ValueError(f"{origin} {backend!r} {reason}. Use 'chunked' or 'auto'.")
    return backend


def why_not(name: str, inputs: Inputs, want_last: bool = False) -> str | None:
    """Say why a backend cannot scan these inputs, to go behind its name; None where it can."""
    if name in ("reference", "chunked"):
        return None
    # The package's Python half can be there without the compiled one.
    packages = {"mamba_ssm": ("mamba_ssm", "selective_scan_cuda"), "triton": ("triton",)}
    reason = cannot_run(inputs.u, name, packages.get(name, ()))
    if reason is not None or name != "mamba_ssm":
        return reason
    if inputs.initial_state is not None:
        return "takes no initial_state"
    trained = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)
    return "has no gradient for the last state" if want_last and trained else None


def cannot_run(u: Tensor, name: str, packages: tuple[str, ...]) -> str | None:
    """Say why a backend that needs these packages cannot compute on u; None where it can."""
    if u.dtype == torch.float64:
        return "computes in float32, and u is float64"
    device = u.device.type
    if name == "cpu":
        return None if device == "cpu" else f"runs on a CPU, and u is on {u.device}"
    if not all(INSTALLED[package] for package in packages):
        return f"needs the package {name.replace('_', '-')}, which is not installed"
    if device == "cuda" or (name == "triton" and device == "cpu" and interpreted()):
        return None
    hint = " (TRITON_INTERPRET=1 tries it there)" if name == "triton" else ""
    return f"runs on a CUDA device, and u is on {u.device}{hint}"


def interpreted() -> bool:
    """Whether Triton's kernels run on the CPU, in its interpreter."""
    return os.environ.get("TRITON_INTERPRET") == "1"
