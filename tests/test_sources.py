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
from sources import VOICES, mixtures, pairs, put_material

from data.audio import read, write
from data.augment import Augment
from data.utils import DataError
from training.config import Config, Data, Run
from training.sources import make_datasets

RATE = 16000


pytestmark = pytest.mark.usefixtures("own_index")


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


@pytest.fixture
def material(tmp_path: Path) -> Path:
    return put_material(tmp_path)


# Pairs


def test_speakers_are_held_out(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    put_pairs(tmp_path / "train", VOICES)
    with caplog.at_level(logging.INFO):
        train, valid = pairs(tmp_path, crop_seconds=0.25)
    speakers = [{pair.speaker for pair in side.pairs} for side in (train, valid)]
    assert speakers[0] | speakers[1] == {name[:4] for name in VOICES}
    assert not speakers[0] & speakers[1]
    assert len(train) + len(valid) == len(VOICES)
    assert f"speakers held out for validation: {min(speakers[1])}" in caplog.messages
    assert any("(p226, p287) are not all there: drawn instead" in m for m in caplog.messages)
    assert train[0, 0]["clean"].shape == (RATE // 4,)
    assert valid[0, 0]["clean"].shape == (RATE // 2,)


def test_the_wanted_speakers_are_held_out(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    put_pairs(tmp_path / "train", [*VOICES, "p287_1.wav"])
    with caplog.at_level(logging.INFO):
        train, valid = pairs(tmp_path)
        named = pairs(tmp_path, validation_speakers=("p230",))[1]
    assert {pair.speaker for pair in valid.pairs} == {"p226", "p287"}
    assert not {pair.speaker for pair in train.pairs} & {"p226", "p287"}
    assert {pair.speaker for pair in named.pairs} == {"p230"}
    assert "speakers held out for validation: p226, p287" in caplog.messages
    assert not any("drawn instead" in message for message in caplog.messages)


def test_a_valid_folder_is_used(tmp_path: Path):
    put_pairs(tmp_path / "train", VOICES)
    put_pairs(tmp_path / "valid", ["q1_1.wav", "q2_1.wav"])
    train, valid = pairs(tmp_path)
    assert len(train) == len(VOICES)
    assert [pair.name for pair in valid.pairs] == ["q1_1", "q2_1"]
    put_pairs(tmp_path / "valid", ["p225_9.wav"])
    message = "speakers of its valid split are in its train split too: p225. Move their files"
    with pytest.raises(DataError, match=message):
        pairs(tmp_path)


def test_no_test_split_is_ever_opened(tmp_path: Path, opened: list[str]):
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


def test_one_file_is_never_on_both_sides(tmp_path: Path):
    put_pairs(tmp_path, ["a_1.wav", "b_1.wav", "c_1.wav"])
    table = tmp_path / "pairs.csv"
    table.write_text(
        "clean,noisy,split,speaker,name\nclean/a_1.wav,noisy/a_1.wav,train,a,1\n"
        "clean/b_1.wav,noisy/b_1.wav,train,b,2\nclean/c_1.wav,noisy/../noisy/b_1.wav,valid,c,3\n"
    )
    with pytest.raises(DataError, match=r"also to validate with: .*noisy/b_1.wav"):
        pairs(table)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("source", ["pairs", "mix"])
def test_training_reads_decoded_copies_if_wanted(
    material: Path, packed: bool, source: str, opened: list[str]
):
    for path in sorted((material / "speech").iterdir()):
        write(path.with_suffix(".opus"), read(path))
        path.unlink()
    for side in ("clean", "noisy"):
        shutil.copytree(material / "speech", material / "train" / side)
    folders = {"clean": str(material / "speech"), "noise": str(material / "noise")}
    data = Data(source, root=str(material), **(folders if source == "mix" else {}))
    both = make_datasets(Config(data=data, run=Run(packed=packed)), False)
    opened.clear()
    for dataset in both:
        dataset[0, 0]
    assert any(path.endswith(".opus") for path in opened) != packed


def test_augmentation_is_for_training(tmp_path: Path):
    put_pairs(tmp_path / "train", VOICES)
    config = Config(data=Data(root=str(tmp_path)), augment=Augment(gain=1.0))
    train, valid = make_datasets(config, False)
    plain = pairs(tmp_path)
    assert not torch.equal(train[0, 0]["noisy"], plain[0][0, 0]["noisy"])
    assert torch.equal(valid[0, 0]["noisy"], plain[1][0, 0]["noisy"])


def test_mixtures_are_augmented_too(material: Path):
    plain = mixtures(material)
    config = Config(
        data=Data("mix", clean=str(material / "speech"), noise=str(material / "noise")),
        augment=Augment(gain=1.0),
    )
    train, valid = make_datasets(config, False)
    assert not torch.equal(train[0, 0]["noisy"], plain[0][0, 0]["noisy"])
    assert torch.equal(valid[0, 0]["noisy"], plain[1][0, 0]["noisy"])


def test_the_test_split_is_never_opened(tiny_corpus: Path, opened: list[str]):
    train, valid = pairs(tiny_corpus)
    assert (len(train), len(valid)) == (6, 2)
    assert not [path for path in opened if path.startswith(str(tiny_corpus / "test"))]


def test_validation_takes_turns_over_speakers(tmp_path: Path):
    names = [f"p225_{n}.wav" for n in range(4)]
    names += [f"p226_{n:02d}.wav" for n in range(12)] + [f"p287_{n}.wav" for n in range(3)]
    put_pairs(tmp_path / "train", names, 0.3)
    valid = pairs(tmp_path, validation_files=7)[1]
    expected = ["p226_00", "p226_03", "p226_06", "p226_09", "p287_0", "p287_1", "p287_2"]
    assert [pair.name for pair in valid.pairs] == expected


def test_validation_is_limited_and_spread(tmp_path: Path):
    put_pairs(tmp_path / "train", [f"p225_{n}.wav" for n in range(3)], 0.3)
    names = [f"p226_{n}.wav" for n in range(10)] + [f"p287_{n}.wav" for n in range(10)]
    put_pairs(tmp_path / "train", names, 0.3)
    valid = pairs(tmp_path, validation_files=4, validation_seconds=0.25)[1]
    assert [pair.name for pair in valid.pairs] == ["p226_0", "p226_5", "p287_0", "p287_5"]
    assert valid[0, 0]["clean"].shape == (RATE // 4,)


# Mixtures


def test_mixtures_share_neither_speakers_nor_noise(
    material: Path, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.INFO):
        train, valid = mixtures(material, validation_share=0.15)
    for part, everything in (("clean", len(VOICES)), ("noise", 10)):
        paths = [{recording.path for recording in getattr(side, part)} for side in (train, valid)]
        assert not paths[0] & paths[1]
        assert all(paths)
        assert len(paths[0] | paths[1]) == everything
    speakers = [{recording.speaker for recording in side.clean} for side in (train, valid)]
    assert not speakers[0] & speakers[1]
    assert any(m.startswith("noise: 7 files for training; held out: ") for m in caplog.messages)


def test_validation_mixtures_do_not_change(material: Path):
    first, again = mixtures(material)[1], mixtures(material)[1]
    for number in range(len(first)):
        examples = [first[0, number], first[5, number], again[0, number]]
        for other in examples[1:]:
            assert torch.equal(examples[0]["noisy"], other["noisy"])
    assert first.fingerprint() == again.fingerprint()


@pytest.mark.parametrize("source", ["pairs", "mix"])
def test_seeds_have_the_same_data(material: Path, source: str):
    """Or their runs would neither be one model nor compare by their validation."""
    put_pairs(material / "train", VOICES)
    folders = {"clean": str(material / "speech"), "noise": str(material / "noise")}
    data = Data(source, root=str(material), **(folders if source == "mix" else {}))
    first, *others = [make_datasets(Config(seed=seed, data=data), False) for seed in range(6)]
    for train, valid in others:
        assert train.fingerprint() == first[0].fingerprint()
        assert valid.fingerprint() == first[1].fingerprint()
        assert all(
            torch.equal(valid[0, n]["noisy"], first[1][0, n]["noisy"]) for n in range(len(valid))
        )
        if source == "mix":
            assert not torch.equal(train[0, 0]["noisy"], first[0][0, 0]["noisy"])


def test_a_table_of_speakers_decides(material: Path):
    (material / "speech" / "speakers.csv").write_text(
        "\n".join(["file,speaker", *(f"{name},{name[-5]}" for name in VOICES)])
    )
    train, valid = mixtures(material)
    assert {recording.speaker for recording in train.clean} in ({"1"}, {"2"})
    assert len(valid) == len(VOICES) // 2


@pytest.mark.parametrize(("speakers", "held_out"), [(8, 1), (16, 8), (50, 10)])
def test_mix_holds_out_eight_speakers_of_sixteen(tmp_path: Path, speakers: int, held_out: int):
    """Or a fifth, where the eight have too few files."""
    for number in range(speakers):
        put(tmp_path / "speech" / f"s{number}_1.wav", seed=number)
    for number in range(2):
        put(tmp_path / "noise" / f"{number}.wav", seed=number)
    assert len(mixtures(tmp_path)[1]) == held_out
    assert len(mixtures(tmp_path, validation_speakers=("s3",))[1]) == 1


def test_mix_holds_out_the_two_speakers_of_voicebank(tmp_path: Path):
    for number in range(226, 246):
        put(tmp_path / "speech" / f"p{number}_001.wav", seed=number)
    put(tmp_path / "speech" / "p287_001.wav", seed=1)
    for number in range(2):
        put(tmp_path / "noise" / f"{number}.wav", seed=number)
    (tmp_path / "speech" / "p232_001.wav").unlink()  # a test speaker
    assert {r.speaker for r in mixtures(tmp_path)[1].clean} == {"p226", "p287"}


def test_mix_holds_out_noise_of_each_folder(tmp_path: Path):
    put_material(tmp_path)
    names = [*(f"many/{n}" for n in range(20)), "few/1", "few/2", "few/3", "alone/1"]
    for seed, name in enumerate(names):
        put(tmp_path / "noise" / f"{name}.wav", 0.3, seed)
    train, valid = mixtures(tmp_path)
    folders = [[Path(r.name).parent.name for r in side.noise] for side in (train, valid)]
    counts = [{name: side.count(name) for name in ("many", "few", "alone")} for side in folders]
    assert counts == [{"many": 18, "few": 2, "alone": 1}, {"many": 2, "few": 1, "alone": 0}]


def test_a_file_that_counts_as_a_speaker_by_its_name_is_warned_of(
    material: Path, caplog: pytest.LogCaptureFixture
):
    speech = material / "speech"
    for path in speech.iterdir():
        path.unlink()
    for number in range(6):
        put(speech / f"000{number}.wav", seed=number)
    mixtures(material)
    assert "that person may be both trained and validated on" in caplog.text
    caplog.clear()
    rows = [f"000{number}.wav,{number}" for number in range(6)]
    (speech / "speakers.csv").write_text("\n".join(["file,speaker", *rows]))
    mixtures(material)
    assert not [r for r in caplog.records if r.levelno > logging.INFO]
