"""The errors that end a command with a message instead of a traceback."""

from __future__ import annotations


class DataError(Exception):
    """Data are missing or unusable; the text says what, where, and what to do."""

    def __str__(self) -> str:
        # torch's loader puts the traceback of a worker process before the text.
        return super().__str__().rpartition(f"{__name__}.DataError: ")[2].rstrip()


class FailedError(Exception):
    """What was asked for is right but could not be done now (network, disk); the text as above."""
