"""What a training step takes: time, memory, operators, launches. `benchmarks.gpu` measures steps.

A step is `training.step.Learner.step` of the default recipe, on noise and without a loader.

"saved" is what forward pass and losses save for the backward pass. "peak" is the peak memory of a
step without weights, averages and optimizer states (on a GPU with them). Operators are dispatched
ones without views.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from benchmarks import measuring
from benchmarks.looped import LoopedBSRNN
from benchmarks.measuring import MIB, in_turn
from bsbimamba.data.levels import SAMPLE_RATE
from bsbimamba.training.config import Config, override
from bsbimamba.training.distributed import World
from bsbimamba.training.pesq import Labeller, PesqPool, label_on_device
from bsbimamba.training.precision import Precision
from bsbimamba.training.step import Learner

FOUR = ("baseline", "abl1", "abl2", "abl3")


def constant(waveforms: Tensor) -> Callable[[], Tensor]:
    """Label everything 0.5, at once; see `training.pesq.Labeller`."""
    return lambda: torch.full_like(waveforms[1:, :, 0], 0.5)


@cache
def networks() -> dict[str, tuple[type, Config]]:
    """Return class and configuration of the networks of the four folders, of their presets, and of
    the looped one."""
    trains = {name: importlib.import_module(f"{name}.train") for name in FOUR}
    found = {x: (getattr(y, "MBSNet", None) or y.BSRNN, y.CONFIG) for x, y in trains.items()}
    presets = trains["abl3"].PRESETS | trains["baseline"].PRESETS
    return found | presets | {"looped": (LoopedBSRNN, presets["bsrnn_public"][1])}


@dataclass(frozen=True)
class Candidate:
    """A way to train a network.

    checkpoint: its `use_checkpoint`; None for the configured one, if there is any. labels: of the
    discriminator: "constant", "pesq" or "torch", or "none": no discriminator, as by default.
    compile: `run.compile`.
    """

    network: str
    checkpoint: bool | str | None = None
    amp: str = "auto"
    labels: str = "constant"
    compile: str = "off"


def noise(batch: int, crop: float) -> dict[str, Tensor]:
    """Return a batch of noise, always the same: "clean" and "noisy", each (b, s)."""
    rng = torch.Generator().manual_seed(0)
    clean, added = 0.1 * torch.randn(2, batch, round(SAMPLE_RATE * crop), generator=rng)
    return {"clean": clean, "noisy": clean + added}


class Measured:
    """A learner that takes steps on so many crops of so many seconds, always the same noise, and
    what is measured of them."""

    def __init__(
        self, way: Candidate, device: str, batch: int, crop: float, labeller: Labeller = constant
    ) -> None:
        self.device, self.batch = device, noise(batch, crop)
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self.batch = {side: x.pin_memory() for side, x in self.batch.items()}  # as the loader
        kind, config = networks()[way.network]
        metric = 0.0 if way.labels == "none" else 0.05
        changes = {"loss.metric": metric, "run.compile": way.compile}
        config = override(config, changes | {"data.batch_size": batch, "data.crop_seconds": crop})
        if way.checkpoint is not None:
            config = replace(config, model={**config.model, "use_checkpoint": way.checkpoint})
        self.learner = Learner(kind, config, Precision(device, way.amp), World(), labeller)
        self._eager, self._steps = way.compile == "off", 0

    def step(self) -> None:
        """Take one step on the batch. What it gave is not read, so that nothing waits for it."""
        self.result = self.learner.step(dict(self.batch), self._steps)
        self._steps += 1

    def warm_up(self) -> Learner:
        """Take so many steps that all states are there, and the graph if it is wanted."""
        for _ in range(2 if self._eager else 6):
            self.step()
        return self.learner

    def counts(self) -> dict[str, Any]:
        """Measure everything but the time.

        Returns:
            "peak (MiB)": of a step; on a GPU since this learner is there, with its weights. On a
            GPU "launches": of a step, by phase and as "step". Without a graph "saved (MiB)" and,
            of `measuring.Operators`, "operators", "traffic (GB)" and "products (TFLOP)".
        Raises RuntimeError where a graph is wanted, but there is none.
        """
        self.warm_up()
        assert not self.result.broken, self.result.broken
        if reason := getattr(self.learner._computed, "reason", None):
            raise RuntimeError(f"there is no CUDA graph: {reason}")
        found: dict[str, Any] = {}
        if self.device == "cuda":
            found["peak (MiB)"] = torch.cuda.max_memory_allocated() / MIB
            found["launches"] = measuring.launches(self.learner, self.step)
        if self._eager:
            found["saved (MiB)"] = self.saved_bytes() / MIB
            with measuring.Operators() as counter:
                self.step()
            found |= {"operators": counter.count, "traffic (GB)": counter.bytes / 1e9}
            found["products (TFLOP)"] = counter.operations / 1e12
        return found

    def saved_bytes(self) -> int:
        """Return the bytes that forward pass and losses save for the backward pass."""
        clean, noisy = (self.batch[side].to(self.device) for side in ("clean", "noisy"))
        states = [part.state_dict() for part in self.learner.parts().values()]
        known = [clean, noisy, *(x for x in tree_leaves(states) if isinstance(x, Tensor))]
        how = self.learner.config.loss
        return measuring.saved_bytes(lambda: self.learner.losses(clean, noisy, how)[0], known)


def measure(
    ways: Sequence[Candidate], device: str, batch: int, crop: float, rounds: int
) -> list[dict[str, Any]]:
    """Measure these ways to train, in turn. Returns a row of the table for each."""
    pool = PesqPool(World().spare_cores())
    kinds: dict[str, Labeller] = {"torch": label_on_device, "pesq": pool.label}
    try:
        runs = {x: Measured(x, device, batch, crop, kinds.get(x.labels, constant)) for x in ways}
        counts = [run.counts() for run in runs.values()]
        steps = {way: partial(measuring.seconds, run.step, device) for way, run in runs.items()}
        turns = in_turn(steps, rounds)
    finally:
        pool.close()
    rows = []
    for found, (way, times) in zip(counts, turns.items(), strict=True):
        step = [1e3 * x for x in times]
        row = {**asdict(way), "amp": runs[way].learner.precision.amp, "batch": batch}
        row |= {"median (ms)": median(step), "min (ms)": min(step), "max (ms)": max(step)}
        rows.append(row | {"crops/s": 1e3 * batch / median(step)} | found)
    return rows
