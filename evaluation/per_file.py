"""`per_file.csv`: every file's scores, and the memory of an evaluation that is run again.

A row carries a key made of what its scores depend on (the contents of its two files, and the
metrics' definitions) and of the scores themselves: those that somebody has changed are not taken.
Free of torch.
"""

from __future__ import annotations

import csv
import hashlib
import io
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from data.utils import digest_of, write_text
from evaluation.metrics import METRICS, definition
from evaluation.scoring import Row, Task, score_files

PER_FILE = "per_file.csv"
_COLUMNS = ("system", "utterance", *METRICS, "note", "key")
_CHECK = 16  # characters of a key that its scores decide
_SECONDS = 5.0  # between two times that the rows so far are written down


def score_or_recall(tasks: Sequence[Task], workers: int, out: Path) -> list[Row]:
    """Rows for all tasks, in their order: those known from `out/per_file.csv`, the others scored.

    Rows are written there as they come, so that after an interruption only the rest is scored.

    Raises:
        OSError: they cannot be written.
    """
    path = out / PER_FILE
    known = _known(path)
    digests: dict[Path, str] = {}  # a clean file is that of many systems
    keys = [key_of(task, digests) for task in tasks]
    rows: dict[int, Row] = {}
    for number, (task, key) in enumerate(zip(tasks, keys, strict=True)):
        if key in known:
            rows[number] = replace(known[key], system=task.system, utterance=task.utterance)
    new = [number for number in range(len(tasks)) if number not in rows]
    written = time.monotonic()

    def keep(number: int, row: Row) -> None:
        nonlocal written
        place = new[number]
        # A file that was replaced meanwhile: nobody knows which of the two was scored.
        same = bool(row.scores) and key_of(tasks[place], {}) == keys[place]
        rows[place] = replace(row, key=keys[place] if same else "")
        if time.monotonic() - written > _SECONDS:
            write_rows(path, (rows[n] for n in sorted(rows)))
            written = time.monotonic()

    try:
        score_files([tasks[number] for number in new], workers, keep)
    finally:
        write_rows(path, (rows[n] for n in sorted(rows)))
    return [rows[number] for number in range(len(tasks))]


def key_of(task: Task, digests: dict[Path, str]) -> str:
    """What the scores of a task depend on, hashed; empty where a file cannot be read.

    digests: of files that have been read already; more are put there.
    """
    if task.clean is None or task.enhanced is None:
        return ""
    try:
        contents = [_digest(path, digests) for path in (task.clean, task.enhanced)]
    except OSError:
        return ""
    return hashlib.sha256("\n".join([definition(), *contents]).encode()).hexdigest()


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write the file whole; whoever reads it meanwhile finds the one before."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for row in rows:
        scores = [f"{row.scores[m]:.6f}" if m in row.scores else "" for m in METRICS]
        key = f"{row.key}{_check(row.key, [*scores, row.note])}" if row.key else ""
        writer.writerow([row.system, row.utterance, *scores, row.note, key])
    # `csv` puts no quotes around a carriage return, which readers take for the end of a line.
    write_text(path, text.getvalue().replace("\r", "\\r"))


def _known(path: Path) -> Mapping[str, Row]:
    """The rows of an earlier evaluation by their keys; what is not as written here is left out."""
    found: dict[str, Row] = {}
    if not path.is_file():  # also what is no regular file, as a pipe
        return found
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            for line in csv.DictReader(file):
                if tuple(line) != _COLUMNS or None in line.values():
                    continue
                texts = [line[metric] for metric in METRICS]
                key = line["key"][:-_CHECK]
                if key and line["key"] == key + _check(key, [*texts, line["note"]]):
                    scores = {
                        m: float(text) for m, text in zip(METRICS, texts, strict=True) if text
                    }
                    found[key] = Row("", "", scores, line["note"], key)
    except (OSError, csv.Error):
        return {}
    return found


def _check(key: str, texts: Sequence[str]) -> str:
    """What a row's texts are known by to be those that were written with the key."""
    whole = "\n".join([key, *texts]).encode("utf-8", "backslashreplace")
    return hashlib.sha256(whole).hexdigest()[:_CHECK]


def _digest(path: Path, digests: dict[Path, str]) -> str:
    if path not in digests:
        digests[path] = digest_of([path])
    return digests[path]
