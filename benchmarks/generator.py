"""The generator's part of a training step, and enhancement: passes to be timed and weighed.

The generator's part is what `training.learner.Learner` does for the network that is trained: its
forward pass, the losses of its recipe, the metric discriminator's among them, and the backward
pass through all of it. The optimizers and the discriminator's own learning are not in it.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bandsplit.net import BandSplitNet, loudness
from benchmarks import candidates
from benchmarks.activations import kept_bytes, peak_bytes
from benchmarks.candidates import ConstantPool, networks
from training.distributed import World
from training.learner import Learner
from training.precision import Precision
from training.settings import override

_MEMORY_INFO = Path("/proc/meminfo")  # Linux


def make_learner(folder: str, precision: Precision, changes: Mapping[str, Any]) -> Learner:
    """The learner of a folder's network, some settings changed by dotted name, labels constant."""
    network = networks()[folder]
    config = override(network.config, changes)
    return Learner(network.kind, config, precision, World(), ConstantPool(1))


def noise(batch: int, seconds: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Clean and noisy waveforms (b, s), the same in every run, scaled as a step scales them."""
    sides = candidates.noise(batch, seconds)
    scale = loudness(sides["noisy"])
    return (sides["clean"] / scale).to(device), (sides["noisy"] / scale).to(device)


class Generator:
    """A folder's network with the losses of its recipe, in a precision."""

    def __init__(
        self, folder: str, precision: Precision, changes: Mapping[str, Any] | None = None
    ) -> None:
        self.precision, self.device = precision, precision.device
        learner = make_learner(folder, precision, changes or {})
        self.net: BandSplitNet = learner.model
        self._learner = learner

    def loss(self, clean: Tensor, noisy: Tensor) -> Tensor:
        """The loss () of waveforms (b, s), as a step takes it."""
        return self._learner.losses(clean, noisy, self._learner.config.loss)[0]

    def train(self, clean: Tensor, noisy: Tensor) -> None:
        """Forward and backward; the gradients are made and forgotten."""
        self.net.train()
        self.loss(clean, noisy).backward()
        self.net.zero_grad(set_to_none=True)

    def enhance(self, noisy: Tensor) -> None:
        """What listening needs: the forward pass, without gradients."""
        self.net.eval()
        with self.precision.autocast():
            self.net.enhance(noisy)


class Pass:
    """A use of a network, "training" or "enhancement", on a batch of noise."""

    def __init__(self, generator: Generator, use: str, batch: int, seconds: float) -> None:
        self.generator, self.use, self.device = generator, use, generator.device
        self.clean, self.noisy = noise(batch, seconds, self.device)

    def run(self) -> None:
        if self.use == "training":
            self.generator.train(self.clean, self.noisy)
        else:
            self.generator.enhance(self.noisy)

    def weigh(self) -> tuple[int, int] | None:
        """Bytes at the pass's peak, and those that a forward pass keeps for its backward pass.

        Enhancement keeps none. None where there is not enough memory. Warms up.
        """
        try:
            self.run()  # what is made once and for all must not count
            peak = peak_bytes(self.run, self.device)
            if self.use != "training":
                return peak, 0
            return peak, kept_bytes(
                lambda: self.generator.loss(self.clean, self.noisy), self.device
            )
        except torch.OutOfMemoryError:
            pass  # its traceback holds what must be freed: go on outside
        self.generator.net.zero_grad(set_to_none=True)
        gc.collect()
        torch.cuda.empty_cache()
        return None

    def seconds(self) -> float:
        """What one pass takes by the wall clock, a GPU's queue empty before and after."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        else:
            time.sleep(0.02)  # threads of OpenMP spin on for some milliseconds after a loop
        begin = time.perf_counter()
        self.run()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - begin


def enough_memory(size: float, device: torch.device) -> bool:
    """Whether a pass of so many bytes may be tried.

    On a GPU, always: there it fails in a way that can be caught. Where a CPU's memory runs out the
    system ends the process, or others.
    """
    if device.type == "cuda":
        return True
    try:
        fields = dict(line.split(":") for line in _MEMORY_INFO.read_text().splitlines())
        available = 1024 * int(fields["MemAvailable"].removesuffix("kB"))
    except (OSError, ValueError, KeyError):
        return True
    return size < 0.8 * available  # the allocator's own waste
