"""Enhancing files and folders: what `enhance.py` writes and refuses, and a test set's files."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from conftest import ROOT
from recordings import put as put_at_16_khz
from recordings import sound
from torch import Tensor

import enhance
from abl3.mbs_net import MBSNet
from data.audio import read
from enhance import load
from enhancement.files import enhance_files

RATE = 16_000
KINDS = [
    ("a.wav", 16_000, 1, "PCM_16"),
    ("b.wav", 44_100, 2, "PCM_24"),
    ("c.wav", 192_000, 8, "FLOAT"),
    ("d.wav", 4_000, 1, "PCM_U8"),
    ("f.flac", 22_050, 2, "PCM_16"),
    ("g.ogg", 48_000, 2, "VORBIS"),
    ("h.opus", 24_000, 1, "OPUS"),
    ("i.mp3", 32_000, 1, "MPEG_LAYER_III"),
]


def put(path: Path, *, rate: int = RATE, channels: int = 1, subtype: str | None = None) -> Path:
    """Write 0.8 s whose channels differ; at 192 kHz they are read and written in two blocks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    x = np.stack([sound(0.8, rate, seed=channel) for channel in range(channels)], 1)
    kind = {"opus": "OGG"}.get(path.suffix[1:], path.suffix[1:].upper())
    with sf.SoundFile(path, "w", rate, channels, subtype, format=kind) as file:
        if kind == "FLAC":
            file.title, file.comment = "Ein Gespräch", "made by another program"
        file.write(x)
    return path


def command(
    capsys: pytest.CaptureFixture, run: Path, out: Path, *words: object
) -> tuple[int, list[str]]:
    """Run the command; return its status and the lines on stderr. It prints nothing else."""
    status = enhance.main([*map(str, words), "-o", str(out), "--checkpoint", str(run)])
    printed, message = capsys.readouterr()
    assert printed == ""
    return status, message.splitlines()


