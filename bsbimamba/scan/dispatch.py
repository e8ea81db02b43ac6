"""Which backend scans what: availability, and the fastest of those that there are."""

import logging
import os
from collections.abc import Callable, Sequence
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
# What each needs. A package's Python half can be there without the compiled one.
_PACKAGES = {
    "triton": ("triton",),
    "mamba_ssm": ("mamba_ssm", "selective_scan_cuda"),
    "causal_conv1d": ("causal_conv1d", "causal_conv1d_cuda"),
}
# Looked up once, and before torch.compile could trace it. The packages are not imported.
INSTALLED = {k: all(find_spec(name) for name in names) for k, names in _PACKAGES.items()}
_logged: set[tuple[str, str]] = set()


def choose(backend: str, inputs: Inputs, want_last: bool = False) -> str:
    """Return the name of the backend to use.

    The environment variable BSBIMAMBA_SCAN stands in for "auto", whose choice is logged once.

    Raises:
        ValueError: `backend` cannot scan the inputs.
    """

    def reason(name: str) -> str | None:
        return why_not(name, inputs, want_last)

    origin = "backend"
    if backend == "auto" and os.environ.get(VARIABLE):
        backend, origin = os.environ[VARIABLE], f"the environment variable {VARIABLE}:"
    if backend != "auto":
        return checked(backend, BACKENDS, reason, "chunked", origin)
    device = inputs.u.device.type
    name = next(name for name in _FASTEST.get(device, ("chunked",)) if reason(name) is None)
    if (name, device) not in _logged and not torch.compiler.is_compiling():
        _logged.add((name, device))
        log.info("selective scan on %s: backend %s", device, name)
    return name


def checked(
    backend: str,
    known: Sequence[str],
    reason: Callable[[str], str | None],
    other: str,
    origin: str = "backend",
) -> str:
    """Return a backend that was asked for by name.

    Raises:
        ValueError: it is not known, or cannot run for a reason; the message proposes the `other`.
    """
    if backend not in known:
        raise ValueError(f"{origin} {backend!r} is not one of {', '.join(known)}, auto")
    why = reason(backend)
    if why is not None:
        raise ValueError(f"{origin} {backend!r} {why}. Use {other!r} or 'auto'.")
    return backend


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
    if device == "cuda" or (device == "cpu" and interpreted):
        return None
    return f"runs on a CUDA device, and u is on {u.device}"
