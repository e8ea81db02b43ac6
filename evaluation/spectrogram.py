"""Spectrograms, for pictures. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.signal import ShortTimeFFT
from scipy.signal.windows import hann

from data.audio import SAMPLE_RATE

FLOOR_DB = -80.0  # below the loudest bin of all pictures that are compared
_HOP = 128
_TRANSFORM = ShortTimeFFT(hann(512, sym=False), _HOP, SAMPLE_RATE)


def levels(signals: Mapping[str, NDArray]) -> dict[str, NDArray[np.float64]]:
    """Levels (257, t) in dB below the loudest bin of all, not below -80, of signals (s,) by name.

    Bins are 31.25 Hz apart, frames 8 ms; the first frame is around a signal's start.
    """
    powers = {name: _power(x) for name, x in signals.items()}
    loudest = max((power.max() for power in powers.values()), default=0.0)
    floor = 10 ** (FLOOR_DB / 10)
    return {
        name: 10 * np.log10(np.maximum(power / max(loudest, 1e-12), floor))
        for name, power in powers.items()
    }


def _power(x: NDArray) -> NDArray[np.float64]:
    # The transform wants half a window of signal at least.
    padded = np.pad(x.astype(np.float64), (0, max(0, 512 - len(x))))
    return np.abs(_TRANSFORM.stft(padded, p0=0, p1=1 + len(x) // _HOP)) ** 2
