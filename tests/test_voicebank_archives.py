"""`python -m data.voicebank`: where the archives come from, and whether they are believed."""

from __future__ import annotations

import json
from pathlib import Path

import http_server as faults
import pytest
from small_voicebank import FOLDERS, recording, wav, write_all
from voicebank_command import Command

from data import datashare
from data.corpus import load_pairs
from data.datashare import PUBLISHED

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
