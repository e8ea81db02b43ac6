"""Trained networks as functions: `load("abl3")(x, sample_rate)`."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bsbimamba.data.audio import RATES, AudioError
from bsbimamba.inference.trained import DEFAULT, Trained, described, find
from bsbimamba.inference.windows import Block, Windows, enhanced
from bsbimamba.network.net import BandSplitNet
from bsbimamba.training.config import ConfigError
from bsbimamba.training.precision import Precision

Samples = TypeVar("Samples", NDArray, Tensor)


@dataclass(frozen=True)
class Model:
    """A speech enhancer for signals of any length, sampling rate and number of channels.

    Attributes:
        trained: the network, and facts about the run that trained it.
        windows: how long signals are cut.

    It can be pickled and copied, and used in threads and in child processes of every kind.
    """

    trained: Trained
    windows: Windows = field(default_factory=Windows)

    @property
    def network(self) -> BandSplitNet:
        """Return the network: its `enhance` maps waveforms (b, s) at 16 kHz to the same."""
        return self.trained.network

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload weights, config.json and card as the hub's model `repo_id`, "owner/name".

        options: of `huggingface_hub.ModelHubMixin.push_to_hub`. Return the commit's address.
        """
        return described(self.trained).push_to_hub(
            repo_id, model_card_kwargs={"repo_id": repo_id}, **options
        )

    def __call__(self, x: Samples, sample_rate: int) -> Samples:
        """Return the enhanced signal: of the same shape, rate, kind, dtype and device.

        Args:
            x: floating-point samples (s,) or (channels, s), numpy or torch; each channel is
                enhanced as if it were alone.
            sample_rate: in Hz, from 4 kHz up; the result has nothing above 8 kHz.

        Raises:
            TypeError, ValueError: x or sample_rate is something else.
        """
        values: Any = x
        if isinstance(x, Tensor):  # numpy has no bfloat16
            values = (x.float() if x.dtype == torch.bfloat16 else x).detach().cpu().numpy()
        _check(values, sample_rate)
        source = _InMemory(np.atleast_2d(values), int(sample_rate))
        try:
            blocks = list(enhanced(self.network, source, self.windows))
        except AudioError as error:
            raise ValueError(f"the signal cannot be enhanced: {error}") from None
        y = np.concatenate(blocks, axis=1).reshape(values.shape).astype(values.dtype, copy=False)
        return torch.from_numpy(y).to(x) if isinstance(x, Tensor) else y


class _InMemory:
    """A signal (c, s), read in blocks of a million samples as a `Source`."""

    def __init__(self, x: NDArray, rate: int) -> None:
        self.x, self.rate = x, rate
        self.channels, self.frames = x.shape

    def blocks(self) -> Iterator[Block]:
        for first in range(0, self.frames, 1 << 20):
            yield self.x[:, first : first + (1 << 20)].astype(np.float32)


def _check(x: NDArray, rate: int) -> None:
    if not np.issubdtype(getattr(x, "dtype", type(x)), np.floating):
        raise TypeError(f"expected floating-point samples, not {getattr(x, 'dtype', type(x))}")
    if x.ndim not in (1, 2) or not x.size:
        raise ValueError(f"expected samples (s,) or (channels, s), at least one; not {x.shape}")
    if x.ndim == 2 and x.shape[0] > x.shape[1]:
        raise ValueError(f"expected samples (channels, s), not {x.shape}; is x.T meant?")
    if rate not in RATES:  # nor is any fraction
        raise ValueError(f"a sampling rate of {rate!r} Hz: expected whole Hz from {RATES.start} up")


def load(model: str | Path = DEFAULT, device: str = "auto") -> Model:
    """Load a trained model, ready to be called: `load("abl3")(x, sample_rate)`.

    Args:
        model: a model folder, a run folder, a checkpoint, the name of a shipped model, or a model
            of the Hugging Face hub, "owner/name", which is downloaded once. By default the shipped
            abl3.
        device: "auto" (a GPU where there is one), "cpu" or "cuda".

    Raises:
        CheckpointError: there is no such model, or it cannot be loaded, or is damaged.
        ConfigError: there is no such device.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"the device is {device!r}, expected 'auto', 'cpu' or 'cuda'")
    trained = find(model)
    trained.network.to(Precision(device, "off").device)
    return Model(trained)
