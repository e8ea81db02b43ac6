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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from data.utils import replacing
from training.config import (
    PLACES,
    Config,
    ConfigError,
    diff,
    from_json,
    network_defaults,
    to_json,
)

log = logging.getLogger("training")

LAST, PREVIOUS, GOOD, BEST = "last.pt", "previous.pt", "good.pt", "best.pt"
BEFORE_FALL = "before_fall.pt"
DAMAGED = "damaged.pt"

# A torch file is a zip archive; the checksum is the archive's comment, the last thing in the file
# and the one that every reader of zip archives, `torch.load` among them, leaves alone.
_MARK = b"sha256:"
_SEAL_LENGTH = len(_MARK) + 2 * hashlib.sha256().digest_size

# Settings by which a run may differ from the one that it continues. Data may have moved: what is
# compared is their fingerprint. What is kept for the backward pass changes no result.
# The length of a run is compared by the trainer, which knows what depends on it.
_FREE = ("run.", "model.use_checkpoint", "optim.epochs", "optim.steps", *PLACES)
_WAY_OUT = "Name another folder with --run, or start anew with --fresh."
# What `Keeper.restore` returns, by name, in these types.
_VALUES: dict[str, Any] = {"step": 0, "validated": 0, "best": 0.0, "logged": 0}


class CheckpointError(Exception):
    """A checkpoint is missing, unreadable or of another run; the text says which and what to do."""


class DamagedError(CheckpointError):
    """A file does not hold what was once written to it, or never was a checkpoint."""


