"""What a run shows while it goes on: a bar, its speed, the time that is left."""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
import time
from contextlib import suppress
from typing import Any, TextIO

import torch
from tqdm import tqdm

from training.health import Health

log = logging.getLogger("training")

_FIRST = 2  # steps of a session that say nothing of its speed: kernels are compiled in them
_ENOUGH = 8  # steps, after which the time that is left is foretold


class Unbreakable(io.TextIOBase):
    """A text stream that loses what cannot be written: a closed terminal must not end a run."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()


def quiet_ends(stream: TextIO | None) -> None:
    """Have the standard error stream survive its reader, and no thread end with a traceback.

    stream: `sys.stderr`; None where it was closed before the start.
    """
    if stream is None:
        stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for as long as we run
    sys.stderr = Unbreakable(stream)
    before, unraisable = threading.excepthook, sys.unraisablehook

    def note(failure: Any) -> None:
        # TensorBoard's writer, on a full disk, of which the main thread hears soon.
        if not issubclass(failure.exc_type, OSError):
            before(failure)

    def note_unraisable(failure: Any) -> None:
        # A torch loader that could not even start its workers; at the very end a process pool whose
        # worker was killed, and that is told to stop through a pipe that is closed.
        loader = "_MultiProcessingDataLoaderIter" in getattr(failure.object, "__qualname__", "")
        pool = failure.object is threading and issubclass(failure.exc_type, OSError)
        if not loader and not pool:
            unraisable(failure)

    threading.excepthook, sys.unraisablehook = note, note_unraisable


class Progress:
    """A bar over the steps of the run, for the leading process; measures for all.

    Args:
        shown: whether to show anything.
        steps: of the whole run.
        batch: crops of a step.
    """

    def __init__(self, shown: bool, steps: int, batch: int, device: torch.device) -> None:
        self._shown, self._steps, self._batch = shown, steps, batch
        self._device = device
        self._bar: tqdm | None = None
        self._done = 0
        self._since = (0, time.monotonic())  # step of the session, and when
        self._warm = 0.0  # when the first steps were over
        self.started = time.monotonic()

    def start(self, done: int) -> None:
        """Show the bar, unless it is there. done: the steps that lie behind."""
        self._since = (self._done, time.monotonic())
        if self._bar is None:
            self._bar = tqdm(
                desc="training",
                total=self._steps,
                initial=done,
                disable=not self._shown,
                unit="step",
            )

    def step(self, step: int) -> None:
        """One more step is done, `step` in all."""
        self._done += 1
        if self._bar is not None:
            self._bar.update()
        now = time.monotonic()
        if self._done == _FIRST:
            self._warm = now
        if self._done == _FIRST + _ENOUGH and self._shown:
            pace = (now - self._warm) / _ENOUGH
            log.info(
                "%.2f s a step: %s to step %d, validation apart",
                pace,
                duration(pace * (self._steps - step)),
                self._steps,
            )

    def speed(self) -> dict[str, float]:
        """Crops a second since the last call; on a GPU, the most memory in use so far, in GiB."""
        now = (self._done, time.monotonic())
        steps, seconds = (b - a for a, b in zip(self._since, now, strict=True))
        self._since = now
        measured = {"crops_per_second": self._batch * steps / max(seconds, 1e-9)}
        if self._device.type == "cuda":
            measured["gpu_gib"] = torch.cuda.max_memory_allocated(self._device) / 2**30
        return measured

    def show(self, values: dict[str, float], speed: dict[str, float], health: Health) -> None:
        """Put a step's values beside the bar."""
        if self._bar is None:
            return
        shown = {"loss": f"{values['loss']:.3f}", "norm": f"{values['grad_norm']:.2f}"}
        if "pesq" in values:
            shown["pesq"] = f"{values['pesq']:.2f}"
        shown["lr"] = f"{values['learning_rate']:.1e}"
        shown["crops/s"] = f"{speed['crops_per_second']:.1f}"
        if "gpu_gib" in speed:
            shown["GPU"] = f"{speed['gpu_gib']:.1f}G"
        if health.skipped:
            shown["skipped"] = str(health.skipped)
        self._bar.set_postfix(shown)

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def duration(seconds: float) -> str:
    """A time in words, its two largest units, as in "2 d 5 h"."""
    rest = max(0, round(seconds))
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])
