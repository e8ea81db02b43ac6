"""Measure on a GPU how fast training steps are, and why, and write the figures as a page.

    python -m benchmarks.gpu [--minutes 6] [--page FILE] [--device cuda|cpu]

The most important is measured first. A measurement only begins if as much time is left as the
longest before it took. What was not measured is not listed. What fails is left out and said on
stderr, and the exit status is then 1; a package that is not installed is no failure. On a CPU
smaller sizes are taken, to try the command.
"""

import gc
import shlex
import sys
import time
import traceback
from argparse import ArgumentParser
from bisect import bisect
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks import scan, step
from benchmarks.measuring import MIB, machine, seconds, table
from benchmarks.step import Candidate, Measured, noise
from bsbimamba.training.precision import Precision
from bsbimamba.utils import ROOT, write_text

Row = dict[str, Any]
Rows = dict[str, list[Row]]  # of each part of the page


class Sizes(NamedTuple):
    """What is measured. networks: the two that matter most come first."""

    networks: tuple[str, ...] = ("abl3", "baseline", "abl1", "abl2")
    batches: tuple[int, ...] = (6, 32)
    crop: float = 2.0  # seconds
    scans: dict[str, scan.Shape] = scan.SHAPES["cuda"]
    limit: int = 11 * 2**30  # bytes; CUDA, its kernels and a desktop need another GiB
    tried: range = range(2, 257, 2)  # among them is the largest batch


SMALL = Sizes(("abl1",), (1, 2), 0.25, {"small": (2, 9, 32, 4)}, 400 * MIB, range(1, 5))
ROUNDS = 3
# Of each part of the page, in its order: title, and what is in the table.
PARTS = {
    "steps": ("A training step", "Operator by operator (compile: off) or as one CUDA graph."),
    "labels": (
        "A training step with a discriminator",
        "Labels: constant, by PESQ in PyTorch (torch), by exact PESQ in processes (pesq).",
    ),
    "launches": ("Launches of kernels", "In steps without a graph, by phase."),
    "peers": (
        "BSRNN as published",
        "`bsrnn_public`, and the same network computed band by band as in sungwon23/BSRNN.",
    ),
    "scan": ("The scan", "Both directions in bfloat16: public scans, then ours."),
    "memory": (
        "12 GB",
        "What PyTorch reserves, of at most the limit, to train and to enhance 15 s at once beside "
        "it, as validation does; and the largest of the batches tried with which this fits.",
    ),
}


def measure_peaks(device: str) -> dict[str, float]:
    """Return GB/s that a large copy reads and writes as "traffic (GB)", and TFLOP/s of a large
    matrix product in the precision of training as "products (TFLOP)". ConfigError: no device."""
    precision, n = Precision(device, "auto"), 16_384 if device == "cuda" else 512
    source = torch.randn(n, n, device=device)
    target = torch.empty_like(source)
    with precision.autocast():
        matrix = source.to((source[:1] @ source[:, :1]).dtype)
    runs: dict[str, tuple[float, Callable[[], Tensor]]] = {
        "traffic (GB)": (2e-9 * source.nbytes, lambda: target.copy_(source)),
        "products (TFLOP)": (2e-12 * n**3, lambda: matrix @ matrix),
    }
    return {
        name: amount / min(seconds(run, device) for _ in range(1 + ROUNDS))
        for name, (amount, run) in runs.items()
    }


def reserved(run: Callable[[], object], device: str, limit: int) -> int | None:
    """Return the most bytes of a GPU that PyTorch reserves in a run; None if `limit` is too little.

    From then on, PyTorch takes no more of it.
    """
    gc.collect()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, limit / total))
    torch.cuda.reset_peak_memory_stats()
    try:
        run()
        torch.cuda.synchronize()
    except torch.OutOfMemoryError:
        return None
    return torch.cuda.max_memory_reserved()


def memory(name: str, device: str, sizes: Sizes) -> list[Row]:
    """Return the row of a network in the table of what fits."""
    way, batch = Candidate(name, labels="none", compile="auto"), sizes.batches[0]
    noisy = noise(1, 15.0)["noisy"].to(device)

    def taken(size: int) -> int | None:
        def run() -> None:
            learner = Measured(way, device, size, sizes.crop).warm_up()  # its memory is held
            learner.ema.model.enhance(noisy)

        return reserved(run, device, sizes.limit)

    needed = taken(batch)
    fitting = bisect(sizes.tried, False, key=lambda size: taken(size) is None)
    row: Row = {"network": name, "limit (MiB)": sizes.limit / MIB, "batch": batch}
    row["reserved (MiB)"] = "too much" if needed is None else needed / MIB
    largest = sizes.tried[fitting - 1] if fitting else 0
    return [row | {f"largest batch up to {sizes.tried[-1]}": largest}]


