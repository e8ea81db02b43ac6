"""Scoring files: bad ones, converted ones, and what becomes of the rest when a worker dies."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from numpy.typing import NDArray

from evaluation.metrics import METRICS, score
from evaluation.scoring import Row, Task, score_file, score_files

RATE = 16000
Signal = NDArray[Any]


@pytest.fixture(name="speech", scope="module")
def short_speech(speech: tuple[Signal, Signal]) -> tuple[Signal, Signal]:
    """A second and a half of clean and of noisy speech."""
    clean, noisy = (side[RATE // 2 : 2 * RATE].astype(np.float32) for side in speech)
    return clean, noisy


@pytest.fixture
def task(tmp_path: Path, speech: tuple[Signal, Signal]) -> Task:
    """A clean and an enhanced file, to be spoilt by the test."""
    paths = [tmp_path / f"{name}.wav" for name in ("clean", "enhanced")]
    for path, samples in zip(paths, speech, strict=True):
        soundfile.write(path, samples, RATE, "FLOAT")
    return Task("system", "p232_001", *paths)


def rewrite(path: Path | None, samples: Signal, rate: int = RATE) -> None:
    assert path is not None
    soundfile.write(path, samples, rate, "FLOAT")


# One file


def test_a_file_scores_as_its_signals_do(task: Task, speech: tuple[Signal, Signal]):
    row = score_file(task)
    expected = {name: round(value, 6) for name, value in score(*speech).items()}
    assert row == Row("system", "p232_001", expected, "")
    assert row.scores.keys() == METRICS.keys()


def test_a_missing_file_is_noted(task: Task):
    row = score_file(Task("system", task.utterance, task.clean, None))
    assert row == Row("system", "p232_001", {}, "there is no file of that name")
    row = score_file(Task("system", task.utterance, task.clean, None, "there is no memory"))
    assert row.note == "there is no memory"
    row = score_file(Task("system", task.utterance, None, task.enhanced))
    assert row == Row("system", "p232_001", {}, "there is no clean file of that name")


@pytest.mark.parametrize("spoilt", ["clean", "enhanced"])
@pytest.mark.parametrize("content", [b"", b"RIFF", b"some text, called .wav\n", None])
def test_an_unreadable_file_is_named_with_the_reason(
    task: Task, spoilt: str, content: bytes | None
):
    path: Path = getattr(task, spoilt)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    row = score_file(task)
    assert row.scores == {}
    assert row.note.startswith(f"{path}: ")
    assert len(row.note) > len(f"{path}: ")


@pytest.mark.parametrize("difference", [-400, 400])
def test_of_two_lengths_the_common_part_is_scored(
    task: Task, speech: tuple[Signal, Signal], difference: int
):
    clean, noisy = speech
    longer = np.concatenate([noisy, noisy])[: len(noisy) + difference]
    rewrite(task.enhanced, longer)
    common = min(len(clean), len(longer))
    row = score_file(task)
    assert row.scores == pytest.approx(score(clean[:common], longer[:common]), abs=1e-6)
    assert row.note == f"{difference:+d} samples: the common part is scored"


def test_an_empty_file_is_noted(task: Task, speech: tuple[Signal, Signal]):
    rewrite(task.enhanced, np.zeros(0))
    row = score_file(task)
    assert row.scores == {}
    assert row.note.startswith(f"-{len(speech[0])} samples: ")


def test_other_rates_and_channels_are_converted(task: Task, speech: tuple[Signal, Signal]):
    expected = score_file(task).scores
    high = soxr.resample(speech[1], RATE, 48000, quality="VHQ")
    rewrite(task.enhanced, np.stack([0.5 * high, 1.5 * high], axis=1), 48000)
    row = score_file(task)
    assert row.scores == pytest.approx(expected, abs=0.06)  # most in LLR: what is near 8 kHz
    assert row.note == "resampled from 48000 Hz; the mean of 2 channels"
    rewrite(task.clean, soxr.resample(speech[0], RATE, 8000, quality="VHQ"), 8000)
    assert score_file(task).note.startswith("clean: resampled from 8000 Hz; ")


def test_a_clipped_file_is_scored_and_noted(task: Task, speech: tuple[Signal, Signal]):
    rewrite(task.enhanced, np.clip(20 * speech[1], -1, 1))
    row = score_file(task)
    assert row.scores.keys() == METRICS.keys()
    assert re.fullmatch(r"clipped, [\d.]+ % of its samples at full scale", row.note)
    rewrite(task.enhanced, np.append(speech[1][1:], 1))
    assert score_file(task).note == ""  # one sample is none


def test_a_cause_is_noted_once_and_the_other_scores_are_kept(
    task: Task, speech: tuple[Signal, Signal]
):
    for path, samples in zip((task.clean, task.enhanced), speech, strict=True):
        rewrite(path, samples[6000:8000])
    row = score_file(task)
    assert set(row.scores) == {"segsnr", "si_sdr", "snr", "llr", "wss", "wss_float"}
    assert row.note == (
        "too short for PESQ (a quarter of a second); too little speech for STOI (384 ms)"
    )


def test_scores_have_the_decimals_that_are_written_down(task: Task):
    assert all(value == float(f"{value:.6f}") for value in score_file(task).scores.values())


# Many files


class Deadly(str):
    """An utterance whose task ends the process that it is unpacked in."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (1,)


class Question(str):
    """An expression that a task takes to the process that scores it; the row has its value."""

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (str(self),)


def test_no_tasks_no_rows():
    assert score_files([], 2) == []


def test_workers_load_neither_torch_nor_numba(task: Task):
    loaded = Question("sorted({'torch', 'numba', 'pesq'} & __import__('sys').modules.keys())")
    (row,) = score_files([Task("system", loaded, task.clean, None)], 100_000)
    assert row.utterance == ["pesq"]


def test_a_worker_computes_on_one_thread(task: Task):
    """Also its matrix products: more threads than cores cost a factor of five."""
    question = (
        "(lambda np: (np.ones((600, 600)) @ np.ones((600, 600)),"
        " len(__import__('os').listdir('/proc/self/task'))))(__import__('numpy'))[1]"
    )
    if not os.path.isdir("/proc/self/task"):
        pytest.skip("counts threads in /proc")
    (row,) = score_files([Task("system", Question(question), task.clean, None)], 1)
    # Itself, the one that waits for its parent, and the queue's.
    assert int(row.utterance) <= 3


def test_rows_are_handed_over_as_they_come(task: Task):
    seen = {}
    tasks = [task, Task("system", "b", task.clean, None)]
    rows = score_files(tasks, 2, seen.__setitem__)
    assert seen == dict(enumerate(rows))


def test_a_task_that_kills_its_worker_costs_nothing_but_its_own_score(task: Task):
    names = ["b", "a", Deadly("killer"), "c", "a"]
    tasks = [Task("system", name, task.clean, task.enhanced) for name in names]
    tasks[3] = Task("system", "c", task.clean, None)
    rows = score_files(tasks, 2)
    assert rows[2] == Row("system", names[2], {}, "its scoring process died")
    assert rows[:2] + rows[3:] == [score_file(each) for each in tasks[:2] + tasks[3:]]
