"""Scoring of files, the command line's two modes, what it refuses, and what it judges."""

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import soxr
import torch
from numpy.typing import NDArray
from saved_runs import save_run

from bsbimamba.commands import evaluate
from bsbimamba.data.audio import read, write
from bsbimamba.inference.trained import load_run
from bsbimamba.metrics.scores import METRICS, score
from bsbimamba.report import scoring
from bsbimamba.report.scoring import Task, score_file, score_files

RATE = 16000
Signal = NDArray[Any]


def hiss(samples: int) -> Signal:
    return np.random.default_rng(0).standard_normal(samples).astype(np.float32)


def per_file(out: Path, system: str) -> pd.DataFrame:
    rows = pd.read_csv(out / "per_file.csv", keep_default_na=False, dtype=str)
    return rows[rows["system"] == system].set_index("utterance")


@pytest.fixture(scope="module")
def samples(tiny_corpus: Path) -> Signal:
    """A second and a quarter of clean speech."""
    return read(next((tiny_corpus / "test" / "clean").iterdir()))[:20000]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory, samples: Signal) -> Path:
    """A folder of one file, near.wav."""
    folder = tmp_path_factory.mktemp("clean")
    soundfile.write(folder / "near.wav", samples, RATE)
    return folder


def test_runs_are_scored_and_compared(
    tmp_path: Path, samples: Signal, capsys: pytest.CaptureFixture[str]
):
    run = save_run(tmp_path / "first", seed=0, step=3)
    (run / "config.json").write_text('{"config": {}}')
    line = {"step": 3, "epoch": 0, "valid": {"pesq_wb": 2.0}}
    (run / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    second = save_run(tmp_path / "second", seed=1, step=12_000, name="last.pt")
    signals = {"clean": samples, "noisy": samples + 0.01 * hiss(len(samples))}
    for side, content in signals.items():
        for name in ("a", "sub/b"):
            path = tmp_path / "test" / side / f"{name}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, content, "FLOAT")
    (tmp_path / "test" / "clean" / "lost.wav").write_bytes(path.read_bytes())
    out = tmp_path / "new" / "out"
    words = [run, second / "last.pt", "--data", tmp_path, "--out", out, "--workers", 1]
    assert evaluate.main(list(map(str, words))) == 0
    captured = capsys.readouterr()
    assert captured.out == (out / "table.md").read_text("utf-8")
    assert str(tmp_path.parent) not in captured.out
    content = json.loads((out / "summary.json").read_text("utf-8"))
    assert list(content["models"]) == ["noisy", "first", "second"]  # of unlike steps: two models
    first, second = (content["systems"][name]["facts"] for name in ("first", "second"))
    assert first.items() >= {"checkpoint": "best.pt", "step": 3, "seed": 0}.items()
    assert second.items() >= {"checkpoint": "last.pt", "step": 12_000, "seed": 1}.items()
    network = load_run(run).network
    assert first["parameters"] == sum(p.numel() for p in network.parameters())
    assert "PESQ against crops seen" in (out / "report.html").read_text("utf-8")

    signals["first"] = read(out / "enhanced" / "first" / "sub" / "b.wav")
    expected = network.enhance(torch.from_numpy(signals["noisy"])[None])[0].numpy()
    assert signals["first"] == pytest.approx(expected, abs=1e-5)
    assert {path.name for path in out.iterdir()} == {
        *("per_file.csv", "summary.json", "table.md", "table.tex", "report.html", "enhanced"),
        "curve.png",
    }
    for system in ("noisy", "first"):
        rows = per_file(out, system)
        assert list(rows.index) == ["a", "lost", "sub/b"]
        assert rows["note"]["lost"].startswith("there is no ")
        expected = score(signals["clean"], signals[system], ("stoi", "si_sdr"))
        found = {name: float(rows[name]["sub/b"]) for name in expected}
        assert found == pytest.approx(expected, abs=1e-4)


def test_a_folder_is_scored_whatever_is_in_it(
    tmp_path: Path, samples: Signal, capsys: pytest.CaptureFixture[str]
):
    """Also one called noisy, which must not take the place of the noisy recordings."""
    clean, enhanced, noisy = tmp_path / "clean", tmp_path / "noisy", tmp_path / "recorded"
    noise = hiss(len(samples))
    good = samples + 0.001 * noise
    content = dict.fromkeys(("near", "far/a,b"), good) | {"missing": None, "text": None}
    content["nan"] = np.where(noise > 2, np.nan, good)
    for folder in (clean, enhanced, noisy):
        (folder / "far").mkdir(parents=True)
    for name, x in content.items():
        soundfile.write(clean / f"{name}.wav", samples, RATE)
        if x is not None:
            soundfile.write(enhanced / f"{name}.wav", x, RATE, "FLOAT")
    (enhanced / "text.wav").write_text("not audio")
    for name in ("near", "far/a,b"):
        soundfile.write(noisy / f"{name}.flac", samples + 0.1 * noise, RATE)
    out = tmp_path / "out"
    words = ["--clean", clean, "--enhanced", enhanced, "--noisy", noisy, "--out", out]
    assert evaluate.main([*map(str, words), "--workers", "1", "--require-gain"]) == 0
    text = capsys.readouterr().out
    assert "- noisy: 3 with a note or without a score (missing, nan, text), see" in text
    rows = per_file(out, f"{tmp_path.name}-noisy")
    assert list(rows.index) == sorted(content)
    notes = rows["note"].to_dict()
    assert notes.pop("text").startswith(f"{enhanced / 'text.wav'}: cannot be decoded")
    assert notes == {
        **dict.fromkeys(("near", "far/a,b"), ""),
        "missing": "there is no file of its name",
        "nan": "the enhanced signal has NaN or infinite samples",
    }
    assert rows["pesq_wb"]["near"] == rows["pesq_wb"]["far/a,b"] != ""
    assert list(per_file(out, "noisy").index) == list(rows.index)


def test_faults_and_parts_are_told(tmp_path: Path, samples: Signal):
    """Two of three files are late; the third is longer than PESQ can be of."""
    for folder, lag in (("clean", 0), ("late", 80)):
        (tmp_path / folder).mkdir()
        for name, x in {"a": samples, "b": samples, "long": np.tile(samples, 17)}.items():
            late = np.roll(x, lag * (x is samples)) + 1e-5 * lag * hiss(len(x))
            soundfile.write(tmp_path / folder / f"{name}.wav", late, RATE, "FLOAT")
    words = ["--clean", tmp_path / "clean", "--enhanced", tmp_path / "late", "--out", tmp_path]
    assert evaluate.main([*map(str, words), "--workers", "1"]) == 0
    notes = per_file(tmp_path, "late")["note"]
    assert notes["long"] == "PESQ is the mean over 2 parts of 10.6 s (0 without speech left out)"
    assert notes["a"].startswith("shifted by +5.00 ms (+: late), which costs SI-SDR (dB) ")
    for name in ("table.md", "table.tex", "report.html", "summary.json"):
        text = (tmp_path / name).read_text("utf-8")
        assert f"late: 2 of 3 files, such as a: {notes['a']}." in text


@pytest.mark.parametrize("level", [0.0005, 0.02])
def test_gain_is_demanded(
    level: float, tmp_path: Path, samples: Signal, clean: Path, capsys: pytest.CaptureFixture[str]
):
    noise = hiss(len(samples))
    for folder, gain in (("noisy", 0.005), ("enhanced", level)):
        (tmp_path / folder).mkdir()
        soundfile.write(tmp_path / folder / "near.wav", samples + gain * noise, RATE, "FLOAT")
    words = ["--clean", clean, "--noisy", tmp_path / "noisy", "--enhanced", tmp_path / "enhanced"]
    words += ["--out", tmp_path / "out", "--workers", 1, "--require-gain"]
    assert evaluate.main(list(map(str, words))) == (1 if level > 0.005 else 0)
    assert ("not above the noisy PESQ: enhanced" in capsys.readouterr().err) == (level > 0.005)


@pytest.mark.parametrize(
    "words",
    ["", "run --data d --clean c --enhanced e", "--clean c --enhanced e --require-gain"],
)
def test_wrong_usage(words: str, tmp_path: Path):
    with pytest.raises(SystemExit) as ended:
        evaluate.main([*words.split(), "--out", str(tmp_path / "new")])
    assert ended.value.code == 2
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--clean {none} --enhanced {clean}", "{none}: no such folder"),
        ("--clean {clean} --enhanced {empty}", "{empty}: no audio in it"),
        ("--clean {clean} --enhanced {corpus}/test", "{corpus}/test: of 8 files, 0 are named"),
        ("{none} --data {corpus}", "{none}: no such file or folder, and no shipped model"),
        ("{run} --data {none}", "{none}: no test pairs."),
        ("{run} {run} --data {corpus}", "two runs would be called "),
        ("{run} --data {corpus} --baseline x", "there is no x to compare with; there are: noisy, "),
    ],
)
def test_bad_input(
    words: str,
    message: str,
    tmp_path: Path,
    clean: Path,
    run: Path,
    tiny_corpus: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(evaluate, "score_files", None)
    (tmp_path / "empty").mkdir()
    known = {"none": tmp_path / "none", "clean": clean, "run": run, "corpus": tiny_corpus}
    arguments = words.format(**known, empty=tmp_path / "empty").split()
    assert evaluate.main(["--out", str(tmp_path / "new"), *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    expected = message.format(**known, empty=tmp_path / "empty")
    assert captured.err.splitlines()[-1].startswith(f"evaluate: {expected}")
    assert "0 are named" not in expected or "and 5 more. Clean: near." in captured.err
    assert os.listdir(tmp_path) == ["empty"]


@pytest.fixture
def task(tmp_path: Path, speech: tuple[Signal, Signal]) -> Task:
    """A pair of files."""
    paths = [tmp_path / "clean.wav", tmp_path / "a.wav"]
    for path, samples in zip(paths, speech, strict=True):
        soundfile.write(path, samples, RATE, "FLOAT")
    return Task("x", "a", *paths)


def scored(task: Task, note: str) -> dict[str, float]:
    """The scores of a file that has this note and no faults."""
    row = score_file(task)
    assert (row.pop("note"), row.pop("faults")) == (note, {})
    return row


def test_what_is_done_to_a_file_is_noted(task: Task, speech: tuple[Signal, Signal]):
    expected = scored(task, "")
    assert expected == pytest.approx(score(*speech), abs=1e-6)
    soundfile.write(str(task.enhanced), speech[1][:-100], RATE, "FLOAT")
    scores = scored(task, "-100 samples: the common part is scored")
    assert scores == pytest.approx(score(*(side[:-100] for side in speech)), abs=1e-6)
    high = soxr.resample(speech[1], RATE, 48000, quality="VHQ")
    soundfile.write(str(task.enhanced), np.stack([0.5 * high, 1.5 * high], 1), 48000, "FLOAT")
    scores = scored(task, "resampled from 48000 Hz; the mean of 2 channels")
    assert scores == pytest.approx(expected, abs=0.06)  # most in LLR: what is near 8 kHz


def misbehaving(task: Task) -> dict[str, Any]:
    """Do in the worker what the task's name says; otherwise, score it."""
    if task.utterance == "dies":
        os._exit(1)
    if task.utterance == "hangs":
        time.sleep(600)
    if task.utterance == "tells":
        return {"note": os.environ["OMP_NUM_THREADS"]}
    return score_file(task)


def test_worker_that_dies_or_hangs_costs_its_own_score_alone(
    task: Task, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(scoring, "score_file", misbehaving)
    monkeypatch.setattr(scoring, "_LIMIT", 15.0)
    names = ["dies", "a", "hangs", "b", "tells"]
    rows = score_files([Task("x", name, task.clean, task.enhanced) for name in names], 2)
    assert list(rows["utterance"]) == names
    reasons = ["its scoring process died", "", "its scoring took more than 15 s", "", "1"]
    assert list(rows["note"]) == reasons
    assert rows.loc[1, list(METRICS)].to_dict() == scored(task, "")
