"""Short-time objective intelligibility, plain and extended.

All take a clean and an enhanced 16-kHz signal (s,) and raise `MetricError` where there is no score.
"""

import warnings

import numpy as np
import pystoi
from numpy.lib.stride_tricks import sliding_window_view
from pystoi.stoi import DYN_RANGE, FS, N_FRAME, NFFT, OBM
from pystoi.utils import EPS, remove_silent_frames, stft
from scipy.signal import resample_poly

from bsbimamba.data.levels import SAMPLE_RATE
from bsbimamba.metrics.signals import MetricError, Samples, Signal, checked

_SEGMENT, _HOP = 30, N_FRAME // 2  # frames of a segment, samples at 10 kHz
_SECONDS = 0.384
_TOO_LITTLE = f"too little speech for STOI ({1000 * _SECONDS:.0f} ms)"


def stoi(clean: Samples, enhanced: Samples) -> float:
    """Return STOI (at most 1) as VoiceBank-DEMAND's tables give it.

    Taal et al., IEEE TASLP 2011, equations 1 to 6. The script that the field scores this benchmark
    with (compute_metrics.py of CMGAN, as in MP-SENet and SEMamba) differs from pystoi in two ways:
    it resamples by scipy's filter, and it decides one sample early which frames are silent. The
    difference is up to 0.015 in single files and 0.0001 in the mean of many.
    """
    clean, enhanced = _long_enough(clean, enhanced)
    x, y = (resample_poly(side, FS, SAMPLE_RATE) for side in (clean, enhanced))
    early = np.roll(x, 1)
    x, y = (remove_silent_frames(early, side, DYN_RANGE, N_FRAME, _HOP)[1] for side in (x, y))
    if len(x) <= N_FRAME + (_SEGMENT - 1) * _HOP:
        raise MetricError(_TOO_LITTLE)
    x, y = (
        # Equation 1, then segments (15, t, 30).
        sliding_window_view(
            np.sqrt(OBM @ np.abs(stft(side, N_FRAME, NFFT, overlap=2).T) ** 2), _SEGMENT, axis=1
        )
        for side in (x, y)
    )
    # Equations 2 and 3: each band of a segment as loud as the clean one, limited to -15 dB SDR.
    gain = np.linalg.norm(x, axis=2) / (np.linalg.norm(y, axis=2) + EPS)
    y = np.minimum(gain[..., None] * y, (1 + 10 ** (15 / 20)) * x)
    # Equations 5 and 6: the mean of their correlations.
    x, y = (side - side.mean(axis=2, keepdims=True) for side in (x, y))
    x, y = (side / (np.linalg.norm(side, axis=2, keepdims=True) + EPS) for side in (x, y))
    return float((x * y).sum(axis=2).mean())


def stoi_pystoi(clean: Samples, enhanced: Samples, extended: bool = False) -> float:
    """Return STOI (at most 1) by the package pystoi, for use outside VoiceBank-DEMAND's tables.

    extended: ESTOI instead (Jensen and Taal, IEEE/ACM TASLP 2016); its noise has a fixed seed.
    """
    clean, enhanced = _long_enough(clean, enhanced)
    # pystoi draws the noise of the extended form from numpy's global generator.
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            # For too little speech pystoi warns and returns the placeholder 1e-5.
            warnings.simplefilter("error", RuntimeWarning)
            return float(pystoi.stoi(clean, enhanced, SAMPLE_RATE, extended=extended))
    except RuntimeWarning:
        raise MetricError(_TOO_LITTLE) from None
    finally:
        np.random.set_state(state)  # noqa: NPY002


def _long_enough(clean: Samples, enhanced: Samples) -> tuple[Signal, Signal]:
    clean, enhanced = checked(clean, enhanced)
    if len(clean) < _SECONDS * SAMPLE_RATE:
        raise MetricError(_TOO_LITTLE)
    return clean, enhanced
