"""Find whether training and validation fit a card of 12 GiB, and the largest batch that does.

    python -m benchmarks.memory [--gib 12] [--only NAME ...] [--json FILE]

This needs a CUDA GPU of any size. PyTorch's memory is limited to that of a GPU of `--gib`, less 1
GiB for CUDA's context, its kernels and a desktop, which PyTorch's allocator does not count.

Each network takes four steps on 6 x 2 s of noise, with its own configuration and constant labels;
all optimizer states exist from the third step on. Then its averaged weights enhance 15 s at once,
as validation does with the longest utterances of VoiceBank-DEMAND. Memory grows linearly with the
batch: the largest batch is predicted from two, tried, and reduced until it fits. The exit status is
1 if 6 x 2 s or the validation do not fit, and 2 if there is no CUDA GPU.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.counting import peak_bytes
from benchmarks.results import MIB, described, markdown, report
from benchmarks.step import BATCH, CROP, FOUR, Candidate, Network, networks, noise
from bsbimamba.training.step import Learner

CARD, ASIDE = 12.0, 1.0  # GiB: the GPU that all must fit, and what PyTorch does not get of it
VALIDATED = 15.0  # seconds
_STEPS = 4


class Card:
    """A device whose memory is limited to `limit` bytes, at most those of the GPU.

    PyTorch cannot limit a CPU's memory. There, the bytes of a run are counted and compared.
    """

    def __init__(self, device: torch.device, limit: int) -> None:
        self.device, self.limit = device, limit
        if device.type == "cuda":
            total = torch.cuda.get_device_properties(device).total_memory
            self.limit = min(limit, total)
            torch.cuda.set_per_process_memory_fraction(self.limit / total, device)

    def peak(self, run: Callable[[], object]) -> int | None:
        """Return the peak of the reserved bytes in a run; None if it exceeds the limit."""
        if self.device.type != "cuda":
            taken = peak_bytes(run)
            return taken if taken <= self.limit else None
        gc.collect()  # a run before may have failed
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)
        try:
            run()
            torch.cuda.synchronize(self.device)
        except torch.OutOfMemoryError:
            return None
        return torch.cuda.max_memory_reserved(self.device)


def measure(
    card: Card,
    chosen: Mapping[str, Network],
    batch: int = BATCH,
    crop: float = CROP,
    validated: float = VALIDATED,
    **changes: Any,
) -> dict[str, Any]:
    """Measure the chosen networks. changes: arguments of the networks."""
    noisy = noise(1, validated)["noisy"]

    def train(name: str, mode: bool | str | None, size: int) -> Learner:
        candidate = Candidate(name, mode, "auto")
        learner = candidate.learner(chosen[name], card.device.type, size, crop, **changes)
        sides = noise(size, crop)
        for number in range(_STEPS):
            result = learner.step(sides, number)
            assert not result.broken, result.broken
        return learner

    def row(name: str, default: bool | str | None) -> dict[str, Any]:
        kept: list[Learner] = []  # the memory of training is held during validation
        trained = card.peak(lambda: kept.append(train(name, default, batch)))
        validation = None
        if kept:
            validation = card.peak(lambda: kept[0].ema.model.enhance(noisy.to(card.device)))
        kept.clear()
        modes = (None,) if default is None else (True, False)
        batches = {
            "checkpointed" if mode else "not": largest(card, partial(train, name, mode), batch)
            for mode in modes
        }
        return {"network": name, "train": trained, "validate": validation, "largest": batches}

    rows = [row(name, network.default) for name, network in chosen.items()]
    sizes = {"batch": batch, "crop": crop, "validated": validated}
    return {**described("memory", card.device, limit_bytes=card.limit, **sizes), "rows": rows}


def largest(card: Card, run: Callable[[int], object], batch: int) -> int:
    """Return a batch that fits, near the largest; 0 if not even one crop fits.

    run: is called with a number of crops, with which its memory grows linearly.
    """
    few, many = (card.peak(partial(run, size)) for size in (batch, 2 * batch))
    if few is None:
        return largest(card, run, batch // 2) if batch > 1 else 0
    more = 2 * batch - 1
    if many is not None:
        more = batch + int((card.limit - few) * batch / (many - few))
    while more > batch and card.peak(partial(run, more)) is None:
        more = int(0.95 * more)
    return max(batch, more)


def table(result: Mapping[str, Any]) -> str:
    """Format the result of `measure` as a table."""
    rows = []
    for row in result["rows"]:
        taken = [row["train"], row["validate"]]
        cells = ["does not fit" if x is None else f"{x / MIB:,.0f}" for x in taken]
        batches = [str(row["largest"].get(mode, "")) for mode in ("checkpointed", "not")]
        rows.append([row["network"], *cells, *batches])
    train = f"train {result['batch']} x {result['crop']:g} s (MiB)"
    validate = f"validate {result['validated']:g} s (MiB)"
    return markdown(["network", train, validate, "largest batch, checkpointed", "not"], rows)


def main() -> int:
    """Run the command line. Returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    parser.add_argument("--gib", type=float, default=CARD, help="of the card (default: 12)")
    parser.add_argument("--only", nargs="+", choices=FOUR, default=FOUR, metavar="NAME")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, too")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("memory: needs a CUDA card; PyTorch sees none here", file=sys.stderr)
        return 2
    card = Card(torch.device("cuda", 0), round((options.gib - ASIDE) * 2**30))
    result = measure(card, {name: networks()[name] for name in options.only})
    print(f"PyTorch is held to {card.limit / MIB:,.0f} MiB.\n")
    report(result, table(result), options.json)
    return int(any(None in (row["train"], row["validate"]) for row in result["rows"]))


if __name__ == "__main__":
    sys.exit(main())
