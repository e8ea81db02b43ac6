"""Enhancing files and folders: what `enhance.py` writes and refuses, and a test set's files."""

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from conftest import ROOT
from recordings import put as put_at_16_khz
from recordings import sound
from torch import Tensor

from abl3.mbs_net import MBSNet
from bsbimamba.commands import enhance
from bsbimamba.data.audio import read
from bsbimamba.inference.files import enhance_files
from bsbimamba.inference.model import load

RATE = 16_000
KINDS = [
    ("a.wav", 44_100, 2, "PCM_24"),
    ("b.wav", 192_000, 8, "FLOAT"),
    ("c.wav", 4_000, 1, "PCM_U8"),
    ("e.ogg", 48_000, 2, "VORBIS"),
    ("g.mp3", 32_000, 1, "MPEG_LAYER_III"),
]


def put(name: str, *, rate: int = RATE, channels: int = 1, subtype: str | None = None) -> Path:
    """Write 0.8 s whose channels differ; at 192 kHz that is more than one block."""
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    x = np.stack([sound(0.8, rate, seed=channel) for channel in range(channels)], 1)
    kind = {"opus": "OGG"}.get(path.suffix[1:], path.suffix[1:].upper())
    sf.write(path, x, rate, subtype, format=kind)
    return path


Command = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def command(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Command:
    """Run `enhance.py` in an empty folder; return its status and the lines on stderr."""
    monkeypatch.chdir(tmp_path)

    def called(*words: str, out: str = "out", model: str | Path = run) -> tuple[int, list[str]]:
        status = enhance.main([*words, "-o", out, "--checkpoint", str(model)])
        return status, capsys.readouterr().err.splitlines()

    return called


def files_in(name: str) -> list[str]:
    """Return all files below a folder, hidden ones too."""
    paths = (path for path in Path(name).rglob("*") if path.is_file())
    return sorted(path.relative_to(name).as_posix() for path in paths)


def test_enhance_keeps_format_rate_channels_and_length(command: Command, run: Path):
    for name, rate, channels, subtype in KINDS:
        put(f"in/{name}", rate=rate, channels=channels, subtype=subtype)
    assert command("in") == (0, [f"{len(KINDS)} of {len(KINDS)} files enhanced into out"])
    model = load(run)
    for name, rate, _, subtype in KINDS:
        before, after = (sf.info(f"{side}/{name}") for side in ("in", "out"))
        for part in ("samplerate", "channels", "frames", "format", "subtype", "endian"):
            assert getattr(after, part) == getattr(before, part), (name, part)
        # The samples equal those of the Python interface, within the precision of the encoding.
        x, y = (sf.read(f"{side}/{name}", dtype="float32")[0].T for side in ("in", "out"))
        alike = np.corrcoef(y.ravel(), model(x, rate).ravel())[0, 1]
        lossy = subtype in ("VORBIS", "MPEG_LAYER_III", "PCM_U8")
        assert alike > (0.6 if lossy else 1 - 1e-6), (name, alike)


def test_enhance_keeps_the_structure_of_folders(command: Command):
    for name in ("one/a.wav", "one/deep/er/b ü.FLAC", "two/a.wav", "c.wav"):
        put(name)
    Path("one/notes.txt").write_text("no audio")
    command("one", "c.wav", "c.wav", out="single")
    assert files_in("single") == ["a.wav", "c.wav", "deep/er/b ü.FLAC"]
    # Each of several folders keeps its name.
    command("one", "two", out="both")
    assert files_in("both") == ["one/a.wav", "one/deep/er/b ü.FLAC", "two/a.wav"]
    # Files of an output folder within the input are not enhanced again.
    for _ in range(2):
        command("one", out="one/out")
    assert files_in("one/out") == ["a.wav", "deep/er/b ü.FLAC"]


def test_enhance_tells_what_it_passes_over(command: Command, caplog: pytest.LogCaptureFixture):
    put("in/a.wav")
    for name in ("b c.m4a", "d.M4A", "e.webm"):
        Path("in", name).write_bytes(bytes(range(200)))
    assert command("in") == (0, ["1 of 1 files enhanced into out"])
    how = "convert such files, as by: ffmpeg -i 'in/b c.m4a' 'in/b c.wav'"
    assert caplog.messages == [f"in: passed over 2 .m4a, 1 .webm; {how}"]
    status, (line, _) = command("in/a.wav", "in/b c.m4a", out="other")
    assert (status, how in line, files_in("other")) == (1, True, ["a.wav"])


WRONG: list[tuple[list[str], dict[str, str], str]] = [
    (["in"], {"out": "in"}, "no audio to enhance, unless in the output folder"),
    (["in/a.wav", "--overwrite"], {"out": "in/new/.."}, "is to be enhanced itself"),
    (["in/a.wav", "in/sub/a.wav"], {}, "would both become"),
    (["other.wav"], {}, "no such file or folder"),
    (["in"], {"model": "nothing"}, "no shipped model"),
    (["in"], {"model": "in/a.wav"}, "a.wav"),
]


def test_enhance_refuses_wrong_commands_before_it_writes(command: Command):
    put("in/a.wav")
    put("in/sub/a.wav")
    before = {name: Path(name).read_bytes() for name in files_in(".")}
    for words, options, reason in WRONG:
        status, (line,) = command(*words, **options)
        assert (status, reason in line) == (2, True), line
        assert before == {name: Path(name).read_bytes() for name in files_in(".")}


def test_enhance_skips_files_that_exist_unless_overwriting(command: Command):
    put("in/a.wav")
    theirs = put("out/a.wav", rate=8_000).read_bytes()
    summary = "0 of 1 files enhanced into out; 1 were there already (--overwrite replaces them)"
    assert command("in") == (0, [summary])
    assert Path("out/a.wav").read_bytes() == theirs
    assert command("in", "--overwrite")[0] == 0
    assert sf.info("out/a.wav").samplerate == RATE


def test_enhance_reports_bad_files_and_does_the_others(command: Command):
    for name in ("a.wav", "b.wav", "sub/c.wav", "cut.wav", "cut.flac"):
        put(f"in/{name}")
    Path("out/b.wav").mkdir(parents=True)
    Path("out/sub").touch()
    for path in Path("in").glob("cut.*"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    Path("in/empty.wav").touch()
    sf.write("in/nan.wav", np.r_[sound(0.1), np.nan], RATE, "FLOAT")
    reasons = {
        "b.wav": "Is a directory",
        "sub/c.wav": "File exists",
        "cut.wav": "cut short",
        "cut.flac": "cannot be decoded",
        "empty.wav": "empty: no bytes",
        "nan.wav": "NaN or infinite",
    }
    status, (*lines, last) = command("in", "--overwrite")
    assert (status, last) == (1, "1 of 7 files enhanced into out; 6 failed")
    found = dict(line.removeprefix("in/").split(": ", 1) for line in lines)
    assert found.keys() == reasons.keys()
    assert all(reason in found[name] for name, reason in reasons.items()), lines
    assert files_in("out") == ["a.wav", "sub"]


def test_enhance_leaves_nothing_half_written_on_a_full_disk(command: Command):
    put("in/large.wav", rate=48_000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))  # stands for the full disk
    try:
        assert command("in")[0] == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert files_in("out") == []


def test_enhance_keeps_whole_files_when_interrupted(
    command: Command, monkeypatch: pytest.MonkeyPatch
):
    for name in ("in/a.wav", "in/b.wav"):
        put(name)
    results = iter([torch.zeros(1, round(0.8 * RATE))])  # the second call raises

    def interrupted(*arguments: Tensor) -> Tensor:
        for result in results:
            return result
        raise KeyboardInterrupt

    monkeypatch.setattr(MBSNet, "enhance", interrupted)
    message = "enhance: interrupted; the same command goes on from here"
    assert command("in") == (130, [message])
    assert files_in("out") == ["a.wav"]


@pytest.mark.slow
def test_memory_does_not_grow_with_length(run: Path, tmp_path: Path):
    # Not `ru_maxrss`: that of a child begins as its parent's.
    code = "import bsbimamba.commands.enhance as e, sys; assert e.main(sys.argv[1:]) == 0;"
    code += "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    peaks = []
    for minutes in (3, 60):
        path = tmp_path / f"{minutes}.wav"
        sf.write(path, np.tile(sound(60), minutes), RATE)
        words = [sys.executable, "-c", code, path, "-o", tmp_path / "out", "--checkpoint", run]
        result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
        peaks.append(int(result.stdout) / 1024)
    # MiB; the recording alone would be 220. The allowance is for what the allocator keeps.
    assert peaks[1] < peaks[0] + 50


class Limited(MBSNet):
    """A network that has no memory for more than a second."""

    def enhance(self, noisy: Tensor, *arguments: Tensor | None) -> Tensor:
        if noisy.shape[-1] > RATE:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().enhance(noisy, *arguments)


def test_enhance_files_enhances_all_and_reports_failures(tmp_path: Path):
    network, out = Limited(channels=8).eval(), tmp_path / "out"
    noisy = {x: put_at_16_khz(tmp_path / f"noisy/{x}.flac", seed=3) for x in ("a", "sub/b", "c")}
    lengths = {"empty": 0, "long": 1.1}
    noisy |= {x: put_at_16_khz(tmp_path / f"{x}.wav", s) for x, s in lengths.items()}
    noisy["none"] = tmp_path / "none.wav"
    reasons = {"empty": "no samples", "long": "too long", "none": "No such file"}
    made = enhance_files(network, noisy, out, "network")
    assert all(reason in str(made.pop(name)) for name, reason in reasons.items())
    assert made == {name: out / f"{name}.wav" for name in ("a", "sub/b", "c")}
    expected = network.enhance(torch.from_numpy(read(noisy["sub/b"]))[None])[0]
    assert read(out / "sub" / "b.wav") == pytest.approx(expected.numpy(), abs=1e-6)
