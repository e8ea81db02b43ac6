"""Speech of the embedded corpus: what eSpeak NG renders, brought nearer to a person's.

Measured against recordings (EXPERIMENTS.md), eSpeak's speech is too even: every sound is about as
loud, the pitch is exactly periodic, and vowels buzz up to 8 kHz while sibilants are faint. Signals
are (s,) float64 at 16 kHz.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import soxr
from scipy.ndimage import uniform_filter1d

from data.audio import SAMPLE_RATE
from data.espeak import speak
from data.sound import Signal, drift, filtered, shaped
from data.voices import Speaker

_EDGE = 3200.0  # Hz: speech is mostly periodic below, mostly noise above


def utter(rng: np.random.Generator, text: str, speaker: Speaker) -> Signal:
    """`text` spoken, without the silence around it.

    Raises:
        EspeakError: see `speak`.
    """
    speech = _unsteady(rng, _tracted(text, speaker, 3 * SAMPLE_RATE))
    low = filtered(speech, SAMPLE_RATE, lambda f: 1 / (1 + (f / _EDGE) ** 6))
    high = speech - low
    # Ring modulation by noise blurs the harmonics and keeps the envelopes.
    noise = shaped(rng, len(high), SAMPLE_RATE, lambda f: 1 / (1 + (f / 500) ** 4))
    share = speaker.breath
    high *= np.sqrt(1 - share**2) + share * noise
    # Sibilants are loud above the edge, vowels below: each band is contrasted by itself. Numbers
    # here and in `_darkened` are those that bring `benchmarks.corpus` nearest to recordings.
    speech = _contrasted(low, 0.9) + 6.0 * _contrasted(high, 0.8)
    return filtered(speech, SAMPLE_RATE, _darkened)


def _darkened(frequency: Signal) -> Signal:
    """The gain that eSpeak's long-term spectrum lacks, against that of recordings."""
    return (1 + (frequency / 300) ** 2) ** -0.4


def overheard(text: str, speaker: Speaker) -> Signal:
    """`text` as spoken somewhere in the background, where the finer points do not matter."""
    speech = _tracted(text, speaker, SAMPLE_RATE)
    return filtered(speech, SAMPLE_RATE, lambda f: _darkened(f) * (1 + 2 / (1 + (_EDGE / f) ** 6)))


def _tracted(text: str, speaker: Speaker, rate: int) -> Signal:
    """eSpeak's speech at `rate` Hz with the speaker's vocal tract, trimmed.

    A recording played `tract` times as fast has formants as much higher, those of a shorter tract.
    """
    slower = replace(speaker.voice, rate=round(speaker.voice.rate / speaker.tract))
    samples, own_rate = speak(text, slower)
    # "VHQ" computes in float64: a float32 resampler rounds otherwise on other processors.
    speech = soxr.resample(samples / 32768, own_rate * speaker.tract, rate, "VHQ")
    (loud,) = np.nonzero(np.abs(speech) > 0.003 * np.abs(speech).max())  # 50 dB below the peak
    return speech[loud[0] : loud[-1] + 1]


def _unsteady(rng: np.random.Generator, speech: Signal) -> Signal:
    """Speech at 48 kHz, (3 s,), with a pitch that drifts by some 2 % and trembles; at 16 kHz, (s,).

    Linear interpolation at 48 kHz costs 0.8 dB at 8 kHz, and what it mirrors lies above 16 kHz.
    """
    rate, step = 3 * SAMPLE_RATE, 48
    knots = len(speech) // step + 2
    pace = 1 + 0.015 * drift(rng, knots, rate // step, 1.5)
    pace += 0.006 * drift(rng, knots, rate // step, 9)
    time = np.interp(np.arange(len(speech)) / step, np.arange(knots), np.cumsum(pace) - pace[0])
    bent = np.interp(time * step, np.arange(len(speech)), speech, right=0.0)
    return soxr.resample(bent, rate, SAMPLE_RATE, "VHQ")


def _contrasted(signal: Signal, power: float) -> Signal:
    """`signal` with quiet sounds made quieter, and the very loudest, too."""
    envelope = np.sqrt(np.maximum(uniform_filter1d(signal**2, SAMPLE_RATE // 50), 0))
    ratio = envelope / np.percentile(envelope, 80) + 1e-6
    gain = np.minimum(ratio**power, ratio**-0.3)
    return signal * uniform_filter1d(gain, SAMPLE_RATE // 100)
