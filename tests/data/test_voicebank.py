"""`python -m bsbimamba.data.voicebank`, on a small corpus that a local server publishes."""

import hashlib
import io
import os
import threading
import zipfile
from collections import deque
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import soxr

from bsbimamba.data import voicebank
from bsbimamba.data.corpus import load_pairs
from bsbimamba.data.voicebank import TRIES, Archive, download, main
from bsbimamba.utils import FailedError

RATE = 48_000
TRAIN = [f"{speaker}_{number:03}" for speaker in ("p225", "p226", "p287") for number in (1, 2)]
TEST = ["p232_001", "p257_001", "p257_002"]
FOLDERS = {
    "clean_testset_wav": TEST,
    "noisy_testset_wav": TEST,
    "clean_trainset_28spk_wav": TRAIN,
    "noisy_trainset_28spk_wav": TRAIN,
}
Get = Callable[..., None]
CONTENT = np.random.default_rng(0).bytes(300_000)
MD5 = hashlib.md5(CONTENT).hexdigest()

pytestmark = pytest.mark.usefixtures("own_index")


class Server(ThreadingHTTPServer):
    """Serves `files` by name, with ranges if `ranges`.

    Attributes:
        faults: what the next requests meet, one each: a status, or after how many bytes the
            connection breaks.
        asked: the path and the Range of each request so far, in their order.
    """

    daemon_threads = ranges = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.faults: deque[tuple[str, int]] = deque()
        self.asked: list[tuple[str, str | None]] = []

    def address(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.close_connection = True
        asked, name = self.headers["Range"], self.path.lstrip("/")
        self.server.asked.append((name, asked))
        content = self.server.files.get(name, b"")
        kind, value = self.server.faults.popleft() if content and self.server.faults else ("", 0)
        first = int(asked[6:-1]) if asked and self.server.ranges else 0
        status = 404 if not content else value if kind == "status" else 206 if first else 200
        body = content[first:] if status < 300 else b""
        self.send_response(416 if content and not body and status < 300 else status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:value] if kind == "break" else body)

    def log_message(self, *args: object) -> None:
        """Print nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(voicebank, "PAUSE", 0)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


# Downloads


@pytest.fixture
def get(server: Server, tmp_path: Path) -> Get:
    """A function that downloads a file from the first of some names, and checks it."""
    server.files["a.zip"] = CONTENT

    def call(*names: str) -> None:
        download([server.address(x) for x in names or ["a.zip"]], tmp_path / "a.zip", MD5)
        assert (tmp_path / "a.zip").read_bytes() == CONTENT
        assert os.listdir(tmp_path) == ["a.zip"]

    return call


def test_download_goes_on_where_connections_break(server: Server, get: Get) -> None:
    server.faults.extend([("break", 1000), ("status", 503), ("break", 70_000)])
    get()
    ranges = [asked for _, asked in server.asked]
    assert ranges == [None, "bytes=1000-", "bytes=1000-", "bytes=71000-"]
    server.faults.extend([("break", 5000), *[("break", 0)] * TRIES])
    with pytest.raises(FailedError, match=r"ended after 5000 of 300000 bytes.*Run again later"):
        get()
    get()
    assert server.asked[-1] == ("a.zip", "bytes=5000-")


@pytest.mark.parametrize("arrived", [5000, len(CONTENT)])
@pytest.mark.parametrize("ranges", [True, False])
def test_download_takes_what_has_arrived_or_begins_anew(
    server: Server, get: Get, tmp_path: Path, arrived: int, ranges: bool
) -> None:
    """A server without ranges sends the whole file, which replaces what has arrived."""
    server.ranges = ranges
    (tmp_path / "a.zip.part").write_bytes(CONTENT[:arrived])
    get()
    assert len(server.asked) == 1


def test_download_discards_another_file(server: Server, get: Get, tmp_path: Path) -> None:
    server.files["other.zip"] = b"another file"
    with pytest.raises(FailedError, match="is not what was published"):
        get("other.zip")
    assert os.listdir(tmp_path) == []
    get("missing.zip", "other.zip", "a.zip")


# The command


def wav(seed: int) -> bytes:
    encoded = io.BytesIO()
    noise = 0.1 * np.random.default_rng(seed).standard_normal(14_400)
    sf.write(encoded, noise, RATE, format="WAV")
    return encoded.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return whole.getvalue()


class Command:
    """The command on a small corpus of noise, published by `server`."""

    def __init__(self, root: Path, server: Server, capsys: pytest.CaptureFixture) -> None:
        self.root, self.server, self._capsys = root, server, capsys
        names = [f"{folder}/{name}.wav" for folder, files in FOLDERS.items() for name in files]
        self.recordings = {name: wav(seed) for seed, name in enumerate(names)}
        server.files = {"logfiles.zip": zipped({"logs/log_testset.txt": b"p232_001 bus 17.5\n"})}
        for folder in FOLDERS:
            members = {name: x for name, x in self.recordings.items() if folder in name}
            # With what macOS adds.
            server.files[f"{folder}.zip"] = zipped({"__MACOSX/._a.wav": b"x"} | members)
        counts = [0, *map(len, FOLDERS.values())]
        self.archives = [
            Archive(name, hashlib.md5(content).hexdigest(), (server.address(name),), count)
            for (name, content), count in zip(server.files.items(), counts, strict=True)
        ]

    def ends(self, status: int, *options: str) -> str:
        """Return what it says; check with which status it ends."""
        assert main(["--root", str(self.root), "--workers", "1", *options]) == status
        output = self._capsys.readouterr()
        return output.err if status else output.out

    def asked(self) -> list[str]:
        """Return the archives that were asked for since the last time."""
        names = [name for name, _ in self.server.asked]
        self.server.asked.clear()
        return names


@pytest.fixture
def command(
    tmp_path: Path,
    server: Server,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> Command:
    made = Command(tmp_path / "root", server, capsys)
    monkeypatch.setattr(voicebank, "PUBLISHED", made.archives)
    return made


def test_voicebank_makes_a_corpus_once(command: Command) -> None:
    assert command.ends(0) == f"{command.root}: 6 train pairs, 3 test pairs\n"
    assert command.asked() == list(command.server.files)
    assert [pair.name for pair in load_pairs(command.root, "test")] == TEST
    assert (command.root / "logfiles" / "log_testset.txt").is_file()
    made = {path: path.stat().st_mtime_ns for path in command.root.glob("*_wav/*")}
    assert made.keys() == {command.root / name for name in command.recordings}
    for name, content in command.recordings.items():
        x, _ = sf.read(io.BytesIO(content))
        expected = np.round(32768 * soxr.resample(x, RATE, 16000, quality="VHQ"))
        found, rate = sf.read(command.root / name, dtype="int16")
        assert rate == 16000
        np.testing.assert_array_equal(found, expected.clip(-32768, 32767))
    command.ends(0)
    assert {path: path.stat().st_mtime_ns for path in command.root.glob("*_wav/*")} == made
    assert command.asked() == []


@pytest.mark.parametrize("kept", [True, False])
def test_voicebank_makes_missing_files_again(kept: bool, command: Command) -> None:
    command.ends(0, *([] if kept else ["--remove-archives"]))
    assert any((command.root / ".download").glob("*.zip")) == kept
    command.asked()
    missing = command.root / "noisy_testset_wav" / "p232_001.wav"
    content = missing.read_bytes()
    missing.unlink()
    command.ends(0)
    assert missing.read_bytes() == content
    assert command.asked() == ([] if kept else ["noisy_testset_wav.zip"])


def test_voicebank_refuses_another_archive(command: Command) -> None:
    (command.root / ".download").mkdir(parents=True)
    (command.root / ".download" / "clean_testset_wav.zip").write_bytes(b"PK")
    assert "clean_testset_wav.zip has another MD5 than was published" in command.ends(2)


def test_voicebank_needs_recordings_but_no_logs(
    command: Command, caplog: pytest.LogCaptureFixture
) -> None:
    del command.server.files["logfiles.zip"]
    content = command.server.files.pop("noisy_testset_wav.zip")
    assert "noisy_testset_wav.zip cannot be downloaded" in command.ends(1)
    assert "Going on without: noises and SNRs will not be known" in caplog.text
    command.server.files["noisy_testset_wav.zip"] = content
    command.ends(0)
