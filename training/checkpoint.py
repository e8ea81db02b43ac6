"""Checkpoints: what a run is, as tensors and plain values in one file; written whole or not at all.

Loaded with `weights_only=True`: a checkpoint is data and cannot run code.
"""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from bandsplit.net import BandSplitNet
from data.files import replacing
from training.config import Config, ConfigError
from training.settings import check_model, diff, from_json, network_defaults, to_json

LAST, BEST = "last.pt", "best.pt"
_ROOT = Path(__file__).resolve().parents[1]
# Settings by which a run may differ from the one that it continues. Data may have moved: what is
# compared is their fingerprint.
_FREE = ("run.", "data.root", "data.clean", "data.noise")


class CheckpointError(Exception):
    """A checkpoint is missing, unreadable or of another run; the text says which and what to do."""


class Stateful(Protocol):
    """Anything with torch's two methods for its state."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> Any: ...


def save(
    path: Path,
    network: type,
    config: Config,
    data: str,
    parts: Mapping[str, Stateful],
    values: dict[str, Any],
) -> None:
    """Write the state of all `parts` and the plain `values`, by way of a temporary file.

    data: the training and validation sets' fingerprint.

    Raises:
        CheckpointError: the file cannot be written; one that was there before is untouched.
    """
    state: dict[str, Any] = {name: part.state_dict() for name, part in parts.items()}
    state["values"] = values
    state["network"] = f"{network.__module__}:{network.__qualname__}"
    state["config"] = to_json(config)
    state["data"] = data
    try:
        with replacing(path) as temporary, temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{path} cannot be written: {error}") from None


def read(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU.

    Raises:
        CheckpointError: it is missing or is not one.
    """
    if os.path.lexists(path) and not path.is_file():  # reading a named pipe would wait forever
        raise CheckpointError(f"{path} is not a file; remove it, or name another folder")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # guesses about what else the file may be
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint") from None
    except MemoryError:
        raise CheckpointError(f"{path} needs more memory than there is") from None
    except Exception:
        # Of bytes that are no checkpoint, the unpickler may make any error there is.
        raise CheckpointError(f"{path} is damaged, or is not a checkpoint") from None
    if not isinstance(state, dict) or not {"network", "config", "values", "ema"} <= state.keys():
        raise CheckpointError(f"{path} is not a checkpoint of this project")
    return state


def restore(
    path: Path, network: type, config: Config, data: str, parts: Mapping[str, Stateful]
) -> dict[str, Any]:
    """Load a checkpoint into `parts` and return its plain values.

    Raises:
        CheckpointError: it is of another network, of other data, or its configuration differs in
            more than `run`.
    """
    state = read(path)
    name = f"{network.__module__}:{network.__qualname__}"
    if state["network"] != name:
        raise CheckpointError(
            f"{path} is of the network {state['network']}, not {name}. "
            "Name another folder with --run, or start anew with --fresh."
        )
    # An argument that one of them leaves to the network's default is compared by that.
    defaults = network_defaults(network)
    there, now = (replace(c, model={**defaults, **c.model}) for c in (_config(path, state), config))
    differences = {k: v for k, v in diff(there, now).items() if not k.startswith(_FREE)}
    if differences:
        lines = [f"  {key}: {old!r} there, {new!r} now" for key, (old, new) in differences.items()]
        raise CheckpointError(
            "\n".join([f"{path} was made with other settings:", *lines])
            + "\nName another folder with --run, set them back, or start anew with --fresh."
        )
    if state["data"] != data:
        raise CheckpointError(
            f"{path} was trained on other files than are named now. "
            "Name another folder with --run, or start anew with --fresh."
        )
    with _understood(path):
        for key, part in parts.items():
            part.load_state_dict(state[key])
        return {"step": int(state["values"]["step"]), "best": float(state["values"]["best"])}


@dataclass(frozen=True)
class Trained:
    """A network with a run's averaged weights, in evaluation mode on the CPU, and where it is from.

    checkpoint: the file's name. step, epochs: how long it was trained. held_out: the speakers whose
    PESQ chose the best checkpoint.
    """

    network: BandSplitNet
    config: Config
    checkpoint: str
    step: int
    epochs: float
    held_out: list[str]


def load_trained(run: Path) -> Trained:
    """The best checkpoint of a run folder (its last one, where it has no best), or a file.

    Raises:
        CheckpointError: there is none, or it cannot be loaded.
    """
    path = run
    if run.is_dir():
        path = run / BEST if (run / BEST).is_file() else run / LAST
    state = read(path)
    config = _config(path, state)
    with _understood(path):
        network = _network_class(state["network"])
        check_model(config, network_defaults(network))
        net = network(**config.model)
        net.load_state_dict(state["ema"]["model"])
        net.eval().requires_grad_(False)
        values = state["values"]
        step, epochs, held_out = int(values["step"]), float(values["epochs"]), values["held_out"]
        return Trained(net, config, path.name, step, epochs, list(map(str, held_out)))


@contextmanager
def _understood(path: Path) -> Iterator[None]:
    """What a checkpoint holds is not what this version keeps in one: that is a CheckpointError."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as e:
        raise CheckpointError(f"{path} does not fit this version's network: {e}") from None


def _config(path: Path, state: dict[str, Any]) -> Config:
    try:
        return from_json(state["config"])
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _network_class(name: str) -> type[BandSplitNet]:
    """The class behind "package.module:Class", if it is a network of this repository."""
    module, _, qualified = name.partition(":")
    parts = module.split(".")
    if all(map(str.isidentifier, parts)) and _ROOT.joinpath(*parts).with_suffix(".py").is_file():
        found = getattr(importlib.import_module(module), qualified, None)
        if isinstance(found, type) and issubclass(found, BandSplitNet):
            return found
    raise ConfigError(f"there is no network {name}")
