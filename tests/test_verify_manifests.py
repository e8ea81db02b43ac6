"""Verification looks at the disk, and compares with it what manifests say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile as sf
from recordings import sound
from verified import put, run, shift, small_corpus, twice

from data.audio import read
from data.manifest import make

RATE = 16000

pytestmark = pytest.mark.usefixtures("own_index")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return small_corpus(tmp_path / "vb")


def test_files_that_are_not_the_manifests(corpus: Path, capsys: pytest.CaptureFixture):
    make(corpus)
    path = corpus / "noisy_testset_wav" / "p232_001.wav"
    sf.write(path, 0.9 * read(path), RATE)
    status, text = run(corpus, capsys)
    assert status == 1
    assert f"1 times the manifests say something else\n  {path}: has another checksum\n" in text


def test_lengths_that_are_not_the_manifests(corpus: Path, capsys: pytest.CaptureFixture):
    make(corpus)
    manifest = corpus / "manifests" / "test.jsonl"
    manifest.write_text(manifest.read_text().replace('"seconds": 0.6', '"seconds": 0.7', 1))
    status, text = run(corpus, capsys)
    assert status == 1
    assert "  p232_001: is not 0.7 s long\n" in text


def test_one_file_in_two_manifests(corpus: Path, capsys: pytest.CaptureFixture):
    make(corpus)
    line = (corpus / "manifests" / "test.jsonl").read_text().splitlines()[0]
    with (corpus / "manifests" / "train.jsonl").open("a") as file:
        file.write(line.replace('"p232"', '"p250"') + "\n")
    status, text = run(corpus, capsys)
    assert status == 1
    assert "clean_testset_wav/p232_001.wav: clean in train, clean in test" in text


def test_verify_looks_at_the_disk_and_not_at_what_manifests_say(
    corpus: Path, capsys: pytest.CaptureFixture
):
    make(corpus)
    put(corpus, "noisy", "trainset_28spk", "p228_009", sound(0.3))
    (corpus / "noisy_testset_wav" / "p257_002.wav").unlink()
    status, text = run(corpus, capsys)
    assert status == 1
    assert "p228_009.wav" in text
    assert "p257_002.wav: is in the manifest of test, and not there in a pair" in text
    twice(corpus)
    assert "files lie in clean_testset_wav/clean_testset_wav" in run(corpus, capsys)[1]


def test_a_split_without_a_manifest_is_looked_at(corpus: Path, capsys: pytest.CaptureFixture):
    make(corpus)
    (corpus / "manifests" / "test.jsonl").unlink()
    shift(corpus / "noisy_testset_wav" / "p257_002.wav")
    status, text = run(corpus, capsys)
    assert status == 1
    assert "p257_002.wav: +37 samples" in text
    assert "p257_002.wav: is in no manifest" in text


@pytest.mark.parametrize(
    ("one", "other"), [("train", "valid"), ("train", "test"), ("valid", "test")]
)
def test_a_speaker_in_two_manifests(
    corpus: Path, one: str, other: str, capsys: pytest.CaptureFixture
):
    make(corpus, ["p226"])
    text = (corpus / "manifests" / f"{other}.jsonl").read_text()
    who = json.loads(text.splitlines()[0])["speaker"]
    path = corpus / "manifests" / f"{one}.jsonl"
    lines = path.read_text().splitlines()
    lines[0] = json.dumps(json.loads(lines[0]) | {"speaker": who})
    path.write_text("\n".join(lines) + "\n")
    status, text = run(corpus, capsys)
    assert status == 1
    assert f"  {who} in {one} and {other}\n" in text
    assert (f"\n  {who}\n" in text) == (other == "test")
