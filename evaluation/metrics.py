"""Objective scores of one enhanced utterance against its clean one. Free of torch.

All take 16-kHz signals (s,) of one length, of any real type. What cannot be scored raises
`MetricError` with a reason; no score is ever replaced by a placeholder.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pesq
import pystoi
from numpy.typing import NDArray

from data.audio import SAMPLE_RATE, SILENCE

# `pesq` has room for 50 stretches of speech and writes past its end when there are more: the score
# is wrong, or the process dies. Half a minute of speech has fewer.
_PESQ_SECONDS = 30
_PESQ_REASONS = {
    pesq.PesqError.BUFFER_TOO_SHORT: "too short for PESQ (a quarter of a second)",
    pesq.PesqError.NO_UTTERANCES_DETECTED: "PESQ finds no speech",
}
_STOI_SECONDS = 0.384
# Of power: what is below this share of the rest is rounding in 64-bit arithmetic.
_ROUNDING = 1e-24

Signal = NDArray[np.float64]


class MetricError(Exception):
    """A score does not exist for this utterance; the message says why."""


def pesq_wb(clean: NDArray[Any], enhanced: NDArray[Any]) -> float:
    """PESQ, wideband, as MOS-LQO (about 1.04 to 4.64).

    ITU-T P.862.2 without Corrigendum 2, by the package `pesq` 0.0.4, the field's reference.
    """
    clean, enhanced = _checked(clean, enhanced)
    if len(clean) > _PESQ_SECONDS * SAMPLE_RATE:
        raise MetricError(f"too long for PESQ ({_PESQ_SECONDS} s)")
    result = pesq.pesq(SAMPLE_RATE, clean, enhanced, "wb", pesq.PesqError.RETURN_VALUES)
    # An error's number is negative; NaN comes of levels that are too far apart.
    if not result > 0:
        raise MetricError(_PESQ_REASONS.get(result, "PESQ fails"))
    return float(result)


def stoi(clean: NDArray[Any], enhanced: NDArray[Any]) -> float:
    """Short-time objective intelligibility (at most 1), by `pystoi`.

    Taal et al., IEEE TASLP 2011.
    """
    return _stoi(clean, enhanced, extended=False)


def estoi(clean: NDArray[Any], enhanced: NDArray[Any]) -> float:
    """Extended short-time objective intelligibility (at most 1), by `pystoi`.

    Jensen and Taal, IEEE/ACM TASLP 2016.
    """
    return _stoi(clean, enhanced, extended=True)


def si_sdr(clean: NDArray[Any], enhanced: NDArray[Any]) -> float:
    """Scale-invariant signal-to-distortion ratio in dB, of the signals without their means.

    Le Roux et al., "SDR - half-baked or well done?", ICASSP 2019, equation 3.
    """
    clean, enhanced = _checked(clean, enhanced)
    reference = clean - clean.mean()
    estimate = enhanced - enhanced.mean()
    target = (estimate @ reference) / (reference @ reference) * reference
    error = estimate - target
    signal, noise = float(target @ target), float(error @ error)
    if noise < _ROUNDING * signal:
        raise MetricError("SI-SDR is infinite: the enhanced signal is the clean one, scaled")
    if signal < _ROUNDING * noise:
        raise MetricError("SI-SDR is minus infinity: nothing of the clean signal is left")
    return 10 * float(np.log10(signal / noise))


_FUNCTIONS: dict[str, Callable[[NDArray[Any], NDArray[Any]], float]] = {
    "pesq_wb": pesq_wb,
    "stoi": stoi,
    "estoi": estoi,
    "si_sdr": si_sdr,
}
METRICS = tuple(_FUNCTIONS)


def score(
    clean: NDArray[Any], enhanced: NDArray[Any], names: tuple[str, ...] = METRICS
) -> dict[str, float | str]:
    """The named scores of one utterance; in the place of one that does not exist, the reason."""
    scores: dict[str, float | str] = {}
    for name in names:
        try:
            value = _FUNCTIONS[name](clean, enhanced)
            scores[name] = value if math.isfinite(value) else f"{name} is no number"
        except MetricError as error:
            scores[name] = str(error)
    return scores


def _stoi(clean: NDArray[Any], enhanced: NDArray[Any], extended: bool) -> float:
    clean, enhanced = _checked(clean, enhanced)
    reason = f"too little speech for STOI ({1000 * _STOI_SECONDS:.0f} ms)"
    if len(clean) < _STOI_SECONDS * SAMPLE_RATE:
        raise MetricError(reason)
    # pystoi dithers the extended form from numpy's global generator.
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            # Too little speech is a warning and the placeholder 1e-5 in pystoi.
            warnings.simplefilter("error", RuntimeWarning)
            return float(pystoi.stoi(clean, enhanced, SAMPLE_RATE, extended=extended))
    except RuntimeWarning:
        raise MetricError(reason) from None
    finally:
        np.random.set_state(state)  # noqa: NPY002


def _checked(clean: NDArray[Any], enhanced: NDArray[Any]) -> tuple[Signal, Signal]:
    """Both signals in 64 bits.

    Raises:
        MetricError: no metric means anything on them.
    """
    if clean.ndim != 1 or clean.shape != enhanced.shape:
        raise MetricError(f"lengths differ: clean {clean.shape}, enhanced {enhanced.shape}")
    if not clean.size:
        raise MetricError("there are no samples")
    signals = clean.astype(np.float64), enhanced.astype(np.float64)
    for name, x in zip(("clean", "enhanced"), signals, strict=True):
        if not np.isfinite(x).all():
            raise MetricError(f"the {name} signal has NaN or infinite samples")
        if x.std() < 10 ** (SILENCE / 20):
            raise MetricError(f"the {name} signal is silent or constant")
    return signals
