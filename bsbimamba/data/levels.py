"""Measure signals at 16 kHz: level, activity, and the lag between two."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d
from scipy.signal import correlate, correlation_lags, lfilter

SAMPLE_RATE = 16_000
FRAME = 160  # samples: 10 ms
# In dB of full scale: a file below it is silent.
SILENCE = -100.0
# Frames further below the loudest one hold no sound: in a piece; and in a whole recording, where
# one click must not count as all there is.
_PIECE_DB, _RECORDING_DB = 30, 40

Signal = NDArray[np.float32]


def active_level(signal: NDArray) -> float:
    """Return the active speech level of ITU-T P.56 (method B) in dB: 0 is a mean square of 1.

    The envelope is |x| smoothed twice with a time constant of 0.03 s. A sample is active if the
    envelope reached a threshold during the last 0.2 s. The level is the energy over the active
    samples for that threshold which lies 15.9 dB below the level itself. Thresholds are 0.5 dB
    apart and relative to the signal (P.56: 6 dB, absolute), which makes the measure independent
    of its gain. The envelope is sampled every millisecond.

    signal: (s,), any scale, not silent.
    """
    signal = np.asarray(signal, np.float64)
    total = power(signal)
    pole = np.exp(-1 / (0.03 * SAMPLE_RATE))
    envelope = np.abs(signal) / np.sqrt(total)
    for _ in range(2):
        envelope = lfilter([1 - pole], [1, -pole], envelope)
    envelope = envelope[:: SAMPLE_RATE // 1000]
    held = 200
    envelope = maximum_filter1d(envelope, held, mode="constant", origin=(held - 1) // 2)
    thresholds = np.arange(-60, 20, 0.5)
    active = len(envelope) - np.searchsorted(np.sort(envelope), 10 ** (thresholds / 20))
    levels = 10 * np.log10(len(envelope) / np.maximum(active, 1))
    crossing = int(np.argmax(levels - thresholds <= 15.9))
    return float(10 * np.log10(total) + levels[crossing])


def active_frames(signal: NDArray) -> NDArray[np.bool_]:
    """Return which frames of a recording (s,) are within 40 dB of the loudest, (ceil(s / FRAME),).

    The last frame may be a shorter one.
    """
    powers = _frame_powers(signal)
    return powers > 10 ** (-_RECORDING_DB / 10) * powers.max()


def active_rms(signal: NDArray) -> float:
    """Return the root mean square of a piece (s,) over its frames within 30 dB of the loudest."""
    powers = _frame_powers(signal)
    return float(np.sqrt(powers[powers >= 10 ** (-_PIECE_DB / 10) * powers.max()].mean()))


def _frame_powers(signal: NDArray) -> NDArray[np.float64]:
    starts = np.arange(0, len(signal), FRAME)
    energies = np.add.reduceat(np.square(signal, dtype=np.float64), starts)
    return energies / np.diff(starts, append=len(signal))


def power(x: NDArray) -> float:
    """Return the mean square of a signal (s,), 0 of an empty one."""
    return float(np.mean(np.square(x, dtype=np.float64))) if len(x) else 0.0


def lag_of(clean: NDArray, other: NDArray) -> tuple[int, float, float]:
    """Return by how many samples another signal is late, how alike they are, and the gain.

    The lag (below 0: early) is where their correlation is largest, of either sign. The likeness is
    that correlation, -1 to 1: below 0 where the other signal is inverted, near 0 where it holds
    nothing of the clean one. The gain of the clean one in the other is that of least squares, with
    the same sign. Differences are correlated rather than the signals (s,): rumble, which both may
    have much of, would hide the maximum.
    """
    x, y = (np.diff(np.asarray(side, np.float64), prepend=0) for side in (clean, other))
    products = correlate(y, x, method="fft")
    place = int(np.abs(products).argmax())
    lag = int(correlation_lags(len(y), len(x))[place])
    product, power_x, power_y = float(products[place]), float(x @ x), float(y @ y)
    return lag, product / (math.sqrt(power_x * power_y) or 1), product / (power_x or 1)