def files_in(folder: Path) -> list[str]:
    """Return all files below a folder, hidden ones too."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def test_enhance_keeps_format_rate_channels_length_and_title(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    for name, rate, channels, subtype in KINDS:
        put(tmp_path / "in" / name, rate=rate, channels=channels, subtype=subtype)
    status, lines = command(capsys, run, tmp_path / "out", tmp_path / "in")
    assert status == 0
    assert lines == [f"{len(KINDS)} of {len(KINDS)} files enhanced into {tmp_path / 'out'}"]
    model = load(run)
    for name, rate, _, subtype in KINDS:
        before, after = (sf.info(tmp_path / side / name) for side in ("in", "out"))
        for part in ("samplerate", "channels", "frames", "format", "subtype", "endian"):
            assert getattr(after, part) == getattr(before, part), (name, part)
        # The samples are those of the Python interface, as exact as the encoding is.
        x, y = (sf.read(tmp_path / side / name, dtype="float32", always_2d=True)[0].T
                for side in ("in", "out"))  # fmt: skip
        alike = np.corrcoef(y.ravel(), model(x, rate).ravel())[0, 1]
        lossy = subtype in ("VORBIS", "OPUS", "MPEG_LAYER_III", "PCM_U8")
        assert alike > (0.6 if lossy else 1 - 1e-6), (name, alike)
    with sf.SoundFile(tmp_path / "out" / "f.flac") as file:
        assert (file.title, file.comment) == ("Ein Gespräch", "")


def test_enhance_keeps_the_structure_of_folders(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    for name in ("one/a.wav", "one/deep/er/b ü.FLAC", "two/a.wav", "c.wav"):
        put(tmp_path / name)
    for name in ("one/notes.txt", "one/.hidden.wav"):
        (tmp_path / name).write_text("no audio")
    (tmp_path / "one" / "loop").symlink_to(tmp_path / "one")
    inputs = [tmp_path / "one", tmp_path / "c.wav", tmp_path / "c.wav"]
    assert command(capsys, run, tmp_path / "single", *inputs)[0] == 0
    assert files_in(tmp_path / "single") == ["a.wav", "c.wav", "deep/er/b ü.FLAC"]
    # Of several folders, each has one of its name.
    assert command(capsys, run, tmp_path / "both", tmp_path / "one", tmp_path / "two")[0] == 0
    assert files_in(tmp_path / "both") == ["one/a.wav", "one/deep/er/b ü.FLAC", "two/a.wav"]
    # The files of an output folder within the input are not enhanced again.
    for _ in range(2):
        assert command(capsys, run, tmp_path / "one" / "out", tmp_path / "one")[0] == 0
    assert files_in(tmp_path / "one" / "out") == ["a.wav", "deep/er/b ü.FLAC"]


@pytest.mark.parametrize(
    ("model", "words", "out", "reason"),
    [
        ("", ["in"], "in", "lies in the output folder"),
        ("", ["in/a.wav", "--overwrite"], "in/new/..", "is a recording that is to be enhanced"),
        ("", ["in/a.wav", "in/sub/a.wav"], "out", "would both become"),
        ("", ["other.wav"], "out", "no such file or folder"),
        ("", ["empty"], "out", "no audio in it"),
        ("nothing", ["in"], "out", "no such run folder, checkpoint or model"),
        ("text", ["in"], "out", "text"),
    ],
)
def test_enhance_refuses_wrong_commands_before_it_writes(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch,
    model: str, words: list[str], out: str, reason: str,
):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "in" / "a.wav")
    put(tmp_path / "in" / "sub" / "a.wav")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("no checkpoint")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    status, lines = command(capsys, Path(model) if model else run, Path(out), *words)
    assert (status, len(lines)) == (2, 1)
    assert lines[0].startswith("enhance.py: ")
    assert reason in lines[0]
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_enhance_skips_files_that_exist_unless_overwriting(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    put(tmp_path / "in" / "a.wav")
    put(tmp_path / "in" / "b.wav")
    theirs = put(tmp_path / "out" / "a.wav", rate=8_000).read_bytes()
    status, lines = command(capsys, run, tmp_path / "out", tmp_path / "in")
    assert (status, len(lines)) == (0, 1)
    assert "1 of 2 files enhanced" in lines[0]
    assert "1 were there already (--overwrite replaces them)" in lines[0]
    assert (tmp_path / "out" / "a.wav").read_bytes() == theirs
    assert command(capsys, run, tmp_path / "out", tmp_path / "in", "--overwrite")[0] == 0
    assert sf.info(tmp_path / "out" / "a.wav").samplerate == RATE


def test_enhance_names_files_that_fail_and_does_the_others(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    folder = tmp_path / "in"
    for name in ("a.wav", "b.wav", "sub/c.wav", "zz/z.wav"):
        put(folder / name)
    (tmp_path / "out" / "b.wav").mkdir(parents=True)
    (tmp_path / "out" / "sub").touch()
    for name in ("cut.wav", "cut.flac"):
        content = put(folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
    (folder / "empty.wav").touch()
    sf.write(folder / "nan.wav", np.r_[sound(0.1), np.nan], RATE, "FLOAT")
    (folder / "gone.wav").symlink_to(folder / "nowhere")
    reasons = {
        "b.wav": "Is a directory",
        "sub/c.wav": "File exists",
        "cut.wav": "cut short",
        "cut.flac": "cannot be decoded",
        "empty.wav": "empty: no bytes",
        "nan.wav": "NaN or infinite",
        "gone.wav": "cannot be opened (No such file",
    }
    status, lines = command(capsys, run, tmp_path / "out", folder, "--overwrite")
    assert status == 1
    assert lines.pop() == f"2 of 9 files enhanced into {tmp_path / 'out'}; 7 failed"
    assert len(lines) == len(reasons)
    for name, reason in reasons.items():
        (line,) = (line for line in lines if line.startswith(f"{folder / name}: "))
        assert reason in line
    assert files_in(tmp_path / "out") == ["a.wav", "sub", "zz/z.wav"]


def test_enhance_notes_silence_and_clipping(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    clipped = (30 * sound(0.3)).clip(-1, 1)
    sf.write(tmp_path / "a.wav", clipped, RATE, "PCM_16")
    sf.write(tmp_path / "b.wav", clipped, RATE, "FLOAT")
    sf.write(tmp_path / "c.wav", np.zeros((500, 2)), RATE)
    sf.write(tmp_path / "d.wav", np.stack([0 * clipped, sound(0.3)], 1), RATE)
    inputs = sorted(tmp_path.glob("*.wav"))
    status, lines = command(capsys, run, tmp_path / "out", *inputs)
    limited, floating, silent, half, last = lines
    assert status == 0
    assert limited.startswith(f"{tmp_path}/a.wav: clipped: ")
    assert "samples of the result were beyond full scale and are clipped" in limited
    assert "beyond full scale" not in floating
    assert silent == f"{tmp_path}/c.wav: silent"
    assert half == f"{tmp_path}/d.wav: 1 of 2 channels are silent"
    assert last.startswith("4 of 4")
    one, other = (sf.read(tmp_path / "out" / f"{name}.wav")[0] for name in "ab")
    np.testing.assert_allclose(one, other.clip(-1, 1), atol=1e-4)
    assert not sf.read(tmp_path / "out" / "c.wav")[0].any()


def test_enhance_leaves_nothing_half_written_on_a_full_disk(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    """Here, a limit on the size of a file."""
    put(tmp_path / "in" / "large.wav", rate=48_000)
    put(tmp_path / "in" / "small.wav", rate=4_000)
    before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        status, lines = command(capsys, run, tmp_path / "out", tmp_path / "in")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))
    assert (status, len(lines)) == (1, 2)
    assert lines[0].startswith(f"{tmp_path}/in/large.wav: ")
    assert files_in(tmp_path / "out") == ["small.wav"]


def test_enhance_keeps_whole_files_when_interrupted(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    for name in ("a.wav", "b.wav"):
        put(tmp_path / "in" / name)
    whole, calls = MBSNet.enhance, iter(range(9))

    def interrupted(self: MBSNet, *arguments: Tensor) -> Tensor:
        if next(calls) == 1:
            raise KeyboardInterrupt
        return whole(self, *arguments)

    monkeypatch.setattr(MBSNet, "enhance", interrupted)
    status, lines = command(capsys, run, tmp_path / "out", tmp_path / "in")
    assert status == 130
    assert lines == ["enhance.py: interrupted; the same command goes on from here"]
    assert files_in(tmp_path / "out") == ["a.wav"]


@pytest.mark.slow
def test_memory_does_not_grow_with_length(run: Path, tmp_path: Path):
    """An hour takes no more than three minutes do, but for what the allocator leaves lying."""
    code = (
        "import resource, sys, enhance\n"
        "assert enhance.main(sys.argv[1:]) == 0\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peaks = []
    for minutes in (3, 60):
        path = tmp_path / f"{minutes}.wav"
        sf.write(path, np.tile(sound(60), minutes), RATE)
        words = [sys.executable, "-c", code, path, "-o", tmp_path / "out", "--checkpoint", run]
        result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
        peaks.append(int(result.stdout) / 1024)
    assert peaks[1] < peaks[0] + 50  # MiB; the recording alone would be 220


# A test set, for `evaluate.py`


class Counted(MBSNet):
    """A network that counts what it enhances, and has no memory for more than a second."""

    count = 0

    def enhance(self, noisy: Tensor, *arguments: Tensor | None) -> Tensor:
        if noisy.shape[-1] > RATE:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.count += 1
        return super().enhance(noisy, *arguments)


def test_enhance_files_enhances_whole_files_and_only_what_has_changed(tmp_path: Path):
    network = Counted(channels=8).eval()
    noisy = {x: put_at_16_khz(tmp_path / f"noisy/{x}.flac", seed=3) for x in ("a", "sub/b", "c")}
    out = tmp_path / "out"

    def again(made_by: str = "weights") -> int:
        before = network.count
        made = enhance_files(network, noisy, out, made_by, "network")
        assert made == {name: out / f"{name}.wav" for name in noisy}
        return network.count - before

    assert [again(), again()] == [3, 0]
    expected = network.enhance(torch.from_numpy(read(noisy["sub/b"]))[None])[0]
    assert read(out / "sub" / "b.wav") == pytest.approx(expected.numpy(), abs=1e-6)
    put_at_16_khz(noisy["a"], seed=9)
    (out / "sub" / "b.wav").unlink()
    (out / "c.wav").write_bytes((out / "c.wav").read_bytes()[:60])
    assert [again(), again()] == [3, 0]
    assert [again("other weights"), again("other weights")] == [3, 0]


def test_enhance_files_gives_reasons_for_files_that_fail(tmp_path: Path):
    noisy = {name: tmp_path / f"{name}.wav" for name in ("empty", "none", "long")}
    put_at_16_khz(noisy["empty"], seconds=0)
    put_at_16_khz(noisy["long"], seconds=1.1)
    network = Counted(channels=8).eval()
    made = enhance_files(network, noisy, tmp_path / "out", "weights", "network")
    assert made == {
        "empty": f"{noisy['empty']}: empty: no samples",
        "none": f"{noisy['none']}: cannot be opened (No such file or directory)",
        "long": f"{noisy['long']}: too long for the memory of cpu",
    }
    assert not (tmp_path / "out").exists()
