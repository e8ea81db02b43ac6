"""What is compared side by side: checked against the oracle, then timed in turn, round by round."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from benchmarks.rivals import Case, EachDirection, Scan, make_case, ours


def passes(
    scan: Scan, case: Case, probe: Tensor | None = None
) -> tuple[list[Tensor], tuple[Tensor, ...]]:
    """The output, and the gradients where there is one for the output (`probe`); those of each
    direction where a scan takes one at a time."""
    cases = case.directions() if isinstance(scan, EachDirection) else [case]
    if probe is not None:
        cases = [Case(*(x.detach().requires_grad_() for x in one)) for one in cases]
    with torch.set_grad_enabled(probe is not None):
        outputs = scan(cases) if isinstance(scan, EachDirection) else [scan(cases[0])]
    if probe is None:
        return outputs, ()
    probes = list(probe) if isinstance(scan, EachDirection) else [probe]
    return outputs, torch.autograd.grad(outputs, [x for one in cases for x in one], probes)


def _whole(outputs: list[Tensor], gradients: tuple[Tensor, ...]) -> Iterator[Tensor]:
    """The output and the gradients of all directions, from what `passes` returns."""
    yield outputs[0] if outputs[0].dim() == 4 else torch.stack(outputs)
    count = len(Case._fields)
    for place in range(count if gradients else 0):
        parts = gradients[place::count]
        yield parts[0] if outputs[0].dim() == 4 else torch.stack(parts)


def parity(name: str, scan: Scan, device: str, directions: int, backward: bool) -> bool:
    """Whether a scan agrees with the oracle in float64 on a small case; prints where not."""
    case = make_case((2, 70, 64, 16), directions, device, torch.float32)
    exact = Case(*(x.double() for x in case))
    probe = torch.randn(exact.u.shape, dtype=torch.float64, device=device)
    expected = _whole(*passes(ours("reference"), exact, probe if backward else None))
    got = _whole(*passes(scan, case, probe.float() if backward else None))
    for label, x, y in zip(("output", *Case._fields), got, expected, strict=False):
        error = ((x - y).abs().max() / y.abs().max()).item()
        if not error < 1e-4:
            print(f"{name}: relative error {error:.1e} in {label}: not timed")
            return False
    return True


def timed(runs: dict[str, Callable], rounds: int, device: str) -> dict[str, float]:
    """Median seconds of each, taken in turn."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    once = _once_on_gpu if device == "cuda" else _once_on_cpu
    for turn in range(rounds + 1):
        for name, run in runs.items():
            seconds = once(run)
            if turn > 0:
                times[name].append(seconds)
    return {name: statistics.median(values) for name, values in times.items()}


def _once_on_cpu(run: Callable) -> float:
    # Threads of OpenMP spin for some milliseconds after each loop: those of one candidate must not
    # take the processors of the next.
    time.sleep(0.02)
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _once_on_gpu(run: Callable, repeats: int = 5) -> float:
    """Mean of a few in a row, by the card's own clock, the queue filled by one before them: as in
    training, launches overlap with computing wherever they are faster than that."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    run()
    begin.record()
    for _ in range(repeats):
        run()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1000 / repeats
