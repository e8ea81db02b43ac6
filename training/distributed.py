"""Several processes that train one network: what they share, what they add up, how they end.

Started by `torchrun`, on one machine or several. Gradients are added up in one piece after each
step's backward passes, in a layout that never changes. `DistributedDataParallel` would regroup them
after its first step, and so a resumed run would add in another order than one that went on; it has
equal shares for all, where here a batch of 6 is 2, 2, 1 and 1 on four cards; and what it gains, by
sending while the backward pass computes, is little for networks of ten megabytes.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from data.workers import usable_cores
from training.config import ConfigError
from training.watch import Watch

# How long a collective waits. Far above any honest wait (one process alone may look the data over
# first); that a process has died or hangs is noticed by `training.watch`, within a minute.
_PATIENCE = timedelta(hours=2)
_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


class LostError(Exception):
    """Another process of the run is gone; the text says how that was noticed."""


class World:
    """The processes that train together. One alone, unless made by `join`.

    rank: this process, from 0, who leads: it alone writes. size: how many there are. local_rank,
    local_size: the same among those of this machine.
    """

    def __init__(
        self, rank: int = 0, size: int = 1, local_rank: int = 0, local_size: int = 1
    ) -> None:
        self.rank, self.size, self.local_rank, self.local_size = rank, size, local_rank, local_size
        self.leads = rank == 0
        self.watch: Watch | None = None  # of the others, between `join` and the end

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Around collective operations, which fail when another process is gone.

        Gloo raises a plain RuntimeError then, as it does for a bug: the watch knows which it is.
        """
        try:
            yield
        except (torch.OutOfMemoryError, torch.AcceleratorError):
            raise
        except RuntimeError:
            reason = self.watch.why() if self.watch else ""
            if not reason:
                raise
            raise LostError(
                "another process of this run is gone; what is saved is from before. The same "
                f"command goes on from there. ({reason})"
            ) from None

    def share(self, count: int) -> slice:
        """This process' part of `count` items: consecutive, and as long as any other's but one."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def spare_cores(self) -> int:
        """Cores of this machine for each process' PESQ workers, when one is left to compute."""
        return max(1, (usable_cores() - 1) // self.local_size)

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace every tensor by its sum over all processes; all of one dtype and device."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with self._together():
            dist.all_reduce(flat)
        parts = flat.split([tensor.numel() for tensor in tensors])
        torch._foreach_copy_(
            list(tensors), [part.view_as(t) for part, t in zip(parts, tensors, strict=True)]
        )

    def any(self, *wishes: bool) -> tuple[bool, ...]:
        """Of each wish, whether some process has it. All come to the same answer."""
        if self.size == 1:
            return wishes
        votes = torch.tensor(wishes, dtype=torch.int32)
        with self._together():
            dist.all_reduce(votes)
        return tuple(bool(vote) for vote in votes)

    def gather(self, value: Any) -> list[Any]:
        """What each process gave, in the order of ranks, for all of them."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with self._together():
            dist.all_gather_object(values, value)
        return values

    def from_leader(self, value: Any) -> Any:
        """What the leading process gave, for all of them."""
        if self.size == 1:
            return value
        box = [value]
        with self._together():
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def agree(self, mine: Mapping[str, Any]) -> None:
        """Refuse processes of which one has other values: they would wait for each other.

        Raises:
            ConfigError: in all of them; the text says which one differs, and in what.
        """
        everyone = self.gather(dict(mine))
        for rank, theirs in enumerate(everyone):
            names = [name for name, value in theirs.items() if value != everyone[0].get(name)]
            if names:
                raise ConfigError(
                    f"rank {rank} differs from rank 0 in {', '.join(names)}. All processes need "
                    "the same code, command line and data."
                )

    @contextmanager
    def one_first(self) -> Iterator[None]:
        """Its body is run by one process of each machine first, and then by the others."""
        if self.local_rank:
            self.any(False)
        yield
        if not self.local_rank:
            self.any(False)


@contextmanager
def join() -> Iterator[World]:
    """The world that torchrun's environment variables tell of; without them, a process alone.

    An error that leaves the context ends the other processes too, with its text.

    Raises:
        ConfigError: the variables make no sense, or the others cannot be reached.
    """
    if "WORLD_SIZE" not in os.environ:
        yield World()
        return
    world = World(*_numbers())
    if world.size == 1:
        yield world
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(world.local_rank % torch.cuda.device_count())
    try:
        store, *_ = next(dist.rendezvous("env://", timeout=timedelta(minutes=5)))
        dist.init_process_group(
            backend,
            store=dist.PrefixStore("collectives", store),
            rank=world.rank,
            world_size=world.size,
            timeout=_PATIENCE,
        )
    except (dist.DistError, ValueError) as error:
        raise ConfigError(f"the other processes cannot be reached: {error}") from None
    world.watch = watch = Watch(dist.PrefixStore("watch", store.clone()), world.rank, world.size)
    try:
        yield world
    except BaseException as error:
        watch.report(error)
        raise
    world.any(False)  # nobody leaves while another may still need it
    watch.end()
    dist.destroy_process_group()


def leave(status: int, error: BaseException | None = None) -> None:
    """End this process at once, with `status`, where others may be waiting for it in vain.

    The ordinary end would wait for what these still owe. Does nothing in a process alone.

    Args:
        error: to be shown with its traceback.
    """
    if dist.is_available() and dist.is_initialized():
        if error is not None:
            traceback.print_exception(error)
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        os._exit(status)


def _numbers() -> list[int]:
    try:
        numbers = [int(os.environ[name]) for name in _VARIABLES]
    except (KeyError, ValueError):
        listed = ", ".join(f"{name}={os.environ.get(name)}" for name in _VARIABLES)
        raise ConfigError(f"started by torchrun? Its variables are incomplete: {listed}") from None
    rank, size, local_rank, local_size = numbers
    if not (0 <= rank < size and 0 <= local_rank < local_size <= size):
        listed = ", ".join(f"{name}={os.environ[name]}" for name in _VARIABLES)
        raise ConfigError(f"started by torchrun? Its variables contradict each other: {listed}")
    return numbers
