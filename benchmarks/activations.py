"""How many bytes a computation keeps and takes: counted, not sampled, so the same in every run."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile


def saved_bytes(forward: Callable[[], Any], resident: Iterable[Tensor] = ()) -> int:
    """Bytes that a forward pass leaves for its backward pass, by the hooks of saved tensors.

    A storage that several nodes keep counts once and in full. Parameters do not count, nor does
    what is `resident` anyway, such as the batch. The hooks do not see what a selective checkpoint
    keeps for itself: `kept_bytes` does.
    """
    known = {tensor.untyped_storage().data_ptr() for tensor in resident}
    storages: dict[int, Tensor] = {}  # holding them keeps an address from being given out twice

    def pack(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage().data_ptr()
        if not isinstance(tensor, nn.Parameter) and address not in known:
            storages.setdefault(address, tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    total = sum(tensor.untyped_storage().nbytes() for tensor in storages.values())
    del result
    return total


def kept_bytes(forward: Callable[[], Any], device: torch.device) -> int:
    """Bytes in use after a forward pass, its result held, above those in use before it.

    They are all that the pass leaves for its backward pass, whoever holds it, and the result.
    Counted as in `peak_bytes`; what the pass makes once and for all must be there before.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        result = forward()
        torch.cuda.synchronize(device)
        kept = torch.cuda.memory_allocated(device) - before
        del result
        return kept
    # Now and then the profiler misses that a block was given back: the lower count is right.
    return min(sum(_changes(forward)) for _ in range(2))


def peak_bytes(run: Callable[[], Any], device: torch.device) -> int:
    """Bytes that a computation takes at its peak, above those in use before.

    On a GPU by its allocator's own count. On a CPU by the events of PyTorch's allocator, which
    know nothing of what numpy, oneDNN and FFTs take for themselves.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    return max(accumulate(_changes(run), initial=0))


def _changes(run: Callable[[], Any]) -> list[int]:
    """Bytes that PyTorch's allocator gives (above 0) and takes back (below), in their order.

    What the computation returns is held until after the last of them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # blocks older than the profile, freed in it
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            result = run()
    del result
    results = profiler.profiler.kineto_results
    events = [(e.start_ns(), e.nbytes()) for e in results.events() if e.name() == "[memory]"]
    return [size for _, size in sorted(events, key=lambda event: event[0])]
