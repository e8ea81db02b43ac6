"""What fits a limit of memory, and the largest that does."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from benchmarks.activations import peak_bytes

CARD, ASIDE = 12.0, 1.0  # GiB: of the card that all must fit, and what PyTorch does not get of it


def usable(gib: float = CARD) -> int:
    """Bytes that PyTorch has of a card: the rest is CUDA's context, kernels and a desktop."""
    return round((gib - ASIDE) * 2**30)


@dataclass(frozen=True)
class Used:
    """Bytes in use at most, and bytes that the allocator held for it at most."""

    allocated: int
    reserved: int


class Meter:
    """Holds runs to a limit of memory, and says what they took.

    On a CPU, which cannot be held to one, what they took beyond what was there is compared with it.

    Attributes:
        wanted, limit: bytes; what was asked for, and that or all of a card that has no more.
    """

    def __init__(self, device: torch.device, limit: int) -> None:
        self.device, self.wanted, self.limit = device, limit, limit
        if device.type == "cuda":
            total = torch.cuda.get_device_properties(device).total_memory
            self.limit = min(limit, total)
            torch.cuda.set_per_process_memory_fraction(self.limit / total, device)

    def run(self, work: Callable[[], object]) -> Used | None:
        """What a run took; None where it did not fit."""
        if self.device.type != "cuda":
            taken = peak_bytes(work)
            return Used(taken, taken) if taken <= self.limit else None
        used = None
        self._free()
        torch.cuda.reset_peak_memory_stats(self.device)
        try:
            work()
            torch.cuda.synchronize(self.device)
            most = torch.cuda.max_memory_allocated, torch.cuda.max_memory_reserved
            used = Used(*(f(self.device) for f in most))
        except torch.OutOfMemoryError:
            pass
        # Only here: before, the error's frames held what there was no room beside.
        self._free()
        return used

    def _free(self) -> None:
        gc.collect()
        torch.cuda.empty_cache()


def largest(fits: Callable[[int], bool], start: int, limit: int) -> int:
    """The largest number up to `limit` that fits, if all below it do; 0 if none does.

    From `start` on it is looked for in steps that double, and then between the last two.
    """
    good, bad = 0, limit + 1
    number, step = max(1, min(start, limit)), 1
    while bad - good > 1:
        if fits(number):
            good = number
        else:
            bad = number
        if bad > limit:
            number = min(good + step, limit)
        elif good == 0:
            number = max(bad - step, 1)
        else:
            number = (good + bad) // 2
        step *= 2
    return good


def predicted(sizes: Mapping[int, int], limit: int) -> int:
    """The batch whose bytes reach `limit`, on the line through those of two batches; at least 1."""
    (few, less), (many, more) = sorted(sizes.items())
    slope = (more - less) / (many - few)
    return max(1, int(few + (limit - less) / slope)) if slope > 0 else many
