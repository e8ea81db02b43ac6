"""Measure the loader in training crops a second, from wav, flac, opus and decoded opus.

    python -m benchmarks.loader [--data ROOT]

The test pairs of a corpus, by default of the shipped sample, are written in each format, and the
opus files are decoded once. Then batches of six crops are loaded from each in turn, seven times.
A crop is two seconds of clean and of noisy speech; none is pinned for a GPU.
"""

import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from functools import partial
from itertools import chain, count, islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.measuring import in_turn, machine, spread, table
from bsbimamba.data import samples
from bsbimamba.data.audio import SAMPLE_RATE, read, write
from bsbimamba.data.corpus import Pair, load_pairs
from bsbimamba.data.dataset import PairDataset
from bsbimamba.data.loader import EpochSampler, Loader
from bsbimamba.data.samples import Samples
from bsbimamba.openmp import usable_cores
from bsbimamba.utils import ROOT

_BATCH, _CROP = 6, 2 * SAMPLE_RATE


def measure(root: Path, workers: int, rounds: int, seconds: float = 3) -> list[dict[str, Any]]:
    """Return a row of the table for each format. seconds: of each measurement."""
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(samples, "CACHE", Path(folder, "decoded")),
    ):
        pairs = {kind: _copied(root, Path(folder, kind), kind) for kind in ("wav", "flac", "opus")}
        batches = {kind: _batches(each, Samples(), workers) for kind, each in pairs.items()}
        decoded = Samples()
        decoded.keep_decoded([path for pair in pairs["opus"] for path in (pair.clean, pair.noisy)])
        batches["decoded"] = _batches(pairs["opus"], decoded, workers)
        turns = {name: partial(_rate, each, seconds) for name, each in batches.items()}
        rates = {name: spread(found) for name, found in in_turn(turns, rounds).items()}
    wav = rates["wav"]["median"]
    return [{"from": name, **x, "of wav": x["median"] / wav} for name, x in rates.items()]


def _copied(root: Path, target: Path, kind: str) -> list[Pair]:
    """Write the test pairs of a corpus in another format, as training pairs of four speakers."""
    pairs = load_pairs(root, "test")
    for number, pair in enumerate(pairs * -(-10 * _BATCH // len(pairs))):  # ten batches an epoch
        for side, file in (("clean", pair.clean), ("noisy", pair.noisy)):
            path = target / side / f"s{number % 4}_{number:05}.{kind}"
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, read(file))
    return load_pairs(target, "train")


def _batches(pairs: list[Pair], samples: Samples, workers: int) -> Iterator[dict[str, Any]]:
    """Return the batches of a loader, one epoch after the other without end."""
    dataset = PairDataset(pairs, 0, _CROP, samples=samples)
    loader = Loader(dataset, EpochSampler(len(pairs), _BATCH, 0), workers, pin=False)
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
    parser = ArgumentParser(description="Measure the loader.")
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "sample", metavar="ROOT")
    workers = usable_cores()
    rows = measure(parser.parse_args().data, workers, rounds=7)
    print(f"crops a second, {workers} workers, {_BATCH} x 2 s\n\n{table(rows)}\n{machine()}")


if __name__ == "__main__":
    main()
