"""`python -m data.voicebank`, from nothing to a corpus that loads, through all that goes wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import http_server as faults
import numpy as np
import pytest
import soundfile
import soxr
from http_server import Server, serving
from small_voicebank import FOLDERS, TEST, TRAIN, Published, recording, wav, write_all

from data import datashare, manifest, preparation, prepared, voicebank
from data.corpus import load_pairs
from data.datashare import PUBLISHED
from data.download import Patience
from data.errors import DataError
from data.lock import Lock


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    with serving() as server:
        yield server


class Command:
    """The command on a small corpus, published by `server`; `ends` checks how it ends."""

    def __init__(self, base: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
        self.root, self.server, self._capsys = base / "root", server, capsys
        self.published = Published()
        self.publish()

    def publish(self) -> None:
        self.server.files = self.published.contents()
        self.archives = self.published.archives(self.server.files, self.server.address(""))

    def ends(self, status: int, *options: str) -> str:
        """What it says, on a line of its own if it fails."""
        patience = Patience(tries=3, timeout=5, sleep=lambda _: None)
        words = ["--root", str(self.root), "--workers", "1", *options]
        found = voicebank.main(words, self.archives, patience)
        output = self._capsys.readouterr()
        assert found == status, output.err
        assert "Traceback" not in output.err
        if status == 0:
            return output.out
        assert output.out == ""
        assert output.err.startswith("voicebank: ")
        return output.err

    def asked(self) -> list[str]:
        """The archives that were asked for since the last time."""
        names = [path.strip("/") for path, _, _ in self.server.asked]
        self.server.asked.clear()
        return names

    def files(self) -> dict[str, int]:
        """When each recording was written."""
        return {
            path.relative_to(self.root).as_posix(): path.stat().st_mtime_ns
            for path in self.root.glob("*_wav/*")
        }

    def facts(self) -> dict:
        return json.loads((self.root / "prepared.json").read_text())

    def assert_complete(self) -> None:
        expected = {f"{folder}/{name}.wav" for folder, names in FOLDERS.items() for name in names}
        assert self.files().keys() == expected
        assert prepared.is_finished(self.root, self.archives)
        assert not list(self.root.rglob("*.part*"))


@pytest.fixture
def command(tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(tmp_path, server, capsys)


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

    monkeypatch.setattr(manifest, "make", failing)
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


# Archives that are there already


def test_archives_that_are_there_already(command: Command, tmp_path: Path):
    write_all(tmp_path / "mine", command.server.files)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "mine").iterdir()}
    command.ends(0, "--from", str(tmp_path / "mine"), "--remove-archives")
    command.assert_complete()
    assert command.asked() == []
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "mine").iterdir()} == before
    assert not list((command.root / ".download").glob("*.zip"))
    assert command.facts()["archives"]["logfiles.zip"]["origin"] is None


def test_those_that_are_not_there_are_downloaded(command: Command, tmp_path: Path):
    write_all(tmp_path / "mine", command.server.files)
    (tmp_path / "mine" / "noisy_testset_wav.zip").unlink()
    command.ends(0, "--from", str(tmp_path / "mine"))
    assert command.asked() == ["noisy_testset_wav.zip"]


def test_a_folder_without_any(command: Command, tmp_path: Path):
    assert "no such folder" in command.ends(2, "--from", str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    assert "it has none of logfiles.zip, clean" in command.ends(2, "--from", str(tmp_path))
    assert not command.root.exists()


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_an_archive_with_another_checksum(damage: str, command: Command, tmp_path: Path):
    write_all(tmp_path / "mine", command.server.files)
    path = tmp_path / "mine" / "clean_testset_wav.zip"
    content = bytearray(path.read_bytes())
    content[3000] ^= 1
    path.write_bytes(content if damage == "flipped" else content[:-100])
    said = command.ends(2, "--from", str(tmp_path / "mine"))
    assert f"{path} has the MD5 " in said
    assert "its publisher states" in said
    assert "Remove it and run again" in said
    assert said.count("\n") == 1
    write_all(tmp_path / "mine", command.server.files)
    command.ends(0, "--from", str(tmp_path / "mine"))


def test_checksums_are_not_computed_again_for_nothing(
    command: Command, monkeypatch: pytest.MonkeyPatch
):
    hashed: list[str] = []
    real = datashare._checksums
    monkeypatch.setattr(datashare, "_checksums", lambda p: hashed.append(p.name) or real(p))
    command.ends(0)
    assert hashed == [f"{name}.part" for name in command.server.files]
    (command.root / "clean_testset_wav" / "p232_001.wav").unlink()
    command.ends(0)
    assert len(hashed) == 5
    # A file that has been written to since is not taken on trust.
    path = command.root / ".download" / "clean_testset_wav.zip"
    path.write_bytes(bytes(path.stat().st_size))
    (command.root / "clean_testset_wav" / "p232_001.wav").unlink()
    assert "has the MD5" in command.ends(2)
    path.unlink()
    command.ends(0)


# Checksums that nobody states


def test_trust_on_first_use(command: Command):
    command.published.unstated = set(command.server.files)
    command.publish()
    command.ends(0, "--remove-archives")
    record = json.loads((command.root / ".download/archives.json").read_text())
    assert len(record["clean_testset_wav.zip"]["sha256"]) == 64
    # The publisher changes a file; what was made of the other one is not mixed with it.
    before = command.server.files["clean_testset_wav.zip"]
    command.published.folders["clean_testset_wav"]["p232_001.wav"] = wav(recording(99))
    command.publish()
    (command.root / "clean_testset_wav" / "p232_001.wav").unlink()
    said = command.ends(1)
    assert "bytes, not" in said or "has the SHA-256" in said
    changed = bytearray(before)
    changed[3000] ^= 1
    command.server.files["clean_testset_wav.zip"] = bytes(changed)
    assert "before (archives.json)" in command.ends(1)
    command.server.files["clean_testset_wav.zip"] = before
    command.ends(0)


@pytest.mark.parametrize("damage", ["cut", "flipped", "text"])
def test_nothing_damaged_is_trusted_on_first_use(damage: str, command: Command):
    command.published.unstated = set(command.server.files)
    command.publish()
    good = dict(command.server.files)
    content = bytearray(good["clean_testset_wav.zip"])
    content[3000] ^= 1
    bad = {"cut": content[:-100], "flipped": content, "text": b"PK, but no archive"}[damage]
    command.server.files["clean_testset_wav.zip"] = bytes(bad)
    said = command.ends(1)
    assert ("damaged member" if damage == "flipped" else "is no zip archive") in said
    assert not (command.root / ".download" / "clean_testset_wav.zip").exists()
    command.server.files = good
    command.ends(0)


def test_damaged_records_are_made_anew(command: Command):
    command.ends(0)
    (command.root / ".download/archives.json").write_text("nonsense")
    (command.root / "clean_testset_wav" / "p232_001.wav").unlink()
    command.ends(0)
    command.assert_complete()


# The network


def test_connections_that_break(command: Command):
    command.server.faults.extend([faults.drop(300), faults.status(503), faults.drop(1000)])
    command.server.faults.extend([faults.send, faults.reset, faults.drop(5000)])
    command.ends(0)
    command.assert_complete()


def test_no_network(command: Command):
    command.server.always = faults.status(503)
    said = command.ends(1)
    assert "clean_testset_wav.zip cannot be downloaded" in said
    assert "--from" in said
    assert said.count("\n") == 1
    command.server.always = faults.send
    command.ends(0)
    command.assert_complete()


def test_a_page_to_sign_in(command: Command):
    command.server.always = faults.instead(b"<html>", "text/html")
    assert "(text/html), as networks do that want one to sign in" in command.ends(1)


def test_without_the_logs_all_else_is_made(command: Command, caplog: pytest.LogCaptureFixture):
    logs = command.server.files.pop("logfiles.zip")
    command.ends(0)
    assert "404" in caplog.text
    assert "Going on without" in caplog.text
    assert len(load_pairs(command.root, "test")) == 3
    # The next time they are asked for again.
    command.asked()
    command.server.files["logfiles.zip"] = logs
    command.ends(0)
    assert command.asked() == ["logfiles.zip"]
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
        (MemoryError(), 1, "out of memory. Run again with fewer --workers."),
        (OSError(5, "Input/output error", "x.zip"), 1,
         "x.zip: Input/output error. What is done is kept; run again."),
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


def test_the_published_archives():
    names = [each.name for each in PUBLISHED]
    assert names[0] == "logfiles.zip"
    assert {each.removesuffix(".zip") for each in names[1:]} == FOLDERS.keys()
    for each in PUBLISHED:
        assert each.md5 is not None
        assert len(each.md5) == 32
        assert all(a.startswith("https://datashare.ed.ac.uk/bitstream") for a in each.addresses)
        assert f"/10283/2791/{each.name}" in each.addresses[0]
        assert each.required == each.recordings
        assert each.recordings == (len(each.addresses) == 2)
    assert len({address for each in PUBLISHED for address in each.addresses}) == 9
    assert len({each.md5 for each in PUBLISHED}) == 5
