"""Scores of a network on the held-out utterances."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from bandsplit.net import BandSplitNet
from data.dataset import SpeechDataset
from training.pesq_pool import PesqPool

_METRICS = ("pesq_wb", "stoi")
_SAMPLES = 3


def validate(
    model: BandSplitNet, dataset: SpeechDataset, pool: PesqPool, device: torch.device
) -> tuple[dict[str, float], dict[str, dict[str, Tensor]]]:
    """Enhance every utterance whole and score it, in the pool, while the next one is enhanced.

    Returns:
        The means of `pesq_wb` and `stoi` over the utterances that have both, with `scored`, their
        number, and `files`, that of all; and of the first utterances the recordings noisy, clean
        and enhanced (s,) by name. A mean over nothing is NaN. In fp32, whatever the training uses.
    """
    waits: list[Callable[[], dict[str, float | str]]] = []
    samples: dict[str, dict[str, Tensor]] = {}
    count = len(dataset)
    for index in tqdm(range(count), desc="validating", leave=False):
        item = dataset[0, index]
        enhanced = model.enhance(item["noisy"][None].to(device))[0].cpu()
        waits.append(pool.validate(item["clean"].numpy(), enhanced.numpy(), _METRICS))
        if index < _SAMPLES:
            samples[item["name"]] = {k: item[k] for k in ("noisy", "clean")} | {
                "enhanced": enhanced
            }
    results = [wait() for wait in waits]
    scored = [r for r in results if not any(isinstance(v, str) for v in r.values())]
    means = {
        name: float(np.mean([r[name] for r in scored])) if scored else math.nan for name in _METRICS
    }
    return {**means, "scored": len(scored), "files": count}, samples
