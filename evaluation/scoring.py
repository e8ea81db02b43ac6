"""Scoring files: one task a file, in worker processes that read the audio themselves.

Free of torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data.audio import CLIPPED, FULL_SCALE, SAMPLE_RATE, AudioError, described, read
from data.workers import as_finished
from evaluation.metrics import score

COMMON_PART = "samples: the common part is scored"


@dataclass(frozen=True)
class Task:
    """One enhanced file to be scored against its clean one; None where that is missing.

    system: whose file it is. reason: why there is no enhanced file, where that is known.
    """

    system: str
    utterance: str
    clean: Path | None
    enhanced: Path | None
    reason: str = ""


@dataclass(frozen=True)
class Row:
    """The scores of one file.

    note: what is missing and why, or was done to it; else empty. key: of the files' contents
    (`evaluation.per_file`); empty where the scores are not to be used again.
    """

    system: str
    utterance: str
    scores: Mapping[str, float]
    note: str = ""
    key: str = ""


def score_files(
    tasks: Sequence[Task], workers: int, done: Callable[[int, Row], None] = lambda *_: None
) -> list[Row]:
    """Score all tasks in `workers` processes, with a progress bar; rows in the tasks' order.

    Every task gets a row: with what scores there are, and a note where one is missing.

    done: called with a task's number and its row as soon as that is there.
    """
    rows: dict[int, Row] = {}
    with tqdm(total=len(tasks), desc="scoring", unit="file", disable=None) as progress:
        for number, row in as_finished(score_file, tasks, workers):
            task = tasks[number]
            rows[number] = row or Row(task.system, task.utterance, {}, "its scoring process died")
            done(number, rows[number])
            progress.update()
    return [rows[number] for number in range(len(tasks))]


def score_file(task: Task) -> Row:
    """Score one file; of two lengths the common part. What was done to the files is noted."""
    scores, notes = _scored(task)
    return Row(task.system, task.utterance, scores, "; ".join(dict.fromkeys(notes)))


def _scored(task: Task) -> tuple[dict[str, float], list[str]]:
    if task.clean is None:
        return {}, ["there is no clean file of that name"]
    if task.enhanced is None:
        return {}, [task.reason or "there is no file of that name"]
    notes: list[str] = []
    signals = []
    for path, side in ((task.clean, "clean: "), (task.enhanced, "")):
        try:
            rate, channels, _ = described(path)
            signals.append(read(path))
        except AudioError as error:
            return {}, [*notes, f"{path}: {error}"]
        if rate != SAMPLE_RATE:
            notes.append(f"{side}resampled from {rate} Hz")
        if channels != 1:
            notes.append(f"{side}the mean of {channels} channels")
        share = np.mean(np.abs(signals[-1]) >= FULL_SCALE) if signals[-1].size else 0.0
        if share >= CLIPPED:
            notes.append(f"{side}clipped, {100 * share:.2f} % of its samples at full scale")
    clean, enhanced = signals
    if len(clean) != len(enhanced):
        notes.append(f"{len(enhanced) - len(clean):+d} {COMMON_PART}")
        common = min(len(clean), len(enhanced))
        clean, enhanced = clean[:common], enhanced[:common]
    found = score(clean, enhanced)
    # As many decimals as are written down: scores that are read back must make the same means.
    scores = {name: round(value, 6) for name, value in found.items() if isinstance(value, float)}
    # One cause often fails several metrics: it is noted once.
    return scores, [*notes, *(value for value in found.values() if isinstance(value, str))]


def samples_cut(note: str) -> int:
    """By how many samples the two files of a row differ, as its note says; 0 where it does not."""
    found = re.search(rf"([+-]\d+) {COMMON_PART}", note)
    return abs(int(found[1])) if found else 0
