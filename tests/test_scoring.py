"""Scoring files: what is done to them, in processes, and not again what `per_file.csv` has."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import soxr
from numpy.typing import NDArray

from evaluation import scoring
from evaluation.scores import METRICS, score
from evaluation.scoring import PER_FILE, Task, score_file, score_or_recall

RATE = 16000
Signal = NDArray[Any]


def rewrite(path: Path | None, samples: Signal, rate: int = RATE) -> None:
    assert path
    soundfile.write(path, samples, rate, "FLOAT")


@pytest.fixture
def tasks(tmp_path: Path, speech: tuple[Signal, Signal]) -> list[Task]:
    """Two pairs of files, and one whose enhanced file is not there."""
    clean, noisy = speech
    paths = [tmp_path / f"{name}.wav" for name in ("clean", "a", "b")]
    for path, x in zip(paths, (clean, noisy, (clean + noisy) / 2), strict=True):
        rewrite(path, x)
    made = [Task("x", path.stem, paths[0], path) for path in paths[1:]]
    return [*made, Task("x", "c", paths[0], None)]


# One file


def test_file_has_the_scores_of_its_signals(tasks: list[Task], speech: tuple[Signal, Signal]):
    scores, note = score_file(tasks[0])
    assert note == ""
    assert scores.keys() == METRICS.keys()
    assert scores == pytest.approx(score(*speech), abs=1e-6)
    assert all(value == float(f"{value:.6f}") for value in scores.values())


def test_files_that_are_missing_or_no_audio_have_a_reason(tasks: list[Task], tmp_path: Path):
    clean, enhanced = tasks[0].clean, tasks[0].enhanced
    assert score_file(tasks[2]) == ({}, "there is no file of that name")
    assert score_file(Task("x", "a", None, enhanced)) == ({}, "there is no clean file of that name")
    assert score_file(Task("x", "a", clean, None, "why")) == ({}, "why")
    (tmp_path / "text.wav").write_text("no audio")
    scores, note = score_file(Task("x", "a", clean, tmp_path / "text.wav"))
    assert scores == {}
    assert note.startswith(f"{tmp_path / 'text.wav'}: cannot be decoded")


def test_common_part_of_two_lengths_is_scored(tasks: list[Task], speech: tuple[Signal, Signal]):
    rewrite(tasks[0].enhanced, speech[1][:-100])
    scores, note = score_file(tasks[0])
    assert note == "-100 samples: the common part is scored"
    expected = score(*(side[:-100] for side in speech))
    assert scores == pytest.approx(expected, abs=1e-6)


def test_other_rates_and_channels_are_converted(tasks: list[Task], speech: tuple[Signal, Signal]):
    expected = score_file(tasks[0])[0]
    high = soxr.resample(speech[1], RATE, 48000, quality="VHQ")
    rewrite(tasks[0].enhanced, np.stack([0.5 * high, 1.5 * high], axis=1), 48000)
    scores, note = score_file(tasks[0])
    assert scores == pytest.approx(expected, abs=0.06)  # most in LLR: what is near 8 kHz
    assert note == "resampled from 48000 Hz; the mean of 2 channels"


def test_clipping_is_noted(tasks: list[Task], speech: tuple[Signal, Signal]):
    rewrite(tasks[0].enhanced, np.clip(20 * speech[1], -1, 1))
    scores, note = score_file(tasks[0])
    assert scores.keys() == METRICS.keys()
    assert re.fullmatch(r"clipped, [\d.]+ % of its samples at full scale", note)


def test_a_cause_is_noted_once_and_the_other_scores_are_kept(
    tasks: list[Task], speech: tuple[Signal, Signal]
):
    for path, samples in zip((tasks[0].clean, tasks[0].enhanced), speech, strict=True):
        rewrite(path, samples[6000:8000])
    scores, note = score_file(tasks[0])
    assert set(scores) == {"segsnr", "si_sdr", "snr", "llr", "wss", "wss_float"}
    assert note == (
        "too short for PESQ (a quarter of a second); too little speech for STOI (384 ms)"
    )


# Many files


def misbehaving(task: Task) -> tuple[dict[str, float], str]:
    """Do in the worker what the task's name says; at last, score it."""
    if task.utterance == "dies":
        os._exit(1)
    if task.utterance == "hangs":
        time.sleep(600)
    if task.utterance == "tells":
        return {}, os.environ["OMP_NUM_THREADS"]
    return score_file(task)


