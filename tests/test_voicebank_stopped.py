"""`python -m data.voicebank`, interrupted or killed, on disks that are full or read-only."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import http_server as faults
import pytest
from conftest import ROOT
from http_server import Server
from marked import alive, assert_none_left, has_loaded, new_mark
from small_voicebank import Published, recording, wav, write_all, zipped

from data import prepared, voicebank
from data.datashare import Archive
from data.download import Patience

CODE = """
import json, sys
from data.datashare import Archive
from data.voicebank import main
from data.workers import stop_by_signals
stop_by_signals()
sys.exit(main(sys.argv[2:], [Archive(**each) for each in json.loads(sys.argv[1])]))
"""

MARK = new_mark()
needs_proc = pytest.mark.skipif(
    not Path("/proc/self/maps").exists(), reason="looks at processes in /proc"
)


@contextmanager
def running(root: Path, archives: Sequence[Archive], *options: str) -> Iterator[subprocess.Popen]:
    """The command in a process of its own; in the end, none is left that it has started."""
    described = json.dumps([asdict(each) for each in archives])
    words = [sys.executable, "-c", CODE, described, "--root", str(root), *options]
    # Whoever runs the tests in the background has them ignore Ctrl-C, and hands that on.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        words, cwd=ROOT, env=os.environ | MARK, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
    assert_none_left(MARK)


def stop(process: subprocess.Popen, number: int) -> str:
    """Stop the command; what it has said."""
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.send_signal(number)
    output, message = process.communicate(timeout=60)
    assert "Traceback" not in message
    if number == signal.SIGKILL:
        assert process.returncode == -number
    else:
        assert process.returncode == 130
        assert message.endswith("voicebank: interrupted; the same command goes on from here\n")
    assert output == ""
    return message


def wait_until(process: subprocess.Popen, happened: Callable[[], bool]) -> None:
    while not happened():
        if process.poll() is not None:
            pytest.fail(f"ended with {process.returncode}: {process.communicate()}")
        time.sleep(0.01)


def finish(root: Path, archives: Sequence[Archive], *options: str, status: int = 0) -> None:
    words = ["--root", str(root), "--workers", "1", *options]
    assert voicebank.main(words, archives, Patience(tries=1)) == status


STOPS = [signal.SIGINT, signal.SIGTERM, signal.SIGKILL]


@needs_proc
@pytest.mark.parametrize("number", STOPS)
def test_stopped_while_downloading(number: int, tmp_path: Path, server: Server):
    published, root = Published(), tmp_path / "root"
    server.files = published.contents()
    archives = published.archives(server.files, server.address(""))
    server.faults.extend([faults.send, faults.stall(5000)])
    part = root / ".download" / "clean_testset_wav.zip.part"
    with running(root, archives) as process:
        wait_until(process, lambda: part.is_file() and part.stat().st_size == 5000)
        finish(root, archives, status=2)  # the folder is in use
        stop(process, number)
    server.asked.clear()
    finish(root, archives)
    assert server.asked[0][:2] == ("/clean_testset_wav.zip", "bytes=5000-")
    assert prepared.is_finished(root, archives)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Archive]]:
    """Archives that take some seconds to convert, and their description."""
    folder = tmp_path_factory.mktemp("large")
    same = wav(recording(0, 6.0))
    files = {f"p232_{number:03}.wav": same for number in range(60)}
    folders = [f"{side}_testset_wav" for side in ("clean", "noisy")]
    contents = {
        f"{name}.zip": zipped({f"{name}/{file}": data for file, data in files.items()},
                              zipfile.ZIP_STORED)
        for name in folders
    }  # fmt: skip
    write_all(folder, contents)
    return folder, Published().archives(contents, "http://127.0.0.1:1/")


@needs_proc
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_stopped_while_converting(number: int, tmp_path: Path, large: tuple[Path, list[Archive]]):
    folder, archives = large
    root, options = tmp_path / "root", ("--from", str(folder))
    journal = root / ".download" / "clean_testset_wav.jsonl"

    def lines() -> list[str]:
        return journal.read_text().splitlines()[1:] if journal.is_file() else []

    with running(root, archives, "--workers", "2", *options) as process:
        wait_until(process, lambda: len(lines()) >= 8)
        stop(process, number)
    done = [json.loads(line)["name"] for line in lines()]
    assert len(done) >= 8
    stamps = {name: (root / "clean_testset_wav" / name).stat().st_mtime_ns for name in done}
    finish(root, archives, *options)
    assert prepared.is_finished(root, archives)
    for name, stamp in stamps.items():
        assert (root / "clean_testset_wav" / name).stat().st_mtime_ns == stamp, name
    made = sorted((root / "clean_testset_wav").iterdir())
    assert len(made) == 60
    assert len({path.read_bytes() for path in made}) == 1


@needs_proc
def test_a_killed_worker(tmp_path: Path, large: tuple[Path, list[Archive]]):
    folder, archives = large
    root, options = tmp_path / "root", ("--from", str(folder), "--workers", "2")
    made = root / "clean_testset_wav"
    with running(root, archives, *options) as process:
        wait_until(process, lambda: made.is_dir() and len(list(made.glob("*.wav"))) > 2)
        workers = [p for p in alive(MARK) - {process.pid} if has_loaded(p, "soxr")]
        os.kill(workers[0], signal.SIGKILL)
        _, message = process.communicate(timeout=60)
    assert process.returncode == 1
    assert message.endswith(
        "voicebank: a converting process was killed (out of memory?). Run again, which goes on "
        "from here, if need be with fewer --workers.\n"
    )


# Disks


@contextmanager
def disk(place: Path, *options: str) -> Iterator[Callable[[str], bool]]:
    """A file system of its own; gives a function that changes its options."""
    place.mkdir(exist_ok=True)

    def mount(*words: str) -> bool:
        command = ["mount", *words, str(place)]
        return not subprocess.run(command, capture_output=True, check=False).returncode

    if not mount("-t", "tmpfs", "-o", ",".join(options), "tmpfs"):
        pytest.skip("a file system cannot be mounted here (needs root)")
    try:
        yield lambda changed: mount("-o", f"remount,{changed}")
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_read_only_folder(tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]):
    published, root = Published(), tmp_path / "root"
    server.files = published.contents()
    archives = published.archives(server.files, server.address(""))
    with disk(root, "size=5m") as change:
        change("ro")
        finish(root, archives, status=2)
        said = capsys.readouterr().err
        assert f"{root} cannot be written to (Read-only file system); name another" in said
        change("rw")
        finish(root, archives)
        change("ro")
        capsys.readouterr()
        finish(root, archives)  # there is nothing to do
        assert "is there already" in capsys.readouterr().out


@pytest.mark.parametrize("size", ["8k", "44k", "224k", "404k", "692k"])
def test_a_full_disk(size: str, tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]):
    """While it downloads (the server does not say how much), or converts, or sums up."""
    published, root = Published(), tmp_path / "root"
    server.files, server.always = published.contents(), faults.unmeasured
    archives = published.archives(server.files, server.address(""))
    archives = [replace(each, size=1) for each in archives]
    with disk(root, f"size={size}") as change:
        finish(root, archives, status=1)
        said = capsys.readouterr().err
        assert "No space left on device; the same command goes on from here" in said
        assert "Traceback" not in said
        assert not list(root.rglob("*.partial"))
        change("size=20m")
        finish(root, archives)
        assert prepared.is_finished(root, archives)
