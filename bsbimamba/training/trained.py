"""Trained networks, loaded from run folders for evaluation and use."""

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bsbimamba.network.net import BandSplitNet
from bsbimamba.training.checkpoint import BEST, LAST, read, understood
from bsbimamba.training.config import Config, ConfigError, check_model, from_json, network_defaults
from bsbimamba.utils import ROOT

_NETWORKS = re.compile(r"(baseline|abl[a-z0-9]+)\.[a-z_0-9]+")  # their modules


@dataclass(frozen=True)
class Trained:
    """A network with a run's averaged weights, in evaluation mode on the CPU, and its origin."""

    network: BandSplitNet
    config: Config
    checkpoint: str  # the file's name
    digest: str  # SHA-256 of the file
    data: str  # the fingerprint of what it was trained on
    step: int
    epochs: float
    held_out: list[str]  # the speakers whose PESQ chose the best checkpoint


def load_trained(run: Path) -> Trained:
    """Load the last checkpoint of a run folder (its best one, where it has no last), or a file.

    Raises CheckpointError where there is none, or it cannot be loaded.
    """
    path = run
    if run.is_dir():
        path = run / (LAST if (run / LAST).is_file() else BEST)
    state, digest = read(path)
    with understood(path):
        config = from_json(state["config"])
        net = network_with(state["network"], config, state["ema"]["model"])
        values = state["values"]
        return Trained(
            net,
            config,
            checkpoint=path.name,
            digest=digest,
            data=str(state["data"]),
            step=int(values["step"]),
            epochs=float(values["epochs"]),
            held_out=list(map(str, values["held_out"])),
        )


def network_with(name: str, config: Config, weights: Mapping[str, Tensor]) -> BandSplitNet:
    """Build a network with the given weights, in evaluation mode on the CPU.

    name: of its class, as `training.checkpoint.name_of` gives it.

    Raises:
        ConfigError: there is no such network here, or it has no such settings.
        RuntimeError: the weights are not those of such a network.
    """
    network = _network_class(name)
    check_model(config, network_defaults(network))
    net = network(**config.model)
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:  # which names every tensor
        raise RuntimeError(f"the weights are another network's: {error!s:.300}") from None
    if not all(torch.isfinite(value).all() for value in weights.values()):
        raise RuntimeError("some of the weights are NaN or infinite")
    return net.eval().requires_grad_(False)


def _network_class(name: str) -> type[BandSplitNet]:
    """Return the class that `name_of` names, if it is a network of this repository.

    Importing runs code: only the networks' own folders are looked into. Models, which may come from
    anywhere, lie below the repository too.
    """
    module, _, qualified = name.partition(":")
    if _NETWORKS.fullmatch(module) and (ROOT / f"{module.replace('.', '/')}.py").is_file():
        found = getattr(importlib.import_module(module), qualified, None)
        if isinstance(found, type) and issubclass(found, BandSplitNet):
            return found
    raise ConfigError(f"there is no network {name}")
