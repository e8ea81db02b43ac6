"""Measure one training step of each network: time by phase, memory, operators, launches.

    python -m benchmarks.step [--device auto|cpu|cuda] [--batch 6] [--crop 2] [--rounds N]
                              [--only NAME ...] [--labels] [--compile] [--json FILE]

A step is `training.step.Learner.step` of the recipe `metric`: generator and discriminator learn.
Each network is measured with and without checkpointing, in fp32 and bf16, in turn, round by round.
A turn is one step that is not timed and two that are. Batches are noise without a loader, so "data"
is the copy to the device and the scaling. Labels are constant; `--labels` adds a row with labels of
PESQ workers.

"saved" is what forward pass and losses save for the backward pass. "peak" is the peak memory of a
step without weights, averages and optimizer states. Operators are dispatched ones without views.
"time" and "memory" compare step and peak with the first row of the same network.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._pytree import tree_leaves

from benchmarks.counting import PHASES, Clock, Operators, launches, peak_bytes, saved_bytes
from benchmarks.results import MIB, described, markdown, report, spread
from bsbimamba.data.audio import SAMPLE_RATE
from bsbimamba.data.workers import usable_cores
from bsbimamba.network.cost import give_back_memory
from bsbimamba.training.config import Config, override
from bsbimamba.training.discriminator import no_callback
from bsbimamba.training.distributed import World
from bsbimamba.training.pesq import PesqPool
from bsbimamba.training.precision import Precision
from bsbimamba.training.step import Learner

FOUR = ("baseline", "abl1", "abl2", "abl3")
BATCH, CROP = 6, 2.0  # crops and seconds: what the networks are configured for
_TIMED = 2  # steps in a row


class ConstantPool(PesqPool):
    """A pool that labels everything 0.5, at once."""

    def label(self, clean: NDArray, enhanced: NDArray) -> Callable[[], NDArray]:
        return lambda: np.full(len(clean), 0.5, np.float32)


@dataclass(frozen=True)
class Network:
    """A class of networks and the configuration that it is trained with."""

    kind: type
    config: Config

    @property
    def default(self) -> bool | str | None:
        """Return its default `use_checkpoint`; None if the network has no checkpointing."""
        known = inspect.signature(self.kind).parameters.get("use_checkpoint")
        return None if known is None else self.config.model.get("use_checkpoint", known.default)


def networks() -> dict[str, Network]:
    """Return the networks of the four folders and their presets, by name."""
    found: dict[str, Network] = {}
    presets: dict[str, Network] = {}
    for folder in FOUR:
        train = importlib.import_module(f"{folder}.train")
        found[folder] = Network(getattr(train, "MBSNet", None) or train.BSRNN, train.CONFIG)
        presets |= {name: Network(*each) for name, each in getattr(train, "PRESETS", {}).items()}
    return found | presets


@dataclass(frozen=True)
class Candidate:
    """A way to train a network. labels: whether PESQ workers make its labels."""

    network: str
    checkpoint: bool | str | None  # None where the network has no checkpointing
    amp: str
    compile: str = "off"
    labels: bool = False

    def learner(
        self, network: Network, device: str, batch: int, crop: float, **changes: Any
    ) -> Learner:
        """Return a learner for batches of so many crops of so many seconds, with constant labels;
        `changes` are arguments of the network."""
        if self.checkpoint is not None:
            changes["use_checkpoint"] = self.checkpoint
        sizes = {"data.batch_size": batch, "data.crop_seconds": crop, "run.compile": self.compile}
        config = override(network.config, sizes | {"loss.metric": 0.05})
        config = replace(config, model={**config.model, **changes})
        return Learner(network.kind, config, Precision(device, self.amp), World(), ConstantPool(1))


def candidates(
    name: str, network: Network, labels: bool = False, compiled: Sequence[str] = ()
) -> list[Candidate]:
    """Return the ways to train a network: without checkpointing and with it, each in fp32 and bf16;
    "full" in bf16; as configured in bf16 with labels by PESQ, and compiled in these ways."""
    modes = (None,) if network.default is None else (False, True)
    found = [Candidate(name, mode, amp) for mode, amp in product(modes, ("off", "bf16"))]
    if network.default is not None:
        found.append(Candidate(name, "full", "bf16"))
    configured = Candidate(name, network.default, "bf16")
    if labels:
        found.append(replace(configured, labels=True))
    return found + [replace(configured, compile=way) for way in compiled]


def noise(batch: int, crop: float) -> dict[str, Tensor]:
    """Return a batch of noise, always the same: "clean" and "noisy", each (b, s)."""
    rng = torch.Generator().manual_seed(0)
    size = (2, batch, round(SAMPLE_RATE * crop))
    clean, added = 0.1 * torch.randn(size, generator=rng)
    return {"clean": clean, "noisy": clean + added}


class Measured:
    """A learner, and the measurements of its steps.

    Attributes:
        seconds: of each timed step, by phase, and of the whole as "step".
        counts: "saved_bytes" and "peak_bytes", None of CUDA graphs, whose replays bypass the
            allocator; "resident_bytes" of weights, averages and optimizer states; "operators" by
            phase and of the whole "step", None of compiled networks; "launches", None on a CPU.
    """

    def __init__(self, learner: Learner, batch: dict[str, Tensor]) -> None:
        self.learner, self.batch = learner, batch
        self.device = learner.precision.device
        self.seconds: list[dict[str, float]] = []
        self.counts: dict[str, Any] = {}
        self._clock = Clock(self.device)
        self._steps = 0

    def count(self) -> None:
        """Measure everything but the time, after two steps that create the optimizers' states."""
        for _ in range(2):
            self.step()
        states = [part.state_dict() for part in self.learner.parts().values()]
        tensors = [x for x in tree_leaves(states) if isinstance(x, Tensor)]
        compiled = self.learner.config.run.compile
        saved, peak = (None, None) if compiled == "graphs" else self._bytes(tensors)
        self.counts = {
            "saved_bytes": saved,
            "peak_bytes": peak,
            "resident_bytes": sum(x.nbytes for x in tensors),
            "operators": self._operators() if compiled == "off" else None,
            "launches": launches(self.step) if self.device.type == "cuda" else None,
        }
        self._finish_labels()

    def _bytes(self, resident: list[Tensor]) -> tuple[int, int]:
        clean, noisy = (self.batch[side].to(self.device) for side in ("clean", "noisy"))
        learner = self.learner
        saved = saved_bytes(
            lambda: learner.losses(clean, noisy, learner.config.loss)[0], [clean, noisy, *resident]
        )
        # Gradients of the last step would be freed within the next one, and lower its peak.
        for optimizer in (learner.optimizer, learner.discriminator.optimizer):
            optimizer.zero_grad(set_to_none=True)
        return saved, peak_bytes(self.step, self.device)

    def _operators(self) -> dict[str, int]:
        marks = [("", 0)]
        with Operators() as counter:
            self.learner.mark = lambda phase: marks.append((phase, counter.count))
            self.step()
        self.learner.mark = no_callback
        found = dict.fromkeys(PHASES, 0) | {"step": counter.count}
        for (_, before), (phase, now) in pairwise(marks):
            found[phase] += now - before
        return found

    def time(self) -> None:
        """Take a turn: one step that is not timed, then those that are."""
        give_back_memory()  # many networks would fragment it
        self.step()
        self.learner.mark = self._clock
        for _ in range(_TIMED):
            self._clock.begin()
            self.step()
            self.seconds.append(self._clock.end())
        self.learner.mark = no_callback
        self._finish_labels()

    def _finish_labels(self) -> None:
        """Wait for pending labels, so that workers do not slow the next candidate."""
        self.learner.discriminator.backward()
        self.learner.discriminator.skip()

    def step(self) -> None:
        """Take one step on the batch."""
        result = self.learner.step(dict(self.batch), self._steps)
        assert not result.broken, result.broken
        self._steps += 1

    def row(self, candidate: Candidate) -> dict[str, Any]:
        """Return all measurements, for a JSON file."""
        seconds = {name: spread([x[name] for x in self.seconds]) for name in ("step", *PHASES)}
        return {
            **asdict(candidate),
            "seconds": seconds,
            "crops_per_second": len(self.batch["clean"]) / seconds["step"]["median"],
            **self.counts,
        }


