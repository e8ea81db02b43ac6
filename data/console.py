"""How a command speaks, to whatever stdout and stderr are, and with which status it ends.

Free of torch.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress

from data.errors import DataError, FailedError
from data.workers import end_children


def carry_out(name: str, work: Callable[[], int], again: str = "") -> int:
    """What `work` returns, or after a message of `name` on stderr why it did not.

    1: the disk, or another thing that may be well the next time; 2: wrong input; 130: interrupted.
    again: what is added of a command that keeps what it has done.
    """
    if sys.stderr is None:  # closed
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    try:
        return work()
    except DataError as error:
        message, status = str(error), 2
    except FailedError as error:
        message, status = str(error), 1
    except OSError as error:
        message, status = f"{error.filename or 'the system'}: {error.strerror or error}{again}", 1
    except MemoryError:
        message, status = f"out of memory{again}", 1
    except KeyboardInterrupt:
        message, status = f"interrupted{again}", 130
    end_children()
    say(f"{name}: {message}")
    return status


def say(message: str) -> None:
    """On stderr, which may be a full disk."""
    with suppress(OSError):
        print(message, file=sys.stderr, flush=True)


def show(text: str) -> None:
    """Print a text to whatever standard output is, also to a pipe that nobody reads.

    Raises:
        DataError: it cannot be printed.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        print(text, end="", flush=True)
    except OSError as error:
        # Python tries to write the rest once more on exit; that must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise DataError(f"standard output cannot be written: {error.strerror}") from None
