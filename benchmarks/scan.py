"""Compare the selective scan with the best public ones, side by side in one run.

    python -m benchmarks.scan [--device cpu|cuda] [--rounds N] [--loop] [--shape B L D N]
                              [--json FILE]

The references are mambapy's parallel scan in plain PyTorch and, on a GPU, mamba-ssm's kernel, if
their packages are installed; `--loop` adds the sequential loop that defines the scan. First, output
and gradients of every candidate are compared with that loop in float64 on a small case; a wrong one
is not timed. Then all are timed in turn, round by round, so that a change of the machine's speed
affects all of them. The medians are printed with their ratios to ours. The peak is that of the
forward and backward pass above the arguments, as PyTorch's allocator counts it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.counting import peak_bytes
from benchmarks.results import MIB, described, markdown, report
from bsbimamba.scan import scan_directions

# (sequences, length, width, states): one utterance of two seconds on a CPU, a batch of six on a
# GPU; 31 bands and 251 frames.
SHAPES = {
    "cpu": {"time path": (31, 251, 384, 16), "band path": (251, 31, 384, 16)},
    "cuda": {"time path": (186, 251, 384, 16), "band path": (1506, 31, 384, 16)},
}
OURS = {"cpu": "cpu", "cuda": "triton"}
LOOP = "sequential loop"
_PSCAN, _MAMBA = "mambapy pscan", "mamba-ssm with flips"
Shape = tuple[int, int, int, int]


class Case(NamedTuple):
    """Arguments of `scan.scan_directions`, as in the networks: (r, ...) for r directions."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor
    z: Tensor
    delta_bias: Tensor


def make_case(shape: Shape, directions: int, device: str, dtype: torch.dtype) -> Case:
    """Return a case as at the start of training: A, D and bias in float32, the rest in `dtype`."""
    b, length, d, n = shape
    r = directions
    torch.manual_seed(0)
    sequences = [torch.randn(r, b, length, size) for size in (d, d, n, n, d)]
    u, delta, B, C, z = (x.to(device, dtype) for x in sequences)
    A = -torch.arange(1, n + 1.0).repeat(r, d, 1)
    step = torch.exp(torch.rand(r, d) * 4.6 - 6.9)
    bias = step + torch.log(-torch.expm1(-step))
    return Case(u, 0.3 * delta, A.to(device), B, C, torch.ones(r, d).to(device), z, bias.to(device))


Scan = Callable[[list[Case]], list[Tensor]]


def ours(backend: str) -> Scan:
    """Return one of our backends, which scans all directions of a case at once."""
    return lambda cases: [
        scan_directions(**cases[0]._asdict(), delta_softplus=True, backend=backend)
    ]


def each_direction(scan: Callable[[Case], Tensor]) -> Scan:
    """Return a scan of several directions, by one that only scans from left to right.

    The second direction is flipped. The outputs (b, l, d) are not stacked, because that would not
    be the scan's own cost.
    """

    def run(cases: list[Case]) -> list[Tensor]:
        first, *second = cases
        flipped = [Case(*(x.flip(1) if x.dim() == 3 else x for x in case)) for case in second]
        return [scan(first), *(scan(case).flip(1) for case in flipped)]

    return run


def _pscan(case: Case) -> Tensor:
    """Run mambapy's parallel scan (alxndrTL/mamba.py) as its mambapy/mamba.py does."""
    from mambapy.pscan import pscan

    u, delta, A, B, C, D, z, bias = case
    step = F.softplus(delta + bias)
    decay = torch.exp(step[..., None] * A)
    states = pscan(decay, (step[..., None] * B[:, :, None]) * u[..., None])
    return ((states @ C[..., None].to(states.dtype)).squeeze(-1) + D * u) * F.silu(z)


