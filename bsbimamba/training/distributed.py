"""Several processes that train one network: how they start, and what they tell each other.

They are started by `torchrun`, on one machine or several. Gradients are averaged by torch's
`DistributedDataParallel`. When a process fails, `torchrun` ends the others.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from bsbimamba.openmp import usable_cores
from bsbimamba.training.config import ConfigError


@dataclass(frozen=True)
class World:
    """The processes that train together: one alone, unless made by `join`.

    rank and size are the number of this process, from 0, and how many there are; local_rank and
    local_size are the same among the processes of this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def shard(self, count: int) -> slice:
        """Return this process' part of `count` items. Raise ConfigError if parts are unequal."""
        share, rest = divmod(count, self.size)
        if rest or not share:
            near = [n for n in (share * self.size, (share + 1) * self.size) if n]
            raise ConfigError(
                f"a batch of {count} cannot be shared equally by {self.size} processes; "
                f"use --batch-size {' or '.join(map(str, near))}."
            )
        return slice(self.rank * share, (self.rank + 1) * share)

    def parallel(self, module: nn.Module) -> nn.Module:
        """Return a module whose backward pass averages gradients over all processes.

        With `find_unused_parameters`, torch keeps the layout of its messages. Otherwise it changes
        the layout after the first step, and a resumed run would add in another order.
        """
        if self.size == 1:
            return module
        return DistributedDataParallel(module, broadcast_buffers=False, find_unused_parameters=True)

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """Replace a tensor by its sum over all processes, and return it."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def all_reduce_mean(self, values: Tensor) -> Tensor:
        """Replace a tensor by its mean over all processes, and return it."""
        return values if self.size == 1 else self.all_reduce_sum(values).div_(self.size)

    def all_reduce_any(self, *flags: bool) -> tuple[bool, ...]:
        """Return, for each flag, whether it is set in some process."""
        if self.size == 1:
            return flags
        counts = self.all_reduce_sum(torch.tensor(flags, dtype=torch.int32))
        return tuple(counts.bool().tolist())

    def all_gather(self, value: Any) -> list[Any]:
        """Return the value of each process, in the order of ranks."""
        values: list[Any] = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value)
        return values

    def spare_cores(self) -> int:
        """Return the number of cores for each process' PESQ workers: one is left to compute."""
        return max(1, (usable_cores() - 1) // self.local_size)

    @contextmanager
    def local_main_first(self) -> Iterator[None]:
        """Run the body in one process of each machine first, and then in the others."""
        if self.local_rank:
            self.all_reduce_any(False)
        yield
        if not self.local_rank:
            self.all_reduce_any(False)


@contextmanager
def join() -> Iterator[World]:
    """Join the processes that torchrun has started. Without torchrun, yield a single process.

    Raises ConfigError where this machine has more processes than GPUs.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World()
        return
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    world = World(*(int(os.environ[name]) for name in names))
    gpus = torch.cuda.device_count()
    if gpus:
        if world.local_size > gpus:
            raise ConfigError(
                f"{world.local_size} processes on this machine, which has {gpus} GPUs; start one "
                "for each."
            )
        torch.cuda.set_device(world.local_rank)
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo")
    yield world
    dist.destroy_process_group()
