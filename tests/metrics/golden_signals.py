"""Pairs of signals (s,) at 16 kHz, made of sines and seeded noise alone, with stored scores.

`python tests/golden_signals.py` prints the scores of what the code computes now. If they move, no
figure that this project has given before compares with one that it gives from then on.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Signal = NDArray[np.float64]
_SAMPLES = 40_000


def stored() -> pd.DataFrame:
    """Scores by the name of the pair."""
    return pd.read_csv(Path(__file__).with_name("golden_scores.csv"), index_col="pair")


def pairs() -> dict[str, tuple[Signal, Signal]]:
    """By name: what is done to the clean signal is said by the name."""
    rng = np.random.default_rng(5)
    white = rng.standard_normal(_SAMPLES)
    t = np.arange(_SAMPLES) / 16_000
    pitch = 110 + 25 * np.sin(2 * np.pi * 0.6 * t)
    phase = 2 * np.pi * np.cumsum(pitch) / 16_000
    formants = 500 + 200 * np.sin(2 * np.pi * 1.3 * t), 1600 + 500 * np.sin(2 * np.pi * 0.9 * t)
    voice = np.zeros(_SAMPLES)
    for k in range(1, 60):
        gain = sum(1 / (1 + ((k * pitch - formant) / 150) ** 2) for formant in formants)
        voice += np.where(k * pitch < 7500, gain * np.sin(k * phase), 0)
    syllables = np.clip(np.sin(2 * np.pi * 1.9 * t), 0, 1)
    clean = 0.05 * syllables * voice + 1e-4 * white
    pauses = syllables > 0
    # Fades that reach the level at which STOI takes a frame for silence right at a frame's edge: a
    # sample earlier or later makes 0.004.
    fading = 0.2 * np.exp(-5 * (t % 0.46) / 0.46) * np.sin(2 * np.pi * (200 + 300 * t) * t)
    fading += 1e-4 * white
    hiss = 0.02 * np.random.default_rng(1).standard_normal(_SAMPLES)
    return {
        "white noise": (clean, clean + 0.01 * rng.standard_normal(_SAMPLES)),
        "much noise": (clean, clean + 0.1 * rng.standard_normal(_SAMPLES)),
        "twice as loud": (clean, 2 * clean + 0.003 * rng.standard_normal(_SAMPLES)),
        "dull": (clean, np.convolve(clean, np.hanning(16) / 7.5, "same")),
        "echo": (clean, clean + 0.5 * np.roll(clean, 1600)),
        "gated to digital silence": (clean, (clean + 0.02 * white) * pauses),
        "clean with digital silence": (clean * pauses, clean + 0.005 * white),
        "coarse steps": (clean, np.round(200 * clean) / 200),
        "clipped": (clean, np.clip(clean, -0.05, 0.05)),
        "fading tones": (fading, fading + hiss),
    }


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from bsbimamba.metrics.scores import score

    scores = {name: score(*pair, list(stored())) for name, pair in pairs().items()}
    print(pd.DataFrame.from_dict(scores, orient="index").round(7).to_csv(index_label="pair"))
