"""The cast, and how its speech is brought nearer to a person's."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.fft import irfft, rfft
from scipy.signal import welch

from data.espeak import Voice
from data.speech import overheard, utter
from data.voices import CAST, Speaker, speakers

RATE = 16000
TEXT = "All our yellow boats go far out, father, to the open sea."


def spoken(speaker: Speaker, seed: int = 0) -> np.ndarray:
    return utter(np.random.default_rng(seed), TEXT, speaker)


def pitch(speech: np.ndarray) -> np.ndarray:
    """F0 in Hz of the voiced frames, by Boersma's autocorrelation (1993) without path finding."""
    lags, window = np.arange(RATE // 400, RATE // 65), np.hanning(640)
    frames = np.lib.stride_tricks.sliding_window_view(speech, 640)[::160] * window
    curve = irfft(np.abs(rfft(frames, 1280)) ** 2)
    energy = curve[:, 0]
    expected = irfft(np.abs(rfft(window, 1280)) ** 2)
    curve = (curve / expected * expected[0])[:, lags] / (energy[:, None] + 1e-12)
    best = curve.max(1)
    voiced = (energy > 0.01 * energy.max()) & (best > 0.75)
    # The shortest lag that is nearly as good: multiples of the period are as good as itself.
    return RATE / lags[np.argmax(curve[voiced] > 0.93 * best[voiced, None], axis=1)]


def colour(speech: np.ndarray) -> np.ndarray:
    """The long-term spectrum in third octaves from 200 Hz to 6 kHz, in dB."""
    frequency, power = welch(speech, RATE, nperseg=1024)
    centres = 200 * 2 ** (np.arange(16) / 3)
    octaves = np.log2(frequency[1:] / centres[:, None])
    bands = [power[1:][np.abs(each) < 1 / 6].mean() for each in octaves]
    decibels = 10 * np.log10(bands)
    return decibels - decibels.mean()


def test_the_cast_is_complete_and_nobody_shares_a_variant():
    cast = speakers()
    assert len(cast) == sum(map(sum, CAST.values())) == 36
    for letter, count in zip("fm", map(sum, zip(*CAST.values(), strict=True)), strict=True):
        assert [f"{letter}{n:02d}" for n in range(1, count + 1)] == [
            name for name in cast if name[0] == letter
        ]
    assert len({speaker.voice.variant for speaker in cast.values()}) == 36
    assert len({speaker.voice.language for speaker in cast.values()}) >= 7


def test_no_two_speakers_sound_alike():
    """They differ in register (by a semitone) or in colour (by 1.5 dB in a third octave)."""
    heard = {name: spoken(speaker) for name, speaker in speakers().items()}
    register = {name: 12 * np.log2(np.median(pitch(speech))) for name, speech in heard.items()}
    colours = {name: colour(speech) for name, speech in heard.items()}
    for one, other in combinations(heard, 2):
        apart = np.sqrt(np.mean((colours[one] - colours[other]) ** 2))
        assert abs(register[one] - register[other]) > 1 or apart > 1.5, (one, other)
    women, men = (
        [2 ** (value / 12) for name, value in register.items() if name[0] == letter]
        for letter in "fm"
    )
    assert 150 < np.median(women) < 250
    assert 80 < np.median(men) < 140


def test_a_shorter_vocal_tract_raises_formants_and_keeps_the_time():
    low, high = (Speaker(Voice("en-us", "m3", 165, 50, 50), tract) for tract in (1.0, 1.15))
    one, other = (overheard(TEXT, speaker) for speaker in (low, high))
    assert len(other) == pytest.approx(len(one), rel=0.06)
    spectra = []
    for speech in (one, other):
        frequency, power = welch(speech, RATE, nperseg=512)
        spectra.append(np.log(power))
    # On an axis of log frequency the spectrum moves by log(1.15).
    axis = np.arange(np.log(300), np.log(5000), 0.01)
    first, second = (np.interp(axis, np.log(frequency[1:]), each[1:]) for each in spectra)
    moved = [
        np.corrcoef(first[20:-40], second[20 + k : len(axis) - 40 + k])[0, 1] for k in range(40)
    ]
    assert 0.01 * np.argmax(moved) == pytest.approx(np.log(1.15), abs=0.05)


def test_breath_blurs_harmonics_above_the_edge_and_leaves_those_below():
    voice = Voice("en-us", "m3", 165, 50, 0)
    still, breathy = (spoken(Speaker(voice, 1.0, breath)) for breath in (0.0, 0.9))
    # The generator is in the same state, so that all else is the same.
    spectra = [np.fft.rfft(speech) for speech in (still, breathy)]
    frequency = np.fft.rfftfreq(len(still), 1 / RATE)
    change = np.abs(spectra[1] - spectra[0]) ** 2
    below, above = (frequency < 1500), (frequency > 4500)
    assert change[below].sum() < 0.01 * (np.abs(spectra[0][below]) ** 2).sum()
    assert change[above].sum() > 0.5 * (np.abs(spectra[0][above]) ** 2).sum()


def test_the_same_person_varies_and_stays_the_same_person():
    rng = np.random.default_rng(0)
    for speaker in speakers().values():
        for _ in range(20):
            other, related = speaker.varied(rng), speaker.stranger(rng)
            assert (other.voice.language, other.voice.variant) == (
                speaker.voice.language,
                speaker.voice.variant,
            )
            assert other.tract == speaker.tract
            assert related.tract == pytest.approx(speaker.tract, rel=0.11)
            assert Speaker.parse(str(other)) == other
            assert Speaker.parse(str(related)) == related
    assert len({str(speaker.varied(rng)) for _ in range(20)}) == 20


def test_speaker_text_form():
    assert str(Speaker(Voice("en", "f2", 150, 40, 60), 1.1, 0.3)) == "en+f2/150/40/60/1.1/0.3"
    for text in ("", "en-us", "en-us/1/2/3", "en-us+f2/150/40/60/a/b"):
        with pytest.raises(ValueError, match=r"not a (voice|speaker)|could not convert"):
            Speaker.parse(text)


def test_speech_depends_on_its_generator_alone():
    speaker = speakers()["f07"]
    assert np.array_equal(spoken(speaker), spoken(speaker))
    assert not np.array_equal(spoken(speaker), spoken(speaker, 1))
