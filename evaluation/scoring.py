"""Scoring files: one task a file, in worker processes that read the audio themselves.

Free of torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from data.audio import AudioError, read
from data.workers import process_pool
from evaluation.metrics import METRICS, score


@dataclass(frozen=True)
class Task:
    """One enhanced file to be scored against its clean one; None where the file is missing."""

    utterance: str
    clean: Path
    enhanced: Path | None


@dataclass(frozen=True)
class Row:
    """The scores of one file. note: what is missing and why, or was done to it; else empty."""

    utterance: str
    scores: Mapping[str, float]
    note: str = ""


def score_files(tasks: Sequence[Task], workers: int) -> list[Row]:
    """Score all tasks in `workers` processes, with a progress bar; rows in the tasks' order.

    Every task gets a row: with what scores there are, and a note where one is missing.
    """
    rows: dict[int, Row] = {}
    waiting = dict(enumerate(tasks))
    with tqdm(total=len(tasks), desc="scoring", disable=None) as progress:
        while waiting:
            rows |= _score_some(waiting, workers, progress)
            left = [number for number in waiting if number not in rows]
            # A worker died. Files are taken in order, so that it was at one of the first of these.
            for number in left[:workers]:
                died = Row(tasks[number].utterance, {}, "the process scoring it died")
                alone = _score_some({number: tasks[number]}, 1, progress)
                rows[number] = alone.get(number, died)
            waiting = {number: tasks[number] for number in left[workers:]}
    return [rows[number] for number in range(len(tasks))]


def score_file(task: Task) -> Row:
    """Score one file; of two lengths the common part, which the note says."""
    if task.enhanced is None:
        return Row(task.utterance, {}, "there is no enhanced file of that name")
    notes, signals = [], []
    for path in (task.clean, task.enhanced):
        try:
            signals.append(read(path))
        except AudioError as error:
            return Row(task.utterance, {}, f"{path}: {error}")
    clean, enhanced = signals
    if len(clean) != len(enhanced):
        notes.append(f"{len(enhanced) - len(clean):+d} samples: the common part is scored")
        common = min(len(clean), len(enhanced))
        clean, enhanced = clean[:common], enhanced[:common]
    found = score(clean, enhanced, METRICS)
    scores = {name: value for name, value in found.items() if isinstance(value, float)}
    # One cause often fails several metrics: it is noted once.
    notes += dict.fromkeys(value for value in found.values() if isinstance(value, str))
    return Row(task.utterance, scores, "; ".join(notes))


def _score_some(tasks: Mapping[int, Task], workers: int, progress: tqdm) -> dict[int, Row]:
    """Rows under their tasks' numbers; some are missing where a worker died."""
    rows = {}
    pool = process_pool(min(workers, len(tasks)))
    try:
        futures = {pool.submit(score_file, task): number for number, task in tasks.items()}
        for future in as_completed(futures):
            rows[futures[future]] = future.result()
            progress.update()
    except BrokenProcessPool:
        pass
    finally:
        pool.shutdown(cancel_futures=True)
    return rows
