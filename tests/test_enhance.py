"""Enhancing files and folders: what the command makes and refuses, and a test set's files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from conftest import ROOT
from marked import new_mark, started
from recordings import put as put_at_16_khz
from recordings import sound
from torch import Tensor

import enhance
from abl3.mbs_net import MBSNet
from data.audio import read
from enhance import load
from enhancement import files
from enhancement.files import enhance_files

RATE = 16_000
KINDS = [
    ("a.wav", 16_000, 1, "PCM_16"),
    ("b.wav", 44_100, 2, "PCM_24"),
    ("c.wav", 192_000, 8, "FLOAT"),
    ("d.wav", 4_000, 1, "PCM_U8"),
    ("e.wav", 8_000, 1, "ULAW"),
    ("f.flac", 22_050, 2, "PCM_16"),
    ("g.ogg", 48_000, 2, "VORBIS"),
    ("h.opus", 24_000, 1, "OPUS"),
    ("i.mp3", 32_000, 1, "MPEG_LAYER_III"),
    ("j.aiff", 11_025, 1, "PCM_16"),
    ("k.caf", 48_000, 1, "DOUBLE"),
    ("l.au", 16_000, 1, "PCM_32"),
    ("m.w64", 96_000, 3, "PCM_24"),
    ("n.rf64", 16_000, 1, "PCM_16"),
]


def put(path: Path, *, rate: int = RATE, channels: int = 1, subtype: str | None = None) -> Path:
    """A recording of 0.3 s whose channels differ."""
    path.parent.mkdir(parents=True, exist_ok=True)
    x = np.stack([sound(0.3, rate, seed=channel) for channel in range(channels)], 1)
    kind = {"oga": "OGG", "opus": "OGG"}.get(path.suffix[1:], path.suffix[1:].upper())
    sf.write(path, x, rate, subtype, format=kind)
    return path


def carried_out(
    capsys: pytest.CaptureFixture, run: Path, out: Path, *words: object
) -> tuple[int, str]:
    """Status and messages of the command, which prints nothing else."""
    status = enhance.main([*map(str, words), "-o", str(out), "--checkpoint", str(run)])
    printed, message = capsys.readouterr()
    assert printed == ""
    return status, message


def found(folder: Path) -> list[str]:
    """All files below a folder, hidden ones too."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def test_every_kind_of_file_comes_back_as_it_was(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    for name, rate, channels, subtype in KINDS:
        put(tmp_path / "in" / name, rate=rate, channels=channels, subtype=subtype)
    status, message = carried_out(capsys, run, tmp_path / "out", tmp_path / "in")
    assert status == 0
    assert message == f"{len(KINDS)} of {len(KINDS)} files enhanced into {tmp_path / 'out'}\n"
    model = load(run)
    for name, rate, _, subtype in KINDS:
        before, after = (sf.info(tmp_path / side / name) for side in ("in", "out"))
        for part in ("samplerate", "channels", "frames", "format", "subtype", "endian"):
            assert getattr(after, part) == getattr(before, part), (name, part)
        # The samples are those of the Python interface, as exact as the encoding is.
        x, y = (sf.read(tmp_path / side / name, dtype="float32", always_2d=True)[0].T
                for side in ("in", "out"))  # fmt: skip
        alike = np.corrcoef(y.ravel(), model(x, rate).ravel())[0, 1]
        lossy = subtype in ("VORBIS", "OPUS", "MPEG_LAYER_III", "ULAW", "PCM_U8")
        assert alike > (0.6 if lossy else 1 - 1e-6), (name, alike)


