"""The selective scan side by side: our backends, the sequential loop, and the best public ones.

    python -m benchmarks.scan [--device cuda] [--rounds N] [--loop] [--without NAME ...]
                              [--json FILE]
    python -m benchmarks.scan --crossovers

First every backend is compared with the oracle in float64 on a small case, output and gradients;
what is wrong is not timed. Then all are timed in turn, round by round, so that a drift of the
machine meets all of them, and the medians are printed with their ratios to ours. Peak memory is
that of the forward and backward pass above the arguments, in a process of its own for a CPU.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.ceilings import (
    PRODUCTS_BACKWARD,
    PRODUCTS_FORWARD,
    bytes_per_second,
    cpu_products_per_second,
)
from benchmarks.results import described, save
from benchmarks.rivals import Case, as_mamba_lays_it_out, make_case, ours, rivals
from benchmarks.side_by_side import parity, passes, timed

# (sequences, length, width, states): one utterance of two seconds on a CPU, a batch of six on a
# GPU; 31 bands and 251 frames.
SHAPES = {
    "cpu": {"time path": (31, 251, 384, 16), "band path": (251, 31, 384, 16)},
    "cuda": {"time path": (186, 251, 384, 16), "band path": (1506, 31, 384, 16)},
}
OURS = {"cpu": "cpu", "cuda": "triton"}


def case_of(name: str, device: str, shape: str) -> Case:
    """One candidate's arguments: float32, one direction on a CPU; bfloat16, both on a GPU."""
    directions, dtype = (2, torch.bfloat16) if device == "cuda" else (1, torch.float32)
    case = make_case(SHAPES[device][shape], directions, device, dtype)
    return as_mamba_lays_it_out(case) if name.startswith("mamba-ssm") else case


# Linux: a new process begins with the high-water mark of the one that started it; this clears it.
_CLEAR = Path("/proc/self/clear_refs")


def peak_bytes(name: str, shape: str, device: str) -> float:
    """Above what the arguments take, forward and backward; NaN where it cannot be told."""
    if device == "cpu":
        if not _CLEAR.exists():
            return math.nan
        command = [sys.executable, "-m", "benchmarks.scan", "--memory-of", name, shape]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    scan, case = rivals(device)[name], case_of(name, device, shape)
    probe = torch.randn_like(case.u)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    passes(scan, case, probe)  # type: ignore[arg-type]
    return torch.cuda.max_memory_allocated() - before


def print_cpu_peak(name: str, shape: str) -> None:
    scan = rivals("cpu")[name]
    small = make_case((1, 9, 64, 16), 1, "cpu", torch.float32)
    passes(scan, small, torch.ones_like(small.u))  # type: ignore[arg-type]  # compiles
    case = case_of(name, "cpu", shape)
    probe = torch.randn_like(case.u)
    _CLEAR.write_text("5")
    before = resident("VmRSS")
    passes(scan, case, probe)  # type: ignore[arg-type]
    print(resident("VmHWM") - before)


