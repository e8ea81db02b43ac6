"""Checkpoint files: tensors and plain values, with a checksum, written whole or not at all.

Loaded with `weights_only=True`: a checkpoint is data and cannot run code.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from data.utils import replacing

LAST, PREVIOUS, GOOD, BEST = "last.pt", "previous.pt", "good.pt", "best.pt"
BEFORE_FALL = "before_fall.pt"
DAMAGED = "damaged.pt"

# A torch file is a zip archive; the checksum is the archive's comment, the last thing in the file
# and the one that every reader of zip archives, `torch.load` among them, leaves alone.
_MARK = b"sha256:"
_SEAL_LENGTH = len(_MARK) + 2 * hashlib.sha256().digest_size


class CheckpointError(Exception):
    """A checkpoint is missing, unreadable or of another run; the text says which and what to do."""


class DamagedError(CheckpointError):
    """A file does not hold what was once written to it, or never was a checkpoint."""


def pack(state: dict[str, Any]) -> bytes:
    """A nested state of tensors and plain values as the content of a checkpoint file."""
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
    """The state in the content of a checkpoint file, on the CPU. path: for messages.

    Raises:
        DamagedError: the checksum is not right, or the content is no checkpoint's.
    """
    verify(content, path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # guesses about what else the file may be
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except MemoryError:
        raise CheckpointError(f"{path} needs more memory than there is") from None
    except Exception:
        # Of bytes that are no checkpoint, the unpickler may make any error there is.
        raise DamagedError(f"{path} is damaged, or is not a checkpoint") from None
    if not isinstance(state, dict) or not {"network", "config", "values", "ema"} <= state.keys():
        raise DamagedError(f"{path} is not a checkpoint of this project")
    return state


def write(path: Path, content: bytes) -> None:
    """Replace a file by what `pack` made, by way of a temporary file that is flushed to the disk.

    Raises:
        CheckpointError: it cannot be written; one that was there before is untouched.
    """
    try:
        with replacing(path) as temporary, temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        flush_folder(path.parent)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be written: {error.strerror or error}") from None


def read(path: Path) -> bytes:
    """The content of a checkpoint file, as it is.

    Raises:
        DamagedError: the disk does not give it back.
        CheckpointError: there is none, or it may not be read.
    """
    if os.path.lexists(path) and not path.is_file():  # reading a named pipe would wait forever
        raise CheckpointError(f"{path} is not a file; remove it, or name another folder")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint") from None
    except MemoryError:
        raise CheckpointError(f"{path} needs more memory than there is") from None
    except OSError as error:
        kind = DamagedError if error.errno == errno.EIO else CheckpointError
        raise kind(f"{path} cannot be read: {error.strerror or error}") from None


@contextmanager
def understood(path: Path) -> Iterator[None]:
    """What a checkpoint holds is not what this version keeps in one: that is a CheckpointError."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as e:
        raise CheckpointError(f"{path} does not fit this version's network: {e}") from None


def flush_folder(folder: Path) -> None:
    """Make renames in a folder outlast a power failure, where the system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # some systems open no folders
        return
    try:
        os.fsync(handle)
    except OSError:  # some file systems flush none
        pass
    finally:
        os.close(handle)


def _seal(content: bytes) -> bytes:
    return _MARK + hashlib.sha256(content).hexdigest().encode()
