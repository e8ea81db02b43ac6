"""Batches of examples from worker processes, in an order that follows from seed and epoch.

`EpochSampler` says which examples of `data.dataset` make a batch, `Loader` makes the batches, and
`training.loop.Trainer` takes one step for each.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler

from bsbimamba.data.dataset import Key
from bsbimamba.data.workers import begin_worker, process_context

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

    Args:
        dataset: of `data.dataset`.
        sampler: its epoch and start are set here.
        workers: number of processes; with 0 the caller's own makes the examples.
        pin: whether to put batches into pinned memory.
    """

    def __init__(self, dataset: Dataset, sampler: EpochSampler, workers: int, pin: bool) -> None:
        self._sampler = sampler
        self._loader = DataLoader(
            dataset,
            batch_sampler=sampler,
            num_workers=workers,
            multiprocessing_context=process_context() if workers else None,
            persistent_workers=workers > 0,
            pin_memory=pin,
            worker_init_fn=begin_worker,
        )

    def batches(self, epoch: int, start: int) -> Iterator[dict[str, Any]]:
        """Yield the batches of an epoch, from number `start` on.

        Raises DataError if a file has changed, RuntimeError if a worker process dies.
        """
        self._sampler.set_epoch(epoch, start)
        yield from self._loader
