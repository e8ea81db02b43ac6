"""The command line's ends: refused input, an output that cannot be written, and interruptions."""

from __future__ import annotations

import csv
import os
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
from saved_runs import save_run

import evaluate
from data.audio import read
from evaluation.analysis import analyse
from evaluation.published import Benchmark
from evaluation.scoring import Row, Task

RATE = 16000


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory, tiny_corpus: Path) -> Path:
    """A folder of one file, near.wav."""
    folder = tmp_path_factory.mktemp("clean")
    samples = read(next((tiny_corpus / "test" / "clean").iterdir()))
    soundfile.write(folder / "near.wav", samples[:20000], RATE)
    return folder


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory, clean: Path) -> Path:
    """A corpus whose clean and noisy files have nothing to do with each other."""
    folder = tmp_path_factory.mktemp("apart")
    for side in ("clean", "noisy"):
        (folder / side).mkdir()
        (folder / side / f"{side}.wav").symlink_to(clean / "near.wav")
    return folder


# Refused with status 2 and a message, before anything is scored


@pytest.fixture
def _nothing_is_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> list[Row]:
        raise AssertionError("scoring has started")

    monkeypatch.setattr(evaluate, "score_or_recall", refuse)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "name runs and --data, or --clean and --enhanced"),
        ("run --clean c --enhanced e", "name runs and --data, or --clean and --enhanced"),
        ("run", "runs are scored on a corpus: --data ROOT"),
        ("run --data d --clean c", "--clean and --noisy go with --enhanced"),
        ("run --data d --noisy n", "--clean and --noisy go with --enhanced"),
        ("--enhanced e", "--enhanced needs --clean"),
        ("--clean c --enhanced e --data d", "--data goes with runs"),
        ("--clean c --enhanced e --require-gain", "--require-gain needs --noisy"),
        ("run --data d --workers 0", "--workers is 0, expected 1 to "),
        ("run --data d --workers 1000", "--workers is 1000, expected 1 to "),
        ("run --data d --workers many", "invalid int value: 'many'"),
        ("run --data d --audio -1", "--audio is -1, expected 0 to 2000 MB"),
        ("run --data d --audio nan", "--audio is nan, expected 0 to 2000 MB"),
        ("run --data d --dat e", "unrecognized arguments: --dat"),
    ],
)
def test_wrong_usage(words: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        evaluate.main([*words.split(), "--out", str(tmp_path / "new")])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("_nothing_is_scored")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--clean {none} --enhanced {clean}", "{none}: no such folder"),
        ("--clean {clean} --enhanced {none}", "{none}: no such folder"),
        ("--clean {clean} --enhanced {empty}", "{empty}: no audio in it"),
        ("--clean {clean} --enhanced {clean} --noisy {empty}", "{empty}: no audio in it"),
        ("--clean {clean} --enhanced {corpus}", "{corpus}: no file is named as one in {clean} is"),
        ("{run} --data {apart}", "{apart}: no noisy file is named as a clean one is"),
        ("{none} --data {corpus}", "{none}: no such checkpoint"),
        ("{none} {empty} --data {corpus}", "{none}: no such checkpoint"),
        ("{run} {empty} --data {corpus}", "{empty}/last.pt: no such checkpoint"),
        ("{run} --data {none}", "{none}: no test pairs."),
        ("{run} {run} --data {corpus}", "two runs would be called "),
        ("--clean {clean} --enhanced {clean} --out {file}", "{file}: File exists"),
        ("--clean {clean} --enhanced {clean} --out {file}/x", "{file}/x: Not a directory"),
        ("{run} --data {corpus} --out {file}/x", "{file}/x: Not a directory"),
        ("--clean {clean} --enhanced {loop}", "{loop}: no such folder"),
        ("{run} --data {corpus} --baseline x", "there is no x to compare with; there are: noisy, "),
        (
            "{run} --data {corpus} --out {corpus}/test/noisy/new",
            "--out {corpus}/test/noisy/new would put enhanced files among those of ",
        ),
    ],
)
def test_bad_input(
    words: str,
    message: str,
    tmp_path: Path,
    clean: Path,
    empty: Path,
    apart: Path,
    run: Path,
    tiny_corpus: Path,
    capsys: pytest.CaptureFixture[str],
):
    known = {"none": tmp_path / "none", "file": clean / "near.wav"}
    known |= {"clean": clean, "empty": empty, "run": run, "corpus": tiny_corpus, "apart": apart}
    known["loop"] = empty / "loop"
    known["loop"].symlink_to(known["loop"])
    arguments = words.format(**known).split()
    if "--out" not in arguments:
        arguments += ["--out", str(tmp_path / "new")]
    assert evaluate.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if "checking audio" not in line]
    assert [line for line in lines if line.strip()] == [captured.err.splitlines()[-1]]
    assert lines[-1].lstrip().startswith(f"evaluate.py: {message.format(**known)}")
    assert os.listdir(tmp_path) == ["empty"]


