"""PESQ of training examples, so that the accelerator does not wait for it.

Worker processes compute it exactly; `label_on_device` computes it in PyTorch.
"""

import logging
import math
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from pebble import ProcessExpired, ProcessPool
from torch import Tensor

from bsbimamba.data.levels import SAMPLE_RATE
from bsbimamba.data.workers import result_of, worker_pool
from bsbimamba.metrics.pesq_torch import pesq_torch
from bsbimamba.metrics.scores import score

log = logging.getLogger("training")

# Labels recordings (p + 1, b, s), each with the one before it as its reference. Returns a function
# that waits for the labels (p, b), float32, on their device: (PESQ - 1) / 3.5, as MetricGAN+ and
# CMGAN label; NaN where there is none.
Labeller = Callable[[Tensor], Callable[[], Tensor]]

_LOWEST, _HIGHEST = 1.0, 4.5
_LIMIT = 30.0  # s, or as long as the recording lasts; PESQ of a crop takes 0.1 s on a free core


def label_on_device(waveforms: Tensor) -> Callable[[], Tensor]:
    """Label recordings by `metrics.pesq_torch`; see `Labeller`. Nothing is read on the host."""
    pairs = (side.flatten(0, 1) for side in (waveforms[:-1], waveforms[1:]))
    labels = (pesq_torch(*pairs) - _LOWEST) / (_HIGHEST - _LOWEST)
    return lambda: labels.view(-1, waveforms.shape[1])


class PesqPool:
    """Score recordings in worker processes (at least 1), which start with the first request.

    A worker that dies or takes too long is replaced. Its recording has no score.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pool: ProcessPool | None = None

    def label(self, waveforms: Tensor) -> Callable[[], Tensor]:
        """Start labelling recordings by `pesq_wb`; see `Labeller`."""
        started = [
            self.validate(*pair, ("pesq_wb",))
            for sides in pairwise(waveforms.cpu().numpy())
            for pair in zip(*sides, strict=True)
        ]

        def labels() -> Tensor:
            found = [wait()["pesq_wb"] for wait in started]
            pesq = np.array([math.nan if isinstance(x, str) else x for x in found])
            scaled = torch.from_numpy((pesq - _LOWEST) / (_HIGHEST - _LOWEST)).float()
            return scaled.view(-1, waveforms.shape[1]).to(waveforms.device)

        return labels

    def validate(
        self, clean: NDArray, enhanced: NDArray, names: tuple[str, ...]
    ) -> Callable[[], dict[str, float | str]]:
        """Start scoring one utterance (s,) by `metrics.scores.score`.

        Returns a function that waits for the scores by name.
        """
        if not self._pool or not self._pool.active:  # a worker that dies with nothing to do ends it
            self.close()
            self._pool = worker_pool(self._workers)
        pool, limit = self._pool, max(_LIMIT, clean.shape[-1] / SAMPLE_RATE)
        future = pool.schedule(score, (clean, enhanced, names), timeout=limit)

        def scores() -> dict[str, float | str]:
            try:
                return result_of(pool, future)
            except (BrokenProcessPool, ProcessExpired, TimeoutError) as error:
                log.warning(f"an utterance is left without a score: its worker failed ({error!r})")
                return dict.fromkeys(names, "its worker failed")

        return scores

    def close(self) -> None:
        """End the workers."""
        if self._pool:
            self._pool.stop()
            self._pool.join()