def pack(state: dict[str, Any]) -> bytes:
    """Return a nested state of tensors and plain values as the content of a checkpoint file."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    # An archive ends with the length of its comment, 0 so far.
    content = buffer.getvalue()[:-2] + struct.pack("<H", _SEAL_LENGTH)
    return content + _seal(content)


def verify(content: bytes, path: Path) -> None:
    """Check the checksum in the content of a checkpoint file. path: for messages.

    Raises:
        DamagedError: it is missing, or not right.
    """
    body, found = content[:-_SEAL_LENGTH], content[-_SEAL_LENGTH:]
    if not found.startswith(_MARK):
        raise DamagedError(f"{path} is damaged, or is not a checkpoint: it ends without a checksum")
    if found != _seal(body):
        raise DamagedError(f"{path} is damaged: its content does not match its checksum")


def unpack(content: bytes, path: Path) -> dict[str, Any]:
    """Return the state in the content of a checkpoint file, on the CPU. path: for messages.

    Raises:
        DamagedError: the checksum is not right, or the content is no checkpoint's.
    """
    verify(content, path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # guesses about what else the file may be
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception:
        # Of bytes that are no checkpoint, the unpickler may make any error there is.
        raise DamagedError(f"{path} is damaged, or is not a checkpoint") from None
    if not isinstance(state, dict) or not {"network", "config", "values", "ema"} <= state.keys():
        raise DamagedError(f"{path} is not a checkpoint of this project")
    return state


def write(path: Path, content: bytes, before: Path | None = None) -> None:
    """Replace a file by what `pack` made, through a temporary file that is flushed to the disk.

    before: what the file was before is kept there.

    Raises:
        CheckpointError: it cannot be written; one that was there before is untouched.
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
    """Return the content of a checkpoint file.

    Raises:
        CheckpointError: there is none, or it cannot be read.
    """
    try:
        if os.path.lexists(path) and not path.is_file():  # reading a named pipe would wait forever
            raise CheckpointError(f"{path} is not a file; remove it, or name another folder")
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

    Raises:
        CheckpointError: there is none in it that this version understands.
    """
    try:
        return from_json(state["config"])
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _seal(content: bytes) -> bytes:
    return _MARK + hashlib.sha256(content).hexdigest().encode()


class Keeper:
    """Keeps the last two checkpoints of a run folder, the best, and the one to go back to.

    What `last.pt` was before is `previous.pt`. A run goes on from that where `last.pt` turns out
    damaged; the same steps are then done again, with the same result. `good.pt` is of the last
    validation, unless steps had to be skipped just before it: where a run goes back to must not
    depend on when it happened to be saved. `before_fall.pt` is of the step at which the learning
    rate begins to fall.

    Args:
        folder: the run folder.
        network, config: what is trained. data: the fingerprint of what it is trained on.
    """

    def __init__(self, folder: Path, network: type, config: Config, data: str) -> None:
        self.last, self.previous = folder / LAST, folder / PREVIOUS
        self.best, self.good = folder / BEST, folder / GOOD
        self.before_fall = folder / BEFORE_FALL
        # With every argument of the network: a default that changes must not change what is saved.
        self._config = replace(config, model={**network_defaults(network), **config.model})
        self._name, self._data = name_of(network), data

    def save(self, state: dict[str, Any], best: bool = False) -> None:
        """Write `last.pt` (or `best.pt`).

        Raises:
            CheckpointError: it cannot be written; what was there before is untouched.
        """
        content = pack(
            {**state, "network": self._name, "config": to_json(self._config), "data": self._data}
        )
        if best:
            write(self.best, content)
        else:
            write(self.last, content, before=self.previous)

    def mark_good(self) -> None:
        """Keep what `last.pt` is now as what can be gone back to. Raises CheckpointError."""
        write(self.good, read(self.last))

    def mark_before_fall(self) -> None:
        """Keep what `last.pt` is now as what the run can be lengthened from. Raises as above."""
        write(self.before_fall, read(self.last))

    def rewind(self, finished: int) -> None:
        """Make `before_fall.pt` the last checkpoint again, and keep that of the shorter run.

        finished: the steps of the shorter run, which its last checkpoint is named by.

        Raises:
            CheckpointError: as above.
        """
        kept = self.last.with_name(f"last-{finished}.pt")
        write(kept, read(self.last))
        content = read(self.before_fall)
        for path in (self.good, self.previous, self.last):  # they may be of the shorter run's fall
            write(path, content)
        log.info(
            f"{self.last.parent}: a run of another length: it goes on from before the learning "
            f"rate fell; what the run of {finished} steps came to is kept as {kept.name}"
        )

    def load(self, good: bool = False) -> tuple[Path, bytes] | None:
        """Return the newest whole checkpoint, `last.pt` or the one before it, and its path.

        good: `good.pt` rather than these, if it is whole.

        Returns:
            None where there is none.

        Raises:
            CheckpointError: there are some, and none can be read.
        """
        damage: list[DamagedError] = []
        for path in (self.good, self.last, self.previous) if good else (self.last, self.previous):
            if not os.path.lexists(path):
                continue
            content = read(path)
            try:
                verify(content, path)
            except DamagedError as error:
                damage.append(error)
            else:
                return path, content
        if damage:
            listed = "\n".join(map(str, damage))
            raise DamagedError(f"{listed}\nPut back a copy, or start anew with --fresh.")
        return None

    def settle(self, path: Path) -> None:
        """Make `path`, which the run goes on from, `last.pt`; put a damaged one aside."""
        if path == self.last:
            return
        what = "is missing"
        if os.path.lexists(self.last):
            aside = self.last.with_name(DAMAGED)
            os.replace(self.last, aside)
            what = f"is damaged (now {aside.name})"
        log.warning(f"{self.last} {what}: going on from the checkpoint before it")
        write(self.last, read(path))

    def restore(
        self, path: Path, state: dict[str, Any], parts: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Load a checkpoint's state into `parts` (by `load_state_dict`); return its plain values.

        Raises:
            CheckpointError: it is of another network, of other data, or its configuration differs
                in more than may change.
        """
        if state["network"] != self._name:
            raise CheckpointError(
                f"{path} is of the network {state['network']}, not {self._name}. {_WAY_OUT}"
            )
        settings = diff(config_of(state, path), self._config)
        changes = {k: v for k, v in settings.items() if not k.startswith(_FREE)}
        if changes:
            lines = [f"  {key}: {old!r} there, {new!r} now" for key, (old, new) in changes.items()]
            raise CheckpointError(
                "\n".join([f"{path} was made with other settings:", *lines])
                + "\nName another folder with --run, set them back, or start anew with --fresh."
            )
        if state["data"] != self._data:
            raise CheckpointError(
                f"{path} was trained on other files than are named now. {_WAY_OUT}"
            )
        with understood(path):
            for key, part in parts.items():
                part.load_state_dict(state[key])
            return {k: type(default)(state["values"][k]) for k, default in _VALUES.items()}
