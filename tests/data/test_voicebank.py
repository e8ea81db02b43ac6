"""`python -m bsbimamba.data.voicebank`, on a small corpus that a local server publishes."""

import hashlib
import io
import os
import threading
import zipfile
from collections.abc import Iterator
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
CONTENT = np.random.default_rng(0).bytes(300_000)

pytestmark = pytest.mark.usefixtures("own_index")


class Server(ThreadingHTTPServer):
    """Serves `files` by name, from the byte on that is asked for if `ranges`.

    Attributes:
        breaks: after how many bytes the connection breaks, one for each of the next requests.
        asked: the path and the Range of each request so far, in their order.
        recordings: what the archives in `files` hold.
    """

    daemon_threads = ranges = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.breaks: list[int] = []
        self.recordings: dict[str, np.ndarray] = {}
        self.asked: list[tuple[str, str | None]] = []

    def address(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked, name = self.headers["Range"], self.path.lstrip("/")
        self.server.asked.append((name, asked))
        first = int(asked[6:-1]) if asked and self.server.ranges else 0
        body = self.server.files.get(name, b"")[first:]
        missing = 404 if name not in self.server.files else 416
        self.send_response((206 if first else 200) if body else missing)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.breaks.pop(0)] if self.server.breaks else body)

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


def get(server: Server, folder: Path, *names: str) -> None:
    """Download a file from the first of some names, and check it."""
    server.files["a.zip"] = CONTENT
    addresses = [server.address(name) for name in names or ["a.zip"]]
    download(addresses, folder / "a.zip", hashlib.md5(CONTENT).hexdigest())
    assert (folder / "a.zip").read_bytes() == CONTENT
    assert os.listdir(folder) == ["a.zip"]


def test_download_goes_on_where_connections_break(server: Server, tmp_path: Path) -> None:
    server.breaks = [1000, 0, 70_000]
    get(server, tmp_path)
    ranges = [asked for _, asked in server.asked]
    assert ranges == [None, "bytes=1000-", "bytes=1000-", "bytes=71000-"]
    server.breaks = [5000, *[0] * (TRIES - 1)]
    with pytest.raises(FailedError, match=r"ended after 5000 of 300000 bytes.*Run again later"):
        get(server, tmp_path)
    get(server, tmp_path)
    assert server.asked[-1] == ("a.zip", "bytes=5000-")


@pytest.mark.parametrize("arrived", [5000, len(CONTENT)])
@pytest.mark.parametrize("ranges", [True, False])
def test_download_takes_what_has_arrived_or_begins_anew(
    server: Server, tmp_path: Path, arrived: int, ranges: bool
) -> None:
    """A server without ranges sends the whole file, which replaces what has arrived."""
    server.ranges = ranges
    (tmp_path / "a.zip.part1").write_bytes(CONTENT[:arrived])
    get(server, tmp_path)
    assert len(server.asked) == 1


def test_download_discards_another_file(server: Server, tmp_path: Path) -> None:
    server.files["other.zip"] = b"another file"
    with pytest.raises(FailedError, match="is not what was published"):
        get(server, tmp_path, "other.zip")
    assert os.listdir(tmp_path) == []
    get(server, tmp_path, "missing.zip", "other.zip", "a.zip")


# The command


def zipped(files: dict[str, bytes]) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return whole.getvalue()


@pytest.fixture
def published(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server that publishes a small corpus of noise at 48 kHz and in 16 bits."""
    server.files = {"logfiles.zip": zipped({"logs/log_testset.txt": b"p232_001 bus 17.5\n"})}
    rng = np.random.default_rng(0)
    for folder, names in FOLDERS.items():
        members = {"__MACOSX/._a.wav": b"x"}
        for name in [f"{folder}/{x}.wav" for x in names]:
            encoded = io.BytesIO()
            server.recordings[name] = rng.integers(-9999, 9999, 14_400, np.int16)
            sf.write(encoded, server.recordings[name], RATE, format="WAV")
            members[name] = encoded.getvalue()
        server.files[f"{folder}.zip"] = zipped(members)
    counts = [1, *map(len, FOLDERS.values())]
    archives = [
        Archive(name, hashlib.md5(content).hexdigest(), (server.address(name),), count)
        for (name, content), count in zip(server.files.items(), counts, strict=True)
    ]
    monkeypatch.setattr(voicebank, "PUBLISHED", archives)
    return server


def test_voicebank_makes_a_corpus_once(
    published: Server, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    root = tmp_path / "root"
    assert main(["--root", str(root)]) == 0
    assert capsys.readouterr().out == f"{root}: 6 train pairs, 3 test pairs\n"
    assert [name for name, _ in published.asked] == list(published.files)
    assert [pair.name for pair in load_pairs(root, "test")] == TEST
    assert (root / "logfiles" / "log_testset.txt").read_text() == "p232_001 bus 17.5\n"
    made = {path: path.stat().st_mtime_ns for path in root.glob("*_wav/*")}
    assert made.keys() == {root / name for name in published.recordings}
    for name, x in published.recordings.items():
        expected = np.round(soxr.resample(x.astype(float), RATE, 16000, quality="VHQ"))
        found, rate = sf.read(root / name, dtype="int16")
        assert rate == 16000
        np.testing.assert_array_equal(found, expected.clip(-32768, 32767))
    assert main(["--root", str(root)]) == 0
    assert {path: path.stat().st_mtime_ns for path in root.glob("*_wav/*")} == made
    assert len(published.asked) == len(published.files)


@pytest.mark.parametrize("kept", [True, False])
def test_voicebank_makes_missing_files_again(kept: bool, published: Server, tmp_path: Path) -> None:
    main(["--root", str(tmp_path)])
    published.asked.clear()
    if not kept:
        (tmp_path / ".download" / "noisy_testset_wav.zip").write_bytes(b"PK")
    missing = tmp_path / "noisy_testset_wav" / "p232_001.wav"
    content = missing.read_bytes()
    missing.unlink()
    assert main(["--root", str(tmp_path)]) == 0
    assert missing.read_bytes() == content
    assert published.asked == ([] if kept else [("noisy_testset_wav.zip", None)])


def test_voicebank_ends_with_a_message_where_an_archive_is_missing(
    published: Server, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    content = published.files.pop("noisy_testset_wav.zip")
    assert main(["--root", str(tmp_path)]) == 1
    assert "noisy_testset_wav.zip cannot be downloaded" in capsys.readouterr().err
    published.files["noisy_testset_wav.zip"] = content
    assert main(["--root", str(tmp_path)]) == 0
