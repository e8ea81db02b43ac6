"""The configuration of a run: frozen, grouped by consequence, compared field by field.

`model`, `loss`, `optim`, `data`, `augment` and `seed` decide what is learnt, and name the run: it
is only continued where they are the same. `run` decides how fast and how far, and may change.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from data.augment import Augment
from data.benchmark import HELD_OUT


class ConfigError(ValueError):
    """A setting is wrong; the text says which, and what is expected."""


def require(condition: bool, message: str) -> None:
    """Raise ConfigError with `message` unless `condition` holds."""
    if not condition:
        raise ConfigError(message)


@dataclass(frozen=True)
class Loss:
    """Weights of the terms in `training.losses`; 0 leaves a term out.

    The defaults are those of the systems above PESQ 3.5 (MP-SENet: Lu et al., Interspeech 2023).
    """

    complex: float = 0.1
    magnitude: float = 0.9
    phase: float = 0.3
    time: float = 0.2
    consistency: float = 0.1
    metric: float = 0.05
    metric_from_epoch: int = 0  # the adversary and its term start there

    def __post_init__(self) -> None:
        for name, weight in dataclasses.asdict(self).items():
            require(weight >= 0, f"loss.{name} is {weight}, expected 0 or more")
        terms = (self.complex, self.magnitude, self.phase, self.time)
        require(any(terms), "one of loss.complex, magnitude, phase and time must be above 0")


@dataclass(frozen=True)
class Optim:
    """The generator's optimizer; the adversary uses the same."""

    algorithm: str = "adamw"  # or "muon" for hidden matrices and AdamW for the rest
    learning_rate: float = 5e-4
    beta1: float = 0.8
    beta2: float = 0.99
    weight_decay: float = 0.01
    decay: float = 0.99  # of the learning rate, by this factor
    decay_every: int = 1  # epochs
    warmup_steps: int = 0  # in which the rate rises from 0
    cooldown: tuple[int, int] = (0, 0)  # it falls from this step on, to 0 at that; then all ends
    clip_ratio: float = 3.0  # largest gradient norm, times the median of the last 128 steps
    ema_decay: float = 0.999
    skips_in_a_row: int = (
        10  # steps of loss or gradient not finite, before going back to what is saved
    )
    rollbacks: int = 3  # how often; once more ends the run
    rollback_decay: float = 0.5  # of the learning rate, with each

    def __post_init__(self) -> None:
        known = ("adamw", "muon")
        require(self.algorithm in known, f"optim.algorithm is not {' or '.join(known)}")
        require(0 < self.learning_rate <= 1, "optim.learning_rate must be above 0 and at most 1")
        require(0 <= self.weight_decay <= 1, "optim.weight_decay must be in [0, 1]")
        require(0 < self.decay <= 1, "optim.decay must be in (0, 1]")
        require(self.decay_every >= 1, "optim.decay_every must be at least 1 epoch")
        require(self.warmup_steps >= 0, "optim.warmup_steps must be at least 0")
        require(
            self.cooldown == (0, 0)
            or (len(self.cooldown) == 2 and 0 <= self.cooldown[0] < self.cooldown[1]),
            "optim.cooldown must be a first and a last step, as in (8000, 10000), or (0, 0)",
        )
        require(self.clip_ratio > 0, "optim.clip_ratio must be above 0")
        for name in ("beta1", "beta2", "ema_decay"):
            require(0 <= getattr(self, name) < 1, f"optim.{name} must be in [0, 1)")
        require(self.skips_in_a_row >= 1, "optim.skips_in_a_row must be at least 1 step")
        require(self.rollbacks >= 0, "optim.rollbacks must be at least 0")
        require(0 < self.rollback_decay <= 1, "optim.rollback_decay must be in (0, 1]")


