"""The active levels, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from recordings import sound

from data.levels import FRAME, active_frames, active_level, active_rms

RATE = 16000


def _level_by_definition(x: np.ndarray) -> float:
    """`active_level` as its docstring says it, one sample and one threshold at a time."""
    power = np.mean(x**2)
    keep = np.exp(-1 / (0.03 * RATE))
    once = twice = 0.0
    envelope = []
    for value in np.abs(x) / np.sqrt(power):
        once = keep * once + (1 - keep) * value
        twice = keep * twice + (1 - keep) * once
        envelope.append(twice)
    looked_at = np.array(envelope[:: RATE // 1000])
    for threshold in np.arange(-60, 20, 0.5):
        over = looked_at >= 10 ** (threshold / 20)
        active = sum(over[max(0, i - 199) : i + 1].any() for i in range(len(over)))
        level = 10 * np.log10(len(over) / max(active, 1))
        if level - threshold <= 15.9:
            return float(10 * np.log10(power) + level)
    raise AssertionError


@pytest.mark.parametrize(
    ("seconds", "before", "after"),
    [(0.0001, 0, 0), (0.004, 0, 40), (0.7, 0, 0), (0.3, 2000, 12000), (0.05, 100, 8000)],
)
@pytest.mark.parametrize("seed", range(3))
def test_active_level_is_what_it_says(seconds: float, before: int, after: int, seed: int):
    x = np.pad(sound(seconds, seed=seed), (before, after))
    assert active_level(x) == pytest.approx(_level_by_definition(x), abs=1e-9)
    assert active_level(x) >= 10 * np.log10(np.mean(x**2)) - 1e-9


def test_active_level_counts_activity_only():
    tone = np.sqrt(2) * np.sin(2 * np.pi * 440 * np.arange(4 * RATE) / RATE)
    assert active_level(tone) == pytest.approx(0, abs=0.2)
    paused = np.concatenate([tone, np.zeros(4 * RATE)])
    assert active_level(paused) == pytest.approx(0, abs=0.4)
    assert active_level(0.01 * paused) == pytest.approx(active_level(paused) - 40, abs=1e-6)


def test_silence_has_no_level():
    with pytest.raises(ValueError, match="silent"):
        active_level(np.zeros(RATE))


def test_active_level_takes_integers():
    x = np.full(4000, -32768, np.int16)
    assert active_level(x) == pytest.approx(active_level(x.astype(float)))


def test_active_frames_are_within_40_db_of_the_loudest_and_count_within_30():
    levels = np.array([0, 1, 0.0101, 0.0099, 0.5, 0.032])
    x = np.repeat(levels, FRAME)[:-100]  # the last frame is a shorter one
    x[::2] *= -1
    assert active_frames(x).tolist() == [False, True, True, False, True, True]
    assert active_rms(x) == pytest.approx(np.sqrt((1 + 0.25 + 0.032**2) / 3))
    assert active_rms(1e-20 * x) == pytest.approx(1e-20 * active_rms(x))
    assert active_rms(np.zeros(7)) == 0
    assert not active_frames(np.zeros(7)).any()
