"""A trained network as a function of a signal and its rate."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Real
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.audio import RATES, AudioError
from enhancement.find import find
from enhancement.recording import enhanced, survey
from enhancement.windows import Block, Windows
from training.config import ConfigError
from training.precision import Precision
from training.trained import Trained

Samples = TypeVar("Samples", NDArray, Tensor)
_ROUND = 1 << 20  # samples of a signal that are taken at once


class Model:
    """A speech enhancer for signals of any length, sampling rate and number of channels.

    Attributes:
        name: what it was loaded by.
        trained: its network, and where that is from.
        windows: how long signals are cut.
    """

    def __init__(self, name: str, trained: Trained, windows: Windows | None = None) -> None:
        self.name = name
        self.trained = trained
        self.windows = windows or Windows()

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.trained.network.device

    def __call__(self, x: Samples, sample_rate: int) -> Samples:
        """The enhanced signal: of the same shape, rate, kind, dtype and device.

        Args:
            x: floating-point samples (s,) or (channels, s), numpy or torch; each channel is
                enhanced as if it were alone.
            sample_rate: in Hz, from 4 kHz up; what is above 8 kHz is not in the result.

        Raises:
            TypeError, ValueError: that is not such a signal; the text says why.
        """
        values = _array(x) if isinstance(x, Tensor) else x
        _check(values, sample_rate)
        source = _InMemory(np.atleast_2d(values), int(sample_rate))
        y = np.empty(source.x.shape, values.dtype)
        try:
            found = survey(source)
            first = 0
            for block in enhanced(self.trained.network, source, found, self.windows):
                y[:, first : first + block.shape[1]] = block
                first += block.shape[1]
        except AudioError as error:
            raise ValueError(f"the signal cannot be enhanced: {error}") from None
        result = y.reshape(values.shape)
        return torch.from_numpy(result).to(x) if isinstance(x, Tensor) else result


def load(model: str | Path, device: str = "auto") -> Model:
    """A trained model, ready to be called: `load("runs/abl3")(x, sample_rate)`.

    Args:
        model: a run folder, checkpoint or model folder, or a model's name (`enhancement.find`).
        device: "auto" (a GPU where there is one), "cpu" or "cuda".

    Raises:
        CheckpointError: there is no such model, or it cannot be loaded, or is not what it was.
        ConfigError: there is no such device.
        FailedError: it cannot be downloaded now.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"the device is {device!r}, expected 'auto', 'cpu' or 'cuda'")
    chosen = Precision(device, "off").device
    trained = find(model)
    trained.network.to(chosen)
    return Model(str(model), trained)


class _InMemory:
    def __init__(self, x: NDArray, rate: int) -> None:
        self.x, self.rate, self.channels = x, rate, len(x)

    def blocks(self) -> Iterator[Block]:
        for first in range(0, self.x.shape[1], _ROUND):
            with np.errstate(over="ignore"):  # what becomes infinite is refused
                yield self.x[:, first : first + _ROUND].astype(np.float32)


def _array(x: Tensor) -> NDArray:
    x = x.detach().cpu()
    return (x.float() if x.dtype == torch.bfloat16 else x).numpy()  # which numpy has not


def _check(x: object, rate: object) -> None:
    if not isinstance(x, np.ndarray) or not np.issubdtype(x.dtype, np.floating):
        kind = getattr(x, "dtype", type(x).__name__)
        raise TypeError(f"expected floating-point samples, numpy or torch, not {kind}")
    if x.ndim not in (1, 2) or not x.size:
        raise ValueError(f"expected samples (s,) or (channels, s), at least one; not {x.shape}")
    if x.ndim == 2 and x.shape[0] > x.shape[1]:
        raise ValueError(
            f"{x.shape[0]} channels of {x.shape[1]} samples: expected (channels, s); is x.T meant?"
        )
    if not isinstance(rate, Real):
        raise TypeError(f"expected a sampling rate in Hz, not {rate!r}")
    if rate not in RATES:  # nor is any fraction
        raise ValueError(f"a sampling rate of {rate} Hz: expected whole Hz from {RATES.start} up")
