"""PESQ of training examples from a pool of processes, so that the accelerator never waits for it.

Free of torch, and so are its workers: each is a small process.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.workers import process_pool
from evaluation.metrics import MetricError, pesq_wb, score

log = logging.getLogger("training")

_LOWEST, _HIGHEST = 1.0, 4.5


def normalised_pesq(clean: NDArray, enhanced: NDArray) -> float:
    """(PESQ - 1) / 3.5, as MetricGAN+ and CMGAN label; NaN where PESQ fails."""
    try:
        return (pesq_wb(clean, enhanced) - _LOWEST) / (_HIGHEST - _LOWEST)
    except MetricError:
        return float("nan")


class PesqPool:
    """Scores recordings in worker processes, which start with the first request.

    A worker may die at any time. What was on its way is then done again, once, in a new pool: the
    scores are deterministic.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pool: ProcessPoolExecutor = process_pool(workers)

    def label(self, clean: NDArray, enhanced: NDArray) -> Callable[[], NDArray]:
        """Start labelling a batch (b, s) by `normalised_pesq`; returns at once.

        Call the result for the labels (b,) float32, NaN where there is none. It waits for them the
        first time.
        """
        waits = [self._start(normalised_pesq, *item) for item in zip(clean, enhanced, strict=True)]

        @cache
        def labels() -> NDArray:
            found = [wait() for wait in waits]
            return np.array([np.nan if x is None else x for x in found], np.float32)

        return labels

    def validate(
        self, clean: NDArray, enhanced: NDArray, names: tuple[str, ...]
    ) -> Callable[[], dict[str, float | str]]:
        """Start scoring one utterance (s,) by `evaluation.metrics.score`; returns at once.

        Call the result for the scores, which may have to be waited for.
        """
        wait = self._start(score, clean, enhanced, names)
        return lambda: wait() or dict.fromkeys(names, "the process scoring it died twice")

    def close(self) -> None:
        """End the workers."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _start(self, function: Callable, *arguments: Any) -> Callable[[], Any]:
        """Start a call; the result waits for what it returns, None where its worker died twice."""
        pool, future = self._submit(function, *arguments)

        def wait() -> Any:
            try:
                return future.result()
            except BrokenProcessPool:
                self._replace(pool)
            second_pool, second = self._submit(function, *arguments)
            try:
                return second.result()
            except BrokenProcessPool:
                self._replace(second_pool)
            log.warning("an utterance is left without a score: the worker that had it died twice")
            return None

        return wait

    def _submit(self, function: Callable, *arguments: Any) -> tuple[ProcessPoolExecutor, Future]:
        try:
            return self._pool, self._pool.submit(function, *arguments)
        except BrokenProcessPool:  # a worker died while it had nothing to do
            self._replace(self._pool)
            return self._pool, self._pool.submit(function, *arguments)

    def _replace(self, broken: ProcessPoolExecutor) -> None:
        """Put a new pool in the place of `broken`, unless that has been done."""
        if self._pool is broken:
            log.warning("a PESQ worker died; its pool is replaced")
            self.close()
            self._pool = process_pool(self._workers)
