"""One step of training: its time and memory, of every network, side by side.

    python -m benchmarks.training [--device cuda] [--batch 6] [--crop 2] [--only NAME ...]

A step is `training.learner.Learner.step` of the default recipe: both networks learn, the labels are
a constant (`benchmarks.pesq_pool` says what real ones cost), the sound is noise. All candidates are
timed in turn, round by round; the first two rounds warm up. On a GPU "peak" is all that the
candidate takes at most, and "activations" what of it a step adds to parameters and optimizer.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import statistics
import time
from dataclasses import dataclass, replace
from typing import Any

import torch

from benchmarks.pesq_pool import ConstantPool
from training.distributed import World
from training.learner import Learner
from training.precision import Precision
from training.settings import override

_MIB = 2**20


@dataclass(frozen=True)
class Candidate:
    """A folder's network (or its preset), in a precision, with some settings changed."""

    folder: str
    amp: str
    preset: str = ""
    changes: tuple[tuple[str, Any], ...] = ()

    def learner(self, device: str, batch: int, crop: float) -> Learner:
        if self.preset == "looped":
            network: Any = importlib.import_module("benchmarks.looped_bsrnn").LoopedBSRNN
            config = importlib.import_module("baseline.train").CONFIG
            config = replace(config, model={})
        else:
            train = importlib.import_module(f"{self.folder}.train")
            network, config = getattr(train, "MBSNet", None) or train.BSRNN, train.CONFIG
            if self.preset:
                network, config = train.PRESETS[self.preset]
        sizes = {"data.batch_size": batch, "data.crop_seconds": crop}
        config = override(config, sizes | dict(self.changes))
        return Learner(network, config, Precision(device, self.amp), World(), ConstantPool(1))


def _checkpointing(mode: object) -> tuple[tuple[str, Any], ...]:
    return (("model.use_checkpoint", mode),)


def candidates(amp: str) -> dict[str, Candidate]:
    """By name; `amp` is the mixed precision of this device."""
    mixed = {
        "baseline": Candidate("baseline", amp),
        "abl1": Candidate("abl1", amp),
        "abl2": Candidate("abl2", amp),
        "abl3": Candidate("abl3", amp),
        "bsrnn_public": Candidate("baseline", amp, "bsrnn_public"),
        "bsrnn_public, looped": Candidate("baseline", amp, "looped"),
        "lstm_dualpath": Candidate("baseline", amp, "lstm_dualpath"),
        "abl3, fp16": Candidate("abl3", "fp16"),
        "abl3, nothing kept": Candidate("abl3", amp, changes=_checkpointing("full")),
        "abl3, all kept": Candidate("abl3", amp, changes=_checkpointing(False)),
    }
    full = {
        "abl3, fp32": Candidate("abl3", "off"),
        "abl3, fp32, all kept": Candidate("abl3", "off", changes=_checkpointing(False)),
        "baseline, fp32": Candidate("baseline", "off"),
        "bsrnn_public, looped, fp32": Candidate("baseline", "off", "looped"),
    }
    return mixed | full


class Timed:
    """A learner, its batch, and what its steps have taken."""

    def __init__(self, candidate: Candidate, device: str, batch: int, crop: float) -> None:
        self.before = _allocated()
        self.learner = candidate.learner(device, batch, crop)
        self.device = self.learner.precision.device
        rng = torch.Generator().manual_seed(0)
        clean, noise = 0.1 * torch.randn(2, batch, round(16000 * crop), generator=rng)
        self.batch = {"clean": clean, "noisy": clean + noise}
        self.seconds: list[float] = []
        self.steps = 0
        self.peak = self.activations = 0

    def step(self) -> None:
        resting = _allocated()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        begin = time.perf_counter()
        result = self.learner.step(self.batch, self.steps, 0, 1.0)
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - begin)
        assert not result.broken, result.broken
        self.steps += 1
        if self.device.type == "cuda" and self.steps == 2:  # alone on the card, state complete
            most = torch.cuda.max_memory_allocated()
            self.peak, self.activations = most - self.before, most - resting


def _allocated() -> int:
    gc.collect()
    return torch.cuda.memory_allocated() if torch.cuda.is_available() else 0


def main() -> None:
    options = _options()
    precision = Precision(options.device, "auto")
    device = precision.device
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(f"torch {torch.__version__}, {name}, {options.batch} x {options.crop:g} s")
    runs: dict[str, Timed] = {}
    for label, candidate in candidates("bf16").items():
        if options.only and label not in options.only:
            continue
        runs[label] = Timed(candidate, device.type, options.batch, options.crop)
        runs[label].step()
        runs[label].step()
    for run in runs.values():
        run.seconds.clear()
    for _ in range(options.rounds):
        for run in runs.values():
            run.step()
    print(f"{'':28}{'ms a step':>10}{'crops/s':>9}{'peak':>11}{'activations':>13}")
    for label, run in runs.items():
        seconds = statistics.median(run.seconds)
        row = f"{label:28}{1000 * seconds:10.1f}{options.batch / seconds:9.1f}"
        if device.type == "cuda":
            row += f"{run.peak / _MIB:7.0f} MiB{run.activations / _MIB:9.0f} MiB"
        print(row)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--crop", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="a few of them, by name")
    return parser.parse_args()


if __name__ == "__main__":
    main()
