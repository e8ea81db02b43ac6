"""Scoring files in worker processes, and `per_file.csv`, which remembers their scores."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
from pebble import ProcessExpired, ProcessPool
from tqdm import tqdm

from data.audio import CLIPPED, FULL_SCALE, SAMPLE_RATE, AudioError, described, read
from data.utils import sha256_of, write_text
from evaluation.scores import METRICS, definition, score

PER_FILE = "per_file.csv"
COMMON_PART = "samples: the common part is scored"
_TEXTS = ("system", "utterance", "note", "key")
_COLUMNS = [*_TEXTS[:2], *METRICS, *_TEXTS[2:]]
_LIMIT = 600.0  # s that the scoring of one file may take; it takes about one
_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
# Processes that share the cores are much slower where each starts as many threads as there are.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

Scored = tuple[dict[str, float], str]  # scores and a note


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


def score_or_recall(tasks: Sequence[Task], workers: int, out: Path) -> pd.DataFrame:
    """Return a row for each task, in their order, and write them to `out/per_file.csv`.

    Columns: system, utterance, the metrics (NaN where there is no score), note (what is missing and
    why, or was done to the file) and key, a checksum of both files and of the metrics' definition.
    A row of an earlier evaluation with the same key is not scored again. Where scoring is
    interrupted, what is done is written.

    Raises:
        OSError: the file cannot be read or written.
    """
    known = _recalled(out / PER_FILE)
    digest = cache(_digest)  # a clean file is that of many systems
    keys = []
    for task in tasks:
        sides = [digest(task.clean), digest(task.enhanced)]
        whole = "\n".join([definition(), *sides])
        keys.append(hashlib.sha256(whole.encode()).hexdigest() if all(sides) else "")
    rows: dict[int, Scored] = {n: known[key] for n, key in enumerate(keys) if key in known}
    try:
        for number, row in _scored({n: t for n, t in enumerate(tasks) if n not in rows}, workers):
            rows[number] = row
    finally:
        lines = [
            {
                "system": tasks[n].system,
                "utterance": tasks[n].utterance,
                **scores,
                "note": note,
                "key": keys[n] if scores else "",
            }
            for n, (scores, note) in sorted(rows.items())
        ]
        frame = pd.DataFrame(lines, columns=_COLUMNS).astype(dict.fromkeys(METRICS, float))
        # `csv` puts no quotes around a carriage return, which readers take for the end of a line.
        text = frame.replace({name: {"\r": "\\r"} for name in _TEXTS}, regex=True).to_csv(
            index=False, float_format="%.6f", lineterminator="\n"
        )
        write_text(out / PER_FILE, text)
    return frame


def score_file(task: Task) -> Scored:
    """Return the scores of one file, and a note on what was done to it or is missing.

    Of two lengths the common part is scored. Scores are rounded as they are written down.
    """
    if task.clean is None:
        return {}, "there is no clean file of that name"
    if task.enhanced is None:
        return {}, task.reason or "there is no file of that name"
    notes: list[str] = []
    signals = []
    for path, side in ((task.clean, "clean: "), (task.enhanced, "")):
        try:
            rate, channels, _ = described(path)
            signals.append(read(path))
        except AudioError as error:
            return {}, "; ".join([*notes, f"{path}: {error}"])
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
    scores = {name: round(value, 6) for name, value in found.items() if isinstance(value, float)}
    notes += [value for value in found.values() if isinstance(value, str)]
    return scores, "; ".join(dict.fromkeys(notes))


def _scored(tasks: Mapping[int, Task], workers: int) -> Iterator[tuple[int, Scored]]:
    """Yield the number and the scores of each task as soon as they are there."""
    if not tasks:
        return
    context = multiprocessing.get_context(_METHOD)
    with (
        patch.dict(os.environ, _ONE_THREAD),  # for the processes that are started here
        ProcessPool(min(workers, len(tasks)), context=context) as pool,
        tqdm(total=len(tasks), desc="scoring", unit="file", disable=None) as progress,
    ):
        try:
            futures: dict[Future, int] = {
                pool.schedule(score_file, args=[task], timeout=_LIMIT): number
                for number, task in tasks.items()
            }
            for future in as_completed(futures):
                try:
                    row = future.result()
                except TimeoutError:
                    row = {}, f"its scoring took more than {_LIMIT:.0f} s"
                except ProcessExpired:
                    row = {}, "its scoring process died"
                progress.update()
                yield futures[future], row
        finally:
            pool.stop()


def _recalled(path: Path) -> dict[str, Scored]:
    """Return the rows of an earlier evaluation by their keys; {} where they cannot be read."""
    try:
        frame = pd.read_csv(
            path,
            dtype={**dict.fromkeys(_TEXTS, str), **dict.fromkeys(METRICS, float)},
            keep_default_na=False,
            na_values={name: [""] for name in METRICS},
        )
    except (FileNotFoundError, ValueError):  # the latter: damaged, or of an earlier version
        return {}
    if list(frame) != _COLUMNS:
        return {}
    return {
        row["key"]: ({m: row[m] for m in METRICS if not np.isnan(row[m])}, row["note"])
        for row in frame.to_dict("records")
        if row["key"]
    }


def _digest(path: Path | None) -> str:
    """Return a file's checksum, or nothing where it is missing or cannot be read."""
    try:
        return sha256_of(path) if path else ""
    except OSError:
        return ""
