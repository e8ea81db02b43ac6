"""Training and validation sets: what they share (nothing), and what is said where none can be."""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from recordings import put, put_pairs

from bsbimamba.data.audio import read, write
from bsbimamba.data.augment import Augment
from bsbimamba.data.dataset import MixDataset, PairDataset
from bsbimamba.training.config import Config, Data, Run
from bsbimamba.training.sources import make_datasets
from bsbimamba.utils import DataError

RATE = 16000
VOICES = [f"p{speaker}_{number}.wav" for speaker in range(225, 232) for number in (1, 2)]

pytestmark = pytest.mark.usefixtures("own_index")


def pairs(root: Path, **options: Any) -> tuple[PairDataset, PairDataset]:
    train, valid = make_datasets(Config(data=Data(root=str(root), **options)), False)
    assert isinstance(train, PairDataset)
    assert isinstance(valid, PairDataset)
    return train, valid


def mix(root: Path, **options: Any) -> Data:
    return Data("mix", clean=str(root / "speech"), noise=str(root / "noise"), **options)


def mixtures(root: Path, **options: Any) -> tuple[MixDataset, MixDataset]:
    train, valid = make_datasets(Config(data=mix(root, **options)), False)
    assert isinstance(train, MixDataset)
    assert isinstance(valid, MixDataset)
    return train, valid


@pytest.fixture
def material(tmp_path: Path) -> Path:
    """A folder with speech and noise to mix, and the speech as pairs."""
    for seed, name in enumerate(VOICES):
        put(tmp_path / "speech" / name, 0.4, seed)
    for number in range(10):
        put(tmp_path / "noise" / f"{number}.wav", 1, 100 + number)
    for side in ("clean", "noisy"):
        shutil.copytree(tmp_path / "speech", tmp_path / "train" / side)
    return tmp_path


_watching: list[list[str]] = []


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching and event in ("open", "os.scandir", "os.listdir"):
        _watching[-1].append(str(arguments[0]))


sys.addaudithook(_watch)  # there is no way to remove one: it is idle unless a test watches


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """Every file and folder that Python opens while the test runs."""
    _watching.append([])
    yield _watching[-1]
    _watching.clear()


# Pairs


