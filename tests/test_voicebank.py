"""`python -m data.voicebank`: what it makes, of what, where, and what it says."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import soxr
from conftest import ROOT
from http_server import Server, drop
from recordings import sound
from small_voicebank import FOLDERS, LOG, RATE, TEST, archives, contents, recordings, wav

from data.corpus import load_pairs
from data.utils import hold
from data.voicebank import main, resampled

pytestmark = pytest.mark.usefixtures("own_index")


class Command:
    """The command on a small corpus, published by `server`."""

    def __init__(self, base: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
        self.root, self.server, self._capsys = base / "root", server, capsys
        server.files = contents()
        self.archives = archives(server.files, server.address(""))

    def ends(self, status: int, *options: str) -> str:
        """Return what it says; check with which status it ends."""
        words = ["--root", str(self.root), "--workers", "1", *options]
        assert main(words, self.archives) == status
        output = self._capsys.readouterr()
        return output.err if status else output.out

    def asked(self) -> list[str]:
        """Return the archives that were asked for since the last time."""
        names = [path.strip("/") for path, _ in self.server.asked]
        self.server.asked.clear()
        return names


@pytest.fixture
def command(tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(tmp_path, server, capsys)


def test_voicebank_makes_a_corpus_from_nothing(command: Command):
    assert command.ends(0) == f"{command.root}: 6 train pairs, 3 test pairs\n"
    assert command.asked() == list(command.server.files)
    made = {path.relative_to(command.root).as_posix() for path in command.root.glob("*_wav/*")}
    assert made == {f"{folder}/{name}.wav" for folder, names in FOLDERS.items() for name in names}
    pairs = load_pairs(command.root, "test")
    assert [(pair.name, pair.frames) for pair in pairs] == [(name, 4800) for name in TEST]
    assert (command.root / "logfiles" / "log_testset.txt").read_text() == LOG


def test_voicebank_resamples_by_soxr_and_rounds_to_16_bits(command: Command):
    command.ends(0)
    for folder, files in recordings().items():
        for name, content in files.items():
            x, _ = sf.read(io.BytesIO(content))
            expected = np.round(32768 * soxr.resample(x, RATE, 16000, quality="VHQ"))
            found, rate = sf.read(command.root / folder / name, dtype="int16")
            assert rate == 16000
            np.testing.assert_array_equal(found, expected.clip(-32768, 32767))


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_resampled_converts_every_rate_and_clips(rate: int):
    x, found_rate = sf.read(io.BytesIO(resampled(wav(3 * sound(0.5, rate), rate, "FLOAT"))))
    assert (len(x), found_rate) == (8000, 16000)
    assert x.max() == 32767 / 32768


def test_voicebank_does_nothing_a_second_time(command: Command):
    said = command.ends(0)
    command.asked()
    before = {path: path.stat().st_mtime_ns for path in command.root.glob("*_wav/*")}
    assert command.ends(0) == said
    assert {path: path.stat().st_mtime_ns for path in command.root.glob("*_wav/*")} == before
    assert command.asked() == []


@pytest.mark.parametrize("kept", [True, False])
def test_voicebank_makes_missing_files_again(kept: bool, command: Command):
    command.ends(0, *([] if kept else ["--remove-archives"]))
    assert any((command.root / ".download").glob("*.zip")) == kept
    command.asked()
    missing = command.root / "noisy_testset_wav" / "p232_001.wav"
    content, other = missing.read_bytes(), missing.with_name("p257_001.wav").stat().st_mtime_ns
    missing.unlink()
    command.ends(0)
    assert missing.read_bytes() == content
    assert missing.with_name("p257_001.wav").stat().st_mtime_ns == other
    assert command.asked() == ([] if kept else ["noisy_testset_wav.zip"])


def test_voicebank_takes_archives_from_another_folder(command: Command, tmp_path: Path):
    (tmp_path / "mine").mkdir()
    for name, content in command.server.files.items():
        (tmp_path / "mine" / name).write_bytes(content)
    (tmp_path / "mine" / "clean_trainset_28spk_wav.zip").unlink()
    command.ends(0, "--from", str(tmp_path / "mine"), "--remove-archives")
    assert command.asked() == ["clean_trainset_28spk_wav.zip"]
    assert (tmp_path / "mine" / "clean_testset_wav.zip").exists()
    (command.root / "clean_testset_wav" / "p232_001.wav").unlink()
    (tmp_path / "mine" / "clean_testset_wav.zip").write_bytes(b"PK")
    said = command.ends(2, "--from", str(tmp_path / "mine"))
    assert "clean_testset_wav.zip has another MD5 than was published: remove it" in said


def test_voicebank_goes_on_without_logs_and_not_without_recordings(
    command: Command, caplog: pytest.LogCaptureFixture
):
    del command.server.files["logfiles.zip"]
    content = command.server.files.pop("noisy_testset_wav.zip")
    assert "noisy_testset_wav.zip cannot be downloaded" in command.ends(1)
    assert "Going on without: noises and SNRs will not be known" in caplog.text
    command.server.files["noisy_testset_wav.zip"] = content
    command.server.faults.extend([drop(100)] * 2)
    command.ends(0)
    assert not (command.root / "logfiles").exists()


def test_voicebank_reports_pairs_that_do_not_match(command: Command):
    command.ends(0)
    (command.root / "noisy_testset_wav" / "p232_001.wav").rename(
        command.root / "noisy_testset_wav" / "p232_002.wav"
    )
    assert "p232_001.wav: has no noisy file of that name" in command.ends(2)


def test_voicebank_refuses_a_folder_in_use(command: Command):
    (command.root / ".download").mkdir(parents=True)
    with hold(command.root / ".download", ""):
        assert "Wait for it, stop it, or name another folder with --root" in command.ends(2)
    command.ends(0)


def test_voicebank_refuses_a_root_that_is_a_file(command: Command, tmp_path: Path):
    (tmp_path / "file").touch()
    said = command.ends(1, "--root", str(tmp_path / "file"))
    assert f"{tmp_path / 'file'}" in said
    assert "the same command goes on from here" in said


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
def test_voicebank_goes_on_after_an_interruption(command: Command, tmp_path: Path):
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "import time; from pathlib import Path; from small_voicebank import archives, contents\n"
        "from data import voicebank; from data.workers import stop_by_signals\n"
        "stop_by_signals()\n"
        "sys.exit(voicebank.main(['--root', sys.argv[1], '--workers', '1'],"
        " archives(contents(), sys.argv[2])))\n"
    )
    words = [sys.executable, "-c", code, str(command.root), command.server.address("")]
    with subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        while not list(command.root.glob("clean_testset_wav/*.wav")) and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode in (0, 130)
    if process.returncode == 130:
        assert errors.splitlines()[-1] == (
            "voicebank: interrupted; the same command goes on from here"
        )
    assert not list(command.root.rglob("*.partial"))
    command.ends(0)
