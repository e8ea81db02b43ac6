"""The kinds of noise, each by what makes it that noise, and what they are made of."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.ndimage import median_filter
from scipy.signal import welch
from scipy.stats import kurtosis

from data.machines import hum, wind
from data.music import music
from data.noises import NOISES, TALKERS
from data.sentences import sentence
from data.sound import ambience, bed, filtered, unit_rms
from data.speech import overheard
from data.voices import speakers

RATE = 16000
SECONDS = 4
EDGES = (20, 60, 120, 250, 500, 1000, 2000, 4000, 8000)


@cache
def talk(seed: int, count: int = 6) -> tuple[np.ndarray, ...]:
    """Stand-ins for talkers at 16 kHz."""
    rng = np.random.default_rng(seed)
    names = rng.choice(list(speakers()), count, replace=False)
    return tuple(overheard(sentence(rng), speakers()[name]) for name in names)


@cache
def make(name: str, seed: int, samples: int = SECONDS * RATE, rate: int = RATE) -> np.ndarray:
    people = talk(seed)[: TALKERS.get(name, (0, 0))[1]]
    noise = NOISES[name](np.random.default_rng(seed), samples, rate, people)
    noise.setflags(write=False)
    return noise


def share(signal: np.ndarray, low: float, high: float) -> float:
    """The part of the energy between two frequencies in Hz."""
    power = np.abs(np.fft.rfft(signal)) ** 2
    frequency = np.fft.rfftfreq(len(signal), 1 / RATE)
    return float(power[(frequency >= low) & (frequency < high)].sum() / power.sum())


def levels(signal: np.ndarray, pieces: int = 40) -> np.ndarray:
    """In dB, of pieces of the same length."""
    return 10 * np.log10([np.mean(piece**2) for piece in np.array_split(signal, pieces)])


def prominence(signal: np.ndarray) -> float:
    """In dB, the strongest line between 200 Hz and 2 kHz against the spectrum around it."""
    frequency, power = welch(signal, RATE, nperseg=8192)
    power = (power / median_filter(power, 61))[(frequency > 200) & (frequency < 2000)]
    return float(10 * np.log10(power.max()))


@pytest.mark.parametrize("name", NOISES)
@pytest.mark.parametrize("seed", [0, 1])
def test_noise_is_finite_normalised_and_its_seed_s_own(name: str, seed: int):
    noise = make(name, seed)
    assert noise.shape == (SECONDS * RATE,)
    assert noise.dtype == np.float64
    assert np.isfinite(noise).all()
    assert np.sqrt(np.mean(noise**2)) == pytest.approx(1, abs=1e-9)
    assert abs(noise.mean()) < 0.1
    assert np.array_equal(noise, make.__wrapped__(name, seed))
    assert not np.allclose(noise, make(name, seed + 100), atol=0.1)


@settings(max_examples=25, deadline=None)
@example("living", 8000, 16000)  # between two ticks of the clock
@given(st.sampled_from(list(NOISES)), st.integers(8000, 40000), st.sampled_from([8000, 16000]))
def test_noise_has_any_length_and_rate(name: str, samples: int, rate: int):
    noise = make(name, 3, samples, rate)
    assert noise.shape == (samples,)
    assert np.isfinite(noise).all()


def test_every_kind_is_told_from_all_others_by_its_spectrum_and_its_course():
    """Each recording is nearest to the mean of the other recordings of its kind."""
    names, seeds = list(NOISES), range(6)
    features = np.array([[described(make(name, seed)) for seed in seeds] for name in names])
    features /= features.std((0, 1))
    right = 0
    for kind in range(len(names)):
        for seed in seeds:
            others = features[kind][[other for other in seeds if other != seed]].mean(0)
            centres = features.mean(1)
            centres[kind] = others
            right += np.linalg.norm(centres - features[kind, seed], axis=1).argmin() == kind
    assert right / (len(names) * len(seeds)) > 0.8


def described(noise: np.ndarray) -> list[float]:
    high = filtered(noise, RATE, lambda f: (f > 2000) * 1.0)
    course = levels(noise)
    return [
        *(10 * np.log10(share(noise, *band)) for band in pairwise(EDGES)),
        float(course.std()),
        float(np.abs(np.diff(course)).mean()),
        float(levels(high, 160).std()),
        float(np.log(kurtosis(high) + 4)),
        float(np.log(kurtosis(noise) + 4)),
        prominence(noise),
    ]


# What makes each that noise


@pytest.mark.parametrize("seed", range(3))
def test_car_bus_and_metro_rumble(seed: int):
    assert share(make("car", seed), 0, 250) > 0.97
    assert share(make("bus", seed), 0, 250) > 0.8
    assert share(make("metro", seed), 0, 500) > 0.7


@pytest.mark.parametrize("seed", range(4))
def test_metro_crosses_rail_joints_at_a_steady_pace(seed: int):
    high = filtered(make("metro", seed), RATE, lambda f: (f > 3000) * 1.0)
    course = np.sqrt(np.mean(high.reshape(-1, 160) ** 2, axis=1))  # 100 a second
    course = np.minimum(course, np.percentile(course, 99)) - np.median(course)
    repeats = np.correlate(course, course, "full")[len(course) - 1 :]
    assert repeats[55:135].max() > 0.2 * repeats[0]


@pytest.mark.parametrize("seed", range(4))
def test_speech_shaped_noise_is_steady_and_babble_is_not(seed: int):
    steady, people = make("speech_shaped", seed), make("babble", seed)
    assert abs(kurtosis(steady)) < 0.3
    assert levels(steady).std() < 0.8 < levels(people).std()
    bands = [(120, 500), (500, 1000), (1000, 2000)]
    shape = np.array([[share(x, *band) for band in bands] for x in (steady, people)])
    decibels = 10 * np.log10(shape / shape.sum(1, keepdims=True))
    assert np.abs(decibels[0] - decibels[1]).max() < 8


@pytest.mark.parametrize("name", ["babble", "cafeteria", "restaurant", "meeting", "cafe"])
def test_people_are_heard_where_there_are_some(name: str):
    """Other people, another noise, all else being drawn alike."""
    low, high = TALKERS[name]
    noises = [
        NOISES[name](np.random.default_rng(0), SECONDS * RATE, RATE, talk(seed)[:low])
        for seed in (1, 2)
    ]
    assert 1 <= low <= high <= 8
    assert np.corrcoef(noises)[0, 1] < 0.9


@pytest.mark.parametrize("name", ["kitchen", "office", "square"])
def test_things_are_hit(name: str):
    """Above the rumble, which is low."""
    clicks = [np.diff(make(name, seed), prepend=0.0) for seed in range(4)]
    assert max(kurtosis(each) for each in clicks) > 3
    assert np.median([np.abs(each).max() / each.std() for each in clicks]) > 6


@pytest.mark.parametrize("seed", range(3))
def test_traffic_passes_by(seed: int):
    noise = make("traffic", seed)
    assert share(noise, 0, 1000) > 0.7
    # Tyres are heard above the rumble while a vehicle is near, so that the level there changes.
    assert np.ptp(levels(np.diff(noise, prepend=0.0), 16)) > 2


def test_a_television_plays_in_the_living_room():
    """Its music is heard where its voice is a hiss."""
    hiss = np.random.default_rng(0).standard_normal(2 * RATE)
    tones = [
        prominence(NOISES["living"](np.random.default_rng(seed), SECONDS * RATE, RATE, [hiss]))
        for seed in range(4)
    ]
    assert np.median(tones) > 12
    assert max(prominence(make("speech_shaped", seed)) for seed in range(4)) < 9


@pytest.mark.parametrize("seed", range(3))
def test_music_is_tonal(seed: int):
    assert prominence(music(np.random.default_rng(seed), SECONDS * RATE, RATE)) > 15


@pytest.mark.parametrize("seed", range(4))
def test_hum_is_at_multiples_of_the_mains_frequency(seed: int):
    sound = hum(np.random.default_rng(seed), SECONDS * RATE, RATE)
    frequency, power = welch(sound, RATE, nperseg=RATE)
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
    gusts = wind(np.random.default_rng(seed), SECONDS * RATE, RATE)
    assert share(gusts, 0, 300) > 0.8
    assert levels(gusts, 16).std() > 1.5


# What they are made of


def test_a_bed_falls_by_its_slope():
    noise = bed(np.random.default_rng(0), 20 * RATE, RATE, 100, 1.5)
    frequency, power = welch(noise, RATE, nperseg=4096)
    low, high = (10 * np.log10(power[np.abs(frequency - f) < f / 8].mean()) for f in (800, 3200))
    assert low - high == pytest.approx(2 * 1.5 * 6.02, abs=1.5)
    assert share(ambience(np.random.default_rng(0), 64000, RATE), 0, 500) > 0.9


def test_a_filter_has_its_gain_and_no_delay():
    time = np.arange(RATE) / RATE
    tone = np.sin(2 * np.pi * 1000 * time) * np.hanning(RATE)
    assert filtered(tone, RATE, lambda f: np.ones_like(f)) == pytest.approx(tone, abs=1e-12)
    assert filtered(tone, RATE, lambda f: f / 2000) == pytest.approx(tone / 2, abs=2e-3)


def test_silence_has_no_level():
    for silent in (np.zeros(0), np.zeros(9)):
        with pytest.raises(ValueError, match="silent"):
            unit_rms(silent)
