"""Measure the loader in training crops a second, from wav, flac, opus and decoded opus.

    python -m benchmarks.loader [--data ROOT] [--workers N] [--rounds N] [--crop SECONDS]
                                [--json FILE]

The training pairs of a corpus (by default pairs of generated noise) are written in each format, and
the opus files are decoded once. Then batches of six crops are loaded from each in turn, round by
round. A crop is two seconds of clean and of noisy speech. The system's cache holds the files by
then, if there is room.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.results import described, markdown, report, spread
from bsbimamba.data.audio import SAMPLE_RATE, read, write
from bsbimamba.data.augment import Augment
from bsbimamba.data.corpus import load_pairs
from bsbimamba.data.dataset import PairDataset
from bsbimamba.data.loader import EpochSampler, Loader
from bsbimamba.data.samples import Samples
from bsbimamba.data.workers import usable_cores

_FORMATS = ("wav", "flac", "opus")
_BATCH = 6
_SIDES = ("clean", "noisy")


def make_corpus(root: Path, pairs: int = 60, seconds: float = 4.0) -> Path:
    """Write pairs of noise by four speakers, root/{clean,noisy}/s*_*.wav. Returns the root."""
    rng = np.random.default_rng(0)
    for number in range(pairs):
        clean, added = 0.05 * rng.standard_normal((2, round(SAMPLE_RATE * seconds)), np.float32)
        for side, x in zip(_SIDES, (clean, clean + added), strict=True):
            path = root / side / f"s{number % 4}_{number:04}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, x)
    return root


def measure(
    root: Path, workers: int, rounds: int, crop: float, seconds: float = 3.0
) -> dict[str, Any]:
    """Measure the loader on the corpus in `root`. seconds: of each measurement."""
    with tempfile.TemporaryDirectory() as folder:
        loaders = {}
        for kind in _FORMATS:
            target = Path(folder, kind)
            _copy(root, target, kind)
            loaders[kind] = _loader(target, crop, workers)
        opus = Path(folder, "opus")
        loaders["decoded"] = _loader(opus, crop, workers, decoded=True)
        everything = Augment(speed=1, babble=1, remix=1)
        loaders["decoded, every augmentation"] = _loader(opus, crop, workers, True, everything)
        rates = _rates(loaders, rounds, seconds)
    sizes = {"workers": workers, "cores": usable_cores(), "rounds": rounds, "crop": crop}
    return {**described("loader", torch.device("cpu"), **sizes), "crops_per_second": rates}


def _copy(root: Path, target: Path, kind: str) -> None:
    """Write the training pairs of a corpus in another format."""
    for number, pair in enumerate(load_pairs(root, "train")):
        for side, file in zip(_SIDES, (pair.clean, pair.noisy), strict=True):
            path = target / side / f"{pair.speaker}_{number:05}.{kind}"
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, read(file))


def _loader(
    root: Path, crop: float, workers: int, decoded: bool = False, augment: Augment | None = None
) -> Loader:
    pairs = load_pairs(root, "train")
    samples = Samples()
    if decoded:
        samples.keep_decoded([path for pair in pairs for path in (pair.clean, pair.noisy)])
    frames = round(crop * SAMPLE_RATE)
    dataset = PairDataset(pairs, 0, frames, samples=samples, augment=augment)
    return Loader(
        dataset, EpochSampler(len(pairs), _BATCH, 0), workers, pin=torch.cuda.is_available()
    )


def _rates(loaders: dict[str, Loader], rounds: int, seconds: float) -> dict[str, dict[str, float]]:
    """Return the spread of crops a second over the rounds, of each loader."""
    endless = {
        name: chain.from_iterable(loader.batches(epoch, 0) for epoch in count())
        for name, loader in loaders.items()
    }
    rates: dict[str, list[float]] = {name: [] for name in loaders}
    for number in range(rounds + 1):
        for name, batches in endless.items():
            # Batches that workers made while others were measured do not count.
            for _ in islice(batches, 20):
                pass
            start, crops = time.perf_counter(), 0
            while time.perf_counter() - start < seconds:
                crops += len(next(batches)["name"])
            if number:  # the first warms up
                rates[name].append(crops / (time.perf_counter() - start))
    return {name: spread(values) for name, values in rates.items()}


def table(result: dict[str, Any]) -> str:
    """Format the result of `measure` as a table."""
    rates = result["crops_per_second"]
    best = rates["wav"]["median"]
    rows = []
    for name, x in rates.items():
        found = [f"{x[key]:.0f}" for key in ("median", "min", "max")]
        rows.append([name, *found, f"{x['median'] / best:.2f}"])
    return markdown(["from", "crops/s", "lowest", "highest", "of wav"], rows)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, metavar="ROOT", help="a corpus of pairs")
    parser.add_argument("--workers", type=int, default=usable_cores(), metavar="N")
    parser.add_argument("--rounds", type=int, default=7, metavar="N")
    parser.add_argument("--crop", type=float, default=2.0, metavar="SECONDS")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = options.data or make_corpus(Path(folder))
        result = measure(root, options.workers, options.rounds, options.crop)
    print(f"{options.workers} workers, {_BATCH} x {options.crop:g} s\n")
    report(result, table(result), options.json)


if __name__ == "__main__":
    main()
