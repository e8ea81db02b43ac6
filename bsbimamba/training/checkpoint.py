"""Checkpoints: tensors and plain values in a file, and which of a run's are kept.

They are loaded with `weights_only=True`: a checkpoint is data and cannot run code.
"""

import io
import logging
import math
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bsbimamba.network.net import name_of
from bsbimamba.training.config import PLACES, Config, diff, from_json, network_defaults, to_json
from bsbimamba.training.optimizer import Schedule
from bsbimamba.utils import FailedError, UserError, replacing

log = logging.getLogger("training")

LAST, PREVIOUS, GOOD, BEST = "last.pt", "previous.pt", "good.pt", "best.pt"
BEFORE_FALL = "before_fall.pt"

# Settings by which a run may differ from the one that it continues. Data may have moved: what is
# compared is their fingerprint. Checkpointing in the network changes no result.
# `Checkpoints.newest` compares the length of the runs.
_FREE = ("run.", "model.use_checkpoint", "optim.epochs", "optim.steps", *PLACES)
_WAY_OUT = "\nName another folder with --run, or start anew with --fresh."

State = dict[str, Any]


class CheckpointError(UserError):
    """A checkpoint is missing, unreadable or of another run."""


def write(path: Path, state: State, previous: Path | None = None) -> None:
    """Write a nested state of tensors and plain values, through a temporary file.

    previous: where to keep the file that it replaces.

    Raises FailedError if it cannot be written. The file that was there before is then untouched.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    _put(path, buffer.getvalue(), previous)


def copy(source: Path, *targets: Path) -> None:
    """Replace files by a copy of another. Raise FailedError as `write` does."""
    for target in targets:
        _put(target, source.read_bytes())


def _put(path: Path, content: bytes, previous: Path | None = None) -> None:
    try:
        with replacing(path) as temporary, temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # a power failure must not leave the new name on an empty file
            if previous and path.is_file():
                os.replace(path, previous)
    except OSError as error:
        what = f"{path} cannot be written: {error.strerror}"
        raise FailedError(f"{what}. What was saved before is untouched.") from None


def read_bytes(path: Path) -> bytes:
    """Return the content of a file. Raise CheckpointError if it cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None


def read(path: Path) -> State:
    """Return the state in a checkpoint, on the CPU.

    Raises CheckpointError: there is none, or it is damaged, or it is not a checkpoint.
    """
    content = read_bytes(path)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if archive.testzip():  # torch does not compare the checksums
                raise zipfile.BadZipFile
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception:
        # On damaged bytes, the unpickler may raise any error there is.
        raise CheckpointError(f"{path} is damaged, or is not a checkpoint") from None
    if not isinstance(state, dict) or not {"network", "config", "values", "ema"} <= state.keys():
        raise CheckpointError(f"{path} is not a checkpoint of this project")
    return state


@contextmanager
def understood(path: Path) -> Iterator[None]:
    """Turn errors into CheckpointError: the checkpoint does not hold what this version expects."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError, UserError) as error:
        raise CheckpointError(f"{path} does not fit this version: {error}") from None


class Checkpoints:
    """The checkpoints of a run folder.

    `last.pt` is the newest, `previous.pt` the one before it: where `last.pt` turns out damaged, a
    run continues from that, with the same result. `good.pt` is of the last validation, unless steps
    had to be skipped just before it: where a run rolls back to must not depend on when it happened
    to be saved. `before_fall.pt` is of the step at which the learning rate begins to fall.
    `best.pt` is of the best validation.

    Args:
        data: the fingerprint of what the network is trained on.
        epoch: steps of an epoch.
    """

    def __init__(self, folder: Path, network: type, config: Config, data: str, epoch: int) -> None:
        self.last, self.previous = folder / LAST, folder / PREVIOUS
        self.best, self.good, self.before_fall = folder / BEST, folder / GOOD, folder / BEFORE_FALL
        # With every argument of the network: a default that changes must not change what is saved.
        self._config = replace(config, model={**network_defaults(network), **config.model})
        self._name, self._data, self._epoch = name_of(network), data, epoch

    def save(self, state: State, best: bool = False) -> None:
        """Write `last.pt` (or `best.pt`). Raise FailedError as `write` does."""
        about = {"network": self._name, "config": to_json(self._config), "data": self._data}
        if best:
            write(self.best, {**state, **about})
        else:
            write(self.last, {**state, **about}, self.previous)

    def newest(self) -> tuple[Path, State] | None:
        """Return the checkpoint to continue from, and its path; None where there is none.

        It is the newest one that is not damaged, or `before_fall.pt` where the run was longer or
        shorter and its learning rate has fallen since. That is made `last.pt`; the other run's is
        kept under another name.

        Raises CheckpointError where all are damaged, or are of another run.
        """
        found = self.whole(self.last, self.previous)
        if found is None:
            return None
        path, state = found
        earlier = Schedule(self._checked(state, path), self._epoch)
        schedule = Schedule(self._config, self._epoch)
        # Up to this step, a run of the other length would have been the same.
        common = min(earlier.settled, schedule.settled)
        if earlier.total != schedule.total and state["values"]["step"] > common:
            best, path = state["values"]["best"], self.before_fall
            state = read(path) if path.is_file() else {"values": {"step": math.inf}}
            if state["values"]["step"] > common:
                raise CheckpointError(
                    f"{found[0]} is of a run of {earlier.total:,} steps. One of "
                    f"{schedule.total:,} would have been the same up to step {common:,} only, and "
                    "there is no checkpoint from before that. Name another folder with --run, or "
                    "the same number of steps."
                )
            state["values"]["best"] = best  # as `best.pt` holds it
            aside = self.last.with_name(f"last-{earlier.total}.pt")
            log.info(
                f"{path.parent}: a run of another length: it continues from before the learning "
                f"rate fell; what the run of {earlier.total} steps came to is kept as {aside.name}"
            )
            if self.last.exists() and not aside.exists():  # what was first there is kept
                self.last.rename(aside)
            copy(path, self.good, self.previous, self.last)
        elif path == self.previous:
            log.warning(f"{self.last} is damaged or gone: going on from the checkpoint before it")
            copy(path, self.last)
        return path, state

    def whole(self, *paths: Path) -> tuple[Path, State] | None:
        """Return the first of the files that is not damaged, and its state.

        Return None where there are none. Raise CheckpointError where all are damaged.
        """
        damage = []
        for path in paths:
            if path.exists():
                try:
                    return path, read(path)
                except CheckpointError as error:
                    damage.append(str(error))
        if damage:
            damage.append("Put back a copy, or start anew with --fresh.")
            raise CheckpointError("\n".join(damage))
        return None

    def _checked(self, state: State, path: Path) -> Config:
        """Return the configuration of a state.

        Raises CheckpointError where network or data are others, or fixed settings differ.
        """
        with understood(path):
            config = from_json(state["config"])
        if state["network"] != self._name:
            what = f"is of the network {state['network']}, not {self._name}."
            raise CheckpointError(f"{path} {what}{_WAY_OUT}")
        changed = [
            f"  {key}: {old!r} there, {new!r} now"
            for key, (old, new) in diff(config, self._config).items()
            if not key.startswith(_FREE)
        ]
        if changed:
            settings = "\n".join(changed)
            raise CheckpointError(f"{path} was made with other settings:\n{settings}{_WAY_OUT}")
        if state["data"] != self._data:
            what = "was trained on other files than are named now."
            raise CheckpointError(f"{path} {what}{_WAY_OUT}")
        return config
