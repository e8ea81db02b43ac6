"""What is said where no training and validation set can be made."""

from __future__ import annotations

from pathlib import Path

import pytest
from recordings import put_pairs
from sources import VOICES, mixtures, pairs, put_material

from data.utils import DataError
from training.config import Config, Data
from training.sources import make_datasets

pytestmark = pytest.mark.usefixtures("own_index")


@pytest.fixture
def material(tmp_path: Path) -> Path:
    return put_material(tmp_path)


@pytest.mark.parametrize("made", ["", "test", "valid"])
def test_no_data_set_names_three_ways(tmp_path: Path, made: str):
    if made:
        put_pairs(tmp_path / made, ["q_1.wav"])
    with pytest.raises(DataError, match=f"^no data set at {tmp_path}. There are three") as raised:
        pairs(tmp_path)
    for way in (
        "--sample",
        "--data ROOT",
        "--mix CLEAN NOISE",
        "10.7488/ds/2117",
        "data.voicebank",
    ):
        assert way in str(raised.value)


def test_one_speaker(tmp_path: Path):
    put_pairs(tmp_path, ["p225_1.wav", "p225_2.wav"])
    message = rf"{tmp_path}: all files are of one speaker \(p225\).* speakers\.csv"
    with pytest.raises(DataError, match=message):
        pairs(tmp_path)


def test_one_noise_file(material: Path):
    for path in list((material / "noise").iterdir())[1:]:
        path.unlink()
    with pytest.raises(DataError, match=r"noise: one usable noise file only; .* cut this one"):
        mixtures(material)


@pytest.mark.parametrize(("clean", "noise"), [("", "noise"), ("speech", ""), ("noise", "noise")])
def test_speech_and_noise_in_each_other(material: Path, clean: str, noise: str):
    data = Data("mix", clean=str(material / clean), noise=str(material / noise))
    with pytest.raises(DataError, match="one is in the other; move it out"):
        make_datasets(Config(data=data), False)


def test_missing_folders(material: Path):
    for clean, noise in (("speech", "missing"), ("missing", "noise")):
        data = Data("mix", clean=str(material / clean), noise=str(material / noise))
        with pytest.raises(DataError, match=f"^{material / 'missing'}: no such folder"):
            make_datasets(Config(data=data), False)


def test_bad_files_are_left_out_on_demand(material: Path):
    (material / "speech" / "p225_9.wav").touch()
    (material / "noise" / "x.wav").write_text("no noise")
    data = Data("mix", clean=str(material / "speech"), noise=str(material / "noise"))
    with pytest.raises(DataError, match="noise: 1 files cannot be used"):
        make_datasets(Config(data=data), False)
    train, valid = make_datasets(Config(data=data), True)
    assert len(train) + len(valid) == len(VOICES)
