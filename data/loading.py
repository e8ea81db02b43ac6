"""Batches of examples, made by worker processes: in an order that follows from seed and epoch."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from data.dataset import Key
from data.errors import DataError
from data.workers import belong_to_parent, process_context

log = logging.getLogger("data")

_ORDER = 2  # what a generator is for; 0 and 1 are those of `data.dataset`
_ATTEMPTS = 3  # at one batch, before the workers are given up


class EpochSampler(Sampler):
    """Batches of keys (epoch, index), every epoch in an order of its own.

    Call `set_epoch` before iterating. An incomplete last batch is dropped.

    Args:
        size: of the data set.
        batch_size: of the batches of all processes together.
        seed: of the orders.
        share: this process' part of every batch; all of it by default.
    """

    def __init__(self, size: int, batch_size: int, seed: int, share: slice = slice(None)) -> None:
        self.size, self.batch_size, self.seed, self.share = size, batch_size, seed, share
        self.epoch = self.start = 0

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose an epoch, and the number of batches to leave out at its beginning."""
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return self.size // self.batch_size

    def __iter__(self) -> Iterator[list[Key]]:
        rng = np.random.default_rng([self.seed, _ORDER, self.epoch])
        order = rng.permutation(self.size).tolist()
        for batch in range(self.start, len(self)):
            first = batch * self.batch_size
            whole = order[first : first + self.batch_size]
            yield [(self.epoch, index) for index in whole[self.share]]


class Loader:
    """Batches {"name": list, "clean": (b, s), "noisy": (b, s)} in a sampler's order.

    A worker process that dies costs nothing: others start where it had come to, and make the same
    examples, since these do not depend on who makes them.

    Args:
        dataset: of `data.dataset`.
        sampler: its epoch and start are set here.
        workers: processes; with 0 the caller's own makes the examples.
        pin: whether to put batches into memory that a GPU can fetch from.
    """

    def __init__(self, dataset: Dataset, sampler: EpochSampler, workers: int, pin: bool) -> None:
        self._dataset, self.sampler, self._workers, self._pin = dataset, sampler, workers, pin
        self._loader = self._start()

    def batches(self, epoch: int, start: int) -> Iterator[dict[str, Any]]:
        """The batches of an epoch, from number `start` on.

        Raises:
            DataError: a file is no longer what it was, or the workers die again and again.
        """
        self.sampler.set_epoch(epoch, start)
        failures = 0
        while self.sampler.start < len(self.sampler):
            try:
                for names, sides in self._loader:
                    self.sampler.start += 1
                    failures = 0
                    yield {"name": names, "clean": sides[0], "noisy": sides[1]}
            except (RuntimeError, OSError, EOFError) as error:
                # A worker's death shows as any of these, by what was on its way between processes.
                failures += 1
                if not self._workers:
                    raise
                if failures >= _ATTEMPTS:
                    raise DataError(
                        f"the loader's worker processes die again and again ({_last_line(error)}). "
                        "Too little shared memory (/dev/shm) is a common cause: --workers 0 needs "
                        "none."
                    ) from None
                log.warning("a loader process died (%s); others take over", _last_line(error))
                self._loader = self._start()

    def _start(self) -> DataLoader:
        return DataLoader(
            self._dataset,
            batch_sampler=self.sampler,
            num_workers=self._workers,
            multiprocessing_context=process_context() if self._workers else None,
            persistent_workers=self._workers > 0,
            pin_memory=self._pin,
            worker_init_fn=belong_to_parent,
            collate_fn=_together,
        )


def _together(examples: list[dict[str, Any]]) -> tuple[list[str], Tensor]:
    """Names, and both sides in one tensor (2, b, s): each takes a way of its own to the parent.

    That way is what loading from a packed corpus takes most of its time for.
    """
    sides = default_collate([x[side] for side in ("clean", "noisy") for x in examples])
    return [x["name"] for x in examples], sides.view(2, len(examples), -1)


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__