def test_every_file_of_a_corpus_has_its_scores_or_a_reason(
    tmp_path: Path, clean: Path, run: Path, capsys: pytest.CaptureFixture[str]
):
    samples = read(clean / "near.wav")
    good = samples + 0.01 * np.random.default_rng(0).standard_normal(len(samples))
    content = {"good": good, "silent": 0 * samples, "extra": samples, "empty": samples[:0]}
    for side in ("clean", "noisy"):
        (tmp_path / side).mkdir()
    for name, noisy in content.items():
        soundfile.write(tmp_path / "noisy" / f"{name}.wav", noisy, RATE)
        if name != "extra":
            soundfile.write(tmp_path / "clean" / f"{name}.wav", samples, RATE)
    soundfile.write(tmp_path / "clean" / "lost.wav", samples, RATE)
    (tmp_path / "noisy" / "text.wav").write_text("no audio")
    (tmp_path / "clean" / "text.wav").write_bytes((tmp_path / "clean" / "good.wav").read_bytes())
    out = tmp_path / "out"
    words = [str(run), "--data", str(tmp_path), "--out", str(out), "--strict", "--workers", "1"]
    assert evaluate.main(words) == 1
    assert capsys.readouterr().err.endswith("files without all scores: noisy (5), run (4)\n")
    with (out / "per_file.csv").open(newline="") as file:
        lines = {(line["system"], line["utterance"]): line for line in csv.DictReader(file)}
    assert len(lines) == 11  # a file without a clean one is of the system alone that has it
    assert lines.pop(("noisy", "extra"))["note"] == "there is no clean file of that name"
    noisy = tmp_path / "noisy"
    reasons = {
        "good": "",
        "lost": "there is no noisy file of that name",
        "silent": "the enhanced signal is silent or constant",
        "empty": f"{noisy}/empty.wav: empty: no samples",
        "text": f"{noisy}/text.wav: cannot be decoded",
    }
    for name, reason in reasons.items():
        assert lines["run", name]["note"].startswith(reason)
        assert bool(lines["run", name]["pesq_wb"]) == (name == "good")
        assert bool(lines["noisy", name]["note"]) == (name != "good")


def test_strict_minds_nothing_else(tmp_path: Path, clean: Path, tiny_corpus: Path):
    other = tmp_path / "other"
    other.mkdir()
    noisy = read(min((tiny_corpus / "test" / "noisy").iterdir()))[:20000]
    soundfile.write(other / "near.wav", noisy, RATE)
    words = ["--clean", str(clean), "--enhanced", str(other), "--out", str(tmp_path / "out")]
    assert evaluate.main([*words, "--strict", "--workers", "1"]) == 0


def test_a_baseline_that_is_not_there_is_named(
    tmp_path: Path, clean: Path, capsys: pytest.CaptureFixture[str]
):
    words = ["--clean", str(clean), "--enhanced", str(clean), "--out", str(tmp_path)]
    assert evaluate.main([*words, "--baseline", "abl9"]) == 2
    message = capsys.readouterr().err
    assert message == f"evaluate.py: there is no abl9 to compare with; there are: {clean.name}\n"


def test_a_wrong_benchmark_is_told_on_stderr(
    tmp_path: Path,
    clean: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    """Two files stand for the 824 here."""
    samples = read(clean / "near.wav")
    rng = np.random.default_rng(0)
    for name in ("p232_001", "p257_001"):
        for side, noise in (("clean", 0.0), ("noisy", 0.0001)):
            (tmp_path / side).mkdir(exist_ok=True)
            signal = samples + noise * rng.standard_normal(len(samples))
            soundfile.write(tmp_path / side / f"{name}.wav", signal, RATE)
    small = Benchmark("the benchmark", {"p232": 1, "p257": 1}, 1.97, 0.02)
    monkeypatch.setattr(evaluate, "analyse", partial(analyse, benchmark=small))
    noisy = tmp_path / "noisy"
    words = ["--clean", tmp_path / "clean", "--noisy", noisy, "--enhanced", noisy]
    assert evaluate.main([*map(str, words), "--out", str(tmp_path / "o"), "--workers", "1"]) == 0
    assert "Warning: The noisy files are those of the benchmark, but their PESQ is" in caplog.text


# Failures on the way


def score_nothing(tasks: list[Task], workers: int, out: Path) -> list[Row]:
    return [Row(task.system, task.utterance, {}) for task in tasks]


@pytest.mark.parametrize("name", ["summary.json", "table.md", "table.tex", "report.html"])
def test_a_report_that_cannot_be_written_is_named(
    name: str,
    tmp_path: Path,
    clean: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(evaluate, "score_or_recall", score_nothing)
    (tmp_path / name).mkdir()
    arguments = ["--clean", str(clean), "--enhanced", str(clean), "--out", str(tmp_path)]
    assert evaluate.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err == f"evaluate.py: {tmp_path / name}: Is a directory\n"
    assert captured.out == ""


def test_scores_that_cannot_be_kept_are_named(
    tmp_path: Path, clean: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "per_file.csv").mkdir()
    arguments = ["--clean", str(clean), "--enhanced", str(clean), "--out", str(tmp_path)]
    assert evaluate.main([*arguments, "--workers", "1"]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.endswith(f"evaluate.py: {tmp_path / 'per_file.csv'}: Is a directory")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_table_that_cannot_be_printed_is_a_fault(
    tmp_path: Path,
    clean: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(evaluate, "score_or_recall", score_nothing)
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        arguments = ["--clean", str(clean), "--enhanced", str(clean), "--out", str(tmp_path)]
        assert evaluate.main(arguments) == 2
    assert "standard output cannot be written: No space left on device" in capsys.readouterr().err
