"""Measure one training step of each network: time by phase, memory, operators, launches.

    python -m benchmarks.step [--device auto|cpu|cuda] [--batch 6] [--crop 2] [--rounds N]
                              [--only NAME ...] [--labels] [--json FILE]

A step is `training.step.Learner.step` of the recipe `metric`: generator and discriminator learn.
Each network is measured with and without checkpointing, in fp32 and bf16, in turn, round by round.
A turn is one step that is not timed and two that are. Batches are noise without a loader, so "data"
is the copy to the device and the scaling. Labels are constant; `--labels` adds a row with labels of
PESQ workers.

"saved" is what forward pass and losses save for the backward pass. "peak" is the peak memory of a
step without weights, averages and optimizer states. Operators are dispatched ones without views.
"time" and "memory" compare step and peak with the first row of the same network.
"""

import importlib
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._pytree import tree_leaves

from benchmarks import counting
from benchmarks.counting import PHASES, by_phase
from benchmarks.results import MIB, command_line, in_turn, report, spread, table
from bsbimamba.data.audio import SAMPLE_RATE
from bsbimamba.data.workers import usable_cores
from bsbimamba.training.config import Config, override
from bsbimamba.training.distributed import World
from bsbimamba.training.pesq import PesqPool
from bsbimamba.training.precision import Precision
from bsbimamba.training.step import Learner

FOUR = ("baseline", "abl1", "abl2", "abl3")
BATCH, CROP = 6, 2.0  # crops and seconds: what the networks are configured for


class ConstantPool(PesqPool):
    """A pool that labels everything 0.5, at once."""

    def label(self, clean: NDArray, enhanced: NDArray) -> Callable[[], NDArray]:
        return lambda: np.full(len(clean), 0.5, np.float32)


@cache
def networks() -> dict[str, tuple[type, Config]]:
    """Return class and configuration of the networks of the four folders, and of their presets."""
    found: dict[str, tuple[type, Config]] = {}
    presets: dict[str, tuple[type, Config]] = {}
    for folder in FOUR:
        train = importlib.import_module(f"{folder}.train")
        found[folder] = (getattr(train, "MBSNet", None) or train.BSRNN, train.CONFIG)
        presets |= getattr(train, "PRESETS", {})
    return found | presets


@dataclass(frozen=True)
class Candidate:
    """A way to train a network.

    checkpoint: its `use_checkpoint`; None for the configured one, if there is any. labels: whether
    PESQ workers make its labels.
    """

    network: str
    checkpoint: bool | str | None
    amp: str
    labels: bool = False

    def learner(self, device: str, batch: int, crop: float, pool: PesqPool) -> Learner:
        """Return a learner for batches of so many crops of so many seconds."""
        kind, config = networks()[self.network]
        sizes = {"data.batch_size": batch, "data.crop_seconds": crop}
        config = override(config, {**sizes, "loss.metric": 0.05})
        if self.checkpoint is not None:
            config = replace(config, model={**config.model, "use_checkpoint": self.checkpoint})
        return Learner(kind, config, Precision(device, self.amp), World(), pool)


def candidates(name: str, labels: bool) -> list[Candidate]:
    """Return the ways to train a network: without checkpointing and with it, each in fp32 and bf16;
    "full" in bf16; as configured in bf16 with labels by PESQ."""
    default = networks()[name][1].model.get("use_checkpoint")
    modes = (None,) if default is None else (False, True)
    found = [Candidate(name, mode, amp) for mode, amp in product(modes, ("off", "bf16"))]
    if default is not None:
        found.append(Candidate(name, "full", "bf16"))
    if labels:
        found.append(Candidate(name, default, "bf16", labels=True))
    return found


def noise(batch: int, crop: float) -> dict[str, Tensor]:
    """Return a batch of noise, always the same: "clean" and "noisy", each (b, s)."""
    rng = torch.Generator().manual_seed(0)
    size = (2, batch, round(SAMPLE_RATE * crop))
    clean, added = 0.1 * torch.randn(size, generator=rng)
    return {"clean": clean, "noisy": clean + added}


