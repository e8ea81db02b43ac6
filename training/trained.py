"""Trained networks, loaded from run folders for evaluation and use."""

from __future__ import annotations

import hashlib
import importlib
import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bandsplit.net import BandSplitNet
from data.utils import some
from training.checkpoint import BEST, LAST, config_of, read, understood, unpack
from training.config import Config, ConfigError, network_defaults, require, suggestion

_LARGEST_SIZE = 2**16  # of anything in a network
_NETWORKS = re.compile(r"(baseline|abl[a-z0-9]+)\.[a-z_0-9]+")  # their modules
_ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Trained:
    """A network with a run's averaged weights, in evaluation mode on the CPU, and where it is from.

    Attributes:
        checkpoint: the file's name.
        digest: its content, hashed.
        data: the fingerprint of what it was trained on.
        step, epochs: for how long.
        held_out: the speakers whose PESQ chose the best checkpoint.
    """

    network: BandSplitNet
    config: Config
    checkpoint: str
    digest: str
    data: str
    step: int
    epochs: float
    held_out: list[str]


def load_trained(run: Path) -> Trained:
    """Load the last checkpoint of a run folder (its best one, where it has no last), or a file.

    Raises:
        CheckpointError: there is none, or it cannot be loaded.
    """
    path = run
    if run.is_dir():
        best_alone = (run / BEST).is_file() and not (run / LAST).is_file()
        path = run / (BEST if best_alone else LAST)
    content = read(path)
    state = unpack(content, path)
    config = config_of(state, path)
    with understood(path):
        net = network_with(state["network"], config, state["ema"]["model"])
        values = state["values"]
        step, epochs, held_out = int(values["step"]), float(values["epochs"]), values["held_out"]
        digest = hashlib.sha256(content).hexdigest()
        if not math.isfinite(epochs):
            raise ConfigError(f"{epochs} epochs")
        data, speakers = str(state["data"]), list(map(str, held_out))
        return Trained(net, config, path.name, digest, data, step, epochs, speakers)


def network_with(name: str, config: Config, weights: Mapping[str, Tensor]) -> BandSplitNet:
    """Build a network with the given weights, in evaluation mode on the CPU.

    Args:
        name: of its class, as `training.checkpoint.name_of` gives it.
        config: its `model` is used.

    Raises:
        ConfigError: there is no such network here, or it has no such settings.
        RuntimeError: the weights are not those of such a network.
    """
    network = _network_class(name)
    check_model(config, network_defaults(network))
    layers = config.model.get("num_layers", 1)
    if not isinstance(layers, int) or layers > len(weights):
        raise ConfigError(f"{layers} layers with {len(weights)} tensors of weights")
    # Before memory is taken for it: settings from elsewhere may ask for any size.
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that nothing is copied
        empty = network(**config.model)
        try:
            empty.load_state_dict(weights)
        except RuntimeError as error:  # which names every tensor
            reasons = [f"{line.strip():.200}" for line in str(error).splitlines()[1:]]
            raise RuntimeError(f"the weights are another network's: {some(reasons, 2)}") from None
    if not all(torch.isfinite(value).all() for value in weights.values()):
        raise RuntimeError("some of the weights are NaN or infinite")
    net = network(**config.model)
    net.load_state_dict(weights)
    return net.eval().requires_grad_(False)


def check_model(config: Config, defaults: Mapping[str, Any]) -> None:
    """Check `config.model` against the network's arguments and their defaults.

    Raises:
        ConfigError: the network takes no such argument, or a size is out of all bounds, or there
            are more or fewer of them than the network has.
    """
    for key, value in config.model.items():
        name = f"model.{key}"
        if key not in defaults:
            raise ConfigError(f"unknown setting {name!r}{suggestion(key, defaults)}")
        sizes = value if isinstance(value, tuple) else (value,)
        require(
            all(type(size) is not int or 1 <= size <= _LARGEST_SIZE for size in sizes),
            f"{name} is {value}, expected 1 to {_LARGEST_SIZE}",
        )
        count = len(defaults[key]) if isinstance(defaults[key], tuple) else 1
        require(len(sizes) == count, f"{name} is {value}, expected {count} values")


def _network_class(name: str) -> type[BandSplitNet]:
    """Return the class that `name_of` names, if it is a network of this repository.

    Importing runs code: only the networks' own folders are looked into. Models, which may come from
    anywhere, lie below the repository too.
    """
    module, _, qualified = name.partition(":")
    path = _ROOT / f"{module.replace('.', '/')}.py"
    if _NETWORKS.fullmatch(module) and path.is_file():
        found = getattr(importlib.import_module(module), qualified, None)
        if isinstance(found, type) and issubclass(found, BandSplitNet):
            return found
    raise ConfigError(f"there is no network {name}")