def test_a_worker_that_dies_or_hangs_costs_its_own_score_alone(
    tasks: list[Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(scoring, "score_file", misbehaving)
    monkeypatch.setattr(scoring, "_LIMIT", 30.0)
    names = ["dies", "a", "hangs", "b", "tells"]
    both = [Task("x", name, tasks[0].clean, tasks[0].enhanced) for name in names]
    rows = score_or_recall(both, 2, tmp_path)
    assert list(rows["utterance"]) == names
    reasons = ["its scoring process died", "", "its scoring took more than 30 s", "", "1"]
    assert list(rows["note"]) == reasons
    assert rows.loc[1, list(METRICS)].to_dict() == score_file(tasks[0])[0]


# Again


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Score in this process; the names of what is scored are put here."""
    names: list[str] = []

    def scoring_here(tasks: dict[int, Task], workers: int) -> Any:
        for number, task in tasks.items():
            if task.utterance == "stop":
                raise KeyboardInterrupt
            names.append(task.utterance)
            yield number, score_file(task)

    monkeypatch.setattr(scoring, "_scored", scoring_here)
    return names


def test_what_is_known_is_not_scored_again(tmp_path: Path, tasks: list[Task], scored: list[str]):
    first = score_or_recall(tasks, 1, tmp_path)
    before = (tmp_path / PER_FILE).read_bytes()
    assert scored == ["a", "b", "c"]
    scored.clear()
    pd.testing.assert_frame_equal(score_or_recall(tasks, 1, tmp_path), first)
    assert (tmp_path / PER_FILE).read_bytes() == before
    assert scored == ["c"]  # without a score, there may be one now


@pytest.mark.parametrize("side", ["clean", "enhanced"])
def test_another_content_is_scored_anew(
    tmp_path: Path, tasks: list[Task], scored: list[str], side: str
):
    tasks[1] = Task("x", "b", tmp_path / "other.wav", tasks[1].enhanced)
    rewrite(tasks[1].clean, soundfile.read(tasks[0].clean)[0])
    before = score_or_recall(tasks, 1, tmp_path)
    signal, _ = soundfile.read(getattr(tasks[1], side))
    rewrite(getattr(tasks[1], side), signal + 0.01 * np.sin(np.arange(len(signal))))
    scored.clear()
    after = score_or_recall(tasks, 1, tmp_path)
    assert scored == ["b", "c"]
    assert after["pesq_wb"][1] != before["pesq_wb"][1]
    assert after["pesq_wb"][0] == before["pesq_wb"][0]


def test_other_definitions_are_scored_anew(
    tmp_path: Path, tasks: list[Task], scored: list[str], monkeypatch: pytest.MonkeyPatch
):
    score_or_recall(tasks, 1, tmp_path)
    scored.clear()
    monkeypatch.setattr(scoring, "definition", lambda: "pesq 0.0.5")
    score_or_recall(tasks, 1, tmp_path)
    assert scored == ["a", "b", "c"]


def test_an_interrupted_evaluation_goes_on(tmp_path: Path, tasks: list[Task], scored: list[str]):
    with pytest.raises(KeyboardInterrupt):
        score_or_recall([tasks[0], Task("x", "stop", None, None)], 1, tmp_path)
    score_or_recall(tasks, 1, tmp_path)
    assert scored == ["a", "b", "c"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: b"",
        lambda content: b"\x00\xff" * 1000,
        lambda content: content.replace(b"key", b"lock"),
        lambda content: b"\n".join(b"x," + line for line in content.splitlines()),
        lambda content: content.replace(b",1.", b",nan1."),
    ],
)
def test_a_damaged_memory_is_no_memory(
    tmp_path: Path, tasks: list[Task], scored: list[str], spoil: Any
):
    rows = score_or_recall(tasks, 1, tmp_path)
    path = tmp_path / PER_FILE
    path.write_bytes(spoil(path.read_bytes()))
    scored.clear()
    pd.testing.assert_frame_equal(score_or_recall(tasks, 1, tmp_path), rows)
    assert scored == ["a", "b", "c"]


def test_any_name_can_be_read_back(tmp_path: Path, scored: list[str]):
    names = ["a,b", 'a"b', "a\nb", "ä/ö", " a ", "NA", "nan", ""]
    score_or_recall([Task("of | two\nlines", name, None, None) for name in names], 1, tmp_path)
    found = pd.read_csv(tmp_path / PER_FILE, keep_default_na=False)
    assert list(found["utterance"]) == names
    assert set(found["system"]) == {"of | two\nlines"}
    assert list(found) == ["system", "utterance", *METRICS, "note", "key"]
