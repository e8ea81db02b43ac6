"""Checkpoints: tensors and plain values with a checksum, and which of a run's are kept.

They are loaded with `weights_only=True`: a checkpoint is data and cannot run code.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bsbimamba.training.config import (
    PLACES,
    Config,
    ConfigError,
    diff,
    from_json,
    network_defaults,
    to_json,
)
from bsbimamba.utils import replacing

log = logging.getLogger("training")

LAST, PREVIOUS, GOOD, BEST = "last.pt", "previous.pt", "good.pt", "best.pt"
BEFORE_FALL, DAMAGED = "before_fall.pt", "damaged.pt"

# A torch file is a zip archive. The checksum is the archive's comment, the last thing in the file,
# which every reader of zip archives, `torch.load` among them, leaves alone.
_MARK = b"sha256:"
_SEAL_LENGTH = len(_MARK) + 2 * hashlib.sha256().digest_size

# Settings by which a run may differ from the one that it continues. Data may have moved: what is
# compared is their fingerprint. What is kept for the backward pass changes no result.
# The length of a run is compared by the trainer, which knows what depends on it.
_FREE = ("run.", "model.use_checkpoint", "optim.epochs", "optim.steps", *PLACES)


class CheckpointError(Exception):
    """A checkpoint is missing, unreadable or of another run; the text says which and what to do."""


def pack(state: dict[str, Any]) -> bytes:
    """Return a nested state of tensors and plain values as the content of a checkpoint file."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    # An archive ends with the length of its comment, 0 so far.
    content = buffer.getvalue()[:-2] + struct.pack("<H", _SEAL_LENGTH)
    return content + _seal(content)


def verify(content: bytes, path: Path) -> None:
    """Raise CheckpointError unless a file's content ends with its checksum. path: for messages."""
    body, found = content[:-_SEAL_LENGTH], content[-_SEAL_LENGTH:]
    if not found.startswith(_MARK):
        raise CheckpointError(f"{path} is damaged, or is not a checkpoint: it has no checksum")
    if found != _seal(body):
        raise CheckpointError(f"{path} is damaged: its content does not match its checksum")


def unpack(content: bytes, path: Path) -> dict[str, Any]:
    """Return the state in the content of a checkpoint file, on the CPU. path: for messages.

    Raises CheckpointError where the content is damaged, or is not that of a checkpoint.
    """
    verify(content, path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # guesses about what else the file may be
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception:
        # Of bytes that are no checkpoint, the unpickler may make any error there is.
        raise CheckpointError(f"{path} is damaged, or is not a checkpoint") from None
    if not isinstance(state, dict) or not {"network", "config", "values", "ema"} <= state.keys():
        raise CheckpointError(f"{path} is not a checkpoint of this project")
    return state


def write(path: Path, content: bytes, before: Path | None = None) -> None:
    """Replace a file by what `pack` made, through a temporary file that is flushed to the disk.

    before: where to keep what the file was before.

    Raises CheckpointError if it cannot be written. A file that was there before is untouched.
    """
    try:
        with replacing(path) as temporary, temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            if before is not None and path.is_file():
                os.replace(path, before)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be written: {error.strerror or error}") from None


def read(path: Path) -> bytes:
    """Return the content of a checkpoint file. Raise CheckpointError if that is not possible."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None


@contextmanager
def understood(path: Path) -> Iterator[None]:
    """Raise, as CheckpointError, that a checkpoint does not hold what this version keeps in one."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as e:
        raise CheckpointError(f"{path} does not fit this version's network: {e}") from None


def name_of(network: type) -> str:
    """Return the class of a network as a checkpoint names it, "package.module:Class"."""
    return f"{network.__module__}:{network.__qualname__}"


def config_of(state: dict[str, Any], path: Path) -> Config:
    """Return the configuration that a checkpoint was made with. path: for messages.

    Raises CheckpointError where there is none in it that this version understands.
    """
    try:
        return from_json(state["config"])
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _seal(content: bytes) -> bytes:
    return _MARK + hashlib.sha256(content).hexdigest().encode()


class Checkpoints:
    """The checkpoints of a run folder.

    `last.pt` is the newest, `previous.pt` the one before it: where `last.pt` turns out damaged, a
    run goes on from that, with the same result. `good.pt` is of the last validation, unless steps
    had to be skipped just before it: where a run goes back to must not depend on when it happened
    to be saved. `before_fall.pt` is of the step at which the learning rate begins to fall.
    `best.pt` is of the best validation.

    data: the fingerprint of what the network is trained on.
    """

    def __init__(self, folder: Path, network: type, config: Config, data: str) -> None:
        self.last, self.previous = folder / LAST, folder / PREVIOUS
        self.best, self.good, self.before_fall = folder / BEST, folder / GOOD, folder / BEFORE_FALL
        # With every argument of the network: a default that changes must not change what is saved.
        self._config = replace(config, model={**network_defaults(network), **config.model})
        self._name, self._data = name_of(network), data

    def save(self, state: dict[str, Any], best: bool = False) -> None:
        """Write `last.pt` (or `best.pt`). Raise CheckpointError as `write` does."""
        about = {"network": self._name, "config": to_json(self._config), "data": self._data}
        content = pack({**state, **about})
        if best:
            write(self.best, content)
        else:
            write(self.last, content, before=self.previous)

    def copy_last(self, path: Path) -> None:
        """Keep what `last.pt` is now as another of the folder's files. Raises CheckpointError."""
        write(path, read(self.last))

    def newest(self, good: bool = False) -> tuple[Path, bytes] | None:
        """Return the newest whole checkpoint and its path, or None where there is none.

        good: take `good.pt` rather than the newest, if it is whole.

        Raises CheckpointError where there are some, and all are damaged.
        """
        damage = []
        for path in (self.good, self.last, self.previous) if good else (self.last, self.previous):
            if not path.exists():
                continue
            content = read(path)
            try:
                verify(content, path)
            except CheckpointError as error:
                damage.append(str(error))
            else:
                return path, content
        if damage:
            lines = [*damage, "Put back a copy, or start anew with --fresh."]
            raise CheckpointError("\n".join(lines))
        return None

    def make_last(self, content: bytes, aside: str) -> None:
        """Make a checkpoint that the run goes on from `last.pt`. Keep what was there as `aside`."""
        if self.last.exists():
            os.replace(self.last, self.last.with_name(aside))
        write(self.last, content)

    def rewind(self, content: bytes, aside: str) -> None:
        """Make a checkpoint from before the fall the only one that the run can go on from.

        What the run of another length came to is kept as `aside`, once.
        """
        if self.last.exists() and not self.last.with_name(aside).exists():
            os.replace(self.last, self.last.with_name(aside))
        for path in (self.good, self.previous, self.last):
            write(path, content)

    def check(self, state: dict[str, Any], path: Path) -> None:
        """Raise CheckpointError unless this run can go on from a state.

        It cannot where network or data are others, or settings differ that may not change.
        """
        way_out = "\nName another folder with --run, or start anew with --fresh."
        if state["network"] != self._name:
            what = f"is of the network {state['network']}, not {self._name}."
            raise CheckpointError(f"{path} {what}{way_out}")
        changed = [
            f"  {key}: {old!r} there, {new!r} now"
            for key, (old, new) in diff(config_of(state, path), self._config).items()
            if not key.startswith(_FREE)
        ]
        if changed:
            lines = [f"{path} was made with other settings:", *changed]
            raise CheckpointError("\n".join(lines) + way_out)
        if state["data"] != self._data:
            raise CheckpointError(f"{path} was trained on other files than are named now.{way_out}")
