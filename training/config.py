"""The configuration of a run: frozen, grouped by consequence, compared field by field.

`model`, `loss`, `optim`, `data`, `augment` and `seed` decide what is learnt, and name the run: it
is only continued where they are the same, its length (`optim.epochs`, `optim.steps`) excepted.
`run` decides how fast, and may change.
"""

from __future__ import annotations

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
    """Weights of the terms in `training.losses`, and how they are computed; 0 leaves a term out.

    The default weights are those of the systems above PESQ 3.5 (MP-SENet: Lu et al., Interspeech
    2023), without their metric term, which lost in every trial (EXPERIMENTS.md).
    """

    complex: float = 0.1
    magnitude: float = 0.9
    phase: float = 0.3
    time: float = 0.2
    consistency: float = 0.1
    metric: float = 0.0
    absolute: bool = False  # spectral distances are absolute ones, not squared ones
    complex_power: float = 0.3  # magnitudes of the complex term are compressed by it; 1: not at all
    phase_power: float = 0.3  # a bin's phase counts in proportion to |clean| to this power
    metric_from: float = 0.0  # share of the run's steps after which the metric term is used
    third_pair: bool = False  # the discriminator also learns the PESQ of (enhanced, noisy)

    def __post_init__(self) -> None:
        terms = ("complex", "magnitude", "phase", "time", "consistency", "metric")
        for name in (*terms, "phase_power"):
            value = getattr(self, name)
            require(value >= 0, f"loss.{name} is {value}, expected 0 or more")
        require(
            any(getattr(self, name) for name in terms[:4]),
            "one of loss.complex, magnitude, phase and time must be above 0",
        )
        require(0 < self.complex_power <= 1, "loss.complex_power must be above 0 and at most 1")
        require(0 <= self.metric_from <= 1, "loss.metric_from must be in [0, 1]")


@dataclass(frozen=True)
class Optim:
    """The generator's optimizer, how long it runs, and the discriminator's learning rate.

    The rate of a step is the product of a warm-up, a decay by epochs and a fall to 0 over the last
    part of the run (`training.schedule`).
    """

    epochs: int = 120
    steps: int = 0  # in all; 0: as many as the epochs have
    algorithm: str = "muon"  # for hidden matrices, AdamW for the rest; or "adamw" for all
    learning_rate: float = 2e-3
    discriminator_rate: float = 5e-4  # of AdamW, whatever the generator's optimizer
    beta1: float = 0.8
    beta2: float = 0.99
    weight_decay: float = 0.01
    warmup_steps: int = 100  # in which the rate rises from 0
    decay: float = 1.0  # of the learning rate, by this factor
    decay_every: int = 1  # epochs
    fall: float = 0.2  # the last share of the steps, over which the rate falls to 0
    clip_ratio: float = 3.0  # largest gradient norm, times the median of the last 128 steps
    ema_decay: float = 0.999
    skips_in_a_row: int = (
        10  # steps of loss or gradient not finite, before going back to what is saved
    )
    rollbacks: int = 3  # how often; once more ends the run
    rollback_decay: float = 0.5  # of the learning rate, with each

    def __post_init__(self) -> None:
        require(1 <= self.epochs <= 10**6, "optim.epochs must be at least 1, at most a million")
        require(0 <= self.steps <= 10**9, "optim.steps must be at least 0, at most 10^9")
        known = ("adamw", "muon")
        require(self.algorithm in known, f"optim.algorithm is not {' or '.join(known)}")
        for name in ("learning_rate", "discriminator_rate"):
            require(0 < getattr(self, name) <= 1, f"optim.{name} must be above 0 and at most 1")
        require(0 <= self.weight_decay <= 1, "optim.weight_decay must be in [0, 1]")
        require(self.warmup_steps >= 0, "optim.warmup_steps must be at least 0")
        require(0 < self.decay <= 1, "optim.decay must be in (0, 1]")
        require(self.decay_every >= 1, "optim.decay_every must be at least 1 epoch")
        require(0 <= self.fall <= 1, "optim.fall must be in [0, 1]")
        require(self.clip_ratio > 0, "optim.clip_ratio must be above 0")
        for name in ("beta1", "beta2", "ema_decay"):
            require(0 <= getattr(self, name) < 1, f"optim.{name} must be in [0, 1)")
        require(self.skips_in_a_row >= 1, "optim.skips_in_a_row must be at least 1 step")
        require(self.rollbacks >= 0, "optim.rollbacks must be at least 0")
        require(0 < self.rollback_decay <= 1, "optim.rollback_decay must be in (0, 1]")


