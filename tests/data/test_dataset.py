"""Training examples: what they are made of, and that nothing but their key decides it."""

from collections import Counter
from collections.abc import Iterable
from copy import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from recordings import same, sound

from bsbimamba.data.audio import inspect, read, write
from bsbimamba.data.corpus import Pair, Recording
from bsbimamba.data.dataset import MixDataset, PairDataset, SpeechDataset, babble
from bsbimamba.data.levels import Signal, active_level
from bsbimamba.data.samples import Samples
from bsbimamba.utils import DataError

RATE = 16000
CROP = RATE // 4
SIDES = ("clean", "noisy")


class Watched(Samples):
    """Samples that keep the paths that are read."""

    def __init__(self) -> None:
        super().__init__()
        self.paths: list[Path] = []

    def piece(self, path: Path, *cut: int) -> Signal:
        self.paths.append(path)
        return super().piece(path, *cut)


def recording(path: Path, x: np.ndarray, speaker: str = "p1", rate: int = RATE) -> Recording:
    path.parent.mkdir(exist_ok=True)
    sf.write(path, x, rate, "FLOAT")
    return Recording(path.stem, path, speaker, inspect(path))


def recordings(folder: Path, seconds: Iterable[float], rate: int = RATE) -> list[Recording]:
    return [
        recording(folder / f"{n}.wav", sound(length, rate, seed=n), f"p{n % 3}", rate)
        for n, length in enumerate(seconds)
    ]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[Pair]:
    """Seven pairs, longer and shorter than a crop. Every noisy sample is -0.5 times the clean."""
    folder = tmp_path_factory.mktemp("pairs")
    found = []
    for number, seconds in enumerate((0.5, 1.0, 0.25, 0.1, 0.7, 2.0, 0.9)):
        x = sound(seconds, seed=number)
        paths = [folder / f"{number}_{side}.wav" for side in SIDES]
        for path, signal in zip(paths, (x, -0.5 * x), strict=True):
            write(path, signal, "FLOAT")
        found.append(Pair(str(number), paths[0], paths[1], f"p{number % 2}", len(x)))
    return found


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> list[Recording]:
    return recordings(tmp_path_factory.mktemp("mix") / "clean", (0.5, 1.0, 0.1, 0.7, 0.6, 0.9))


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> list[Recording]:
    return recordings(tmp_path_factory.mktemp("mix") / "noise", (2.0, 0.07, 1.0), 22050)


@pytest.fixture(params=["pairs", "mix"])
def dataset(
    request: pytest.FixtureRequest,
    pairs: list[Pair],
    clean: list[Recording],
    noise: list[Recording],
) -> SpeechDataset:
    if request.param == "pairs":
        return PairDataset(pairs, 3, CROP)
    return MixDataset(clean, noise, 3, (-5, 20), CROP, babble=0.3, speech_shaped=0.3)


def added(dataset: SpeechDataset, epoch: int, index: int) -> np.ndarray:
    item = dataset[epoch, index]
    return (item["noisy"] - item["clean"]).numpy()


def test_example_is_decided_by_seed_epoch_and_index(dataset: SpeechDataset) -> None:
    keys = [(epoch, index) for epoch in range(3) for index in range(len(dataset))]
    first = {key: dataset[key] for key in keys}
    assert all(same(first[key], dataset[key]) for key in reversed(keys))
    assert all(len(first[key][side]) == CROP for key in keys for side in SIDES)
    assert not same(dataset[0, 1], dataset[1, 1])
    other = copy(dataset)
    other.seed = 4
    assert not same(dataset[0, 1], other[0, 1])


# Pairs


def test_pair_crops_are_cut_at_one_place_and_short_files_padded(pairs: list[Pair]) -> None:
    dataset = PairDataset(pairs, 0, CROP)
    for number, pair in enumerate(pairs):
        whole = read(pair.clean)
        places = set()
        for epoch in range(6):
            item = dataset[epoch, number]
            assert torch.equal(item["noisy"], -0.5 * item["clean"])
            crop = item["clean"].numpy()
            if len(whole) <= CROP:
                assert np.array_equal(crop, np.pad(whole, (0, CROP - len(whole))))
                continue
            windows = np.lib.stride_tricks.sliding_window_view(whole, CROP)
            (place,) = np.flatnonzero((windows == crop).all(axis=1))
            places.add(int(place))
        assert len(whole) <= CROP or len(places) > 3


