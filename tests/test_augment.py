"""Augmentation slots: each does what it says, to both sides alike, and none where it is off."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import sound

from data.augment import Augment, Drawn
from data.utils import DataError
from data.verify import lag_of

RATE = 16000
FRAMES = RATE
SLOTS = ("speed", "room", "babble", "remix", "band", "gain")


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


# One by one


def test_nothing_is_drawn_where_all_is_off():
    assert all(drawn(seed).nothing for seed in range(50))
    assert drawn().source_frames == FRAMES


@pytest.mark.parametrize("slot", SLOTS)
def test_a_probability_is_one(slot: str):
    used = [not drawn(seed, **{slot: 0.3}).nothing for seed in range(400)]
    assert 80 < sum(used) < 160
    assert not any(drawn(seed, **{slot: 1.0}).nothing for seed in range(50))


def test_gain_is_that_of_both_sides():
    clean, noise = signals()
    for seed in range(20):
        louder, noises = apply(drawn(seed, gain=1.0, gain_db=(6.0, 9.0)))
        assert 6 - 1e-3 <= decibels(louder, clean) <= 9 + 1e-3
        assert decibels(noises, noise) == pytest.approx(decibels(louder, clean), abs=1e-3)


def test_remix_sets_the_snr_and_leaves_speech_alone():
    clean, noise = signals()
    levels = []
    for seed in range(20):
        same, noises = apply(drawn(seed, remix=1.0, remix_snr_db=(-5.0, 15.0)))
        assert np.array_equal(same, clean)
        levels.append(decibels(same, noises))
        assert np.corrcoef(noises, noise)[0, 1] > 0.9999
    assert -5.01 <= min(levels) < 0
    assert 10 < max(levels) <= 15.01


def test_remix_makes_no_roar_of_a_pause():
    clean, noise = signals()
    slots = drawn(remix=1.0, remix_snr_db=(-5.0, -5.0))
    quiet, noisy = slots.apply(1e-3 * clean, noise, talk)
    assert decibels(noisy - quiet, noise) == pytest.approx(-20, abs=0.1)
    for silent in (slots.apply(0 * clean, noise, talk), slots.apply(clean, 0 * noise, talk)):
        assert np.isfinite(silent).all()


def test_babble_is_added_at_its_snr():
    _, noise = signals()
    for seed in range(5):
        same, noises = apply(drawn(seed, babble=1.0, babble_snr_db=(3.0, 3.0)))
        assert np.array_equal(same, signals()[0])
        assert decibels(same, noises - noise) == pytest.approx(3, abs=0.05)


def test_babble_of_nobody_is_none():
    clean, noise = signals()
    slots = drawn(babble=1.0)
    _, noisy = slots.apply(clean, noise, lambda rng: np.zeros(0, np.float32))
    assert np.allclose(noisy, clean + noise)


def test_babble_of_people_who_pause_is_what_there_is_of_it():
    """Files with digital silence have pieces in which nobody says anything."""
    clean, noise = signals(4000)

    def mostly_silent(rng: np.random.Generator) -> np.ndarray:
        return np.concatenate([talk(rng)[:50], np.zeros(48000, np.float32)])

    for seed in range(20):
        settings = Augment(babble=1.0, babble_talkers=(1, 1))
        slots = Drawn(settings, np.random.default_rng(seed), 4000)
        assert np.isfinite(slots.apply(clean, noise, mostly_silent)).all()


def test_speed_changes_pitch_and_keeps_the_sides_together():
    slots = drawn(speed=1.0, speed_by=(1.2, 1.2))
    assert slots.source_frames == np.ceil(1.2 * FRAMES)
    time = np.arange(slots.source_frames) / RATE
    tone = np.sin(2 * np.pi * 1000 * time).astype(np.float32)
    clean, noisy = slots.apply(tone, 0 * tone, talk)
    assert np.argmax(np.abs(np.fft.rfft(clean))) == pytest.approx(1200, abs=1)
    assert np.array_equal(clean, noisy)
    assert drawn(speed=1.0, speed_by=(0.8, 0.8)).source_frames == 0.8 * FRAMES


def test_a_room_is_heard_on_both_sides_and_moves_nothing():
    clean, noise = signals()
    for seed in range(5):
        reverberant, noises = apply(drawn(seed, room=1.0))
        assert np.allclose(noises, noise, atol=1e-6)
        assert not np.allclose(reverberant, clean, atol=1e-3)
        assert lag_of(clean, reverberant) == 0
        assert -20 < decibels(reverberant - clean, clean) < 6


def test_a_low_pass_takes_the_same_from_both_sides():
    slots = drawn(band=1.0, band_hz=(3000.0, 3000.0))
    clean, noise = apply(slots)
    for before, after in zip(signals(), (clean, noise), strict=True):
        spectra = [np.abs(np.fft.rfft(x)) ** 2 for x in (before, after)]
        assert np.allclose(spectra[1][:2500], spectra[0][:2500], rtol=1e-2, atol=1e-3)
        assert spectra[1][3001:].sum() < 1e-8 * spectra[0][3001:].sum()


@pytest.mark.parametrize("slot", ["speed", "room", "remix", "band", "gain"])
def test_one_slot_changes_nothing_about_the_others(slot: str):
    """Babble is the one that draws most: it is of the same talkers whatever else is done."""

    def heard(**settings: float) -> list[np.ndarray]:
        """What the talkers say, of silence and nothing else."""
        said: list[np.ndarray] = []

        def listen(rng: np.random.Generator) -> np.ndarray:
            said.append(talk(rng))
            return said[-1]

        slots = drawn(7, babble=1.0, **settings)
        slots.apply(*signals(slots.source_frames), listen)
        return said

    alone, beside = heard(), heard(**{slot: 1.0})
    assert len(alone) == len(beside) > 2
    assert all(np.array_equal(x, y) for x, y in zip(alone, beside, strict=True))


@pytest.mark.parametrize("slot", SLOTS)
def test_one_slot_decides_no_others_fate(slot: str):
    everything = dict.fromkeys(SLOTS, 0.5)
    names = {"speed": "_rate", "room": "_decay", "babble": "_babble_snr", "remix": "_remix_snr",
             "band": "_band", "gain": "_gain"}  # fmt: skip
    for seed in range(20):
        one, other = drawn(seed, **everything), drawn(seed, **everything | {slot: 0.0})
        for each, name in names.items():
            assert each == slot or getattr(one, name) == getattr(other, name)


def test_numbers_of_talkers_and_speeds():
    talkers = {drawn(seed, babble_talkers=(2, 4))._talkers for seed in range(60)}
    assert talkers == {2, 3, 4}
    rates = {drawn(seed, speed=1.0)._rate for seed in range(200)}
    assert len(rates) > 150
    assert 14400 <= min(rates) < 14500
    assert 17500 < max(rates) <= 17600


def test_minus_zero_may_end_a_range():
    slots = drawn(gain=1.0, gain_db=(0.0, -0.0))
    clean, _ = slots.apply(*[np.ones(slots.source_frames, np.float32)] * 2, talk)
    assert np.array_equal(clean, np.ones_like(clean))


@pytest.mark.parametrize("speed", [1.0000625, 1.1, 0.9123, 1.99])
def test_enough_is_read_for_a_change_of_speed(speed: float):
    slots = drawn(speed=1.0, speed_by=(speed, speed))
    clean, _ = slots.apply(*[np.ones(slots.source_frames, np.float32)] * 2, talk)
    # Nothing was filled up with zeros at the end; the resampler's own flanks are short.
    assert np.abs(clean[100:-1] - 1).max() < 0.2


ranges = {
    "speed_by": (0.5, 2.0),
    "room_decay": (0.01, 2.0),
    "babble_snr_db": (-50.0, 100.0),
    "remix_snr_db": (-50.0, 100.0),
    "band_hz": (100.0, 8000.0),
    "gain_db": (-60.0, 60.0),
}
chosen = st.fixed_dictionaries(
    {slot: st.floats(0, 1) for slot in SLOTS}
    | {key: st.lists(st.floats(*ends), min_size=2, max_size=2) for key, ends in ranges.items()}
)


@settings(max_examples=60, deadline=None)
@given(
    chosen, st.integers(0, 2**32), st.sampled_from([0.0, 1e-6, 1.0]), st.sampled_from([0.0, 1.0])
)
def test_whatever_is_drawn_is_finite_and_of_the_length_asked_for(
    values: dict, seed: int, speech: float, noise: float
):
    settings = {k: tuple(sorted(v)) if isinstance(v, list) else v for k, v in values.items()}
    slots = Drawn(Augment(**settings), np.random.default_rng(seed), 4000)
    source = sound(slots.source_frames / RATE)[: slots.source_frames].astype(np.float32)
    source = np.resize(source, slots.source_frames)
    clean, noisy = slots.apply(speech * source, noise * source[::-1], talk)
    assert clean.shape == noisy.shape == (4000,)
    assert np.isfinite(clean).all()
    assert np.isfinite(noisy).all()


# Settings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gain": 1.5}, "augment.gain is 1.5, expected a probability, 0 to 1"),
        ({"room": -0.1}, "augment.room is -0.1"),
        ({"speed": float("nan")}, "augment.speed is nan"),
        ({"speed_by": (1.1, 0.9)}, "augment.speed_by is .* expected a lowest and a highest value"),
        ({"speed_by": (0.1, 1.0)}, "from 0.5 to 2"),
        ({"band_hz": (100.0, 9000.0)}, "from 100 to 8000"),
        ({"babble_talkers": (0, 3)}, "from 1 to 20"),
        ({"gain_db": (1.0,)}, "augment.gain_db"),
    ],
)
def test_settings_out_of_bounds(change: dict, message: str):
    with pytest.raises(DataError, match=message):
        Augment(**change)
