"""What everything else uses: errors for people, atomic writes, checksums, locks, commands."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from data.workers import end_children

LOCK = ".lock"
# What reading JSON and taking it apart may come to, where a file is damaged or somebody else's.
DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)


class DataError(Exception):
    """Data are missing or unusable; the text says what, where, and what to do."""

    def __str__(self) -> str:
        # torch's loader puts the traceback of a worker process before the text.
        return super().__str__().rpartition(f"{__name__}.DataError: ")[2].rstrip()


class FailedError(Exception):
    """What was asked for is right but could not be done now (network, disk); the text as above."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to; it takes the place of `path` at the end.

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


def remove_partials(folder: Path, older_than: float = 0.0) -> None:
    """Remove what `replacing` and the keeper of checkpoints have left where they were killed.

    Without an age in seconds, only for a folder in which nobody else is writing.
    """
    own = f".{'[0-9a-f]' * 32}.partial"  # files that others call partial are left alone
    for path in [*folder.glob(own), *folder.glob(".*.pt.partial")]:
        with suppress(OSError):
            if time.time() - path.stat().st_mtime >= older_than:
                path.unlink()


def hold(folder: Path, otherwise: str) -> FileLock:
    """Return a lock on a folder; whatever is half written in it is removed.

    The system releases it when its process ends, in whatever way.

    Args:
        folder: what to hold, by the file LOCK in it.
        otherwise: how to choose another folder, for the message.

    Raises:
        DataError: another process holds it.
    """
    lock = FileLock(folder / LOCK, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise DataError(
            f"{folder} is in use by another process. Wait for it, stop it, or {otherwise}."
        ) from None
    remove_partials(folder)
    return lock


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256, hexadecimal. Raise OSError if it cannot be read."""
    return checksum_of(path, "sha256")


def checksum_of(path: Path, algorithm: str) -> str:
    """Return a file's checksum by an algorithm of `hashlib`, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def digest_of(paths: Iterable[Path]) -> str:
    """Return the SHA-256 of the SHA-256s of several files, hexadecimal."""
    whole = hashlib.sha256()
    for path in paths:
        whole.update(bytes.fromhex(sha256_of(path)))
    return whole.hexdigest()


def stamp_of(path: Path) -> list[int]:
    """Return the size and the time of change of a file, [] where there is none."""
    try:
        status = path.stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]


def is_within(path: Path, folder: Path) -> bool:
    """Tell whether a path is a folder or lies below it, links followed."""
    return path.resolve().is_relative_to(folder.resolve())


def some(items: Sequence[str], most: int, separator: str = ", ") -> str:
    """Return at most so many of them, one after the other, and how many more there are."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return separator.join(items[:most]) + more


def some_lines(items: Sequence[str], most: int) -> str:
    """Return at most so many of them, each on an indented line, and how many more there are."""
    more = [f"and {len(items) - most} more"] if len(items) > most else []
    return "\n".join(f"  {item}" for item in [*items[:most], *more])


def carry_out(name: str, work: Callable[[], int], again: str = "") -> int:
    """Return what `work` returns, or print why it did not as a message of `name` on stderr.

    1: the network or the disk failed; 2: wrong input; 130: interrupted.
    again: what is added of a command that keeps what it has done.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    try:
        return work()
    except DataError as error:
        message, status = str(error), 2
    except FailedError as error:
        message, status = str(error), 1
    except OSError as error:
        message, status = f"{error.filename or 'the system'}: {error.strerror or error}{again}", 1
    except KeyboardInterrupt:
        message, status = f"interrupted{again}", 130
    end_children()
    say(f"{name}: {message}")
    return status


def say(message: str) -> None:
    """Print a message on stderr."""
    print(message, file=sys.stderr, flush=True)


def show(text: str) -> None:
    """Print a text, also to a pipe that nobody reads any more."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names may be no valid text
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:
        # Python tries to write the rest once more on exit; that must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
