"""Bad recordings, full disks, lost processes: a message, and nothing half-written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch
from conftest import ROOT
from enhance_command import RATE, carried_out, command, files, put
from recordings import sound
from saved_runs import save_run

import enhance
from enhancement import batch
from enhancement.audio_file import FileSource
from enhancement.batch import enhance_all, select
from enhancement.model import load
from enhancement.targets import Job


def put_bad(folder: Path) -> dict[str, str]:
    """Files that cannot be enhanced, and what has to be said of each."""
    folder.mkdir()
    whole = put(folder / "whole.wav", rate=8_000).read_bytes()
    flac = put(folder / "whole.flac").read_bytes()
    (folder / "text.wav").write_text("this is no audio")
    (folder / "empty.wav").touch()
    sf.write(folder / "none.wav", np.zeros(0), RATE)
    (folder / "cut.wav").write_bytes(whole[: len(whole) // 2])
    (folder / "cut.flac").write_bytes(flac[: len(flac) // 2])
    aiff = put(folder / "whole.aiff").read_bytes()
    (folder / "whole.aiff").write_bytes(aiff[: len(aiff) // 2])
    sf.write(folder / "nan.wav", np.r_[sound(0.1), np.nan], RATE, "FLOAT")
    sf.write(folder / "inf.wav", np.r_[np.inf, sound(0.1)], RATE, "FLOAT")
    sf.write(folder / "huge.wav", 1e15 * sound(0.1), RATE, "FLOAT")
    sf.write(folder / "slow.wav", sound(0.1), 400)
    # It says that it holds hours, as a damaged header may.
    lying = bytearray(flac)
    lying[21:26] = bytes([lying[21] | 0x0F]) + b"\xff\xff\xff\xff"
    (folder / "lying.flac").write_bytes(lying)
    (folder / "gone.wav").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "pipe.wav")
    (folder / "whole.wav").unlink()
    (folder / "whole.flac").unlink()
    return {
        "text.wav": "cannot be decoded",
        "empty.wav": "empty: no bytes",
        "none.wav": "empty: no samples",
        "cut.wav": "cut short",
        "cut.flac": "cannot be decoded",
        "whole.aiff": "cut short",
        "nan.wav": "NaN or infinite",
        "inf.wav": "NaN or infinite",
        "huge.wav": "no audio: above 200 dB",
        "slow.wav": "a sampling rate of 400 Hz",
        "lying.flac": "cannot be decoded",
        "gone.wav": "cannot be opened (No such file",
        "pipe.wav": "not a file",
    }


def test_bad_files_are_told_and_stop_no_others(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    reasons = put_bad(tmp_path / "in")
    for name in ("a.wav", "zz/z.wav"):
        put(tmp_path / "in" / name)
    status, message = carried_out(capsys, run, tmp_path / "out", tmp_path / "in")
    assert status == 1
    lines = message.splitlines()
    for name, reason in reasons.items():
        (line,) = (line for line in lines if line.startswith(f"{tmp_path / 'in' / name}: "))
        assert reason in line
    assert lines[-1] == f"2 of 15 files enhanced into {tmp_path / 'out'}; 13 failed"
    assert len(lines) == len(reasons) + 1
    assert files(tmp_path / "out") == ["a.wav", "zz/z.wav"]


def test_odd_files_are_enhanced_with_a_note(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    sf.write(tmp_path / "silent.wav", np.zeros((500, 2)), RATE)
    sf.write(tmp_path / "one.wav", np.full(1, 0.5), 48_000)
    sf.write(tmp_path / "clipped.wav", (30 * sound(0.3)).clip(-1, 1), RATE)
    status, message = carried_out(capsys, run, tmp_path / "out", *sorted(tmp_path.glob("*.wav")))
    assert status == 0
    clipped, silent, last = message.splitlines()
    assert clipped.startswith(f"{tmp_path}/clipped.wav: clipped: ")
    assert silent == f"{tmp_path}/silent.wav: silent"
    assert last.startswith("3 of 3")
    assert not sf.read(tmp_path / "out" / "silent.wav")[0].any()
    assert sf.info(tmp_path / "out" / "one.wav").frames == 1


def test_what_is_beyond_full_scale_is_clipped_and_told(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Of 16-bit files; floating-point ones hold it."""
    x = (30 * sound(0.3)).clip(-1, 1)
    for subtype in ("PCM_16", "FLOAT"):
        sf.write(tmp_path / f"{subtype}.wav", x, RATE, subtype)
        _, message = carried_out(capsys, run, tmp_path / "out", tmp_path / f"{subtype}.wav")
        assert ("beyond full scale" in message) == (subtype == "PCM_16")
    one, other = (sf.read(tmp_path / "out" / f"{s}.wav")[0] for s in ("PCM_16", "FLOAT"))
    assert np.abs(other).max() > 1
    np.testing.assert_allclose(one, other.clip(-1, 1), atol=1e-4)


