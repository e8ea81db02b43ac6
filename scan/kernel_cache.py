"""Compiled numba kernels, kept for later processes."""

# mypy: disable-error-code="attr-defined"
from __future__ import annotations

import hashlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numba import config, njit

try:
    import fcntl
except ImportError:  # Windows: two first starts at once are a risk there
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger("scan")

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
    written every process compiles for itself.
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
        with _lock(folder / "lock"):
            save(signature, data)

    load = cache.load_overload

    def load_what_is_whole(signature: Any, context: Any) -> Any:
        try:
            return load(signature, context)
        except Exception as error:  # whatever pickle makes of a damaged file
            log.warning("a compiled kernel in %s is damaged (%s): compiling anew", folder, error)
            with _lock(folder / "lock"):
                for file in folder.rglob("*.nb?"):
                    file.unlink(missing_ok=True)
            return None

    cache.save_overload, cache.load_overload = save_alone, load_what_is_whole
    return _uninterrupted(compiled)


def _uninterrupted(compiled: Any) -> Any:
    compile_ = compiled.compile

    def compile_in_one_go(signature: Any) -> Any:
        with _interruptions_waiting():
            return compile_(signature)

    compiled.compile = compile_in_one_go
    return compiled


@contextmanager
def _interruptions_waiting() -> Iterator[None]:
    """Let signals that this process handles wait.

    LLVM calls Python back, and there an exception would be printed and forgotten: a Ctrl-C lost.
    """
    if threading.current_thread() is not threading.main_thread():  # handlers run in that one only
        yield
        return
    arrived: list[int] = []
    every = {int(each): signal.getsignal(each) for each in signal.valid_signals()}
    handlers = {number: handler for number, handler in every.items() if callable(handler)}
    try:
        for number in handlers:
            signal.signal(number, lambda number, frame: arrived.append(number))
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in arrived:
            signal.raise_signal(number)


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("a"):
            return True
    except OSError as error:
        log.info("compiled kernels are not kept: %s", error)
        return False


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