def test_pairs_hold_out_speakers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put_pairs(tmp_path / "train", VOICES)
    with caplog.at_level(logging.INFO):
        train, valid = pairs(tmp_path, crop_seconds=0.25)
    speakers = [{pair.speaker for pair in side.items} for side in (train, valid)]
    assert speakers[0] | speakers[1] == {name[:4] for name in VOICES}
    assert not speakers[0] & speakers[1]
    assert len(train) + len(valid) == len(VOICES)
    assert f"speakers held out for validation: {min(speakers[1])}" in caplog.messages
    assert any("(p226, p287) are not all there: drawn instead" in m for m in caplog.messages)
    assert train[0, 0]["clean"].shape == (RATE // 4,)
    assert valid[0, 0]["clean"].shape == (RATE // 2,)
    put_pairs(tmp_path / "train", ["p287_1.wav"])
    train, valid = pairs(tmp_path)
    assert {pair.speaker for pair in valid.items} == {"p226", "p287"}
    assert not {pair.speaker for pair in train.items} & {"p226", "p287"}
    named = pairs(tmp_path, validation_speakers=("p230",))[1]
    assert {pair.speaker for pair in named.items} == {"p230"}


def test_pairs_validate_on_the_valid_folder(tmp_path: Path) -> None:
    put_pairs(tmp_path / "train", VOICES)
    put_pairs(tmp_path / "valid", ["q1_1.wav", "q2_1.wav"])
    train, valid = pairs(tmp_path)
    assert len(train) == len(VOICES)
    assert [pair.name for pair in valid.items] == ["q1_1", "q2_1"]
    put_pairs(tmp_path / "valid", ["p225_9.wav"])
    message = "speakers of its valid split are in its train split too: p225. Move their files"
    with pytest.raises(DataError, match=message):
        pairs(tmp_path)


def test_pairs_never_open_a_test_split(tmp_path: Path, opened: list[str]) -> None:
    put_pairs(tmp_path / "train", VOICES)
    put_pairs(tmp_path / "test", ["p232_1.wav"])
    for side in ("clean", "noisy"):
        put(tmp_path / f"{side}_testset_wav" / "p257_1.wav")
    opened.clear()
    train, valid = pairs(tmp_path)
    for number in range(len(train)):
        train[0, number]
    valid[0, 0]
    inside = {path.removeprefix(f"{tmp_path}/") for path in opened if str(tmp_path) in path}
    assert "train/noisy/p226_1.wav" in inside
    assert not [path for path in inside if "test" in path or "p232" in path or "p257" in path]


def test_pairs_refuse_a_file_on_both_sides(tmp_path: Path) -> None:
    put_pairs(tmp_path, ["a_1.wav", "b_1.wav", "c_1.wav"])
    table = tmp_path / "pairs.csv"
    table.write_text(
        "clean,noisy,split,speaker,name\nclean/a_1.wav,noisy/a_1.wav,train,a,1\n"
        "clean/b_1.wav,noisy/b_1.wav,train,b,2\nclean/c_1.wav,noisy/../noisy/b_1.wav,valid,c,3\n"
    )
    with pytest.raises(DataError, match=r"also to validate with: .*noisy/b_1.wav"):
        pairs(table)


def test_validation_takes_turns_over_speakers_and_files(tmp_path: Path) -> None:
    names = [f"p225_{n}.wav" for n in range(4)]
    names += [f"p226_{n:02d}.wav" for n in range(12)] + [f"p287_{n}.wav" for n in range(3)]
    put_pairs(tmp_path / "train", names, 0.3)
    valid = pairs(tmp_path, validation_files=7, validation_seconds=0.25)[1]
    expected = ["p226_00", "p226_03", "p226_06", "p226_09", "p287_0", "p287_1", "p287_2"]
    assert [pair.name for pair in valid.items] == expected
    assert valid[0, 0]["clean"].shape == (RATE // 4,)


# Both kinds


@pytest.mark.parametrize("source", ["pairs", "mix"])
def test_training_reads_decoded_copies_if_wanted(
    material: Path, source: str, opened: list[str]
) -> None:
    for path in sorted(material.rglob("p2*.wav")):
        write(path.with_suffix(".opus"), read(path))
        path.unlink()
    data = mix(material) if source == "mix" else Data(root=str(material))
    for packed in (True, False):
        both = make_datasets(Config(data=data, run=Run(packed=packed)), False)
        opened.clear()
        for dataset in both:
            dataset[0, 0]
        assert any(path.endswith(".opus") for path in opened) != packed


@pytest.mark.parametrize("source", ["pairs", "mix"])
def test_training_alone_is_augmented(material: Path, source: str) -> None:
    data = mix(material) if source == "mix" else Data(root=str(material))
    plain = make_datasets(Config(data=data), False)
    train, valid = make_datasets(Config(data=data, augment=Augment(gain=1.0)), False)
    assert not torch.equal(train[0, 0]["noisy"], plain[0][0, 0]["noisy"])
    assert torch.equal(valid[0, 0]["noisy"], plain[1][0, 0]["noisy"])


@pytest.mark.parametrize("source", ["pairs", "mix"])
def test_seeds_share_the_split_and_the_validation_set(material: Path, source: str) -> None:
    """Or their runs would neither be one model nor compare by their validation."""
    data = mix(material) if source == "mix" else Data(root=str(material))
    first, *others = [make_datasets(Config(seed=seed, data=data), False) for seed in range(4)]
    for train, valid in others:
        assert train.fingerprint() == first[0].fingerprint()
        assert valid.fingerprint() == first[1].fingerprint()
        for number in range(len(valid)):
            assert torch.equal(valid[5, number]["noisy"], first[1][0, number]["noisy"])
        if source == "mix":
            assert not torch.equal(train[0, 0]["noisy"], first[0][0, 0]["noisy"])


# Mixtures


def test_mixtures_share_neither_speakers_nor_noise(
    material: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        train, valid = mixtures(material, validation_share=0.15)
    for part, everything in (("items", len(VOICES)), ("noise", 10)):
        paths = [{recording.path for recording in getattr(side, part)} for side in (train, valid)]
        assert not paths[0] & paths[1]
        assert all(paths)
        assert len(paths[0] | paths[1]) == everything
    assert not set(train.speakers()) & set(valid.speakers())
    assert any(m.startswith("noise: 7 files for training; held out: ") for m in caplog.messages)


@pytest.mark.parametrize(("speakers", "held_out"), [(8, 1), (16, 8), (50, 10)])
def test_mix_holds_out_eight_speakers_of_sixteen(
    tmp_path: Path, speakers: int, held_out: int
) -> None:
    """Or a fifth, where the eight have too few files."""
    for number in range(speakers):
        put(tmp_path / "speech" / f"s{number}_1.wav", seed=number)
    for number in range(2):
        put(tmp_path / "noise" / f"{number}.wav", seed=number)
    assert len(mixtures(tmp_path)[1]) == held_out
    assert len(mixtures(tmp_path, validation_speakers=("s3",))[1]) == 1


def test_mix_holds_out_noise_of_each_folder(material: Path) -> None:
    names = [*(f"many/{n}" for n in range(20)), "few/1", "few/2", "few/3", "alone/1"]
    for seed, name in enumerate(names):
        put(material / "noise" / f"{name}.wav", 0.3, seed)
    folders = [[r.path.parent.name for r in side.noise] for side in mixtures(material)]
    counts = [{name: side.count(name) for name in ("many", "few", "alone")} for side in folders]
    assert counts == [{"many": 18, "few": 2, "alone": 1}, {"many": 2, "few": 1, "alone": 0}]


def test_speaker_in_every_file_is_warned_of_unless_a_table_says_so(
    material: Path, caplog: pytest.LogCaptureFixture
) -> None:
    speech = material / "speech"
    for path in speech.iterdir():
        path.unlink()
    for number in range(6):
        put(speech / f"000{number}.wav", seed=number)
    mixtures(material)
    assert "that person may be both trained and validated on" in caplog.text
    caplog.clear()
    rows = [f"000{number}.wav,{number % 2}" for number in range(6)]
    (speech / "speakers.csv").write_text("\n".join(["file,speaker", *rows]))
    train, valid = mixtures(material)
    assert {*train.speakers(), *valid.speakers()} == {"0", "1"}
    assert not [r for r in caplog.records if r.levelno > logging.INFO]


# What cannot be used


@pytest.mark.parametrize("made", ["", "test", "valid"])
def test_missing_data_set_names_three_ways(tmp_path: Path, made: str) -> None:
    if made:
        put_pairs(tmp_path / made, ["q_1.wav"])
    with pytest.raises(DataError, match=f"^no data set at {tmp_path}. There are three") as raised:
        pairs(tmp_path)
    for way in ("--sample", "--data ROOT", "--mix CLEAN NOISE", "bsbimamba.data.voicebank"):
        assert way in str(raised.value)


def test_one_speaker_or_one_noise_is_too_few(material: Path) -> None:
    for path in [*material.rglob("p22[6-9]*.wav"), *material.rglob("p23*.wav")]:
        path.unlink()
    message = rf"{material}: all files are of one speaker \(p225\).* speakers\.csv"
    with pytest.raises(DataError, match=message):
        pairs(material)
    for path in list((material / "noise").iterdir())[1:]:
        path.unlink()
    with pytest.raises(DataError, match=r"noise: one usable noise file only; .* cut this one"):
        mixtures(material)


@pytest.mark.parametrize(("clean", "noise"), [("", "noise"), ("speech", ""), ("noise", "noise")])
def test_speech_and_noise_lie_apart(material: Path, clean: str, noise: str) -> None:
    data = Data("mix", clean=str(material / clean), noise=str(material / noise))
    with pytest.raises(DataError, match="one is in the other; move it out"):
        make_datasets(Config(data=data), False)
    missing = Data("mix", clean=str(material / "speech"), noise=str(material / "missing"))
    with pytest.raises(DataError, match=f"^{material / 'missing'}: no such folder"):
        make_datasets(Config(data=missing), False)


def test_bad_files_are_left_out_on_demand(material: Path) -> None:
    (material / "speech" / "p225_9.wav").touch()
    (material / "noise" / "x.wav").write_text("no noise")
    with pytest.raises(DataError, match="noise: 1 files cannot be used"):
        mixtures(material)
    train, valid = make_datasets(Config(data=mix(material)), True)
    assert len(train) + len(valid) == len(VOICES)