def measure(
    ways: Mapping[Candidate, Network],
    device: torch.device,
    batch: int = BATCH,
    crop: float = CROP,
    rounds: int = 7,
    **changes: Any,
) -> dict[str, Any]:
    """Measure these ways to train. changes: arguments of the networks."""
    pool = PesqPool(max(1, usable_cores() - 1)) if any(x.labels for x in ways) else None
    sides = noise(batch, crop)
    runs: dict[Candidate, Measured] = {}
    try:
        for candidate, network in ways.items():
            learner = candidate.learner(network, device.type, batch, crop, **changes)
            if pool and candidate.labels:
                learner.discriminator.pool = pool
            runs[candidate] = Measured(learner, sides)
            runs[candidate].count()
        for _ in range(rounds):
            for run in runs.values():
                run.time()
    finally:
        if pool:
            pool.close()
    head = described("step", device, batch=batch, crop=crop, rounds=rounds, cores=usable_cores())
    return {**head, "rows": [run.row(candidate) for candidate, run in runs.items()]}


def table(result: Mapping[str, Any]) -> str:
    """Format the result of `measure` as a table, with times in ms."""
    head = ["network", "checkpoint", "AMP", "step (ms)", "time", *PHASES, "crops/s", "saved (MiB)",
            "peak (MiB)", "memory", "operators", "optimizer's", "launches"]  # fmt: skip
    first: dict[str, Mapping[str, Any]] = {}
    rows = [_cells(row, first.setdefault(row["network"], row)) for row in result["rows"]]
    return markdown(head, rows)


