"""Compiled numba kernels, kept for later processes."""

# mypy: disable-error-code="attr-defined"
from __future__ import annotations

import hashlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, Any

from numba import config, njit

try:
    import fcntl
except ImportError:  # Windows: two first starts at once are a risk there
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger("scan")

_PATIENCE = 20.0  # s, for another process that saves
_FOLDER = Path(__file__).resolve().parent
SOURCES = [
    _FOLDER / name
    for name in (
        "conv_kernels.py",
        "cpu_kernels.py",
        "cpu_states.py",
        "kernel_cache.py",
        "polynomials.py",
        "vector_math.py",
        "vectors.py",
    )
]
VERSION = hashlib.sha256(b"".join(path.read_bytes() for path in SOURCES)).hexdigest()[:16]


def kernel(function: Callable) -> Callable:
    """Compile a function when it is first called, and keep that in .cache/ for later processes.

    numba itself would look at the date of one file alone, and go on with old code when what is
    inlined from another has changed: here the folder is named by the content of all of them. Nor
    does it expect two processes to write at once: one saves at a time. Where the folder cannot be
    written every process compiles for itself. Signals wait for the compilation.
    """
    kept = config.CACHE_DIR
    folder = (Path(kept) if kept else _FOLDER.parent / ".cache") / f"scan-{VERSION}"
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    if not _writable(folder):
        return _uninterrupted(njit(**options)(function))
    config.CACHE_DIR = str(folder)
    try:
        compiled = njit(cache=True, **options)(function)
    finally:
        config.CACHE_DIR = kept
    cache = compiled._cache
    save = cache.save_overload

    def save_alone(signature: Any, data: Any) -> None:
        with _lock(folder / "lock") as held:
            if held:
                save(signature, data)

    load = cache.load_overload

    def load_what_is_whole(signature: Any, context: Any) -> Any:
        try:
            return load(signature, context)
        except Exception as error:  # whatever pickle makes of a damaged file
            log.warning("a compiled kernel in %s is damaged (%s): compiling anew", folder, error)
            with _lock(folder / "lock") as held:
                for file in folder.rglob("*.nb?") if held else ():
                    file.unlink(missing_ok=True)
            return None

    cache.save_overload, cache.load_overload = save_alone, load_what_is_whole
    return _uninterrupted(compiled)


def _uninterrupted(compiled: Any) -> Any:
    """The same kernel, whose compilation no signal ends."""
    original = compiled.compile

    def shielded(signature: Any) -> Any:
        with _interruptions_waiting():
            return original(signature)

    compiled.compile = shielded
    return compiled


@contextmanager
def _interruptions_waiting() -> Iterator[None]:
    """Let signals that this process handles wait, and come in their order afterwards.

    LLVM calls Python back, and there an exception would be printed and forgotten: a Ctrl-C lost.
    """
    if threading.current_thread() is not threading.main_thread():  # handlers run in that one only
        yield
        return
    every = {int(each): signal.getsignal(each) for each in signal.valid_signals()}
    handlers = {number: handler for number, handler in every.items() if callable(handler)}
    arrived: list[int] = []
    waiting = True

    def later(number: int, frame: FrameType | None) -> None:
        if waiting:
            arrived.append(number)
        else:  # one that comes while the handlers are put back
            handlers[number](number, frame)

    def end_waiting() -> None:
        nonlocal waiting
        waiting = False

    def catch_up() -> None:
        with ExitStack() as each:
            for number in reversed(arrived):
                each.callback(signal.raise_signal, number)

    # A stack goes on when what it calls raises, as handlers do. What comes last is called first.
    with ExitStack() as afterwards:
        afterwards.callback(catch_up)
        for number, handler in handlers.items():
            signal.signal(number, later)
            afterwards.callback(signal.signal, number, handler)
        afterwards.callback(end_waiting)
        yield


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("a"):
            return True
    except OSError as error:
        log.info("compiled kernels are not kept: %s", error)
        return False


@contextmanager
def _lock(path: Path) -> Iterator[bool]:
    """Whether the lock could be had in time: a process that is suspended keeps it."""
    with path.open("a") as file:
        yield fcntl is None or _locked(file, time.monotonic() + _PATIENCE)


def _locked(file: IO[str], deadline: float) -> bool:
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                log.info("compiled kernels are not kept: another process holds %s", file.name)
                return False
            time.sleep(0.02)
