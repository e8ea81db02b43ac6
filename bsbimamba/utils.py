"""Errors for users, atomic writes, locks, what a result was made with, commands."""

from __future__ import annotations

import logging
import platform
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

if TYPE_CHECKING:
    import torch

SOURCES = Path(__file__).resolve().parents[1]  # the folder of the package: a checkout or an install
_IS_CHECKOUT = (SOURCES / "pyproject.toml").is_file()
ROOT = SOURCES if _IS_CHECKOUT else Path()  # of data and runs: the repository, else where one is


class UserError(Exception):
    """What the user has given is wrong or missing. The text says what, where, and what to do."""


class DataError(UserError):
    """Data are missing or unusable."""

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
    """Write a text in UTF-8, the whole file or nothing; invalid characters of names are escaped."""
    with replacing(path) as temporary:
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))


def hold(folder: Path) -> FileLock:
    """Return a lock on a run's folder, and remove what an interrupted `replacing` has left in it.

    The folder is locked by the file `.lock` in it. The system releases the lock when the process
    ends, in whatever way. Raises DataError if another process holds it.
    """
    lock = FileLock(folder / ".lock", thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise DataError(
            f"{folder} is in use by another process. Wait for it, stop it, or name another folder "
            "with --run."
        ) from None
    for path in folder.glob(f".{'[0-9a-f]' * 32}.partial"):  # no other program's
        path.unlink()
    return lock


def is_within(path: Path, folder: Path) -> bool:
    """Tell whether a path is a folder or lies below it, links followed."""
    return path.resolve().is_relative_to(folder.resolve())


def source() -> dict[str, Any]:
    """Return the code's commit, and whether files differ from it; an empty dict without git."""
    if not _IS_CHECKOUT:
        return {}

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return {}


def hardware(device: str | torch.device = "cpu") -> str:
    """Return the GPU's name, or the CPU's model and PyTorch's number of threads."""
    import torch  # here, because modules that need no torch import this one

    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    model = platform.machine()
    with suppress(OSError, StopIteration):  # the file is Linux's
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(x.partition(":")[2].strip() for x in lines if x.startswith("model name"))
    return f"{model}, threads: {torch.get_num_threads()}"


def some(items: Sequence[str], most: int, separator: str = ", ") -> str:
    """Return the first `most` items, joined, and how many more there are."""
    more = [f"and {len(items) - most} more"] if len(items) > most else []
    return separator.join([*items[:most], *more])


def carry_out(name: str, work: Callable[[], int], again: str = "") -> int:
    """Call `work` and return its exit status. If it fails, print why on stderr.

    The status is then 1 if the network, the disk or a process failed, 2 if the input is wrong, and
    130 if it was interrupted.

    Args:
        name: of the command, for the message.
        work: does the command's work.
        again: is added to the message if the same command can go on later.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    try:
        return work()
    except UserError as error:
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
