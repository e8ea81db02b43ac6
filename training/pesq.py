"""PESQ of training examples from worker processes, so that the accelerator does not wait for it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pebble import ProcessExpired, ProcessFuture, ProcessPool

from data.audio import SAMPLE_RATE
from data.workers import begin_worker, process_context
from evaluation.scores import MetricError, pesq_wb, score

log = logging.getLogger("training")

_LOWEST, _HIGHEST = 1.0, 4.5
_LIMIT = 30.0  # s that a recording may take, or as long as it lasts; it takes 0.1 s on a free core


def normalised_pesq(clean: NDArray, enhanced: NDArray) -> float:
    """Return (PESQ - 1) / 3.5, as MetricGAN+ and CMGAN label; NaN where PESQ fails."""
    try:
        return (pesq_wb(clean, enhanced) - _LOWEST) / (_HIGHEST - _LOWEST)
    except MetricError:
        return float("nan")


class PesqPool:
    """Scores recordings in worker processes, which start with the first request.

    A worker that dies or takes too long is replaced, and its recording is scored once more: scores
    are deterministic, so that nothing else changes.

    Args:
        workers: how many, at least 1.
        limit: seconds that one recording may take, or as long as it lasts, if that is more.
    """

    def __init__(self, workers: int, limit: float = _LIMIT) -> None:
        self._workers, self._limit = workers, limit
        self._pool: ProcessPool | None = None

    def label(self, clean: NDArray, enhanced: NDArray) -> Callable[[], NDArray]:
        """Start labelling a batch (b, s) by `normalised_pesq`.

        Returns:
            A function that waits for the labels (b,), float32, NaN where there is none.
        """
        results = [
            self._start(normalised_pesq, *item) for item in zip(clean, enhanced, strict=True)
        ]

        def labels() -> NDArray:
            found = [result() for result in results]
            return np.array([np.nan if x is None else x for x in found], np.float32)

        return labels

    def validate(
        self, clean: NDArray, enhanced: NDArray, names: tuple[str, ...]
    ) -> Callable[[], dict[str, float | str]]:
        """Start scoring one utterance (s,) by `evaluation.metrics.score`.

        Returns:
            A function that waits for the scores by name.
        """
        result = self._start(score, clean, enhanced, names)
        return lambda: result() or dict.fromkeys(names, "its worker failed twice")

    def close(self) -> None:
        """End the workers."""
        if self._pool is not None:
            self._pool.stop()
            self._pool.join()

    def _start(self, function: Callable, clean: NDArray, *arguments: Any) -> Callable[[], Any]:
        """Start a call; return a function that waits for its result, None where it failed twice."""
        limit = max(self._limit, clean.shape[-1] / SAMPLE_RATE)

        def schedule() -> tuple[ProcessPool, ProcessFuture]:
            pool = self._working_pool()
            return pool, pool.schedule(function, (clean, *arguments), timeout=limit)

        started = schedule()

        def result() -> Any:
            try:
                return _result(*started)
            except (BrokenProcessPool, ProcessExpired, TimeoutError) as error:
                log.warning(f"the process that scored an utterance failed ({error!r}); once more")
            try:
                return _result(*schedule())
            except (BrokenProcessPool, ProcessExpired, TimeoutError) as error:
                log.warning(f"it failed again ({error!r}); the utterance is left without a score")
                return None

        return result

    def _working_pool(self) -> ProcessPool:
        """Return the pool, or a new one: a worker that dies with nothing to do breaks it."""
        if self._pool is not None and not self._pool.active:
            self.close()
            self._pool = None
        if self._pool is None:
            self._pool = ProcessPool(
                self._workers, initializer=begin_worker, context=process_context()
            )
        return self._pool


def _result(pool: ProcessPool, future: ProcessFuture) -> Any:
    """Wait for a result. pebble forgets what waits for a worker when the pool breaks."""
    while not wait([future], timeout=1).done:
        if not pool.active:
            raise BrokenProcessPool("a worker died while it had nothing to do")
    return future.result()
