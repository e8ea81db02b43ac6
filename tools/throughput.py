"""What a piece of training achieved, against what the hardware allows."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import torch

from training.history import HistoryError, read

_PASSES = 3  # a training step computes the forward pass and, twice as dear, the backward pass
_SIZE = {"cpu": 1024, "cuda": 8192}  # of the square matrices that are multiplied
_ROUNDS = 5
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def achieved(run: Path, before: int, after: int, threads: int) -> dict[str, Any]:
    """Crops a second of the steps from `before` to `after`, and how much of the hardware that is.

    `products`: multiply-accumulates a second that the network's passes came to, three forward
    passes a step; `products_allowed`: those of a large matrix product in the same precision on the
    same device and as many threads, measured now. Scans, transforms, elementwise functions and the
    wait for data are in the time of the first and not among its products.
    """
    try:
        config, lines = read(run)
    except HistoryError:
        return {}
    facts, settings = config.get("facts", {}), config.get("config", {})
    speeds = [
        line["speed"]["crops_per_second"]
        for line in lines
        if before < line["step"] <= after and line.get("speed", {}).get("crops_per_second")
    ]
    if not speeds or "macs_per_second" not in facts:
        return {}
    crops = statistics.median(speeds)
    products = _PASSES * crops * settings["data.crop_seconds"] * facts["macs_per_second"]
    found = {
        "device": facts.get("hardware", facts["device"]),
        "amp": facts["amp"],
        "crops_per_second": round(crops, 2),
        "products": round(products),
    }
    try:
        allowed = products_allowed(facts["device"], facts["amp"], threads)
    except RuntimeError:  # of a GPU whose memory another process has
        return found
    return found | {"products_allowed": round(allowed), "share": round(products / allowed, 3)}


def products_allowed(device: str, amp: str, threads: int) -> float:
    """Multiply-accumulates a second of a matrix product, the median of five."""
    kind = torch.device(device).type
    size, dtype = _SIZE[kind], _DTYPES.get(amp, torch.float32)
    a = torch.ones(size, size, dtype=dtype, device=device)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        _seconds(a)  # the first one prepares
        return size**3 / statistics.median(_seconds(a) for _ in range(_ROUNDS))
    finally:
        torch.set_num_threads(before)


def _seconds(a: torch.Tensor) -> float:
    if a.is_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    a @ a
    if a.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start