def test_long_files_are_what_the_function_makes_of_them(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    """Two windows and more, in blocks at 12 kHz."""
    x = np.stack([np.tile(sound(5, 12_000, seed=seed), 8) for seed in range(2)])
    sf.write(tmp_path / "a.wav", x.T, 12_000, "FLOAT")
    assert carried_out(capsys, run, tmp_path / "out", tmp_path / "a.wav")[0] == 0
    y = sf.read(tmp_path / "out" / "a.wav", dtype="float32")[0].T
    np.testing.assert_allclose(y, load(run)(x.astype(np.float32), 12_000), atol=1e-7)


def test_byte_order_and_tags_are_kept(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    sf.write(tmp_path / "big.wav", sound(0.1), RATE, "PCM_16", "BIG")
    with sf.SoundFile(tmp_path / "a.flac", "w", RATE, 1) as file:
        file.title, file.comment = "Ein Gespräch", "made by another program"
        file.write(sound(0.1))
    carried_out(capsys, run, tmp_path / "out", tmp_path / "big.wav", tmp_path / "a.flac")
    assert sf.info(tmp_path / "out" / "big.wav").endian == "BIG"
    with sf.SoundFile(tmp_path / "out" / "a.flac") as file:
        assert (file.title, file.comment) == ("Ein Gespräch", "")


def test_folders_keep_their_structure(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    for name in ("one/a.wav", "one/deep/er/b ü.FLAC", "two/a.wav", "c.wav"):
        put(tmp_path / name)
    for name in ("one/notes.txt", "one/.hidden.wav"):
        (tmp_path / name).write_text("no audio")
    (tmp_path / "one" / "loop").symlink_to(tmp_path / "one")
    inputs = [tmp_path / "one", tmp_path / "c.wav", tmp_path / "c.wav"]
    assert carried_out(capsys, run, tmp_path / "single", *inputs)[0] == 0
    assert found(tmp_path / "single") == ["a.wav", "c.wav", "deep/er/b ü.FLAC"]
    # Of several folders, each has one of its name.
    assert carried_out(capsys, run, tmp_path / "both", tmp_path / "one", tmp_path / "two")[0] == 0
    assert found(tmp_path / "both") == ["one/a.wav", "one/deep/er/b ü.FLAC", "two/a.wav"]
    # An output folder within the input is none of its recordings.
    for _ in range(2):
        assert carried_out(capsys, run, tmp_path / "one" / "out", tmp_path / "one")[0] == 0
    assert found(tmp_path / "one" / "out") == ["a.wav", "deep/er/b ü.FLAC"]


@pytest.mark.parametrize(
    ("words", "out", "reason"),
    [
        (["in"], "in", "lies in the output folder"),
        (["in/a.wav"], "in", "is a recording that is to be enhanced"),
        (["in/a.wav", "--overwrite"], "in/new/..", "is a recording that is to be enhanced"),
        (["in/a.wav", "in/sub/a.wav"], "out", "would both become"),
        (["other.wav"], "out", "no such file or folder"),
        (["empty"], "out", "no audio in it"),
    ],
)
def test_wrong_commands_are_refused_before_anything_is_written(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch,
    words: list[str], out: str, reason: str,
):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "in" / "a.wav")
    put(tmp_path / "in" / "sub" / "a.wav")
    (tmp_path / "empty").mkdir()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    status, message = carried_out(capsys, run, Path(out), *words)
    assert (status, message.count("\n")) == (2, 1)
    assert message.startswith("enhance.py: ")
    assert reason in message
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


@pytest.mark.parametrize("model", ["nothing", "text"])
def test_wrong_models_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture, model: str):
    (tmp_path / "text").write_text("no checkpoint")
    put(tmp_path / "a.wav")
    status, message = carried_out(capsys, tmp_path / model, tmp_path / "out", tmp_path / "a.wav")
    assert (status, message.count("\n")) == (2, 1)
    assert model in message
    assert not (tmp_path / "out").exists()


def test_files_that_are_there_are_skipped_unless_overwritten(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    put(tmp_path / "in" / "a.wav")
    put(tmp_path / "in" / "b.wav")
    theirs = put(tmp_path / "out" / "a.wav", rate=8_000).read_bytes()
    status, message = carried_out(capsys, run, tmp_path / "out", tmp_path / "in")
    assert status == 0
    assert message == (
        f"1 of 2 files enhanced into {tmp_path / 'out'}; 1 were there already (--overwrite "
        "replaces them)\n"
    )
    assert (tmp_path / "out" / "a.wav").read_bytes() == theirs
    assert found(tmp_path / "out") == ["a.wav", "b.wav"]
    assert carried_out(capsys, run, tmp_path / "out", tmp_path / "in", "--overwrite")[0] == 0
    assert sf.info(tmp_path / "out" / "a.wav").samplerate == RATE


def put_bad(folder: Path) -> dict[str, str]:
    """Files that cannot be enhanced, and what has to be said of each."""
    folder.mkdir()
    whole = put(folder / "cut.wav", rate=8_000).read_bytes()
    flac = put(folder / "cut.flac").read_bytes()
    (folder / "cut.wav").write_bytes(whole[: len(whole) // 2])
    (folder / "cut.flac").write_bytes(flac[: len(flac) // 2])
    (folder / "text.wav").write_text("this is no audio")
    (folder / "empty.wav").touch()
    sf.write(folder / "none.wav", np.zeros(0), RATE)
    sf.write(folder / "nan.wav", np.r_[sound(0.1), np.nan], RATE, "FLOAT")
    sf.write(folder / "inf.wav", np.r_[np.inf, sound(0.1)], RATE, "FLOAT")
    sf.write(folder / "huge.wav", 1e15 * sound(0.1), RATE, "FLOAT")
    sf.write(folder / "slow.wav", sound(0.1), 400)
    (folder / "gone.wav").symlink_to(folder / "nowhere")
    return {
        "text.wav": "cannot be decoded",
        "empty.wav": "empty: no bytes",
        "none.wav": "empty: no samples",
        "cut.wav": "cut short",
        "cut.flac": "cannot be decoded",
        "nan.wav": "NaN or infinite",
        "inf.wav": "NaN or infinite",
        "huge.wav": "no audio: above 200 dB",
        "slow.wav": "a sampling rate of 400 Hz",
        "gone.wav": "cannot be opened (No such file",
    }


def test_bad_files_are_named_with_a_reason_and_stop_no_others(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    reasons = put_bad(tmp_path / "in")
    for name in ("a.wav", "zz/z.wav"):
        put(tmp_path / "in" / name)
    status, message = carried_out(capsys, run, tmp_path / "out", tmp_path / "in")
    assert status == 1
    *lines, last = message.splitlines()
    assert last == f"2 of 12 files enhanced into {tmp_path / 'out'}; 10 failed"
    assert len(lines) == len(reasons)
    for name, reason in reasons.items():
        (line,) = (line for line in lines if line.startswith(f"{tmp_path / 'in' / name}: "))
        assert reason in line
    assert found(tmp_path / "out") == ["a.wav", "zz/z.wav"]


def test_odd_files_are_enhanced_with_a_note(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    clipped = (30 * sound(0.3)).clip(-1, 1)
    sf.write(tmp_path / "a.wav", clipped, RATE, "PCM_16")
    sf.write(tmp_path / "b.wav", clipped, RATE, "FLOAT")
    sf.write(tmp_path / "c.wav", np.zeros((500, 2)), RATE)
    sf.write(tmp_path / "d.wav", np.full(1, 0.5), 48_000)
    status, message = carried_out(capsys, run, tmp_path / "out", *sorted(tmp_path.glob("*.wav")))
    assert status == 0
    limited, floating, silent, last = message.splitlines()
    assert limited.startswith(f"{tmp_path}/a.wav: clipped: ")
    assert "samples of the result were beyond full scale and are clipped" in limited
    assert "beyond full scale" not in floating
    assert silent == f"{tmp_path}/c.wav: silent"
    assert last.startswith("4 of 4")
    one, other = (sf.read(tmp_path / "out" / f"{name}.wav")[0] for name in "ab")
    assert np.abs(other).max() > 1
    np.testing.assert_allclose(one, other.clip(-1, 1), atol=1e-4)
    assert not sf.read(tmp_path / "out" / "c.wav")[0].any()


def test_a_place_that_cannot_be_written_is_one_files_matter(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    put(tmp_path / "in" / "a.wav")
    put(tmp_path / "in" / "b.wav")
    put(tmp_path / "in" / "sub" / "c.wav")
    (tmp_path / "out" / "a.wav").mkdir(parents=True)
    (tmp_path / "out" / "sub").touch()
    status, message = carried_out(capsys, run, tmp_path / "out", tmp_path / "in", "--overwrite")
    assert (status, message.count("\n")) == (1, 3)
    assert "Is a directory" in message
    assert "File exists" in message
    assert found(tmp_path / "out") == ["b.wav", "sub"]


def command(run: Path, *words: object) -> list[str]:
    return [sys.executable, str(ROOT / "enhance.py"), "--checkpoint", str(run), *map(str, words)]


def test_a_full_disk_leaves_nothing_half_written(run: Path, tmp_path: Path):
    """Here, a limit on the size of a file."""
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
    assert found(tmp_path / "out") == ["small.wav"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_nothing_half_written(run: Path, tmp_path: Path, number: int):
    """In the middle of a file of minutes; what is done is kept."""
    put(tmp_path / "in" / "0.wav")
    sf.write(tmp_path / "in" / "1.wav", np.tile(sound(10), 120), RATE)
    out = tmp_path / "out"
    with started(command(run, tmp_path / "in", "-o", out), new_mark(), cwd=tmp_path) as process:
        while not ((out / "0.wav").exists() and list(out.glob(".*.partial"))):
            assert process.poll() is None
            time.sleep(0.02)
        os.killpg(process.pid, number)
        message = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert message == "enhance.py: interrupted; the same command goes on from here\n"
    assert found(out) == ["0.wav"]


@pytest.mark.slow
def test_memory_does_not_grow_with_length(run: Path, tmp_path: Path):
    """An hour takes no more than three minutes do, but for what the allocator leaves lying."""
    told = (
        "import resource, sys, enhance\n"
        "assert enhance.main(sys.argv[1:]) == 0\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peaks = []
    for minutes in (3, 60):
        path = tmp_path / f"{minutes}.wav"
        sf.write(path, np.tile(sound(60), minutes), RATE)
        words = [sys.executable, "-c", told, path, "-o", tmp_path / "out", "--checkpoint", run]
        result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
        peaks.append(int(result.stdout) / 1024)
    assert peaks[1] < peaks[0] + 50  # MiB; the recording alone would be 220


class Counted(MBSNet):
    """Counts what it enhances."""

    count = 0

    def enhance(self, noisy: Tensor, *arguments: Tensor | None) -> Tensor:
        self.count += 1
        return super().enhance(noisy, *arguments)


def test_enhance_files_makes_each_file_whole_in_the_same_folders(tmp_path: Path):
    network = MBSNet(channels=8).eval()
    noisy = {x: put_at_16_khz(tmp_path / "noisy" / f"{x}.flac") for x in ("a", "sub/b")}
    made = enhance_files(network, noisy, tmp_path / "out", "weights", "network")
    assert made == {name: tmp_path / "out" / f"{name}.wav" for name in noisy}
    expected = network.enhance(torch.from_numpy(read(noisy["sub/b"]))[None])[0]
    assert read(tmp_path / "out" / "sub" / "b.wav") == pytest.approx(expected.numpy(), abs=1e-6)


def test_enhance_files_makes_anew_what_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    network = Counted(channels=8).eval()
    noisy = {x: put_at_16_khz(tmp_path / "noisy" / f"{x}.wav", seed=ord(x)) for x in "abc"}

    def again(made_by: str = "weights") -> int:
        before = network.count
        enhance_files(network, noisy, tmp_path / "out", made_by, "network")
        return network.count - before

    assert [again(), again()] == [3, 0]
    put_at_16_khz(noisy["a"], seed=9)
    (tmp_path / "out" / "b.wav").unlink()
    (tmp_path / "out" / "c.wav").write_bytes((tmp_path / "out" / "c.wav").read_bytes()[:60])
    assert [again(), again()] == [3, 0]
    assert [again("other weights"), again("other weights")] == [3, 0]
    monkeypatch.setattr(files, "_code", lambda: "another version")
    assert again("other weights") == 3


def test_enhance_files_gives_reasons_for_files_that_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    network = MBSNet(channels=8).eval()
    noisy = {name: tmp_path / f"{name}.wav" for name in ("empty", "none", "text")}
    put_at_16_khz(noisy["empty"], seconds=0)
    noisy["text"].write_text("no audio")
    made = enhance_files(network, noisy, tmp_path / "out", "weights", "network")
    assert made["empty"] == f"{noisy['empty']}: empty: no samples"
    assert made["none"] == f"{noisy['none']}: cannot be opened (No such file or directory)"
    assert str(made["text"]).startswith(f"{noisy['text']}: cannot be decoded")
    assert not (tmp_path / "out").exists()

    def full(noisy: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(network, "enhance", full)
    path = put_at_16_khz(tmp_path / "long.wav")
    made = enhance_files(network, {"long": path}, tmp_path / "out", "weights", "network")
    assert made == {"long": f"{path}: too long for the memory of cpu"}