def plan(device: str, sizes: Sizes) -> Iterator[tuple[str, str, Callable[[], Iterable[Row]]]]:
    """Yield part, name and function of each measurement, the most important first."""

    def both(*names: str) -> list[Candidate]:
        return [Candidate(x, labels="none", compile=way) for x in names for way in ("off", "graph")]

    first, others = sizes.networks[:2], sizes.networks[2:]
    kinds = (("constant", "off"), *product(("constant", "torch", "pesq"), ("graph",)))
    labels = [Candidate(name, None, "auto", *kind) for name in first for kind in kinds]
    for name, shape in sizes.scans.items():
        yield "scan", name, partial(scan.measure, device, name, shape, ROUNDS)
    for part, ways in (
        ("steps", both(*first)),
        ("labels", labels),
        ("steps", both(*others)),
        ("peers", both("bsrnn_public", "looped")),
    ):
        for batch, way in product(sizes.batches, ways):
            job = partial(step.measure, [way], device, batch, sizes.crop, ROUNDS)
            yield part, f"batch {batch}, {way}", job
    # The last, because it limits PyTorch's memory, which cannot be done on a CPU.
    for name in sizes.networks if device == "cuda" else ():
        yield "memory", name, partial(memory, name, device, sizes)


def measure(device: str, sizes: Sizes, minutes: float) -> tuple[Rows, bool]:
    """Measure all there is time for. Returns the rows, and whether something failed."""
    rows: Rows = {part: [] for part in PARTS}
    end, longest, failed = time.monotonic() + 60 * minutes, 0.0, False
    for part, name, job in plan(device, sizes):
        start = time.monotonic()
        if start + longest > end:
            print(f"{part}, {name}: no time left", file=sys.stderr)
            continue
        try:
            rows[part] += job()
        except Exception as error:
            failed = True
            if not isinstance(error, torch.OutOfMemoryError):
                traceback.print_exc()
            print(f"{part}, {name}: left out: {error}", file=sys.stderr)
        gc.collect()
        longest = max(longest, time.monotonic() - start)
    return rows, failed


def complete(rows: Rows, peaks: Mapping[str, float]) -> None:
    """Add shares of the peaks to the rows of steps, and the part "launches". What is counted in a
    step without a graph also stands for the graph."""
    counted: dict[tuple, Row] = {}
    for row in [*rows["steps"], *rows["labels"], *rows["peers"]]:
        about = {name: row[name] for name in ("network", "batch", "labels")}
        work = counted.setdefault(tuple(about.values()), row)
        for x, peak in peaks.items():
            if x in work:
                row[f"% of peak {x.split()[0]}"] = 1e5 * work[x] / peak / row["median (ms)"]
        if launches := row.get("launches"):
            row["launches"] = launches["step"]
            if row["compile"] == "off":
                rows["launches"].append(about | launches)


def page(rows: Rows, device: str, peaks: Mapping[str, float]) -> str:
    """Return the tables of all parts that have rows, below what is in them."""
    text = (
        "Steps are of the default recipe on crops of noise, without a loader, five in a row. The "
        "peak is that of all that training holds. Traffic is that of all operators' inputs and "
        "outputs, as if no cache kept them: an upper bound. Products are matrix products, "
        "convolutions and LSTMs. Both are counted without a graph. Measured peaks: "
        f"{peaks['traffic (GB)']:,.0f} GB/s (a copy, read and written), "
        f"{peaks['products (TFLOP)']:,.1f} TFLOP/s (a matrix product, precision as in training).\n"
    )
    if device == "cpu":
        text += "\nOn a CPU: no graph but its buffers, and scans of one direction in float32.\n"
    for part, (title, about) in PARTS.items():
        if rows[part]:
            text += f"\n## {title}\n\n{about}\n\n{table(rows[part])}"
    return text


def main() -> int:
    """Run the command line. Returns its exit status."""
    parser = ArgumentParser(description="Measure a GPU and write the figures as a page.")
    parser.add_argument("--minutes", type=float, default=6, help="default: 6")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "gpu.md", metavar="FILE")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    options = parser.parse_args()
    device = options.device
    peaks = measure_peaks(device)
    rows, failed = measure(device, Sizes() if device == "cuda" else SMALL, options.minutes)
    complete(rows, peaks)
    text = page(rows, device, peaks)
    command = shlex.join(["python", "-m", "benchmarks.gpu", *sys.argv[1:]])
    write_text(options.page, f"# Figures of a GPU\n\n`{command}`: {machine(device)}\n\n{text}")
    print(text)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