def test_validation_pairs_are_whole_up_to_the_limit(pairs: list[Pair]) -> None:
    shortened = [replace(pair, frames=pair.frames - 9) for pair in pairs]  # the common part
    dataset = PairDataset(shortened, 0, None, limit=RATE)
    for number, pair in enumerate(shortened):
        item = dataset[0, number]
        expected = read(pair.clean)[: min(pair.frames, RATE)]
        assert np.array_equal(item["clean"].numpy(), expected)
        assert torch.equal(item["noisy"], -0.5 * item["clean"])
        assert same(item, dataset[7, number])


# Mixtures


def test_mix_keeps_the_requested_snr_in_short_events(tmp_path: Path) -> None:
    clean = recordings(tmp_path / "clean", (3, 3, 3, 3))
    rng, events = np.random.default_rng(0), []
    for number in range(12):
        x = np.zeros(5 * RATE)
        length = int(rng.uniform(0.3, 1) * RATE)
        x[:length] = 0.2 * rng.standard_normal(length)
        events.append(recording(tmp_path / f"event{number}.wav", x))
    training = MixDataset(clean, events, 0, (6, 6), 2 * RATE)
    validation = MixDataset(clean, events, 0, (0, 0), None, levels=(2.5, 7.5))
    for dataset, snrs, epochs in ((training, (6, 6), 20), (validation, (2.5, 7.5), 1)):
        for key in ((epoch, index) for epoch in range(epochs) for index in range(4)):
            noise = added(dataset, *key)
            heard = noise[noise != 0]
            assert len(heard) > 0.1 * RATE
            level = active_level(read(clean[key[1]].path)) - 10 * np.log10(np.mean(heard**2))
            assert level == pytest.approx(snrs[key[1] % 2], abs=0.5)


@pytest.mark.parametrize("kind", ["babble", "speech_shaped"])
def test_mix_keeps_the_requested_snr_with_other_speakers_as_noise(
    clean: list[Recording], noise: list[Recording], kind: str
) -> None:
    watched = Watched()
    dataset = MixDataset(clean, noise, 0, (3, 3), CROP, samples=watched, **{kind: 1.0})  # type: ignore[arg-type]
    of = {r.path: r.speaker for r in clean}
    for index, speech in enumerate(clean):
        watched.paths.clear()
        level = 10 * np.log10(np.mean(added(dataset, 0, index) ** 2))
        assert speech.info.active_level - level == pytest.approx(3, abs=1)
        talkers = [of[path] for path in watched.paths[1:]]
        assert 3 <= len(talkers) <= 7 if kind == "babble" else len(talkers) == 1
        assert speech.speaker not in talkers
    alone = MixDataset(clean[:1], noise, 0, (3, 3), CROP, samples=watched, **{kind: 1.0})  # type: ignore[arg-type]
    watched.paths.clear()
    assert added(alone, 0, 0).any()
    assert watched.paths[1] in {r.path for r in noise}


@pytest.mark.parametrize("quiet", ["speech", "noise"])
def test_mix_is_bounded_with_a_nearly_silent_side(tmp_path: Path, quiet: str) -> None:
    levels = {"speech": 0.1, "noise": 0.1, quiet: 2e-5}
    white = np.random.default_rng(0).standard_normal(RATE)
    speech, noise = (recording(tmp_path / f"{x}.wav", levels[x] * white) for x in levels)
    dataset = MixDataset([speech], [noise], 0, (0, 0), CROP)
    assert 0 < dataset[0, 0]["noisy"].abs().max() < 10 * levels["speech"]
    sf.write(noise.path, np.zeros(RATE), RATE)  # as 16 bits may round it
    assert np.array_equal(dataset[0, 0]["noisy"], dataset[0, 0]["clean"])


