"""`python -m data.voicebank`: what it makes, of what, where, and what it says."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import soxr
from small_voicebank import TEST, TRAIN, recording, wav, write_all
from voicebank_command import Command

from data import datashare, preparation, voicebank
from data.corpus import load_pairs
from data.errors import DataError
from data.lock import Lock


def test_from_nothing_to_a_corpus(command: Command):
    said = command.ends(0)
    assert said == f"{command.root}: 2 train pairs, 3 test pairs, 4 valid pairs\n"
    command.assert_complete()
    pairs = load_pairs(command.root, "test")
    assert [(pair.name, pair.frames) for pair in pairs] == [(name, 4800) for name in TEST]
    assert len(load_pairs(command.root, "train")) + len(load_pairs(command.root, "valid")) == 6
    for name, text in command.published.logs.items():
        assert (command.root / "logfiles" / name).read_text() == text
    assert command.asked() == list(command.server.files)


def test_what_the_corpus_was_made_of_is_written_down(command: Command):
    command.ends(0)
    facts = command.facts()
    assert facts["resampler"] == {"name": "soxr", "version": soxr.__version__, "quality": "VHQ"}
    assert facts["rate"] == 16_000
    assert facts["versions"].keys() == {"python", "numpy", "soundfile", "libsndfile"}
    assert facts["entries"] == {"train": 2, "valid": 4, "test": 3}
    record = facts["archives"]["clean_testset_wav.zip"]
    assert record["md5"] == command.archives[1].md5
    assert record["size"] == len(command.server.files["clean_testset_wav.zip"])
    assert record["origin"]["address"] == command.archives[1].addresses[0]
    folder = facts["folders"]["noisy_trainset_28spk_wav"]
    assert (folder["files"], folder["samples"], folder["clipped"]) == (6, 6 * 4800, 0)
    assert folder["source_rates"] == {"48000": 6}


def test_a_second_time_nothing_is_done(command: Command):
    command.ends(0)
    command.asked()
    before = {path: path.stat().st_mtime_ns for path in command.root.rglob("*")}
    assert command.ends(0) == f"{command.root}: the corpus is there already\n"
    assert {path: path.stat().st_mtime_ns for path in command.root.rglob("*")} == before
    assert command.asked() == []


@pytest.mark.parametrize("kept", ["archives", "nothing", "no state"])
def test_files_that_are_missing_or_cut_are_made_again(kept: str, command: Command):
    command.ends(0, *(["--remove-archives"] if kept != "archives" else []))
    command.asked()
    there = {path.name for path in (command.root / ".download").glob("*.zip")}
    assert there == ({*command.server.files} if kept == "archives" else {"logfiles.zip"})
    if kept == "no state":
        shutil.rmtree(command.root / ".download")
    before = command.files()
    first, second, *_ = sorted((command.root / "noisy_testset_wav").iterdir())
    first.unlink()
    second.write_bytes(second.read_bytes()[:-1])
    command.ends(0)
    command.assert_complete()
    after = command.files()
    again = {name for name in before if before[name] != after[name]}
    if kept == "no state":
        assert again == before.keys()
    else:
        assert again == {f"noisy_testset_wav/{path.name}" for path in (first, second)}
        assert command.asked() == ([] if kept == "archives" else ["noisy_testset_wav.zip"])


def test_a_file_that_is_cut_is_noticed_by_itself(command: Command):
    command.ends(0)
    path = command.root / "noisy_testset_wav" / "p232_001.wav"
    content = path.read_bytes()
    path.write_bytes(content[:-2])
    assert "already" not in command.ends(0)
    assert path.read_bytes() == content


def test_without_a_manifest_it_is_not_finished(command: Command, monkeypatch: pytest.MonkeyPatch):
    def failing(root: Path) -> dict[str, int]:
        raise DataError("no manifest")

    monkeypatch.setattr("data.preparation.make", failing)
    assert command.ends(2) == "voicebank: no manifest\n"
    assert not (command.root / "prepared.json").exists()
    monkeypatch.undo()
    monkeypatch.setenv("no_proxy", "*")
    before = command.files()
    command.ends(0)
    assert command.files() == before


def test_a_missing_log_or_record_is_noticed(command: Command):
    command.ends(0)
    shutil.rmtree(command.root / "logfiles")
    command.ends(0)
    assert (command.root / "logfiles" / "log_testset.txt").is_file()
    (command.root / "prepared.json").write_text("nonsense")
    command.ends(0)
    command.assert_complete()


# Recordings


def test_all_unusable_recordings_are_listed(command: Command):
    clean, noisy = (command.published.folders[f"{side}_testset_wav"] for side in ("clean", "noisy"))
    clean["p232_001.wav"] = wav(np.stack([recording(), recording()], 1))
    noisy["p257_001.wav"] = b"nothing"
    noisy["p257_002.wav"] = wav(recording(0, 0.6))
    noisy["P232_009.wav"] = clean["p232_009.wav"] = clean["p232_010.wav"] = wav(recording())
    command.publish()
    said = command.ends(2)
    lines = [
        "clean_testset_wav/p232_001.wav: has 2 channels instead of one",
        "clean_testset_wav/p232_009.wav: no such file in noisy_testset_wav "
        "(but P232_009.wav, which differs in case)",
        "clean_testset_wav/p232_010.wav: no such file in noisy_testset_wav",
        "noisy_testset_wav/P232_009.wav: no such file in clean_testset_wav "
        "(but p232_009.wav, which differs in case)",
        "noisy_testset_wav/p257_001.wav: cannot be decoded (Format not recognised)",
        "noisy_testset_wav/p257_002.wav: lasts 0.60 s, its clean file 0.30 s",
    ]
    assert said.splitlines()[1:-1] == [f"  {line}" for line in sorted(lines)]
    assert "6 recordings cannot be used" in said
    assert not (command.root / "prepared.json").exists()
    assert len(list((command.root / "clean_trainset_28spk_wav").iterdir())) == len(TRAIN)
    # The files that were good are not made again.
    assert "6 recordings cannot be used" in command.ends(2)


def test_other_rates_are_converted_and_told(command: Command, caplog: pytest.LogCaptureFixture):
    for side in ("clean", "noisy"):
        at_8_khz = wav(recording(5, rate=8000), rate=8000)
        command.published.folders[f"{side}_testset_wav"]["p232_001.wav"] = at_8_khz
    command.publish()
    command.ends(0)
    assert soundfile.info(command.root / "clean_testset_wav/p232_001.wav").frames == 4800
    assert "clean_testset_wav: 1 recordings were at another rate than 48 kHz" in caplog.text
    rates = command.facts()["folders"]["clean_testset_wav"]["source_rates"]
    assert rates == {"8000": 1, "48000": 2}


def test_an_archive_that_means_harm(command: Command, tmp_path: Path):
    command.published.folders["clean_testset_wav"]["../../../harm.wav"] = wav(recording())
    command.publish()
    said = command.ends(2)
    assert "clean_testset_wav.zip is not to be trusted" in said
    assert "leads out of the folder" in said
    assert not list(tmp_path.rglob("harm*"))


# The folder


def test_a_folder_with_something_else(command: Command):
    (command.root / "clean_testset_wav").mkdir(parents=True)
    (command.root / "clean_testset_wav" / "mine.wav").write_text("mine")
    said = command.ends(2)
    assert f"{command.root} holds something else (clean_testset_wav); name a new" in said
    assert [path.name for path in command.root.rglob("*")] == ["clean_testset_wav", "mine.wav"]


def test_a_folder_that_cannot_be(command: Command, tmp_path: Path):
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "within"):
        said = command.ends(2, "--root", str(root))
        assert f"{root} cannot be written to (Not a directory)" in said


def test_a_folder_in_use(command: Command):
    (command.root / ".download").mkdir(parents=True)
    lock = Lock(command.root / ".download", "")
    try:
        said = command.ends(2)
    finally:
        lock.release()
    assert "is in use by process" in said
    assert "name another folder with --root" in said
    command.ends(0)


def test_a_disk_that_is_too_small(command: Command, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(preparation.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**9))
    command.archives = [
        datashare.Archive(**{**asdict(each), "size": 10**9}) for each in command.archives
    ]
    said = command.ends(1)
    assert f"this needs about 6.0 GB in {command.root}, and 1.0 GB are free" in said
    assert command.asked() == []


def test_archives_that_are_there_need_no_room(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_all(tmp_path / "mine", command.server.files)
    room = sum(each.size for each in command.archives if each.recordings)
    monkeypatch.setattr(preparation.shutil, "disk_usage", lambda _: SimpleNamespace(free=room))
    assert "this needs about" in command.ends(1)
    command.ends(0, "--from", str(tmp_path / "mine"))
    monkeypatch.setattr(preparation.shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    command.ends(0)


# The command line and what it is about


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--workers", "0"], "--workers is 0, expected 1 to"),
        (["--root", ""], "a path is expected, and this is empty"),
        (["--fro", "x"], "unrecognized arguments"),
    ],
)
def test_wrong_options(words: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        voicebank.main(words)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted; the same command goes on from here"),
        (MemoryError(), 1, "out of memory; the same command goes on from here"),
        (OSError(5, "Input/output error", "x.zip"), 1,
         "x.zip: Input/output error; the same command goes on from here"),
    ],
)  # fmt: skip
def test_what_is_told_of_interruptions_and_of_this_machine(
    error: BaseException,
    status: int,
    message: str,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
):
    def failing(*_: object) -> None:
        raise error

    monkeypatch.setattr(preparation, "convert", failing)
    assert command.ends(status) == f"voicebank: {message}\n"
    monkeypatch.undo()
    monkeypatch.setenv("no_proxy", "*")
    command.ends(0)
