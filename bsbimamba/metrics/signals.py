"""What all metrics share: the check of their signals, short frames of them, spectrograms."""

from collections.abc import Mapping
from typing import Any

import librosa
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from bsbimamba.data.levels import SAMPLE_RATE, SILENCE

# 30 ms every 7.5 ms at 16 kHz: the frames of Loizou's segmental measures.
FRAME, HOP = 480, 120
FLOOR_DB = -80.0  # of spectrograms, below the loudest bin of all that are compared

Signal = NDArray[np.float64]
Samples = NDArray[Any]


class MetricError(Exception):
    """A score does not exist for this utterance; the message says why."""


class NoSpeechError(MetricError):
    """There is no clean speech to compare with."""


def checked(clean: Samples, enhanced: Samples) -> tuple[Signal, Signal]:
    """Return both signals (s,) in float64.

    Raises:
        MetricError: no metric means anything on them.
    """
    if clean.ndim != 1 or clean.shape != enhanced.shape:
        raise MetricError(f"lengths differ: clean {clean.shape}, enhanced {enhanced.shape}")
    return usable("clean", clean), usable("enhanced", enhanced)


def usable(name: str, x: Samples) -> Signal:
    """Return one of them; `name`, "clean" or "enhanced", is for the message."""
    if not x.size:
        raise MetricError("there are no samples")
    if not np.isfinite(x).all():
        raise MetricError(f"the {name} signal has NaN or infinite samples")
    signal = x.astype(np.float64)
    if signal.std() < 10 ** (SILENCE / 20):
        error = NoSpeechError if name == "clean" else MetricError
        raise error(f"the {name} signal is silent or constant")
    return signal


def windowed(x: Signal) -> Signal:
    """Return frames (t, 480) of a signal (s,) under Loizou's Hann window, which has no zero ends.

    There is one frame fewer than there is room for, as in his programs (see `segmental`).

    Raises:
        MetricError: the signal is shorter than a frame.
    """
    count = (len(x) - FRAME) // HOP
    if count < 1:
        raise MetricError(f"too short for frames ({1000 * (FRAME + HOP) / SAMPLE_RATE:.1f} ms)")
    return sliding_window_view(x, FRAME)[::HOP][:count] * np.hanning(FRAME + 2)[1:-1]


def levels(signals: Mapping[str, Samples]) -> dict[str, Signal]:
    """Return spectrograms (257, t) of signals (s,) by name, for pictures.

    They are in dB below the loudest bin of all signals, not below `FLOOR_DB`. Bins are 31.25 Hz
    apart, frames 8 ms; the first frame is centred at the signal's start.
    """
    padded = {name: np.pad(x, 256) for name, x in signals.items()}  # librosa warns of short ones
    spectra = {
        name: np.abs(librosa.stft(x, n_fft=512, hop_length=128, center=False))
        for name, x in padded.items()
    }
    loudest = max((float(x.max()) for x in spectra.values()), default=0.0) or 1.0
    floor = loudest * 10 ** (FLOOR_DB / 20)
    return {
        name: librosa.amplitude_to_db(x, ref=loudest, amin=floor, top_db=None)
        for name, x in spectra.items()
    }
