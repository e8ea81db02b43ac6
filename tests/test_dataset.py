"""Training examples: what they are made of, and that nothing but their key decides it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch
from recordings import sound
from scipy.signal import correlate

from data.audio import inspect, read, write
from data.corpus import Pair, Recording
from data.dataset import MixDataset, PairDataset, SpeechDataset
from data.levels import active_level
from data.utils import DataError

RATE = 16000
CROP = RATE // 4


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[Pair]:
    """Seven pairs, longer and shorter than a crop. Every noisy sample is -0.5 times the clean."""
    folder = tmp_path_factory.mktemp("pairs")
    found = []
    for number, seconds in enumerate((0.5, 1.0, 0.25, 0.1, 0.7, 2.0, 0.9)):
        x = sound(seconds, seed=number)
        paths = [folder / f"{number}_{side}.wav" for side in ("clean", "noisy")]
        for path, signal in zip(paths, (x, -0.5 * x), strict=True):
            write(path, signal, "FLOAT")
        found.append(Pair(str(number), paths[0], paths[1], "p1", len(x)))
    return found


def _recordings(folder: Path, seconds: Iterable[float], rate: int = RATE) -> list[Recording]:
    found = []
    folder.mkdir()
    for number, length in enumerate(seconds):
        path = folder / f"{number}.wav"
        sf.write(path, sound(length, rate, seed=number), rate, "FLOAT")
        found.append(Recording(f"{number}", path, f"p{number % 3}", inspect(path)))
    return found


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> list[Recording]:
    return _recordings(tmp_path_factory.mktemp("mix") / "clean", (0.5, 1.0, 0.1, 0.7, 0.6, 0.9))


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> list[Recording]:
    return _recordings(tmp_path_factory.mktemp("mix") / "noise", (2.0, 0.07, 1.0), 22050)


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


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one["name"] == other["name"] and all(
        torch.equal(one[side], other[side]) for side in ("clean", "noisy")
    )


# Nothing but (seed, epoch, index) decides an example


def test_an_example_does_not_depend_on_what_came_before(dataset: SpeechDataset):
    keys = [(epoch, index) for epoch in range(3) for index in range(len(dataset))]
    first = {key: dataset[key] for key in keys}
    assert all(same(first[key], dataset[key]) for key in reversed(keys))


def test_epochs_and_seeds_differ(dataset: SpeechDataset):
    index = 1  # of a recording longer than the crop
    assert not same(dataset[0, index], dataset[1, index])
    other = copy(dataset)
    other.seed = 4
    assert not same(dataset[0, index], other[0, index])


# Pairs


def test_crops_are_cut_at_one_place_and_short_files_filled_with_zeros(pairs: list[Pair]):
    dataset = PairDataset(pairs, 0, CROP)
    for number, pair in enumerate(pairs):
        whole = read(pair.clean)
        places = set()
        for epoch in range(6):
            item = dataset[epoch, number]
            assert item["name"] == pair.name
            assert item["clean"].shape == (CROP,)
            assert torch.equal(item["noisy"], -0.5 * item["clean"])
            crop = item["clean"].numpy()
            if len(whole) <= CROP:
                assert np.array_equal(crop, np.pad(whole, (0, CROP - len(whole))))
                continue
            windows = np.lib.stride_tricks.sliding_window_view(whole, CROP)
            (place,) = np.flatnonzero((windows == crop).all(axis=1))
            places.add(int(place))
        assert len(whole) <= CROP or len(places) > 3


def test_crops_come_from_the_whole_file(tmp_path: Path):
    write(tmp_path / "a.wav", np.linspace(0.1, 0.9, CROP + 4), "FLOAT")
    pair = Pair("a", tmp_path / "a.wav", tmp_path / "a.wav", "p1", CROP + 4)
    dataset = PairDataset([pair], 0, CROP)
    starts = Counter(float(dataset[epoch, 0]["clean"][0]) for epoch in range(200))
    assert len(starts) == 5
    assert min(starts.values()) > 15


def test_validation_pairs_are_whole_up_to_the_limit_and_the_same_every_epoch(pairs: list[Pair]):
    shortened = [replace(pair, frames=pair.frames - 9) for pair in pairs]  # the common part
    dataset = PairDataset(shortened, 0, None, limit=RATE)
    for number, pair in enumerate(shortened):
        item = dataset[0, number]
        expected = read(pair.clean)[: min(pair.frames, RATE)]
        assert np.array_equal(item["clean"].numpy(), expected)
        assert torch.equal(item["noisy"], -0.5 * item["clean"])
        assert same(item, dataset[7, number])
    assert len(PairDataset(pairs, 0, None)[0, 5]["clean"]) == 2 * RATE


# Mixtures


def test_the_documented_snr_holds_for_whole_files(tmp_path: Path):
    clean = _recordings(tmp_path / "clean", (1.0, 1.0, 1.0, 1.0))
    noise = _recordings(tmp_path / "noise", (1.0, 0.5))  # the second is heard twice over
    levels = (2.5, 7.5, 12.5)
    for dataset, expected in (
        (MixDataset(clean, noise, 0, (4, 4), None), [4, 4, 4, 4]),
        (MixDataset(clean, noise, 0, (0.0, -0.0), None), [0, 0, 0, 0]),
        (MixDataset(clean, noise, 0, (0, 0), None, levels=levels), [2.5, 7.5, 12.5, 2.5]),
    ):
        for number, snr in enumerate(expected):
            item = dataset[0, number]
            speech, added = item["clean"].numpy(), (item["noisy"] - item["clean"]).numpy()
            assert np.array_equal(speech, read(clean[number].path))
            measured = active_level(speech) - 10 * np.log10(np.mean(added**2))
            assert measured == pytest.approx(snr, abs=0.1)


def test_noise_is_a_scaled_piece_of_a_file_repeated_where_it_is_short(
    clean: list[Recording], noise: list[Recording]
):
    low, high = -5.0, 20.0
    dataset = MixDataset(clean, noise, 1, (low, high), CROP)
    heard, ratios, places = Counter[str](), [], set()
    # Each noise file over and over, so that every piece of it is a window.
    endless = {n.name: np.resize(read(n.path), n.info.frames + CROP) for n in noise}
    for epoch in range(12):
        for number, speech in enumerate(clean):
            item = dataset[epoch, number]
            added = (item["noisy"] - item["clean"]).numpy()
            for one in noise:
                match = correlate(endless[one.name], added, "valid", method="fft")
                place = int(np.argmax(match))
                piece = endless[one.name][place : place + CROP]
                gain = (piece @ added) / (piece @ piece)
                if np.abs(added - gain * piece).max() < 1e-4 * np.abs(added).max():
                    break
            else:
                pytest.fail("the noise is a piece of no file")
            heard[one.name] += 1
            places.add((one.name, place))
            ratios.append(speech.info.active_level - 10 * np.log10(np.mean(added**2)))
    assert len(heard) == 3
    assert len(places) > 40
    assert low <= min(ratios) < low + 3
    assert high - 3 < max(ratios) <= high


def test_validation_mixtures_are_the_same_every_epoch(
    clean: list[Recording], noise: list[Recording]
):
    dataset = MixDataset(clean, noise, 0, (0, 20), None, RATE // 2, levels=(5, 10))
    for number, speech in enumerate(clean):
        item = dataset[0, number]
        assert len(item["clean"]) == min(speech.info.frames, RATE // 2)
        assert same(item, dataset[9, number])


# Fingerprints, and files that change while they are used


def test_the_fingerprint_is_of_names_and_lengths_wherever_files_lie(
    pairs: list[Pair], clean: list[Recording], noise: list[Recording]
):
    moved = [replace(pair, clean=Path("/else/where.wav")) for pair in pairs]
    longer = [*pairs[:-1], replace(pairs[-1], frames=pairs[-1].frames + 1)]
    renamed = [*pairs[:-1], replace(pairs[-1], name="another")]
    prints = [PairDataset(p, 0, CROP).fingerprint() for p in (pairs, moved, longer, renamed)]
    assert prints[0] == prints[1]
    fewer = MixDataset(clean, noise[:-1], 0, (0, 9), CROP).fingerprint()
    mixed = MixDataset(clean, noise, 0, (0, 9), CROP).fingerprint()
    assert mixed == MixDataset(clean, noise, 5, (3, 3), None).fingerprint()
    assert len({*prints, mixed, fewer, PairDataset(pairs[::-1], 0, CROP).fingerprint()}) == 6


@pytest.mark.parametrize("part", ["speech", "noise", "short noise"])
@pytest.mark.parametrize("change", ["gone", "shorter", "damaged"])
def test_a_file_that_changes_is_named(tmp_path: Path, part: str, change: str):
    clean = _recordings(tmp_path / "clean", (1.0,))
    noise = _recordings(tmp_path / "noise", (0.1 if part == "short noise" else 1.0,))
    dataset = MixDataset(clean, noise, 0, (0, 0), CROP)
    path = (clean if part == "speech" else noise)[0].path
    if change == "gone":
        path.unlink()
    elif change == "shorter":
        sf.write(path, np.zeros(0), RATE)
    else:
        path.write_bytes(b"RIFF")
    with pytest.raises(DataError, match=rf"^{path}: .* [Pp]ut it back"):
        dataset[0, 0]


def test_real_recordings(shared_data: Path):
    found = []
    for folder in ("clean/vctk", "noise/esc10"):
        paths = sorted((shared_data / "open_mix" / folder).glob("*"))[:3]
        found.append([Recording(path.stem, path, "p1", inspect(path)) for path in paths])
    dataset = MixDataset(found[0], found[1], 0, (0, 15), 2 * RATE)
    for number in range(3):
        item = dataset[0, number]
        assert item["noisy"].shape == (2 * RATE,)
        assert torch.isfinite(item["noisy"]).all()
        assert not torch.equal(item["noisy"], item["clean"])
