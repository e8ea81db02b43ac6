"""Scoring of files: conversions, notes, and worker processes that fail."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from numpy.typing import NDArray

from bsbimamba.metrics.scores import METRICS, score
from bsbimamba.report import scoring
from bsbimamba.report.scoring import Task, score_file, score_files

RATE = 16000
Signal = NDArray[Any]


@pytest.fixture
def task(tmp_path: Path, speech: tuple[Signal, Signal]) -> Task:
    """A pair of files."""
    paths = [tmp_path / "clean.wav", tmp_path / "a.wav"]
    for path, samples in zip(paths, speech, strict=True):
        soundfile.write(path, samples, RATE, "FLOAT")
    return Task("x", "a", *paths)


def scored(task: Task, samples: Signal, rate: int = RATE) -> tuple[dict[str, float], str]:
    """Score these samples in the place of the enhanced ones."""
    soundfile.write(str(task.enhanced), samples, rate, "FLOAT")
    return score_file(task)


def test_file_has_the_scores_of_its_signals(task: Task, speech: tuple[Signal, Signal]):
    scores, note = score_file(task)
    assert note == ""
    assert scores.keys() == METRICS.keys()
    assert scores == pytest.approx(score(*speech), abs=1e-6)
    assert all(value == float(f"{value:.6f}") for value in scores.values())


def test_missing_and_undecodable_files_have_a_reason(task: Task, tmp_path: Path):
    clean, enhanced = task.clean, task.enhanced
    assert score_file(Task("x", "a", clean, None)) == ({}, "there is no file of that name")
    assert score_file(Task("x", "a", None, enhanced)) == ({}, "there is no clean file of that name")
    assert score_file(Task("x", "a", clean, "why")) == ({}, "why")
    (tmp_path / "text.wav").write_text("no audio")
    scores, note = score_file(Task("x", "a", clean, tmp_path / "text.wav"))
    assert scores == {}
    assert note.startswith(f"{tmp_path / 'text.wav'}: cannot be decoded")


def test_common_part_of_two_lengths_is_scored(task: Task, speech: tuple[Signal, Signal]):
    scores, note = scored(task, speech[1][:-100])
    assert note == "-100 samples: the common part is scored"
    assert scores == pytest.approx(score(*(side[:-100] for side in speech)), abs=1e-6)


def test_other_rates_and_channels_are_converted(task: Task, speech: tuple[Signal, Signal]):
    expected = score_file(task)[0]
    high = soxr.resample(speech[1], RATE, 48000, quality="VHQ")
    scores, note = scored(task, np.stack([0.5 * high, 1.5 * high], axis=1), 48000)
    assert scores == pytest.approx(expected, abs=0.06)  # most in LLR: what is near 8 kHz
    assert note == "resampled from 48000 Hz; the mean of 2 channels"


def test_clipping_is_noted(task: Task, speech: tuple[Signal, Signal]):
    scores, note = scored(task, np.clip(20 * speech[1], -1, 1))
    assert scores.keys() == METRICS.keys()
    assert re.fullmatch(r"clipped, [\d.]+ % of its samples at full scale", note)


def test_short_file_keeps_the_scores_that_exist(task: Task, speech: tuple[Signal, Signal]):
    soundfile.write(str(task.clean), speech[0][6000:8000], RATE, "FLOAT")
    scores, note = scored(task, speech[1][6000:8000])
    assert set(scores) == {"segsnr", "si_sdr", "snr", "llr", "wss", "wss_float"}
    assert note == (
        "too short for PESQ (a quarter of a second); too little speech for STOI (384 ms)"
    )


def misbehaving(task: Task) -> tuple[dict[str, float], str]:
    """Do in the worker what the task's name says; otherwise, score it."""
    if task.utterance == "dies":
        os._exit(1)
    if task.utterance == "hangs":
        time.sleep(600)
    if task.utterance == "tells":
        return {}, os.environ["OMP_NUM_THREADS"]
    return score_file(task)


def test_worker_that_dies_or_hangs_costs_its_own_score_alone(
    task: Task, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(scoring, "score_file", misbehaving)
    monkeypatch.setattr(scoring, "_LIMIT", 30.0)
    names = ["dies", "a", "hangs", "b", "tells"]
    rows = score_files([Task("x", name, task.clean, task.enhanced) for name in names], 2)
    assert list(rows["utterance"]) == names
    reasons = ["its scoring process died", "", "its scoring took more than 30 s", "", "1"]
    assert list(rows["note"]) == reasons
    assert rows.loc[1, list(METRICS)].to_dict() == score_file(task)[0]
