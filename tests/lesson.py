"""One step of a discriminator on four crops, alone or in one of several processes.

`python lesson.py FOLDER` saves the loss and the gradients as FOLDER/RANK.pt.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from recordings import voiced

from bsbimamba.training.config import Config
from bsbimamba.training.discriminator import MetricDiscriminator
from bsbimamba.training.distributed import World, join
from bsbimamba.training.precision import Precision

LABELS = np.array([0.4, np.nan, 0.7, 0.2], np.float32)


class FixedPool:
    """Return the given labels (b,) in turn, in place of `PesqPool`."""

    def __init__(self, *labels: object) -> None:
        self._labels = cycle([np.asarray(each, np.float32) for each in labels])

    def label(self, reference: NDArray, judged: NDArray) -> Callable[[], NDArray]:
        labels = next(self._labels)
        return lambda: labels


def make(
    pool: object, config: Config | None = None, world: World | None = None, dropout: float = 0.0
) -> MetricDiscriminator:
    """A discriminator on the CPU, by default without its dropout."""
    torch.manual_seed(3)
    made = MetricDiscriminator(
        world or World(),
        config or Config(),
        Precision("cpu", "off"),
        pool,  # type: ignore[arg-type]
    )
    for layer in made.network.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = dropout
    return made


def lesson(world: World) -> dict[str, torch.Tensor]:
    """The loss and the gradients, by name, of this process' share of the four crops."""
    mine = world.shard(len(LABELS))
    discriminator = make(FixedPool(LABELS[mine]), world=world)
    pairs = [voiced(seed, noise) for seed, noise in ((1, 0.02), (2, 0.2))]
    clean, noisy = (torch.cat(side)[mine] for side in zip(*pairs, strict=True))
    discriminator.remember(0.5 * (clean + noisy), clean, noisy)
    learnt = discriminator.backward()
    gradients = {name: p.grad for name, p in discriminator.network.named_parameters()}
    return {"loss": learnt["discriminator"], **gradients}


if __name__ == "__main__":
    with join() as joined:
        torch.save(lesson(joined), Path(sys.argv[1]) / f"{joined.rank}.pt")
