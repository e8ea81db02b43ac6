"""Run folders: what is not continued, what is not cleared, and odd things that lie in one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from commands import NARROW, QUICK, refused
from recordings import put_pairs
from saved_runs import change

from abl3.mbs_net import MBSNet
from abl3.train import CONFIG, PRESETS
from training import cli
from training import logging as runlog
from training.logging import CONFIG as CONFIG_FILE
from training.logging import RunLog


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Pairs of four speakers."""
    put_pairs(tmp_path / "train", [f"s{speaker}_{i}.wav" for speaker in range(4) for i in (1, 2)])
    return tmp_path


def test_a_run_folder_that_is_a_file(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (corpus / "run").write_text("")
    message = refused(capsys, "--data", corpus, "--run", corpus / "run", *QUICK, *NARROW)
    assert f"{corpus / 'run'}: File exists" in message


@pytest.mark.parametrize(
    "content", [b"", b"text", b"PK\x03\x04 and nothing more", b"\x80\x04cos\nsystem\n."]
)
def test_what_is_no_checkpoint_is_not_continued(
    content: bytes, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = corpus / "run" / "last.pt"
    last.parent.mkdir()
    last.write_bytes(content)
    message = refused(capsys, "--data", corpus, "--run", last.parent, *QUICK, *NARROW)
    assert f"{last} is damaged, or is not a checkpoint" in message
    assert last.read_bytes() == content


@pytest.mark.parametrize("name", ["model", "ema", "optimizer", "discriminator", "values"])
def test_a_checkpoint_of_another_make_is_not_continued(
    name: str, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = corpus / "run"
    options = ["--data", str(corpus), "--run", str(run), *QUICK, *NARROW]
    cli.main(MBSNet, CONFIG, PRESETS, options)
    change(run / "last.pt", **{name: {"unknown": torch.zeros(3)}})
    assert f"{run / 'last.pt'} does not fit this version's network" in refused(capsys, *options)


def test_a_full_disk_is_told(
    corpus: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **groups: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RunLog, "record", fail)
    options = ["--data", corpus, "--run", corpus / "run", *QUICK, *NARROW]
    message = refused(capsys, *options, status=1)
    assert f"{corpus / 'run'}: No space left on device" in message


@pytest.mark.parametrize("wrong", [["--batch-size", "20"], ["--device", "cuda"]])
def test_what_is_refused_clears_no_run(
    wrong: list[str], corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if wrong[1] == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    options = ["--data", str(corpus), "--run", str(corpus / "run"), *QUICK, *NARROW]
    cli.main(MBSNet, CONFIG, PRESETS, options)
    before = (corpus / "run" / "last.pt").read_bytes()
    refused(capsys, *options, "--fresh", *wrong)
    assert (corpus / "run" / "last.pt").read_bytes() == before


@pytest.mark.parametrize("content", [None, "{}", "no JSON"])
def test_fresh_clears_no_folder_of_something_else(
    content: str | None, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = corpus / "run"
    run.mkdir()
    (run / "best.pt").write_text("mine")
    if content is not None:
        (run / "config.json").write_text(content)
    message = refused(capsys, "--data", corpus, "--run", run, "--fresh", *QUICK, *NARROW)
    assert "it may be somebody else's" in message
    assert (run / "best.pt").read_text() == "mine"


@pytest.mark.parametrize("kind", ["folder", "pipe", "dangling link"])
def test_a_last_checkpoint_that_is_no_file(
    kind: str, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = corpus / "run" / "last.pt"
    last.parent.mkdir()
    if kind == "folder":
        last.mkdir()
    elif kind == "pipe":
        os.mkfifo(last)
    else:
        last.symlink_to("nowhere")
    message = refused(capsys, "--data", corpus, "--run", last.parent, *QUICK, *NARROW)
    assert f"{last} is not a file" in message


@pytest.mark.parametrize("name", ["SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"])
def test_fresh_is_for_the_first_start_only(
    name: str, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--data", str(corpus), "--run", str(corpus / "run"), "--fresh", *QUICK, *NARROW]
    for count, step in (("0", 1), ("1", 2), ("0", 1)):
        monkeypatch.setenv(name, count)
        cli.main(MBSNet, CONFIG, PRESETS, [*options, "--steps", str(step)])
        sessions = json.loads((corpus / "run" / CONFIG_FILE).read_text())["sessions"]
        assert sessions[-1]["first_step"] == step - 1
        assert len(sessions) == step


def test_other_files_are_another_run(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--data", str(corpus), "--run", str(corpus / "run"), *QUICK, *NARROW]
    cli.main(MBSNet, CONFIG, PRESETS, options)
    put_pairs(corpus / "train", ["s9_1.wav"])
    message = refused(capsys, *options, "--steps", "2")
    assert "was trained on other files than are named now" in message


def test_a_run_that_fails_says_so_in_its_folder(
    corpus: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise MemoryError

    options = ["--data", str(corpus), "--run", str(corpus / "run"), *QUICK, *NARROW]
    monkeypatch.setattr(cli.Trainer, "train_step", fail)
    refused(capsys, *options, status=1)
    session = json.loads((corpus / "run" / CONFIG_FILE).read_text())["sessions"][-1]
    assert session["error"] == "MemoryError"
    assert session["last_step"] == 0


def test_a_session_notes_when_it_saves(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that its hours count, even if it is killed afterwards."""
    clock = map(str, range(100))
    monkeypatch.setattr(runlog, "_now", lambda: next(clock))
    options = ["--data", str(corpus), "--run", str(corpus / "run"), *QUICK, *NARROW]
    cli.main(MBSNet, CONFIG, PRESETS, options)
    session = json.loads((corpus / "run" / CONFIG_FILE).read_text())["sessions"][-1]
    started, saved, ended = (int(session[name]) for name in ("started", "saved", "ended"))
    assert 0 == started < saved == ended - 1


def test_names_of_utterances_that_no_file_may_have(corpus: Path) -> None:
    put_pairs(corpus / "valid", [f"v1_{'x' * 240}.wav", "v2_\udcff.wav", "v3_a b.wav"])
    options = ["--data", str(corpus), "--run", str(corpus / "run"), *QUICK, *NARROW]
    cli.main(MBSNet, CONFIG, PRESETS, [*options, "--steps", "4"])
    samples = sorted(path.name for path in (corpus / "run" / "samples").glob("*_clean.wav"))
    assert samples[0].startswith("v1_xxxx")
    assert len(samples[0]) < 120
    assert samples[1:] == ["v2___clean.wav", "v3_a_b_clean.wav"]