class Measured:
    """A learner that takes steps on one batch, and what is measured of them."""

    def __init__(self, learner: Learner, batch: dict[str, Tensor]) -> None:
        self.learner, self.batch = learner, batch
        self.device = learner.precision.device.type
        self._steps = 0

    def step(self) -> None:
        """Take one step on the batch."""
        result = self.learner.step(dict(self.batch), self._steps)
        assert not result.broken, result.broken
        self._steps += 1

    def seconds(self) -> list[dict[str, float]]:
        """Take a turn. Returns the seconds of its timed steps, by phase and of the whole "step"."""
        self.step()
        found = [by_phase(self.learner, self.step, *counting.clock(self.device)) for _ in range(2)]
        self._finish_labels()
        return found

    def counts(self) -> dict[str, Any]:
        """Measure everything but the time.

        Returns:
            "saved_bytes" and "peak_bytes"; "resident_bytes" of weights, averages and optimizer
            states; "operators" by phase and of the whole "step"; "launches", None on a CPU.
        """
        for _ in range(2):  # they create the optimizers' states
            self.step()
        found: dict[str, Any] = {"resident_bytes": sum(x.nbytes for x in self._resident())}
        found["saved_bytes"] = self.saved_bytes()
        # Gradients of the last step would be freed within the next one, and lower its peak.
        for optimizer in (self.learner.optimizer, self.learner.discriminator.optimizer):
            optimizer.zero_grad(set_to_none=True)
        found["peak_bytes"] = counting.peak_bytes(self.step, self.device)
        with counting.Operators() as counter:
            count = partial(getattr, counter, "count")
            found["operators"] = by_phase(self.learner, self.step, count, operator.sub)
        found["launches"] = counting.launches(self.step) if self.device == "cuda" else None
        self._finish_labels()
        return found

    def saved_bytes(self) -> int:
        """Return the bytes that forward pass and losses save for the backward pass."""
        clean, noisy = (self.batch[side].to(self.device) for side in ("clean", "noisy"))
        how = self.learner.config.loss
        known = [clean, noisy, *self._resident()]
        return counting.saved_bytes(lambda: self.learner.losses(clean, noisy, how)[0], known)

    def _resident(self) -> list[Tensor]:
        states = [part.state_dict() for part in self.learner.parts().values()]
        return [x for x in tree_leaves(states) if isinstance(x, Tensor)]

    def _finish_labels(self) -> None:
        """Wait for pending labels, so that workers do not slow the next candidate."""
        self.learner.discriminator.backward()
        self.learner.discriminator.skip()


def measure(
    ways: Sequence[Candidate], device: str, batch: int, crop: float, rounds: int
) -> list[dict[str, Any]]:
    """Measure these ways to train; return a row for each."""
    pool, constant = PesqPool(max(1, usable_cores() - 1)), ConstantPool(1)
    runs: dict[Candidate, Measured] = {}
    rows = []
    try:
        for way in ways:
            learner = way.learner(device, batch, crop, pool if way.labels else constant)
            runs[way] = Measured(learner, noise(batch, crop))
            rows.append(asdict(way) | runs[way].counts())
        turns = in_turn({way: run.seconds for way, run in runs.items()}, rounds)
    finally:
        pool.close()
    for row, way in zip(rows, ways, strict=True):
        steps = [step for turn in turns[way] for step in turn]
        row["seconds"] = {name: spread([step[name] for step in steps]) for name in steps[0]}
        row["crops_per_second"] = batch / row["seconds"]["step"]["median"]
    return rows


def columns(rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield a row of the table for each row of measurements."""
    firsts: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        first = firsts.setdefault(row["network"], row)
        seconds, saved, peak = (row[x] for x in ("seconds", "saved_bytes", "peak_bytes"))
        operators = row["operators"]
        yield {
            "network": row["network"] + ", PESQ labels" * row["labels"],
            "checkpoint": row["checkpoint"],
            "AMP": row["amp"],
            **{f"{x} (ms)": 1e3 * seconds["step"][x] for x in ("median", "min", "max")},
            "time": seconds["step"]["median"] / first["seconds"]["step"]["median"],
            **{phase: 1e3 * seconds[phase]["median"] for phase in PHASES},
            "crops/s": row["crops_per_second"],
            "saved (MiB)": saved / MIB,
            "peak (MiB)": peak / MIB,
            "memory": peak / first["peak_bytes"],
            "operators": operators["step"],
            "optimizer's": operators["optimizer"],
            "launches": row["launches"],
        }


def main() -> None:
    """Run the command line."""
    parser = command_line(__doc__, rounds=7)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--crop", type=float, default=CROP)
    parser.add_argument("--only", nargs="+", default=FOUR, metavar="NAME", choices=list(networks()))
    parser.add_argument("--labels", action="store_true", help="also with labels by PESQ")
    options = parser.parse_args()
    device = Precision(options.device, "off").device
    ways = [way for name in options.only for way in candidates(name, options.labels)]
    sizes = {"batch": options.batch, "crop": options.crop, "rounds": options.rounds}
    rows = measure(ways, device.type, **sizes)
    print(f"a training step of {options.batch} x {options.crop:g} s, {options.rounds} rounds\n")
    report(table(columns(rows)), options.json, device, **sizes, cores=usable_cores(), rows=rows)


if __name__ == "__main__":
    main()
