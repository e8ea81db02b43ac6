"""Count the bytes, operators and launches of a computation; time the phases of a step.

Bytes and operators are counted, not sampled, so they are equal in every run.
"""

from __future__ import annotations

import gc
import re
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

PHASES = ("data", "forward", "backward", "discriminator", "labels", "optimizer")
_CPU = torch.device("cpu")
_LAUNCH = re.compile(
    r"cu(da)?(Graph)?Launch\w*"
)  # cudaLaunchKernel, cuLaunchKernelEx, cudaGraphLaunch


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


def peak_bytes(run: Callable[[], Any], device: torch.device = _CPU) -> int:
    """Return the bytes that a computation takes at its peak, above those in use before.

    On a GPU, PyTorch's allocator counts them. On a CPU, the events of the allocator are added up;
    memory of numpy, oneDNN and FFTs is missing. One thread is used, because the profiler does not
    see what another thread frees.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of blocks allocated before the profile
            with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
                run()
    finally:
        torch.set_num_threads(threads)
    now = peak = 0
    for size in _sizes(profiler.profiler.kineto_results.experimental_event_tree()):
        now += size
        peak = max(peak, now)
    return peak


def _sizes(roots: list[Any]) -> Iterator[int]:
    """Yield the size of each block when it is allocated, and minus its size when it is freed.

    Sizes are remembered by address: for a block that is older than the profile, the profiler may
    report the size of another block that was at its address.
    """
    events, waiting = [], roots[::-1]
    while waiting:  # in the order of the calls, which decides where two have the same time
        event = waiting.pop()
        waiting += event.children[::-1]
        if event.tag == _EventType.Allocation:
            events.append(event)
    live: dict[int, int] = {}
    for event in sorted(events, key=lambda event: event.start_time_ns):
        address, size = event.extra_fields.ptr, event.extra_fields.alloc_size
        if size > 0:
            live[address] = size
            yield size
        elif address in live:
            yield -live.pop(address)


class Operators(TorchDispatchMode):
    """Count the operators dispatched while it is entered: PyTorch's and this project's.

    Views do not count, nor what an operator calls inside itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.count += not operator.is_view
        return operator(*args, **(kwargs or {}))


def launches(run: Callable[[], Any]) -> int:
    """Return how many times a computation has a GPU launch a kernel, or a graph of kernels."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        run()
        torch.cuda.synchronize()
    events = profiler.profiler.kineto_results.events()
    return sum(_LAUNCH.fullmatch(event.name()) is not None for event in events)


class Clock:
    """Time the phases of a step, as `training.step.Learner.mark`.

    On a GPU it records events and does not wait. A phase is then the time in which the GPU worked
    on it, or waited for its launches.
    """

    def __init__(self, device: torch.device) -> None:
        self._gpu, self._device = device.type == "cuda", device
        self._marks: list[tuple[str, Any]] = []
        self._start = 0.0

    def begin(self) -> None:
        """Begin a step."""
        self._synchronise()
        self._start = time.perf_counter()
        self._marks = [("", self._now())]

    def __call__(self, phase: str) -> None:
        """End a phase."""
        self._marks.append((phase, self._now()))

    def end(self) -> dict[str, float]:
        """End the step. Returns the seconds of each of PHASES, and of the whole "step"."""
        self._synchronise()
        seconds = dict.fromkeys(PHASES, 0.0) | {"step": time.perf_counter() - self._start}
        for (_, before), (phase, now) in pairwise(self._marks):
            seconds[phase] += before.elapsed_time(now) / 1000 if self._gpu else now - before
        return seconds

    def _now(self) -> Any:
        if not self._gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def _synchronise(self) -> None:
        if self._gpu:
            torch.cuda.synchronize(self._device)
