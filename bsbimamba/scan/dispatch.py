"""Which backend scans what: availability, and the fastest of those that there are."""

import logging
import os
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from bsbimamba.scan.interface import Inputs, Options, Upstream
from bsbimamba.scan.triton import launch as triton

log = logging.getLogger("scan")

BACKENDS = ("reference", "chunked", "cpu", "triton", "mamba_ssm")
VARIABLE = "BSBIMAMBA_SCAN"

# Fastest first, as measured by `python -m benchmarks.scan` (EXPERIMENTS.md). On a CPU "cpu" is the
# fastest from two to four steps on.
_FASTEST = {"cpu": ("cpu", "chunked"), "cuda": ("triton", "mamba_ssm", "chunked")}
# Looked up once, and before torch.compile could trace it; of mamba-ssm its compiled half, without
# which the other can be there. The packages are not imported.
_NEEDED = {"triton": "triton", "mamba_ssm": "selective_scan_cuda"}
INSTALLED = {name: find_spec(package) is not None for name, package in _NEEDED.items()}
_logged: set[tuple[str, str]] = set()


def choose(backend: str, inputs: Inputs, want_last: bool = False) -> str:
    """Return the name of the backend to use.

    The environment variable BSBIMAMBA_SCAN stands in for "auto", whose choice is logged once.

    Raises:
        ValueError: `backend` is not known, or cannot scan the inputs.
    """
    origin = "backend"
    if backend == "auto" and os.environ.get(VARIABLE):
        backend, origin = os.environ[VARIABLE], f"the environment variable {VARIABLE}:"
    if backend != "auto":
        if backend not in BACKENDS:
            raise ValueError(f"{origin} {backend!r} is not one of {', '.join(BACKENDS)}, auto")
        why = why_not(backend, inputs, want_last)
        if why is not None:
            raise ValueError(f"{origin} {backend!r} {why}. Use 'chunked' or 'auto'.")
        return backend
    device = inputs.u.device.type
    able = (x for x in _FASTEST.get(device, ("chunked",)) if why_not(x, inputs, want_last) is None)
    name = next(able)
    if (name, device) not in _logged and not torch.compiler.is_compiling():
        _logged.add((name, device))
        log.info("selective scan on %s: backend %s", device, name)
    return name


def why_not(name: str, inputs: Inputs, want_last: bool = False) -> str | None:
    """Say why a backend cannot scan these inputs, to go behind its name; None where it can."""
    if name in ("reference", "chunked"):
        return None
    reason = cannot_run(inputs.u, name)
    if reason is not None or name != "mamba_ssm":
        return reason
    if inputs.initial_state is not None:
        return "takes no initial_state"
    trained = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)
    return "has no gradient for the last state" if want_last and trained else None


def cannot_run(u: Tensor, name: str) -> str | None:
    """Say why a backend with kernels of its own cannot compute on u; None where it can."""
    if u.dtype == torch.float64:
        return "computes in float32, and u is float64"
    device = u.device.type
    if name == "cpu":
        return None if device == "cpu" else f"runs on a CPU, and u is on {u.device}"
    if not INSTALLED[name]:
        return f"needs the package {name.replace('_', '-')}, which is not installed"
    # Triton's interpreter runs on a CPU.
    interpreted = name == "triton" and os.environ.get("TRITON_INTERPRET") == "1"
    if device != "cuda" and not (device == "cpu" and interpreted):
        return f"runs on a CUDA device, and u is on {u.device}"
    return triton_fails(device) if name == "triton" else None


@torch.compiler.assume_constant_result
def triton_fails(device: str) -> str | None:
    """Say why Triton cannot compile or start its kernels; None where it can."""
    return _try_triton(device)


@cache
def _try_triton(device: str) -> str | None:
    """Scan a single step. Triton may be installed and still fail, without a C compiler or with a
    driver that does not fit it, by exceptions of many types."""
    one = torch.ones(1, 1, 1, 1, device=device)
    inputs, options = Inputs(one, one, one[0], one, one), Options(True, False, 1, want_last=False)
    try:
        out, _, kept = triton.forward(inputs, options)
        triton.backward(Upstream(out, None, want_out=True), inputs, kept, options)
    except Exception as error:
        reason = f"cannot run its kernels here: {type(error).__name__}: {error}"
        log.warning("Triton %s", reason)
        return reason
    return None
