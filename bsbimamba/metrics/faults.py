"""What else than quality costs an enhanced file its scores: lag, polarity, level, offset, band."""

import math
from collections.abc import Collection

import numpy as np
import pandas as pd

from bsbimamba.data.levels import SAMPLE_RATE, lag_of, power
from bsbimamba.metrics.scores import COMPARED, METRICS, score
from bsbimamba.metrics.signals import Samples, Signal, windowed

# Signals less alike than this (`lag_of`) are not compared. Those of different utterances were at
# 0.20 at most, mixtures at -9 dB at 0.26 at least.
_LIKENESS = 0.25
_MINUTE, _SHORTEST = 60 * SAMPLE_RATE, SAMPLE_RATE // 4
# What is looked into: dB of another level, and an offset as a share of the signal's RMS. As
# suppression takes of the level too, and rumble has an offset, a fault costs so many `Metric.tie`.
_GAIN, _OFFSET, _TIES = 1.5, 0.05, 20
# A band holds sound where its level is at most so many dB below the loudest band's, and is lost
# where it is further below the clean one's: codecs and rates took 40 or more, suppression 21.
_HOLDS, _LOST = 50, 30


def find_faults(clean: Samples, enhanced: Samples) -> dict[str, str]:
    """Return what is wrong with an enhanced signal against the clean one, by kind.

    Only the first minute is looked at. Each fault is reported with the scores of `COMPARED` that it
    costs most there: how much they rise where it is undone after all others are.

    clean, enhanced: (s,), at 16 kHz, which have a SegSNR.
    """
    clean, enhanced = (x[:_MINUTE].astype(np.float64) for x in (clean, enhanced))
    lag, likeness, _ = lag_of(clean, enhanced)

    def aligned(lag: int) -> tuple[Signal, Signal]:
        common = len(clean) - abs(lag)
        return clean[max(-lag, 0) :][:common], enhanced[max(lag, 0) :][:common]

    x, y = aligned(lag)
    if abs(likeness) < _LIKENESS or len(x) < _SHORTEST:
        return {}
    slope, offset = map(float, np.polyfit(x, y, 1))
    if slope * likeness <= 0:
        return {}

    def scores_without(kinds: Collection[str]) -> pd.Series:
        x, y = aligned(lag if "lag" in kinds else 0)
        y = y - offset if "offset" in kinds else y
        y = y / abs(slope) if "gain" in kinds else y
        scores = score(x, -y if "polarity" in kinds else y, COMPARED)
        return pd.to_numeric(pd.Series(scores), errors="coerce")  # NaN where there is a reason

    gain = 20 * math.log10(abs(slope))
    looked_into = {
        "lag": f"shifted by {1000 * lag / SAMPLE_RATE:+.2f} ms (+: late)" * bool(lag),
        "polarity": "inverted" * (slope < 0),
        "gain": f"of another level by {gain:+.1f} dB" * (abs(gain) > _GAIN),
        "offset": f"offset by {offset:+.3f}" * (abs(offset) > _OFFSET * math.sqrt(power(y))),
    }
    texts = {kind: text for kind, text in looked_into.items() if text}
    ties = pd.Series({name: METRICS[name].tie for name in COMPARED})
    found = {}
    for kind, text in texts.items():
        costs = scores_without(texts) - scores_without(texts.keys() - {kind})
        worst = (costs / ties)[lambda times: times > _TIES].nlargest(3).index
        if lost := [f"{METRICS[name].heading} {METRICS[name].show(costs[name])}" for name in worst]:
            found[kind] = f"{text}, which costs {', '.join(lost)}"
    held, kept = _bandwidths(x, y / slope)
    if kept < 0.9 * held:
        found["band"] = f"empty above {kept:.1f} kHz, where clean speech is not"
    return found


def _bandwidths(clean: Signal, enhanced: Signal) -> list[float]:
    """Return up to how many kHz a clean signal (s,) holds sound, and an enhanced one keeps it.

    By the levels that 5 % of the frames reach in each of 30 bands.
    """
    levels = []
    for x in (clean, enhanced):
        bins = np.square(np.abs(np.fft.rfft(windowed(x))[:, 1:]))
        bands = np.quantile(bins.reshape(-1, 30, 8).sum(axis=2), 0.95, axis=0)
        levels.append(10 * np.log10(bands + np.finfo(float).tiny))
    holds = levels[0] > levels[0].max() - _HOLDS
    keeps = holds & (levels[1] > levels[0] - _LOST)
    return [8 / 30 * (1 + np.flatnonzero(x).max(initial=-1)) for x in (holds, keeps)]
