"""Augmentation: what each slot does to both sides; rooms against what acoustics says of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import sound

from bsbimamba.data.augment import _BOUNDS, _SPEED_OF_SOUND, Augment, Drawn, babble, response
from bsbimamba.data.verify import lag_of
from bsbimamba.utils import DataError

RATE = FRAMES = 16000
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


@pytest.mark.parametrize("slot", SLOTS)
def test_slot_is_used_with_its_probability(slot: str) -> None:
    used = [not drawn(seed, **{slot: 0.3}).nothing for seed in range(400)]
    assert 80 < sum(used) < 160
    for seed in range(50):
        assert not drawn(seed, **{slot: 1.0}).nothing
        assert drawn(seed).nothing
    assert drawn().source_frames == FRAMES


def test_gain_is_that_of_both_sides() -> None:
    clean, noise = signals()
    for seed in range(20):
        louder, noises = apply(drawn(seed, gain=1.0, gain_db=(6.0, 9.0)))
        assert 6 - 1e-3 <= decibels(louder, clean) <= 9 + 1e-3
        assert decibels(noises, noise) == pytest.approx(decibels(louder, clean), abs=1e-3)


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


def test_remix_changes_noise_by_20_db_at_most() -> None:
    clean, noise = signals()
    slots = drawn(remix=1.0, remix_snr_db=(-5.0, -5.0))
    quiet, noisy = slots.apply(1e-3 * clean, noise, talk)
    assert decibels(noisy - quiet, noise) == pytest.approx(-20, abs=0.1)


def test_babble_is_added_at_its_snr() -> None:
    clean, noise = signals()
    for seed in range(5):
        same, noises = apply(drawn(seed, babble=1.0, babble_snr_db=(3.0, 3.0)))
        assert np.array_equal(same, clean)
        assert decibels(same, noises - noise) == pytest.approx(3, abs=0.05)
    _, noisy = drawn(babble=1.0).apply(clean, noise, lambda rng: np.zeros(0, np.float32))
    assert np.allclose(noisy, clean + noise)


def test_speed_changes_pitch_and_keeps_the_sides_together() -> None:
    slots = drawn(speed=1.0, speed_by=(1.2, 1.2))
    assert slots.source_frames == np.ceil(1.2 * FRAMES)
    time = np.arange(slots.source_frames) / RATE
    tone = np.sin(2 * np.pi * 1000 * time).astype(np.float32)
    clean, noisy = slots.apply(tone, 0 * tone, talk)
    assert np.argmax(np.abs(np.fft.rfft(clean))) == pytest.approx(1200, abs=1)
    assert np.array_equal(clean, noisy)


@pytest.mark.parametrize("speed", [1.0000625, 0.9123, 1.99])
def test_speed_reads_enough(speed: float) -> None:
    slots = drawn(speed=1.0, speed_by=(speed, speed))
    clean, _ = slots.apply(*[np.ones(slots.source_frames, np.float32)] * 2, talk)
    # Nothing was filled up with zeros at the end; the resampler's own flanks are short.
    assert np.abs(clean[100:-1] - 1).max() < 0.2


def test_room_reverberates_speech_without_delay() -> None:
    clean, noise = signals()
    for seed in range(5):
        reverberant, noises = apply(drawn(seed, room=1.0))
        assert np.allclose(noises, noise, atol=1e-6)
        assert lag_of(clean, reverberant) == 0
        assert -20 < decibels(reverberant - clean, clean) < 6


def test_band_removes_high_frequencies_from_both_sides() -> None:
    for before, after in zip(signals(), apply(drawn(band=1.0, band_hz=(3000.0,) * 2)), strict=True):
        spectra = [np.abs(np.fft.rfft(x)) ** 2 for x in (before, after)]
        assert np.allclose(spectra[1][:2500], spectra[0][:2500], rtol=1e-2, atol=1e-3)
        assert spectra[1][3001:].sum() < 1e-8 * spectra[0][3001:].sum()


@pytest.mark.parametrize("slot", ["speed", "room", "remix", "band", "gain"])
def test_slot_changes_nothing_about_the_others(slot: str) -> None:
    """Babble is the one that draws most: it is of the same talkers whatever else is done."""

    def heard(**settings: float) -> list[np.ndarray]:
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


chosen = st.fixed_dictionaries(
    {slot: st.floats(0, 1) for slot in SLOTS}
    | {
        name: st.lists(st.floats(*ends), min_size=2, max_size=2)
        for name, ends in _BOUNDS.items()
        if name != "babble_talkers"
    }
)


@settings(max_examples=60, deadline=None)
@given(
    chosen, st.integers(0, 2**32), st.sampled_from([0.0, 1e-6, 1.0]), st.sampled_from([0.0, 1.0])
)
def test_augmented_examples_are_finite_and_of_the_wanted_length(
    values: dict, seed: int, speech: float, noise: float
) -> None:
    settings = {k: tuple(sorted(v)) if isinstance(v, list) else v for k, v in values.items()}
    slots = Drawn(Augment(**settings), np.random.default_rng(seed), 4000)
    source = np.resize(sound(0.5).astype(np.float32), slots.source_frames)

    def mostly_silent(rng: np.random.Generator) -> np.ndarray:
        return np.concatenate([talk(rng)[:50], np.zeros(48000, np.float32)])

    for say in (talk, mostly_silent):
        clean, noisy = slots.apply(speech * source, noise * source[::-1], say)
        assert clean.shape == noisy.shape == (4000,)
        assert np.isfinite(clean).all()
        assert np.isfinite(noisy).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gain": 1.5}, "augment.gain is 1.5, expected a probability from 0 to 1"),
        ({"speed": float("nan")}, "augment.speed is nan"),
        ({"speed_by": (1.1, 0.9)}, "augment.speed_by is .* expected a range from 0.5 to 2"),
        ({"band_hz": (100.0, 9000.0)}, "from 100 to 8000"),
        ({"gain_db": (1.0,)}, "augment.gain_db"),
    ],
)
def test_settings_out_of_bounds_are_refused(change: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Augment(**change)


# Babble and rooms

# Length, width, height; decay; distance.
ROOMS = [((3, 2.5, 2.4), 0.15, 0.1), ((8, 5, 3), 0.6, 2.0), ((20, 12, 5), 1.5, 6.0)]


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
        way = first / RATE * _SPEED_OF_SOUND + distance
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
