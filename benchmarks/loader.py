"""How many training examples a second the loader gives: from wav, flac, opus, and decoded copies.

    python -m benchmarks.loader [--data ROOT] [--workers N] [--rounds N] [--crop SECONDS]

Of the embedded corpus, or any other, its training pairs are written in each format, and those of
opus are decoded; then batches of six crops are taken from each in turn, round by round. An example
is a clean and a noisy crop. The files are in memory by then, as far as there is room.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from tqdm import tqdm

from data import synthesise
from data.audio import SAMPLE_RATE, read, write
from data.augment import Augment
from data.corpus import Pair, load_pairs
from data.dataset import PairDataset
from data.loader import EpochSampler, Loader
from data.samples import Samples
from data.workers import usable_cores

_CORPUS = Path(__file__).resolve().parents[1] / "data" / "synthetic"
_FORMATS = ("wav", "flac", "opus")
_BATCH = 6


def main() -> None:
    options = _options()
    source = load_pairs(options.data or synthesise.ensure(_CORPUS), "train")
    workers, frames = options.workers, round(options.crop * SAMPLE_RATE)
    hours = sum(pair.frames for pair in source) / SAMPLE_RATE / 3600
    print(f"torch {torch.__version__}, {usable_cores()} cores, {workers} workers")
    print(
        f"{len(source)} pairs, {60 * hours:.1f} minutes; batches of {_BATCH} x {options.crop:g} s"
    )
    with tempfile.TemporaryDirectory() as folder:
        loaders = {}
        for kind in _FORMATS:
            pairs = _written(source, Path(folder, kind), kind)
            loaders[kind] = _loader(pairs, frames, workers, Samples())
        start, decoded = time.perf_counter(), Samples()
        decoded.keep_decoded([path for pair in pairs for path in (pair.clean, pair.noisy)])
        print(f"decoding took {time.perf_counter() - start:.1f} s")
        loaders["opus, decoded"] = _loader(pairs, frames, workers, decoded)
        everything = Augment(speed=1, room=1, babble=1, remix=1, band=1, gain=1)
        loaders["every augmentation"] = _loader(pairs, frames, workers, decoded, everything)
        rates = _measure(loaders, options.rounds, options.seconds)
    best = statistics.median(rates["wav"])
    print(f"\n{'':28}{'crops/s':>9}{'lowest':>9}{'highest':>9}{'of wav':>11}")
    for name, each in rates.items():
        middle = statistics.median(each)
        print(f"{name:28}{middle:9.0f}{min(each):9.0f}{max(each):9.0f}{middle / best:11.2f}")


def _written(source: list[Pair], root: Path, kind: str) -> list[Pair]:
    pairs = _pairs(source, root, kind)
    for pair, new in tqdm(zip(source, pairs, strict=True), f"writing {kind}", len(pairs)):
        for old_file, file in ((pair.clean, new.clean), (pair.noisy, new.noisy)):
            file.parent.mkdir(parents=True, exist_ok=True)
            write(file, read(old_file))
    return pairs


def _pairs(source: list[Pair], root: Path, kind: str) -> list[Pair]:
    return [
        Pair(
            f"{number:05}",
            root / "clean" / f"{number:05}.{kind}",
            root / "noisy" / f"{number:05}.{kind}",
            pair.speaker,
            pair.frames,
        )
        for number, pair in enumerate(source)
    ]


def _loader(
    pairs: list[Pair], frames: int, workers: int, samples: Samples, augment: Augment | None = None
) -> Loader:
    dataset = PairDataset(pairs, 0, frames, samples=samples, augment=augment)
    sampler = EpochSampler(len(pairs), _BATCH, 0)
    return Loader(dataset, sampler, workers, pin=torch.cuda.is_available())


def _measure(loaders: dict[str, Loader], rounds: int, seconds: float) -> dict[str, list[float]]:
    """Crops a second, one value a round."""
    endless = {name: _batches(loader) for name, loader in loaders.items()}
    rates: dict[str, list[float]] = {name: [] for name in loaders}
    for number in range(rounds + 1):
        for name, batches in endless.items():
            # What workers made while the others' turn was on does not count.
            for _ in islice(batches, 20):
                pass
            start, count = time.perf_counter(), 0
            while time.perf_counter() - start < seconds:
                count += len(next(batches)["name"])
            if number:  # the first warms up
                rates[name].append(count / (time.perf_counter() - start))
    return rates


def _batches(loader: Loader) -> Iterator[dict]:
    epoch = 0
    while True:
        yield from loader.batches(epoch, 0)
        epoch += 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, metavar="ROOT", help="a corpus of pairs")
    parser.add_argument("--workers", type=int, default=usable_cores(), metavar="N")
    parser.add_argument("--rounds", type=int, default=7, metavar="N")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--crop", type=float, default=2.0, metavar="SECONDS")
    options = parser.parse_args()
    if not (options.workers >= 0 and options.rounds >= 1 and options.crop > 0):
        parser.error("--workers must be at least 0, --rounds at least 1, --crop above 0")
    return options


if __name__ == "__main__":
    main()
