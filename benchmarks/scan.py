"""Compare the selective scan with the best public ones, side by side in one run.

    python -m benchmarks.scan [--device cpu|cuda]

The references are mambapy's parallel scan in plain PyTorch and, on a GPU, mamba-ssm's kernel, if
their packages are installed; on a CPU, also the sequential loop that defines the scan. First,
output and gradients of every candidate are compared with that loop in float64 on a small case; a
wrong one is not timed. The table has the medians of seven rounds in turn and their ratios to ours,
of the forward pass alone and with the backward pass, and on a GPU the peak memory of both.
"""

import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measuring import MIB, in_turn, machine, peak_bytes, seconds, table
from bsbimamba.scan import scan_directions

# (sequences, length, width, states): one utterance of two seconds on a CPU, a batch of six on a
# GPU; 31 bands and 251 frames.
SHAPES = {
    "cpu": {"time path": (31, 251, 384, 16), "band path": (251, 31, 384, 16)},
    "cuda": {"time path": (186, 251, 384, 16), "band path": (1506, 31, 384, 16)},
}
OURS = {"cpu": "cpu", "cuda": "triton"}
_PSCAN, _MAMBA = "mambapy pscan", "mamba-ssm with flips"
Shape = tuple[int, int, int, int]
Case = dict[str, Any]  # arguments of `scan.scan_directions`, (r, ...) for r directions
# From a case to outputs: of one direction, or ours of all, (r, ...).
Scan = Callable[..., Tensor]


def make_case(shape: Shape, directions: int, device: str, dtype: torch.dtype) -> Case:
    """Return a case as at the start of training: A, D and bias in float32, the rest in `dtype`."""
    (b, length, d, n), r = shape, directions
    torch.manual_seed(0)
    sizes = {"u": d, "delta": d, "B": n, "C": n, "z": d}
    case = {name: torch.randn(r, b, length, size).to(dtype) for name, size in sizes.items()}
    step = torch.exp(torch.rand(r, d) * 4.6 - 6.9)
    case["delta"] *= 0.3
    case["A"] = -torch.arange(1, n + 1.0).repeat(r, d, 1)
    case["D"] = torch.ones(r, d)
    case["delta_bias"] = step + torch.log(-torch.expm1(-step))
    return {name: x.to(device) for name, x in case.items()}


def ours(backend: str) -> Scan:
    """Return one of our backends, which scans all directions of a case at once."""
    return partial(scan_directions, delta_softplus=True, backend=backend)


def _pscan(u: Tensor, delta: Tensor, delta_bias: Tensor, **case: Tensor) -> Tensor:
    """Run mambapy's parallel scan (alxndrTL/mamba.py) as its mambapy/mamba.py does."""
    from mambapy.pscan import pscan

    step = F.softplus(delta + delta_bias)
    decay = torch.exp(step[..., None] * case["A"])
    states = pscan(decay, (step[..., None] * case["B"][:, :, None]) * u[..., None])
    read = (states @ case["C"][..., None].to(states.dtype)).squeeze(-1)
    return (read + case["D"] * u) * F.silu(case["z"])


def _mamba(**case: Tensor) -> Tensor:
    """Run mamba-ssm's kernel on (b, d, l), without copies if memory has that order."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    given = {name: x.mT.contiguous() if x.dim() == 3 else x for name, x in case.items()}
    return selective_scan_fn(**given, delta_softplus=True).mT


def candidates(device: str) -> dict[str, Scan]:
    """Return the scans by name, slowest first; a missing package is said on stderr."""
    found = {"sequential loop": ours("reference")} if device == "cpu" else {}
    public: dict[str, tuple[str, Scan]] = {_PSCAN: ("mambapy", _pscan)}
    if device == "cuda":
        public[_MAMBA] = ("selective_scan_cuda", _mamba)
    for name, (package, scan) in public.items():
        if find_spec(package):
            found[name] = scan
        else:
            print(f"{name}: {package} is not installed", file=sys.stderr)
    return found | {name: ours(name) for name in ("chunked", OURS[device])}


def arguments(name: str, case: Case) -> list[Case]:
    """Return the arguments of a candidate: all directions in one case, or one case for each.

    In mamba-ssm's sequences, time steps are adjacent in memory, as its own block makes them.
    """
    if name not in (_PSCAN, _MAMBA):
        return [case]
    if name == _MAMBA:
        case = {k: x.mT.contiguous().mT if x.dim() == 4 else x for k, x in case.items()}
    return [{k: x[r] for k, x in case.items()} for r in range(len(case["u"]))]


def outputs(scan: Scan, cases: list[Case]) -> list[Tensor]:
    """Return the outputs of each case. The second is the other direction, of a scan from left to
    right: it is flipped. They are not stacked, because that would not be the scan's own cost."""
    first, *second = cases
    flipped = [{k: x.flip(1) if x.dim() == 3 else x for k, x in y.items()} for y in second]
    return [scan(**first), *(scan(**case).flip(1) for case in flipped)]


