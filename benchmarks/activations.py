"""How many bytes a computation keeps and takes: counted, not sampled, so the same in every run."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity, profile
from torch.utils._pytree import tree_leaves

_CPU = torch.device("cpu")


def saved_bytes(forward: Callable[[], Any], resident: Iterable[Tensor] = ()) -> int:
    """Bytes that a forward pass leaves for its backward pass, by the hooks of saved tensors.

    A storage that several nodes keep counts once and in full. Parameters and their views do not
    count, nor does what shares its storage with what is `resident` anyway, such as the batch.
    """
    known = {tensor.untyped_storage().data_ptr() for tensor in resident}
    storages: dict[int, Tensor] = {}  # holding them keeps an address from being given out twice

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
    storages.clear()  # the graph holds `pack`, and so what is in there: for ever
    return total


def kept_bytes(forward: Callable[[], Any], device: torch.device = _CPU) -> int:
    """Bytes that a forward pass leaves in use for its backward pass, by the allocator's count.

    They are what is still in use when of its result nothing but the graph is held: whatever hides
    from the hooks of `saved_bytes` counts, and what was there before does not. Call `forward` once
    before: what it makes once and keeps for ever counts too.
    """

    def graph() -> list[Any]:
        return [x.grad_fn for x in tree_leaves(forward()) if isinstance(x, Tensor)]

    kept, changes = _changes(graph, device)
    del kept
    return sum(changes)


def peak_bytes(run: Callable[[], Any], device: torch.device = _CPU) -> int:
    """Bytes that a computation takes at its peak, above those in use before."""
    now = peak = 0
    for change in _changes(run, device)[1]:
        now += change
        peak = max(peak, now)
    return peak


def _changes(run: Callable[[], Any], device: torch.device) -> tuple[Any, list[int]]:
    """What `run` returns, and how the bytes in use change meanwhile, one after the other.

    On a GPU by its allocator's own count: up to the peak, and from there. On a CPU by the events of
    PyTorch's allocator, which know nothing of what numpy, oneDNN and FFTs take for themselves; in
    one thread, since what another one frees, the profile does not see.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        result = run()
        torch.cuda.synchronize(device)
        most = torch.cuda.max_memory_allocated(device)
        return result, [most - before, torch.cuda.memory_allocated(device) - most]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # blocks older than the profile, freed in it
            with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
                result = run()
    finally:
        torch.set_num_threads(threads)
    results = profiler.profiler.kineto_results
    return result, list(_sizes(results.experimental_event_tree()))


def _sizes(roots: list[Any]) -> Iterator[int]:
    """Of the blocks that a profile saw allocated, and with a minus, where freed.

    Blocks are told apart by their addresses: of one that is older, the profiler may report the size
    of another that once was there.
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
