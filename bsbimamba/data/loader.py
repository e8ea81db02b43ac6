"""Batches of examples from worker processes, in an order that follows from seed and epoch.

`EpochSampler` says which examples of `data.dataset` make a batch, `Loader` makes the batches, and
`training.loop.Trainer` takes one step for each.
"""

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from bsbimamba.data.dataset import Key
from bsbimamba.data.workers import begin_worker, process_context
from bsbimamba.utils import DataError

log = logging.getLogger("data")

_ORDER = 2  # what a generator is for; 0 and 1 are those of `data.dataset`


class EpochSampler(Sampler):
    """Batches of keys (epoch, index), every epoch in an order of its own.

    Call `set_epoch` before iterating. An incomplete last batch is dropped.

    Args:
        size: number of examples in the data set.
        batch_size: of all processes together.
        seed: of the orders.
        share: this process' part of every batch; all of it by default.
    """

    def __init__(self, size: int, batch_size: int, seed: int, share: slice = slice(None)) -> None:
        self.size, self.batch_size, self.seed, self.share = size, batch_size, seed, share
        self.epoch = self.start = 0

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose an epoch, and how many batches to leave out at its beginning."""
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        """Return the number of batches of a whole epoch."""
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

    If a worker process dies, new ones make the rest of the epoch, with the same examples.

    Args:
        dataset: of `data.dataset`.
        sampler: its epoch and start are set here.
        workers: number of processes; with 0 the caller's own makes the examples.
        pin: whether to put batches into pinned memory.
    """

    def __init__(self, dataset: Dataset, sampler: EpochSampler, workers: int, pin: bool) -> None:
        self._dataset, self.sampler, self._workers, self._pin = dataset, sampler, workers, pin
        self._loader = self._start()

    def batches(self, epoch: int, start: int) -> Iterator[dict[str, Any]]:
        """Yield the batches of an epoch, from number `start` on.

        Raises DataError if a file has changed, and what a batch has failed with twice.
        """
        self.sampler.set_epoch(epoch, start)
        failed = -1
        while self.sampler.start < len(self.sampler):
            try:
                for names, sides in self._loader:
                    self.sampler.start += 1
                    yield {"name": names, "clean": sides[0], "noisy": sides[1]}
            except (RuntimeError, OSError, EOFError) as error:
                # A worker's death shows as any of these, by what was on its way between processes.
                if failed == self.sampler.start:
                    raise
                failed = self.sampler.start
                log.warning("batch %d failed (%s); it is loaded once more", failed, error)
                self._loader = self._start()

    def _start(self) -> DataLoader:
        return DataLoader(
            self._dataset,
            batch_sampler=self.sampler,
            num_workers=self._workers,
            multiprocessing_context=process_context() if self._workers else None,
            persistent_workers=self._workers > 0,
            pin_memory=self._pin,
            worker_init_fn=begin_worker,
            collate_fn=_together,
        )


def _together(examples: list[dict[str, Any]]) -> tuple[list[str], Tensor]:
    """Return names, and both sides in one tensor (2, b, s): sending one is faster than two.

    Raises DataError in a worker that lacks shared memory for it.
    """
    sides = torch.stack([x[side] for side in ("clean", "noisy") for x in examples])
    if get_worker_info() is not None:
        try:
            sides.share_memory_()  # here: in the queue's own thread, an error would be lost
        except RuntimeError as error:
            raise DataError(f"enlarge /dev/shm, or use --workers 0 ({error})") from None
    return [x["name"] for x in examples], sides.view(2, len(examples), -1)
