"""Errors for people, atomic writes, checksums, locks, and how commands report and end."""

from __future__ import annotations

import hashlib
import io
import logging
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

ROOT = Path(__file__).resolve().parents[1]  # of the repository


class DataError(Exception):
    """Data are missing or unusable. The text says what, where, and what to do."""

    def __str__(self) -> str:
        # torch's loader puts the traceback of a worker process before the text.
        return super().__str__().rpartition(f"{__name__}.DataError: ")[2].rstrip()


class FailedError(Exception):
    """The network, the disk or a process failed. The text says what to do."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to, and rename it to `path` at the end.

    If anything fails before, the old file stays as it was and nothing else is left.
    """
    temporary = path.with_name(f".{uuid.uuid4().hex}.partial")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8; file names in it that are no valid text are escaped."""
    with replacing(path) as temporary:
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))


def remove_partials(folder: Path) -> None:
    """Remove files that `replacing` has left half-written in a folder."""
    for path in folder.glob(f".{'[0-9a-f]' * 32}.partial"):  # not what others call partial
        with suppress(OSError):
            path.unlink()


def hold(folder: Path, otherwise: str) -> FileLock:
    """Return a lock on a folder, and remove half-written files from it.

    The system releases the lock when its process ends, however that happens.

    Args:
        folder: what to lock, by the file `.lock` in it.
        otherwise: how to choose another folder, for the message.

    Raises:
        DataError: another process holds it.
    """
    lock = FileLock(folder / ".lock", thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise DataError(
            f"{folder} is in use by another process. Wait for it, stop it, or {otherwise}."
        ) from None
    remove_partials(folder)
    return lock


def checksum(path: Path, algorithm: str = "sha256") -> str:
    """Return a file's checksum, hexadecimal. Raise OSError if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def digest_of(paths: Iterable[Path]) -> str:
    """Return the SHA-256 of the SHA-256s of several files, hexadecimal."""
    whole = hashlib.sha256()
    for path in paths:
        whole.update(bytes.fromhex(checksum(path)))
    return whole.hexdigest()


def is_within(path: Path, folder: Path) -> bool:
    """Tell whether a path is a folder or lies below it, links followed."""
    return path.resolve().is_relative_to(folder.resolve())


def source() -> dict[str, Any]:
    """Return the commit that the code is at, and whether files differ from it; {} without git."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return {}


def some(items: Sequence[str], most: int, separator: str = ", ") -> str:
    """Return the first `most` items, joined, and how many more there are."""
    more = [f"and {len(items) - most} more"] if len(items) > most else []
    return separator.join([*items[:most], *more])


def carry_out(name: str, work: Callable[[], int], again: str = "") -> int:
    """Return the status that `work` returns, or print on stderr why it failed.

    The status is then 1 if the network, the disk or a process failed, 2 for wrong input, and 130 if
    it was interrupted.

    Args:
        name: of the command, for the message.
        work: what to do.
        again: added to the message, of a command that keeps what it has done.
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
    say(f"{name}: {message}")
    return status


def say(message: str) -> None:
    """Print a message on stderr."""
    print(message, file=sys.stderr, flush=True)


def show(text: str) -> None:
    """Print a text on stdout; file names in it that are no valid text are escaped."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    print(text, end="", flush=True)
