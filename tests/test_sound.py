"""Babble, noise and rooms: rooms against what acoustics says of them."""

from __future__ import annotations

import numpy as np
import pytest

from data.sound import SPEED_OF_SOUND, Room, babble, response, reverberate, shaped, unit_rms

RATE = 16000
ROOMS = [
    Room(3, 2.5, 2.4, 0.15, 0.1),
    Room(4, 3, 2.5, 0.3, 0.4),
    Room(8, 5, 3, 0.6, 2.0),
    Room(20, 12, 5, 1.5, 6.0),
]


def decay_time(impulse: np.ndarray) -> float:
    """From Schroeder's integral between -5 and -25 dB, continued to 60 dB, in s.

    The direct sound, which stands out, is left out.
    """
    left = np.cumsum(impulse[:0:-1] ** 2)[::-1]
    decibels = 10 * np.log10(left / left[0] + 1e-12)
    first, last = (int(np.argmax(decibels < level)) for level in (-5, -25))
    slope = np.polyfit(np.arange(first, last) / RATE, decibels[first:last], 1)[0]
    return float(-60 / slope)


@pytest.mark.parametrize("room", ROOMS, ids=str)
def test_sound_decays_in_the_time_asked_for(room: Room):
    times = [decay_time(response(np.random.default_rng(seed), room, RATE)) for seed in range(8)]
    assert np.median(times) == pytest.approx(room.decay, rel=0.2)


@pytest.mark.parametrize("room", ROOMS, ids=str)
def test_the_direct_sound_comes_first_and_is_the_strongest_single_one(room: Room):
    for seed in range(8):
        impulse = response(np.random.default_rng(seed), room, RATE)
        assert impulse.shape == (int(room.decay * RATE),)
        assert impulse[0] == 1
        assert np.abs(impulse[1:]).max() < 1


@pytest.mark.parametrize("distance", [0.1, 0.3])
def test_the_floor_reflects_when_and_as_loudly_as_it_must(distance: float):
    """In a flat, wide room: the first image lies behind floor or ceiling, the nearer of the two."""
    room = Room(40, 30, 2.4, 0.8, distance)
    for seed in range(4):
        impulse = response(np.random.default_rng(seed), room, RATE)
        (first, *_) = np.flatnonzero(np.abs(impulse[1:]) > 1e-9) + 1
        way = first / RATE * SPEED_OF_SOUND + distance
        # The microphone hangs between 0.3 and 0.7 of the height.
        assert 0.6 * 2.4 - 2 * distance < way < 2.4 + distance
        assert np.abs(impulse[first : first + 2]).sum() < distance / way * 1.1


def test_farther_away_means_more_of_the_room():
    def ratio(distance: float) -> float:
        """Of the reverberant energy to the direct, over many places in the room."""
        room = Room(8, 6, 3, 0.5, distance)
        tails = [response(np.random.default_rng(seed), room, RATE)[1:] for seed in range(20)]
        return float(np.mean([np.sum(tail**2) for tail in tails]))

    assert 10 * np.log10(ratio(1.0) / ratio(0.25)) == pytest.approx(12, abs=2.5)
    # At the critical distance, 0.057 sqrt(V / T), both are the same.
    assert 10 * np.log10(ratio(0.057 * np.sqrt(144 / 0.5))) == pytest.approx(0, abs=2.5)


def test_speech_in_a_room_keeps_its_time():
    rng = np.random.default_rng(0)
    sound = shaped(rng, RATE, RATE, lambda f: (f < 4000) * 1.0)
    heard = reverberate(rng, sound, Room(4, 3, 2.5, 0.3, 0.3), RATE)
    assert heard.shape == sound.shape
    spectrum = np.fft.rfft(heard, 2 * RATE) * np.conj(np.fft.rfft(sound, 2 * RATE))
    assert np.argmax(np.fft.irfft(spectrum)) == 0


def test_babble_repeats_its_talkers_and_has_unit_rms():
    talk = [np.random.default_rng(seed).standard_normal(3000) for seed in range(3)]
    noise = babble(np.random.default_rng(0), 2 * RATE, RATE, talk)
    assert noise.shape == (2 * RATE,)
    assert np.mean(noise**2) == pytest.approx(1)
    for voice in talk:
        found = np.correlate(noise, voice / np.linalg.norm(voice), "valid")
        assert np.abs(found).max() > 0.3 * np.sqrt(len(voice))


@pytest.mark.parametrize("silent", [np.zeros(0), np.zeros(9)])
def test_unit_rms_refuses_silence(silent: np.ndarray):
    with pytest.raises(ValueError, match="silent"):
        unit_rms(silent)
