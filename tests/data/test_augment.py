"""Augmentation: what each slot does to both sides; babble."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import sound

from bsbimamba.data.augment import _BOUNDS, Augment, Drawn, babble
from bsbimamba.utils import DataError

RATE = FRAMES = 16000
SLOTS = ("speed", "babble", "remix")


def drawn(seed: int = 0, **settings: object) -> Drawn:
    return Drawn(Augment(**settings), np.random.default_rng(seed), FRAMES)  # type: ignore[arg-type]


def signals(frames: int = FRAMES) -> tuple[np.ndarray, np.ndarray]:
    clean, noise = sound(frames / RATE, seed=1), 0.3 * sound(frames / RATE, seed=2)
    return clean.astype(np.float32), noise.astype(np.float32)


def talk(rng: np.random.Generator) -> np.ndarray:
    return sound(0.5, seed=int(rng.integers(100))).astype(np.float32)


def decibels(x: np.ndarray, y: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(np.square(x)) / np.mean(np.square(y))))


def apply(slots: Drawn) -> tuple[np.ndarray, np.ndarray]:
    """The clean side and the noise of it."""
    clean, noisy = slots.apply(*signals(slots.source_frames), talk)
    assert clean.shape == noisy.shape == (FRAMES,)
    assert clean.dtype == noisy.dtype == np.float32
    return clean, noisy - clean


@pytest.mark.parametrize("slot", SLOTS)
def test_slot_is_used_with_its_probability(slot: str) -> None:
    used = [not drawn(seed, **{slot: 0.3}).nothing for seed in range(400)]
    assert 80 < sum(used) < 160
    for seed in range(50):
        assert not drawn(seed, **{slot: 1.0}).nothing
        assert drawn(seed).nothing
    assert drawn().source_frames == FRAMES


def test_remix_sets_the_snr_and_leaves_speech_alone() -> None:
    clean, noise = signals()
    levels = []
    for seed in range(20):
        same, noises = apply(drawn(seed, remix=1.0, remix_snr_db=(-5.0, 15.0)))
        assert np.array_equal(same, clean)
        levels.append(decibels(same, noises))
        assert np.corrcoef(noises, noise)[0, 1] > 0.9999
    assert -5.01 <= min(levels) < 0
    assert 10 < max(levels) <= 15.01
    # In a pause, noise is changed by 20 dB at most.
    quiet, noisy = drawn(remix=1.0, remix_snr_db=(-5.0, -5.0)).apply(1e-3 * clean, noise, talk)
    assert decibels(noisy - quiet, noise) == pytest.approx(-20, abs=0.1)


def test_babble_is_added_at_its_snr() -> None:
    clean, noise = signals()
    for seed in range(5):
        same, noises = apply(drawn(seed, babble=1.0, babble_snr_db=(3.0, 3.0)))
        assert np.array_equal(same, clean)
        assert decibels(same, noises - noise) == pytest.approx(3, abs=0.05)
    _, noisy = drawn(babble=1.0).apply(clean, noise, lambda rng: np.zeros(0, np.float32))
    assert np.allclose(noisy, clean + noise)


@pytest.mark.parametrize("speed", [1.0000625, 0.9123, 1.99])
def test_speed_changes_pitch_and_keeps_the_sides_together(speed: float) -> None:
    slots = drawn(speed=1.0, speed_by=(speed, speed))
    time = np.arange(slots.source_frames) / RATE
    tone = np.sin(2 * np.pi * 1000 * time).astype(np.float32)
    clean, noisy = slots.apply(tone, 0 * tone, talk)
    assert np.argmax(np.abs(np.fft.rfft(clean))) == pytest.approx(1000 * speed, abs=1)
    assert np.abs(clean[-20:-1]).max() > 0.8  # it was not filled up with zeros
    assert np.array_equal(clean, noisy)


def test_other_slots_change_nothing_about_babble() -> None:
    heard: list[list[float]] = [[], []]
    for said, others in zip(heard, (0.0, 1.0), strict=True):
        slots = drawn(7, babble=1.0, speed=others, remix=others)

        def listen(rng: np.random.Generator, said: list[float] = said) -> np.ndarray:
            said.append(rng.random())
            return talk(rng)

        slots.apply(*signals(slots.source_frames), listen)
    assert heard[0] == heard[1] != []


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 1e-6, 1.0]), st.sampled_from([0.0, 1.0]))
def test_augmented_examples_are_finite(seed: int, speech: float, noise: float) -> None:
    widest = {k: ends for k, ends in _BOUNDS.items() if k != "babble_talkers"}
    slots = drawn(seed, speed=0.7, babble=0.7, remix=0.7, **widest)
    source = np.resize(sound(0.5).astype(np.float32), slots.source_frames)

    def mostly_silent(rng: np.random.Generator) -> np.ndarray:
        return np.concatenate([talk(rng)[:50], np.zeros(48000, np.float32)])

    for say in (talk, mostly_silent):
        both = slots.apply(speech * source, noise * source[::-1], say)
        assert np.shape(both) == (2, FRAMES)
        assert np.isfinite(both).all()


@pytest.mark.parametrize(
    "change", [{"remix": 1.5}, {"speed": float("nan")}, {"speed_by": (1.1, 0.9)}]
)
def test_settings_out_of_bounds_are_refused(change: dict) -> None:
    with pytest.raises(DataError, match=f"augment.{next(iter(change))} is .* expected a"):
        Augment(**change)


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