def test_a_place_that_cannot_be_written(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """A folder stands where a file, a file where a folder should be."""
    put(tmp_path / "in" / "a.wav")
    put(tmp_path / "in" / "sub" / "b.wav")
    (tmp_path / "out" / "a.wav").mkdir(parents=True)
    (tmp_path / "out" / "sub").touch()
    status, message = carried_out(capsys, run, tmp_path / "out", tmp_path / "in", "--overwrite")
    assert status == 1
    assert message.count("\n") == 3
    assert "out/a.wav is a folder" in message
    assert "out/sub: File exists" in message
    assert files(tmp_path / "out") == ["sub"]


def test_a_recording_that_is_replaced_meanwhile(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path / "a.wav")
    made = batch.enhanced

    def then_replaced(*arguments: Any) -> Iterator[np.ndarray]:
        yield from made(*arguments)
        put(path, rate=8_000)

    monkeypatch.setattr(batch, "enhanced", then_replaced)
    (tmp_path / "out").mkdir()
    jobs = [Job(path, tmp_path / "out" / "a.wav")]
    model = load(run)
    (outcome,) = enhance_all(model, jobs, tmp_path / "out", False, 1)
    assert outcome.error == "it changed while it was read"
    assert os.listdir(tmp_path / "out") == []
    assert select(model, jobs, tmp_path / "out") == jobs


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA")])
def test_a_lack_of_memory_is_one_files_matter(
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    first = iter([True])
    surveyed = batch.survey

    def fail(source: FileSource) -> object:
        if next(first, False):
            raise error
        return surveyed(source)

    monkeypatch.setattr(batch, "survey", fail)
    for name in "ab":
        put(tmp_path / "in" / f"{name}.wav")
    status, message = carried_out(capsys, run, tmp_path / "out", tmp_path / "in")
    assert status == 1
    assert "a.wav: there is not enough memory for it" in message
    assert files(tmp_path / "out") == ["b.wav"]


def test_a_full_disk(run: Path, tmp_path: Path) -> None:
    """Here, a limit on the size of a file: what fits is written, the rest is not begun twice."""
    put(tmp_path / "in" / "large.wav", rate=48_000)
    put(tmp_path / "in" / "small.wav", rate=4_000)
    limited = (
        "import resource, runpy, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "sys.argv = sys.argv[1:]\n"
        "sys.path.insert(0, sys.argv[0].rpartition('/')[0])\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    words = command(run, tmp_path / "in", "-o", tmp_path / "out")
    words[1:1] = ["-c", limited]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert result.returncode == 1, result.stderr
    first, last = result.stderr.splitlines()
    assert first.startswith(f"{tmp_path}/in/large.wav: ")
    assert "1 failed" in last
    assert files(tmp_path / "out") == ["small.wav"]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks at processes in /proc")
def test_a_process_that_is_killed_costs_its_file_only(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.wav", "b.wav", "c.wav"):
        put(tmp_path / "in" / name)
    monkeypatch.setattr(batch, "enhance_order", _dies_of_b)
    status, message = carried_out(capsys, run, tmp_path / "out", tmp_path / "in", "--jobs", "2")
    assert status == 1
    assert "b.wav: its process died" in message
    assert "2 of 3 files enhanced" in message
    assert files(tmp_path / "out") == ["a.wav", "c.wav"]


def test_a_model_that_goes_away_is_a_message(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = save_run(tmp_path / "run")
    for name in ("a.wav", "b.wav"):
        put(tmp_path / "in" / name)
    selected = enhance.select

    def then_gone(*arguments: Any) -> list[Job]:
        (gone / "best.pt").unlink()
        return selected(*arguments)

    monkeypatch.setattr(enhance, "select", then_gone)
    status, message = carried_out(capsys, gone, tmp_path / "out", tmp_path / "in", "--jobs", "2")
    assert status == 1
    assert message.count("the model cannot be loaded any more") == 2


def _dies_of_b(order: batch.Order) -> batch.Outcome:
    if order.job.source.name == "b.wav":
        os.kill(os.getpid(), signal.SIGKILL)
    return batch.enhance_order(order)  # as it is in another process


@pytest.mark.slow
def test_memory_does_not_grow_with_length(run: Path, tmp_path: Path) -> None:
    """Three hours take no more than three minutes do, but for what the allocator leaves lying."""
    told = (
        "import resource, sys, enhance\n"
        "status = enhance.main(sys.argv[1:])\n"
        "print(status, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peaks = []
    for minutes in (3, 180):
        path = tmp_path / f"{minutes}.wav"
        with sf.SoundFile(path, "w", RATE, 1) as file:
            for _ in range(minutes):
                file.write(sound(60))
        out = str(tmp_path / "out")
        words = [sys.executable, "-c", told, str(path), "-o", out, "--checkpoint", str(run)]
        result = subprocess.run(
            words, cwd=ROOT, capture_output=True, text=True, check=True, timeout=1800
        )
        status, peak = map(int, result.stdout.split())
        assert status == 0
        assert sf.info(tmp_path / "out" / path.name).frames == minutes * 60 * RATE
        peaks.append(peak / 1024)
    assert peaks[1] < peaks[0] + 50  # MiB; the recording alone would be 660
