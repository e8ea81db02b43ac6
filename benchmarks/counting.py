"""Count the bytes, operators and launches of a computation; time the phases of a step.

Bytes and operators are counted, not sampled, so they are equal in every run.
"""

import gc
import operator
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from bsbimamba.training.step import Learner

PHASES = ("data", "forward", "backward", "discriminator", "labels", "optimizer")
V = TypeVar("V")


def saved_bytes(forward: Callable[[], Any], resident: Iterable[Tensor] = ()) -> int:
    """Return the bytes that a forward pass saves for its backward pass.

    A storage that several nodes save counts once and in full. Parameters, `resident` tensors such
    as the batch, and views of either do not count.
    """
    known = {tensor.untyped_storage().data_ptr() for tensor in resident}
    storages: dict[int, Tensor] = {}  # holding them prevents that an address is reused

    def pack(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage().data_ptr()
        owner = tensor if tensor._base is None else tensor._base
        if not isinstance(owner, nn.Parameter) and address not in known:
            storages.setdefault(address, tensor)
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    total = sum(tensor.untyped_storage().nbytes() for tensor in storages.values())
    del result
    storages.clear()  # the graph holds `pack`, which would keep them alive
    return total


def peak_bytes(run: Callable[[], Any], device: str = "cpu") -> int:
    """Return the bytes that a computation takes at its peak, above those in use before.

    On a GPU, PyTorch's allocator counts them. On a CPU, the events of the allocator are added up;
    memory of numpy, oneDNN and FFTs is missing. One thread is used, because the profiler does not
    see what another thread frees.
    """
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            run()
    finally:
        torch.set_num_threads(threads)
    events = _allocations(profiler.profiler.kineto_results.experimental_event_tree())
    live: dict[int, int] = {}  # bytes by address
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_time_ns):
        address, size = event.extra_fields.ptr, event.extra_fields.alloc_size
        if size > 0:
            live[address] = size
        else:  # the profiler reports wrong sizes of blocks that are older than the profile
            size = -live.pop(address, 0)
        now += size
        peak = max(peak, now)
    return peak


def _allocations(events: Iterable[Any]) -> Iterator[Any]:
    """Yield when blocks are allocated and freed, in the order of the calls."""
    for event in events:
        if event.tag == _EventType.Allocation:
            yield event
        yield from _allocations(event.children)


class Operators(TorchDispatchMode):
    """Count the operators dispatched while it is entered: PyTorch's and this project's.

    Views do not count, nor what an operator calls inside itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not call.is_view
        return call(*args, **(kwargs or {}))


def launches(run: Callable[[], Any]) -> int:
    """Return how many times a computation has a GPU launch a kernel, or a graph of kernels."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        run()
        torch.cuda.synchronize()
    names = [event.name() for event in profiler.profiler.kineto_results.events()]
    return sum(name.startswith("cu") and "Launch" in name for name in names)  # cuLaunchKernelEx


def by_phase(
    learner: Learner, step: Callable[[], Any], read: Callable[[], V], less: Callable[[V, V], float]
) -> dict[str, float]:
    """Return by how much a reading grows in each of PHASES of a learner's step, and in all, "step".

    read: returns a time or a count. less(now, before): returns the difference of two of them.
    """
    if learner.precision.device.type == "cuda":
        torch.cuda.synchronize()
    marks = [("", read())]
    learner.mark = lambda phase: marks.append((phase, read()))
    step()
    learner.mark = lambda phase: None
    found = dict.fromkeys(PHASES, 0.0)
    for (_, before), (phase, now) in pairwise(marks):
        found[phase] += less(now, before)
    return found | {"step": sum(found.values())}


def clock(device: str) -> tuple[Callable[[], Any], Callable[[Any, Any], float]]:
    """Return a function that reads the clock, and one that returns the seconds (now, before).

    On a GPU it is the GPU's clock: the time in which it worked, or waited for launches.
    """

    def event() -> torch.cuda.Event:
        now = torch.cuda.Event(enable_timing=True)
        now.record()
        return now

    def elapsed(now: torch.cuda.Event, before: torch.cuda.Event) -> float:
        now.synchronize()
        return before.elapsed_time(now) / 1000

    return (event, elapsed) if device == "cuda" else (time.perf_counter, operator.sub)
