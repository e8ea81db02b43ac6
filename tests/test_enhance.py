"""The command that enhances files and folders: what it makes and refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from enhance_command import RATE, carried_out, files, put
from recordings import sound
from saved_runs import change, save_run
from saved_runs import load as saved

from enhancement.model import load
from enhancement.targets import JOURNAL as NAME
from enhancement.windows import Windows

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


def test_every_kind_comes_back_as_it_was(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for name, rate, channels, subtype in KINDS:
        put(tmp_path / "in" / name, rate=rate, channels=channels, subtype=subtype)
    status, message = carried_out(capsys, run, tmp_path / "out", tmp_path / "in")
    assert status == 0, message
    assert message == f"{len(KINDS)} of {len(KINDS)} files enhanced into {tmp_path / 'out'}\n"
    model = load(run)
    for name, rate, channels, subtype in KINDS:
        before, after = (sf.info(tmp_path / side / name) for side in ("in", "out"))
        assert (after.samplerate, after.channels, after.subtype) == (rate, channels, subtype)
        assert (after.frames, after.format, after.endian) == (
            before.frames,
            before.format,
            before.endian,
        )
        # The samples are those of the Python interface, as exact as the encoding is.
        x = sf.read(tmp_path / "in" / name, dtype="float32", always_2d=True)[0].T
        y = sf.read(tmp_path / "out" / name, dtype="float32", always_2d=True)[0].T
        alike = np.corrcoef(y.ravel(), model(x, rate).ravel())[0, 1]
        lossy = subtype in ("VORBIS", "OPUS", "MPEG_LAYER_III", "ULAW", "PCM_U8")
        assert alike > (0.6 if lossy else 1 - 1e-6), (name, alike)


@pytest.mark.parametrize(
    ("name", "endian"), [("big.wav", "BIG"), ("little.aiff", "LITTLE"), ("little.au", "LITTLE")]
)
def test_the_order_of_bytes_is_kept(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture, name: str, endian: str
) -> None:
    sf.write(tmp_path / name, sound(0.1), RATE, "PCM_16", endian)
    assert carried_out(capsys, run, tmp_path / "out", tmp_path / name)[0] == 0
    before, after = (sf.info(tmp_path / name), sf.info(tmp_path / "out" / name))
    assert (after.endian, after.subtype) == (before.endian, before.subtype) == (endian, "PCM_16")


def test_what_is_said_of_a_recording_is_kept(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "a.flac"
    with sf.SoundFile(path, "w", RATE, 1) as file:
        file.title, file.comment = "Ein Gespräch", "made from nothing"
        file.write(sound(0.1))
    assert carried_out(capsys, run, tmp_path / "out", path)[0] == 0
    with sf.SoundFile(tmp_path / "out" / "a.flac") as file:
        assert (file.title, file.comment) == ("Ein Gespräch", "")


def test_folders_keep_their_structure(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for name in ("one/a.wav", "one/deep/er/b ü.FLAC", "two/a.wav", "c.wav"):
        put(tmp_path / name)
    for name in ("one/notes.txt", "one/.hidden.wav", "one/.cache/x.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("no audio")
    (tmp_path / "one" / "loop").symlink_to(tmp_path / "one")
    out = tmp_path / "single"
    assert carried_out(capsys, run, out, tmp_path / "one", tmp_path / "c.wav")[0] == 0
    assert files(out) == ["a.wav", "c.wav", "deep/er/b ü.FLAC"]
    # Of several folders, each has one of its name.
    out = tmp_path / "both"
    assert carried_out(capsys, run, out, tmp_path / "one", tmp_path / "two")[0] == 0
    assert files(out) == ["one/a.wav", "one/deep/er/b ü.FLAC", "two/a.wav"]
    # An output folder within the input is none of its recordings.
    for _ in range(2):
        assert carried_out(capsys, run, tmp_path / "one" / "out", tmp_path / "one")[0] == 0
    assert files(tmp_path / "one" / "out") == ["a.wav", "deep/er/b ü.FLAC"]


@pytest.mark.parametrize(
    ("words", "out", "reason"),
    [
        (["in"], "in", "lies in the output folder"),
        (["in/a.wav"], "in", "is a recording that is to be enhanced"),
        (["in/sub"], "in", "lies in the output folder"),
        (["in/a.wav", "in/sub/a.wav"], "out", "would both become"),
        (["in", "link.wav"], "linked", "is a recording that is to be enhanced"),
        (["other.wav"], "out", "no such file or folder"),
        (["empty"], "out", "no audio in it"),
        (["in/a.wav"], "in/a.wav", "cannot be written to"),
        (["in/a.wav", "--overwrite"], "in/new/..", "is a recording that is to be enhanced"),
        (["in/a.wav"], "piped", "is not a file"),
        (["odd/.enhanced.jsonl"], "out", "is the name of the journal"),
        (["x" * 300], "out", "no such file or folder"),
        (["in/a.wav", "--jobs", "0"], "out", "--jobs is 0"),
    ],
)
def test_wrong_commands_are_refused_before_anything_is_done(
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    out: str,
    reason: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "in" / "a.wav")
    put(tmp_path / "in" / "sub" / "a.wav")
    put(tmp_path / "link.wav")
    (tmp_path / "empty").mkdir()
    (tmp_path / "linked").mkdir()
    os.link("link.wav", "linked/a.wav")
    put(tmp_path / "odd" / "a.wav").rename(tmp_path / "odd" / NAME)
    (tmp_path / "piped").mkdir()
    os.mkfifo(tmp_path / "piped" / NAME)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    status, message = carried_out(capsys, run, Path(out), *words)
    assert (status, message.count("\n")) == (2, 1)
    assert message.startswith("enhance.py: ")
    assert reason in message
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_one_file_twice_is_one_file(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "in" / "a.wav")
    monkeypatch.chdir(tmp_path)
    _, message = carried_out(capsys, run, Path("out"), "in/a.wav", "in", tmp_path / "in" / "a.wav")
    assert message == "1 of 1 files enhanced into out\n"


@pytest.mark.parametrize("model", ["nothing", "text", "other", "wrong", "nan"])
def test_wrong_models_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture, model: str
) -> None:
    (tmp_path / "text").write_text("no checkpoint")
    (tmp_path / "other").mkdir()
    for name in ("wrong", "nan"):
        save_run(tmp_path / name)
    change(tmp_path / "wrong" / "best.pt", network="baseline.bsrnn:BSRNN")
    weights = saved(tmp_path / "nan" / "best.pt")["ema"]
    weights["model"]["split.bias"][3] = np.nan
    change(tmp_path / "nan" / "best.pt", ema=weights)
    put(tmp_path / "a.wav")
    status, message = carried_out(capsys, tmp_path / model, tmp_path / "out", tmp_path / "a.wav")
    assert (status, message.count("\n")) == (2, 1)
    assert model in message
    assert not (tmp_path / "out").exists()


def test_by_several_processes_it_is_the_same(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        put(Path("in") / f"{number}.wav", rate=8_000 + 4_000 * number)
    Path("in/bad.wav").write_text("no audio")
    for out, jobs in (("one", "1"), ("two", "2")):
        status, message = carried_out(capsys, run, Path(out), "in", "--jobs", jobs)
        assert status == 1
        assert "in/bad.wav: cannot be decoded" in message
        assert f"3 of 4 files enhanced into {out}; 1 failed" in message
    for number in range(3):
        one, two = (sf.read(f"{out}/{number}.wav")[0] for out in ("one", "two"))
        np.testing.assert_allclose(one, two, atol=1e-4)
    lines = [json.loads(line) for line in Path("two", NAME).read_text().splitlines() if line]
    assert {line["file"] for line in lines} == {"0.wav", "1.wav", "2.wav"}


def test_long_files_by_windows(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several windows, the file is what the function makes of all of it."""
    windows = Windows(1.0, 0.2, 0.1)
    monkeypatch.setattr("enhancement.model.Windows", lambda: windows)
    x = np.stack([sound(5, 12_000), sound(5, 12_000, seed=1)])
    sf.write(tmp_path / "a.wav", x.T, 12_000, "FLOAT")
    assert carried_out(capsys, run, tmp_path / "out", tmp_path / "a.wav")[0] == 0
    y = sf.read(tmp_path / "out" / "a.wav", dtype="float32")[0].T
    np.testing.assert_allclose(y, load(run)(x.astype(np.float32), 12_000), atol=1e-7)
