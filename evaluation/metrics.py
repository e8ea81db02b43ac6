"""Objective scores of one enhanced utterance against its clean one. Free of torch.

All take 16-kHz signals (s,) of one length. What cannot be scored raises `MetricError` with a
reason; no score is ever replaced by a placeholder.
"""

from __future__ import annotations

import warnings

import numpy as np
import pesq
import pystoi
from numpy.typing import NDArray

from data.audio import SAMPLE_RATE

METRICS = ("pesq_wb", "stoi", "estoi", "si_sdr")


class MetricError(Exception):
    """A score does not exist for this utterance; the message says why."""


def pesq_wb(clean: NDArray, enhanced: NDArray) -> float:
    """PESQ, wideband, as MOS-LQO (about 1.04 to 4.64).

    ITU-T P.862.2 without Corrigendum 2, by the package `pesq` 0.0.4, the field's reference.
    """
    _check(clean, enhanced)
    try:
        return float(pesq.pesq(SAMPLE_RATE, clean, enhanced, "wb"))
    except pesq.NoUtterancesError:
        raise MetricError("PESQ finds no speech in the clean or the enhanced signal") from None
    except pesq.BufferTooShortError:
        raise MetricError("too short for PESQ (a quarter of a second)") from None
    except pesq.PesqError as error:
        raise MetricError(f"PESQ failed: {error}") from None


def stoi(clean: NDArray, enhanced: NDArray, extended: bool = False) -> float:
    """Short-time objective intelligibility (at most 1), or its extended form, by `pystoi`.

    Taal et al., IEEE TASLP 2011; extended: Jensen and Taal, IEEE/ACM TASLP 2016.
    """
    _check(clean, enhanced)
    # pystoi dithers the extended form from numpy's global generator.
    state = np.random.get_state()  # noqa: NPY002
    try:
        np.random.seed(0)  # noqa: NPY002
        return _stoi(clean.astype(np.float64), enhanced.astype(np.float64), extended)
    finally:
        np.random.set_state(state)  # noqa: NPY002


def si_sdr(clean: NDArray, enhanced: NDArray) -> float:
    """Scale-invariant signal-to-distortion ratio in dB, of the signals without their means.

    Le Roux et al., "SDR - half-baked or well done?", ICASSP 2019, equation 3.
    """
    _check(clean, enhanced)
    reference = clean - np.mean(clean, dtype=np.float64)
    estimate = enhanced - np.mean(enhanced, dtype=np.float64)
    power = float(reference @ reference)
    if power == 0:
        raise MetricError("the clean signal is constant")
    target = (estimate @ reference) / power * reference
    error = estimate - target
    noise = float(error @ error)
    if noise == 0:
        raise MetricError("SI-SDR is infinite: the enhanced signal is the clean one, scaled")
    signal = float(target @ target)
    if signal == 0:
        raise MetricError("SI-SDR is minus infinity: nothing of the clean signal is left")
    return 10 * float(np.log10(signal / noise))


def score(
    clean: NDArray, enhanced: NDArray, names: tuple[str, ...] = METRICS
) -> dict[str, float | str]:
    """The named scores of one utterance; in the place of one that does not exist, the reason."""
    functions = {
        "pesq_wb": pesq_wb,
        "stoi": stoi,
        "estoi": lambda c, e: stoi(c, e, extended=True),
        "si_sdr": si_sdr,
    }
    scores: dict[str, float | str] = {}
    for name in names:
        try:
            scores[name] = functions[name](clean, enhanced)
        except MetricError as error:
            scores[name] = str(error)
    return scores


def _stoi(clean: NDArray, enhanced: NDArray, extended: bool) -> float:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # Too little speech is a warning and the placeholder 1e-5 in pystoi.
        warnings.simplefilter("error", RuntimeWarning)
        try:
            return float(pystoi.stoi(clean, enhanced, SAMPLE_RATE, extended=extended))
        except RuntimeWarning:
            raise MetricError("too little speech for STOI (384 ms)") from None


def _check(clean: NDArray, enhanced: NDArray) -> None:
    if clean.ndim != 1 or clean.shape != enhanced.shape:
        raise MetricError(f"lengths differ: clean {clean.shape}, enhanced {enhanced.shape}")
    if not (np.isfinite(clean).all() and np.isfinite(enhanced).all()):
        raise MetricError("has NaN or infinite samples")
    if not clean.any():
        raise MetricError("the clean signal is silent")
    if not enhanced.any():
        raise MetricError("the enhanced signal is silent")
