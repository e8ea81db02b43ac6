"""Scores of a network on the held-out utterances."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from bsbimamba.data.dataset import SpeechDataset
from bsbimamba.network.net import BandSplitNet
from bsbimamba.training.distributed import World
from bsbimamba.training.pesq import PesqPool

_METRICS = ("pesq_wb", "stoi")
_SAMPLES = 3

Scores = dict[str, float]
Samples = dict[str, dict[str, Tensor]]


class Validator:
    """Enhance every held-out utterance whole, and score it while the next one is enhanced.

    Every process takes its part of the utterances. All of them return the means that one process
    alone would return.
    """

    def __init__(
        self, dataset: SpeechDataset, pool: PesqPool, device: torch.device, world: World
    ) -> None:
        self.dataset, self.pool, self.device, self.world = dataset, pool, device, world
        self._noisy: Scores = {}

    def scores(
        self, model: BandSplitNet, stopped: Callable[[], bool]
    ) -> tuple[Scores, Samples] | None:
        """Score a network, in fp32, whatever the training uses. All processes must call it.

        Returns:
            The means of `pesq_wb` and `stoi` over the utterances that have both, with `scored`,
            their number, `files`, that of all, and `noisy_pesq_wb` and `noisy_stoi`, the means of
            the noisy recordings; and of the first utterances the recordings noisy, enhanced and
            clean (s,) by name. A mean over nothing is NaN. None as soon as `stopped` is true.
        """
        waits: dict[int, list[Callable[[], dict[str, float | str]]]] = {}
        samples: Samples = {}
        count = len(self.dataset)
        mine = range(self.world.rank, count, self.world.size)
        quiet = None if self.world.is_main else True  # None: where there is no terminal
        for index in tqdm(mine, desc="validating", leave=False, disable=quiet):
            if stopped():
                break
            item = self.dataset[0, index]
            clean, noisy = item["clean"], item["noisy"]
            enhanced = model.enhance(noisy[None].to(self.device))[0].cpu()
            scored = [enhanced] if self._noisy else [enhanced, noisy]  # noisy: always the same
            waits[index] = [self.pool.validate(clean.numpy(), x.numpy(), _METRICS) for x in scored]
            if index < _SAMPLES:
                samples[item["name"]] = {"noisy": noisy, "enhanced": enhanced, "clean": clean}
        found = {}
        for index, each in waits.items():
            if stopped():
                break
            found[index] = [wait() for wait in each]
        if any(self.world.all_reduce_any(stopped())):
            return None
        gathered = self.world.all_gather((found, samples))
        # In the order of the files: a sum in another order is another number.
        scores = dict(sorted(item for part, _ in gathered for item in part.items()))
        if not self._noisy:
            means = _means([noisy for _, noisy in scores.values()])
            self._noisy = {f"noisy_{name}": means[name] for name in _METRICS}
        means = _means([each[0] for each in scores.values()])
        samples = {name: sounds for _, part in gathered for name, sounds in part.items()}
        return {**means, "files": count, **self._noisy}, samples


def _means(results: list[dict[str, float | str]]) -> Scores:
    scored = [r for r in results if not any(isinstance(v, str) for v in r.values())]
    means = {
        name: float(np.mean([r[name] for r in scored])) if scored else math.nan for name in _METRICS
    }
    return {**means, "scored": len(scored)}
