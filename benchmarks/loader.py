"""Measure the loader in training crops a second, from wav, flac, opus and decoded opus.

    python -m benchmarks.loader [--data ROOT] [--workers N] [--rounds N] [--json FILE]

The test pairs of a corpus, by default of the shipped sample, are written in each format, and the
opus files are decoded once. Then batches of six crops are loaded from each in turn, round by round.
A crop is two seconds of clean and of noisy speech. The system's cache holds the files by then, if
there is room.
"""

import tempfile
import time
from collections.abc import Iterator
from functools import partial
from itertools import chain, count, islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.results import command_line, in_turn, report, spread, table
from bsbimamba.data import samples
from bsbimamba.data.audio import SAMPLE_RATE, read, write
from bsbimamba.data.augment import Augment
from bsbimamba.data.corpus import Pair, load_pairs
from bsbimamba.data.dataset import PairDataset
from bsbimamba.data.loader import EpochSampler, Loader
from bsbimamba.data.samples import Samples
from bsbimamba.data.workers import usable_cores
from bsbimamba.utils import ROOT

_BATCH, _CROP = 6, 2 * SAMPLE_RATE
_EVERYTHING = Augment(speed=1, babble=1, remix=1)


def measure(root: Path, workers: int, rounds: int, seconds: float = 3) -> dict[str, dict]:
    """Return the spread of crops a second from each format. seconds: of each measurement."""
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(samples, "CACHE", Path(folder, "decoded")),
    ):
        pairs = {kind: _copied(root, Path(folder, kind), kind) for kind in ("wav", "flac", "opus")}
        crops = {kind: _crops(each, Samples(), workers) for kind, each in pairs.items()}
        decoded = Samples()
        decoded.keep_decoded([path for pair in pairs["opus"] for path in (pair.clean, pair.noisy)])
        crops["decoded"] = _crops(pairs["opus"], decoded, workers)
        crops["decoded, every augmentation"] = _crops(pairs["opus"], decoded, workers, _EVERYTHING)
        turns = {name: partial(_rate, each, seconds) for name, each in crops.items()}
        return {name: spread(rates) for name, rates in in_turn(turns, rounds).items()}


def _copied(root: Path, target: Path, kind: str) -> list[Pair]:
    """Write the test pairs of a corpus in another format, as training pairs of four speakers."""
    pairs = load_pairs(root, "test")
    for number, pair in enumerate(pairs * -(-10 * _BATCH // len(pairs))):  # ten batches an epoch
        for side, file in (("clean", pair.clean), ("noisy", pair.noisy)):
            path = target / side / f"s{number % 4}_{number:05}.{kind}"
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, read(file))
    return load_pairs(target, "train")


def _crops(
    pairs: list[Pair], samples: Samples, workers: int, augment: Augment | None = None
) -> Iterator[dict[str, Any]]:
    """Return the batches of a loader, one epoch after the other without end."""
    dataset = PairDataset(pairs, 0, _CROP, samples=samples, augment=augment)
    sampler = EpochSampler(len(pairs), _BATCH, 0)
    loader = Loader(dataset, sampler, workers, pin=torch.cuda.is_available())
    return chain.from_iterable(loader.batches(epoch, 0) for epoch in count())


def _rate(batches: Iterator[dict[str, Any]], seconds: float) -> float:
    """Return the crops a second, after batches that workers made while others were measured."""
    for _ in islice(batches, 20):
        pass
    start, crops = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        crops += len(next(batches)["name"])
    return crops / (time.perf_counter() - start)


def main() -> None:
    """Run the command line."""
    parser = command_line(__doc__, rounds=7)
    sample = ROOT / "data" / "sample"
    parser.add_argument("--data", type=Path, default=sample, metavar="ROOT", help="of a corpus")
    parser.add_argument("--workers", type=int, default=usable_cores(), metavar="N")
    options = parser.parse_args()
    sizes = {"workers": options.workers, "rounds": options.rounds}
    rates = measure(options.data, **sizes)
    wav = rates["wav"]["median"]
    rows = [{"from": k, **x, "of wav": x["median"] / wav} for k, x in rates.items()]
    print(f"crops a second, {options.workers} workers, {_BATCH} x 2 s\n")
    head = {**sizes, "cores": usable_cores()}
    report(table(rows), options.json, torch.device("cpu"), **head, crops_per_second=rates)


if __name__ == "__main__":
    main()
