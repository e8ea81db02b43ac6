"""What all metrics share: the check of their signals, and short frames of them. Free of torch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.audio import SAMPLE_RATE, SILENCE

# 30 ms every 7.5 ms at 16 kHz: the frames of Loizou's segmental measures.
FRAME, HOP = 480, 120
# Seconds: what is cut into frames takes some 3 MB of memory a second, in as many processes.
LONGEST = 300

Signal = NDArray[np.float64]
Samples = NDArray[Any]


class MetricError(Exception):
    """A score does not exist for this utterance; the message says why."""


def checked(clean: Samples, enhanced: Samples) -> tuple[Signal, Signal]:
    """Both signals (s,) in 64 bits, at a full scale of 1, which whole numbers are divided to.

    Raises:
        MetricError: no metric means anything on them.
    """
    if clean.ndim != 1 or clean.shape != enhanced.shape:
        raise MetricError(f"lengths differ: clean {clean.shape}, enhanced {enhanced.shape}")
    if not clean.size:
        raise MetricError("there are no samples")
    signals = _at_full_scale(clean), _at_full_scale(enhanced)
    for name, x in zip(("clean", "enhanced"), signals, strict=True):
        if not np.isfinite(x).all():
            raise MetricError(f"the {name} signal has NaN or infinite samples")
        if x.std() < 10 ** (SILENCE / 20):
            raise MetricError(f"the {name} signal is silent or constant")
    return signals


def windowed(x: Signal) -> Signal:
    """Frames (t, 480) of a signal (s,) under Loizou's Hann window, which has no zeros at its ends.

    One frame fewer than there is room for, as in his programs (see `distortion`).

    Raises:
        MetricError: there is no room for one, or for far too many.
    """
    count = (len(x) - FRAME) // HOP
    if count < 1:
        milliseconds = 1000 * (FRAME + HOP) / SAMPLE_RATE
        raise MetricError(f"too short for frames ({milliseconds:.1f} ms)")
    if len(x) > LONGEST * SAMPLE_RATE:
        raise MetricError(f"too long for frames ({LONGEST} s)")
    frames = np.lib.stride_tricks.sliding_window_view(x, FRAME)[::HOP][:count]
    return frames * np.hanning(FRAME + 2)[1:-1]


def _at_full_scale(x: Samples) -> Signal:
    scale = -float(np.iinfo(x.dtype).min) if np.issubdtype(x.dtype, np.signedinteger) else 1.0
    return x.astype(np.float64) / scale
