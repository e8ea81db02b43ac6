"""PESQ of training examples from a pool of processes, so that the accelerator never waits for it.

Free of torch, and so are its workers: each is a small process.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache

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
    """Scores recordings in worker processes, which start with the first request."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pool: ProcessPoolExecutor = process_pool(workers)

    def label(self, clean: NDArray, enhanced: NDArray) -> Callable[[], NDArray]:
        """Start labelling a batch (b, s) by `normalised_pesq`; returns at once.

        Call the result for the labels (b,) float32, NaN where there is none. It waits for them the
        first time. What was on its way when a worker died is done again, once, in a new pool (PESQ
        is deterministic).
        """
        items = list(zip(clean, enhanced, strict=True))
        futures = [self._pool.submit(normalised_pesq, *item) for item in items]

        @cache
        def labels() -> NDArray:
            values = [
                self._result(future, item) for future, item in zip(futures, items, strict=True)
            ]
            return np.array(values, np.float32)

        return labels

    def validate(self, clean: NDArray, enhanced: NDArray, names: tuple[str, ...]) -> Future:
        """Start scoring one utterance (s,) by `evaluation.metrics.score`."""
        return self._pool.submit(score, clean, enhanced, names)

    def close(self) -> None:
        """End the workers."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _result(self, future: Future, item: tuple[NDArray, NDArray]) -> float:
        for _ in range(2):
            try:
                return future.result()
            except BrokenProcessPool:
                log.warning("a PESQ worker died; its pool is replaced")
                self.close()
                self._pool = process_pool(self._workers)
                future = self._pool.submit(normalised_pesq, *item)
        log.warning("an utterance is left without a label: the worker that had it died twice")
        return float("nan")