@dataclass(frozen=True)
class Data:
    """What is trained and validated on. Paths are set by the command line."""

    source: str = "pairs"  # "pairs" or "mix"
    root: str = ""  # of the pairs
    clean: str = ""  # for "mix"
    noise: str = ""
    batch_size: int = 6  # of a step, whatever the number of processes
    crop_seconds: float = 2.0
    snr_db: tuple[float, float] = (-2.5, 17.5)  # for "mix": lowest and highest
    babble: float = 0.2  # for "mix": the share of examples in babble, in place of a noise file
    speech_shaped: float = 0.1  # and in steady noise with the spectrum of another speaker
    validation_speakers: tuple[str, ...] = HELD_OUT  # where the corpus has them
    validation_share: float = 0.05  # of the speakers, twice that of the noises, where it has not
    validation_files: int = 96  # at most
    validation_seconds: float = 8.0  # of each file, at most

    def __post_init__(self) -> None:
        require(self.batch_size >= 1, "data.batch_size must be at least 1")
        for name in ("crop_seconds", "validation_seconds"):
            seconds = getattr(self, name)
            require(0.25 <= seconds <= 600, f"data.{name} is {seconds}, expected 0.25 to 600")
        require(self.validation_files >= 1, "data.validation_files must be at least 1")
        require(0 < self.validation_share < 1, "data.validation_share must be in (0, 1)")
        for name in ("babble", "speech_shaped"):
            share = getattr(self, name)
            require(0 <= share <= 1, f"data.{name} is {share}, expected a probability, 0 to 1")
        require(
            self.babble + self.speech_shaped <= 1,
            "data.babble and data.speech_shaped must be at most 1 together",
        )
        require(
            len(self.snr_db) == 2 and -100 <= self.snr_db[0] <= self.snr_db[1] <= 100,
            "data.snr_db must be a lowest and a highest value in dB, as in (-2.5, 17.5)",
        )


@dataclass(frozen=True)
class Run:
    """How the run is carried out."""

    device: str = "auto"  # "auto", "cpu" or "cuda"
    amp: str = "auto"  # "auto", "bf16", "fp16" or "off"
    compile: str = "off"  # the network's forward pass: "off", "on" or "graphs" (CUDA graphs)
    accumulate: int = 1  # pieces that a process takes its part of the batch in, to save memory
    workers: int = 2  # of each process' loader
    packed: bool = True  # read from packs, where the data have some
    pesq_workers: int = 0  # of each process; 0: one for each core but one, shared among processes
    log_every: int = 10  # steps
    save_minutes: float = 10.0  # between checkpoints; each validation writes one more
    validate_every: int = 1000  # steps; the last step is validated in any case

    def __post_init__(self) -> None:
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
        require(self.validate_every >= 1, "run.validate_every must be at least 1 step")


@dataclass(frozen=True)
class Config:
    """One run. model: the arguments of the network's class."""

    name: str = "base"
    recipe: str = "default"
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


# What a recipe changes of the defaults above.
RECIPES: dict[str, dict[str, Any]] = {
    "default": {},
    # sungwon23/BSRNN (train.py): L1 on |S|^0.3 and on the uncompressed complex spectrum; Adam for
    # both networks; a discriminator that learns three pairs from the start and is used for the
    # second half of 120 epochs. What differs: weights are averaged, gradients are clipped by their
    # history instead of at 5, and the discriminator judges the re-analysed waveform, without
    # dropout, one step after its labels were asked for.
    "bsrnn": {
        "loss.complex": 0.5,
        "loss.magnitude": 0.5,
        "loss.phase": 0.0,
        "loss.time": 0.0,
        "loss.consistency": 0.0,
        "loss.metric": 1.0,
        "loss.absolute": True,
        "loss.complex_power": 1.0,
        "loss.metric_from": 0.5,
        "loss.third_pair": True,
        "optim.algorithm": "adamw",
        "optim.weight_decay": 0.0,
        "optim.learning_rate": 1e-3,
        "optim.discriminator_rate": 1e-3,
        "optim.beta1": 0.9,
        "optim.beta2": 0.999,
        "optim.warmup_steps": 0,
        "optim.decay": 0.98,
        "optim.decay_every": 10,
        "optim.fall": 0.0,
    },
    # The metric discriminator of MP-SENet, used for the second half of a run.
    "metric": {"loss.metric": 0.05, "loss.metric_from": 0.5},
}

# The defaults. A change of one changes published numbers: CHANGELOG says which.
BASE = Config()