def _cells(row: Mapping[str, Any], first: Mapping[str, Any]) -> list[str]:
    modes = {None: "", False: "no", True: "yes", "full": "full"}
    ways = {"off": "", "on": ", compiled", "graphs": ", CUDA graphs"}
    median, low, high = (1e3 * row["seconds"]["step"][x] for x in ("median", "min", "max"))
    saved, peak, operators = row["saved_bytes"], row["peak_bytes"], row["operators"] or {}
    return [
        row["network"] + ways[row["compile"]] + ", PESQ labels" * row["labels"],
        modes[row["checkpoint"]],
        row["amp"],
        f"{median:.1f} ({low:.1f} to {high:.1f})",
        f"{median / 1e3 / first['seconds']['step']['median']:.2f}x",
        *(f"{1e3 * row['seconds'][phase]['median']:.1f}" for phase in PHASES),
        f"{row['crops_per_second']:.1f}",
        f"{saved / MIB:.0f}" if saved else "",
        f"{peak / MIB:.0f}" if peak else "",
        f"{peak / first['peak_bytes']:.2f}x" if peak and first["peak_bytes"] else "",
        *(f"{operators[x]:,}" if operators else "" for x in ("step", "optimizer")),
        "" if row["launches"] is None else f"{row['launches']:,}",
    ]


def main() -> None:
    """Run the command line."""
    known = networks()
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--crop", type=float, default=CROP)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="+", default=FOUR, metavar="NAME", choices=tuple(known))
    parser.add_argument("--labels", action="store_true", help="also with labels by PESQ")
    parser.add_argument("--compile", action="store_true", help="also compiled, and as CUDA graphs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, too")
    options = parser.parse_args()
    device = Precision(options.device, "off").device
    compiled = ("on", "graphs")[: 1 + (device.type == "cuda")] if options.compile else ()
    ways = {
        candidate: known[name]
        for name in options.only
        for candidate in candidates(name, known[name], options.labels, compiled)
    }
    result = measure(ways, device, options.batch, options.crop, options.rounds)
    print(f"a training step of {options.batch} x {options.crop:g} s, {options.rounds} rounds\n")
    report(result, table(result), options.json)


if __name__ == "__main__":
    main()