def resident(field: str) -> int:
    """Bytes of this process in memory: VmRSS now, VmHWM at most."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split(f"{field}:")[1].split()[0])


def measure(
    device: str, shape: str, rounds: int, left_out: list[str], backward: bool
) -> dict[str, float]:
    """Median seconds of all candidates that can run and agree with the oracle."""
    runs: dict[str, Callable] = {}
    for name, scan in rivals(device).items():
        if isinstance(scan, str) or (backward and name == "AVX2 loop in C"):
            continue
        if name in left_out:
            continue
        case = case_of(name, device, shape)
        if parity(name, scan, device, len(case.u), backward):
            probe = torch.randn_like(case.u) if backward else None
            run = partial(passes, scan, case, probe)
            try:
                run()
            except torch.OutOfMemoryError:
                print(f"{name}: more memory than there is")
                continue
            runs[name] = run
    return timed(runs, rounds, device)


def compare(device: str, shape: str, rounds: int, left_out: list[str]) -> dict[str, Any]:
    """Print one shape's table; what is in it, for a file: seconds and bytes, or why there are none.

    A time that is missing was not measured.
    """
    case = case_of(OURS[device], device, shape)
    size = "x".join(map(str, SHAPES[device][shape]))
    print(f"\n{shape}, {size}, {len(case.u)} direction(s), {case.u.dtype}")
    forward, both = (measure(device, shape, rounds, left_out, back) for back in (False, True))
    print(f"{'':22}{'forward':>12}{'ratio':>8}{'forward+backward':>19}{'ratio':>8}{'peak':>11}")
    found: dict[str, Any] = {}
    for name, scan in rivals(device).items():
        if isinstance(scan, str):
            print(f"{name:22}not measured: {scan}")
            found[name] = {"reason": scan}
        if isinstance(scan, str) or name in left_out:
            continue
        row = f"{name:22}"
        found[name] = {"forward": forward.get(name), "both": both.get(name), "peak": None}
        for results, places in ((forward, 12), (both, 19)):
            if name in results:
                ratio = results[name] / results[OURS[device]]
                row += f"{1e3 * results[name]:{places - 3}.1f} ms{ratio:7.2f}x"
            else:
                row += f"{'-':>{places}}{'':8}"
        if name in both:
            peak = peak_bytes(name, shape, device)
            found[name]["peak"] = peak if math.isfinite(peak) else None
            row += f"{peak / 2**20:7.0f} MiB"
        print(row)
    ceilings = report_ceilings(device, case, forward[OURS[device]], both[OURS[device]])
    about = {"size": size, "directions": len(case.u), "dtype": str(case.u.dtype)}
    return {**about, "rows": found, "ceilings": ceilings}


def report_ceilings(device: str, case: Case, forward: float, both: float) -> dict[str, float]:
    """Print counted bytes and, on a CPU, products, and their shares of the machine's best rates.

    Returns the shares of a copy's rate, by pass.
    """
    states = case.u.numel() * case.A.shape[2]
    small = case.B.nbytes + case.C.nbytes
    # Forward reads u, delta, z and writes the output; backward reads those and the output's
    # gradient, and writes three gradients. B, C and theirs besides; borders are left out.
    moved = (4 * case.u.nbytes + small, 7 * case.u.nbytes + 2 * small)
    rate = bytes_per_second(device)
    shares = {}
    for label, seconds, moving, products in (
        ("forward", forward, moved[0], PRODUCTS_FORWARD),
        ("backward", both - forward, moved[1], PRODUCTS_BACKWARD),
    ):
        shares[label] = moving / rate / seconds
        line = f"{label}: {moving / 2**20:.0f} MiB, {shares[label]:.0%} of a copy's rate"
        if device == "cpu":
            share = products * states / cpu_products_per_second() / seconds
            line += f"; {products * states / 1e9:.2f} G products, {share:.0%} of the peak"
        print(line)
    return shares


def crossovers() -> None:
    """Where one CPU backend overtakes another: forward and backward, by length and batch."""
    print(f"{'batch':>6}{'length':>8}{'reference':>12}{'chunked':>12}{'cpu':>12}  milliseconds")
    for b in (1, 31):
        for length in (1, 2, 4, 8, 16, 64, 251, 1000, 4000):
            if b * length > 8000:
                continue
            case = make_case((b, length, 384, 16), 1, "cpu", torch.float32)
            probe = torch.ones_like(case.u)
            names = ["chunked", "cpu"] if b * length > 500 else ["reference", "chunked", "cpu"]
            runs = {
                name: lambda name=name, x=case, g=probe: passes(ours(name), x, g) for name in names
            }
            found = timed(runs, 3, "cpu")
            cells = (
                f"{1e3 * found[name]:12.2f}" if name in found else f"{'-':>12}"
                for name in ("reference", "chunked", "cpu")
            )
            print(f"{b:6}{length:8}{''.join(cells)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds (default: 7)")
    parser.add_argument("--loop", action="store_true", help="time the sequential loop too")
    parser.add_argument("--without", nargs="+", default=[], metavar="NAME", help="leave out")
    parser.add_argument("--crossovers", action="store_true", help="compare by length instead")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, too")
    parser.add_argument("--memory-of", nargs=2, metavar=("NAME", "SHAPE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    left_out = arguments.without + ([] if arguments.loop else ["sequential loop"])
    if arguments.rounds < 1:
        parser.error("--rounds must be at least 1")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch sees no CUDA device here")
    if arguments.memory_of:
        print_cpu_peak(*arguments.memory_of)
    elif arguments.crossovers:
        crossovers()
    else:
        print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
        if arguments.device == "cuda":
            print(torch.cuda.get_device_name(), torch.cuda.get_device_capability())
        device, rounds = arguments.device, arguments.rounds
        shapes = {shape: compare(device, shape, rounds, left_out) for shape in SHAPES[device]}
        head = described("scan", torch.device(device), rounds=rounds, ours=OURS[device])
        save(arguments.json, {**head, "shapes": shapes})


if __name__ == "__main__":
    main()
