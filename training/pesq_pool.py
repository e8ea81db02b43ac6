"""PESQ of training examples from worker processes, so that the accelerator never waits for it.

Free of torch, and so are the workers: each is a small process.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.audio import SAMPLE_RATE
from data.workers import process_pool
from evaluation.scores import MetricError, pesq_wb, score

log = logging.getLogger("training")

_LOWEST, _HIGHEST = 1.0, 4.5
_LIMIT = 30.0  # s that a recording may take, or as long as it lasts; it takes 0.1 s on a free core
_START = 300.0  # s that a worker may take to start: ten at once on a busy machine are slow


def normalised_pesq(clean: NDArray, enhanced: NDArray) -> float:
    """(PESQ - 1) / 3.5, as MetricGAN+ and CMGAN label; NaN where PESQ fails."""
    try:
        return (pesq_wb(clean, enhanced) - _LOWEST) / (_HIGHEST - _LOWEST)
    except MetricError:
        return float("nan")


class Worker:
    """One process that does one call at a time, and is replaced where it dies or takes too long."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None
        self.pid = 0

    def call(self, limit: float, function: Callable, *arguments: Any) -> Any:
        """What the call returns.

        Raises:
            BrokenProcessPool, TimeoutError: the process died, or took more than `limit` seconds; it
                is gone, and the next call starts another.
        """
        try:
            if self._pool is None:
                self._pool = process_pool(1)
                self.pid = self._pool.submit(os.getpid).result(_START)
            return self._pool.submit(function, *arguments).result(limit)
        except BrokenProcessPool:
            self.pid = 0  # it is dead, and the number may be another process' by now
            self.end()
            raise
        except TimeoutError:
            self.end()
            raise

    def end(self) -> None:
        """End the process, whatever it is doing."""
        pool, pid = self._pool, self.pid
        self._pool, self.pid = None, 0
        if pid:
            with suppress(OSError):
                os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)


class PesqPool:
    """Scores recordings in worker processes, which start with the first request.

    A worker may die or hang at any time. It is replaced, and what it had is done again, once: the
    scores are deterministic.

    Args:
        workers: how many, at least 1.
        limit: seconds that one recording may take, or as long as it lasts, if that is more.
    """

    def __init__(self, workers: int, limit: float = _LIMIT) -> None:
        self._limit = limit
        self.workers = [Worker() for _ in range(workers)]
        self._free: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        for worker in self.workers:
            self._free.put(worker)
        # A thread for each worker waits for it, and sees how long it takes.
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="pesq")
        self._closed = False

    def label(self, clean: NDArray, enhanced: NDArray) -> Callable[[], NDArray]:
        """Start labelling a batch (b, s) by `normalised_pesq`; returns at once.

        Call the result for the labels (b,) float32, NaN where there is none. It waits for them.
        """
        limit = self._limit_of(clean)
        futures = [
            self._start(limit, normalised_pesq, *item) for item in zip(clean, enhanced, strict=True)
        ]

        def labels() -> NDArray:
            found = [future.result() for future in futures]
            return np.array([np.nan if x is None else x for x in found], np.float32)

        return labels

    def validate(
        self, clean: NDArray, enhanced: NDArray, names: tuple[str, ...]
    ) -> Callable[[], dict[str, float | str]]:
        """Start scoring one utterance (s,) by `evaluation.scores.score`; returns at once.

        Call the result for the scores, which may have to be waited for.
        """
        future = self._start(self._limit_of(clean), score, clean, enhanced, names)
        return lambda: future.result() or dict.fromkeys(names, "its worker failed twice")

    def close(self) -> None:
        """End the workers."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self.workers:
            worker.end()

    def _limit_of(self, clean: NDArray) -> float:
        """Seconds that recordings (..., s) may take."""
        return max(self._limit, clean.shape[-1] / SAMPLE_RATE)

    def _start(self, limit: float, function: Callable, *arguments: Any) -> Future:
        return self._threads.submit(self._call_twice, limit, function, *arguments)

    def _call_twice(self, limit: float, function: Callable, *arguments: Any) -> Any:
        """What a call returns; None where two workers, one after the other, failed at it."""
        worker = self._free.get()
        try:
            for attempt in ("it is done again", "it is left without a score"):
                if self._closed:
                    return None
                try:
                    return worker.call(limit, function, *arguments)
                except (BrokenProcessPool, TimeoutError) as error:
                    if self._closed:
                        return None
                    how = "took too long" if isinstance(error, TimeoutError) else "died"
                    log.warning("the process that scored an utterance %s; %s", how, attempt)
            return None
        finally:
            self._free.put(worker)
