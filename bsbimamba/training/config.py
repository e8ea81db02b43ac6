"""The configuration of a run: frozen, grouped by consequence, compared field by field.

`model`, `loss`, `optim`, `data` and `seed` decide what is learnt, and name the run: it is only
continued where they are the same, its length (`optim.epochs`, `optim.steps`) excepted. `run`
decides how fast, and may change. The comments beside the fields are the command line's help.
"""

import dataclasses
import inspect
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from tyro.conf import Suppress, arg

from bsbimamba.data.benchmark import HELD_OUT
from bsbimamba.utils import UserError

# Where data lie: the same run on another machine may have them elsewhere.
PLACES = ("data.root", "data.clean", "data.noise")
_POSITIVE, _SHARE, _ANY = (1e-12, math.inf), (0, 1), (0, math.inf)
_COUNT = (1, 1e9)
_LARGEST_SIZE = 2**16  # of anything in a network


class ConfigError(UserError):
    """A setting is wrong. The text says which one, and what is expected."""


def require(condition: bool, message: str) -> None:
    """Raise ConfigError with `message` unless `condition` holds."""
    if not condition:
        raise ConfigError(message)


def _check(settings: Any, **bounds: tuple[float, float]) -> None:
    """Raise ConfigError unless the named settings of a group lie within their bounds."""
    for name, (low, high) in bounds.items():
        group, value = type(settings).__name__.lower(), getattr(settings, name)
        expected = f"at least {low:g}" if high == math.inf else f"{low:g} to {high:g}"
        require(low <= value <= high, f"{group}.{name} is {value}, expected {expected}")


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
        _check(self, complex_power=(1e-3, 1), metric_from=_SHARE, phase_power=_ANY)
        _check(self, **dict.fromkeys(terms, _ANY))
        require(
            any(getattr(self, name) for name in terms[:4]),
            "one of loss.complex, magnitude, phase and time must be above 0",
        )


@dataclass(frozen=True)
class Optim:
    """The generator's optimizer, how long it runs, and the discriminator's learning rate.

    The rate of a step is the product of a warm-up, a decay by epochs and a fall to 0 over the last
    part of the run (`training.optimizer.Schedule`).
    """

    epochs: Annotated[int, arg(aliases=["--epochs"])] = 120  # length of the run
    steps: Annotated[int, arg(aliases=["--steps"])] = 0  # the same; 0: as the epochs have
    algorithm: Literal["muon", "adamw"] = "muon"  # Muon: for hidden matrices, AdamW for the rest
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
    skips_in_a_row: int = 10  # non-finite steps, before the run goes back to good.pt
    rollbacks: int = 3  # how often; once more ends the run
    rollback_decay: float = 0.5  # of the learning rate, with each

    def __post_init__(self) -> None:
        rates = ("learning_rate", "discriminator_rate", "decay", "rollback_decay")
        _check(self, **dict.fromkeys(rates, (1e-12, 1)), clip_ratio=_POSITIVE)
        _check(self, **dict.fromkeys(("epochs", "decay_every", "skips_in_a_row"), (1, 1e6)))
        _check(self, **dict.fromkeys(("steps", "warmup_steps", "rollbacks"), (0, 1e9)))
        _check(self, **dict.fromkeys(("beta1", "beta2", "ema_decay"), (0, 1 - 1e-9)))
        _check(self, weight_decay=_SHARE, fall=_SHARE)


@dataclass(frozen=True)
class Data:
    """What is trained and validated on. Paths are set by the command line."""

    source: Suppress[str] = "pairs"  # "pairs" or "mix"
    root: Suppress[str] = ""  # of the pairs
    clean: Suppress[str] = ""  # for "mix"
    noise: Suppress[str] = ""
    batch_size: Annotated[int, arg(aliases=["--batch-size"])] = 6  # crops of all processes
    crop_seconds: Annotated[float, arg(aliases=["--crop"])] = 2.0  # length of training pieces
    snr_db: tuple[float, float] = (-2.5, 17.5)  # for "mix": lowest and highest
    babble: float = 0.2  # for "mix": the share of examples in babble, in place of a noise file
    speech_shaped: float = 0.1  # and in steady noise with the spectrum of another speaker
    validation_speakers: tuple[str, ...] = HELD_OUT  # where the corpus has them
    validation_share: float = 0.05  # of the speakers, twice that of the noises, where it has not
    validation_files: int = 96  # at most
    validation_seconds: float = 8.0  # of each file, at most

    def __post_init__(self) -> None:
        _check(self, batch_size=(1, 1e6), validation_files=_COUNT, babble=_SHARE)
        _check(self, crop_seconds=(0.25, 600), validation_seconds=(0.25, 600))
        _check(self, validation_share=(1e-6, 1 - 1e-6), speech_shaped=_SHARE)
        require(
            self.babble + self.speech_shaped <= 1,
            "data.babble and data.speech_shaped must be at most 1 together",
        )
        low, high = self.snr_db
        require(
            -100 <= low <= high <= 100,
            "data.snr_db must be a lowest and a highest value in dB, as in -2.5 17.5",
        )


