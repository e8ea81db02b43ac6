"""How loud a signal is where it holds sound: speech by ITU-T P.56, noise by frames."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d
from scipy.signal import lfilter

FRAME = 160  # samples: 10 ms at 16 kHz
# Frames further below the loudest one hold no sound: in a piece; and in a whole recording, where
# one click must not count as all there is.
_PIECE_DB, _RECORDING_DB = 30, 40


def active_level(signal: NDArray, rate: int = 16_000) -> float:
    """Return the active speech level of ITU-T P.56 (method B) in dB: 0 is a mean square of 1.

    The envelope is |x| smoothed twice with a time constant of 0.03 s. A sample is active if the
    envelope reached a threshold during the last 0.2 s; the level is the energy over the active
    samples for that threshold which lies 15.9 dB below the level itself. Thresholds are 0.5 dB
    apart and relative to the signal (P.56: 6 dB, absolute), which makes the measure independent
    of its gain. The envelope is looked at once in a millisecond.

    Args:
        signal: (s,), any scale.
        rate: sampling rate in Hz.

    Raises:
        ValueError: the signal is silent.
    """
    signal = np.asarray(signal, np.float64)
    power = float(np.mean(np.square(signal))) if len(signal) else 0.0
    if power == 0:
        raise ValueError("a silent signal has no level")
    pole = np.exp(-1 / (0.03 * rate))
    envelope = np.abs(signal) / np.sqrt(power)
    for _ in range(2):
        envelope = lfilter([1 - pole], [1, -pole], envelope)
    envelope = envelope[:: rate // 1000]
    held = 200
    envelope = maximum_filter1d(envelope, held, mode="constant", origin=(held - 1) // 2)
    thresholds = np.arange(-60, 20, 0.5)
    active = len(envelope) - np.searchsorted(np.sort(envelope), 10 ** (thresholds / 20))
    levels = 10 * np.log10(len(envelope) / np.maximum(active, 1))
    crossing = int(np.argmax(levels - thresholds <= 15.9))
    return float(10 * np.log10(power) + levels[crossing])


def active_frames(signal: NDArray) -> NDArray[np.bool_]:
    """Return which frames of a recording (s,) hold sound, (ceil(s / FRAME),).

    These are the frames within 40 dB of the loudest one. The last frame may be a shorter one.
    """
    powers = _frame_powers(signal)
    return powers > 10 ** (-_RECORDING_DB / 10) * powers.max()


def active_rms(signal: NDArray) -> float:
    """Return the root mean square of a piece (s,) over its frames within 30 dB of the loudest one.

    It is 0 if the piece is silent.
    """
    powers = _frame_powers(signal)
    return float(np.sqrt(powers[powers >= 10 ** (-_PIECE_DB / 10) * powers.max()].mean()))


def _frame_powers(signal: NDArray) -> NDArray[np.float64]:
    starts = np.arange(0, len(signal), FRAME)
    energies = np.add.reduceat(np.square(signal, dtype=np.float64), starts)
    return energies / np.diff(starts, append=len(signal))
