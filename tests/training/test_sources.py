"""Training and validation sets: what they share (nothing), and what cannot be used."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from recordings import put, put_pairs

from bsbimamba.data.audio import read, write
from bsbimamba.data.augment import Augment
from bsbimamba.training.config import Config, Data
from bsbimamba.training.sources import make_datasets
from bsbimamba.utils import DataError

RATE = 16000
VOICES = [f"p{speaker}_{number}.wav" for speaker in range(225, 232) for number in (1, 2)]
SOURCES = pytest.mark.parametrize("source", ["pairs", "mix"])

pytestmark = pytest.mark.usefixtures("own_index")


def split(root: Path, source: str = "pairs", **options: Any) -> tuple[Any, Any]:
    """Return the sets of the pairs in a folder, or of its speech and noise."""
    general = {name: options.pop(name) for name in ("seed", "augment") if name in options}
    places = {"clean": str(root / "speech"), "noise": str(root / "noise"), "root": str(root)}
    return make_datasets(Config(data=Data(source, **{**places, **options}), **general), False)


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


# Pairs


@pytest.mark.parametrize(
    ("added", "options", "expected"),
    [
        ([], {}, None),  # the two of VoiceBank are not all there
        (["p287_1.wav"], {}, {"p226", "p287"}),
        ([], {"validation_speakers": ("p230",)}, {"p230"}),
    ],
)
def test_pairs_hold_out_the_named_speakers_or_else_a_share(
    added: list[str], options: dict, expected: set[str] | None, tmp_path: Path
) -> None:
    put_pairs(tmp_path / "train", VOICES + added)
    train, valid = split(tmp_path, crop_seconds=0.25, **options)
    trained, held_out = ({pair.speaker for pair in side.items} for side in (train, valid))
    assert not trained & held_out
    assert trained | held_out == {name[:4] for name in VOICES + added}
    assert held_out == (expected or held_out)
    assert len(train) + len(valid) == len(VOICES + added)
    assert train[0, 0]["clean"].shape == (RATE // 4,)
    assert valid[0, 0]["clean"].shape == (RATE // 2,)


def test_pairs_validate_on_the_valid_folder(tmp_path: Path) -> None:
    put_pairs(tmp_path / "train", VOICES)
    put_pairs(tmp_path / "valid", ["q1_1.wav", "q2_1.wav"])
    train, valid = split(tmp_path)
    assert len(train) == len(VOICES)
    assert [pair.name for pair in valid.items] == ["q1_1", "q2_1"]
    put_pairs(tmp_path / "valid", ["p225_9.wav"])
    with pytest.raises(DataError, match="p225: speakers of its valid split"):
        split(tmp_path)


def test_pairs_leave_a_test_split_alone(tmp_path: Path) -> None:
    put_pairs(tmp_path / "train", VOICES)
    for folder in ("test/clean", "test/noisy", "clean_testset_wav", "noisy_testset_wav"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "p232_1.wav").write_text("what cannot be opened")
    found = {pair.name for side in split(tmp_path) for pair in side.items}
    assert found == {name.removesuffix(".wav") for name in VOICES}


def test_validation_takes_turns_over_speakers_and_files(tmp_path: Path) -> None:
    names = [f"p225_{n}.wav" for n in range(4)]
    names += [f"p226_{n:02d}.wav" for n in range(12)] + [f"p287_{n}.wav" for n in range(3)]
    put_pairs(tmp_path / "train", names, 0.3)
    valid = split(tmp_path, validation_files=7, validation_seconds=0.25)[1]
    expected = ["p226_00", "p226_03", "p226_06", "p226_09", "p287_0", "p287_1", "p287_2"]
    assert [pair.name for pair in valid.items] == expected
    assert valid[0, 0]["clean"].shape == (RATE // 4,)


def test_pairs_refuse_a_file_on_both_sides(tmp_path: Path) -> None:
    put_pairs(tmp_path, ["a_1.wav", "b_1.wav", "c_1.wav"])
    table = tmp_path / "pairs.csv"
    table.write_text(
        "clean,noisy,split,speaker\nclean/a_1.wav,noisy/a_1.wav,train,a\n"
        "clean/b_1.wav,noisy/b_1.wav,train,b\nclean/c_1.wav,noisy/../noisy/b_1.wav,valid,c\n"
    )
    with pytest.raises(DataError, match=r"also to validate with: .*noisy/b_1.wav"):
        split(table, "pairs")


# Mixtures


def test_mixtures_share_neither_speakers_nor_noise(material: Path) -> None:
    train, valid = split(material, "mix", validation_share=0.15)
    for part, everything in (("items", len(VOICES)), ("noise", 10)):
        paths = [{recording.path for recording in getattr(side, part)} for side in (train, valid)]
        assert not paths[0] & paths[1]
        assert all(paths)
        assert len(paths[0] | paths[1]) == everything
    assert not set(train.speakers()) & set(valid.speakers())


def test_mix_holds_out_noise_of_each_folder(material: Path) -> None:
    names = [*(f"many/{n}" for n in range(20)), "few/1", "few/2", "few/3", "alone/1"]
    for seed, name in enumerate(names):
        put(material / "noise" / f"{name}.wav", 0.3, seed)
    folders = [[r.path.parent.name for r in side.noise] for side in split(material, "mix")]
    counts = [{name: side.count(name) for name in ("many", "few", "alone")} for side in folders]
    assert counts == [{"many": 18, "few": 2, "alone": 1}, {"many": 2, "few": 1, "alone": 0}]


# Both kinds


@SOURCES
def test_training_reads_decoded_copies_of_what_is_slow_to_decode(
    material: Path, source: str
) -> None:
    """Then the recordings themselves are not needed any more."""
    for path in sorted(material.rglob("p2*.wav")):
        write(path.with_suffix(".opus"), read(path))
        path.unlink()
    train, _ = split(material, source)
    for path in material.rglob("p2*.opus"):
        path.unlink()
    assert train[0, 0]["clean"].abs().max() > 0


@SOURCES
def test_training_alone_is_augmented(material: Path, source: str) -> None:
    plain = split(material, source)
    train, valid = split(material, source, augment=Augment(speed=1.0))
    assert not torch.equal(train[0, 0]["noisy"], plain[0][0, 0]["noisy"])
    assert torch.equal(valid[0, 0]["noisy"], plain[1][0, 0]["noisy"])


@SOURCES
def test_seeds_share_the_split_and_the_validation_set(material: Path, source: str) -> None:
    """Or their runs would neither be one model nor compare by their validation."""
    (first, first_valid), *others = (split(material, source, seed=seed) for seed in range(4))
    for train, valid in others:
        assert train.fingerprint() == first.fingerprint()
        assert valid.fingerprint() == first_valid.fingerprint()
        for number in range(len(valid)):
            assert torch.equal(valid[5, number]["noisy"], first_valid[0, number]["noisy"])
        assert source == "pairs" or not torch.equal(train[0, 0]["noisy"], first[0, 0]["noisy"])


# What cannot be used


def test_missing_data_set_names_three_ways(tmp_path: Path) -> None:
    put_pairs(tmp_path / "test", ["q_1.wav"])
    with pytest.raises(DataError, match=str(tmp_path)) as raised:
        split(tmp_path)
    for way in ("--sample", "--data ROOT", "--mix CLEAN NOISE", "python -m bsbimamba voicebank"):
        assert way in str(raised.value)


def test_one_speaker_or_one_noise_is_too_few(material: Path) -> None:
    for path in [*(material / "noise").iterdir()][1:]:
        path.unlink()
    with pytest.raises(DataError, match="one usable noise file only"):
        split(material, "mix")
    for path in [*material.rglob("p22[6-9]*.wav"), *material.rglob("p23*.wav")]:
        path.unlink()
    with pytest.raises(DataError, match=r"one speaker \(p225\)"):
        split(material)


@pytest.mark.parametrize(("clean", "noise"), [("", "noise"), ("speech", ""), ("noise", "noise")])
def test_speech_and_noise_lie_apart(material: Path, clean: str, noise: str) -> None:
    with pytest.raises(DataError, match="one is in the other"):
        split(material, "mix", clean=str(material / clean), noise=str(material / noise))
