"""Short-time objective intelligibility, plain and extended. Free of torch.

All take a clean and an enhanced 16-kHz signal (s,) and raise `MetricError` where there is no score.
"""

from __future__ import annotations

import warnings

import numpy as np
import pystoi
from numpy.lib.stride_tricks import sliding_window_view
from pystoi.utils import thirdoct
from scipy.signal import resample_poly

from data.audio import SAMPLE_RATE
from evaluation.signals import LONGEST, MetricError, Samples, Signal, checked

# Taal et al., section II: rate, frame and FFT in samples, bands, lowest centre in Hz, frames of a
# segment, bound of the signal-to-distortion ratio in dB, dynamic range in dB.
_RATE, _FRAME, _FFT, _BANDS, _LOWEST = 10_000, 256, 512, 15, 150
_SEGMENT, _BOUND, _RANGE = 30, -15, 40
_HOP = _FRAME // 2
_SECONDS = 0.384
_TOO_LITTLE = f"too little speech for STOI ({1000 * _SECONDS:.0f} ms)"


def stoi(clean: Samples, enhanced: Samples) -> float:
    """Short-time objective intelligibility (at most 1), as VoiceBank-DEMAND's tables give it.

    Taal et al., IEEE TASLP 2011, equations 1 to 6, with two habits of the script that the field
    scores this benchmark with (compute_metrics.py of CMGAN, as in MP-SENet and SEMamba): it
    resamples by scipy's filter, and decides which frames are silent one sample early. In single
    files that makes up to 0.015 against `stoi_pystoi`; in the mean of many 0.0001.
    """
    clean, enhanced = checked(clean, enhanced)
    _check_length(clean)
    x, y = (resample_poly(side, _RATE, SAMPLE_RATE) for side in (clean, enhanced))
    x, y = _without_silence(x, y)
    if len(x) <= _FRAME + (_SEGMENT - 1) * _HOP:
        raise MetricError(_TOO_LITTLE)
    x_bands, y_bands = _bands(x), _bands(y)
    x_part, y_part = (sliding_window_view(side, _SEGMENT, axis=1) for side in (x_bands, y_bands))
    # Equations 2 and 3: each band of a segment as loud as the clean one, clipped. One that is empty
    # has no correlation with anything.
    gain = _ratio(np.linalg.norm(x_part, axis=2), np.linalg.norm(y_part, axis=2))
    y_part = np.minimum(gain[..., None] * y_part, (1 + 10 ** (-_BOUND / 20)) * x_part)
    # Equations 5 and 6: the mean of their correlations.
    x_part, y_part = (side - side.mean(axis=2, keepdims=True) for side in (x_part, y_part))
    norms = np.linalg.norm(x_part, axis=2) * np.linalg.norm(y_part, axis=2)
    return float(np.mean(_ratio((x_part * y_part).sum(axis=2), norms)))


def stoi_pystoi(clean: Samples, enhanced: Samples) -> float:
    """Short-time objective intelligibility (at most 1), by the package `pystoi`.

    Taal et al., IEEE TASLP 2011. The figure to use outside of VoiceBank-DEMAND's tables.
    """
    return _by_pystoi(clean, enhanced, extended=False)


def estoi(clean: Samples, enhanced: Samples) -> float:
    """Extended short-time objective intelligibility (at most 1), by the package `pystoi`.

    Jensen and Taal, IEEE/ACM TASLP 2016. The noise that pystoi adds has a fixed seed.
    """
    return _by_pystoi(clean, enhanced, extended=True)


def _check_length(x: Signal) -> None:
    seconds = len(x) / SAMPLE_RATE
    if seconds < _SECONDS:
        raise MetricError(_TOO_LITTLE)
    if seconds > LONGEST:
        raise MetricError(f"too long for STOI ({LONGEST} s)")


def _ratio(over: Signal, under: Signal) -> Signal:
    """0 where there is nothing below: less than what 64 bits tell from rounding."""
    there = under > np.finfo(np.float64).eps
    return np.divide(over, under, out=np.zeros_like(over), where=there)


def _without_silence(x: Signal, y: Signal) -> tuple[Signal, Signal]:
    """Both without the frames in which the clean one is 40 dB below its loudest frame."""
    window = np.hanning(_FRAME + 2)[1:-1]
    # One sample early, the very first frame beginning with the last sample: the script's habit.
    early = sliding_window_view(np.roll(x, 1), _FRAME)[: len(x) - _FRAME : _HOP]
    energy = np.linalg.norm(early * window, axis=1)
    kept = energy > energy.max() * 10 ** (-_RANGE / 20)
    if not kept.any():
        raise MetricError(_TOO_LITTLE)
    joined = []
    for side in (x, y):
        frames = window * sliding_window_view(side, _FRAME)[: len(x) - _FRAME : _HOP][kept]
        halves = frames.reshape(-1, 2, _HOP)
        whole = np.zeros((len(halves) + 1, _HOP))
        whole[:-1] += halves[:, 0]
        whole[1:] += halves[:, 1]
        joined.append(whole.reshape(-1))
    return joined[0], joined[1]


def _bands(x: Signal) -> Signal:
    """Magnitudes (15, t) of one-third octave bands, equation 1."""
    window = np.hanning(_FRAME + 2)[1:-1]
    frames = window * sliding_window_view(x, _FRAME)[: len(x) - _FRAME : _HOP]
    power = np.abs(np.fft.rfft(frames, _FFT)) ** 2
    return np.sqrt(thirdoct(_RATE, _FFT, _BANDS, _LOWEST)[0] @ power.T)


def _by_pystoi(clean: Samples, enhanced: Samples, extended: bool) -> float:
    clean, enhanced = checked(clean, enhanced)
    _check_length(clean)
    # pystoi dithers the extended form from numpy's global generator.
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            # Too little speech is a warning and the placeholder 1e-5 in pystoi.
            warnings.simplefilter("error", RuntimeWarning)
            return float(pystoi.stoi(clean, enhanced, SAMPLE_RATE, extended=extended))
    except RuntimeWarning:
        raise MetricError(_TOO_LITTLE) from None
    finally:
        np.random.set_state(state)  # noqa: NPY002
