"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import stat
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# What reading JSON and taking it apart may come to, where a file is damaged or somebody else's.
DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it takes the place of `path` at the end.

    If anything fails before, what was there stays as it was and nothing else is left.
    """
    temporary = path.with_name(f".{uuid.uuid4().hex}.partial")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8; names that are no valid text, which disks may hold, with escapes."""
    with replacing(path) as temporary:
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))


def is_within(path: Path, folder: Path) -> bool:
    """Whether a path is a folder or lies below it, links followed."""
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a loop of links
        return False


def digest_of(paths: Iterable[Path]) -> str:
    """The contents of files, hashed (SHA-256, hexadecimal).

    Raises:
        OSError: one cannot be read.
    """
    whole = hashlib.sha256()
    for path in paths:
        whole.update(bytes.fromhex(sha256_of(path)))
    return whole.hexdigest()


def sha256_of(path: Path) -> str:
    """A file's SHA-256, hexadecimal, as other programs tell it.

    Raises:
        OSError: it cannot be read.
    """
    if not stat.S_ISREG(path.stat().st_mode):  # a named pipe would wait for ever
        raise OSError(errno.EINVAL, "not a file", str(path))
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_partials(folder: Path, older_than: float = 0.0) -> None:
    """Remove what `replacing` and the keeper of checkpoints have left where they were killed.

    Without an age in seconds, only for a folder in which nobody else is writing.
    """
    own = f".{'[0-9a-f]' * 32}.partial"  # whoever else calls files so has theirs left
    for path in [*folder.glob(own), *folder.glob(".*.pt.partial")]:
        with suppress(OSError):
            if time.time() - path.stat().st_mtime >= older_than:
                path.unlink()


def stamp_of(path: Path) -> list[int]:
    """By what a file is known again: its size and its time of change; [] where there is none."""
    try:
        status = path.stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]
