"""Compare the selective scan with the best public ones, side by side in one run.

    python -m benchmarks.scan [--device cpu|cuda] [--rounds N] [--loop] [--shape B L D N]
                              [--json FILE]

The references are mambapy's parallel scan in plain PyTorch and, on a GPU, mamba-ssm's kernel, if
their packages are installed; `--loop` adds the sequential loop that defines the scan. First, output
and gradients of every candidate are compared with that loop in float64 on a small case; a wrong one
is not timed. The table has the medians of rounds in turn and their ratios to ours; "both" is the
forward and backward pass. The peak is that of both above the arguments.
"""

from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.counting import clock, peak_bytes
from benchmarks.results import MIB, command_line, in_turn, report, table
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
# From a case, or one for each direction, to outputs (r, b, l, d), or (b, l, d) of each direction.
Scan = Callable[[list[Case]], list[Tensor]]


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
    order = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
    return {name: case[name].to(device) for name in order}


def ours(backend: str) -> Scan:
    """Return one of our backends, which scans all directions of a case at once."""
    return lambda cases: [scan_directions(**cases[0], delta_softplus=True, backend=backend)]


def each_direction(scan: Callable[..., Tensor]) -> Scan:
    """Return a scan of several directions, by one that only scans from left to right.

    The second direction is flipped. The outputs are not stacked, because that would not be the
    scan's own cost.
    """

    def run(cases: list[Case]) -> list[Tensor]:
        first, *second = cases
        flipped = [{k: x.flip(1) if x.dim() == 3 else x for k, x in y.items()} for y in second]
        return [scan(**first), *(scan(**case).flip(1) for case in flipped)]

    return run


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


def candidates(device: str, loop: bool) -> dict[str, Scan]:
    """Return the scans by name, slowest first; those whose package is not installed are missing."""
    found = {"sequential loop": ours("reference")} if loop else {}
    if find_spec("mambapy"):
        found[_PSCAN] = each_direction(_pscan)
    found["chunked"] = ours("chunked")
    if device == "cuda" and find_spec("selective_scan_cuda"):
        found[_MAMBA] = each_direction(_mamba)
    return found | {OURS[device]: ours(OURS[device])}


def arguments(name: str, case: Case) -> list[Case]:
    """Return the arguments of a candidate: all directions in one case, or one case for each.

    In mamba-ssm's sequences, time steps are adjacent in memory, as its own block makes them.
    """
    if name not in (_PSCAN, _MAMBA):
        return [case]
    if name == _MAMBA:
        case = {k: x.mT.contiguous().mT if x.dim() == 4 else x for k, x in case.items()}
    return [{k: x[r] for k, x in case.items()} for r in range(len(case["u"]))]


def passes(scan: Scan, cases: list[Case], probe: Tensor | None = None) -> list[list[Tensor]]:
    """Return outputs and, where the output has a gradient `probe` (r, b, l, d), the gradients of
    each argument: a list for each, of one tensor (r, ...) or one for each direction."""
    if probe is None:
        with torch.no_grad():
            return [scan(cases)]
    cases = [{k: x.detach().requires_grad_() for k, x in case.items()} for case in cases]
    outputs, arguments = scan(cases), [x for case in cases for x in case.values()]
    probes = [probe] if outputs[0].dim() == 4 else list(probe)
    gradients = torch.autograd.grad(outputs, arguments, probes)
    return [outputs, *(list(gradients[place :: len(cases[0])]) for place in range(len(cases[0])))]


def error(name: str, scan: Scan, device: str, directions: int) -> float:
    """Return the largest relative error of output and gradients on a small case, against the loop
    in float64."""
    case = make_case((2, 70, 64, 16), directions, device, torch.float32)
    probe = torch.randn(case["u"].shape, dtype=torch.float64, device=device)
    exact = passes(ours("reference"), [{k: x.double() for k, x in case.items()}], probe)
    errors = []
    for parts, (y,) in zip(passes(scan, arguments(name, case), probe.float()), exact, strict=True):
        x = parts[0] if parts[0].dim() == y.dim() else torch.stack(parts)
        errors.append((x - y).abs().max() / y.abs().max())
    return torch.stack(errors).max().item()


def seconds(run: Callable[[], object], device: str) -> float:
    """Return the seconds of a run; on a GPU the mean of five in a row.

    There, one run before them fills the queue, so that launches overlap with computation, as in
    training.
    """
    read, less = clock(device)
    repeats = 5 if device == "cuda" else 1
    if repeats > 1:
        run()
    start = read()
    for _ in range(repeats):
        run()
    return less(read(), start) / repeats


def measure(device: str, shape: Shape, rounds: int, loop: bool) -> dict[str, dict[str, float]]:
    """Return seconds "forward" and "both" and bytes "peak" of all candidates that agree.

    One direction in float32 on a CPU, both in bfloat16 on a GPU. loop: the loop, too.
    """
    directions, dtype = (2, torch.bfloat16) if device == "cuda" else (1, torch.float32)
    case = make_case(shape, directions, device, dtype)
    probe = torch.randn_like(case["u"])
    runs: dict[tuple[str, str], Callable[[], float]] = {}
    found: dict[str, dict[str, float]] = {}
    for name, scan in candidates(device, loop).items():
        if not (wrong := error(name, scan, device, directions)) < 1e-4:
            print(f"{name}: relative error {wrong:.1e}: not timed")
            continue
        cases = arguments(name, case)
        both = partial(passes, scan, cases, probe)
        try:
            both()  # compiles kernels
            found[name] = {"peak": peak_bytes(both, device)}
        except torch.OutOfMemoryError:
            print(f"{name}: more memory than there is")
            continue
        runs[name, "forward"] = partial(seconds, partial(passes, scan, cases), device)
        runs[name, "both"] = partial(seconds, both, device)
    for (name, kind), (_, *times) in in_turn(runs, rounds + 1).items():  # the first warms up
        found[name][kind] = median(times)
    return found


def columns(found: dict[str, dict[str, float]], device: str) -> Iterator[dict[str, Any]]:
    """Yield a row of the table for each candidate in the result of `measure`."""
    base = found.get(OURS[device])
    for name, each in found.items():
        row: dict[str, Any] = {"scan": name}
        for kind in ("forward", "both"):
            row[f"{kind} (ms)"] = 1e3 * each[kind]
            row[f"{kind} of ours"] = each[kind] / base[kind] if base else None
        yield row | {"peak (MiB)": each["peak"] / MIB}


def main() -> None:
    """Run the command line."""
    parser = command_line(__doc__, rounds=7)
    parser.add_argument("--device", choices=tuple(SHAPES), default="cpu")
    parser.add_argument("--loop", action="store_true", help="time the sequential loop too")
    parser.add_argument("--shape", nargs=4, type=int, metavar=("B", "L", "D", "N"),
                        help="sequences, length, width, states, instead of both paths")  # fmt: skip
    options = parser.parse_args()
    device = options.device
    shapes = {"shape": tuple(options.shape)} if options.shape else SHAPES[device]
    result, text = {}, ""
    for label, shape in shapes.items():
        found = measure(device, shape, options.rounds, options.loop)
        text += f"{label}, {'x'.join(map(str, shape))}\n\n{table(columns(found, device))}\n"
        result[label] = {"shape": shape, "rows": found}
    report(text, options.json, torch.device(device), rounds=options.rounds, shapes=result)


if __name__ == "__main__":
    main()
