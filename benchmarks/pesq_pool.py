"""What PESQ labels cost: a training step with them against one without, in turn.

`python -m benchmarks.pesq_pool`; of ablation 3 at 6 x 2 s unless told otherwise, with its
discriminator. In both cases it learns; without, its labels are a constant that nobody has to
compute.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from benchmarks.candidates import BATCH, CROP, FOUR, ConstantPool, networks, speech
from benchmarks.results import described, save, spread
from data.workers import usable_cores
from training.distributed import World
from training.learner import Learner
from training.pesq_pool import PesqPool
from training.precision import Precision
from training.settings import override

_TARGET = 1.05
_BATCHES = 4  # different ones, in turn


def main() -> None:
    options = _options()
    network = networks()[options.network]
    changes = {"data.batch_size": options.batch, "data.crop_seconds": options.crop}
    config = replace(override(network.config, changes), seed=0)
    precision = Precision(options.device, options.amp)
    workers = options.workers or max(1, usable_cores() - 1)
    learners = {
        "with labels": Learner(network.kind, config, precision, World(), PesqPool(workers)),
        "without": Learner(network.kind, config, precision, World(), ConstantPool(1)),
    }
    batches = list(islice(speech(options.batch, options.crop, 0, pin=False), _BATCHES))
    times: dict[str, list[float]] = {name: [] for name in learners}
    ratios = []
    for number in range(options.rounds + 1):
        block = {name: _block(x, batches, options.steps) for name, x in learners.items()}
        if number:  # the first warms up
            for name, seconds in block.items():
                times[name] += seconds
            with_labels, without = (statistics.mean(seconds) for seconds in block.values())
            ratios.append(with_labels / without)
    alone = _labels_alone(learners["with labels"].discriminator.pool, batches[0])
    for learner in learners.values():
        learner.discriminator.pool.close()
    print(
        f"{options.network}, {options.batch} x {options.crop:g} s, {precision.device} "
        f"({torch.get_num_threads()} threads, {usable_cores()} cores), {workers} PESQ workers"
    )
    for name, seconds in times.items():
        print(f"{name:12} {1000 * statistics.median(seconds):8.0f} ms a step (median)")
    print(f"{'labels alone':12} {1000 * alone:8.0f} ms for a batch")
    low, high = min(ratios), max(ratios)
    sizes = {"network": options.network, "batch": options.batch, "crop": options.crop}
    result = {
        **described("pesq_pool", precision.device, **sizes, amp=precision.amp, workers=workers),
        "cores": usable_cores(),
        "seconds": {name: spread(seconds) for name, seconds in times.items()},
        "labels_alone": alone,
        "ratio": spread(ratios),
        "target": _TARGET,
    }
    save(options.json, result)
    print(
        f"with / without: {statistics.median(ratios):.3f} (median of {len(ratios)} pairs of "
        f"{options.steps} steps each, {low:.3f} to {high:.3f}); target {_TARGET}"
    )


def _block(learner: Learner, batches: list[Mapping[str, Any]], steps: int) -> list[float]:
    """Seconds of so many steps, the first of which teaches the discriminator a labelled batch."""
    learner.step(dict(batches[0]), 0)
    seconds = []
    for number in range(steps):
        begin = time.perf_counter()
        learner.step(dict(batches[number % len(batches)]), number)
        seconds.append(time.perf_counter() - begin)  # a step ends with a transfer to the CPU
    learner.discriminator.backward()  # its labels must not be made while the other is timed
    learner.discriminator.skip()
    return seconds


def _labels_alone(pool: PesqPool, batch: Mapping[str, Any]) -> float:
    clean, noisy = batch["clean"].numpy(), batch["noisy"].numpy()
    begin = time.perf_counter()
    pool.label(clean, noisy)()
    return time.perf_counter() - begin


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--network", default="abl3", choices=FOUR)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--crop", type=float, default=CROP)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--amp", default="auto", choices=("auto", "bf16", "fp16", "off"))
    parser.add_argument("--workers", type=int, default=0, help="PESQ processes (0: as in training)")
    parser.add_argument("--steps", type=int, default=3, help="timed in a row")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
