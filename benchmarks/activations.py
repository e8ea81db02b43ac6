"""How many bytes a computation keeps and takes: counted, not sampled, so the same in every run."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile


def saved_bytes(forward: Callable[[], Any], resident: Iterable[Tensor] = ()) -> int:
    """Bytes that a forward pass leaves for its backward pass, by the hooks of saved tensors.

    A storage that several nodes keep counts once and in full. Parameters do not count, nor does
    what is `resident` anyway, such as the batch.
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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # blocks older than the profile, freed in it
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            run()
    results = profiler.profiler.kineto_results  # type: ignore[union-attr]
    events = [(e.start_ns(), e.nbytes()) for e in results.events() if e.name() == "[memory]"]
    now = peak = 0
    for _, size in sorted(events, key=lambda event: event[0]):
        now += size
        peak = max(peak, now)
    return peak
