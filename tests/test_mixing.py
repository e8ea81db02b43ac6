"""Mixtures: their SNR, the noises that are drawn for them, and whose speech is among those."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from recordings import put, sound
from sources import mixtures, put_material

from data.audio import Signal, inspect, read
from data.corpus import Recording, load_recordings
from data.dataset import MixDataset
from data.levels import active_level
from data.samples import Samples
from data.utils import DataError

RATE = 16000
CROP = 2 * RATE


class Watched(Samples):
    """Samples that keep the paths that are read."""

    def __init__(self) -> None:
        super().__init__()
        self.paths: list[Path] = []

    def read(self, path: Path, start: int = 0, frames: int | None = None) -> Signal:
        self.paths.append(path)
        return super().read(path, start, frames)


def _recording(path: Path, x: np.ndarray, speaker: str = "p1") -> Recording:
    path.parent.mkdir(exist_ok=True)
    sf.write(path, x, RATE, "FLOAT")
    return Recording(path.stem, path, speaker, inspect(path))


@pytest.fixture
def clean(tmp_path: Path) -> list[Recording]:
    return [_recording(tmp_path / f"{n}.wav", sound(3, seed=n), f"p{n}") for n in range(4)]


@pytest.fixture
def events(tmp_path: Path) -> list[Recording]:
    """Twelve files of 5 s, silent but for the first 0.3 to 1 s."""
    rng, found = np.random.default_rng(0), []
    for number in range(12):
        x = np.zeros(5 * RATE)
        length = int(rng.uniform(0.3, 1) * RATE)
        x[:length] = 0.2 * rng.standard_normal(length)
        found.append(_recording(tmp_path / f"event{number}.wav", x))
    return found


def _added(dataset: MixDataset, epoch: int, index: int) -> np.ndarray:
    item = dataset[epoch, index]
    return (item["noisy"] - item["clean"]).numpy()


def test_mix_keeps_the_requested_snr_with_noise_of_short_events(
    clean: list[Recording], events: list[Recording]
):
    training = MixDataset(clean, events, 0, (6, 6), CROP)
    validation = MixDataset(clean, events, 0, (0, 0), None, levels=(2.5, 7.5))
    for dataset, snrs in ((training, (6, 6)), (validation, (2.5, 7.5))):
        for epoch in range(30 if dataset is training else 1):
            for index, speech in enumerate(clean):
                added = _added(dataset, epoch, index)
                heard = added[added != 0]
                assert len(heard) > 0.1 * RATE
                level = active_level(read(speech.path)) - 10 * np.log10(np.mean(heard**2))
                assert level == pytest.approx(snrs[index % 2], abs=0.5)


@pytest.mark.parametrize("kind", ["babble", "speech_shaped"])
def test_mix_keeps_the_requested_snr_with_speech_as_noise(
    clean: list[Recording], events: list[Recording], kind: str
):
    dataset = MixDataset(clean, events, 0, (3, 3), CROP, **{kind: 1.0})  # type: ignore[arg-type]
    for index, speech in enumerate(clean):
        added = _added(dataset, 0, index)
        level = 10 * np.log10(np.mean(added**2))
        assert speech.info.active_level - level == pytest.approx(3, abs=0.5)


@pytest.mark.parametrize("quiet", ["speech", "noise"])
def test_mix_stays_finite_and_bounded_with_a_nearly_silent_side(tmp_path: Path, quiet: str):
    levels = {"speech": 0.1, "noise": 0.1, quiet: 2e-5}
    speech, noise = (
        _recording(tmp_path / f"{side}.wav", level * np.random.default_rng(0).standard_normal(CROP))
        for side, level in levels.items()
    )
    dataset = MixDataset([speech], [noise], 0, (0, 0), CROP // 2)
    noisy = dataset[0, 0]["noisy"].abs().max()
    assert 0 < noisy < 10 * levels["speech"]
    sf.write(noise.path, np.zeros(CROP), RATE)  # as 16 bits may round it
    assert np.array_equal(dataset[0, 0]["noisy"], dataset[0, 0]["clean"])


def test_noise_files_are_drawn_by_their_seconds_of_sound(tmp_path: Path, clean: list[Recording]):
    noise = []
    for number, seconds in enumerate((0.5, 1.5, 4.0)):
        x = np.zeros(6 * RATE)
        t = np.arange(int(seconds * RATE)) / RATE
        x[: len(t)] = np.sin(2 * np.pi * 1000 * (number + 1) * t)
        noise.append(_recording(tmp_path / f"tone{number}.wav", x))
    dataset = MixDataset(clean, noise, 0, (0, 0), CROP)
    heard = Counter[int]()
    for epoch in range(150):
        for index in range(len(clean)):
            peak = np.abs(np.fft.rfft(_added(dataset, epoch, index))).argmax()
            heard[round(peak * RATE / CROP / 1000) - 1] += 1
    shares = [heard[number] / 600 for number in range(3)]
    assert shares == pytest.approx([1 / 12, 3 / 12, 8 / 12], abs=0.06)


def test_speech_shaped_noise_is_steady_and_has_the_spectrum_of_another_speaker(tmp_path: Path):
    low = np.convolve(sound(3, seed=1), [1, 0.7], "same")
    voices = [sound(3, seed=0), low * (np.arange(len(low)) % RATE < RATE // 2)]
    clean = [_recording(tmp_path / f"{n}.wav", x, f"p{n}") for n, x in enumerate(voices)]
    dataset = MixDataset(clean, clean, 0, (0, 0), CROP, speech_shaped=1.0)

    def bands(x: np.ndarray) -> np.ndarray:
        power = np.abs(np.fft.rfft(x[:CROP])) ** 2
        level = 10 * np.log10(power[:-1].reshape(16, -1).mean(axis=1))
        return level - level.mean()

    added = _added(dataset, 0, 0)
    assert np.abs(bands(added) - bands(voices[1])).max() < 1.5
    quarters = 10 * np.log10(np.mean(added.reshape(8, -1) ** 2, axis=1))
    assert np.ptp(quarters) < 1.5


def test_babble_is_of_other_speakers_on_the_same_side(tmp_path: Path, own_index: None):
    root = put_material(tmp_path)
    for dataset in mixtures(root, babble=1.0, speech_shaped=0.0, validation_share=0.4):
        dataset.samples = watched = Watched()
        of = {r.path: r.speaker for r in dataset.clean}
        assert len(set(of.values())) > 1
        for epoch in range(3):
            for index, speech in enumerate(dataset.clean):
                watched.paths.clear()
                _added(dataset, epoch, index)
                assert watched.paths[0] == speech.path
                talkers = [of[path] for path in watched.paths[1:]]
                assert 3 <= len(talkers) <= 7
                assert speech.speaker not in talkers


def test_files_are_mixed_in_where_nobody_else_speaks(
    clean: list[Recording], events: list[Recording]
):
    watched = Watched()
    dataset = MixDataset(
        clean[:1], events, 0, (0, 0), CROP, samples=watched, babble=0.6, speech_shaped=0.4
    )
    for epoch in range(20):
        assert _added(dataset, epoch, 0).any()
    assert {path.stem[:5] for path in watched.paths} == {"0", "event"}
    assert len(set(watched.paths)) > 8


def test_validation_takes_the_noises_in_turn(tmp_path: Path):
    speech = [_recording(tmp_path / f"s{n}.wav", sound(0.5, seed=n), f"p{n}") for n in range(96)]
    noise = [_recording(tmp_path / f"n{n}.wav", sound(4, seed=n)) for n in range(5)]
    noise.append(_recording(tmp_path / "long.wav", sound(200, seed=9)))
    watched = Watched()
    dataset = MixDataset(
        speech, noise, 0, (0, 0), None, None, (2, 4), watched, babble=0.2, speech_shaped=0.1
    )
    heard = Counter[str]()
    for index in range(96):
        watched.paths.clear()
        dataset[0, index]
        own = [path.stem for path in watched.paths[1:]]
        heard["babble" if len(own) > 1 else "shaped" if own[0][0] == "s" else own[0]] += 1
    # The long file counts for 30 s, the others for 4 s each, of 50 s.
    expected = {"babble": 19, "shaped": 10, "long": 40, **{f"n{n}": 5 for n in range(5)}}
    assert heard == pytest.approx(expected, abs=2)


def test_noise_without_any_sound_is_refused(tmp_path: Path, own_index: None):
    put(tmp_path / "a.wav")
    sf.write(tmp_path / "b.wav", np.zeros(RATE), RATE)
    with pytest.raises(DataError, match=r"b\.wav: silent"):
        load_recordings(tmp_path, speech=False)
