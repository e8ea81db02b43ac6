"""Levels against their definitions, babble, and rooms against what acoustics says of them."""

from __future__ import annotations

import numpy as np
import pytest
from recordings import sound

from bsbimamba.data.sound import (
    FRAME,
    SPEED_OF_SOUND,
    active_frames,
    active_level,
    active_rms,
    babble,
    response,
)

RATE = 16000
# Length, width, height; decay; distance.
ROOMS = [((3, 2.5, 2.4), 0.15, 0.1), ((8, 5, 3), 0.6, 2.0), ((20, 12, 5), 1.5, 6.0)]


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
    ("seconds", "before", "after"), [(0.0001, 0, 0), (0.004, 0, 40), (0.3, 2000, 12000)]
)
def test_active_level_follows_its_definition(seconds: float, before: int, after: int) -> None:
    x = np.pad(sound(seconds), (before, after))
    assert active_level(x) == pytest.approx(_level_by_definition(x), abs=1e-9)


def test_active_level_leaves_pauses_out() -> None:
    tone = np.sqrt(2) * np.sin(2 * np.pi * 440 * np.arange(4 * RATE) / RATE)
    assert active_level(tone) == pytest.approx(0, abs=0.2)
    paused = np.concatenate([tone, np.zeros(4 * RATE)])
    assert active_level(paused) == pytest.approx(0, abs=0.4)
    assert active_level(0.01 * paused) == pytest.approx(active_level(paused) - 40, abs=1e-6)
    with pytest.raises(ValueError, match="silent"):
        active_level(np.zeros(RATE))


def test_active_frames_and_rms_go_by_the_loudest_frame() -> None:
    levels = np.array([0, 1, 0.0101, 0.0099, 0.5, 0.032])
    x = np.repeat(levels, FRAME)[:-100]  # the last frame is a shorter one
    x[::2] *= -1
    assert active_frames(x).tolist() == [False, True, True, False, True, True]
    assert active_rms(x) == pytest.approx(np.sqrt((1 + 0.25 + 0.032**2) / 3))
    assert active_rms(1e-20 * x) == pytest.approx(1e-20 * active_rms(x))
    assert active_rms(np.zeros(7)) == 0
    assert not active_frames(np.zeros(7)).any()


def test_babble_repeats_its_talkers_and_has_unit_rms() -> None:
    talk = [np.random.default_rng(seed).standard_normal(3000) for seed in range(3)]
    said = iter(talk)
    noise = babble(np.random.default_rng(0), 2 * RATE, 3, lambda rng: next(said))
    assert noise.shape == (2 * RATE,)
    assert np.mean(noise**2) == pytest.approx(1)
    for voice in talk:
        found = np.correlate(noise, voice / np.linalg.norm(voice), "valid")
        assert np.abs(found).max() > 0.3 * np.sqrt(len(voice))
    silence = babble(np.random.default_rng(0), 99, 3, lambda rng: np.zeros(50))
    assert np.array_equal(silence, np.zeros(99))


def _decay_time(impulse: np.ndarray) -> float:
    """From Schroeder's integral between -5 and -25 dB, continued to 60 dB, in s.

    The direct sound, which stands out, is left out.
    """
    left = np.cumsum(impulse[:0:-1] ** 2)[::-1]
    decibels = 10 * np.log10(left / left[0] + 1e-12)
    first, last = (int(np.argmax(decibels < level)) for level in (-5, -25))
    slope = np.polyfit(np.arange(first, last) / RATE, decibels[first:last], 1)[0]
    return float(-60 / slope)


@pytest.mark.parametrize(("size", "decay", "distance"), ROOMS)
def test_response_decays_in_time_after_the_direct_sound(
    size: tuple[float, float, float], decay: float, distance: float
) -> None:
    impulses = [response(np.random.default_rng(n), size, decay, distance) for n in range(8)]
    assert np.median([_decay_time(x) for x in impulses]) == pytest.approx(decay, rel=0.2)
    for impulse in impulses:
        assert impulse.shape == (int(decay * RATE),)
        assert impulse[0] == 1
        assert np.abs(impulse[1:]).max() < 1


@pytest.mark.parametrize("distance", [0.1, 0.3])
def test_response_has_the_reflection_of_the_floor(distance: float) -> None:
    """In a flat, wide room: the first image lies behind floor or ceiling, the nearer of the two."""
    for seed in range(4):
        impulse = response(np.random.default_rng(seed), (40, 30, 2.4), 0.8, distance)
        (first, *_) = np.flatnonzero(np.abs(impulse[1:]) > 1e-9) + 1
        way = first / RATE * SPEED_OF_SOUND + distance
        # The microphone hangs between 0.3 and 0.7 of the height.
        assert 0.6 * 2.4 - 2 * distance < way < 2.4 + distance
        assert np.abs(impulse[first : first + 2]).sum() < distance / way * 1.1


def test_response_holds_more_of_the_room_farther_away() -> None:
    def ratio(distance: float) -> float:
        """Of the reverberant energy to the direct, over many places in the room."""
        rngs = map(np.random.default_rng, range(20))
        tails = [response(rng, (8, 6, 3), 0.5, distance)[1:] for rng in rngs]
        return float(np.mean([np.sum(tail**2) for tail in tails]))

    assert 10 * np.log10(ratio(1.0) / ratio(0.25)) == pytest.approx(12, abs=2.5)
    # At the critical distance, 0.057 sqrt(V / T), both are the same.
    assert 10 * np.log10(ratio(0.057 * np.sqrt(144 / 0.5))) == pytest.approx(0, abs=2.5)
