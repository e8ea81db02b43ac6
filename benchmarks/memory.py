"""Find whether training and validation fit a GPU of 12 GiB, and the largest batch that does.

    python -m benchmarks.memory [--gib 12] [--only NAME ...] [--json FILE]

This needs a CUDA GPU of any size. PyTorch's memory is limited to that of a GPU of `--gib`, less 1
GiB for CUDA's context, its kernels and a desktop, which PyTorch's allocator does not count.

Each network takes four steps on 6 x 2 s of noise, with its own configuration and constant labels;
all optimizer states exist from the third step on. Then its averaged weights enhance 15 s at once,
as validation does with the longest utterances of VoiceBank-DEMAND. The largest batch is found by
trying, within 5 %. The table has MiB, and nothing for what does not fit: the exit status is then 1.
"""

import gc
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.counting import peak_bytes
from benchmarks.results import MIB, command_line, report, table
from benchmarks.step import BATCH, CROP, FOUR, Candidate, ConstantPool, Measured, networks, noise
from bsbimamba.training.step import Learner

VALIDATED = 15.0  # seconds
FITTED = ("train", "validate")


def peak(run: Callable[[], object], device: str, limit: int) -> int | None:
    """Return the most bytes that PyTorch reserves in a run; None if `limit` is not enough.

    PyTorch cannot limit a CPU's memory. There, the bytes of a run are counted and compared.
    """
    if device == "cpu":
        taken = peak_bytes(run)
        return taken if taken <= limit else None
    gc.collect()  # a run before may have failed
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    try:
        run()
        torch.cuda.synchronize()
    except torch.OutOfMemoryError:
        return None
    return torch.cuda.max_memory_reserved()


def measure(
    name: str, device: str, limit: int, batch: int, crop: float, validated: float
) -> dict[str, Any]:
    """Measure a network: bytes to "train" and to "validate", and the "largest" batch."""
    candidate = Candidate(name, None, "auto")
    noisy = noise(1, validated)["noisy"].to(device)

    def train(size: int) -> Learner:
        run = Measured(candidate.learner(device, size, crop, ConstantPool(1)), noise(size, crop))
        for _ in range(4):
            run.step()
        return run.learner

    kept: list[Learner] = []  # the memory of training is held during validation
    trained = peak(lambda: kept.append(train(batch)), device, limit)
    validation = None
    if kept:
        validation = peak(lambda: kept[0].ema.model.enhance(noisy), device, limit)
    kept.clear()
    largest = largest_batch(lambda size: bool(peak(lambda: train(size), device, limit)), batch)
    return {"network": name, "train": trained, "validate": validation, "largest": largest}


def largest_batch(fits: Callable[[int], bool], batch: int) -> int:
    """Return a batch that fits, within 5 % of the largest; 0 if not even one crop fits."""
    least, most = 0, batch
    while fits(most):
        least, most = most, 2 * most
    while most - least > max(1, least // 20):
        middle = (least + most) // 2
        least, most = (middle, most) if fits(middle) else (least, middle)
    return least


def main() -> int:
    """Run the command line. Returns its exit status."""
    parser = command_line(__doc__)
    parser.add_argument("--gib", type=float, default=12, help="of the GPU (default: 12)")
    parser.add_argument("--only", nargs="+", default=FOUR, metavar="NAME", choices=list(networks()))
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("PyTorch sees no CUDA device here")
    device = torch.device("cuda")
    total = torch.cuda.get_device_properties(device).total_memory
    limit = min(total, round((options.gib - 1) * 2**30))
    torch.cuda.set_per_process_memory_fraction(limit / total)
    sizes: dict[str, Any] = {"batch": BATCH, "crop": CROP, "validated": VALIDATED}
    rows = [measure(name, device.type, limit, **sizes) for name in options.only]
    sized = [row | {x: row[x] and row[x] / MIB for x in FITTED} for row in rows]
    print(f"{BATCH} x {CROP:g} s, and {VALIDATED:g} s at once; at most {limit / MIB:,.0f} MiB:\n")
    report(table(sized), options.json, device, limit_bytes=limit, **sizes, rows=rows)
    return int(any(row[x] is None for row in rows for x in FITTED))


if __name__ == "__main__":
    raise SystemExit(main())