def _mamba(case: Case) -> Tensor:
    """Run mamba-ssm's kernel on (b, d, l), without copies if memory has that order."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    u, delta, A, B, C, D, z, bias = (x.mT.contiguous() if x.dim() == 3 else x for x in case)
    return selective_scan_fn(u, delta, A, B, C, D, z, bias, delta_softplus=True).mT


def candidates(device: str) -> dict[str, Scan]:
    """Return the scans by name, slowest first; those whose package is not installed are missing."""
    found = {LOOP: ours("reference")}
    if find_spec("mambapy"):
        found[_PSCAN] = each_direction(_pscan)
    found["chunked"] = ours("chunked")
    if device == "cuda" and find_spec("selective_scan_cuda"):
        found[_MAMBA] = each_direction(_mamba)
    found[OURS[device]] = ours(OURS[device])
    return found


def arguments(name: str, case: Case) -> list[Case]:
    """Return the arguments of a candidate: all directions in one case, or one case for each.

    In mamba-ssm's sequences, time steps are adjacent in memory, as its own block makes them.
    """
    if name not in (_PSCAN, _MAMBA):
        return [case]
    if name == _MAMBA:
        case = Case(*(x.mT.contiguous().mT if x.dim() == 4 else x for x in case))
    return [Case(*(x[r] for x in case)) for r in range(len(case.u))]


def passes(
    scan: Scan, cases: list[Case], probe: Tensor | None = None
) -> tuple[list[Tensor], tuple[Tensor, ...]]:
    """Return the outputs and, where the output has a gradient `probe` (r, b, l, d), the gradients
    of all arguments, case by case."""
    if probe is None:
        with torch.no_grad():
            return scan(cases), ()
    cases = [Case(*(x.detach().requires_grad_() for x in case)) for case in cases]
    outputs = scan(cases)
    probes = [probe] if outputs[0].dim() == 4 else list(probe)
    return outputs, torch.autograd.grad(outputs, [x for case in cases for x in case], probes)


def error(name: str, scan: Scan, device: str, directions: int) -> float:
    """Return the largest relative error of output and gradients on a small case, against the loop
    in float64."""
    case = make_case((2, 70, 64, 16), directions, device, torch.float32)
    exact = [Case(*(x.double() for x in case))]
    probe = torch.randn(case.u.shape, dtype=torch.float64, device=device)
    expected, exact_gradients = passes(ours("reference"), exact, probe)
    outputs, gradients = passes(scan, arguments(name, case), probe.float())
    count = len(Case._fields)
    found = [outputs, *(gradients[place::count] for place in range(count))]
    errors = []
    for parts, y in zip(found, [expected[0], *exact_gradients], strict=True):
        x = parts[0] if parts[0].dim() == y.dim() else torch.stack(list(parts))
        errors.append((x - y).abs().max() / y.abs().max())
    return torch.stack(errors).max().item()


def timed(runs: dict[str, Callable], rounds: int, device: str) -> dict[str, float]:
    """Return the median seconds of each run, all taken in turn, the first round not counted."""
    once = _once_on_gpu if device == "cuda" else _once_on_cpu
    _, *times = [[once(run) for run in runs.values()] for _ in range(rounds + 1)]
    return dict(zip(runs, map(statistics.median, zip(*times, strict=True)), strict=True))


def _once_on_cpu(run: Callable) -> float:
    # Threads of OpenMP may spin for some milliseconds after a loop. They must not slow others.
    time.sleep(0.02)
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _once_on_gpu(run: Callable, repeats: int = 5) -> float:
    """Return the mean of a few runs in a row, by the GPU's clock.

    One run before them fills the queue, so that launches overlap with computation, as in training.
    """
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    run()
    begin.record()
    for _ in range(repeats):
        run()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1000 / repeats


def measure(device: str, shape: Shape, rounds: int, loop: bool) -> dict[str, dict[str, float]]:
    """Return seconds "forward" and "both" and bytes "peak" of all candidates that agree.

    One direction in float32 on a CPU, both in bfloat16 on a GPU. loop: the loop, too.
    """
    directions, dtype = (2, torch.bfloat16) if device == "cuda" else (1, torch.float32)
    case = make_case(shape, directions, device, dtype)
    probe = torch.randn_like(case.u)
    runs: dict[str, dict[str, Callable]] = {"forward": {}, "both": {}}
    found: dict[str, dict[str, float]] = {}
    for name, scan in candidates(device).items():
        if name == LOOP and not loop:
            continue
        wrong = error(name, scan, device, directions)
        if not wrong < 1e-4:
            print(f"{name}: relative error {wrong:.1e}: not timed")
            continue
        cases = arguments(name, case)
        both = partial(passes, scan, cases, probe)
        try:
            both()
            found[name] = {"peak": peak_bytes(both, torch.device(device))}
        except torch.OutOfMemoryError:
            print(f"{name}: more memory than there is")
            continue
        runs["forward"][name], runs["both"][name] = partial(passes, scan, cases), both
    for kind, each in runs.items():
        for name, seconds in timed(each, rounds, device).items():
            found[name][kind] = seconds
    return found


def table(found: dict[str, dict[str, float]], device: str) -> str:
    """Format the result of `measure` as a table."""
    base = found.get(OURS[device])
    rows = []
    for name, each in found.items():
        cells = [name]
        for kind in ("forward", "both"):
            ratio = f"{each[kind] / base[kind]:.2f}x" if base else ""
            cells += [f"{1e3 * each[kind]:.1f}", ratio]
        rows.append([*cells, f"{each['peak'] / MIB:.0f}"])
    head = ["", "forward (ms)", "of ours", "forward + backward (ms)", "of ours", "peak (MiB)"]
    return markdown(head, rows)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--device", choices=tuple(SHAPES), default="cpu")
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds (default: 7)")
    parser.add_argument("--loop", action="store_true", help="time the sequential loop too")
    parser.add_argument("--shape", nargs=4, type=int, metavar=("B", "L", "D", "N"),
                        help="sequences, length, width, states, instead of both paths")  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, too")
    options = parser.parse_args()
    device = options.device
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch sees no CUDA device here")
    shapes = {"shape": tuple(options.shape)} if options.shape else SHAPES[device]
    result, text = {}, ""
    for label, shape in shapes.items():
        found = measure(device, shape, options.rounds, options.loop)
        text += f"{label}, {'x'.join(map(str, shape))}\n\n{table(found, device)}\n"
        result[label] = {"shape": shape, "rows": found}
    head = described("scan", torch.device(device), rounds=options.rounds)
    report({**head, "shapes": result}, text, options.json)


if __name__ == "__main__":
    main()