def passes(scan: Scan, cases: list[Case], probe: Tensor) -> list[Tensor]:
    """Return the outputs and, from their gradients `probe` (r, b, l, d), those of the arguments:
    of each argument one for each case."""
    cases = [{k: x.detach().requires_grad_() for k, x in case.items()} for case in cases]
    found, leaves = outputs(scan, cases), [case[name] for name in cases[0] for case in cases]
    probes = [probe] if found[0].dim() == 4 else list(probe)
    return [*found, *torch.autograd.grad(found, leaves, probes)]


def error(name: str, scan: Scan, device: str, directions: int) -> float:
    """Return the largest relative error of output and gradients on a small case, against the loop
    in float64."""
    case = make_case((2, 70, 64, 16), directions, device, torch.float32)
    probe = torch.randn(case["u"].shape, dtype=torch.float64, device=device)
    exact = passes(ours("reference"), [{k: x.double() for k, x in case.items()}], probe)
    cases = arguments(name, case)
    found = passes(scan, cases, probe.float())
    each = zip(exact, *(found[i :: len(cases)] for i in range(len(cases))), strict=True)
    errors = [(torch.stack(x).view_as(y) - y).abs().max() / y.abs().max() for y, *x in each]
    return torch.stack(errors).max().item()


def measure(device: str, label: str, shape: Shape, rounds: int) -> Iterator[dict[str, Any]]:
    """Yield a row of the table for ours and each candidate that agrees.

    One direction in float32 on a CPU, both in bfloat16 on a GPU.
    """
    directions, dtype = (2, torch.bfloat16) if device == "cuda" else (1, torch.float32)
    case = make_case(shape, directions, device, dtype)
    probe = torch.randn_like(case["u"])
    runs: dict[tuple[str, str], Callable[[], float]] = {}
    peaks: dict[str, float | None] = {}
    for name, scan in candidates(device).items():
        if not (wrong := error(name, scan, device, directions)) < 1e-4:
            print(f"{name}: relative error {wrong:.1e}: not timed", file=sys.stderr)
            continue
        cases = arguments(name, case)
        both = partial(passes, scan, cases, probe)
        try:
            both()  # compiles kernels
            peaks[name] = peak_bytes(both) / MIB if device == "cuda" else None
        except torch.OutOfMemoryError:
            print(f"{name}: more memory than there is", file=sys.stderr)
            continue
        runs[name, "forward"] = partial(seconds, partial(outputs, scan, cases), device)
        runs[name, "with backward"] = partial(seconds, both, device)
    times = {run: median(found[1:]) for run, found in in_turn(runs, rounds + 1).items()}
    for name, peak in peaks.items():
        row: dict[str, Any] = {"scan": name, "of": f"{label}, {'x'.join(map(str, shape))}"}
        for kind in ("forward", "with backward"):
            row[f"{kind} (ms)"] = 1e3 * times[name, kind]
            row[f"{kind} of ours"] = times[name, kind] / times[OURS[device], kind]
        yield row | {"peak (MiB)": peak}


def main() -> None:
    """Run the command line."""
    parser = ArgumentParser(description="Compare the scan with the best public ones.")
    parser.add_argument("--device", choices=tuple(SHAPES), default="cpu")
    device = parser.parse_args().device
    rows = [row for shape in SHAPES[device].items() for row in measure(device, *shape, 7)]
    print(f"{table(rows)}\n{machine(device)}")


if __name__ == "__main__":
    main()
