"""One process at a time in a folder. Free of torch."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path
from typing import IO

from data.errors import DataError
from data.files import remove_partials

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger("data")

LOCK = ".lock"


class Lock:
    """Holds a folder until it is released or its process ends, in whatever way.

    The system itself lets go of the lock of a process that is gone, so that none can be left
    behind; the file says who had it. Where the file system has no locks, that text is all there is:
    of this machine's processes it is then known which still run, of another machine's it is not.

    Args:
        folder: what to hold; of files half written in it, none is left.
        otherwise: how to choose another folder, for whoever is refused.

    Raises:
        DataError: another process holds it.
    """

    def __init__(self, folder: Path, otherwise: str) -> None:
        self._path, self._otherwise = folder / LOCK, otherwise
        self._file: IO[str] = self._path.open("a+", encoding="utf-8", errors="replace")
        try:
            self._take()
        except BaseException:
            self._file.close()
            raise
        remove_partials(folder)

    def _take(self) -> None:
        system = self._lock()
        self._file.seek(0)
        holder = self._file.read().strip()
        if system is False or (system is None and holder and _runs(holder)):
            raise DataError(
                f"{self._path.parent} is in use by {holder or 'another process'}. Wait for it, "
                f"stop it, or {self._otherwise}."
                + (f" If it is gone, remove {self._path}." if system is None else "")
            )
        if holder:
            log.warning("%s: what ran there ended without notice (%s)", self._path.parent, holder)
        self._write(f"process {os.getpid()} on {socket.gethostname()}")

    def _lock(self) -> bool | None:
        """Whether the system grants the lock; None where it has none to grant."""
        if fcntl is None:
            return None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return None
        return True

    def _write(self, text: str) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._file.write(text)
        self._file.flush()

    def release(self) -> None:
        """Let go of the folder; the file stays, empty, since another may be waiting for it."""
        if not self._file.closed:
            self._write("")
            self._file.close()


def _runs(holder: str) -> bool:
    """Whether the process that a lock's text names may still be running."""
    words = holder.split()
    if len(words) != 4 or words[3] != socket.gethostname():
        return True
    try:
        os.kill(int(words[1]), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        pass
    return True