@dataclass(frozen=True)
class Data:
    """What is trained and validated on. Paths are set by the command line."""

    source: str = "pairs"  # "pairs", "mix" or "synthetic"
    root: str = ""  # of the pairs, or of the embedded corpus
    clean: str = ""  # for "mix"
    noise: str = ""
    batch_size: int = 6  # of a step, whatever the number of processes
    crop_seconds: float = 2.0
    snr_db: tuple[float, float] = (-2.5, 17.5)  # for "mix": lowest and highest
    validation_speakers: tuple[str, ...] = HELD_OUT  # where the corpus has them
    validation_share: float = 0.05  # of the speakers and noise files, where it has not
    validation_files: int = 48  # at most
    validation_seconds: float = 8.0  # of each file, at most

    def __post_init__(self) -> None:
        require(self.batch_size >= 1, "data.batch_size must be at least 1")
        for name in ("crop_seconds", "validation_seconds"):
            seconds = getattr(self, name)
            require(0.25 <= seconds <= 600, f"data.{name} is {seconds}, expected 0.25 to 600")
        require(self.validation_files >= 1, "data.validation_files must be at least 1")
        require(0 < self.validation_share < 1, "data.validation_share must be in (0, 1)")
        require(
            len(self.snr_db) == 2 and -100 <= self.snr_db[0] <= self.snr_db[1] <= 100,
            "data.snr_db must be a lowest and a highest value in dB, as in (-2.5, 17.5)",
        )


@dataclass(frozen=True)
class Run:
    """How the run is carried out."""

    epochs: int = 120
    device: str = "auto"  # "auto", "cpu" or "cuda"
    amp: str = "auto"  # "auto", "bf16", "fp16" or "off"
    compile: str = "off"  # the network's forward pass: "off", "on" or "graphs" (CUDA graphs)
    accumulate: int = 1  # pieces that a process takes its part of the batch in, to save memory
    workers: int = 2  # of each process' loader
    packed: bool = True  # read from packs, where the data have some
    pesq_workers: int = 0  # of each process; 0: one for each core but one, shared among processes
    log_every: int = 10  # steps
    save_minutes: float = 10.0  # between checkpoints inside an epoch; one more at its end
    validate_every: int = 1  # epochs; the end of the epochs, or of the cooldown, is in any case

    def __post_init__(self) -> None:
        require(1 <= self.epochs <= 10**6, "run.epochs must be at least 1, at most a million")
        require(self.device in ("auto", "cpu", "cuda"), "run.device is not auto, cpu or cuda")
        require(
            self.amp in ("auto", "bf16", "fp16", "off"), "run.amp is not auto, bf16, fp16 or off"
        )
        require(self.compile in ("off", "on", "graphs"), "run.compile is not off, on or graphs")
        for name in ("workers", "pesq_workers"):
            require(0 <= getattr(self, name) <= 256, f"run.{name} must be at least 0, at most 256")
        require(self.accumulate >= 1, "run.accumulate must be at least 1")
        require(self.log_every >= 1, "run.log_every must be at least 1 step")
        require(self.save_minutes >= 0, "run.save_minutes must be at least 0")
        require(self.validate_every >= 1, "run.validate_every must be at least 1 epoch")


@dataclass(frozen=True)
class Config:
    """One run. model: the arguments of the network's class."""

    name: str = "base"
    recipe: str = "mpsenet"
    seed: int = 0
    model: Mapping[str, Any] = field(default_factory=dict)
    loss: Loss = Loss()
    optim: Optim = Optim()
    data: Data = Data()
    augment: Augment = field(default_factory=Augment)
    run: Run = Run()

    def __post_init__(self) -> None:
        # A read-only view, so that a frozen configuration is frozen all the way down.
        object.__setattr__(self, "model", MappingProxyType(dict(self.model)))
        require(self.recipe in RECIPES, f"recipe {self.recipe!r} is not {' or '.join(RECIPES)}")
        require(0 <= self.seed < 2**63, "seed must be at least 0 and below 2^63")


# What a recipe changes of the defaults above, which are those of "mpsenet".
RECIPES: dict[str, dict[str, Any]] = {
    "mpsenet": {},
    # sungwon23/BSRNN: the terms' weights, and the adversary for the second half of 120 epochs.
    "bsrnn": {
        "loss.complex": 0.5,
        "loss.magnitude": 0.5,
        "loss.phase": 0.0,
        "loss.time": 0.0,
        "loss.consistency": 0.0,
        "loss.metric": 1.0,
        "loss.metric_from_epoch": 60,
        "optim.learning_rate": 1e-3,
        "optim.beta1": 0.9,
        "optim.beta2": 0.999,
        "optim.weight_decay": 0.0,
        "optim.decay": 0.98,
        "optim.decay_every": 10,
    },
    "plain": {"loss.metric": 0.0},
}

# The published defaults. Changing one changes published numbers: add a field instead.
BASE = Config()
