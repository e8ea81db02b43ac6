"""The noise classes, each by what makes it that noise, and levels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import median_filter
from scipy.signal import welch
from scipy.stats import kurtosis

from data import synthesise
from data.levels import active_level
from data.noises import NOISES, babble
from data.plan import speakers
from data.sentences import sentence
from data.sound import ambience, reverberate, unit_rms

RATE = 16000
SECONDS = 4


def talk(seed: int) -> list[np.ndarray]:
    """Stand-ins for six talkers at 16 kHz."""
    rng = np.random.default_rng(seed)
    names = rng.choice(list(speakers()), 6, replace=False)
    return [synthesise._spoken(sentence(rng), speakers()[name]) for name in names]


def make(name: str, seed: int, samples: int = SECONDS * RATE) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if name == "babble":
        return babble(rng, samples, RATE, speech=talk(seed))
    return NOISES[name](rng, samples, RATE)


def share(signal: np.ndarray, low: float, high: float) -> float:
    """The part of the energy between two frequencies in Hz."""
    power = np.abs(np.fft.rfft(signal)) ** 2
    frequency = np.fft.rfftfreq(len(signal), 1 / RATE)
    return float(power[(frequency >= low) & (frequency < high)].sum() / power.sum())


@pytest.mark.parametrize("name", [*NOISES, "babble"])
@pytest.mark.parametrize("seed", [0, 1])
def test_noise_is_finite_normalised_and_its_seed_s_own(name: str, seed: int):
    noise = make(name, seed)
    assert noise.shape == (SECONDS * RATE,)
    assert noise.dtype == np.float64
    assert np.isfinite(noise).all()
    assert np.sqrt(np.mean(noise**2)) == pytest.approx(1, abs=1e-9)
    assert abs(noise.mean()) < 0.05
    assert np.array_equal(noise, make(name, seed))
    assert not np.allclose(noise, make(name, seed + 100), atol=0.1)


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(list(NOISES)), st.integers(8000, 40000), st.sampled_from([8000, 16000]))
def test_noise_has_any_length_and_rate(name: str, samples: int, rate: int):
    noise = NOISES[name](np.random.default_rng(3), samples, rate)
    assert noise.shape == (samples,)
    assert np.isfinite(noise).all()


@pytest.mark.parametrize("seed", range(4))
def test_hum_is_at_multiples_of_the_mains_frequency(seed: int):
    frequency, power = welch(make("hum", seed), RATE, nperseg=RATE)
    power = power[(frequency >= 30) & (frequency < 2010)]
    frequency = frequency[(frequency >= 30) & (frequency < 2010)]
    near = {
        mains: power[np.abs((frequency + mains / 2) % mains - mains / 2) <= 4].sum() / power.sum()
        for mains in (50, 60)
    }
    assert max(near.values()) > 0.8
    assert min(near.values()) < 0.5


@pytest.mark.parametrize("seed", range(4))
def test_wind_is_low_and_gusty(seed: int):
    noise = make("wind", seed)
    assert share(noise, 0, 300) > 0.8
    levels = np.log10([np.mean(piece**2) for piece in np.split(noise, 16)])
    steady = np.log10([np.mean(piece**2) for piece in np.split(make("coloured", seed), 16)])
    assert 10 * np.std(levels) > 1.5
    assert np.std(levels) > 2 * np.std(steady)


@pytest.mark.parametrize("seed", range(4))
def test_keyboard_is_impulsive(seed: int):
    noise = make("keyboard", seed)
    # Above the ambience of the room, which is low.
    clicks = np.diff(noise, prepend=0.0)
    assert kurtosis(clicks) > 10
    assert np.abs(clicks).max() / np.std(clicks) > 10


@pytest.mark.parametrize("seed", range(3))
def test_babble_has_the_spectrum_of_speech(seed: int):
    noise = make("babble", seed)
    speech = np.concatenate(talk(seed + 50))
    voiced = [share(signal, 250, 4000) for signal in (noise, speech)]
    assert voiced[0] > 0.1  # the rest is the ambience of the room
    bands = [(250, 500), (500, 1000), (1000, 2000), (2000, 4000)]
    shape = np.array([[share(x, *band) for band in bands] for x in (noise, speech)])
    decibels = 10 * np.log10(shape / shape.sum(1, keepdims=True))
    assert np.abs(decibels[0] - decibels[1]).max() < 8
    # Many voices fill each other's pauses.
    assert kurtosis(noise) < kurtosis(speech)


@pytest.mark.parametrize("seed", range(3))
def test_traffic_passes_by(seed: int):
    noise = make("traffic", seed)
    assert share(noise, 0, 1000) > 0.7
    # Tyres are heard above the rumble while a vehicle is near, so that the level there changes.
    tyres = np.diff(noise, prepend=0.0)
    levels = 10 * np.log10([np.mean(piece**2) for piece in np.split(tyres, 16)])
    assert np.ptp(levels) > 2


@pytest.mark.parametrize("seed", range(3))
def test_music_is_tonal(seed: int):
    def prominence(noise: np.ndarray) -> float:
        """The strongest line between 200 Hz and 2 kHz against the spectrum around it."""
        frequency, power = welch(noise, RATE, nperseg=8192)
        power = (power / median_filter(power, 61))[(frequency > 200) & (frequency < 2000)]
        return float(power.max())

    assert prominence(make("music", seed)) > 30
    assert prominence(make("coloured", seed)) < 8


def test_coloured_is_steady_and_of_many_colours():
    above = []
    for seed in range(12):
        noise = make("coloured", seed)
        assert abs(kurtosis(noise)) < 0.3
        above.append(share(noise, 1000, 8000))
    assert min(above) < 0.3
    assert max(above) > 0.8


def test_reverberation_starts_after_the_sound_and_has_its_level():
    click = np.zeros(RATE)
    click[100] = 1.0
    room = reverberate(np.random.default_rng(0), click, RATE, decay=0.3, level=-10.0)
    assert np.abs(room[:100]).max() < 1e-12
    assert room[100] == pytest.approx(1)
    tail = room[101:] ** 2
    assert 10 * np.log10(tail.sum()) == pytest.approx(-10, abs=0.5)
    assert tail[int(0.2 * RATE) :].sum() < 0.02 * tail.sum()


def test_ambience_is_low():
    assert share(ambience(np.random.default_rng(0), 64000, RATE), 0, 500) > 0.9


def test_silence_has_no_level():
    for silent in (np.zeros(0), np.zeros(9)):
        with pytest.raises(ValueError, match="silent"):
            unit_rms(silent)
    with pytest.raises(ValueError, match="silent"):
        active_level(np.zeros(RATE))


def test_active_level_counts_activity_only():
    tone = np.sqrt(2) * np.sin(2 * np.pi * 440 * np.arange(4 * RATE) / RATE)
    assert active_level(tone) == pytest.approx(0, abs=0.2)
    paused = np.concatenate([tone, np.zeros(4 * RATE)])
    assert active_level(paused) == pytest.approx(0, abs=0.4)
    assert active_level(0.01 * paused) == pytest.approx(active_level(paused) - 40, abs=1e-6)
