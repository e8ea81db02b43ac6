"""One step of training of every network: its time by phase, its memory, its operators.

    python -m benchmarks.step [--device auto|cpu|cuda] [--batch 6] [--crop 2] [--rounds N]
                              [--only NAME ...] [--labels] [--compile] [--workers N] [--json FILE]

A step is `training.learner.Learner.step` with a metric discriminator: both networks learn. All
candidates are timed in turn, round by round. Batches are those of the embedded corpus, from the
very loader that training has; "data" is the wait for the next one, its way to the device and its
scaling.
A turn is one step that is not timed and two that are. Labels are a constant, unless `--labels` has
PESQ workers make them, for which the next step waits.

"saved" is what the forward pass and the losses leave for the backward pass, "peak" what a step
takes at most beside weights, their averages and the optimizers' state (`benchmarks.activations`).
The operators that a step calls, on a GPU the launches, measure what a clock measures only on
another machine. `benchmarks.findings` makes ratios of all this and holds them against the targets.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from bandsplit.cost import count_macs, count_parameters, give_back_memory
from benchmarks.activations import peak_bytes, saved_bytes
from benchmarks.candidates import (
    BATCH,
    CROP,
    Candidate,
    Network,
    candidates,
    networks,
    speech,
)
from benchmarks.findings import findings, verdicts
from benchmarks.phases import PHASES, Clock, launches, operators
from benchmarks.results import described, markdown, save, spread
from data.workers import usable_cores
from training.discriminator import no_callback
from training.learner import Learner
from training.pesq_pool import PesqPool
from training.precision import Precision

_MIB = 2**20
_TIMED = 2  # steps in a row
Batches = Iterator[Mapping[str, Any]]


class Measured:
    """A learner, what its steps have taken, and what of them can be counted.

    Attributes:
        seconds: of each timed step, by phase, and of the whole as "step".
        saved, peak, resident: bytes; the last is what there is between two steps. The others are
            not counted (0) of CUDA graphs, whose replays do without the allocator.
        called: operators, or launches.
    """

    def __init__(self, learner: Learner) -> None:
        self.learner, self.device = learner, learner.precision.device
        self.seconds: list[dict[str, float]] = []
        self.saved = self.peak = self.resident = self.called = 0
        self._clock = Clock(self.device)
        self._steps = 0

    def count(self, batches: Batches) -> None:
        """Everything but the time, once all states of the optimizers are there."""
        for _ in range(2):
            self.step(next(batches))
        states = {name: part.state_dict() for name, part in self.learner.parts().items()}
        tensors = [x for x in tree_leaves(states) if isinstance(x, torch.Tensor)]
        self.resident = sum(x.nbytes for x in tensors)
        batch = next(batches)
        if self.learner.config.run.compile != "graphs":
            self._weigh(batch, tensors)
        count = launches if self.device.type == "cuda" else operators
        self.called = count(lambda: self.step(batch))

    def _weigh(self, batch: Mapping[str, Any], resident: list[torch.Tensor]) -> None:
        clean, noisy = (batch[side].to(self.device) for side in ("clean", "noisy"))
        weights = self.learner.config.loss
        losses = self.learner.losses
        self.saved = saved_bytes(
            lambda: losses(clean, noisy, weights)[0], [clean, noisy, *resident]
        )
        # What is left of the last step's gradients is neither there before nor taken anew.
        for optimizer in (self.learner.optimizer, self.learner.discriminator.optimizer):
            optimizer.zero_grad(set_to_none=True)
        self.peak = peak_bytes(lambda: self.step(batch), self.device)

    def time(self, batches: Batches, labels: bool = False) -> None:
        """Take a turn: a step that finds its memory, and those that are timed."""
        give_back_memory()  # between so many networks it would lie in pieces
        self.step(next(batches))
        self.learner.mark = self._clock
        for _ in range(_TIMED):
            self._clock.begin()
            self.step(next(batches))
            self.seconds.append(self._clock.end())
        self.learner.mark = no_callback
        if labels:  # they must not be made while the others are timed
            self.learner.discriminator.backward()
            self.learner.discriminator.skip()

    def step(self, batch: Mapping[str, Any]) -> None:
        result = self.learner.step(dict(batch), self._steps)
        assert not result.broken, result.broken
        self._steps += 1

    def row(self, candidate: Candidate, batch: int) -> dict[str, Any]:
        """All that was measured, for a file."""
        phases = {name: spread([x[name] for x in self.seconds]) for name in ("step", *PHASES)}
        return {
            **vars(candidate),
            "seconds": phases,
            "crops_per_second": batch / phases["step"]["median"],
            "saved_bytes": self.saved or None,
            "peak_bytes": self.peak or None,
            "resident_bytes": self.resident,
            "operators": self.called,
        }


def measure(
    chosen: Mapping[str, Network],
    device: torch.device,
    batch: int,
    crop: float,
    rounds: int,
    pool: PesqPool | None,
    batches: Batches,
    compiled: Sequence[str] = (),
    **changes: Any,
) -> dict[str, Any]:
    """Everything of some networks; compiled: in these ways, too; changes: of their arguments.
    What `main` writes."""
    runs: dict[Candidate, Measured] = {}
    for name, network in chosen.items():
        for candidate in candidates(name, network, compiled):
            learner = candidate.learner(network, device.type, batch, crop, pool, **changes)
            runs[candidate] = Measured(learner)
            runs[candidate].count(batches)
    labels = pool is not None
    for _ in range(rounds):
        for run in runs.values():
            run.time(batches, labels)
    return {
        **described("step", device, batch=batch, crop=crop, rounds=rounds, labels=labels),
        "pesq_workers": len(pool.workers) if pool else 0,
        "cores": usable_cores(),
        "networks": {
            name: {"parameters": count_parameters(net), "macs": crop * count_macs(net)}
            for name, net in ((name, network.made()) for name, network in chosen.items())
        },
        "rows": [run.row(candidate, batch) for candidate, run in runs.items()],
        "findings": findings(runs, chosen, device.type == "cuda", batch, crop, labels),
    }


def tables(result: Mapping[str, Any]) -> str:
    """What `measure` has found, as three tables."""
    sizes = markdown(
        ["network", "parameters", f"GMAC for {result['crop']:g} s"],
        [
            [name, f"{x['parameters']:,}", f"{x['macs'] / 1e9:.2f}"]
            for name, x in result["networks"].items()
        ],
    )
    called = "launches" if result["cuda"] else "operators"
    memory = ["saved (MiB)", "peak (MiB)"]
    steps = markdown(
        ["network", "checkpoint", "AMP", "step (ms)", *PHASES, "crops/s", *memory, called],
        [_cells(row) for row in result["rows"]],
    )
    return f"{sizes}\n{steps}\n{verdicts(result['findings'])}"


def _cells(row: Mapping[str, Any]) -> list[str]:
    modes = {None: "", False: "no", True: "yes", "full": "full"}
    seconds = row["seconds"]
    step = {name: 1e3 * value for name, value in seconds["step"].items()}
    return [
        row["network"] + {"off": "", "on": ", compiled"}.get(row["compile"], ", CUDA graphs"),
        modes[row["checkpoint"]],
        row["amp"],
        f"{step['median']:.1f} ({step['min']:.1f} to {step['max']:.1f})",
        *(f"{1e3 * seconds[phase]['median']:.1f}" for phase in PHASES),
        f"{row['crops_per_second']:.1f}",
        *(f"{x / _MIB:.0f}" if x else "" for x in (row["saved_bytes"], row["peak_bytes"])),
        f"{row['operators']:,}",
    ]


def main() -> None:
    options = _options()
    device = Precision(options.device, "off").device
    chosen = {k: v for k, v in networks().items() if k in (options.only or networks())}
    pool = PesqPool(max(1, usable_cores() - 1)) if options.labels else None
    batches = speech(options.batch, options.crop, options.workers, device.type == "cuda")
    sizes = (options.batch, options.crop, options.rounds)
    try:
        ways = ("on", "graphs") if device.type == "cuda" else ("on",)
        compiled = ways if options.compile else ()
        result = measure(chosen, device, *sizes, pool, batches, compiled)
    finally:
        if pool:
            pool.close()
    threads = "" if result["cuda"] else f", {result['threads']} threads"
    print(f"torch {torch.__version__}, {result['device']}{threads}")
    print(f"{options.batch} x {options.crop:g} s, {options.rounds} rounds\n\n{tables(result)}")
    save(options.json, result)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--crop", type=float, default=CROP)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=tuple(networks()))
    parser.add_argument("--labels", action="store_true", help="labels by PESQ, not a constant")
    parser.add_argument("--compile", action="store_true", help="compiled, too: minutes more")
    parser.add_argument("--workers", type=int, default=2, help="processes of the loader")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, too")
    options = parser.parse_args()
    if not (options.batch >= 1 and options.rounds >= 1 and options.workers >= 0):
        parser.error("--batch and --rounds must be at least 1, --workers at least 0")
    return options


if __name__ == "__main__":
    main()