@dataclass(frozen=True)
class Run:
    """How the run is carried out."""

    device: Annotated[Literal["auto", "cpu", "cuda"], arg(aliases=["--device"])] = "auto"
    amp: Annotated[
        Literal["auto", "bf16", "fp16", "off"], arg(aliases=["--amp"])  # mixed precision
    ] = "auto"
    compile: Literal["auto", "graph", "off"] = "auto"  # a step as one CUDA graph; auto: on one GPU
    accumulate: Annotated[int, arg(aliases=["--accumulate"])] = 1  # pieces of a batch, save memory
    workers: Annotated[int, arg(aliases=["--workers"])] = 2  # of each process' loader
    packed: bool = True  # read recordings that are slow to decode from 16-bit copies
    # PESQ for loss.metric: exact, by processes, or by PyTorch, on the device and without time
    # alignment; auto: torch on a GPU
    metric_labels: Literal["auto", "pesq", "torch"] = "auto"
    pesq_workers: int = 0  # of each process; 0: one for each core but one, shared among processes
    log_every: int = 10  # steps
    save_minutes: float = 10.0  # between checkpoints; each validation writes one more
    validate_every: int = 1000  # steps; the last step is validated in any case

    def __post_init__(self) -> None:
        _check(self, workers=(0, 256), pesq_workers=(0, 256), accumulate=(1, 1e6))
        _check(self, log_every=_COUNT, save_minutes=_ANY, validate_every=_COUNT)


@dataclass(frozen=True)
class Config:
    """One run. model: the arguments of the network's class."""

    name: Suppress[str] = "base"
    recipe: Suppress[str] = "default"
    seed: int = 0
    model: Suppress[Mapping[str, Any]] = field(default_factory=dict)
    loss: Loss = Loss()
    optim: Optim = Optim()
    data: Data = Data()
    run: Run = Run()

    def __post_init__(self) -> None:
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


def flatten(config: Config) -> dict[str, Any]:
    """Return every setting by its dotted name, as in {"model.d_state": 16, "seed": 0}."""
    flat: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if item.name == "model":
            flat |= {f"model.{key}": setting for key, setting in value.items()}
        elif dataclasses.is_dataclass(value):
            flat |= {f"{item.name}.{key}": v for key, v in vars(value).items()}
        else:
            flat[item.name] = value
    return flat


def diff(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """Return the settings in which two configurations differ, as {name: (old, new)}."""
    a, b = flatten(old), flatten(new)
    names = sorted(a.keys() | b.keys())
    return {name: (a.get(name), b.get(name)) for name in names if a.get(name) != b.get(name)}


def beside_recipe(config: Config) -> dict[str, Any]:
    """Return the settings of loss and optimizer that are not those of the recipe."""
    changed = diff(override(BASE, RECIPES[config.recipe]), config)
    return {k: new for k, (_, new) in changed.items() if k.startswith(("loss.", "optim."))}


def method(config: Config) -> dict[str, Any]:
    """Return the settings that a run's outcome follows from, without seed and places of data."""
    of_run = ("run.amp", "run.metric_labels") if config.loss.metric else ("run.amp",)
    return {
        name: value
        for name, value in flatten(config).items()
        if name not in ("seed", *PLACES) and (not name.startswith("run.") or name in of_run)
    }


def override(config: Config, changes: Mapping[str, Any]) -> Config:
    """Return a copy with some settings changed, by dotted name.

    Raises ConfigError where a name is unknown, or a value is out of bounds.
    """
    for name, value in changes.items():
        group, _, key = name.partition(".")
        if group == "model" and key:
            config = dataclasses.replace(config, model={**config.model, key: value})
        elif name not in flatten(config):
            raise ConfigError(f"unknown setting {name!r}")
        elif not key:
            config = dataclasses.replace(config, **{name: value})
        else:
            part = dataclasses.replace(getattr(config, group), **{key: value})
            config = dataclasses.replace(config, **{group: part})
    return config


def network_defaults(network: type) -> dict[str, Any]:
    """Return the arguments of a network's class with their defaults: what `model.` may set."""
    return {p.name: p.default for p in inspect.signature(network).parameters.values()}


def check_model(config: Config, defaults: Mapping[str, Any]) -> None:
    """Raise ConfigError unless a network with these arguments can be built from `config.model`."""
    for key, value in config.model.items():
        name, sizes = f"model.{key}", value if isinstance(value, tuple) else (value,)
        require(key in defaults, f"unknown setting {name!r}")
        require(
            all(type(size) is not int or 1 <= size <= _LARGEST_SIZE for size in sizes),
            f"{name} is {value}, expected 1 to {_LARGEST_SIZE}",
        )


def to_json(config: Config) -> str:
    """Return the configuration as JSON text, one dotted setting a line."""
    return json.dumps(flatten(config), indent=1)


def from_json(text: str) -> Config:
    """Return the configuration that `to_json` wrote. Raise ConfigError for another text."""
    try:
        settings = {
            k: tuple(v) if isinstance(v, list) else v
            for k, v in json.loads(text).items()
            # Of earlier versions: a choice that is always made now; augmentations that were off.
            if not (k == "model.split_norm" and v)
            and not (k.startswith("augment.") and (not v or isinstance(v, list)))
        }
        return override(Config(), settings)
    except (TypeError, ValueError, AttributeError, ConfigError) as error:
        raise ConfigError(f"not a configuration of this version: {error}") from None
