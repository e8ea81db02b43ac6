"""The networks whose training is measured, and what each can be set to."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.looped_bsrnn import LoopedBSRNN
from data import synthesise
from data.audio import SAMPLE_RATE
from data.corpus import load_pairs
from data.dataset import PairDataset
from data.loading import EpochSampler, Loader
from training.config import Config
from training.distributed import World
from training.learner import Learner
from training.pesq_pool import PesqPool
from training.precision import Precision
from training.settings import override

Mode = bool | str | None  # of checkpointing; None where a network has none
ABLATIONS = ("abl1", "abl2", "abl3")
FOUR = ("baseline", *ABLATIONS)
BATCH, CROP = 6, 2.0  # crops and seconds: what the networks are configured for, and targets set
_AMPS = ("off", "bf16")
_JUDGED = {"loss.metric": 0.05}  # generator and discriminator learn
_CORPUS = Path(__file__).resolve().parents[1] / "data" / "synthetic"


class ConstantPool(PesqPool):
    """Labels everything 0.5, at once."""

    def label(self, clean: NDArray, enhanced: NDArray) -> Callable[[], NDArray]:
        return lambda: np.full(len(clean), 0.5, np.float32)


@dataclass(frozen=True)
class Network:
    """A class of networks and the configuration that it is trained with."""

    kind: type
    config: Config

    @property
    def default(self) -> Mode:
        """How it is checkpointed unless told otherwise."""
        known = inspect.signature(self.kind).parameters.get("use_checkpoint")
        return None if known is None else self.config.model.get("use_checkpoint", known.default)

    def made(self) -> Any:
        """One of them, as configured."""
        return self.kind(**self.config.model)


def networks() -> dict[str, Network]:
    """The four networks and three controls, by name; "looped" is BSRNN as published."""
    found = {}
    for name in FOUR:
        train = importlib.import_module(f"{name}.train")
        config = override(train.CONFIG, _JUDGED)
        found[name] = Network(getattr(train, "MBSNet", None) or train.BSRNN, config)
    presets = importlib.import_module("baseline.train").PRESETS
    public, dual = (
        Network(kind, override(config, _JUDGED))
        for kind, config in (presets["bsrnn_public"], presets["lstm_dualpath"])
    )
    looped = Network(LoopedBSRNN, replace(public.config, name="looped", model={}))
    return {**found, "bsrnn_public": public, "looped": looped, "lstm_dualpath": dual}


@dataclass(frozen=True)
class Candidate:
    """A network by name, how it is checkpointed, its mixed precision, and how it is compiled."""

    network: str
    checkpoint: Mode
    amp: str
    compile: str = "off"

    def learner(
        self,
        network: Network,
        device: str,
        batch: int,
        crop: float,
        pool: PesqPool | None = None,
        **changes: Any,
    ) -> Learner:
        """What trains it on batches of so many crops of so many seconds.

        Args:
            pool: labels its examples; by default all of them the same, at once.
            changes: of the network's arguments.
        """
        if self.checkpoint is not None:
            changes["use_checkpoint"] = self.checkpoint
        sizes = {"data.batch_size": batch, "data.crop_seconds": crop}
        config = override(network.config, sizes | {"run.compile": self.compile})
        config = replace(config, model={**config.model, **changes})
        precision = Precision(device, self.amp)
        return Learner(network.kind, config, precision, World(), pool or ConstantPool(1))


def candidates(name: str, network: Network, compiled: Sequence[str] = ()) -> list[Candidate]:
    """With checkpointing and without, in fp32 and bf16; with nothing kept, in bf16; as configured
    in bf16, compiled in these ways."""
    others = [Candidate(name, network.default, "bf16", way) for way in compiled]
    if network.default is None:
        return [Candidate(name, None, amp) for amp in _AMPS] + others
    four = [Candidate(name, mode, amp) for mode, amp in product((False, True), _AMPS)]
    return [*four, Candidate(name, "full", "bf16"), *others]


def noise(batch: int, crop: float) -> dict[str, Any]:
    """A batch of noise in noise, the same every time."""
    rng = torch.Generator().manual_seed(0)
    size = (2, batch, round(SAMPLE_RATE * crop))
    clean, added = 0.1 * torch.randn(size, generator=rng)
    return {"clean": clean, "noisy": clean + added}


def speech(batch: int, crop: float, workers: int, pin: bool) -> Iterator[Mapping[str, Any]]:
    """Batches of the embedded corpus without end, from the loader that training has."""
    pairs = load_pairs(synthesise.ensure(_CORPUS), "train")
    dataset = PairDataset(pairs, 0, round(SAMPLE_RATE * crop))
    loader = Loader(dataset, EpochSampler(len(pairs), batch, 0), workers, pin)
    epoch = 0
    while True:
        yield from loader.batches(epoch, 0)
        epoch += 1