def test_mix_draws_files_by_their_seconds_of_sound_and_pieces_with_sound(tmp_path: Path) -> None:
    clean, noise = recordings(tmp_path / "clean", (3,)), []
    for number, seconds in enumerate((0.5, 1.5, 4.0), start=1):
        x = np.zeros(6 * RATE)
        t = np.arange(int(seconds * RATE)) / RATE
        x[: len(t)] = np.sin(2 * np.pi * 1000 * number * t)
        noise.append(recording(tmp_path / f"tone{number}.wav", x))
    dataset = MixDataset(clean, noise, 0, (-5, 20), 2 * RATE)
    pieces = [added(dataset, epoch, 0) for epoch in range(600)]
    heard = Counter(round(np.abs(np.fft.rfft(piece)).argmax() / 2000) for piece in pieces)
    shares = [heard[number] / 600 for number in (1, 2, 3)]
    assert shares == pytest.approx([1 / 12, 3 / 12, 8 / 12], abs=0.06)
    assert min(np.mean(piece != 0) for piece in pieces) > 0.1
    levels = [10 * np.log10(np.mean(piece[piece != 0] ** 2)) for piece in pieces]
    ratios = clean[0].info.active_level - np.array(levels)
    assert -5.5 < ratios.min() < -4 < 19 < ratios.max() < 20.5


def test_speech_shaped_noise_has_the_spectrum_of_another_speaker(tmp_path: Path) -> None:
    low = np.convolve(sound(3, seed=1), [1, 0.7], "same")
    voices = [sound(3, seed=0), low * (np.arange(len(low)) % RATE < RATE // 2)]
    clean = [recording(tmp_path / f"{n}.wav", x, f"p{n}") for n, x in enumerate(voices)]
    dataset = MixDataset(clean, clean, 0, (0, 0), 2 * RATE, speech_shaped=1.0)

    def bands(x: np.ndarray) -> np.ndarray:
        power = np.abs(np.fft.rfft(x[: 2 * RATE])) ** 2
        level = 10 * np.log10(power[:-1].reshape(16, -1).mean(axis=1))
        return level - level.mean()

    noise = added(dataset, 0, 0)
    assert np.abs(bands(noise) - bands(voices[1])).max() < 1.5
    assert np.ptp(10 * np.log10(np.mean(noise.reshape(8, -1) ** 2, axis=1))) < 1.5


def test_validation_mixtures_take_noises_in_turn_and_do_not_change(tmp_path: Path) -> None:
    speech = [recording(tmp_path / f"s{n}.wav", sound(0.5, seed=n), f"p{n}") for n in range(96)]
    noise = [recording(tmp_path / f"n{n}.wav", sound(4, seed=n)) for n in range(5)]
    noise.append(recording(tmp_path / "long.wav", sound(200, seed=9)))
    watched = Watched()
    dataset = MixDataset(
        speech, noise, 0, (0, 0), None, 6000, (2, 4), watched, babble=0.2, speech_shaped=0.1
    )
    heard = Counter[str]()
    for index in range(96):
        watched.paths.clear()
        assert dataset[0, index]["clean"].shape == (6000,)
        own = [path.stem for path in watched.paths[1:]]
        heard["babble" if len(own) > 1 else "shaped" if own[0][0] == "s" else own[0]] += 1
    # The long file counts for 30 s, the others for 4 s each, of 50 s.
    expected = {"babble": 19, "shaped": 10, "long": 40, **{f"n{n}": 5 for n in range(5)}}
    assert heard == pytest.approx(expected, abs=2)
    assert same(dataset[0, 5], dataset[9, 5])


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


# Fingerprints, and files that change while they are used


def test_fingerprint_is_of_names_and_lengths_wherever_files_lie(pairs: list[Pair]) -> None:
    moved = [replace(pair, clean=Path("/else/where.wav")) for pair in pairs]
    longer = [*pairs[:-1], replace(pairs[-1], frames=pairs[-1].frames + 1)]
    renamed = [*pairs[:-1], replace(pairs[-1], name="another")]
    prints = [PairDataset(p, 0, CROP).fingerprint() for p in (pairs, moved, longer, renamed)]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


@pytest.mark.parametrize("part", ["speech", "noise"])
@pytest.mark.parametrize("change", [b"", b"RIFF", None])
def test_file_that_changes_is_named(tmp_path: Path, part: str, change: bytes | None) -> None:
    speech, noise = recordings(tmp_path / "all", (1.0, 1.0))
    path = {"speech": speech, "noise": noise}[part].path
    if change is None:
        sf.write(path, np.zeros(9), RATE)
    else:
        path.write_bytes(change)
    with pytest.raises(DataError, match=rf"^{path}: .* [Pp]ut it back"):
        MixDataset([speech], [noise], 0, (0, 0), CROP)[0, 0]
