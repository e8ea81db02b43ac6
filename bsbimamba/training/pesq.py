"""PESQ of training examples from worker processes, so that the accelerator does not wait for it."""

import logging
from collections.abc import Callable
from concurrent.futures import wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pebble import ProcessExpired, ProcessPool

from bsbimamba.data.audio import SAMPLE_RATE
from bsbimamba.data.workers import begin_worker, process_context
from bsbimamba.metrics.scores import MetricError, pesq_wb, score

log = logging.getLogger("training")

_LOWEST, _HIGHEST = 1.0, 4.5
_LIMIT = 30.0  # s, or as long as the recording lasts; PESQ of a crop takes 0.1 s on a free core


def normalised_pesq(clean: NDArray, enhanced: NDArray) -> float:
    """Return (PESQ - 1) / 3.5, as MetricGAN+ and CMGAN label; NaN where PESQ fails."""
    try:
        return (pesq_wb(clean, enhanced) - _LOWEST) / (_HIGHEST - _LOWEST)
    except MetricError:
        return float("nan")


class PesqPool:
    """Score recordings in worker processes (at least 1), which start with the first request.

    A worker that dies or takes too long is replaced. Its recording has no score.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pool: ProcessPool | None = None

    def label(self, clean: NDArray, enhanced: NDArray) -> Callable[[], NDArray]:
        """Start labelling a batch (b, s) by `normalised_pesq`.

        Returns a function that waits for the labels (b,), float32, NaN where there is none.
        """
        started = [
            self._start(normalised_pesq, *pair) for pair in zip(clean, enhanced, strict=True)
        ]
        return lambda: np.array([result() for result in started], np.float32)  # None becomes NaN

    def validate(
        self, clean: NDArray, enhanced: NDArray, names: tuple[str, ...]
    ) -> Callable[[], dict[str, float | str]]:
        """Start scoring one utterance (s,) by `metrics.scores.score`.

        Returns a function that waits for the scores by name.
        """
        result = self._start(score, clean, enhanced, names)
        return lambda: result() or dict.fromkeys(names, "its worker failed")

    def close(self) -> None:
        """End the workers."""
        if self._pool is not None:
            self._pool.stop()
            self._pool.join()

    def _start(self, function: Callable, clean: NDArray, *arguments: Any) -> Callable[[], Any]:
        """Start a call; return a function that waits for its result, None where it failed."""
        pool = self._working_pool()
        limit = max(_LIMIT, clean.shape[-1] / SAMPLE_RATE)
        future = pool.schedule(function, (clean, *arguments), timeout=limit)

        def result() -> Any:
            try:
                # pebble forgets what waits for a worker when the pool breaks.
                while not wait([future], timeout=1).done:
                    if not pool.active:
                        raise BrokenProcessPool("a worker died while it had nothing to do")
                return future.result()
            except (BrokenProcessPool, ProcessExpired, TimeoutError) as error:
                log.warning(f"an utterance is left without a score: its worker failed ({error!r})")
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
